/* model/layout_weights.c - where weights lie, and in which order what is trained: see layout.c. */
#include "model/layout.h"
#include "model/stages.h"

#include "base/bytes.h"
#include "formats/weights/turned.h"
#include "kernels/group.h"
#include "kernels/product.h"

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
    lay_from(&l->blob, (int64_t)weight_bytes(w), 1);
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
    /* one whose rows lie in llama.cpp's order has the name of a type, and is none that a device knows */
    if (t && tensor_stored(t) == t->type)
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

    m->plan.params += s->count;
    if (!stage_has(m, s->role, s->layer))
        return;
    w->host = NULL;
    w->out = norm ? 1 : s->shape[0];
    /* a matrix is [out][in]; a norm counts as one row, a bias as a column */
    w->in = norm ? s->shape[0] : s->dims == 2 ? s->shape[1] : 1;
    w->bias = bias_of(m, s);
    w->times = s->role == ROLE_O || s->role == ROLE_DOWN ? (float)config_times(m->c.times.branch) : 1;
    w->trained = trained_whole(m, s->role);
    w->type = norm ? &type_f32 : w->trained ? dtype_type(m->d->act) : frozen_type(m, s);
    if (w->trained)
        place_trained(m, take_trained(m, s->count), norm ? s->count : 0, &w->w, &w->master, &w->grad);
    else if (l && l->item[RING_WEIGHTS] >= 0 && role_form(s->role) == FORM_MATRIX)
        stream_weight(m, w, l);
    else
        w->w = lay_take(m, MEM_FROZEN, (int64_t)weight_bytes(w), 1);
}

/* The ranks of the pairs of the matrices that read r's input, in one layer. */
int64_t lay_ranks(const struct model *m, enum role r, int64_t layer)
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
    int64_t in = weight_at(m, r, layer)->in, at = take_trained(m, lay_ranks(m, r, layer) * in);

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
    m->compute = m->d->act == DT_F32 && !apart ? NULL : lay_act(m, MEM_COMPUTE, t->n, 1);
    m->norms = apart ? lay_take(m, MEM_COMPUTE, m->n_norms, 4) : NULL;
    t->grad = lay_take(m, MEM_GRAD, t->n, 4);
    t->w = apart ? t->grad : lay_take(m, MEM_MASTER, t->n, 4);
    t->own = apart ? lay_take(m, MEM_MASTER, each, 4) : t->w ? t->w + t->rank * each : NULL;
    t->m = lay_take(m, MEM_MOMENTS, each, 4);
    t->v = lay_take(m, MEM_MOMENTS, each, 4);
}

void lay_weights(struct model *m)
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
        if (lay_lora(&m->o) && arch_last_reader(config_arch(&m->c), s.role))
            lay_pairs(m, s.layer, s.role);
        if (first_slice(s.role) < ROLES && stage_has(m, s.role, s.layer) && !config_arch(&m->c)->block.by_head)
            lay_slices(m, s.layer, s.role);
    }
    close_chunk(m, first);
    if (m->c.tied) /* one tensor, read twice; its gradient is the sum of both uses */
        m->top[ROLE_HEAD] = m->top[ROLE_EMBED];
    if (m->o.shares > 1) { /* slots for all parts, and this rank's of every layer */
        m->share_part = (r->nbytes / (size_t)m->o.shares + 256) & ~(size_t)255;
        m->share_store = lay_take(m, MEM_FROZEN, r->n, m->share_part);
    }
    for (int i = 0; i < 2 && i < r->n; i++)
        r->slot[i] = lay_take(m, MEM_FROZEN, (int64_t)(m->o.shares > 1 ? (size_t)m->o.shares * m->share_part
                                                                   : r->nbytes), 1);
    r->host = m->o.shares > 1 ? NULL : lay_take(m, MEM_HOST, r->n, r->nbytes);
    lay_trained(m);
}

