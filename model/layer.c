/* model/layer.c - one transformer layer: forward, recomputation, backward. */
#include "model/inside.h"

/*
 * A layer reads x and adds to it twice:
 *
 *     x2 = x  + o(attention(rope(q, k), v))       q, k, v: products of norm(x)
 *     y  = x2 + down(silu(gate) * up)             gate, up: products of norm(x2)
 *
 * Each step is one op of the device (OP), queued. After a failure (m->rc) nothing more is queued;
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

/* work.h = norm(x); rstd stays for norm_back. */
static void norm(struct model *m, const struct weight *w, int64_t rows, const void *x,
                 float *rstd)
{
    OP(m, rmsnorm, .rows = rows, .dim = w->in, .eps = (float)m->c.norm_eps, .x = x, .w = w->w,
       .y = m->work.h, .rstd = rstd);
}

/* work.dx += the gradient through a norm of x, from work.dh. */
static void norm_back(struct model *m, const struct weight *w, int64_t rows, const void *x,
                      const float *rstd)
{
    OP(m, rmsnorm_back, .rows = rows, .dim = w->in, .x = x, .dy = m->work.dh, .w = w->w,
       .rstd = rstd, .dx = m->work.dx, .dw = w->grad);
}

static void rope(struct model *m, const struct span *b, void *q, void *k, bool inverse)
{
    OP(m, rope, .rows = b->rows, .ld = q_dim(m), .heads = m->c.heads, .dim = config_rotary(&m->c),
       .stride = m->c.head_dim, .first = b->first, .period = b->len, .inverse = inverse,
       .scale = m->rope_scale, .inv_freq = m->inv_freq, .x = q, .ld2 = kv_dim(m), .heads2 = m->c.kv_heads, .x2 = k);
}

/* A norm of q or k [rows][width], of each head or of all at once: as wide as its weight. */
static void norm_heads(struct model *m, const struct weight *w, int64_t rows, int64_t width,
                       const void *x, void *y, float *rstd)
{
    OP(m, rmsnorm, .rows = rows * width / w->in, .dim = w->in, .eps = (float)m->c.norm_eps,
       .x = x, .w = w->w, .y = y, .rstd = rstd);
}

static void norm_heads_back(struct model *m, const struct weight *w, int64_t rows, int64_t width,
                            const void *x, const void *dy, const float *rstd, void *dx)
{
    OP(m, rmsnorm_back, .rows = rows * width / w->in, .dim = w->in, .x = x, .dy = dy, .w = w->w,
       .rstd = rstd, .dx = dx, .dw = w->grad, .overwrite = true);
}

static bool normed_heads(const struct layer *l) { return l->w[ROLE_Q_NORM].in > 0; }

/* Makes of the products q and k what attention reads: in their place, or where they have norms,
 * in work.qn and kn. */
static void turn_heads(struct model *m, const struct layer *l, const struct saved *s,
                       const struct span *b)
{
    struct work *k = &m->work;

    if (!normed_heads(l)) {
        rope(m, b, s->q, s->k, false);
        return;
    }
    norm_heads(m, &l->w[ROLE_Q_NORM], b->rows, q_dim(m), s->q, k->qn, k->q_rstd);
    norm_heads(m, &l->w[ROLE_K_NORM], b->rows, kv_dim(m), s->k, k->kn, k->k_rstd);
    rope(m, b, k->qn, k->kn, false);
}

static struct op_attention attention_of(const struct model *m, const struct saved *s,
                                        const struct span *b)
{
    return (struct op_attention){
        .q_rows = b->rows, .kv_rows = b->rows, .heads = m->c.heads,
        .kv_heads = m->c.kv_heads, .dim = m->c.head_dim, .q_ld = q_dim(m), .kv_ld = kv_dim(m),
        .scale = 1.0f / __builtin_sqrtf((float)m->c.head_dim),
        .seg = { b->seg->half[0], b->seg->half[1] },
        .q = m->work.qn ? m->work.qn : s->q, .k = m->work.kn ? m->work.kn : s->k, .v = s->v,
        .o = s->o, .lse = s->lse, .window = m->c.window,
    };
}

/* x2 = x + attention(norm1(x)) Wo^T; x2 may be x. Fills q, k, v and, unless they are there
 * already (attended), o and lse. */
static void attention_block(struct model *m, const struct layer *l, const struct saved *s,
                            const struct span *b, bool attended, void *x2)
{
    struct op_attention a = attention_of(m, s, b);

    norm(m, &l->w[ROLE_ATTN_NORM], b->rows, s->x, s->rstd[0]);
    linear(m, &l->w[ROLE_Q], 3, b->rows, m->work.h, (void *[]){ s->q, s->k, s->v }, NULL);
    turn_heads(m, l, s, b);
    if (m->rc == 0 && !attended)
        m->rc = m->d->attention(m->d, &a);
    linear(m, &l->w[ROLE_O], 1, b->rows, s->o, (void *[]){ x2 }, s->x);
}

/* The rows [at, at + n) of the MLP's two inner products, saved or in the tile buffers. */
struct tile {
    int64_t at, n;
    void *gate, *up, *h;
};

static struct tile tile_at(const struct model *m, const struct saved *s, int64_t at, int64_t rows)
{
    int64_t n = rows - at < m->o.mlp_tile ? rows - at : m->o.mlp_tile;

