/* model/layout.c - where every buffer of a model lies: run once to measure, once to place. */
#include "model/spread.h"

#include "base/bytes.h"
#include "kernels/group.h"
#include "kernels/product.h"

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
static void *from(struct arena *a, int64_t n, size_t elem_bytes)
{
    void *p = arena_alloc(a, n, elem_bytes, 256);

    if (!add_ok(a->used_bytes, 255, &a->used_bytes))
        a->failed = true;
    a->used_bytes &= ~(size_t)255;
    return p;
}

/* n elements in the arena of one class of memory. */
static void *take(struct model *m, int class, int64_t n, size_t elem_bytes)
{
    return from(&m->mem[class], n, elem_bytes);
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
    return from(a, n, dtype_bytes(m->d->act));
}

/* Keys or values, with room in front for those of another rank's rows. */
static void *keys_from(const struct model *m, struct arena *a, int64_t rows)
{
    return act_at(m, act_from(m, a, rows + m->halo, kv_dim(m)), m->halo * kv_dim(m));
}

static void *take_act(struct model *m, int class, int64_t rows, int64_t cols)
{
    return act_from(m, &m->mem[class], rows, cols);
}

static void *take_work(struct model *m, int64_t rows, int64_t cols)
{
    return take_act(m, MEM_WORK, rows, cols);
}

/* Rows of lse: of a line, those that its attention may have where it is turned. */
static int64_t lse_rows(const struct model *m, int64_t rows)
{
    return rows + (m->o.cp > 1 ? 2 : 0);
}

/* While measuring there is no memory: nothing plus an offset stays nothing. */
static unsigned char *offset(unsigned char *base, size_t n) { return base ? base + n : NULL; }

/* Trained as a whole rather than through a pair of small matrices (LoRA). */
static bool trained_whole(const struct model *m, enum role r) { return model_whole(m) & ROLE_BIT(r); }

/* A place in the flat array of trained values; each starts on a 256-byte boundary. */
static int64_t take_trained(struct model *m, int64_t count)
{
    int64_t at = m->t.n;

    /* 64 values of 4 bytes are 256 bytes */
    m->t.n += (count + 63) / 64 * 64;
    return at;
}

/* Points a trained tensor's master, gradient and compute copy at their places: all at the same
 * one in arrays of the same form, but norms of masters that come and go. */
static void place_trained(struct model *m, int64_t at, int64_t norm, void **w, float **master,
                          float **grad)
{
    *master = m->t.w ? m->t.w + at : NULL;
    *grad = m->t.grad ? m->t.grad + at : NULL;
    *w = norm || !m->compute ? (void *)*master : act_at(m, m->compute, at);
    if (norm && m->norms)
        *w = m->norms + m->n_norms;
    m->n_norms += (norm + 63) / 64 * 64;
}

/* A frozen matrix in the host's memory: at the same place in the layer's item and in a slot. */
static void stream_weight(struct model *m, struct weight *w, struct layer *l)
{
    struct ring *r = &m->ring[RING_WEIGHTS];
    int64_t item = l->item[RING_WEIGHTS];
    size_t at;

    /* blob has no memory of its own: it counts where the matrix lies in its layer's item */
    at = l->blob.used_bytes;
    from(&l->blob, (int64_t)weight_bytes(w), 1);
    m->mem[MEM_FROZEN].failed |= l->blob.failed;
    /* every item is as large as the largest of them */
    if (l->blob.used_bytes > r->nbytes)
        r->nbytes = l->blob.used_bytes;
    /* two slots take turns: even items use the first, odd ones the second */
    w->w = offset(r->slot[item & 1], at);
    w->host = offset(r->host, (size_t)item * r->nbytes + at);
}

/* The first of the matrices that are in one tensor of this role; ROLES: it is one by itself. */
static enum role first_slice(enum role whole)
{
    int r = 0;

    while (r < ROLES && role_whole((enum role)r) != whole)
        r++;
    return (enum role)r;
}

