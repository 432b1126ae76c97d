/* model/layout.c - where every buffer of a model lies: run once to measure, once to place. */
#include "model/layout.h"
#include "model/spread.h"

#include "base/bytes.h"

#include <string.h>

/*
 * All memory of a model is taken in a few pieces, one arena for each class (MEM_FROZEN, MEM_WORK,
 * ...; inside.h), and this file deals out addresses in them. The same code runs twice:
 *
 *     measure   arenas without memory: each buffer adds its bytes      -> the plan, --plan
 *     place     arenas with the memory that was measured: each buffer gets its address
 *
 * so a plan cannot differ from what a run takes. A layer that saves q, k and v for its backward
 * has them in MEM_SAVED; one that recomputes them shares one set of buffers in MEM_WORK with
 * all other such layers; one that offloads them has them in a slot of a ring (offload.c). For 3
 * layers that save (all, only input, only input), MEM_SAVED holds 3 inputs and 1 each of the
 * others, MEM_WORK 1 each for layers 1 and 2 to share. Buffers that are never live together
 * share their place (lay_work).
 */

/* Ends are rounded as well as beginnings: the bytes of a sum are the sum of the bytes. */
void *lay_from(struct arena *a, int64_t n, size_t elem_bytes)
{
    void *p = arena_alloc(a, n, elem_bytes, 256);

    if (!add_ok(a->used_bytes, 255, &a->used_bytes))
        a->failed = true;
    a->used_bytes &= ~(size_t)255;
    return p;
}

/* n elements in the arena of one class of memory. */
void *lay_take(struct model *m, int class, int64_t n, size_t elem_bytes)
{
    return lay_from(&m->mem[class], n, elem_bytes);
}

/* rows x cols activations, in the device's own type. A size that overflows marks the arena
 * as failed; model_layout reports it at the end. */
static void *act_from(const struct model *m, struct arena *a, int64_t rows, int64_t cols)
{
    int64_t n;

    if (__builtin_mul_overflow(rows, cols, &n)) {
        a->failed = true;
        return NULL;
    }
    return lay_from(a, n, dtype_bytes(m->d->act));
}

/* Keys or values, with room in front for those of another rank's rows. */
static void *keys_from(const struct model *m, struct arena *a, int64_t rows)
{
    return act_at(m, act_from(m, a, rows + m->halo, kv_dim(m)), m->halo * kv_dim(m));
}

void *lay_act(struct model *m, int class, int64_t rows, int64_t cols)
{
    return act_from(m, &m->mem[class], rows, cols);
}

static void *take_work(struct model *m, int64_t rows, int64_t cols)
{
    return lay_act(m, MEM_WORK, rows, cols);
}

/* Rows of lse: of a line, those that its attention may have where it is turned. */
static int64_t lse_rows(const struct model *m, int64_t rows)
{
    return rows + (m->o.cp > 1 ? 2 : 0);
}

/* Of the pairs of matrices with one input, in any layer. */
static int64_t most_ranks(const struct model *m)
{
    int64_t most = 0, layers = m->o.pairs ? m->c.layers : 1;

    for (int64_t l = 0; l < layers; l++)
        for (uint64_t left = m->o.targets; left; left &= left - 1) {
            int64_t n = lay_ranks(m, (enum role)__builtin_ctzll(left), l);

            most = n > most ? n : most;
        }
    return most;
}

/* What dropout makes of the widest input of pairs: a layer's rows, or a tile of the MLP's. */
static void lay_dropped(struct model *m, int64_t rows)
{
    int64_t dim = m->c.dim > q_dim(m) ? m->c.dim : q_dim(m), ffn = m->c.ffn_dim;
    bool wide = (m->o.targets & ROLE_BIT(ROLE_DOWN)) && m->o.mlp_tile * ffn > rows * dim;

    m->work.xd = wide ? lay_act(m, MEM_WORK, m->o.mlp_tile, ffn) : lay_act(m, MEM_WORK, rows, dim);
}

/* Buffers that never live together begin at the same place: back to it, noting how far any of
 * them went. After the last of them used_bytes becomes *far. */
static void again(struct arena *a, size_t at, size_t *far)
{
    *far = a->used_bytes > *far ? a->used_bytes : *far;
    a->used_bytes = at;
}

