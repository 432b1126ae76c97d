/* formats/tokenizer/hft_meaning.c - a hash of what a tokenizer does, the same from each form of its file. */
#include "formats/tokenizer/hft_impl.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* Numbers are hashed as 8 bytes, little-endian: the same on every machine. */
static void put(XXH3_state_t *h, uint64_t v)
{
    unsigned char b[8];

    put_le(b, v, 8);
    XXH3_128bits_update(h, b, sizeof b);
}

static void put_text(XXH3_state_t *h, const char *p, size_t n)
{
    put(h, n);
    XXH3_128bits_update(h, p, n);
}

/* Pairs by rank, and by what they make where that is the same for both: rank files and scores know the
 * order of what is made alone. */
struct order {
    struct spm_pair *v;
    size_t n;
};

static int by_rank(const void *a, const void *b)
{
    const struct spm_pair *x = a, *y = b;

    return x->rank != y->rank ? (x->rank < y->rank ? -1 : 1)
           : x->id != y->id   ? (x->id < y->id ? -1 : 1)
           : x->left != y->left ? (x->left < y->left ? -1 : 1)
                                : 0;
}

/* All pairs of a model, whichever table they are in; without those that make marks alone, whose scores
 * are equal, so that their order is not known from a list of merges. */
static int gather(const struct spm *m, struct order *o, struct err *e)
{
    size_t slots = spm_bpe_slots(&m->bpe);

    if (!(o->v = malloc((slots + 1) * sizeof *o->v)))
        return err_set(e, E_SYS, "out of memory for %zu merges", slots);
    for (size_t i = 0; i < slots; i++) {
        struct spm_pair p;

        if (spm_bpe_slot(&m->bpe, i, &p) && !hft_is_marks(&m->piece[p.id]))
            o->v[o->n++] = p;
    }
    qsort(o->v, o->n, sizeof *o->v, by_rank);
    return 0;
}

/* Of each symbol the pair that makes it, and its rank, or: */
enum { MADE_OF_NONE = -1,    /* no pair makes it */
       MADE_LATER = -2,      /* some do, of higher ranks than those seen */
       MADE_UNSURE = -3,     /* by a pair whose halves are made after it, or of such */
       MADE_NEVER = RANK_NONE };
struct made {
    uint32_t *left, *right;
    int32_t *rank;
};

/* Whether l and r, whole, can lie side by side when all pairs of a rank below 'before' are merged: no
 * pair over their border came first. The two that touch there are looked at back in time, the later made
 * taken apart; of pairs of one rank the left goes first. */
static bool stands(const struct spm *m, const struct made *x, uint32_t l, uint32_t r, int32_t before)
{
    uint32_t id;

    while (spm_bpe_merge(&m->bpe, l, r, &id) >= before) {
        if (x->rank[l] > x->rank[r]) {
            before = x->rank[l];
            l = x->right[l];
        } else if (x->rank[r] != MADE_OF_NONE) {
            before = x->rank[r] + 1;
            r = x->left[r];
        } else {
            return true;
        }
    }
    return false;
}

/* Of n pairs in a row that make one token: leaves the one that ever merges, or those of which that is not
 * sure, at 'to'; returns how many. */
static size_t leave_one(const struct spm *m, struct made *x, const struct spm_pair *v, size_t n,
                        struct spm_pair *to)
{
    uint32_t id = v->id;
    size_t kept = 0;
    bool sure = x->rank[id] != MADE_UNSURE;

    if (x->rank[id] >= 0) /* it is made already */
        return 0;
    for (size_t i = 0; i < n; i++) {
        const struct spm_pair p = v[i];
        int32_t l = x->rank[p.left], r = x->rank[p.right];

        if (l == MADE_NEVER || r == MADE_NEVER)
            continue;
        if (l < MADE_OF_NONE || r < MADE_OF_NONE) {
            sure = false;
        } else if (stands(m, x, p.left, p.right, p.rank)) {
            x->left[id] = p.left;
            x->right[id] = p.right;
            x->rank[id] = p.rank;
            *to = p;
            return 1;
        }
        to[kept++] = p;
    }
    x->rank[id] = sure ? MADE_NEVER : MADE_UNSURE;
    return sure ? 0 : kept;
}

/* Leaves of the pairs, in order, those that ever merge: some files list all ways to make a token, some
 * the one by which merges come to it. */
static int leave_standing(const struct spm *m, struct order *o, struct err *e)
{
    size_t n = (size_t)m->vocab + m->bpe.n_extra, kept = 0;
    struct made x = { malloc(n * sizeof *x.left + 1), malloc(n * sizeof *x.right + 1),
                      malloc(n * sizeof *x.rank + 1) };
    int rc = x.left && x.right && x.rank ? 0 : err_set(e, E_SYS, "out of memory for %zu tokens", n);

    for (size_t i = 0; i < n && rc == 0; i++)
        x.rank[i] = MADE_OF_NONE;
    for (size_t i = 0; i < o->n && rc == 0; i++)
        x.rank[o->v[i].id] = MADE_LATER;
    for (size_t i = 0, k; i < o->n && rc == 0; i = k) {
        for (k = i + 1; k < o->n && o->v[k].id == o->v[i].id;)
            k++;
        kept += leave_one(m, &x, o->v + i, k - i, o->v + kept);
    }
    if (rc == 0)
        o->n = kept;
    free(x.left);
    free(x.right);
    free(x.rank);
    return rc;
}

