/* model/cost.c - see cost.h. */
#include "model/cost.h"
#include "model/spread.h"

#include "kernels/planned.h"

#include <math.h>

/*
 * How long a micro-batch takes, from sizes and rates alone. An op takes its operations over the
 * rate of matrix products or of attention, or its bytes over that of memory; a layer is a sum of
 * these. Beside the ops run copies (offload.c), and one waits for the other: a step is what the
 * later of them takes. Llama-2-7B at 102400 tokens, one layer on an H200:
 *
 *     forward 99 ms, backward 168 ms; recomputing 83 ms if only the input was saved, 26 ms if q, k, v
 *     were; the input is 0.8 GiB, 15 ms each way, which the ops hide unless they wait for the slot
 *
 * Three answers, each dearer and never smaller than the one before: the ops alone, a lower bound
 * with all copies beside all ops, and a simulation, layer by layer.
 *
 * Rates are those of long rows and long segments; short ones reach a share n / (n + HALF) of
 * them. The constants were fitted to whole steps measured on an H200 (tests/gpu/RESULTS.md),
 * which they meet within 6%; tests/test_plan.c holds them to 7.
 */
#define MATRIX_HALF 150.0         /* rows */
#define MATRIX_BACK_HALF 750.0    /* the same of the products of the backward */
#define ATTENTION_HALF 900.0      /* tokens a segment */
#define ATTENTION_BACK_HALF 1300.0
#define SHIFTED 0.94              /* of attention's rate, where half of the heads are shifted */
#define BACK_SHARE 0.96           /* of the matrix rate, of the backward's products */
#define LOGIT_BYTES 12.0          /* moved a logit: made, normalised, turned into its gradient, used */
#define THIN_SHARE 0.8            /* of a pair's rows in and out, that its products move */
#define BOTH_WAYS 0.65            /* of the link's rate, with copies in both directions */
#define COPY_SLOWS 0.02           /* of the ops' rate is lost while a copy runs beside them */
#define UPDATE_BYTES 40.0         /* moved a trained value: cleared, summed, AdamW, copied */

/* Of a device that does not tell its rates: only the order counts, by which attention is slower than
 * products. Nothing is offloaded. */
static const struct rates nominal = { 1, 0.8, 0.8, INFINITY, 0, 0 };

/* Sizes of one layer that times are made from. */
struct shape {
    double rows, unit;      /* bytes of [rows][dim] */
    double qkv, o, inner, outer; /* operations of their products, forward; of the MLP */
    double attention;
    double thin;            /* bytes that LoRA's products of a forward move */
    double heads, ffn;      /* (q + kv) / dim, ffn / dim */
    double added;           /* bytes that norms of q and k and biases move forward */
    double twice;           /* operations that the backward does again whatever is saved */
};

static struct shape shape_of(const struct model *m)
{
    const struct llama_config *c = &m->c;
    double rows = (double)model_rows(&m->o), dim = (double)c->dim;
    double q = (double)q_dim(m), kv = (double)kv_dim(m), ctx = (double)m->o.ctx;
    double span = m->o.attention_span > 0 && m->o.attention_span < m->o.ctx
                      ? (double)m->o.attention_span : ctx;
    double pairs = span / 2 * (span < ctx ? 1 - span / (4 * ctx) : 1);
    double far = c->window && span > (double)c->window ? 1 - (double)c->window / span : 0;
    double windowed = 0; /* share of the layers that have the window */
    struct shape s = { .rows = rows, .unit = rows * dim * (double)dtype_bytes(m->d->act),
                       .qkv = 2 * rows * (double)config_readers(c, ROLE_Q),
                       .o = 2 * rows * (double)config_readers(c, ROLE_O),
                       .inner = 2 * rows * (double)config_readers(c, ROLE_GATE),
                       .outer = 2 * rows * (double)config_readers(c, ROLE_DOWN),
                       .attention = 4 * rows * q * pairs, .heads = (q + kv) / dim,
                       .ffn = (double)c->ffn_dim / dim };

    for (int64_t l = 0; l < c->layers; l++)
        windowed += (config_window(c, l) > 0) / (double)c->layers;
    s.attention *= 1 - windowed * far * far;
    s.attention *= spread_slowest(m, span >= ctx);
    s.added = 2 * rows * (double)dtype_bytes(m->d->act) *
              (config_biases(c) + (has_role(m, ROLE_Q_NORM) ? q + kv : 0));

    /* norms of what is added to x read that and write it once more, and the backward makes it again */
    if (has_role(m, ROLE_POST_ATTN_NORM))
        s.added += 2 * s.unit, s.twice += s.o;
    if (has_role(m, ROLE_POST_MLP_NORM))
        s.added += 2 * s.unit, s.twice += s.outer;
    for (const struct weight *w = m->layers[m->from].w; w < m->layers[m->from].w + ROLES; w++)
        if (w->rank && !w->slice)
            s.thin += THIN_SHARE * rows * (double)(w->in + w->out) *
                      (double)dtype_bytes(m->d->act);
    return s;
}

