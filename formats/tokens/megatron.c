/* formats/tokens/megatron.c - Megatron's index file; see interop.h and interop.md. */
#include "base/bytes.h"
#include "formats/tokens/interop.h"

#include <string.h>

static const char magic[9] = "MMIDIDX\0"; /* and one more zero */
enum { U8 = 1, I8, I16, I32, I64, F64, F32, U16 };

/* Megatron's code for the type of the ids. Floating point has no width here, so it is
 * refused. */
static int parse_type(struct interop *f, int code, struct err *e)
{
    static const uint32_t width[] = { [U8] = 1, [I8] = 1, [I16] = 2, [I32] = 4, [I64] = 8,
                                      [U16] = 2 };

    if (code < U8 || code > U16 || width[code] == 0)
        return err_set(e, E_DATA, "type %d at byte 17 of the index is %s", code,
                       code == F64 || code == F32 ? "of floating point, no ids" : "unknown");
    f->width = width[code];
    f->is_signed = code != U8 && code != U16;
    return 0;
}

/* Lengths and pointers: sequences lie end to end and fill the tokens' file. Otherwise a small
 * index could name one piece of it a million times. */
static int check_sequences(const struct interop *f, const unsigned char *p, size_t bin_bytes,
                           struct err *e)
{
    const unsigned char *lengths = p + MEGATRON_HEADER_BYTES;
    uint64_t at = 0;

    /* at is the byte where the sequence must begin: where the one before ended. */
    for (int64_t i = 0; i < f->n_seqs; i++) {
        uint32_t len = (uint32_t)get_le(lengths + 4 * i, 4);
        uint64_t pointer = get_le(f->pointers + 8 * i, 8);
        if (pointer != at)
            return err_set(e, E_DATA,
                           "pointer of sequence %lld at byte %zu of the index is %llu, "
                           "must be %llu",
                           (long long)i, (size_t)(f->pointers + 8 * i - p),
                           (unsigned long long)pointer, (unsigned long long)at);
        if (len > INT32_MAX || (uint64_t)len * f->width > bin_bytes - at)
            return err_set(e, E_DATA, "length of sequence %lld at byte %zu of the index is %d, "
                           "with %llu bytes of tokens left", (long long)i,
                           (size_t)(lengths + 4 * i - p), (int32_t)len,
                           (unsigned long long)(bin_bytes - at));
        at += (uint64_t)len * f->width;
    }
    return at == bin_bytes ? 0
                           : err_set(e, E_DATA, "the index tells of %llu bytes of tokens, the "
                                     "file has %zu", (unsigned long long)at, bin_bytes);
}

/* A document is named by its first sequence. There is one bound more than documents: the last
 * bound is the number of sequences. */
static int check_docs(const struct interop *f, const unsigned char *p, struct err *e)
{
    uint64_t before = 0;

    for (int64_t i = 0; i <= f->n_docs; i++) {
        uint64_t seq = get_le(f->docs + 8 * i, 8);
        if (i == 0 ? seq != 0 : seq < before || seq > (uint64_t)f->n_seqs)
            return err_set(e, E_DATA,
                           "document %lld at byte %zu of the index begins at sequence "
                           "%llu of %lld, the one before at %llu",
                           (long long)i, (size_t)(f->docs + 8 * i - p), (unsigned long long)seq,
                           (long long)f->n_seqs, (unsigned long long)before);
        before = seq;
    }
    return before == (uint64_t)f->n_seqs
               ? 0
               : err_set(e, E_DATA, "the documents of the index end at sequence %llu of %lld",
                         (unsigned long long)before, (long long)f->n_seqs);
}

/* What newer versions may append: a byte a sequence, 0 for text. */
static int check_modes(const unsigned char *modes, int64_t n, const unsigned char *p,
                       struct err *e)
{
    for (int64_t i = 0; i < n; i++)
        if (modes[i])
            return err_set(e, E_DATA,
                           "sequence %lld is of mode %d at byte %zu of the index: not "
                           "text",
                           (long long)i, modes[i], (size_t)(modes + i - p));
    return 0;
}

int megatron_parse(struct interop *f, const void *idx, size_t idx_bytes, const void *bin,
                   size_t bin_bytes, struct err *e)
{
    const unsigned char *p = idx;
    uint64_t seqs, docs, all;
    int rc;

    *f = (struct interop){ .ids = bin };
    if (idx_bytes < MEGATRON_HEADER_BYTES || memcmp(p, magic, sizeof magic) != 0)
        return err_set(e, E_DATA,
                       "not Megatron's index: %zu bytes that do not begin with MMIDIDX",
                       idx_bytes);
    if (get_le(p + 9, 8) != 1)
        return err_set(e, E_DATA, "version %llu at byte 9 of the index, this reads 1",
                       (unsigned long long)get_le(p + 9, 8));
    if ((rc = parse_type(f, p[17], e)) < 0)
        return rc;
    seqs = get_le(p + 18, 8);
    docs = get_le(p + 26, 8);
    /* A sequence has a length of 4 bytes and a pointer of 8, a document bound has 8. */
    all = MEGATRON_HEADER_BYTES + 12 * seqs + 8 * docs; /* whole where they are in bounds */
    if (docs < 1 || docs > idx_bytes || seqs > idx_bytes ||
        (idx_bytes != all && idx_bytes != all + seqs))
        return err_set(e, E_DATA,
                       "%llu sequences and %llu document bounds at byte 18 of the index "
                       "are not its %zu bytes",
                       (unsigned long long)seqs, (unsigned long long)docs, idx_bytes);
    f->n_seqs = (int64_t)seqs;
    f->n_docs = (int64_t)docs - 1;
    f->n_ids = (int64_t)(bin_bytes / f->width);
    /* In the file: header, lengths, pointers, document bounds, perhaps modes. */
    f->pointers = p + MEGATRON_HEADER_BYTES + 4 * seqs;
    f->docs = f->pointers + 8 * seqs;
    if ((rc = check_sequences(f, p, bin_bytes, e)) < 0 || (rc = check_docs(f, p, e)) < 0)
        return rc;
    return idx_bytes > all ? check_modes(p + all, f->n_seqs, p, e) : 0;
}

/* Megatron's own choice: uint16 below 65500 ids, else int32. */
uint32_t megatron_width(uint32_t vocab)
{
    return vocab < 65500 ? 2 : 4;
}

void megatron_header(unsigned char out[MEGATRON_HEADER_BYTES], uint32_t vocab, int64_t n_seqs,
                     int64_t n_docs)
{
    memcpy(out, magic, sizeof magic);
    put_le(out + 9, 1, 8);
    out[17] = megatron_width(vocab) == 2 ? U16 : I32;
    put_le(out + 18, (uint64_t)n_seqs, 8);
    put_le(out + 26, (uint64_t)n_docs + 1, 8);
}
