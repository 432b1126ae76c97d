/* model/keep.c - which layers keep how much for their backward. */
#include "model/inside.h"

#include <string.h>

/* Time that attention takes for a floating-point operation, against a matrix product. */
#define ATTENTION_WEIGHT 1.25

/* Operations a row that a level spares against KEEP_INPUT. */
static void savings(const struct model *m, double spared[KEEP_LEVELS])
{
    double dim = (double)m->c.dim, q = (double)q_dim(m), kv = (double)kv_dim(m);
    double span = (double)(m->o.attention_span > 0 ? m->o.attention_span : m->o.ctx);

    spared[KEEP_INPUT] = 0;
    spared[KEEP_ATTENTION] = ATTENTION_WEIGHT * 2 * q * span; /* two products, half seen */
    spared[KEEP_QKV] = spared[KEEP_ATTENTION] + 2 * dim * (q + 2 * kv) + 2 * q * dim;
    spared[KEEP_ALL] = spared[KEEP_QKV] + 2 * 2 * dim * (double)m->c.ffn_dim;
}

static void all_at(struct model *m, enum keep k, int64_t n)
{
    memset(&m->plan.placing, 0, sizeof m->plan.placing);
    m->plan.placing.n[k][0] += n;
    m->plan.placing.n[KEEP_INPUT][0] += m->c.layers - n;
}

/* Bytes of the model with nothing kept, and what a layer of each level adds: all are alike. */
static int costs(struct model *m, size_t *base, size_t each[KEEP_LEVELS], struct err *e)
{
    for (int k = KEEP_INPUT; k < KEEP_LEVELS; k++) {
        int rc;

        all_at(m, (enum keep)k, 1);
        if ((rc = model_layout(m, e)) < 0)
            return rc;
        each[k] = model_bytes(m);
    }
    *base = each[KEEP_INPUT];
    for (int k = KEEP_INPUT; k < KEEP_LEVELS; k++)
        each[k] = each[k] > *base ? each[k] - *base : 0;
    return 0;
}

/* Of the raises that fit, the one that spares most for its bytes; false: none fits. */
static bool best_raise(const struct model *m, const double spared[KEEP_LEVELS],
                       const size_t each[KEEP_LEVELS], size_t left, int *from, int *to)
{
    double best = 0;

    for (int a = KEEP_INPUT; a < KEEP_LEVELS; a++)
        for (int b = a + 1; b < KEEP_LEVELS && m->plan.placing.n[a][0]; b++) {
            size_t more = each[b] > each[a] ? each[b] - each[a] : 1;
            double worth = (spared[b] - spared[a]) / (double)more;

            if (more <= left && worth > best) {
                best = worth;
                *from = a;
                *to = b;
            }
        }
    return best > 0;
}

static void spend(struct model *m, const size_t each[KEEP_LEVELS], size_t left)
{
    double spared[KEEP_LEVELS];
    int from, to;

    savings(m, spared);
    while (best_raise(m, spared, each, left, &from, &to)) {
        size_t more = each[to] > each[from] ? each[to] - each[from] : 1;
        int64_t n = (int64_t)(left / more);

        n = n < m->plan.placing.n[from][0] ? n : m->plan.placing.n[from][0];
        m->plan.placing.n[from][0] -= n;
        m->plan.placing.n[to][0] += n;
        left -= (size_t)n * more;
    }
}

/* The placing that was told: every layer once, nothing away that is not kept, and no trained
 * matrix from the host. */
static int take_placing(struct model *m, struct err *e)
{
    const struct placing *p = m->o.placing;
    int64_t layers = 0, most = m->o.mode == TRAIN_FULL ? 0 : m->c.layers;
    bool ok = p->streamed >= 0 && p->streamed <= most;

    for (int k = KEEP_INPUT; k < KEEP_LEVELS; k++)
        for (int away = 0; away <= KEEP_LEVELS; away++) {
            ok = ok && p->n[k][away] >= 0 && p->n[k][away] <= (away <= k + 1 ? m->c.layers : 0);
            layers += p->n[k][away];
        }
    if (!ok || layers != (m->o.mode == TRAIN_NONE ? 0 : m->c.layers))
        return err_set(e, E_BUG, "a placing of %lld layers, %lld streamed, for a model of %lld",
                       (long long)layers, (long long)p->streamed, (long long)m->c.layers);
    m->plan.placing = *p;
    return model_layout(m, e);
}

int model_choose_kept(struct model *m, struct err *e)
{
    size_t base, each[KEEP_LEVELS], budget = (size_t)m->o.memory_bytes;
    int64_t asked = m->o.keep_layers < m->c.layers ? m->o.keep_layers : m->c.layers;
    int rc;

    if (m->o.placing)
        return take_placing(m, e);
    memset(&m->plan.placing, 0, sizeof m->plan.placing);
    if (m->o.mode == TRAIN_NONE)
        return model_layout(m, e);
    if (asked >= 0) {
        all_at(m, KEEP_ALL, asked);
        return model_layout(m, e);
    }
    if ((rc = costs(m, &base, each, e)) < 0)
        return rc;
    if (budget == 0)
        budget = m->d->own_memory ? m->d->free_bytes(m->d) / 16 * 15 /* nobody else's */
                                  : m->d->free_bytes(m->d) / 5 * 4;
    all_at(m, KEEP_INPUT, 0);
    if (budget > base)
        spend(m, each, budget - base);
    return model_layout(m, e);
}