/* The MLP's buffers, for mlp_tile rows at a time (layer.c). */
static void lay_tiles(struct model *m)
{
    struct work *k = &m->work;
    int64_t ffn = m->c.ffn_dim, tile = m->o.mlp_tile;

    k->gate = has_role(m, ROLE_GATE) || has_role(m, ROLE_GATE_UP) ? lay_act(m, MEM_WORK, tile, ffn) : NULL;
    k->up = lay_act(m, MEM_WORK, tile, ffn);
    k->act = lay_act(m, MEM_WORK, tile, ffn);
    if (m->o.mode != TRAIN_NONE)
        k->d_act = lay_act(m, MEM_WORK, tile, ffn);
    if (m->o.mode != TRAIN_NONE && has_role(m, ROLE_POST_MLP_NORM))
        k->branch = lay_act(m, MEM_WORK, tile, m->c.dim);
}

/* What the loss of one chunk of rows needs: above all its logits. */
static void lay_loss(struct model *m)
{
    m->work.loss = lay_take(m, MEM_WORK,
        (int64_t)m->d->loss_scratch_bytes(m->d, m->o.loss_chunk, m->c.vocab), 1);
}

/* There even where every layer keeps its own: so that bytes stay linear in the placement. */
static void lay_attended(struct model *m, int64_t rows)
{
    struct work *k = &m->work;

    k->q = lay_act(m, MEM_WORK, rows, q_dim(m));
    k->k = keys_from(m, &m->mem[MEM_WORK], rows);
    k->v = keys_from(m, &m->mem[MEM_WORK], rows);
    k->o = lay_act(m, MEM_WORK, rows, q_dim(m));
    k->lse = lay_take(m, MEM_WORK, lse_rows(m, rows) * m->c.heads, 4);
    if (config_arch(&m->c)->block.by_head)
        k->qkv = lay_act(m, MEM_WORK, rows, config_size(&m->c, SIZE_QKV));
    if (!has_role(m, ROLE_Q_NORM))
        return;
    k->qn = lay_act(m, MEM_WORK, rows, q_dim(m));
    k->kn = keys_from(m, &m->mem[MEM_WORK], rows);
    k->q_rstd = lay_take(m, MEM_WORK, rows * m->c.heads, 4);
    k->k_rstd = lay_take(m, MEM_WORK, rows * m->c.kv_heads, 4);
}

/* Training's: see struct work for what shares a place. The loss reads h and writes dh. */
static void lay_backward(struct model *m, int64_t rows)
{
    struct arena *a = &m->mem[MEM_WORK];
    struct work *k = &m->work;
    size_t at = a->used_bytes, far = 0, scratch;

    /* h and d_o share a place */
    k->h = lay_act(m, MEM_WORK, rows, m->c.dim);
    again(a, at, &far);
    k->d_o = lay_act(m, MEM_WORK, rows, q_dim(m));
    again(a, at, &far);
    at = a->used_bytes = far;
    /* x and dh lie beside each other; attention's scratch lies over both of them */
    k->x = k->x2 = lay_act(m, MEM_WORK, rows, m->c.dim);
    k->dh = lay_act(m, MEM_WORK, rows, m->c.dim);
    again(a, at, &far);
    scratch = m->d->attention_scratch_bytes(m->d, rows, m->c.heads, m->c.kv_heads,
                                            m->c.head_dim);
    if (turn_scratch_bytes(m) > scratch)
        scratch = turn_scratch_bytes(m);
    k->attention = lay_take(m, MEM_WORK, (int64_t)scratch, 1);
    again(a, at, &far);
    at = a->used_bytes = far;
    /* dq, dk and dv together, the MLP's tiles, and the loss: three users of one place */
    k->dq = lay_act(m, MEM_WORK, rows, q_dim(m));
    k->dk = keys_from(m, &m->mem[MEM_WORK], rows);
    k->dv = keys_from(m, &m->mem[MEM_WORK], rows);
    again(a, at, &far);
    lay_tiles(m);
    again(a, at, &far);
    lay_loss(m);
    again(a, at, &far);
    a->used_bytes = far;
    /* what follows is live beside all of the above */
    k->dx = lay_act(m, MEM_WORK, rows, m->c.dim);
    lay_attended(m, rows);
    if (lay_lora(&m->o))
        k->dxa = lay_act(m, MEM_WORK, rows, most_ranks(m));
}

