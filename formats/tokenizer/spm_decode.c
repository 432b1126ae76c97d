/* formats/tokenizer/spm_decode.c - ids to text. */
#include "formats/tokenizer/spm_impl.h"

#include <string.h>

/* A piece with its space marks as spaces. */
static int add_piece(struct buf *out, const char *p, size_t n, struct err *e)
{
    int rc = buf_reserve(out, n, e);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(p + i, SPACE_MARK, 3) == 0) {
            out->p[out->len++] = ' ';
            i += 3;
        } else {
            out->p[out->len++] = p[i++];
        }
    }
    return 0;
}

/* What a piece of kind byte, "<0xHH>", stands for. Its form was checked when the model was
 * read. */
static unsigned char byte_of(const struct spm_string *piece)
{
    unsigned v = 0;

    for (const char *p = piece->p + 3; p < piece->p + 5; p++)
        v = v * 16 + (unsigned)(*p <= '9' ? *p - '0' : *p - 'A' + 10);
    return (unsigned char)v;
}

/* n byte pieces in a row: their characters, and U+FFFD for each byte that is of none. Up to
 * four are tried as one character; where they are none, only the first is passed over, as a
 * good character may begin right after it. */
static int add_bytes(const struct spm *m, struct buf *out, const int32_t *ids, int64_t n,
                     struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < n && rc == 0;) {
        unsigned char four[4];
        size_t k = 0, used;

        for (; k < 4 && (int64_t)k < n - i; k++)
            four[k] = byte_of(&m->piece[ids[i + (int64_t)k]]);
        used = spm_utf8(four, k);
        rc = used ? buf_add(out, four, used, e) : buf_add(out, REPLACEMENT, 3, e);
        i += used ? (int64_t)used : 1;
    }
    return rc;
}

/* Byte pieces are collected in bytes until another kind comes, as a character may be made
 * of several. The first space of the text, which encoding put there, is left out: at_start
 * holds until something was written. Where spaces are stripped, pieces lose theirs until
 * something was written; otherwise the first piece alone does, and space_taken says so. */
static int decode(const struct spm *m, const int32_t *ids, int64_t n, struct buf *out,
                  struct err *e)
{
    bool strips = m->norm.dummy_prefix || m->norm.strip_spaces;
    bool at_start = true, space_taken = false;
    int64_t bytes = 0; /* byte pieces that wait */
    size_t from = out->len;
    int rc = 0;

    for (int64_t i = 0; i < n && rc == 0; i++) {
        const struct spm_string *piece = &m->piece[ids[i]];
        int kind = m->kind[piece->value]; /* of a reserved piece of this text, if any */
        size_t skip = 0;

        if (kind == PIECE_BYTE) {
            bytes++;
            continue;
        }
        if ((rc = add_bytes(m, out, ids + i - bytes, bytes, e)) < 0)
            break;
        bytes = 0;
        if (space_taken || out->len > from)
            at_start = false;
        space_taken = false;
        if (kind == PIECE_CONTROL)
            continue;
        if (kind == PIECE_UNKNOWN) {
            rc = buf_add(out, m->unk_surface, strlen(m->unk_surface), e);
            continue;
        }
        if (at_start && strips && piece->n >= 3 && memcmp(piece->p, SPACE_MARK, 3) == 0) {
            skip = 3;
            space_taken = !m->norm.strip_spaces;
        }
        rc = add_piece(out, piece->p + skip, piece->n - skip, e);
    }
    return rc < 0 ? rc : add_bytes(m, out, ids + n - bytes, bytes, e);
}

int spm_decode(const struct spm *m, const int32_t *ids, int64_t n, struct buf *out,
               struct err *e)
{
    struct buf plain = { 0 };
    size_t len = out->len;
    int rc;

    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->vocab)
            return err_set(e, E_DATA, "token id %d at %lld is outside the vocabulary of %lld",
                           (int)ids[i], (long long)i, (long long)m->vocab);
    if (n == 0)
        return 0;
    if (!m->denorm.trie) {
        rc = decode(m, ids, n, out, e);
    } else {
        /* Some models normalise decoded text once more, by a table of their own. */
        if ((rc = decode(m, ids, n, &plain, e)) == 0)
            rc = spm_normalize(&m->denorm, NULL, plain.p, plain.len, out, e);
        buf_free(&plain);
    }
    if (rc < 0)
        out->len = len;
    return rc;
}
