/* model/placement.c - where activations and weights lie: whatever is fastest in the memory there is. */
#include "model/cost.h"

#include "base/memory.h"
#include "base/ranks.h"

#include <string.h>

/*
 * Memory is bought with time, layer by layer. A layer saves one of four levels for its backward
 * (enum save_level) and recomputes the rest; the lowest of the levels that it saves may be
 * offloaded to host memory, which takes copies. That makes 14 states of a layer: input on the device,
 * input offloaded, attention on the device, ... all of it offloaded. Beside that, the frozen
 * matrices of some layers may be streamed from host memory. A placement says how many layers are
 * in each state and how many are streamed. Llama-2-7B at 102400 tokens on an H200 limited to 24 GiB:
 *
 *     14 layers save q, k, v; 18 save attention; all of it offloaded; 31 layers are streamed
 *
 * Layers are alike, so the bytes of a placement are counts times the bytes of a level, and its time
 * depends on counts alone. The search tries every mixture of the four levels on the device, and of
 * any three states if there is host memory, in steps of one layer (GRID parts of many layers). For
 * each it streams as few layers as make it fit, then asks cost.h how long a step takes. Some 100000
 * mixtures are tried in milliseconds because most are ruled out early: by the time of their ops alone,
 * then by the lower bound with copies. Only those that might still win are simulated.
 */
enum { GRID = 40, STATES = SAVE_LEVELS * (SAVE_LEVELS + 3) / 2, TRIES = 4, SLOTS = 2,
       LEAST_TILE = 1024 };
#define SAME 1e-6  /* times that differ by less are equal: the first found, the simpler, is taken */
#define WORTH 2e-3 /* share of the time that must be in reach for a simulation */

struct choice {
    struct model *m;
    struct cost cost[2];        /* of a batch as attention_span says, and of a dense one */
    double share[2];            /* of all batches: what their times weigh in a candidate's */
    struct { int level, offloaded; } state[STATES];
    int used[STATES], n_used;   /* the states that the candidate may have layers in */
    size_t level[SAVE_LEVELS];  /* bytes of a level in one layer */
    size_t base;                /* bytes of everything else, all matrices included */
    size_t matrices;            /* bytes of a layer's frozen matrices; 0: cannot be streamed */
    size_t device, host;        /* budgets */
    int64_t layers;
    bool simulate;              /* else times are lower bounds */
    struct placement candidate, best;
    double best_s;
    size_t best_over;           /* bytes by which the best exceeds the device; 0: it fits */
    size_t best_host;           /* bytes of host memory that it takes */
};

/* What a candidate takes. */
struct demand {
    int64_t saved[SAVE_LEVELS]; /* layers by level */
    size_t device, host;
    struct traffic traffic;
};

static void all_at(struct placement *p, enum save_level k, int64_t n, int64_t layers)
{
    memset(p, 0, sizeof *p);
    p->n[k][0] += n;
    p->n[SAVE_INPUT][0] += layers - n;
}

/* What layers cost in both kinds of batches. Their bytes are the same: buffers are for any
 * segments (attention_scratch_bytes). */
static void cost_kinds(struct choice *c, struct model *m)
{
    int64_t span = m->o.attention_span;

    c->share[1] = m->o.mode == TRAIN_NONE ? 0 : m->o.dense_share;
    c->share[0] = 1 - c->share[1];
    cost_of(m, &c->cost[0]);
    m->o.attention_span = m->o.ctx;
    cost_of(m, &c->cost[1]);
    m->o.attention_span = span;
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
        /* level k costs what layers take that save up to k, less what they take with one
         * level less */
        c->level[k] = k ? (all[k] - all[k - 1]) / (size_t)c->layers
                        : (size_t)(model_rows(&m->o) * m->c.dim) * dtype_bytes(m->d->act);
    }
    c->base = all[SAVE_INPUT];
    if (m->o.mode == TRAIN_NONE)
        memset(c->level, 0, sizeof c->level);
    c->base -= (size_t)c->layers * c->level[SAVE_INPUT];
    c->matrices = 0;
    for (int r = 0; r < ROLES; r++) {
        const struct weight *w = &m->layers[m->from].w[r];

        if (w->type && role_form((enum role)r) == FORM_MATRIX && !w->trained && !w->slice)
            c->matrices += weight_bytes(w);
    }
    cost_kinds(c, m);
    return 0;
}

