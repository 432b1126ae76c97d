/* formats/tokenizer/hft_words.c - words to ids: remembered in the thread's table, else merged.
 *
 * A word has the same ids wherever it stands. Up to WORD_BYTES bytes it is looked up by two numbers,
 * up to PHRASE_BYTES by its text; a longer one is merged each time. Text by a well-known pattern goes
 * in batches: the ends of some words are found first, then their slots are computed and asked from
 * memory, then each is compared. */
#include "formats/tokenizer/hft_impl.h"
#include "formats/tokenizer/word_cache.h"

#include <stdlib.h>
#include <string.h>

#define BATCH 256

/* Symbols as they come, and an unknown one that waits for the next to join it. */
struct symbols {
    struct spm_cache *c;
    size_t n;
    bool waits;
};

static int put(const struct hft *t, struct symbols *s, uint32_t id, struct err *e)
{
    int rc = s->n + 1 >= s->c->sym_cap ? spm_merge_room(s->c, s->n + 2, e) : 0;

    if (rc < 0)
        return rc;
    s->c->sym[s->n++] = id;
    if (s->n > 1)
        spm_merge_look(t->v, s->c, (int32_t)s->n - 2, id);
    return 0;
}

static int put_waiting(const struct hft *t, struct symbols *s, struct err *e)
{
    bool waits = s->waits;

    s->waits = false;
    return waits ? put(t, s, (uint32_t)t->unk, e) : 0;
}

/* A character that is no token: its bytes if all of them are, else unknown, else nothing. */
static int put_unknown(const struct hft *t, struct symbols *s, const char *p, size_t n,
                       struct err *e)
{
    bool known = t->byte_fallback;
    int rc = 0;

    for (size_t i = 0; i < n; i++)
        known = known && t->v->byte_id[(unsigned char)p[i]] >= 0;
    for (size_t i = 0; known && i < n && rc == 0; i++)
        rc = put(t, s, (uint32_t)t->v->byte_id[(unsigned char)p[i]], e);
    if (known || t->unk < 0)
        return rc;
    if (!t->fuse_unk)
        rc = put_waiting(t, s, e);
    s->waits = true;
    return rc;
}

/* The same where every byte is a token. */
static int find_bytes(const struct hft *t, struct symbols *s, const char *p, size_t n, struct err *e)
{
    const unsigned char *b = (const unsigned char *)p;
    struct spm_cache *c = s->c;
    int rc = n > c->sym_cap ? spm_merge_room(c, n, e) : 0;

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        c->sym[i] = t->base[b[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        const struct hft_pair *x = &t->pair[b[i]][b[i + 1]];

        c->rank[i] = x->rank;
        c->to[i] = x->id;
    }
    s->n = n;
    return 0;
}

static int find_symbols(const struct hft *t, struct symbols *s, const char *p, size_t n,
                        struct err *e)
{
    int rc = 0;

    if (t->all_bytes)
        return find_bytes(t, s, p, n, e);

    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        const char *q = p + i;
        int64_t id;

        if (t->bytes) {
            unsigned char b = (unsigned char)*q;

            k = 1;
            id = t->base[b] == SYM_NONE ? -1 : (int64_t)t->base[b];
            if (id < 0) {
                rc = put_unknown(t, s, t->alphabet[b].p, (size_t)t->alphabet[b].n, e);
                continue;
            }
        } else {
            unicode_at(q, &k);
            if ((id = hft_map_find(&t->map, q, k)) < 0) {
                rc = put_unknown(t, s, q, k, e);
                continue;
            }
        }
        if (s->waits)
            rc = put_waiting(t, s, e);
        if (rc == 0)
            rc = put(t, s, (uint32_t)id, e);
    }
    return rc < 0 ? rc : put_waiting(t, s, e);
}

/* The token that is the whole word, or -1. */
static int whole(const struct hft *t, struct spm_cache *c, const char *p, size_t n, int32_t *id,
                 struct err *e)
{
    int rc;

    *id = -1;
    if (n > t->longest)
        return 0;
    if (!t->bytes) {
        *id = hft_map_find(&t->map, p, n);
        return 0;
    }
    c->norm.len = 0;
    if ((rc = buf_reserve(&c->norm, 2 * n, e)) < 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)p[i];

