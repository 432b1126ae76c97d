/* formats/tokenizer/spm_encode.c - the ways to encode a text, by what the model asks for. */
#include "formats/tokenizer/spm_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void spm_ids_free(struct spm_ids *v)
{
    free(v->p);
    *v = (struct spm_ids){ 0 };
}

int spm_ids_reserve(struct spm_ids *v, int64_t extra, struct err *e)
{
    int64_t cap = v->cap ? v->cap : 256;
    int32_t *p;

    if (extra <= v->cap - v->len)
        return 0;
    while (cap - v->len < extra)
        cap *= 2;
    if (!(p = realloc(v->p, (size_t)cap * sizeof *p)))
        return err_set(e, E_SYS, "out of memory for %lld ids", (long long)cap);
    v->p = p;
    v->cap = cap;
    return 0;
}

/* Unknown text: its bytes, or one unk for as many as follow one another. */
static int put_unknown(const struct spm *m, const char *text, size_t n, int64_t first,
                       struct spm_ids *out, struct err *e)
{
    int rc;

    /* A row of unknown characters is one unk, but not across the start of this text's ids. */
    if (!m->byte_fallback) {
        if (out->len > first && out->p[out->len - 1] == m->unk)
            return 0;
        n = 1;
    }
    if ((rc = spm_ids_reserve(out, (int64_t)n, e)) < 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        out->p[out->len++] = m->byte_fallback ? m->byte_id[(unsigned char)text[i]] : m->unk;
    return 0;
}

/* Appends the id of a piece, or what stands for it where text has none or may not have it. */
int spm_put(const struct spm *m, int32_t id, const char *text, size_t n, int64_t first,
            struct spm_ids *out, struct err *e)
{
    int rc;

    if (m->kind[id] == PIECE_UNKNOWN)
        return put_unknown(m, text, n, first, out, e);
    if (m->kind[id] == PIECE_CONTROL)
        return err_set(e, E_DATA, "the text has '%.*s', which this model reserves",
                       n < 100 ? (int)n : 100, text);
    if (out->len == out->cap && (rc = spm_ids_reserve(out, 1, e)) < 0)
        return rc;
    out->p[out->len++] = id;
    return 0;
}

/* Char models: each character, or user-defined symbol, is a piece by itself or unknown. */
static int encode_chars(const struct spm *m, const char *text, size_t n, struct spm_ids *out,
                        struct err *e)
{
    int64_t first = out->len;
    int rc = 0;

    for (size_t i = 0, used; i < n && rc == 0; i += used) {
        used = m->user.units ? spm_trie_longest(&m->user, text + i, n - i) : 0;
        if (used == 0 && (used = char_bytes((unsigned char)text[i])) > n - i)
            used = n - i;
        rc = spm_put(m, spm_find(m, text + i, used), text + i, used, first, out, e);
    }
    return rc;
}

/* Words: each space mark starts one. */
static int encode_words(const struct spm *m, const char *text, size_t n, struct spm_ids *out,
                        struct err *e)
{
    int64_t first = out->len;
    size_t from = 0, used;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i += used) {
        used = char_bytes((unsigned char)text[i]);
        if (used > n - i)
            used = n - i;
        if (i > from && used == 3 && memcmp(text + i, SPACE_MARK, 3) == 0) {
            rc = spm_put(m, spm_find(m, text + from, i - from), text + from, i - from, first,
                         out, e);
            from = i;
        }
    }
    if (rc == 0 && n > from)
        rc = spm_put(m, spm_find(m, text + from, n - from), text + from, n - from, first, out,
                     e);
    return rc;
}

/* By fragments where that is safe; broken UTF-8 and models that are not local go as a
 * whole. */
static int encode_bpe(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                      bool whole, struct spm_ids *out, struct err *e)
{
    struct spm_part all = { text, n, false, false, true };

    if (!m->bpe.local && c->split_cap < (size_t)m->vocab) {
        void *p = realloc(c->split, (size_t)m->vocab * sizeof *c->split);

        if (!p)
            return err_set(e, E_SYS, "out of memory for %lld pieces", (long long)m->vocab);
        c->split = p;
        c->split_cap = (size_t)m->vocab;
    }
    if (m->bpe.fast && !whole && utf8_valid(text, n, NULL))
        return spm_bpe_fast(m, c, text, n, false, false, out, e);
    return spm_bpe_encode(m, c, &all, out->len, out, e);
}

/* The four types of models; BPE skips the normal form where raw text will do. */
static int encode(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                  bool whole, struct spm_ids *out, struct err *e)
{
    int rc;

    if (m->type == 2 && m->bpe.raw && !whole)
        return spm_bpe_fast(m, c, text, n, true, m->norm.dummy_prefix, out, e);
    c->norm.len = 0;
    rc = spm_normalize(&m->norm, &m->user, text, n, &c->norm, e);
    if (rc < 0 || c->norm.len == 0)
        return rc;
    switch (m->type) {
    case 1:
        return spm_unigram_encode(m, c, c->norm.p, c->norm.len, out, e);
    case 2:
        return encode_bpe(m, c, c->norm.p, c->norm.len, whole, out, e);
    case 3:
        return encode_words(m, c->norm.p, c->norm.len, out, e);
    default:
        return encode_chars(m, c->norm.p, c->norm.len, out, e);
    }
}

static int checked(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                   bool whole, struct spm_ids *out, struct err *e)
{
    int64_t len = out->len;
    int rc;

    if (n == 0)
        return 0;
    if (n > SPM_MAX_TEXT_BYTES)
        return err_set(e, E_DATA, "a text of %zu bytes is too long to tokenise at once (limit %zu)",
                       n, SPM_MAX_TEXT_BYTES);
    if ((rc = encode(m, c, text, n, whole, out, e)) < 0)
        out->len = len;
    return rc;
}

int spm_encode(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
               struct spm_ids *out, struct err *e)
{
    return checked(m, c, text, n, false, out, e);
}

int spm_encode_whole(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                     struct spm_ids *out, struct err *e)
{
    return checked(m, c, text, n, true, out, e);
}