/* a - b, or 0 where b is larger: sizes have no sign. */
static size_t more_than(size_t a, size_t b) { return a > b ? a - b : 0; }

/* The fewest layers to stream so that need bytes fit the device, counting the SLOTS that streaming
 * takes there; fewer where host memory, of which host bytes are taken, does not hold them. */
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

static void count_levels(const struct choice *c, struct demand *d)
{
    memset(d, 0, sizeof *d);
    for (int i = 0; i < c->n_used; i++) {
        int k = c->state[c->used[i]].level;

        d->saved[k] += c->candidate.n[k][c->state[c->used[i]].offloaded];
    }
}

/* All layers' matrices lie over ranks: a part of each here, and two of them as a whole. What is brought
 * counts as if it came from the host, in as much time. */
static void share_out(struct choice *c, struct demand *d)
{
    double n = (double)c->layers, shares = (double)c->m->o.shares, in = c->cost[0].in;
    size_t part = c->matrices / (size_t)c->m->o.shares + 256;
    int64_t whole = c->layers < SLOTS ? c->layers : SLOTS;

    c->candidate.streamed = c->layers;
    d->device += (size_t)c->layers * part;
    d->device -= (size_t)(c->layers - whole) * c->matrices;
    if (c->m->o.link_rate > 0 && in > 0)
        d->traffic.forward = n * (double)c->matrices * (shares - 1) / shares * in / c->m->o.link_rate;
    d->traffic.backward = d->traffic.forward * (n - (double)whole) / n;
}

/* Bytes on both sides and of the copies; sets how many layers are streamed. */
static void count_bytes(struct choice *c, struct demand *d)
{
    int64_t offloaded[SAVE_LEVELS] = { 0 }, *streamed = &c->candidate.streamed;

    d->device = c->base;
    for (int i = 0; i < c->n_used; i++) {
        int level = c->state[c->used[i]].level, from = c->state[c->used[i]].offloaded;
        int64_t n = c->candidate.n[level][from];

        for (int k = 0; k < from; k++)
            offloaded[k] += n;
        for (int k = from; k <= level; k++)
            d->device += (size_t)n * c->level[k];
    }
    for (int k = 0; k < SAVE_LEVELS; k++) {
        d->device += (size_t)(offloaded[k] < SLOTS ? offloaded[k] : SLOTS) * c->level[k];
        d->host += (size_t)(offloaded[k] > SLOTS ? offloaded[k] - SLOTS : 0) * c->level[k];
    }
    d->traffic.sent = (double)d->host;
    if (c->m->o.shares > 1) {
        share_out(c, d);
        return;
    }
    if ((*streamed = streamed_for(c, d->device, d->host)) == 0)
        return;
    d->traffic.forward = (double)*streamed * (double)c->matrices;
    d->traffic.backward = d->traffic.forward - SLOTS * (double)c->matrices;
    d->device -= (size_t)(*streamed - SLOTS) * c->matrices;
    d->host += (size_t)*streamed * c->matrices;
}

/* How a candidate's time is told, from cheap and low to dear and true (cost.h). */
enum telling { TELL_OPS, TELL_BOUND, TELL_SIMULATED };

/* Time of c->candidate in one kind of batch. To simulate, the layers must have been spread. */
static double kind_time(struct choice *c, int kind, const struct demand *d, enum telling how)
{
    const struct cost *cost = &c->cost[kind];
    bool back = c->m->o.mode != TRAIN_NONE;
    size_t nbytes[RINGS];

    if (how == TELL_OPS)
        return cost_of_ops(cost, d->saved, c->layers, back);
    if (how == TELL_BOUND)
        return cost_lower_bound(cost, &d->traffic, d->saved, c->layers, back);
    memcpy(nbytes, c->level, sizeof c->level);
    nbytes[RING_WEIGHTS] = c->m->o.shares > 1 ? (size_t)(d->traffic.forward / (double)c->layers)
                                              : c->matrices;
    return cost_simulated(c->m, cost, &d->traffic, nbytes, d->saved, back);
}

