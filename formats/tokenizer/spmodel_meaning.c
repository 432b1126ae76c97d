/* formats/tokenizer/spmodel_meaning.c - a hash of what a model does; see spmodel.h. */
#include "formats/tokenizer/spmodel.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* Two files may differ in their training settings and still give the same ids. So the hash
 * covers the pieces and the rules that encoding goes by, and nothing else. */
struct piece {
    const char *text;
    uint32_t n, rank; /* bytes; 0: the highest score, equal ones share a rank */
    float score;
    enum spmodel_type type;
};
struct pieces {
    struct piece *v;
    int64_t n;
};

static int add_piece(void *ctx, const char *text, size_t n, float score, enum spmodel_type type,
                     struct err *e)
{
    struct pieces *all = ctx;

    (void)e;
    all->v[all->n++] = (struct piece){ text, (uint32_t)n, 0, score, type };
    return 0;
}

static int by_score(const void *a, const void *b)
{
    float x = (*(struct piece *const *)a)->score, y = (*(struct piece *const *)b)->score;

    return x > y ? -1 : x < y;
}

/* Gives each piece its rank, the same for equal scores. */
static int rank(struct pieces *all, struct err *e)
{
    struct piece **order = malloc((size_t)all->n * sizeof *order + 1);

    if (!order)
        return err_set(e, E_SYS, "out of memory for %lld pieces", (long long)all->n);
    for (int64_t i = 0; i < all->n; i++)
        order[i] = &all->v[i];
    if (all->n)
        qsort(order, (size_t)all->n, sizeof *order, by_score);
    for (int64_t i = 1; i < all->n; i++)
        order[i]->rank = order[i - 1]->rank + (order[i]->score < order[i - 1]->score);
    free(order);
    return 0;
}

/* Numbers are hashed as 8 bytes, little-endian: the same on every machine. */
static void put(XXH3_state_t *h, uint64_t v)
{
    unsigned char b[8];

    put_le(b, v, 8);
    XXH3_128bits_update(h, b, sizeof b);
}

/* Merging goes by the order of scores alone, the sum of a unigram's by their values. */
static void put_pieces(XXH3_state_t *h, const struct spmodel *m, const struct pieces *all)
{
    uint32_t bits;

    put(h, (uint64_t)all->n);
    for (int64_t i = 0; i < all->n; i++) {
        const struct piece *p = &all->v[i];
        memcpy(&bits, &p->score, 4);
        put(h, p->n); /* so that "ab" "c" and "a" "bc" differ */
        XXH3_128bits_update(h, p->text, p->n);
        put(h, p->type);
        put(h, m->type == 1 ? bits : p->rank);
    }
}

/* What ids depend on beside the pieces. */
static void put_rules(XXH3_state_t *h, const struct spmodel *m)
{
    const struct spmodel_norm *norm = &m->norm[SPMODEL_ENCODES];

    put(h, (uint64_t)m->type);
    put(h, m->byte_fallback);
    put(h, m->space_is_suffix);
    put(h, norm->dummy_prefix);
    put(h, norm->strip_spaces);
    put(h, norm->escape_spaces);
    put(h, norm->units);
    if (norm->units) {
        XXH3_128bits_update(h, norm->trie, 4 * norm->units);
        XXH3_128bits_update(h, norm->pool, norm->pool_bytes);
    }
    for (int k = 0; k < SPMODEL_NAMES; k++) {
        /* A name that is not there (0) is not the same as an empty one (1). */
        put(h, m->names[k].p ? m->names[k].n + 1 : 0);
        if (m->names[k].p)
            XXH3_128bits_update(h, m->names[k].p, m->names[k].n);
    }
}

int spmodel_meaning(const void *bytes, size_t n, char hex[33], struct err *e)
{
    XXH3_state_t *h = XXH3_createState();
    struct pieces all = { NULL, 0 };
    struct spmodel m;
    int rc = h ? spmodel_check(&m, bytes, n, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && !(all.v = malloc((size_t)m.pieces * sizeof *all.v)))
        rc = err_set(e, E_SYS, "out of memory for %lld pieces", (long long)m.pieces);
    if (rc == 0 && (rc = spmodel_read(&m, bytes, n, add_piece, &all, e)) == 0 &&
        (rc = rank(&all, e)) == 0) {
        XXH3_128bits_reset(h);
        put_rules(h, &m);
        put_pieces(h, &m, &all);
        hash_hex(XXH3_128bits_digest(h), hex);
    }
    free(all.v);
    XXH3_freeState(h);
    return rc;
}