    return (struct tile){ .at = at, .n = n, .h = act_at(m, m->work.h, at * m->c.dim),
        .gate = s->gate ? act_at(m, s->gate, at * m->c.ffn_dim) : m->work.gate,
        .up = s->up ? act_at(m, s->up, at * m->c.ffn_dim) : m->work.up };
}

static void gate_up(struct model *m, const struct layer *l, const struct tile *t)
{
    linear(m, &l->w[ROLE_GATE], 2, t->n, t->h, (void *[]){ t->gate, t->up }, NULL);
}

void layer_forward(struct model *m, const struct layer *l, const struct saved *s,
                   const struct span *b, void *y)
{
    /* Not saved, it is in dh, unused as yet. In training never in y: products add what lies
     * elsewhere in one rounding, in place on a GPU in two, and every level shall give equal bits. */
    void *x2 = s->level >= SAVE_QKV ? s->x2 : m->work.dh ? m->work.dh : y;

    attention_block(m, l, s, b, false, x2);
    norm(m, &l->w[ROLE_MLP_NORM], b->rows, x2, s->rstd[1]);
    for (int64_t at = 0; at < b->rows; at += m->o.mlp_tile) {
        struct tile t = tile_at(m, s, at, b->rows);
        void *to = act_at(m, y, at * m->c.dim);

        m->dropout.at = at;
        gate_up(m, l, &t);
        OP(m, swiglu, .n = t.n * m->c.ffn_dim, .gate = t.gate, .up = t.up, .y = m->work.act);
        linear(m, &l->w[ROLE_DOWN], 1, t.n, m->work.act, &to, act_at(m, x2, at * m->c.dim));
    }
    m->dropout.at = 0;
}

/* dx: gradient of the layer's output in, of x2 out. work.dh is overwritten. What no gradient
 * reads, the MLP's input and inner result, is not made again. */
static void mlp_backward(struct model *m, const struct layer *l, const struct saved *s,
                         const struct span *b)
{
    const struct weight *inner = &l->w[ROLE_GATE], *outer = &l->w[ROLE_DOWN];
    void *y = linear_reads_input(outer, 1) ? m->work.act : NULL;

    if (!s->gate || linear_reads_input(inner, 2))
        norm(m, &l->w[ROLE_MLP_NORM], b->rows, s->x2, s->rstd[1]);
    for (int64_t at = 0; at < b->rows; at += m->o.mlp_tile) {
        struct tile t = tile_at(m, s, at, b->rows);
        const void *dy = act_at(m, m->work.dx, at * m->c.dim);
        const void *d_inner[2] = { t.gate, t.up };

        m->dropout.at = at;
        if (!s->gate)
            gate_up(m, l, &t);
        linear_back(m, outer, 1, t.n, &dy, m->work.d_act);
        OP(m, swiglu_back, .n = t.n * m->c.ffn_dim, .gate = t.gate, .up = t.up,
           .dy = m->work.d_act, .d_gate = t.gate, .d_up = t.up, .y = y);
        linear_back_weights(m, outer, 1, t.n, y, &dy);
        linear_back(m, inner, 2, t.n, d_inner, act_at(m, m->work.dh, at * m->c.dim));
        linear_back_weights(m, inner, 2, t.n, t.h, d_inner);
    }
    m->dropout.at = 0;
    norm_back(m, &l->w[ROLE_MLP_NORM], b->rows, s->x2, s->rstd[1]);
}

/* dx: gradient of x2 in, of the layer's input out. */
static void attention_backward(struct model *m, const struct layer *l, const struct saved *s,
                               const struct span *b)
{
    struct work *k = &m->work;
    const struct weight *inner = &l->w[ROLE_Q], *outer = &l->w[ROLE_O];
    const void *dx = k->dx, *d_inner[3] = { k->dq, k->dk, k->dv };
    bool normed = normed_heads(l);

    linear_back(m, outer, 1, b->rows, &dx, k->d_o);
    linear_back_weights(m, outer, 1, b->rows, s->o, &dx);
    if (normed && s->level >= SAVE_QKV) /* else layer_backward has just made them */
        turn_heads(m, l, s, b);
    OP(m, attention_back, .fwd = attention_of(m, s, b), .d_o = k->d_o, .dq = k->dq, .dk = k->dk,
       .dv = k->dv, .scratch = k->attention);
    rope(m, b, k->dq, k->dk, true);
    if (normed) {
        norm_heads_back(m, &l->w[ROLE_Q_NORM], b->rows, q_dim(m), s->q, k->dq, k->q_rstd, k->qn);
        norm_heads_back(m, &l->w[ROLE_K_NORM], b->rows, kv_dim(m), s->k, k->dk, k->k_rstd, k->kn);
        d_inner[0] = k->qn, d_inner[1] = k->kn;
    }
    if (linear_reads_input(inner, 3))
        norm(m, &l->w[ROLE_ATTN_NORM], b->rows, s->x, s->rstd[0]);
    linear_back(m, inner, 3, b->rows, d_inner, k->dh);
    linear_back_weights(m, inner, 3, b->rows, k->h, d_inner);
    norm_back(m, &l->w[ROLE_ATTN_NORM], b->rows, s->x, s->rstd[0]);
}

void layer_backward(struct model *m, const struct layer *l, const struct saved *s,
                    const struct span *b)
{
    if (s->level < SAVE_QKV)
        attention_block(m, l, s, b, s->level >= SAVE_ATTENTION, s->x2);
    mlp_backward(m, l, s, b);
    attention_backward(m, l, s, b);
}
