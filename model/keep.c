/* model/keep.c - which layers keep how much for their backward, and where: what is fastest in the
 * memory there is. */
#include "model/cost.h"

#include "base/memory.h"
#include "kernels/planned.h"

#include <string.h>

/*
 * All layers are alike, so the bytes of a placing are sums of counts times the bytes of a level,
 * and its time (cost.h) depends on counts alone. The search goes through the mixtures of the four
 * levels kept on the device, and where the host's memory may help, of any three of the states
 * (level kept, levels away), in steps of one layer (GRID parts of many layers). What of the
 * frozen matrices must be streamed for a mixture to fit follows from its bytes.
 */
enum { GRID = 40, STATES = KEEP_LEVELS * (KEEP_LEVELS + 3) / 2, TRIES = 4, SLOTS = 2,
       LEAST_TILE = 1024 };
#define SAME 1e-6 /* times that differ by less are equal: then the first found, the simpler */
#define WORTH 2e-3 /* a share of the time that could be saved, for a look at it layer by layer */

struct choice {
    struct model *m;
    struct cost cost;
    struct { int keep, away; } state[STATES];
    size_t level[KEEP_LEVELS];  /* bytes of a level, a layer */
    size_t base;                /* of all that is none of these, the layers' matrices in it */
    size_t matrices;            /* of them, frozen, a layer; 0: not to be streamed */
    size_t device, host;        /* budgets */
    int64_t layers;
    struct placing trial, best;
    double best_s;
    bool play;                  /* times are played, not the least that they can be */
    size_t best_over;           /* bytes that the best has too many; 0: it fits */
    size_t best_host;           /* of the host's, that it takes */
};

static void all_at(struct placing *p, enum keep k, int64_t n, int64_t layers)
{
    memset(p, 0, sizeof *p);
    p->n[k][0] += n;
    p->n[KEEP_INPUT][0] += layers - n;
}

/* Bytes of the levels, of the rest, of a layer's frozen matrices. */
static int measure(struct choice *c, struct model *m, struct err *e)
{
    size_t all[KEEP_LEVELS];

    for (int k = KEEP_INPUT; k < KEEP_LEVELS; k++) {
        int rc;

        if (m->o.mode == TRAIN_NONE)
            memset(&m->plan.placing, 0, sizeof m->plan.placing);
        else
            all_at(&m->plan.placing, (enum keep)k, c->layers, c->layers);
        if ((rc = model_layout(m, e)) < 0)
            return rc;
        all[k] = model_bytes(m);
        c->level[k] = k ? (all[k] - all[k - 1]) / (size_t)c->layers
                        : (size_t)(m->o.seqs * m->o.ctx * m->c.dim) * dtype_bytes(m->d->act);
    }
    c->base = all[KEEP_INPUT];
    if (m->o.mode == TRAIN_NONE)
        memset(c->level, 0, sizeof c->level);
    c->base -= (size_t)c->layers * c->level[KEEP_INPUT];
    c->matrices = m->o.mode == TRAIN_FULL ? 0 : (size_t)config_layer_products(&m->c) *
                                                    dtype_bytes(m->d->act);
    cost_of(m, &c->cost);
    return 0;
}

static size_t more_than(size_t a, size_t b) { return a > b ? a - b : 0; }

/* The fewest layers streamed with which need bytes fit the device, over the SLOTS they need there
 * themselves; as far as the host's memory goes. */
static int64_t streamed_for(const struct choice *c, size_t need, size_t host)
{
    int64_t n, most;

    if (need <= c->device || c->matrices == 0)
        return 0;
    n = (int64_t)((need - c->device + c->matrices - 1) / c->matrices) + SLOTS;
    most = (int64_t)(more_than(c->host, host) / c->matrices);
    most = most < c->layers ? most : c->layers;
    n = n < most ? n : most;
    return n > SLOTS ? n : 0;
}

/* What c->trial takes with the layers in their order. */
static double play(struct choice *c, const struct traffic *t, const int64_t kept[KEEP_LEVELS])
{
    size_t nbytes[RINGS];

    memcpy(nbytes, c->level, sizeof c->level);
    nbytes[RING_WEIGHTS] = c->matrices;
    c->m->plan.placing = c->trial;
    model_spread(c->m);
    return cost_played(c->m, &c->cost, t, nbytes, kept, c->m->o.mode != TRAIN_NONE);
}

/* Takes c->trial where it is better than the best so far. */
static void weigh(struct choice *c)
{
    struct placing *p = &c->trial;
    int64_t kept[KEEP_LEVELS] = { 0 }, away[KEEP_LEVELS] = { 0 };
    size_t need = c->base, host = 0, over;
    struct traffic t;
    double s;

    for (int i = 0; i < STATES; i++) {
        int64_t n = p->n[c->state[i].keep][c->state[i].away];

        if (n == 0)
            continue;
        kept[c->state[i].keep] += n;
        for (int k = 0; k <= c->state[i].keep; k++)
            if (k < c->state[i].away)
                away[k] += n;
            else
                need += (size_t)n * c->level[k];
    }
    for (int k = 0; k < KEEP_LEVELS; k++) {
        need += (size_t)(away[k] < SLOTS ? away[k] : SLOTS) * c->level[k];
        host += (size_t)(away[k] > SLOTS ? away[k] - SLOTS : 0) * c->level[k];
    }
    t.sent = (double)host;
    p->streamed = streamed_for(c, need, host);
    t.forward = (double)p->streamed * (double)c->matrices;
    t.backward = p->streamed ? t.forward - SLOTS * (double)c->matrices : 0;
    if (p->streamed) {
        need -= (size_t)(p->streamed - SLOTS) * c->matrices;
        host += (size_t)p->streamed * c->matrices;
    }
    over = more_than(need, c->device);
    if (host > c->host || over > c->best_over)
        return;
    s = cost_least(&c->cost, &t, kept, c->layers, c->m->o.mode != TRAIN_NONE);
    if (c->play && host > 0 && over == 0 && c->best_over == 0 && s >= c->best_s * (1 - WORTH))
        return;
    if (c->play && host > 0 && over == 0)
        s = play(c, &t, kept);
    if (over < c->best_over || (over == c->best_over && s < c->best_s * (1 - SAME))) {
        c->best = *p;
        c->best_s = s;
        c->best_over = over;
        c->best_host = host;
    }
}

