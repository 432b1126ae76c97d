/* formats/tokens/interop.c - raw ids and llm.c's files, and ids of any width; see interop.h. */
#include "formats/tokens/interop.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/magic.h"
#include "formats/tokens/document.h"

#include <stdio.h>
#include <string.h>

/* The magic numbers of llm.c's data files. Version 1 goes with the first, 7 with the second. */
enum { LLMC_U16 = 20240520, LLMC_U32 = 20240801 };

/* Every pair of bytes is an id here, so only an odd size can be wrong. */
int raw_parse(struct interop *f, const void *bytes, size_t nbytes, struct err *e)
{
    if (nbytes % 2)
        return err_set(e, E_DATA, "%zu bytes, an odd number, are not 16-bit ids", nbytes);
    *f = (struct interop){
        .ids = bytes, .width = 2, .n_ids = (int64_t)(nbytes / 2), .n_docs = 1
    };
    return 0;
}

/* UTF-16 without a byte order mark is not refused: ids can look like it by chance. */
int raw_refuse(const char *path, const void *bytes, size_t nbytes, struct err *e)
{
    const struct magic_form *m = magic_of(bytes, nbytes, true);
    const char *what = m && m->form != MAGIC_UTF16_BARE ? m->name : magic_text(bytes, nbytes);

    if (!what)
        return 0;
    err_set(e, E_DATA, "'%s' is %s, not raw 16-bit token ids", path, what);
    if (m && m->form == MAGIC_LFS)
        return err_hint(e, "%s", m->remedy);
    if (m && (m->form == MAGIC_MEGATRON || m->form == MAGIC_LLMC))
        return err_hint(e, "lpack --import %s reads it",
                        m->form == MAGIC_LLMC ? "llmc" : "megatron");
    return err_hint(e, "pack text first (lprep FILE -t tokenizer.model | lpack -o DIR); "
                       "--form raw reads it as ids all the same");
}

bool llmc_is(const void *bytes, size_t nbytes)
{
    const unsigned char *p = bytes;

    return nbytes >= 8 && ((get_le(p, 4) == LLMC_U16 && get_le(p + 4, 4) == 1) ||
                           (get_le(p, 4) == LLMC_U32 && get_le(p + 4, 4) == 7));
}

/* Checks llm.c's header and that the ids after it fill the file exactly. */
int llmc_parse(struct interop *f, const void *bytes, size_t nbytes, struct err *e)
{
    const unsigned char *p = bytes;
    uint32_t magic, version, tokens, want;

    if (nbytes < LLMC_HEADER_BYTES)
        return err_set(e, E_DATA, "%zu bytes are less than llm.c's header of %d", nbytes,
                       LLMC_HEADER_BYTES);
    /* Three numbers of 4 bytes and then zeros, 1024 bytes in all. */
    magic = (uint32_t)get_le(p, 4);
    version = (uint32_t)get_le(p + 4, 4);
    tokens = (uint32_t)get_le(p + 8, 4);
    if (magic != LLMC_U16 && magic != LLMC_U32)
        return err_set(e, E_DATA, "magic %u at byte 0 is not llm.c's, %d or %d", magic,
                       LLMC_U16, LLMC_U32);
    want = magic == LLMC_U16 ? 1 : 7;
    if (version != want)
        return err_set(e, E_DATA, "version %u at byte 4, must be %u with magic %u", version,
                       want, magic);
    *f = (struct interop){ .ids = p + LLMC_HEADER_BYTES, .at = LLMC_HEADER_BYTES, .n_docs = 1,
                           .width = magic == LLMC_U16 ? 2 : 4, .n_ids = tokens };
    if (tokens > (uint32_t)LLMC_MAX_TOKENS ||
        (nbytes - LLMC_HEADER_BYTES) / f->width != tokens ||
        (nbytes - LLMC_HEADER_BYTES) % f->width)
        return err_set(e, E_DATA, "%u tokens of %u bytes at byte 8 do not fit the %zu bytes that "
                       "follow the header", tokens, f->width, nbytes - LLMC_HEADER_BYTES);
    return 0;
}

/* The names of the files that path stands for. */
static int name_files(struct interop_file *x, enum interop_kind kind, const char *path,
                      struct err *e)
{
    size_t n = strlen(path);

    /* 5: ".bin" or ".idx" and the NUL. */
    if (n > sizeof x->ids - 5)
        return err_set(e, E_NOINPUT, "path too long: '%.200s...'", path);
    if (kind != INTEROP_MEGATRON) {
        memcpy(x->ids, path, n + 1);
        return 0;
    }
    /* Either file of the pair, or the part of the name that they share, may be given. */
    if (n > 4 && (strcmp(path + n - 4, ".bin") == 0 || strcmp(path + n - 4, ".idx") == 0))
        n -= 4;
    snprintf(x->ids, sizeof x->ids, "%.*s.bin", (int)n, path);
    snprintf(x->index, sizeof x->index, "%.*s.idx", (int)n, path);
    return 0;
}

