/* model/segments.c - see segments.h. */
#include "model/segments.h"

#include <stdlib.h>

/* Appends the end of a segment, cutting it first at every document start before 'end'. */
struct cutter {
    int64_t *cu, n, next_doc, n_docs;
    const int64_t *doc_starts;
};

static void cut_to(struct cutter *c, int64_t end)
{
    /* starts are in rising order, so each is looked at once */
    while (c->next_doc < c->n_docs && c->doc_starts[c->next_doc] <= end) {
        int64_t at = c->doc_starts[c->next_doc++];
        if (at > c->cu[c->n] && at < end)
            c->cu[++c->n] = at;
    }
    if (end > c->cu[c->n])
        c->cu[++c->n] = end;
}

/* Room for n ends in the list of half h. */
static int room(struct segments *s, int h, int64_t n, struct err *e)
{
    int64_t *p;

    if (n <= s->cap[h])
        return 0;
    if (!(p = realloc(s->cu[h], (size_t)n * sizeof *p)))
        return err_set(e, E_SYS, "out of memory for %lld segments", (long long)n);
    s->cu[h] = p;
    s->cap[h] = n;
    return 0;
}

/* The ends of the segments, for each half of the heads. In a context of 16 with groups of 4,
 * S2 has 4 8 12 16 in the first half and, shifted by half a group, 2 6 10 14 16 in the
 * second. */
int segments_build(struct segments *s, enum attention_kind kind, int64_t n_seqs, int64_t ctx,
                   int64_t group, const int64_t *doc_starts, int64_t n_docs, struct err *e)
{
    if (ctx < 1)
        return err_set(e, E_CONFIG, "no tokens to attend to");
    if (kind == ATTN_S2 && (group < 2 || group > ctx))
        return err_set(e, E_CONFIG, "a group of %lld tokens: must be between 2 and the context "
                                    "of %lld", (long long)group, (long long)ctx);
    if (kind == ATTN_DENSE)
        group = ctx;
    for (int h = 0; h < 2; h++) {
        int64_t shift = kind == ATTN_S2 && h == 1 ? group / 2 : 0;
        struct cutter c = { .doc_starts = doc_starts, .n_docs = doc_starts ? n_docs : 0 };
        /* at most ctx / group + 2 ends a sequence, one more for each document, and the 0 in
         * front */
        int rc = room(s, h, n_seqs * (ctx / group + 2) + c.n_docs + 1, e);

        if (rc < 0)
            return rc;
        c.cu = s->cu[h];
        c.cu[0] = 0;
        for (int64_t q = 0; q < n_seqs; q++)
            /* a sequence always ends a segment, whatever is left for the last one */
            for (int64_t end = shift ? shift : group;; end += group) {
                cut_to(&c, q * ctx + (end < ctx ? end : ctx));
                if (end >= ctx)
                    break;
            }
        s->half[h] = (struct op_segments){ .n = c.n, .cu = c.cu };
    }
    return 0;
}

void segments_free(struct segments *s)
{
    free(s->cu[0]);
    free(s->cu[1]);
    *s = (struct segments){0};
}