/* And of both kinds on the average. */
static double mean_time(struct choice *c, const struct demand *d, enum telling how)
{
    double s = 0;

    if (how == TELL_SIMULATED) {
        c->m->plan.placement = c->candidate;
        model_spread(c->m);
    }
    for (int kind = 0; kind < 2; kind++)
        if (c->share[kind] > 0)
            s += c->share[kind] * kind_time(c, kind, d, how);
    return s;
}

/* Takes c->candidate where it is better than the best so far: exceeds the device by less, or as
 * little and is faster. */
static void weigh(struct choice *c)
{
    struct demand d;
    size_t over;
    double s;

    count_levels(c, &d);
    if (c->best_over == 0 && mean_time(c, &d, TELL_OPS) >= c->best_s * (1 - SAME))
        return;
    count_bytes(c, &d);
    over = more_than(d.device, c->device);
    if (d.host > c->host || over > c->best_over)
        return;
    s = mean_time(c, &d, TELL_BOUND);
    if (c->simulate && d.host > 0 && over == 0) {
        if (c->best_over == 0 && s >= c->best_s * (1 - WORTH))
            return;
        s = mean_time(c, &d, TELL_SIMULATED);
    }
    if (over < c->best_over || s < c->best_s * (1 - SAME)) {
        c->best = c->candidate;
        c->best_s = s;
        c->best_over = over;
        c->best_host = d.host;
    }
}

/* Weighs every way to give left layers to the used states from i on; the last takes the rest. */
static void mix(struct choice *c, int i, int64_t left)
{
    int64_t *count = &c->candidate.n[c->state[c->used[i]].level][c->state[c->used[i]].offloaded];
    int64_t step = (c->layers + GRID - 1) / GRID;

    if (i + 1 == c->n_used) {
        *count = left;
        weigh(c);
        *count = 0;
        return;
    }
    for (int64_t n = 0; n <= left; n += step) {
        *count = n;
        mix(c, i + 1, left - n);
    }
    *count = 0;
}

/* The candidate may have layers in these n states. */
static void use(struct choice *c, int n, const int state[])
{
    memcpy(c->used, state, (size_t)n * sizeof *state);
    c->n_used = n;
}

static void weigh_all(struct choice *c)
{
    static const int on_device[SAVE_LEVELS] = { SAVE_ALL, SAVE_QKV, SAVE_ATTENTION, SAVE_INPUT };
    int64_t asked = c->m->o.keep_layers < c->layers ? c->m->o.keep_layers : c->layers;

    memset(&c->candidate, 0, sizeof c->candidate);
    use(c, SAVE_LEVELS, on_device);
    if (c->m->o.mode == TRAIN_NONE || asked >= 0) {
        if (c->m->o.mode != TRAIN_NONE)
            all_at(&c->candidate, SAVE_ALL, asked, c->layers);
        weigh(c);
        return;
    }
    mix(c, 0, c->layers);
    for (int i = 0; i < STATES && c->host; i++)
        for (int j = i + 1; j < STATES; j++)
            for (int k = j + 1; k < STATES; k++) {
                use(c, 3, (int[]){ i, j, k });
                mix(c, 0, c->layers);
            }
}

/* Rank by the cheap lower bound, then again by simulation of those that can still win. States with
 * nothing offloaded come first, then those with less. */
static void search(struct choice *c)
{
    int all[STATES], n = 0;

    for (int offloaded = 0; offloaded <= SAVE_LEVELS; offloaded++)
        for (int k = offloaded ? offloaded - 1 : 0; k < SAVE_LEVELS; k++) {
            c->state[n].level = k;
            c->state[n].offloaded = offloaded;
            all[n] = n;
            n++;
        }
    c->simulate = false;
    c->best_over = SIZE_MAX;
    weigh_all(c);
    if (c->best_host != 0) { /* else nothing waits for a copy */
        c->simulate = true;
        /* the winner by the lower bound comes first: simulated, it is the time to beat */
        c->candidate = c->best;
        c->best_over = SIZE_MAX;
        use(c, STATES, all);
        weigh(c);
        weigh_all(c);
    }
    use(c, STATES, all);
}