/* What a frozen matrix is kept in: its type in the files where the device can use it, else act. */
static const struct tensor_type *frozen_type(const struct model *m, const struct tensor_spec *s)
{
    const struct mat_product *p = NULL;
    const struct tensor *t = NULL;
    struct tensor_spec from;

    if (m->o.stored && role_form(s->role) == FORM_MATRIX) {
        tensor_source(weights_config(m->o.stored), s, &from);
        t = weights_find(m->o.stored, from.name);
    }
    if (t)
        p = device_product(m->d, t->type);
    /* Rows of a packed matrix are no matrix. */
    if (p && first_slice(s->role) < ROLES && (t->type->block > 1 || t->type->scale_bytes))
        p = NULL;
    /* No product for the type means that the device cannot read it. The embedding is looked
     * up by rows as well, which a device may not be able to do in a packed type. */
    return p && (s->role != ROLE_EMBED || p->embed) ? t->type : dtype_type(m->d->act);
}

/* The bias that is added to a matrix's product; NULL where it has none. */
static const struct weight *bias_of(struct model *m, const struct tensor_spec *s)
{
    enum role bias = role_bias(s->role);

    return bias < ROLES && has_role(m, bias) ? weight_at(m, bias, s->layer) : NULL;
}

static void lay_weight(struct model *m, const struct tensor_spec *s)
{
    struct weight *w = weight_at(m, s->role, s->layer);
    struct layer *l = s->layer < 0 ? NULL : &m->layers[s->layer];
    bool norm = is_norm(s->role);

    w->host = NULL;
    w->out = norm ? 1 : s->shape[0];
    /* a matrix is [out][in]; a norm counts as one row, a bias as a column */
    w->in = norm ? s->shape[0] : s->dims == 2 ? s->shape[1] : 1;
    w->bias = bias_of(m, s);
    w->times = s->role == ROLE_O || s->role == ROLE_DOWN ? (float)config_times(m->c.times.branch) : 1;
    w->trained = trained_whole(m, s->role);
    w->type = norm ? &type_f32 : w->trained ? dtype_type(m->d->act) : frozen_type(m, s);
    m->plan.params += s->count;
    if (w->trained)
        place_trained(m, take_trained(m, s->count), norm ? s->count : 0, &w->w, &w->master, &w->grad);
    else if (l && l->item[RING_WEIGHTS] >= 0 && role_form(s->role) == FORM_MATRIX)
        stream_weight(m, w, l);
    else
        w->w = take(m, MEM_FROZEN, (int64_t)weight_bytes(w), 1);
}

/* The ranks of the pairs of the matrices that read r's input, in one layer. */
static int64_t ranks_at(const struct model *m, enum role r, int64_t layer)
{
    enum role first;
    int n = role_readers(r, &first);
    int64_t sum = 0;
    float unused;

    for (int i = 0; i < n; i++)
        sum += model_rank(m, first + i, layer, &unused);
    return sum;
}

/* The pairs of the matrices that read r's input: their As lie together. */
static void lay_pairs(struct model *m, int64_t layer, enum role r)
{
    enum role first;
    int n = role_readers(r, &first);
    int64_t in = weight_at(m, r, layer)->in, at = take_trained(m, ranks_at(m, r, layer) * in);

    /* w runs over the matrices that share the input; at is where the next A goes */
    for (int i = 0; i < n; i++) {
        struct weight *w = weight_at(m, first, layer) + i;

        if (!(w->rank = model_rank(m, first + i, layer, &w->scale)))
            continue;
        place_trained(m, at, 0, &w->pair.a, &w->pair.master_a, &w->pair.grad_a);
        at += w->rank * in;
        place_trained(m, take_trained(m, w->rank * w->out), 0, &w->pair.b, &w->pair.master_b,
                      &w->pair.grad_b);
    }
}

/* n elements further on; nothing stays nothing. */
static float *further(float *p, int64_t n) { return p ? p + n : NULL; }

/* The matrices that products read, where a family has them in one: views of its rows. */
static void lay_slices(struct model *m, int64_t layer, enum role whole)
{
    struct weight *w = m->layers[layer].w, *all = &w[whole];
    enum role first = first_slice(whole);
    int64_t at = 0;

    for (int r = first; r < ROLES && role_whole((enum role)r) == whole; r++) {
        int64_t n = all->in * at;

        w[r] = *all;
        w[r].slice = true, w[r].shares = r > (int)first;
        w[r].out = config_size(&m->c, r == ROLE_Q ? SIZE_Q : whole == ROLE_QKV ? SIZE_KV : SIZE_FFN);
        w[r].w = offset(all->w, (size_t)n * all->type->block_bytes);
        w[r].master = further(all->master, n);
        w[r].grad = further(all->grad, n);
        w[r].pair.b = act_at(m, all->pair.b, at * all->rank);
        w[r].pair.master_b = further(all->pair.master_b, at * all->rank);
        w[r].pair.grad_b = further(all->pair.grad_b, at * all->rank);
        at += w[r].out;
    }
}