        memcpy(c->norm.p + c->norm.len, t->alphabet[b].p, 2);
        c->norm.len += (size_t)t->alphabet[b].n;
    }
    *id = hft_map_find(&t->map, c->norm.p, c->norm.len);
    return 0;
}

static int merge_symbols(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
                         struct spm_ids *out, struct err *e)
{
    struct symbols s = { c, 0, false };
    int rc = find_symbols(t, &s, p, n, e);

    if (rc < 0 || (rc = spm_ids_reserve(out, (int64_t)s.n, e)) < 0)
        return rc;
    if (s.n == 1)
        c->next[0] = 1;
    else if (s.n > 1)
        spm_merge(t->v, c, (int32_t)s.n);
    for (size_t i = 0; i < s.n; i = (size_t)c->next[i])
        out->p[out->len++] = (int32_t)c->sym[i];
    return 0;
}

int hft_merge(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
              struct spm_ids *out, struct err *e)
{
    int32_t id = -1;
    int rc;

    if (t->score)
        return hft_unigram(t, c, p, n, out, e);
    rc = t->ignore_merges ? whole(t, c, p, n, &id, e) : 0;
    if (rc < 0)
        return rc;
    if (id >= 0) {
        if ((rc = spm_ids_reserve(out, 1, e)) == 0)
            out->p[out->len++] = id;
        return rc;
    }
    rc = merge_symbols(t, c, p, n, out, e);
    spm_merge_done(c);
    return rc;
}

static int append(struct spm_ids *out, const int32_t *ids, int64_t n, struct err *e)
{
    int rc = spm_ids_reserve(out, n, e);

    if (rc < 0)
        return rc;
    memcpy(out->p + out->len, ids, (size_t)n * sizeof *ids);
    out->len += n;
    return 0;
}

/* A word of WORD_BYTES + 1 to PHRASE_BYTES bytes. */
static int phrase(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
                  struct spm_ids *out, struct err *e)
{
    struct spm_phrase *w = phrase_slot(c, (const unsigned char *)p, n);
    bool narrow = t->v->vocab <= 65536;
    int32_t ids[PHRASE_IDS];
    int rc;

    if (w->n_bytes == n && memcmp(w->text, p, n) == 0) {
        phrase_ids(w, narrow, ids);
        return append(out, ids, w->n_ids, e);
    }
    c->ids.len = 0;
    if ((rc = hft_merge(t, c, p, n, &c->ids, e)) < 0)
        return rc;
    phrase_keep(w, narrow, p, n, &c->ids);
    return append(out, c->ids.p, c->ids.len, e);
}

/* Ids of a word that are too many for its slot. */
static int put_spilled(const struct spm_cache *c, const struct spm_word *w, struct spm_ids *out,
                       struct err *e)
{
    return append(out, c->spilled.p + (w->ids[0] | (size_t)w->ids[1] << 16), w->ids[2], e);
}

/* False when what has been spilled is much already: the word is then merged each time. */
static bool spill(struct spm_cache *c, struct spm_word *w, const struct spm_ids *ids)
{
    int64_t at = c->spilled.len;

    if (at + ids->len > MAX_SPILLED || append(&c->spilled, ids->p, ids->len, NULL) < 0)
        return false;
    w->n_ids = IS_SPILLED;
    w->ids[0] = (uint16_t)at;
    w->ids[1] = (uint16_t)(at >> 16);
    w->ids[2] = (uint16_t)ids->len; /* one a byte at most */
    return true;
}

/* A word that the table lacks: merged and put in, its slot's last one beside it. */
static __attribute__((noinline)) int missed(const struct hft *t, struct spm_cache *c, const char *p,
                                            size_t n, uint64_t lo, uint64_t hi,
                                            struct spm_ids *out, struct err *e)
{
    struct spm_word w = { .lo = lo, .hi = hi, .n_bytes = (uint8_t)n };
    bool narrow = t->v->vocab <= 65536;
    uint32_t slot = slot_of(lo, hi);
    int rc;

    c->ids.len = 0;
    if ((rc = hft_merge(t, c, p, n, &c->ids, e)) < 0)
        return rc;
    if (fill_word(&w, c->ids.p, c->ids.len, narrow) || spill(c, &w, &c->ids)) {
        c->words[slot ^ 1] = c->words[slot];
        c->words[slot] = w;
    }
    return append(out, c->ids.p, c->ids.len, e);
}