/* Maps the file, for Megatron also its index, and checks the header. interop_close unmaps what
 * was mapped, also after a failure. */
int interop_open(struct interop_file *x, enum interop_kind kind, const char *path,
                 struct err *e)
{
    int rc;

    *x = (struct interop_file){ .ids = "" };
    if ((rc = name_files(x, kind, path, e)) < 0 ||
        (*x->index && (rc = file_map(x->index, &x->map[1], &x->nbytes[1], e)) < 0))
        return rc;
    rc = file_map(x->ids, &x->map[0], &x->nbytes[0], e);
    if (rc == E_DATA && *x->index && path_is_file(x->ids)) /* empty: a set without a token */
        rc = 0, x->map[0] = NULL, x->nbytes[0] = 0;
    if (rc < 0)
        return rc;
    /* map[0] has the ids, map[1] Megatron's index. */
    rc = kind == INTEROP_RAW    ? raw_parse(&x->f, x->map[0], x->nbytes[0], e)
         : kind == INTEROP_LLMC ? llmc_parse(&x->f, x->map[0], x->nbytes[0], e)
                                : megatron_parse(&x->f, x->map[1], x->nbytes[1], x->map[0],
                                                 x->nbytes[0], e);
    return rc < 0 ? err_within(e, "'%s'", *x->index ? x->index : x->ids) : 0;
}

void interop_close(struct interop_file *x)
{
    for (int i = 0; i < 2; i++)
        if (x->map[i])
            file_unmap(x->map[i], x->nbytes[i]);
}

/* The id at p as an unsigned number; a negative one is beyond any vocabulary. */
static uint64_t load_one(const unsigned char *p, uint32_t width, bool is_signed)
{
    uint64_t v = get_le(p, (int)width);

    /* The highest of the 8 * width bits is the sign. */
    return is_signed && v >> (8 * width - 1) ? UINT64_MAX : v;
}

/* Ids of 4 bytes, and of 2 without a sign, can be loaded as they are in one fast pass; the
 * other widths go id by id. */
int interop_load(const struct interop *f, int64_t start, int64_t n, uint32_t vocab,
                 uint32_t *ids, struct err *e)
{
    const unsigned char *p = f->ids + (size_t)start * f->width;
    uint64_t v = 0;
    int64_t bad = 0;

    if (f->width == 4 || (f->width == 2 && !f->is_signed)) { /* a negative id is a large one */
        ids_load(ids, p, f->width, n);
        if ((bad = ids_bad(ids, n, vocab)) < 0)
            return 0;
    } else {
        for (; bad < n; bad++) {
            if ((v = load_one(p + (size_t)bad * f->width, f->width, f->is_signed)) >= vocab)
                break;
            ids[bad] = (uint32_t)v;
        }
        if (bad == n)
            return 0;
    }
    err_set(e, E_DATA, "token %lld at byte %llu is id %lld, not below the vocabulary of %u",
            (long long)(start + bad),
            (unsigned long long)(f->at + (size_t)(start + bad) * f->width),
            (long long)get_le(p + (size_t)bad * f->width, (int)f->width), vocab);
    return err_hint(e, "was another tokenizer used? -t or --vocab says how many ids there are");
}

/* Tokens [*start, *start + *n) of document i. Without a table of documents the whole file is
 * one. */
void interop_doc(const struct interop *f, int64_t i, int64_t *start, int64_t *n)
{
    int64_t at[2] = { 0, f->n_ids };

    for (int k = 0; k < 2 && f->docs; k++) {
        uint64_t seq = get_le(f->docs + 8 * (i + k), 8);
        /* The bound behind the last sequence has no pointer: it is the end of the ids. */
        at[k] = seq == (uint64_t)f->n_seqs
                    ? f->n_ids
                    : (int64_t)(get_le(f->pointers + 8 * seq, 8) / f->width);
    }
    *start = at[0];
    *n = at[1] - at[0];
}

uint32_t llmc_width(uint32_t vocab)
{
    return token_width(vocab);
}

void llmc_header(unsigned char out[LLMC_HEADER_BYTES], uint32_t vocab, int64_t n_tokens)
{
    memset(out, 0, LLMC_HEADER_BYTES);
    put_le(out, llmc_width(vocab) == 2 ? LLMC_U16 : LLMC_U32, 4);
    put_le(out + 4, llmc_width(vocab) == 2 ? 1 : 7, 4);
    put_le(out + 8, (uint64_t)n_tokens, 4);
}