static bool lora(const struct model_options *o)
{
    return o->mode == TRAIN_LORA || o->mode == TRAIN_LORA_PLUS;
}

/* Chunks of what is trained: not smaller than options.chunk, or a sum over the ranks is all
 * waiting; a large one, as the embedding's, in up to PARTS pieces, so that the first can travel
 * while the others are updated. */
enum { CHUNK_LEAST = 1 << 23, CHUNK_LARGE = 1 << 25, CHUNK_PARTS = 8 };

/* What was laid since the last chunk is one, or some: final with the backward of this layer. */
static void close_chunk(struct model *m, int64_t layer)
{
    struct trained *t = &m->t;
    int64_t unit = 64 * (int64_t)t->shards, first = t->chunk[t->chunks], left, parts;

    t->n = (t->n + unit - 1) / unit * unit;
    left = (t->n - first) / unit;
    parts = t->shards > 1 && m->d->own_memory ? (t->n - first) / CHUNK_LARGE + 1 : 1;
    for (parts = parts < CHUNK_PARTS ? parts : CHUNK_PARTS; left > 0; parts--) {
        first += left / parts * unit;
        left -= left / parts;
        m->chunk_layer[t->chunks] = layer;
        t->chunk[++t->chunks] = first;
    }
}

/* The next tensor is of this layer, the one before of layer 'before'; -1: of none. *first: of which
 * the open chunk's first is. */
static void next_layer(struct model *m, int64_t before, int64_t layer, int64_t *first)
{
    struct trained *t = &m->t;
    int64_t n = t->n - t->chunk[t->chunks], least = m->o.chunk ? m->o.chunk : CHUNK_LEAST;

    if (layer <= before || t->shards == 1 || !m->d->own_memory)
        return;
    if (before < 0 || (n >= least && t->chunks < CHUNKS_MOST - 2 * CHUNK_PARTS)) {
        close_chunk(m, *first);
        *first = layer;
    }
}

/* The flat arrays of what is trained. Shards are equal parts of them. Ops of the CPU read the
 * masters, so that all are on every rank; on a GPU they read copies, and a rank needs no more than
 * the masters that it updates. */
static void lay_trained(struct model *m)
{
    struct trained *t = &m->t;
    bool apart = t->shards > 1 && m->d->own_memory;
    int64_t each = t->n / t->shards;

    t->held = each;
    m->compute = m->d->act == DT_F32 && !apart ? NULL : take_act(m, MEM_COMPUTE, t->n, 1);
    m->norms = apart ? take(m, MEM_COMPUTE, m->n_norms, 4) : NULL;
    t->grad = take(m, MEM_GRAD, t->n, 4);
    t->w = apart ? t->grad : take(m, MEM_MASTER, t->n, 4);
    t->own = apart ? take(m, MEM_MASTER, each, 4) : t->w ? t->w + t->rank * each : NULL;
    t->m = take(m, MEM_MOMENTS, each, 4);
    t->v = take(m, MEM_MOMENTS, each, 4);
}

static void lay_weights(struct model *m)
{
    struct ring *r = &m->ring[RING_WEIGHTS];
    struct tensor_spec s;
    int64_t before = -1, first = -1;

    m->t.n = m->plan.params = m->n_norms = 0;
    m->t.shards = m->o.shards > 1 ? (int)m->o.shards : 1;
    m->t.rank = m->t.shards > 1 ? m->d->group->rank : 0;
    m->t.chunks = 0;
    for (int64_t l = 0; l < m->c.layers; l++)
        m->layers[l].blob.used_bytes = 0;
    for (int64_t i = 0; i < config_tensors(&m->c); i++) {
        config_tensor(&m->c, i, &s);
        next_layer(m, before, s.layer, &first);
        before = s.layer;
        lay_weight(m, &s);
        /* all matrices of the group are laid by now, and the pairs are laid once for it */
        if (lora(&m->o) && arch_last_reader(config_arch(&m->c), s.role))
            lay_pairs(m, s.layer, s.role);
        if (first_slice(s.role) < ROLES && !config_arch(&m->c)->block.by_head)
            lay_slices(m, s.layer, s.role);
    }
    close_chunk(m, first);
    if (m->c.tied) /* one tensor, read twice; its gradient is the sum of both uses */
        m->top[ROLE_HEAD] = m->top[ROLE_EMBED];
    if (m->o.shares > 1) { /* slots for all parts, and this rank's of every layer */
        m->share_part = (r->nbytes / (size_t)m->o.shares + 256) & ~(size_t)255;
        m->share_store = take(m, MEM_FROZEN, r->n, m->share_part);
    }
    for (int i = 0; i < 2 && i < r->n; i++)
        r->slot[i] = take(m, MEM_FROZEN, (int64_t)(m->o.shares > 1 ? (size_t)m->o.shares * m->share_part
                                                                   : r->nbytes), 1);
    r->host = m->o.shares > 1 ? NULL : take(m, MEM_HOST, r->n, r->nbytes);
    lay_trained(m);
}