size_t model_capacity(const struct device *d, const struct model_options *o)
{
    size_t left = d->free_bytes((struct device *)(uintptr_t)d);
    size_t most = more_than((size_t)o->device_bytes, d->held_bytes);

    left = more_than(left, d->later_bytes);
    return o->device_bytes > 0 && most < left ? most : left;
}

static size_t device_budget(const struct model *m)
{
    size_t all = model_capacity(m->d, &m->o), later = m->d->later_bytes;

    if (m->o.memory_bytes > 0)
        return (size_t)m->o.memory_bytes;
    if (m->o.device_bytes > 0)
        return all;
    if (m->d->own_memory) /* nobody else uses a GPU's: a 16th of what is free stays, or more */
        return (all + later) / 16 > later ? (all + later) / 16 * 15 : all;
    return all / 5 * 4;
}

/* The processes of a run on one host share its memory. */
size_t model_host_capacity(const struct device *d, const struct model_options *o)
{
    struct ranks r;

    if (!d->own_memory || o->host_bytes < 0)
        return 0;
    if (o->host_bytes > 0)
        return (size_t)o->host_bytes;
    if (d->host_bytes)
        return d->host_bytes / 4 * 3;
    return memory_free_bytes() / 4 * 3 /
           (ranks_find(&r, NULL) == 0 && r.local_size > 1 ? (size_t)r.local_size : 1);
}

/* What a cache in the host's memory leaves of it. None for full training: it changes every weight in
 * every step. */
static size_t host_budget(const struct model *m)
{
    const struct ring *r = &m->ring[RING_CACHE];

    if (!cost_known(m->d) || m->o.mode == TRAIN_FULL)
        return 0;
    return more_than(model_host_capacity(m->d, &m->o), (size_t)r->n * r->nbytes);
}

/* How much longer a dense batch takes with the best placement; 0 where there are none. All states
 * are in use. */
static double dense_ratio(struct choice *c)
{
    enum telling how = c->simulate && c->best_over == 0 ? TELL_SIMULATED : TELL_BOUND;
    struct demand d;

    if (c->share[1] <= 0)
        return 0;
    c->candidate = c->best;
    count_levels(c, &d);
    count_bytes(c, &d);
    c->m->plan.placement = c->best;
    model_spread(c->m);
    return kind_time(c, 1, &d, how) / kind_time(c, 0, &d, how);
}

/* Searches until what is laid out fits: in small models rounding makes bytes differ from the sums. */
static int choose(struct model *m, struct choice *c, struct err *e)
{
    size_t budget = device_budget(m);
    int rc = measure(c, m, e);

    c->device = budget;
    c->host = host_budget(m);
    for (int i = 0; i < TRIES && rc == 0; i++) {
        size_t over;

        search(c);
        m->plan.dense_ratio = dense_ratio(c);
        m->plan.placement = c->best;
        if ((rc = model_layout(m, e)) < 0 || c->best_over)
            break;
        if ((over = more_than(model_bytes(m), budget)) == 0)
            break;
        c->device = more_than(c->device, over);
    }
    m->plan.step_s = c->cost[0].known ? c->best_s : 0;
    return rc;
}

/* Takes the placement that the options give: every layer once, nothing offloaded that is not saved,
 * no trained matrix streamed. */
static int take_placement(struct model *m, struct err *e)
{
    const struct placement *p = m->o.placement;
    int64_t layers = 0, most = m->o.mode == TRAIN_FULL ? 0 : m->to - m->from;
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
    struct choice c = { .m = m, .layers = m->to - m->from };
    int rc;

    if (m->o.placement)
        return take_placement(m, e);
    while ((rc = choose(m, &c, e)) == 0 && c.best_over && m->d->own_memory &&
           m->o.mlp_tile >= 2 * LEAST_TILE && m->o.loss_chunk >= LEAST_TILE) {
        m->o.mlp_tile /= 2; /* nothing else is left to save: smaller buffers */
        m->o.loss_chunk /= 2;
    }
    return rc;
}