/* Tokens with their texts, but for special ones, and in which order they are made. */
static int put_model(XXH3_state_t *h, const struct spm *m, const unsigned char *special, bool bytes,
                     struct err *e)
{
    struct order o = { 0 };
    int rc = gather(m, &o, e);

    if (rc == 0 && bytes)
        rc = leave_standing(m, &o, e);

    for (int64_t id = 0; id < m->vocab && rc == 0; id++)
        if (!(special && special[id]) && (m->kind[id] == PIECE_NORMAL ||
                                          m->kind[id] == PIECE_USER || m->kind[id] == PIECE_BYTE)) {
            put(h, (uint64_t)id);
            put_text(h, m->piece[id].p, m->piece[id].n);
        }
    for (size_t i = 0, k; i < o.n && rc == 0; i = k) {
        uint64_t sum = 0; /* of all pairs for one token that follow one another: their order is free */

        for (k = i; k < o.n && o.v[k].id == o.v[i].id; k++)
            sum += spm_mix(o.v[k].left, o.v[k].right);
        put(h, o.v[i].id);
        put(h, sum);
    }
    free(o.v);
    return rc;
}

static void put_steps(XXH3_state_t *h, const struct hft_step *s, int n)
{
    put(h, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        put(h, (uint64_t)s[i].kind << 32 | (uint64_t)s[i].form << 16 | (uint64_t)s[i].behaviour);
        put(h, (uint64_t)s[i].invert | (uint64_t)s[i].left << 1 | (uint64_t)s[i].right << 2 |
                   (uint64_t)s[i].each << 3 | (uint64_t)s[i].prefix << 4 | (uint64_t)s[i].scheme << 5);
        put_text(h, s[i].text ? s[i].text : "", s[i].text_len);
        put_text(h, s[i].to ? s[i].to : "", s[i].to_len);
        put_text(h, s[i].words ? words_name(s[i].words) : "",
                 s[i].words ? strlen(words_name(s[i].words)) : 0);
        put_text(h, s[i].regex ? s[i].regex : "", s[i].regex ? strlen(s[i].regex) : 0);
    }
}

/* A known pattern by its name, however it is written; else each step. */
static void put_way(XXH3_state_t *h, const struct hft *t)
{
    put(h, t->way);
    put(h, (uint64_t)t->bytes | (uint64_t)t->byte_fallback << 1 |
               (uint64_t)(t->way != WAY_SENTENCES && t->fuse_unk) << 2);
    if (t->way == WAY_WORDS) {
        put_text(h, words_name(t->words), strlen(words_name(t->words)));
        put_steps(h, t->norm, t->n_norm);
    } else {
        put_steps(h, t->norm, t->n_norm);
        put_steps(h, t->cut, t->n_cut);
    }
}

/* How it takes what is beside it changes the ids of a text; most take nothing. */
static void put_added(XXH3_state_t *h, const struct hft_added *a)
{
    uint64_t takes = (uint64_t)a->lstrip | (uint64_t)a->rstrip << 1 | (uint64_t)a->single_word << 2;

    if (!a->special || takes) {
        put(h, (uint64_t)a->id);
        put_text(h, a->content, a->n);
    }
    if (takes)
        put(h, takes);
}

/* Words that are tokens as a whole need no merges to be them: where merges lead there anyway, the flag
 * says nothing, so it is not hashed. Special tokens are not either: they differ between a model and what
 * was made of it, and no text makes them but their own names; those that take white space are. */
int hft_meaning(const struct hft *t, char hex[33], struct err *e)
{
    unsigned char *special = calloc((size_t)t->v->vocab, 1);
    XXH3_state_t *h = XXH3_createState();
    int rc = h && special ? 0 : err_set(e, E_SYS, "out of memory");

    if (h)
        XXH3_128bits_reset(h);
    for (size_t i = 0; i < t->n_added && rc == 0; i++)
        special[t->added[i].id] = t->added[i].special;
    if (rc == 0 && t->way == WAY_SENTENCES) {
        put(h, WAY_SENTENCES);
        put(h, t->prefix != PREFIX_NEVER);
    } else if (rc == 0) {
        put_way(h, t);
    }
    if (rc == 0) {
        put(h, t->map.used); /* of the model's own */
        rc = put_model(h, t->v, special, t->bytes, e);
    }
    for (size_t i = 0; i < t->map.used && rc == 0 && t->score; i++) {
        uint64_t bits;

        memcpy(&bits, &t->score[i], sizeof bits);
        put(h, bits);
    }
    for (size_t i = 0; i < t->n_added && rc == 0; i++)
        put_added(h, &t->added[i]);
    if (rc == 0)
        hash_hex(XXH3_128bits_digest(h), hex);
    XXH3_freeState(h);
    free(special);
    return rc;
}

int hft_meaning_spm(const struct spm *m, char hex[33], struct err *e)
{
    XXH3_state_t *h;
    int rc;

    *hex = '\0';
    if (m->type != 2 || !m->bpe.raw || !m->byte_fallback)
        return 0;
    if (!(h = XXH3_createState()))
        return err_set(e, E_SYS, "out of memory");
    XXH3_128bits_reset(h);
    put(h, WAY_SENTENCES);
    put(h, m->norm.dummy_prefix);
    put(h, (uint64_t)m->vocab);
    if ((rc = put_model(h, m, NULL, false, e)) == 0)
        hash_hex(XXH3_128bits_digest(h), hex);
    XXH3_freeState(h);
    return rc;
}