/* Of the pairs of matrices with one input, in any layer. */
static int64_t most_ranks(const struct model *m)
{
    int64_t most = 0, layers = m->o.pairs ? m->c.layers : 1;

    for (int64_t l = 0; l < layers; l++)
        for (uint64_t left = m->o.targets; left; left &= left - 1) {
            int64_t n = ranks_at(m, (enum role)__builtin_ctzll(left), l);

            most = n > most ? n : most;
        }
    return most;
}

/* What dropout makes of the widest input of pairs: a layer's rows, or a tile of the MLP's. */
static void lay_dropped(struct model *m, int64_t rows)
{
    int64_t dim = m->c.dim > q_dim(m) ? m->c.dim : q_dim(m), ffn = m->c.ffn_dim;
    bool wide = (m->o.targets & ROLE_BIT(ROLE_DOWN)) && m->o.mlp_tile * ffn > rows * dim;

    m->work.xd = wide ? take_act(m, MEM_WORK, m->o.mlp_tile, ffn) : take_act(m, MEM_WORK, rows, dim);
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

    k->gate = has_role(m, ROLE_GATE) || has_role(m, ROLE_GATE_UP) ? take_act(m, MEM_WORK, tile, ffn) : NULL;
    k->up = take_act(m, MEM_WORK, tile, ffn);
    k->act = take_act(m, MEM_WORK, tile, ffn);
    if (m->o.mode != TRAIN_NONE)
        k->d_act = take_act(m, MEM_WORK, tile, ffn);
    if (m->o.mode != TRAIN_NONE && has_role(m, ROLE_POST_MLP_NORM))
        k->branch = take_act(m, MEM_WORK, tile, m->c.dim);
}

/* What the loss of one chunk of rows needs: above all its logits. */
static void lay_loss(struct model *m)
{
    m->work.loss = take(m, MEM_WORK,
        (int64_t)m->d->loss_scratch_bytes(m->d, m->o.loss_chunk, m->c.vocab), 1);
}

/* There even where every layer keeps its own: so that bytes stay linear in the placement. */
static void lay_attended(struct model *m, int64_t rows)
{
    struct work *k = &m->work;

    k->q = take_act(m, MEM_WORK, rows, q_dim(m));
    k->k = keys_from(m, &m->mem[MEM_WORK], rows);
    k->v = keys_from(m, &m->mem[MEM_WORK], rows);
    k->o = take_act(m, MEM_WORK, rows, q_dim(m));
    k->lse = take(m, MEM_WORK, lse_rows(m, rows) * m->c.heads, 4);
    if (config_arch(&m->c)->block.by_head)
        k->qkv = take_act(m, MEM_WORK, rows, config_size(&m->c, SIZE_QKV));
    if (!has_role(m, ROLE_Q_NORM))
        return;
    k->qn = take_act(m, MEM_WORK, rows, q_dim(m));
    k->kn = keys_from(m, &m->mem[MEM_WORK], rows);
    k->q_rstd = take(m, MEM_WORK, rows * m->c.heads, 4);
    k->k_rstd = take(m, MEM_WORK, rows * m->c.kv_heads, 4);
}