/* Without a backward: attention's buffers, the tiles and the loss take turns. */
static void lay_scoring(struct model *m, int64_t rows)
{
    struct arena *a = &m->mem[MEM_WORK];
    size_t at, far = 0;

    m->work.x = lay_act(m, MEM_WORK, rows, m->c.dim);
    m->work.h = lay_act(m, MEM_WORK, rows, m->c.dim);
    at = a->used_bytes;
    lay_attended(m, rows);
    again(a, at, &far);
    lay_tiles(m);
    again(a, at, &far);
    lay_loss(m);
    again(a, at, &far);
    a->used_bytes = far;
}

static void lay_work(struct model *m, int64_t rows)
{
    struct work *k = &m->work;

    if (m->o.mode == TRAIN_NONE)
        lay_scoring(m, rows);
    else
        lay_backward(m, rows);
    if (m->c.parallel)
        k->kept = lay_act(m, MEM_WORK, rows, m->c.dim);
    /* one value for each row, in every mode */
    k->rstd = lay_take(m, MEM_WORK, rows, 4);
    k->ids = lay_take(m, MEM_WORK, rows, 4);
    k->targets = lay_take(m, MEM_WORK, rows, 4);
    k->nll = lay_take(m, MEM_WORK, rows, 4);
    if (m->o.cache.rows)
        k->logits = lay_take(m, MEM_WORK, LOGIT_ROWS * m->c.vocab, 4);
    if (config_biases(&m->c))
        k->ones = lay_act(m, MEM_WORK, rows, 1);
    if (lay_lora(&m->o))
        k->xa = lay_act(m, MEM_WORK, rows, most_ranks(m));
    if (lay_lora(&m->o) && m->o.dropout > 0)
        lay_dropped(m, rows);
    for (int i = 0; i < 2 && m->flat_bytes; i++)
        k->flat[i] = lay_take(m, MEM_WORK, (int64_t)m->flat_bytes, 1);
    turn_lay(m, take_work);
}

/* Which layers are of which kind: each kind spread evenly over the depth, so that copies are, too.
 * In every layer a kind gains its count; the one that gained most has its turn, and pays. */
void model_spread(struct model *m)
{
    const struct placement *p = &m->plan.placement;
    int64_t gained[SAVE_LEVELS][SAVE_LEVELS + 1] = { 0 }, all = 0;

    for (int k = SAVE_INPUT; k < SAVE_LEVELS; k++)
        all += placement_layers(p, (enum save_level)k);
    memset(m->ring, 0, sizeof m->ring);
    for (int k = 0; k < RINGS; k++)
        m->ring[k].source = k == RING_CACHE ? &ring_cache : &ring_host;
    if (m->o.cache.in_host)
        m->ring[RING_CACHE].state = m;
    offload_forget(m);
    /* Of 3 layers of one kind and 1 of a later kind, the order becomes first, first, later,
     * first. */
    for (int64_t i = 0; i < m->to - m->from; i++) {
        struct layer *l = &m->layers[m->from + i];
        int64_t *most = &gained[0][0];

        l->s.level = SAVE_INPUT;
        l->offloaded = 0;
        for (int k = 0; k < SAVE_LEVELS; k++)
            for (int offloaded = 0; offloaded <= k + 1; offloaded++)
                if ((gained[k][offloaded] += p->n[k][offloaded]) > *most) {
                    most = &gained[k][offloaded];
                    l->s.level = (enum save_level)k;
                    l->offloaded = offloaded;
                }
        /* the kind that had its turn pays what all kinds gain together, so the sum stays the
         * same */
        *most -= all;
        for (int k = 0; k < SAVE_LEVELS; k++)
            l->item[k] = k < l->offloaded ? m->ring[k].n++ : -1;
        /* a layer is streamed where the running share steps up: of 4 layers, 2 are layers 1
         * and 3 */
        l->item[RING_CACHE] = m->o.cache.rows && m->o.cache.in_host ? m->ring[RING_CACHE].n++ : -1;
        l->item[RING_WEIGHTS] = (i + 1) * p->streamed / (m->to - m->from) > i * p->streamed / (m->to - m->from)
                                ? m->ring[RING_WEIGHTS].n++ : -1;
    }
}

