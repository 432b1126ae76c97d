/* model/share.c - frozen matrices of which each rank has a part; see spread.h. */
#include "kernels/line.h"
#include "model/spread.h"

#include <stdlib.h>

/*
 * Of the flat bytes of a layer's frozen matrices rank r of n keeps part r. Two layers ahead of its
 * use, forwards and backwards, the parts of a layer are brought together in a slot of the ring of
 * weights (offload.c). Nothing is ever added or sent back, as nothing of it is trained (in ZeRO's
 * terms, Rajbhandari et al. 2020, arXiv:1910.02054: stage 3 of the frozen weights alone).
 */
struct sharing {
    struct line line;
    struct ring_source source;
};

static int bring(struct device *d, const struct ring *r, int64_t item, void *slot)
{
    struct model *m = r->state;

    (void)d;
    return line_share(&m->share->line, m->rc == 0, m->share_store + (size_t)item * m->share_part,
                      slot, m->share_part);
}

int share_open(struct model *m, struct err *e)
{
    struct ring *r = &m->ring[RING_WEIGHTS];

    if (m->o.shares <= 1)
        return 0;
    if (!m->o.sharers || m->o.sharers->size != m->o.shares)
        return err_set(e, E_BUG, "weights shared by %lld ranks, and no group of so many",
                       (long long)m->o.shares);
    if (!(m->share = calloc(1, sizeof *m->share)))
        return err_set(e, E_SYS, "out of memory");
    line_open(&m->share->line, m->d, m->o.sharers);
    m->share->source = (struct ring_source){ .bring = bring, .always = true,
                                             .behind = m->spread != NULL,
                                             .bring_on = m->d->links ? QUEUE_LINK : QUEUE_OPS };
    r->source = &m->share->source;
    r->state = m;
    return 0;
}

void share_close(struct model *m)
{
    if (m->share)
        line_close(&m->share->line);
    free(m->share);
    m->share = NULL;
}

struct line *share_line(const struct model *m) { return m->share ? &m->share->line : NULL; }

/* While loading, a layer's matrices are written to its slot one after the other. */
int share_keep(struct model *m, int64_t layer, struct err *e)
{
    int64_t item = layer < 0 || !m->share ? -1 : m->layers[layer].item[RING_WEIGHTS];
    unsigned char *slot;
    int rc;

    if (item < 0)
        return 0;
    slot = m->ring[RING_WEIGHTS].slot[item & 1];
    rc = m->d->copy(m->d, m->share_store + (size_t)item * m->share_part,
                    slot + (size_t)m->o.sharers->rank * m->share_part, m->share_part);
    return rc < 0 ? err_set(e, rc, "cannot keep a part of the weights on '%s'", m->d->name) : 0;
}