/* The word's key; fewer than 16 bytes may be left behind p. */
ALWAYS_INLINE void key_of(const char *p, size_t n, size_t left, uint64_t *lo, uint64_t *hi)
{
    unsigned char padded[WORD_BYTES] = { 0 };

    if (left >= WORD_BYTES) {
        load_key((const unsigned char *)p, n, lo, hi);
        return;
    }
    memcpy(padded, p, left);
    load_key(padded, n, lo, hi);
}

int hft_word(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
             struct spm_ids *out, struct err *e)
{
    const struct spm_word *w;
    uint64_t lo, hi;
    uint32_t slot;
    int rc;

    word_cache_take(c, t->v->serial);
    if (n > WORD_BYTES)
        return n <= PHRASE_BYTES ? phrase(t, c, p, n, out, e) : hft_merge(t, c, p, n, out, e);
    key_of(p, n, n, &lo, &hi);
    slot = slot_of(lo, hi);
    w = &c->words[slot];
    if (!is_word(w, lo, hi, n) && !is_word(w = &c->words[slot ^ 1], lo, hi, n))
        return missed(t, c, p, n, lo, hi, out, e);
    if (w->n_ids == IS_SPILLED)
        return put_spilled(c, w, out, e);
    if ((rc = spm_ids_reserve(out, 8, e)) == 0)
        out->len = put_word(out->p + out->len, w, t->v->vocab <= 65536) - out->p;
    return rc;
}

struct batch {
    uint32_t end[BATCH], slot[BATCH];
    uint64_t lo[BATCH], hi[BATCH];
};

/* The k words of b, the first of which begins at from. */
ALWAYS_INLINE int encode_batch(const struct hft *t, struct spm_cache *c, struct batch *b,
                               const char *p, size_t n, size_t from, size_t k,
                               struct spm_ids *out, bool narrow, struct err *e)
{
    const struct spm_word *words = c->words;
    size_t at = from;
    int32_t *to;
    int rc;

    for (size_t i = 0; i < k; at = b->end[i++]) {
        size_t len = b->end[i] - at;

        if (len > WORD_BYTES)
            continue;
        key_of(p + at, len, n - at, &b->lo[i], &b->hi[i]);
        b->slot[i] = slot_of(b->lo[i], b->hi[i]);
        __builtin_prefetch(&words[b->slot[i]]);
    }
    if ((rc = spm_ids_reserve(out, (int64_t)(k + 2) * 8, e)) < 0)
        return rc;
    to = out->p + out->len;
    at = from;
    for (size_t i = 0; i < k; at = b->end[i++]) {
        size_t len = b->end[i] - at;
        const struct spm_word *w = NULL;

        if (len <= WORD_BYTES) {
            const struct spm_word *beside = &words[b->slot[i] ^ 1];

            w = &words[b->slot[i]];
            w = is_word(w, b->lo[i], b->hi[i], len) ? w : beside;
            if (!is_word(w, b->lo[i], b->hi[i], len)) {
                w = NULL;
            } else if (w->n_ids != IS_SPILLED) {
                to = put_word(to, w, narrow);
                continue;
            }
        }
        out->len = to - out->p;
        rc = w ? put_spilled(c, w, out, e)
             : len > WORD_BYTES ? hft_word(t, c, p + at, len, out, e)
                                : missed(t, c, p + at, len, b->lo[i], b->hi[i], out, e);
        if (rc < 0 || (rc = spm_ids_reserve(out, (int64_t)(k - i + 2) * 8, e)) < 0)
            return rc;
        to = out->p + out->len;
    }
    out->len = to - out->p;
    return 0;
}

int hft_encode_words(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
                     struct spm_ids *out, struct err *e)
{
    struct batch b;
    int rc = 0;

    word_cache_take(c, t->v->serial);
    for (size_t at = 0, k; at < n && rc == 0; at = b.end[k - 1]) {
        k = words_ends(t->words, p, n, at, b.end, BATCH);
        rc = t->v->vocab <= 65536 ? encode_batch(t, c, &b, p, n, at, k, out, true, e)
                                  : encode_batch(t, c, &b, p, n, at, k, out, false, e);
    }
    return rc;
}