static double reached(double rate, double n, double half) { return rate * n / (n + half); }

/* Seconds of an exchange of nbytes that ops of 'cover' seconds do not hide, nor bare of it any. */
static double uncovered(double nbytes, double bare, double cover, double rate)
{
    double s = rate > 0 ? nbytes / rate : 0;

    return bare * s + fmax((1 - bare) * s - cover, 0);
}

/* What ranks of one sequence wait for each other (layer.c says beside which ops what travels): the
 * product of q, where heads are turned attention too; for what is sent again, the MLP's backward. */
static void line_cost(const struct model *m, bool dense, const struct cost *ops, struct cost *c)
{
    struct spread_traffic t = spread_traffic(m, dense);
    bool turned = dense || m->halo == 0;
    double rate = m->o.link_rate, mlp = ops->backward + ops->again[SAVE_QKV];

    c->bare = uncovered(t.forward, t.bare, ops->forward + (turned ? ops->again[SAVE_INPUT] : 0), rate);
    c->bare_back = uncovered(t.back, t.bare / (turned ? 2 : 1),
                             ops->forward + (turned ? ops->top + mlp : 0), rate);
    c->bare_again[SAVE_INPUT] = c->bare;
    c->bare_again[SAVE_ATTENTION] = uncovered(t.keys, 0, mlp, rate);
    c->bare_again[SAVE_QKV] = c->bare_again[SAVE_ALL] = 0;
}

/* One layer: what its forward and backward take, and what each level computes again. */
static void layer_cost(const struct model *m, const struct rates *r, struct cost *c)
{
    struct shape s = shape_of(m);
    bool shifted = m->o.attention_span > 0 && m->o.attention_span < m->o.ctx;
    double span = shifted ? (double)m->o.attention_span : (double)m->o.ctx;
    double mm = reached(r->matrix, s.rows, MATRIX_HALF), share = shifted ? SHIFTED : 1;
    double at = share * reached(r->attention, span, ATTENTION_HALF);
    double at_back = share * reached(r->attention_back, span, ATTENTION_BACK_HALF);
    double all = s.qkv + s.o + s.inner + s.outer;
    double mm_back = BACK_SHARE * reached(r->matrix, s.rows, MATRIX_BACK_HALF);
    double dw = m->o.mode == TRAIN_FULL ? 2 : 1;
    /* of the ops that exchanges may hide behind: q's product, attention forward (again) and backward
     * (top), and the MLP's backward */
    struct cost cover = { .forward = 2 * s.rows * (double)m->c.dim * (double)q_dim(m) / mm,
                          .backward = (s.inner + s.outer) / mm_back, .top = 2.5 * s.attention / at_back };

    c->forward = all / mm + s.attention / at +
                 ((4 + 2 * s.heads + 3 * s.ffn) * s.unit + s.thin + s.added) / r->memory;
    c->backward = s.twice / mm + dw * all / mm_back + 2.5 * s.attention / at_back +
                  ((10 + 2 * s.heads + 5 * s.ffn) * s.unit + 2 * s.thin + 2 * s.added) / r->memory;
    c->again[SAVE_ALL] = 0;
    c->again[SAVE_QKV] = s.inner / mm + 2 * s.unit / r->memory;
    c->again[SAVE_ATTENTION] = c->again[SAVE_QKV] + (s.qkv + s.o) / mm +
                               (2 * s.heads * s.unit + s.thin) / r->memory;
    c->again[SAVE_INPUT] = c->again[SAVE_ATTENTION] + s.attention / at;
    cover.again[SAVE_INPUT] = s.attention / at;
    line_cost(m, !shifted, &cover, c);
    c->forward += c->bare, c->backward += c->bare_back;
    for (int k = SAVE_INPUT; k < SAVE_QKV; k++)
        c->again[k] += c->bare_again[k];
    c->top = (m->o.mode == TRAIN_NONE ? 1 : 1 + dw) * 2 * s.rows * (double)m->c.dim *
             (double)m->c.vocab / mm +
             (6 * s.unit + LOGIT_BYTES * s.rows * (double)m->c.vocab) / r->memory;
}

bool cost_known(const struct device *d)
{
    const struct rates *r = &d->rates;

    return r->matrix > 0 && r->attention > 0 && r->attention_back > 0 && r->memory > 0 &&
           r->out > 0 && r->in > 0;
}

