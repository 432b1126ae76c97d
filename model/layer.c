/* model/layer.c - one transformer layer: forward, recomputation, backward. */
#include "model/spread.h"

/*
 * A layer reads x and adds to it twice:
 *
 *     x2 = x  + o(attention(rope(q, k), v))       q, k, v: products of norm(x)
 *     y  = x2 + down(silu(gate) * up)             gate, up: products of norm(x2)
 *
 * Families differ (arch.h): attention and MLP may read the same x, have norms of what they add in place of
 * those or beside them, no gate, q, k and v in one matrix. Each step is one op of the device (OP), queued. After a failure (m->rc) nothing more is queued;
 * step.c looks at the end. linear() is a product with a weight, its LoRA pair and bias included.
 *
 * The backward goes through the same lines in reverse and needs their values. What the forward did
 * not save (struct saved, level) layer_backward first computes again, by the same functions and so
 * to the same bits: at SAVE_INPUT everything from x on, at SAVE_ATTENTION all but attention, at
 * SAVE_QKV gate and up alone. The MLP is computed for mlp_tile rows at a time, because gate and up
 * are the widest arrays there are.
 */

#define OP(m, name, ...)                                                \
    do {                                                                \
        if ((m)->rc == 0)                                               \
            (m)->rc = (m)->d->name((m)->d, &(struct op_##name){ __VA_ARGS__ }); \
    } while (0)

/* Of a layer that has RoPE: queries, or keys. */
static void rope_one(struct model *m, const struct layer *l, const struct span *b, void *x, bool key,
                     bool inverse)
{
    if (layer_in(&m->c.no_rope, l - m->layers))
        return;
    OP(m, rope, .rows = b->rows, .ld = key ? kv_dim(m) : q_dim(m),
       .heads = key ? m->c.kv_heads : m->c.heads, .dim = config_rotary(&m->c), .stride = m->c.head_dim,
       .first = b->first, .period = b->len, .inverse = inverse, .scale = layer_freq_scale(m, l - m->layers),
       .inv_freq = layer_freq(m, l - m->layers), .x = x);
}

/* And both. */
static void rope(struct model *m, const struct layer *l, const struct span *b, void *q, void *k,
                 bool inverse)
{
    int64_t layer = l - m->layers;

    if (layer_in(&m->c.no_rope, layer))
        return;
    OP(m, rope, .rows = b->rows, .ld = q_dim(m), .heads = m->c.heads, .dim = config_rotary(&m->c),
       .stride = m->c.head_dim, .first = b->first, .period = b->len, .inverse = inverse,
       .scale = layer_freq_scale(m, layer), .inv_freq = layer_freq(m, layer), .x = q,
       .ld2 = kv_dim(m), .heads2 = m->c.kv_heads, .x2 = k,
       .firsts = b->cached ? b->cached->firsts : NULL);
}

/* What a part of the layer reads: work.h = norm(x), or where it has no norm of that role, x. */
static void *normed(struct model *m, const struct layer *l, enum role r, int64_t rows, void *x,
                    float *rstd)
{
    if (l->w[r].in == 0)
        return x;
    norm_forward(m, &l->w[r], rows, x, m->work.h, rstd);
    return m->work.h;
}

/* work.dx += the gradient of x through that, from work.dh. */
static void normed_back(struct model *m, const struct layer *l, enum role r, int64_t rows,
                        const void *x, const float *rstd)
{
    if (l->w[r].in)
        norm_backward(m, &l->w[r], rows, x, m->work.dh, rstd, m->work.dx, false);
    else
        OP(m, add, .n = rows * m->c.dim, .x = m->work.dh, .y = m->work.dx);
}

/* y = x + w[0](in), which has a norm of its own where w_norm has values. y may be x; where there is
 * the norm, t [rows][dim] is overwritten. */
static void add_branch(struct model *m, const struct weight *w, const struct weight *w_norm,
                       int64_t rows, const void *in, void *t, const void *x, void *y)
{
    linear(m, w, 1, rows, in, w_norm->in ? &t : &y, w_norm->in ? NULL : x);
    if (w_norm->in)
        OP(m, rmsnorm, .rows = rows, .dim = w_norm->in, .eps = (float)m->c.norm_eps, .x = t,
           .w = w_norm->w, .y = y, .add = x, .shift = norm_shift(m));
}

/* The gradient of w[0](in) from dy, that of y: dy itself, or through the norm, in d. t and d [rows][dim]
 * are overwritten then, and work.rstd. */
static const void *branch_back(struct model *m, const struct weight *w, const struct weight *w_norm,
                               int64_t rows, const void *in, const void *dy, void *t, void *d)
{
    if (w_norm->in == 0)
        return dy;
    linear(m, w, 1, rows, in, &t, NULL);
    OP(m, rmsnorm, .rows = rows, .dim = w_norm->in, .eps = (float)m->c.norm_eps, .x = t,
       .w = w_norm->w, .y = d, .rstd = m->work.rstd, .shift = norm_shift(m));
    OP(m, rmsnorm_back, .rows = rows, .dim = w_norm->in, .x = t, .dy = dy, .w = w_norm->w,
       .rstd = m->work.rstd, .dx = d, .dw = w_norm->grad, .overwrite = true, .shift = norm_shift(m));
    return d;
}

/* A norm of q or k [rows][width], of each head or of all at once: as wide as its weight. */
static void norm_heads(struct model *m, const struct weight *w, int64_t rows, int64_t width,
                       const void *x, void *y, float *rstd)
{
    OP(m, rmsnorm, .rows = rows * width / w->in, .dim = w->in, .eps = (float)m->c.norm_eps,
       .x = x, .w = w->w, .y = y, .rstd = rstd, .shift = norm_shift(m));
}

static void norm_heads_back(struct model *m, const struct weight *w, int64_t rows, int64_t width,
                            const void *x, const void *dy, const float *rstd, void *dx)
{
    OP(m, rmsnorm_back, .rows = rows * width / w->in, .dim = w->in, .x = x, .dy = dy, .w = w->w,
       .rstd = rstd, .dx = dx, .dw = w->grad, .overwrite = true, .shift = norm_shift(m));
}

static bool normed_heads(const struct layer *l) { return l->w[ROLE_Q_NORM].in > 0; }

/* Makes of the products q and k what attention reads: in their place, or where they have norms,
 * in work.qn and kn. */
static void turn_heads(struct model *m, const struct layer *l, const struct saved *s,
                       const struct span *b)
{
    struct work *k = &m->work;

    if (!normed_heads(l)) {
        rope(m, l, b, s->q, s->k, false);
        return;
    }
    norm_heads(m, &l->w[ROLE_Q_NORM], b->rows, q_dim(m), s->q, k->qn, k->q_rstd);
    norm_heads(m, &l->w[ROLE_K_NORM], b->rows, kv_dim(m), s->k, k->kn, k->k_rstd);
    rope(m, l, b, k->qn, k->kn, false);
}

static struct op_attention attention_of(const struct model *m, const struct layer *l,
                                        const struct saved *s, const struct span *b)
{
    return (struct op_attention){
        .q_rows = b->rows, .kv_rows = b->rows, .heads = m->c.heads,
        .kv_heads = m->c.kv_heads, .dim = m->c.head_dim, .q_ld = q_dim(m), .kv_ld = kv_dim(m),
        .scale = m->c.times.scores > 0 ? (float)m->c.times.scores
                                       : 1.0f / __builtin_sqrtf((float)m->c.head_dim),
        .seg = { b->seg ? b->seg->half[0] : b->cached->seg, b->seg ? b->seg->half[1] : b->cached->seg },
        .q = m->work.qn ? m->work.qn : s->q, .k = m->work.kn ? m->work.kn : s->k, .v = s->v,
        .o = s->o, .lse = s->lse, .window = config_window(&m->c, l - m->layers),
        .cap = (float)m->c.cap.scores,
    };
}

/* From x + at in rows of ld, or to it, where q, k and v lie by heads in one: heads of one of them. */
static void copy_heads(struct model *m, int64_t rows, int64_t heads, int part, void *one, bool apart)
{
    int64_t d = m->c.head_dim, ld = config_size(&m->c, SIZE_QKV);
    struct op_heads a = { .rows = rows, .heads = heads, .dim = d, .x = one, .x_ld = heads * d, .x_stride = d,
        .y = act_at(m, m->work.qkv, part * d), .y_ld = ld, .y_stride = 3 * d };

    if (apart)
        a = (struct op_heads){ .rows = rows, .heads = heads, .dim = d, .x = a.y, .x_ld = ld,
            .x_stride = 3 * d, .y = one, .y_ld = heads * d, .y_stride = d };
    if (m->rc == 0)
        m->rc = m->d->heads(m->d, &a);
}

/* The products q, k, v of h, as attention reads them. */
static void qkv(struct model *m, const struct layer *l, int64_t rows, const void *h, void *const y[3])
{
    if (!m->work.qkv) {
        linear(m, &l->w[ROLE_Q], 3, rows, h, y, NULL);
        return;
    }
    linear(m, &l->w[ROLE_QKV], 1, rows, h, &m->work.qkv, NULL);
    for (int i = 0; i < 3; i++)
        copy_heads(m, rows, m->c.heads, i, y[i], true);
}

/* work.dh from their gradients dy; the weights' with what they read, which is made again where needed. */
static void qkv_back(struct model *m, const struct layer *l, const struct saved *s, int64_t rows,
                     const void *const dy[3])
{
    const struct weight *w = m->work.qkv ? &l->w[ROLE_QKV] : &l->w[ROLE_Q];
    const void *const one[1] = { m->work.qkv }, *const *d = m->work.qkv ? one : dy;
    int n = m->work.qkv ? 1 : 3;
    void *h = m->work.h;

    for (int i = 0; i < 3 && m->work.qkv; i++)
        copy_heads(m, rows, m->c.heads, i, (void *)(uintptr_t)dy[i], false);
    if (linear_reads_input(w, n))
        h = normed(m, l, ROLE_ATTN_NORM, rows, s->x, s->rstd[0]);
    linear_back(m, w, n, rows, d, m->work.dh);
    linear_back_weights(m, w, n, rows, h, d);
}

/* Of q (key false) or k of a sequence over several ranks, what attention reads: as turn_heads does of
 * both. */
static void turn_one(struct model *m, const struct layer *l, const struct saved *s, const struct span *b,
                     bool key)
{
    struct work *k = &m->work;
    void *x = key ? s->k : s->q;

    if (normed_heads(l) && key)
        norm_heads(m, &l->w[ROLE_K_NORM], b->rows, kv_dim(m), s->k, x = k->kn, k->k_rstd);
    else if (normed_heads(l))
        norm_heads(m, &l->w[ROLE_Q_NORM], b->rows, q_dim(m), s->q, x = k->qn, k->q_rstd);
    rope_one(m, l, b, x, key, false);
}

/* The products q, k, v of h, turned, keys first: others' are on their way while q is computed. */
static void qkv_spread(struct model *m, const struct layer *l, const struct saved *s,
                       const struct span *b, const void *h, const struct op_attention *a, bool attended)
{
    const struct weight *w = &l->w[ROLE_Q];
    void *const y[3] = { s->q, s->k, s->v };

    if (m->work.qkv)
        qkv(m, l, b->rows, h, y);
    else
        linear_begin(m, w, 3, b->rows, h);
    for (int i = 1; i < 3 && !m->work.qkv; i++)
        linear_one(m, w, 3, i, b->rows, h, y[i], NULL);
    turn_one(m, l, s, b, true);
    spread_keys(m, (void *)(uintptr_t)a->k, (void *)(uintptr_t)a->v, attended);
    if (!m->work.qkv)
        linear_one(m, w, 3, 0, b->rows, h, s->q, NULL);
    turn_one(m, l, s, b, false);
    spread_queries(m, a, attended);
}

/* x2 = x + attention(norm1(x)) Wo^T, which may have a norm; x2 may be x. Fills q, k, v and, unless they are there
 * already (attended), o and lse. */
static void attention_block(struct model *m, const struct layer *l, const struct saved *s,
                            const struct span *b, bool attended, void *x2)
{
    struct op_attention a = attention_of(m, l, s, b);
    void *h = normed(m, l, ROLE_ATTN_NORM, b->rows, s->x, s->rstd[0]);

    if (m->spread) {
        qkv_spread(m, l, s, b, h, &a, attended);
    } else {
        qkv(m, l, b->rows, h, (void *[]){ s->q, s->k, s->v });
        turn_heads(m, l, s, b);
    }
    if (b->cached)
        cache_attend(m, l, b, a.k, a.v, &a);
    if (m->spread && !attended)
        spread_forward(m, &a);
    else if (m->rc == 0 && !attended)
        m->rc = m->d->attention(m->d, &a);
    add_branch(m, &l->w[ROLE_O], &l->w[ROLE_POST_ATTN_NORM], b->rows, s->o, m->work.h, s->x, x2);
}

/* The rows [at, at + n) of the MLP's two inner products, saved or in the tile buffers. */
struct tile {
    int64_t at, n;
    void *gate, *up, *h;
};

static struct tile tile_at(const struct model *m, const struct saved *s, void *h, int64_t at, int64_t rows)
{
    int64_t n = rows - at < m->o.mlp_tile ? rows - at : m->o.mlp_tile;

    return (struct tile){ .at = at, .n = n, .h = act_at(m, h, at * m->c.dim),
        .gate = s->gate ? act_at(m, s->gate, at * m->c.ffn_dim) : m->work.gate, /* NULL: it has none */
        .up = s->up ? act_at(m, s->up, at * m->c.ffn_dim) : m->work.up };
}

/* What reads the MLP's input: gate and up, or up alone. */
static const struct weight *inner_of(const struct layer *l, int *n)
{
    *n = l->w[ROLE_GATE].in ? 2 : 1;
    return &l->w[*n == 2 ? ROLE_GATE : ROLE_UP];
}

static void gate_up(struct model *m, const struct layer *l, const struct tile *t)
{
    int n;
    const struct weight *w = inner_of(l, &n);

    linear(m, w, n, t->n, t->h, (void *[]){ n == 2 ? t->gate : t->up, t->up }, NULL);
}

/* work.act = f(gate) * up, or f(up). */
static void activate(struct model *m, const struct tile *t)
{
    OP(m, swiglu, .n = t->n * m->c.ffn_dim, .gate = t->gate ? t->gate : t->up, .up = t->gate ? t->up : NULL,
       .y = m->work.act, .f = (enum gate)m->c.activation);
}

void layer_forward(struct model *m, const struct layer *l, const struct saved *s,
                   const struct span *b, void *y)
{
    /* Not saved, it is in dh, unused as yet. In training never in y: products add what lies
     * elsewhere in one rounding, in place on a GPU in two, and every level shall give equal bits. */
    void *x2 = s->level >= SAVE_QKV ? s->x2 : m->work.dh ? m->work.dh : m->c.parallel ? m->work.kept : y, *h;

    attention_block(m, l, s, b, false, x2);
    h = normed(m, l, ROLE_MLP_NORM, b->rows, m->c.parallel ? s->x : x2, s->rstd[1]);
    for (int64_t at = 0; at < b->rows; at += m->o.mlp_tile) {
        struct tile t = tile_at(m, s, h, at, b->rows);

        m->dropout.at = at;
        gate_up(m, l, &t);
        activate(m, &t);
        /* the tile's h has been read */
        add_branch(m, &l->w[ROLE_DOWN], &l->w[ROLE_POST_MLP_NORM], t.n, m->work.act,
                   act_at(m, m->work.h, at * m->c.dim), act_at(m, x2, at * m->c.dim),
                   act_at(m, y, at * m->c.dim));
    }
    m->dropout.at = 0;
}

/* dx: gradient of the layer's output in, of x2 out. work.dh is overwritten. What no gradient
 * reads, the MLP's input and inner result, is not made again. */
static void mlp_backward(struct model *m, const struct layer *l, const struct saved *s,
                         const struct span *b)
{
    int n;
    const struct weight *inner = inner_of(l, &n), *outer = &l->w[ROLE_DOWN];
    const struct weight *after = &l->w[ROLE_POST_MLP_NORM];
    void *y = linear_reads_input(outer, 1) ? m->work.act : NULL, *h = m->work.h;
    void *x = m->c.parallel ? s->x : s->x2;

    if (!s->up || linear_reads_input(inner, n))
        h = normed(m, l, ROLE_MLP_NORM, b->rows, x, s->rstd[1]);
    for (int64_t at = 0; at < b->rows; at += m->o.mlp_tile) {
        struct tile t = tile_at(m, s, h, at, b->rows);
        void *dh = act_at(m, m->work.dh, at * m->c.dim);
        const void *dy = act_at(m, m->work.dx, at * m->c.dim);
        const void *d_inner[2] = { n == 2 ? t.gate : t.up, t.up };

        m->dropout.at = at;
        if (!s->up)
            gate_up(m, l, &t);
        if (after->in) { /* reads what was added, dh has room for it */
            activate(m, &t);
            dy = branch_back(m, outer, after, t.n, m->work.act, dy, dh, m->work.branch);
        }
        linear_back(m, outer, 1, t.n, &dy, m->work.d_act);
        OP(m, swiglu_back, .n = t.n * m->c.ffn_dim, .gate = d_inner[0], .up = n == 2 ? t.up : NULL,
           .dy = m->work.d_act, .d_gate = n == 2 ? t.gate : t.up, .d_up = t.up, .y = after->in ? NULL : y,
           .f = (enum gate)m->c.activation);
        linear_back_weights(m, outer, 1, t.n, y, &dy);
        linear_back(m, inner, n, t.n, d_inner, dh);
        linear_back_weights(m, inner, n, t.n, t.h, d_inner);
    }
    m->dropout.at = 0;
    if (m->c.parallel) /* attention's backward starts from the same gradient */
        OP(m, heads, .rows = b->rows, .heads = 1, .dim = m->c.dim, .x = m->work.dx, .x_ld = m->c.dim,
           .y = m->work.kept, .y_ld = m->c.dim);
    normed_back(m, l, ROLE_MLP_NORM, b->rows, x, s->rstd[1]);
}

static struct op_attention_back attention_back_of(const struct model *m, const struct layer *l,
                                                  const struct saved *s, const struct span *b)
{
    const struct work *k = &m->work;

    return (struct op_attention_back){ .fwd = attention_of(m, l, s, b), .d_o = k->d_o, .dq = k->dq,
                                       .dk = k->dk, .dv = k->dv, .scratch = k->attention };
}

/* Through RoPE and norm of queries, or keys. Returns where the gradient of their product is. */
static const void *turn_one_back(struct model *m, const struct layer *l, const struct saved *s,
                                 const struct span *b, bool key)
{
    struct work *k = &m->work;

    rope_one(m, l, b, key ? k->dk : k->dq, key, true);
    if (!normed_heads(l))
        return key ? k->dk : k->dq;
    if (key)
        norm_heads_back(m, &l->w[ROLE_K_NORM], b->rows, kv_dim(m), s->k, k->dk, k->k_rstd, k->kn);
    else
        norm_heads_back(m, &l->w[ROLE_Q_NORM], b->rows, q_dim(m), s->q, k->dq, k->q_rstd, k->qn);
    return key ? k->kn : k->qn;
}

/* The same of a sequence over several ranks: what belongs to dq, while others' dk and dv come. */
static void spread_backward(struct model *m, const struct layer *l, const struct saved *s,
                            const struct span *b)
{
    struct op_attention_back a = attention_back_of(m, l, s, b);
    const struct weight *w = &l->w[ROLE_Q];
    const void *d[3] = { NULL, NULL, m->work.dv };
    void *h = m->work.h;
    bool begun;

    spread_back(m, &a);
    d[0] = turn_one_back(m, l, s, b, false);
    begun = !m->work.qkv && linear_back_first(m, w, b->rows, d[0], m->work.dh);
    if (begun && linear_reads_input(w, 3))
        h = normed(m, l, ROLE_ATTN_NORM, b->rows, s->x, s->rstd[0]);
    spread_keys_back(m, &a);
    d[1] = turn_one_back(m, l, s, b, true);
    if (!begun) {
        qkv_back(m, l, s, b->rows, d);
        return;
    }
    linear_back_rest(m, w, 3, b->rows, d, m->work.dh);
    linear_back_weights(m, w, 3, b->rows, h, d);
}

/* dx: gradient of x2 in, of the layer's output out. */
static void attention_backward(struct model *m, const struct layer *l, const struct saved *s,
                               const struct span *b)
{
    struct work *k = &m->work;
    struct op_attention_back a = attention_back_of(m, l, s, b);
    const struct weight *outer = &l->w[ROLE_O];
    const void *dx, *d_inner[3] = { k->dq, k->dk, k->dv };
    bool heads = normed_heads(l);

    dx = branch_back(m, outer, &l->w[ROLE_POST_ATTN_NORM], b->rows, s->o, m->c.parallel ? k->kept : k->dx,
                     k->dh, k->x2);
    linear_back(m, outer, 1, b->rows, &dx, k->d_o);
    linear_back_weights(m, outer, 1, b->rows, s->o, &dx);
    if (m->spread) {
        spread_backward(m, l, s, b);
        normed_back(m, l, ROLE_ATTN_NORM, b->rows, s->x, s->rstd[0]);
        return;
    }
    if (heads && s->level >= SAVE_QKV) /* else layer_backward has just made them */
        turn_heads(m, l, s, b);
    if (m->rc == 0)
        m->rc = m->d->attention_back(m->d, &a);
    rope(m, l, b, k->dq, k->dk, true);
    if (heads) {
        norm_heads_back(m, &l->w[ROLE_Q_NORM], b->rows, q_dim(m), s->q, k->dq, k->q_rstd, k->qn);
        norm_heads_back(m, &l->w[ROLE_K_NORM], b->rows, kv_dim(m), s->k, k->dk, k->k_rstd, k->kn);
        d_inner[0] = k->qn, d_inner[1] = k->kn;
    }
    qkv_back(m, l, s, b->rows, d_inner);
    normed_back(m, l, ROLE_ATTN_NORM, b->rows, s->x, s->rstd[0]);
}

/* What others need of a layer that saved q, k and v, and what this rank needs of theirs, before the
 * MLP's backward: it is there when that is through. Keys in front were saved with the others, unless
 * they have a norm. */
static void spread_ahead(struct model *m, const struct layer *l, const struct saved *s,
                         const struct span *b)
{
    struct op_attention a = attention_of(m, l, s, b);

    if (normed_heads(l))
        turn_heads(m, l, s, b);
    if (normed_heads(l) || m->spread->turned)
        spread_keys(m, (void *)(uintptr_t)a.k, (void *)(uintptr_t)a.v, true);
    spread_queries(m, &a, true);
    offload_ahead(m);
}

void layer_backward(struct model *m, const struct layer *l, const struct saved *s,
                    const struct span *b)
{
    if (s->level < SAVE_QKV)
        attention_block(m, l, s, b, s->level >= SAVE_ATTENTION, s->x2);
    else if (m->spread)
        spread_ahead(m, l, s, b);
    mlp_backward(m, l, s, b);
    attention_backward(m, l, s, b);
}