/* The buffers of one level of one layer. lse has one float32 for each row and head. */
static void lay_level(struct model *m, struct arena *a, struct saved *s, int level, int64_t rows)
{
    if (level == SAVE_INPUT) {
        s->x = act_from(m, a, rows, m->c.dim);
    } else if (level == SAVE_ATTENTION) {
        s->o = act_from(m, a, rows, q_dim(m));
        s->lse = lay_from(a, lse_rows(m, rows) * m->c.heads, 4);
    } else if (level == SAVE_QKV) {
        s->q = act_from(m, a, rows, q_dim(m));
        s->k = keys_from(m, a, rows);
        s->v = keys_from(m, a, rows);
        s->x2 = act_from(m, a, rows, m->c.dim);
    } else {
        if (has_role(m, ROLE_GATE) || has_role(m, ROLE_GATE_UP))
            s->gate = act_from(m, a, rows, m->c.ffn_dim);
        s->up = act_from(m, a, rows, m->c.ffn_dim);
    }
}

/* The slots of an offloaded level, and its place in the host's memory. */
static void lay_ring(struct model *m, int level, int64_t rows)
{
    struct ring *r = &m->ring[level];
    struct arena one = { 0 };
    struct saved s;

    /* only counts: an arena without memory gives the bytes of one item */
    lay_level(m, &one, &s, level, rows);
    r->nbytes = one.used_bytes;
    m->mem[MEM_SAVED].failed |= one.failed;
    for (int i = 0; i < 2 && i < r->n; i++)
        r->slot[i] = lay_take(m, MEM_SAVED, (int64_t)r->nbytes, 1);
    /* the other two items are in the slots */
    r->host = lay_take(m, MEM_HOST, r->n > 2 ? r->n - 2 : 0, r->nbytes);
}

static void lay_saved(struct model *m, int64_t rows)
{
    const struct work *w = &m->work;

    for (int k = SAVE_INPUT; k < SAVE_LEVELS; k++)
        lay_ring(m, k, rows);
    for (int64_t i = m->from; i < m->to; i++) {
        struct layer *l = &m->layers[i];
        enum save_level level = l->s.level;

        /* everything points at the shared buffers first; what the layer saves replaces that */
        l->s = (struct saved){ .x = w->x, .q = w->q, .k = w->k, .v = w->v, .o = w->o,
                               .x2 = w->x2, .lse = w->lse, .level = level };
        for (int k = 0; k < 2; k++)
            l->s.rstd[k] = m->o.mode == TRAIN_NONE ? w->rstd : lay_take(m, MEM_SAVED, rows, 4);
        for (int k = SAVE_INPUT; k <= (int)level && m->o.mode != TRAIN_NONE; k++) {
            const struct ring *r = &m->ring[k];
            /* item is -1 where the level is not offloaded, and then the slot is not used */
            struct arena slot = { .base = r->slot[l->item[k] & 1], .cap_bytes = r->nbytes };

            lay_level(m, k < l->offloaded ? &slot : &m->mem[MEM_SAVED], &l->s, k, rows);
        }
    }
}

/* Bytes on the device: the host's memory, the last class, does not count. SIZE_MAX: too
 * many. */
size_t model_bytes(const struct model *m)
{
    size_t sum = 0;

    for (int i = 0; i < MEM_HOST; i++)
        if (!add_ok(sum, m->mem[i].used_bytes, &sum))
            return SIZE_MAX;
    return sum;
}

/* The trained values and the slots are placed last, yet the weights point into them: two passes
 * settle it. */
int model_layout(struct model *m, struct err *e)
{
    int64_t rows;

    if (__builtin_mul_overflow(m->o.seqs, m->o.ctx, &rows) || rows > (int64_t)1 << 40)
        return err_set(e, E_CONFIG, "%lld sequences of %lld tokens are too many",
                       (long long)m->o.seqs, (long long)m->o.ctx);
    rows = model_rows(&m->o);
    m->halo = spread_halo(&m->o);
    m->flat_bytes = spread_flat_bytes(m);
    model_spread(m);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < MEM_CLASSES; i++)
            m->mem[i].used_bytes = 0;
        lay_weights(m);
    }
    lay_work(m, rows);
    cache_lay(m);
    lay_saved(m, rows);
    for (int i = 0; i < MEM_CLASSES; i++)
        if (m->mem[i].failed)
            return err_set(e, E_CONFIG, "the model at %lld x %lld tokens needs more memory than "
                           "can be addressed", (long long)m->o.seqs, (long long)m->o.ctx);
    return 0;
}
