/* model/layer.c - one transformer layer: forward, recomputation, backward. */
#include "model/inside.h"

#define OP(m, name, ...)                                                \
    do {                                                                \
        if ((m)->rc == 0)                                               \
            (m)->rc = (m)->d->name((m)->d, &(struct op_##name){ __VA_ARGS__ }); \
    } while (0)

static void copy_rows(struct model *m, int64_t rows, const void *from, void *to)
{
    if (m->rc == 0 && from != to)
        m->rc = m->d->copy(m->d, to, from, (size_t)(rows * m->c.dim) * dtype_bytes(m->d->act));
}

static void norm(struct model *m, const struct weight *w, int64_t rows, const void *x, void *y)
{
    OP(m, rmsnorm, .rows = rows, .dim = w->in, .eps = (float)m->c.norm_eps, .x = x, .w = w->w,
       .y = y, .rstd = m->work.rstd);
}

/* dx += the gradient through a norm of x; rstd is what norm() left. */
static void norm_back(struct model *m, const struct weight *w, int64_t rows, const void *x,
                      const void *dy, void *dx)
{
    OP(m, rmsnorm_back, .rows = rows, .dim = w->in, .x = x, .dy = dy, .w = w->w,
       .rstd = m->work.rstd, .dx = dx, .dw = w->grad);
}

static void rope(struct model *m, const struct span *b, void *x, int64_t heads, bool inverse)
{
    OP(m, rope, .rows = b->rows, .ld = heads * m->c.head_dim, .heads = heads,
       .dim = m->c.head_dim, .period = b->len, .inverse = inverse, .scale = 1,
       .inv_freq = m->inv_freq, .x = x);
}

static struct op_attention attention_of(const struct model *m, const struct saved *s,
                                        const struct span *b)
{
    return (struct op_attention){
        .rows = b->rows, .heads = m->c.heads, .kv_heads = m->c.kv_heads, .dim = m->c.head_dim,
        .q_ld = q_dim(m), .kv_ld = kv_dim(m),
        .scale = 1.0f / __builtin_sqrtf((float)m->c.head_dim),
        .seg = { b->seg->half[0], b->seg->half[1] },
        .q = s->q, .k = s->k, .v = s->v, .o = s->o, .lse = s->lse,
    };
}

/* x2 = x + attention(norm1(x)) Wo^T; x2 may be x. Fills q, k, v and, unless they are there
 * already (attended), o and lse. */
static void attention_block(struct model *m, const struct layer *l, const struct saved *s,
                            const struct span *b, bool attended, void *x2)
{
    struct op_attention a = attention_of(m, s, b);

    norm(m, &l->w[TK_NORM1], b->rows, s->x, m->work.h);
    linear(m, &l->w[TK_Q], b->rows, m->work.h, s->q, false);
    linear(m, &l->w[TK_K], b->rows, m->work.h, s->k, false);
    linear(m, &l->w[TK_V], b->rows, m->work.h, s->v, false);
    rope(m, b, s->q, m->c.heads, false);
    rope(m, b, s->k, m->c.kv_heads, false);
    if (m->rc == 0 && !attended)
        m->rc = m->d->attention(m->d, &a);
    copy_rows(m, b->rows, s->x, x2);
    linear(m, &l->w[TK_O], b->rows, s->o, x2, true);
}

/* The rows [at, at + n) of the MLP's two inner products, kept or in the tile buffers. */
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
    linear(m, &l->w[TK_GATE], t->n, t->h, t->gate, false);
    linear(m, &l->w[TK_UP], t->n, t->h, t->up, false);
}

void layer_forward(struct model *m, const struct layer *l, const struct saved *s,
                   const struct span *b, void *y)
{
    void *x2 = s->level >= KEEP_QKV ? s->x2 : y; /* not kept: straight into the output */

    attention_block(m, l, s, b, false, x2);
    norm(m, &l->w[TK_NORM2], b->rows, x2, m->work.h);
    copy_rows(m, b->rows, x2, y);
    for (int64_t at = 0; at < b->rows; at += m->o.mlp_tile) {
        struct tile t = tile_at(m, s, at, b->rows);

        gate_up(m, l, &t);
        OP(m, swiglu, .n = t.n * m->c.ffn_dim, .gate = t.gate, .up = t.up, .y = m->work.act);
        linear(m, &l->w[TK_DOWN], t.n, m->work.act, act_at(m, y, at * m->c.dim), true);
    }
}

/* dx: gradient of the layer's output in, of x2 out. work.dh is overwritten. */
static void mlp_backward(struct model *m, const struct layer *l, const struct saved *s,
                         const struct span *b)
{
    norm(m, &l->w[TK_NORM2], b->rows, s->x2, m->work.h);
    for (int64_t at = 0; at < b->rows; at += m->o.mlp_tile) {
        struct tile t = tile_at(m, s, at, b->rows);
        const void *dy = act_at(m, m->work.dx, at * m->c.dim);
        void *dh = act_at(m, m->work.dh, at * m->c.dim);

        if (!s->gate)
            gate_up(m, l, &t);
        OP(m, swiglu, .n = t.n * m->c.ffn_dim, .gate = t.gate, .up = t.up, .y = m->work.act);
        linear_back(m, &l->w[TK_DOWN], t.n, m->work.act, dy, m->work.d_act, false);
        OP(m, swiglu_back, .n = t.n * m->c.ffn_dim, .gate = t.gate, .up = t.up,
           .dy = m->work.d_act, .d_gate = t.gate, .d_up = t.up);
        linear_back(m, &l->w[TK_GATE], t.n, t.h, t.gate, dh, false);
        linear_back(m, &l->w[TK_UP], t.n, t.h, t.up, dh, true);
    }
    norm_back(m, &l->w[TK_NORM2], b->rows, s->x2, m->work.dh, m->work.dx);
}

/* dx: gradient of x2 in, of the layer's input out. */
static void attention_backward(struct model *m, const struct layer *l, const struct saved *s,
                               const struct span *b)
{
    struct work *k = &m->work;

    linear_back(m, &l->w[TK_O], b->rows, s->o, k->dx, k->d_o, false);
    OP(m, attention_back, .fwd = attention_of(m, s, b), .d_o = k->d_o, .dq = k->dq, .dk = k->dk,
       .dv = k->dv, .scratch = k->attention);
    rope(m, b, k->dq, m->c.heads, true);
    rope(m, b, k->dk, m->c.kv_heads, true);
    norm(m, &l->w[TK_NORM1], b->rows, s->x, k->h);
    linear_back(m, &l->w[TK_Q], b->rows, k->h, k->dq, k->dh, false);
    linear_back(m, &l->w[TK_K], b->rows, k->h, k->dk, k->dh, true);
    linear_back(m, &l->w[TK_V], b->rows, k->h, k->dv, k->dh, true);
    norm_back(m, &l->w[TK_NORM1], b->rows, s->x, k->dh, k->dx);
}

void layer_backward(struct model *m, const struct layer *l, const struct saved *s,
                    const struct span *b)
{
    if (s->level < KEEP_QKV)
        attention_block(m, l, s, b, s->level >= KEEP_ATTENTION, s->x2);
    mlp_backward(m, l, s, b);
    attention_backward(m, l, s, b);
}
