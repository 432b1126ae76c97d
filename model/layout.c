/* model/layout.c - where every buffer of a model lies: run once to measure, once to place. */
#include "model/inside.h"

#include "base/bytes.h"

static void *take(struct model *m, int class, int64_t n, size_t elem_bytes)
{
    return arena_alloc(&m->mem[class], n, elem_bytes, 256);
}

static void *take_act(struct model *m, int class, int64_t rows, int64_t cols)
{
    int64_t n;

    if (__builtin_mul_overflow(rows, cols, &n)) {
        m->mem[class].failed = true;
        return NULL;
    }
    return take(m, class, n, dtype_bytes(m->d->act));
}

static bool trained_whole(const struct model_options *o, enum tensor_kind k)
{
    return o->mode == TRAIN_FULL ||
           (o->mode == TRAIN_LORA_PLUS && (is_norm(k) || k == TK_EMBED));
}

/* A place in the flat array of trained values; each starts on a 256-byte boundary. */
static int64_t take_trained(struct model *m, int64_t count)
{
    int64_t at = m->t.n;

    m->t.n += (count + 63) / 64 * 64;
    return at;
}

/* Points a trained tensor's master, gradient and compute copy at their places. */
static void place_trained(struct model *m, int64_t at, int64_t count, bool norm, void **w,
                          float **master, float **grad)
{
    *master = m->t.w ? m->t.w + at : NULL;
    *grad = m->t.grad ? m->t.grad + at : NULL;
    *w = norm || m->d->act == DT_F32 ? (void *)*master
                                     : take(m, MEM_COMPUTE, count, dtype_bytes(m->d->act));
}

static void lay_weight(struct model *m, const struct tensor_spec *s)
{
    struct weight *w = weight_at(m, s->kind, s->layer);
    bool norm = is_norm(s->kind);

    w->out = s->dims == 2 ? s->shape[0] : 1;
    w->in = s->dims == 2 ? s->shape[1] : s->shape[0];
    w->trained = trained_whole(&m->o, s->kind);
    m->plan.params += s->count;
    if (w->trained)
        place_trained(m, take_trained(m, s->count), s->count, norm, &w->w, &w->master, &w->grad);
    else
        w->w = take(m, MEM_FROZEN, s->count, norm ? 4 : dtype_bytes(m->d->act));
}

static void lay_pair(struct model *m, const struct tensor_spec *s)
{
    struct weight *w = weight_at(m, s->kind, s->layer);
    int64_t na = m->o.rank * w->in, nb = m->o.rank * w->out;

    w->rank = m->o.rank;
    place_trained(m, take_trained(m, na), na, false, &w->pair.a, &w->pair.master_a,
                  &w->pair.grad_a);
    place_trained(m, take_trained(m, nb), nb, false, &w->pair.b, &w->pair.master_b,
                  &w->pair.grad_b);
}

static bool lora(const struct model_options *o)
{
    return o->mode == TRAIN_LORA || o->mode == TRAIN_LORA_PLUS;
}

static void lay_weights(struct model *m)
{
    struct tensor_spec s;

    m->t.n = m->plan.params = 0;
    for (int64_t i = 0; i < config_tensors(&m->c); i++) {
        config_tensor(&m->c, i, &s);
        lay_weight(m, &s);
        if (lora(&m->o) && m->o.target[s.kind])
            lay_pair(m, &s);
    }
    if (m->c.tied) /* one tensor, read twice; its gradient is the sum of both uses */
        m->top[TK_HEAD] = m->top[TK_EMBED];
    m->t.w = take(m, MEM_MASTER, m->t.n, 4);
    m->t.grad = take(m, MEM_GRAD, m->t.n, 4);
    m->t.m = take(m, MEM_MOMENTS, m->t.n, 4);
    m->t.v = take(m, MEM_MOMENTS, m->t.n, 4);
}

