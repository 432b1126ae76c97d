/* model/placement.c - where activations and weights lie: what is fastest in the memory there
 * is. */
#include "model/cost.h"

#include "base/memory.h"
#include "kernels/planned.h"

#include <string.h>

/*
 * All layers are alike, so the bytes of a placement are sums of counts times the bytes of a level,
 * and its time (cost.h) depends on counts alone. The search goes through the mixtures of the four
 * levels kept on the device, and where the host's memory may help, of any three of the states
 * (level kept, levels away), in steps of one layer (GRID parts of many layers). What of the
 * frozen matrices must be streamed for a mixture to fit follows from its bytes.
 */
enum { GRID = 40, STATES = SAVE_LEVELS * (SAVE_LEVELS + 3) / 2, TRIES = 4, SLOTS = 2,
       LEAST_TILE = 1024 };
#define SAME 1e-6 /* times that differ by less are equal: then the first found, the simpler */
#define WORTH 2e-3 /* a share of the time that could be saved, for a look at it layer by layer */

struct choice {
    struct model *m;
    struct cost cost;
    struct { int level, offloaded; } state[STATES];
    size_t level[SAVE_LEVELS];  /* bytes of a level, a layer */
    size_t base;                /* of all that is none of these, the layers' matrices in it */
    size_t matrices;            /* of them, frozen, a layer; 0: not to be streamed */
    size_t device, host;        /* budgets */
    int64_t layers;
    struct placement candidate, best;
    double best_s;
    bool simulate;                  /* times are simulated, not lower bounds */
    size_t best_over;           /* bytes that the best has too many; 0: it fits */
    size_t best_host;           /* of the host's, that it takes */
};

static void all_at(struct placement *p, enum save_level k, int64_t n, int64_t layers)
{
    memset(p, 0, sizeof *p);
    p->n[k][0] += n;
    p->n[SAVE_INPUT][0] += layers - n;
}

