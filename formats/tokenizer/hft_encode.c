/* formats/tokenizer/hft_encode.c - a text to ids: added tokens are taken out, what lies between them is
 * normalised and encoded by itself. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

struct job {
    const struct hft *t;
    struct spm_cache *c;
    struct spm_ids *out;
    struct err *e;
};
/* A stretch of text that is no added token. */
typedef int plain_fn(const struct job *j, const struct hft_piece *piece);

/* The next place from at on where a token may begin, or n. */
static size_t candidate(const struct hft_finder *f, const char *text, size_t n, size_t at)
{
    const unsigned char *p = (const unsigned char *)text, *q;

    for (; at < n; at++) {
        if (f->first >= 0) {
            if (!(q = memchr(p + at, f->first, n - at)))
                return n;
            at = (size_t)(q - p);
        }
        if (f->one[p[at]] || (at + 1 < n && f->pair[p[at] * 32 + p[at + 1] / 8] >> p[at + 1] % 8 & 1))
            return at;
    }
    return n;
}

static bool is_kind(const char *p, size_t n, bool before, uint64_t bits)
{
    size_t k;

    return n > 0 && unicode_bits(before ? unicode_before(p, n, &k) : unicode_at(p, &k)) & bits;
}

/* A token among words, though it is to be one by itself. */
static bool in_word(const char *p, size_t n, size_t start, size_t stop)
{
    return is_kind(p, start, true, UNI_PLAIN_WORD) ||
           is_kind(p + stop, n - stop, false, UNI_PLAIN_WORD);
}

/* Takes the white space beside it, on the left no more than what was not taken before. */
static void widen(const struct hft_added *a, const char *p, size_t n, size_t from, size_t *start,
                  size_t *stop)
{
    size_t k;

    if (a->lstrip) {
        while (is_kind(p, *start, true, UNI_SPACE)) {
            unicode_before(p, *start, &k);
            *start -= k;
        }
        *start = *start > from ? *start : from;
    }
    while (a->rstrip && is_kind(p + *stop, n - *stop, false, UNI_SPACE)) {
        unicode_at(p + *stop, &k);
        *stop += k;
    }
}

static int put_id(const struct job *j, int32_t id)
{
    int rc = spm_ids_reserve(j->out, 1, j->e);

    if (rc == 0)
        j->out->p[j->out->len++] = id;
    return rc;
}

/* Tokens by the leftmost, of those the longest; the text between them goes to fn. */
static int take_added(const struct job *j, const struct hft_finder *f, const struct hft_piece *in,
                      plain_fn *fn)
{
    size_t from = 0, at = 0;
    int rc = 0;

    while (rc == 0 && f->trie.units && (at = candidate(f, in->p, in->n, at)) < in->n) {
        size_t len = spm_trie_longest(&f->trie, in->p + at, in->n - at), start = at,
               stop = at + len;
        const struct hft_added *a;

        if (len == 0) {
            at++;
            continue;
        }
        a = &j->t->added[spm_trie_find(&f->trie, in->p + at, len)];
        at = stop;
        if (a->single_word && in_word(in->p, in->n, start, stop))
            continue;
        widen(a, in->p, in->n, from, &start, &stop);
        if (start >= stop) /* white space that the token before it took */
            continue;
        if (from < start)
            rc = fn(j, &(struct hft_piece){ in->p + from, start - from, in->at_start && from == 0 });
        if (rc == 0)
            rc = put_id(j, a->id);
        from = stop;
    }
    if (rc == 0 && from < in->n)
        rc = fn(j, &(struct hft_piece){ in->p + from, in->n - from, in->at_start && from == 0 });
    return rc;
}

static bool begins_with_mark(const struct hft_piece *x)
{
    return *x->p == ' ' || (x->n >= 3 && memcmp(x->p, SPACE_MARK, 3) == 0);
}

static int sentences(const struct job *j, const struct hft_piece *x)
{
    const struct hft *t = j->t;
    bool prefix = t->prefix == PREFIX_ALWAYS ? t->after.trie.units == NULL /* else it is there */
                  : t->prefix == PREFIX_NEVER ? false
                  : !begins_with_mark(x) && (t->prefix == PREFIX_UNLESS || x->at_start);

    return spm_bpe_fast(t->v, j->c, x->p, x->n, true, prefix, j->out, j->e);
}

static int encode_piece(const struct job *j, const struct hft_piece *x)
{
    if (j->t->way == WAY_SENTENCES)
        return sentences(j, x);
    if (j->t->way == WAY_WORDS)
        return hft_encode_words(j->t, j->c, x->p, x->n, j->out, j->e);
    return hft_encode_steps(j->t, j->c, x, j->out, j->e);
}

/* What lies between the tokens of the text as it is. */
static int normalize_piece(const struct job *j, const struct hft_piece *x)
{
    const struct hft *t = j->t;
    struct buf b = { 0 };
    struct hft_piece y = *x;
    int rc;

    if (t->n_norm == 0 || (t->nfc_only && unicode_is_nfc(x->p, x->n)) ||
        (t->way == WAY_SENTENCES && !t->after.trie.units))
        return take_added(j, &t->after, x, encode_piece);
    if ((rc = hft_normalize(t, x->p, x->n, &b, j->e)) == 0 && b.len > 0) {
        y.p = b.p;
        y.n = b.len;
        rc = take_added(j, &t->after, &y, encode_piece);
    }
    buf_free(&b);
    return rc;
}

/* Each byte that is no UTF-8 becomes U+FFFD. */
static int mend(const char *p, size_t n, struct buf *out, struct err *e)
{
    size_t bad;
    int rc = 0;

    while (rc == 0 && !utf8_valid(p, n, &bad)) {
        if ((rc = buf_add(out, p, bad, e)) == 0)
            rc = buf_add(out, REPLACEMENT, 3, e);
        p += bad + 1;
        n -= bad + 1;
    }
    return rc < 0 ? rc : buf_add(out, p, n, e);
}

int hft_encode(const struct hft *t, struct spm_cache *c, const char *text, size_t n,
               struct spm_ids *out, struct err *e)
{
    struct job j = { t, c, out, e };
    struct hft_piece all = { text, n, true };
    int64_t len = out->len;
    struct buf b = { 0 };
    int rc = 0;

    if (n == 0)
        return 0;
    if (!utf8_valid(text, n, NULL) && (rc = mend(text, n, &b, e)) == 0) {
        all.p = b.p;
        all.n = b.len;
    }
    if (rc == 0)
        rc = take_added(&j, &t->before, &all, normalize_piece);
    buf_free(&b);
    if (rc < 0)
        out->len = len;
    return rc;
}