static void lay_work(struct model *m, int64_t rows)
{
    struct work *k = &m->work;
    bool back = m->o.mode != TRAIN_NONE;
    int64_t ffn = m->c.ffn_dim, tile = m->o.mlp_tile;

    k->x = back ? NULL : take_act(m, MEM_WORK, rows, m->c.dim);
    k->h = take_act(m, MEM_WORK, rows, m->c.dim);
    k->q = take_act(m, MEM_WORK, rows, q_dim(m));
    k->k = take_act(m, MEM_WORK, rows, kv_dim(m));
    k->v = take_act(m, MEM_WORK, rows, kv_dim(m));
    k->o = take_act(m, MEM_WORK, rows, q_dim(m));
    k->lse = take(m, MEM_WORK, rows * m->c.heads, 4);
    k->rstd = take(m, MEM_WORK, rows, 4);
    k->gate = take_act(m, MEM_WORK, tile, ffn);
    k->up = take_act(m, MEM_WORK, tile, ffn);
    k->act = take_act(m, MEM_WORK, tile, ffn);
    k->loss = take(m, MEM_WORK,
                   (int64_t)m->d->loss_scratch_bytes(m->d, m->o.loss_chunk, m->c.vocab), 1);
    k->ids = take(m, MEM_WORK, rows, 4);
    k->targets = take(m, MEM_WORK, rows, 4);
    k->nll = take(m, MEM_WORK, rows, 4);
    if (lora(&m->o))
        k->xa = take_act(m, MEM_WORK, rows, m->o.rank);
    if (!back)
        return;
    k->x2 = take_act(m, MEM_WORK, rows, m->c.dim);
    k->d_act = take_act(m, MEM_WORK, tile, ffn);
    if (lora(&m->o))
        k->dxa = take_act(m, MEM_WORK, rows, m->o.rank);
    k->dx = take_act(m, MEM_WORK, rows, m->c.dim);
    k->dh = take_act(m, MEM_WORK, rows, m->c.dim);
    k->d_o = take_act(m, MEM_WORK, rows, q_dim(m));
    k->dq = take_act(m, MEM_WORK, rows, q_dim(m));
    k->dk = take_act(m, MEM_WORK, rows, kv_dim(m));
    k->dv = take_act(m, MEM_WORK, rows, kv_dim(m));
    k->attention = take(m, MEM_WORK, (int64_t)m->d->attention_scratch_bytes(
                            m->d, rows, m->c.heads, m->c.head_dim), 1);
}

/* The plan counts layers by level; the last layers, whose memory is free again first, keep most. */
static enum keep level_of(const struct model *m, int64_t layer)
{
    int64_t from = m->c.layers;

    for (int k = KEEP_ALL; k > KEEP_INPUT; k--)
        if (layer >= (from -= placing_kept(&m->plan.placing, (enum keep)k)))
            return (enum keep)k;
    return KEEP_INPUT;
}

static void lay_saved(struct model *m, int64_t rows)
{
    for (int64_t i = 0; i < m->c.layers; i++) {
        struct saved *s = &m->layers[i].s;
        const struct work *k = &m->work;

        *s = (struct saved){ .x = k->x, .q = k->q, .k = k->k, .v = k->v, .o = k->o,
                             .x2 = k->x2, .lse = k->lse };
        if (m->o.mode == TRAIN_NONE)
            continue;
        s->x = take_act(m, MEM_SAVED, rows, m->c.dim);
        s->level = level_of(m, i);
        if (s->level >= KEEP_ATTENTION) {
            s->o = take_act(m, MEM_SAVED, rows, q_dim(m));
            s->lse = take(m, MEM_SAVED, rows * m->c.heads, 4);
        }
        if (s->level >= KEEP_QKV) {
            s->q = take_act(m, MEM_SAVED, rows, q_dim(m));
            s->k = take_act(m, MEM_SAVED, rows, kv_dim(m));
            s->v = take_act(m, MEM_SAVED, rows, kv_dim(m));
            s->x2 = take_act(m, MEM_SAVED, rows, m->c.dim);
        }
        if (s->level >= KEEP_ALL) {
            s->gate = take_act(m, MEM_SAVED, rows, m->c.ffn_dim);
            s->up = take_act(m, MEM_SAVED, rows, m->c.ffn_dim);
        }
    }
    if (m->o.mode != TRAIN_NONE) /* the last layer's output, which the final norm reads */
        m->work.x = take_act(m, MEM_SAVED, rows, m->c.dim);
}

size_t model_bytes(const struct model *m)
{
    size_t sum = 0;

    for (int i = 0; i < MEM_CLASSES; i++)
        if (!add_ok(sum, m->mem[i].used_bytes, &sum))
            return SIZE_MAX;
    return sum;
}

/* The trained values are placed last, yet the weights point into them: two passes settle it. */
int model_layout(struct model *m, struct err *e)
{
    int64_t rows;

    if (__builtin_mul_overflow(m->o.seqs, m->o.ctx, &rows) || rows > (int64_t)1 << 40)
        return err_set(e, E_CONFIG, "%lld sequences of %lld tokens are too many",
                       (long long)m->o.seqs, (long long)m->o.ctx);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < MEM_CLASSES; i++)
            m->mem[i].used_bytes = 0;
        lay_weights(m);
    }
    lay_work(m, rows);
    lay_saved(m, rows);
    for (int i = 0; i < MEM_CLASSES; i++)
        if (m->mem[i].failed)
            return err_set(e, E_CONFIG, "the model at %lld x %lld tokens needs more memory than "
                           "can be addressed", (long long)m->o.seqs, (long long)m->o.ctx);
    return 0;
}