/* Bytes of the levels, of the rest, of a layer's frozen matrices. */
static int measure(struct choice *c, struct model *m, struct err *e)
{
    size_t all[SAVE_LEVELS];

    for (int k = SAVE_INPUT; k < SAVE_LEVELS; k++) {
        int rc;

        if (m->o.mode == TRAIN_NONE)
            memset(&m->plan.placement, 0, sizeof m->plan.placement);
        else
            all_at(&m->plan.placement, (enum save_level)k, c->layers, c->layers);
        if ((rc = model_layout(m, e)) < 0)
            return rc;
        all[k] = model_bytes(m);
        c->level[k] = k ? (all[k] - all[k - 1]) / (size_t)c->layers
                        : (size_t)(m->o.seqs * m->o.ctx * m->c.dim) * dtype_bytes(m->d->act);
    }
    c->base = all[SAVE_INPUT];
    if (m->o.mode == TRAIN_NONE)
        memset(c->level, 0, sizeof c->level);
    c->base -= (size_t)c->layers * c->level[SAVE_INPUT];
    c->matrices = 0;
    for (int r = 0; r < ROLES; r++) {
        const struct weight *w = &m->layers[0].w[r];

        if (w->type && role_form((enum role)r) == FORM_MATRIX && !w->trained)
            c->matrices += weight_bytes(w);
    }
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

/* What c->candidate takes with the layers in their order. */
static double simulate(struct choice *c, const struct traffic *t, const int64_t kept[SAVE_LEVELS])
{
    size_t nbytes[RINGS];

    memcpy(nbytes, c->level, sizeof c->level);
    nbytes[RING_WEIGHTS] = c->matrices;
    c->m->plan.placement = c->candidate;
    model_spread(c->m);
    return cost_simulated(c->m, &c->cost, t, nbytes, kept, c->m->o.mode != TRAIN_NONE);
}

/* Takes c->candidate where it is better than the best so far. */
static void weigh(struct choice *c)
{
    struct placement *p = &c->candidate;
    int64_t kept[SAVE_LEVELS] = { 0 }, offloaded[SAVE_LEVELS] = { 0 };
    size_t need = c->base, host = 0, over;
    struct traffic t;
    double s;

    for (int i = 0; i < STATES; i++) {
        int64_t n = p->n[c->state[i].level][c->state[i].offloaded];

        if (n == 0)
            continue;
        kept[c->state[i].level] += n;
        for (int k = 0; k <= c->state[i].level; k++)
            if (k < c->state[i].offloaded)
                offloaded[k] += n;
            else
                need += (size_t)n * c->level[k];
    }
    for (int k = 0; k < SAVE_LEVELS; k++) {
        need += (size_t)(offloaded[k] < SLOTS ? offloaded[k] : SLOTS) * c->level[k];
        host += (size_t)(offloaded[k] > SLOTS ? offloaded[k] - SLOTS : 0) * c->level[k];
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
    s = cost_lower_bound(&c->cost, &t, kept, c->layers, c->m->o.mode != TRAIN_NONE);
    if (c->simulate && host > 0 && over == 0 && c->best_over == 0 && s >= c->best_s * (1 - WORTH))
        return;
    if (c->simulate && host > 0 && over == 0)
        s = simulate(c, &t, kept);
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
    int64_t *count = &c->candidate.n[c->state[of[0]].level][c->state[of[0]].offloaded];
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
    static const int on_device[SAVE_LEVELS] = { SAVE_ALL, SAVE_QKV, SAVE_ATTENTION, SAVE_INPUT };
    int64_t asked = c->m->o.keep_layers < c->layers ? c->m->o.keep_layers : c->layers;

    memset(&c->candidate, 0, sizeof c->candidate);
    if (c->m->o.mode == TRAIN_NONE || asked >= 0) {
        if (c->m->o.mode != TRAIN_NONE)
            all_at(&c->candidate, SAVE_ALL, asked, c->layers);
        weigh(c);
        return;
    }
    mix(c, on_device, SAVE_LEVELS, c->layers);
    for (int i = 0; i < STATES && c->host; i++)
        for (int j = i + 1; j < STATES; j++)
            for (int k = j + 1; k < STATES; k++)
                mix(c, (int[]){ i, j, k }, 3, c->layers);
}

/* Rank by the cheap lower bound, then again by simulation of those that can still win. States with
 * nothing offloaded come first, then those with less. */
static void search(struct choice *c)
{
    int n = 0;

    for (int offloaded = 0; offloaded <= SAVE_LEVELS; offloaded++)
        for (int k = offloaded ? offloaded - 1 : 0; k < SAVE_LEVELS; k++) {
            c->state[n].level = k;
            c->state[n++].offloaded = offloaded;
        }
    c->simulate = false;
    c->best_over = SIZE_MAX;
    weigh_all(c);
    if (c->best_host == 0) /* nothing waits for a copy */
        return;
    c->simulate = true;
    c->candidate = c->best;
    c->best_over = SIZE_MAX;
    weigh(c);
    weigh_all(c);
}

size_t model_capacity(const struct device *d, const struct model_options *o)
{
    size_t left = d->free_bytes((struct device *)(uintptr_t)d);
    size_t most = more_than((size_t)o->device_bytes, d->held_bytes);

    return o->device_bytes > 0 && most < left ? most : left;
}

static size_t device_budget(const struct model *m)
{
    size_t all = model_capacity(m->d, &m->o);

    if (m->o.memory_bytes > 0)
        return (size_t)m->o.memory_bytes;
    if (m->o.device_bytes > 0)
        return all;
    return m->d->own_memory ? all / 16 * 15 : all / 5 * 4; /* an own one is nobody else's */
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
        m->plan.placement = c->best;
        if ((rc = model_layout(m, e)) < 0 || c->best_over)
            break;
        if ((over = more_than(model_bytes(m), budget)) == 0)
            break;
        c->device = more_than(c->device, over);
    }
    m->plan.step_s = c->cost.known ? c->best_s : 0;
    return rc;
}

/* The placement that was told: every layer once, nothing offloaded that is not saved, and no trained
 * matrix from the host. */
static int take_placement(struct model *m, struct err *e)
{
    const struct placement *p = m->o.placement;
    int64_t layers = 0, most = m->o.mode == TRAIN_FULL ? 0 : m->c.layers;
    bool ok = p->streamed >= 0 && p->streamed <= most;

    for (int k = SAVE_INPUT; k < SAVE_LEVELS; k++)
        for (int offloaded = 0; offloaded <= SAVE_LEVELS; offloaded++) {
            ok = ok && p->n[k][offloaded] >= 0 &&
                 p->n[k][offloaded] <= (offloaded <= k + 1 ? m->c.layers : 0);
            layers += p->n[k][offloaded];
        }
    if (!ok || layers != (m->o.mode == TRAIN_NONE ? 0 : m->c.layers))
        return err_set(e, E_BUG, "a placement of %lld layers, %lld streamed, for a model of %lld",
                       (long long)layers, (long long)p->streamed, (long long)m->c.layers);
    m->plan.placement = *p;
    return model_layout(m, e);
}

int model_place(struct model *m, struct err *e)
{
    struct choice c = { .m = m, .layers = m->c.layers };
    int rc;

    if (m->o.placement)
        return take_placement(m, e);
    c.host = host_budget(m);
    while ((rc = choose(m, &c, e)) == 0 && c.best_over && m->d->own_memory &&
           m->o.mlp_tile >= 2 * LEAST_TILE && m->o.loss_chunk >= LEAST_TILE) {
        m->o.mlp_tile /= 2; /* buffers of a layer and of the loss: what is left to spare */
        m->o.loss_chunk /= 2;
    }
    return rc;
}