/* All ways to give left layers to the n states at of, the last of which takes the rest. */
static void mix(struct choice *c, const int *of, int n, int64_t left)
{
    int64_t *count = &c->trial.n[c->state[of[0]].keep][c->state[of[0]].away];
    int64_t step = (c->layers + GRID - 1) / GRID;

    if (n == 1) {
        *count = left;
        weigh(c);
        *count = 0;
        return;
    }
    for (int64_t i = 0; i <= left; i += step) {
        *count = i;
        mix(c, of + 1, n - 1, left - i);
    }
    *count = 0;
}

static void weigh_all(struct choice *c)
{
    static const int on_device[KEEP_LEVELS] = { KEEP_ALL, KEEP_QKV, KEEP_ATTENTION, KEEP_INPUT };
    int64_t asked = c->m->o.keep_layers < c->layers ? c->m->o.keep_layers : c->layers;

    memset(&c->trial, 0, sizeof c->trial);
    if (c->m->o.mode == TRAIN_NONE || asked >= 0) {
        if (c->m->o.mode != TRAIN_NONE)
            all_at(&c->trial, KEEP_ALL, asked, c->layers);
        weigh(c);
        return;
    }
    mix(c, on_device, KEEP_LEVELS, c->layers);
    for (int i = 0; i < STATES && c->host; i++)
        for (int j = i + 1; j < STATES; j++)
            for (int k = j + 1; k < STATES; k++)
                mix(c, (int[]){ i, j, k }, 3, c->layers);
}

/* First by the least time, which is soon had and tells whose time is worth to be played; then by
 * that. States of nothing away come first, then those of less away. */
static void search(struct choice *c)
{
    int n = 0;

    for (int away = 0; away <= KEEP_LEVELS; away++)
        for (int k = away ? away - 1 : 0; k < KEEP_LEVELS; k++) {
            c->state[n].keep = k;
            c->state[n++].away = away;
        }
    c->play = false;
    c->best_over = SIZE_MAX;
    weigh_all(c);
    if (c->best_host == 0) /* nothing waits for a copy */
        return;
    c->play = true;
    c->trial = c->best;
    c->best_over = SIZE_MAX;
    weigh(c);
    weigh_all(c);
}

size_t model_room(const struct device *d, const struct model_options *o)
{
    size_t left = d->free_bytes((struct device *)(uintptr_t)d);
    size_t most = more_than((size_t)o->device_bytes, d->held_bytes);

    return o->device_bytes > 0 && most < left ? most : left;
}

static size_t device_budget(const struct model *m)
{
    size_t room = model_room(m->d, &m->o);

    if (m->o.memory_bytes > 0)
        return (size_t)m->o.memory_bytes;
    if (m->o.device_bytes > 0)
        return room;
    return m->d->own_memory ? room / 16 * 15 : room / 5 * 4; /* an own one is nobody else's */
}

/* Full training moves every weight every step, and has no place for it. */
static size_t host_budget(const struct model *m)
{
    if (!m->d->own_memory || m->d->rates.in <= 0 || m->o.mode == TRAIN_FULL ||
        m->o.host_bytes < 0)
        return 0;
    if (m->o.host_bytes > 0)
        return (size_t)m->o.host_bytes;
    return m->d->planned ? PLANNED_HOST_BYTES : memory_free_bytes() / 4 * 3;
}

/* Searches until what is laid out fits: bytes of small models are not quite sums. */
static int choose(struct model *m, struct choice *c, struct err *e)
{
    size_t budget = device_budget(m);
    int rc = measure(c, m, e);

    c->device = budget;
    for (int i = 0; i < TRIES && rc == 0; i++) {
        size_t over;

        search(c);
        m->plan.placing = c->best;
        if ((rc = model_layout(m, e)) < 0 || c->best_over)
            break;
        if ((over = more_than(model_bytes(m), budget)) == 0)
            break;
        c->device = more_than(c->device, over);
    }
    m->plan.step_s = c->cost.known ? c->best_s : 0;
    return rc;
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
    struct choice c = { .m = m, .layers = m->c.layers };
    int rc;

    if (m->o.placing)
        return take_placing(m, e);
    c.host = host_budget(m);
    while ((rc = choose(m, &c, e)) == 0 && c.best_over && m->d->own_memory &&
           m->o.mlp_tile >= 2 * LEAST_TILE && m->o.loss_chunk >= LEAST_TILE) {
        m->o.mlp_tile /= 2; /* buffers of a layer and of the loss: what is left to spare */
        m->o.loss_chunk /= 2;
    }
    return rc;
}