/* Training's: see struct work for what shares a place. The loss reads h and writes dh. */
static void lay_backward(struct model *m, int64_t rows)
{
    struct arena *a = &m->mem[MEM_WORK];
    struct work *k = &m->work;
    size_t at = a->used_bytes, far = 0, scratch;

    /* h and d_o share a place */
    k->h = take_act(m, MEM_WORK, rows, m->c.dim);
    again(a, at, &far);
    k->d_o = take_act(m, MEM_WORK, rows, q_dim(m));
    again(a, at, &far);
    at = a->used_bytes = far;
    /* x and dh lie beside each other; attention's scratch lies over both of them */
    k->x = k->x2 = take_act(m, MEM_WORK, rows, m->c.dim);
    k->dh = take_act(m, MEM_WORK, rows, m->c.dim);
    again(a, at, &far);
    scratch = m->d->attention_scratch_bytes(m->d, rows, m->c.heads, m->c.kv_heads,
                                            m->c.head_dim);
    if (turn_scratch_bytes(m) > scratch)
        scratch = turn_scratch_bytes(m);
    k->attention = take(m, MEM_WORK, (int64_t)scratch, 1);
    again(a, at, &far);
    at = a->used_bytes = far;
    /* dq, dk and dv together, the MLP's tiles, and the loss: three users of one place */
    k->dq = take_act(m, MEM_WORK, rows, q_dim(m));
    k->dk = keys_from(m, &m->mem[MEM_WORK], rows);
    k->dv = keys_from(m, &m->mem[MEM_WORK], rows);
    again(a, at, &far);
    lay_tiles(m);
    again(a, at, &far);
    lay_loss(m);
    again(a, at, &far);
    a->used_bytes = far;
    /* what follows is live beside all of the above */
    k->dx = take_act(m, MEM_WORK, rows, m->c.dim);
    lay_attended(m, rows);
    if (lora(&m->o))
        k->dxa = take_act(m, MEM_WORK, rows, most_ranks(m));
}

/* Without a backward: attention's buffers, the tiles and the loss take turns. */
static void lay_scoring(struct model *m, int64_t rows)
{
    struct arena *a = &m->mem[MEM_WORK];
    size_t at, far = 0;

    m->work.x = take_act(m, MEM_WORK, rows, m->c.dim);
    m->work.h = take_act(m, MEM_WORK, rows, m->c.dim);
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
        k->kept = take_act(m, MEM_WORK, rows, m->c.dim);
    /* one value for each row, in every mode */
    k->rstd = take(m, MEM_WORK, rows, 4);
    k->ids = take(m, MEM_WORK, rows, 4);
    k->targets = take(m, MEM_WORK, rows, 4);
    k->nll = take(m, MEM_WORK, rows, 4);
    if (m->o.cache.rows)
        k->logits = take(m, MEM_WORK, LOGIT_ROWS * m->c.vocab, 4);
    if (config_biases(&m->c))
        k->ones = take_act(m, MEM_WORK, rows, 1);
    if (lora(&m->o))
        k->xa = take_act(m, MEM_WORK, rows, most_ranks(m));
    if (lora(&m->o) && m->o.dropout > 0)
        lay_dropped(m, rows);
    for (int i = 0; i < 2 && m->flat_bytes; i++)
        k->flat[i] = take(m, MEM_WORK, (int64_t)m->flat_bytes, 1);
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
    for (int64_t i = 0; i < m->c.layers; i++) {
        struct layer *l = &m->layers[i];
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
        l->item[RING_WEIGHTS] = (i + 1) * p->streamed / m->c.layers > i * p->streamed / m->c.layers
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
        s->lse = from(a, lse_rows(m, rows) * m->c.heads, 4);
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
        r->slot[i] = take(m, MEM_SAVED, (int64_t)r->nbytes, 1);
    /* the other two items are in the slots */
    r->host = take(m, MEM_HOST, r->n > 2 ? r->n - 2 : 0, r->nbytes);
}

static void lay_saved(struct model *m, int64_t rows)
{
    const struct work *w = &m->work;

    for (int k = SAVE_INPUT; k < SAVE_LEVELS; k++)
        lay_ring(m, k, rows);
    for (int64_t i = 0; i < m->c.layers; i++) {
        struct layer *l = &m->layers[i];
        enum save_level level = l->s.level;

        /* everything points at the shared buffers first; what the layer saves replaces that */
        l->s = (struct saved){ .x = w->x, .q = w->q, .k = w->k, .v = w->v, .o = w->o,
                               .x2 = w->x2, .lse = w->lse, .level = level };
        for (int k = 0; k < 2; k++)
            l->s.rstd[k] = m->o.mode == TRAIN_NONE ? w->rstd : take(m, MEM_SAVED, rows, 4);
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
    if (turn_flat_bytes(m) > m->flat_bytes)
        m->flat_bytes = turn_flat_bytes(m);
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
