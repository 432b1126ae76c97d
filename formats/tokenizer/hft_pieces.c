/* formats/tokenizer/hft_pieces.c - a tokenizer.json of SentencePiece's kind as a SentencePiece model; see hft.h.
 *
 * A list of merges says more than scores do: which pair goes first, and which pairs merge at all. A model of scores
 * merges any two pieces that make a third, the third of the highest score first. So both are the same where
 * all pairs for one token follow one another in the list, and all such pairs are in it. Runs of marks have one
 * score in many models; their pairs are then mixed, the longer left half first, which gives what one score does. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

struct pairs {
    struct spm_pair *v;
    size_t n;
};

static int by_rank(const void *a, const void *b)
{
    int32_t x = ((const struct spm_pair *)a)->rank, y = ((const struct spm_pair *)b)->rank;

    return (x > y) - (x < y);
}

/* But those for tokens that are found in texts as they stand. */
static int gather(const struct spm *m, const unsigned char *found, struct pairs *all, struct err *e)
{
    size_t slots = spm_bpe_slots(&m->bpe);

    if (!(all->v = malloc((slots + 1) * sizeof *all->v)))
        return err_set(e, E_SYS, "out of memory for %zu merges", slots);
    for (size_t i = 0; i < slots; i++)
        all->n += spm_bpe_slot(&m->bpe, i, &all->v[all->n]) && !found[all->v[all->n].id];
    qsort(all->v, all->n, sizeof *all->v, by_rank);
    return 0;
}

static int differs(const struct hft *t, int64_t id, const char *why, struct err *e)
{
    return err_set(e, E_CONFIG, "token '%.60s' %s: not as a SentencePiece model's", t->v->piece[id].p, why);
}

bool hft_is_marks(const struct spm_string *s)
{
    size_t i = 0;

    while (s->n - i >= 3 && memcmp(s->p + i, SPACE_MARK, 3) == 0)
        i += 3;
    return s->n > 0 && i == s->n;
}

/* place[id]: how many tokens are made before it; -1 of those that no pair makes. Runs of marks whose pairs are
 * mixed are in one place. */
static int put_in_order(const struct hft *t, const struct pairs *all, int64_t *place, int64_t *made, struct err *e)
{
    for (int64_t id = 0; id < t->v->vocab; id++)
        place[id] = -1;
    for (size_t i = 0; i < all->n; i++)
        place[all->v[i].id] = (int64_t)i; /* of the last pair, until it is its place */
    for (size_t i = 0, k, end; i < all->n; i = end, ++*made) {
        uint32_t id = all->v[i].id;

        for (k = i, end = i + 1; k < end; k++) {
            uint32_t one = all->v[k].id;

            if (one != id && !(hft_is_marks(&t->v->piece[one]) && hft_is_marks(&t->v->piece[id])))
                return differs(t, one, "is made by merges that do not follow one another", e);
            end = (size_t)place[one] >= end ? (size_t)place[one] + 1 : end;
        }
        for (k = i; k < end; k++)
            place[all->v[k].id] = *made;
    }
    return 0;
}

/* The ways to cut a token into two that are tokens of texts, too. */
static int check_ways(const struct hft *t, int64_t id, const unsigned char *found, struct err *e)
{
    const struct spm_string *s = &t->v->piece[id];
    const bool cut = t->n_cut == 1 && t->cut[0].kind == CUT_MARKS && t->cut[0].each; /* before each mark */

    for (uint32_t at = 1; at < s->n; at++) {
        int32_t l = hft_map_find(&t->map, s->p, at), r = hft_map_find(&t->map, s->p + at, s->n - at);
        uint32_t to;

        if (l < 0 || r < 0 || found[l] || found[r] || t->v->kind[l] != PIECE_NORMAL ||
            t->v->kind[r] != PIECE_NORMAL)
            continue;
        if ((cut && s->n - at >= 3 && memcmp(s->p + at, SPACE_MARK, 3) == 0) ||
            spm_bpe_merge(&t->v->bpe, (uint32_t)l, (uint32_t)r, &to) == RANK_NONE)
            return differs(t, id, "is not made by all pairs of tokens that it is of", e);
    }
    return 0;
}

static int give(const struct hft *t, const int64_t *place, int64_t made, spmodel_piece_fn *fn, void *ctx,
                struct err *e)
{
    int rc = 0;

    for (int64_t id = 0; id < t->v->vocab && rc == 0; id++) {
        enum spmodel_type kind = (enum spmodel_type)t->v->kind[id];
        float score = kind == PIECE_NORMAL ? (float)-(place[id] >= 0 ? place[id] : made++) : 0;

        rc = fn(ctx, t->v->piece[id].p, t->v->piece[id].n, score, kind, e);
    }
    return rc;
}

int hft_pieces(const struct hft *t, enum hft_prefix *prefix, spmodel_piece_fn *fn, void *ctx, struct err *e)
{
    unsigned char *found = calloc((size_t)t->v->vocab, 1);
    int64_t *place = malloc((size_t)t->v->vocab * sizeof *place), made = 0;
    struct pairs all = { 0 };
    int rc = found && place ? 0 : err_set(e, E_SYS, "out of memory for %lld tokens", (long long)t->v->vocab);

    if (rc == 0 && !t->sentences)
        rc = err_set(e, E_CONFIG, "text is not cut as by a SentencePiece model");
    *prefix = t->prefix == PREFIX_NEVER ? HFT_PREFIX_NEVER
              : t->prefix == PREFIX_ALWAYS ? HFT_PREFIX_ALWAYS : HFT_PREFIX_UNLESS;
    for (size_t i = 0; i < t->n_added && rc == 0; i++)
        found[t->added[i].id] = 1;
    if (rc == 0 && (rc = gather(t->v, found, &all, e)) == 0)
        rc = put_in_order(t, &all, place, &made, e);
    for (int64_t id = 0; id < t->v->vocab && rc == 0; id++)
        if (t->v->kind[id] == PIECE_NORMAL && !found[id])
            rc = check_ways(t, id, found, e);
    if (rc == 0)
        rc = give(t, place, made, fn, ctx, e);
    free(all.v);
    free(place);
    free(found);
    return rc;
}