void cost_of(const struct model *m, struct cost *c)
{
    const struct rates *r = cost_known(m->d) ? &m->d->rates : &nominal;

    layer_cost(m, r, c);
    if (m->o.mode != TRAIN_NONE)
        c->top += UPDATE_BYTES * (double)m->t.n / r->memory;
    c->known = cost_known(m->d);
    c->out = r->out, c->in = r->in;
}

/* Seconds of copies both ways at once. */
static double copying(const struct cost *c, double out, double in)
{
    double a = out > 0 ? out / c->out : 0, b = in > 0 ? in / c->in : 0, both = fmin(a, b);

    return both / BOTH_WAYS + fmax(a, b) - both;
}

/* Of ops, with so many seconds of copies beside them. */
static double slowed(double ops, double copies) { return ops + COPY_SLOWS * fmin(ops, copies); }

static double again_of(const struct cost *c, const int64_t saved[SAVE_LEVELS])
{
    double s = 0;

    for (int k = 0; k < SAVE_LEVELS; k++)
        s += (double)saved[k] * c->again[k];
    return s;
}

double cost_of_ops(const struct cost *c, const int64_t saved[SAVE_LEVELS], int64_t layers, bool back)
{
    double forward = c->top + (double)layers * c->forward;

    return back ? forward + (double)layers * c->backward + again_of(c, saved) : forward;
}

double cost_lower_bound(const struct cost *c, const struct traffic *t,
                        const int64_t saved[SAVE_LEVELS], int64_t layers, bool back)
{
    double forward = (double)layers * c->forward, copies = copying(c, t->sent, t->forward);
    double backward = (double)layers * c->backward + again_of(c, saved);

    forward = fmax(slowed(forward, copies), copies);
    copies = copying(c, 0, t->sent + t->backward);
    return c->top + forward + (back ? fmax(slowed(backward, copies), copies) : 0);
}

/* A pass over the layers by the clocks: what one takes, with slow for the copies beside it. */
struct pass {
    struct clocks *clocks;
    const struct cost *cost;
    double slow;
};

static void forward_takes(struct model *m, int64_t layer, void *ctx)
{
    const struct pass *p = ctx;

    (void)m, (void)layer;
    p->clocks->now[QUEUE_OPS] += p->slow * p->cost->forward;
}

static void backward_takes(struct model *m, int64_t layer, void *ctx)
{
    const struct pass *p = ctx;
    enum save_level level = m->layers[layer].s.level;

    p->clocks->now[QUEUE_OPS] += p->slow * (p->cost->backward + p->cost->again[level]);
}

/* Seconds a byte in the forward, where copies run both ways: the fewer ones have others beside
 * them all the time. */
static void set_forward_rates(struct clocks *k, const struct cost *c, const struct traffic *t)
{
    double out = t->sent > 0 ? t->sent / c->out : 0, in = t->forward > 0 ? t->forward / c->in : 0;
    double all = copying(c, t->sent, t->forward);

    k->send_byte_s = 1 / c->out, k->fetch_byte_s = 1 / c->in;
    if (out > 0 && in > 0) {
        k->send_byte_s = (out < in ? out / BOTH_WAYS : all) / t->sent;
        k->fetch_byte_s = (out < in ? all : in / BOTH_WAYS) / t->forward;
    }
}

/* Scoring begins by fetching the first weights; training has them from the step before. */
static double simulate(struct model *m, const struct cost *c, const struct traffic *t,
                       const int64_t saved[SAVE_LEVELS], bool back, struct clocks *clocks)
{
    double forward = (double)m->c.layers * c->forward, copies = copying(c, t->sent, t->forward);
    double backward = (double)m->c.layers * c->backward + again_of(c, saved);
    struct pass p = { clocks, c, slowed(forward, copies) / forward };

    for (int i = 0; i < 2; i++)
        m->ring[RING_WEIGHTS].holds[i] = back ? i : -1;
    set_forward_rates(clocks, c, t);
    offload_begin(m);
    offload_forward(m, back, forward_takes, &p);
    clocks->now[QUEUE_OPS] += c->top;
    if (!back)
        return clocks->now[QUEUE_OPS];
    copies = copying(c, 0, t->sent + t->backward);
    clocks->fetch_byte_s = 1 / c->in;
    p.slow = slowed(backward, copies) / backward;
    offload_backward(m, backward_takes, &p);
    return clocks->now[QUEUE_OPS];
}

double cost_simulated(struct model *m, const struct cost *c, const struct traffic *t,
                      const size_t nbytes[RINGS], const int64_t saved[SAVE_LEVELS], bool back)
{
    struct device *own = m->d, timed;
    struct clocks clocks = { 0 };
    double s;

    device_open_clocks(&timed, &clocks);
    for (int k = 0; k < RINGS; k++)
        m->ring[k].nbytes = nbytes[k];
    m->d = &timed;
    s = simulate(m, c, t, saved, back, &clocks);
    m->d = own;
    return s;
}
