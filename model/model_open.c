/* model/model_open.c - plan, open and close a model. */
#include "model/cost.h"
#include "model/spread.h"
#include "model/stages.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_defaults(struct model_options *o)
{
    *o = (struct model_options){ .mode = TRAIN_LORA_PLUS, .rank = 8, .alpha = 16, .seqs = 1,
                                 .keep_layers = -1 };
    o->targets = ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_K) | ROLE_BIT(ROLE_V) | ROLE_BIT(ROLE_O);
}

/* n held between least and most, and in between cut to a multiple of 1024. */
static int64_t within(int64_t least, int64_t n, int64_t most)
{
    return n < least ? least : n > most ? most : n / 1024 * 1024;
}

void model_as_planned(struct model_options *o, const struct memory_plan *p)
{
    o->placement = &p->placement;
    o->mlp_tile = p->mlp_tile;
    o->loss_chunk = p->loss_chunk;
}

/* Refuses options that do not fit the model, and fills in the sizes that are left to it. */
static int check_options(struct model *m, struct err *e)
{
    struct model_options *o = &m->o;
    bool bf16 = m->d->act == DT_BF16; /* a device that wants large products */
    bool lora = o->mode == TRAIN_LORA || o->mode == TRAIN_LORA_PLUS;
    int64_t rows;

    if (m->c.arch && arch_check(m->c.arch, e) < 0)
        return E_CONFIG;
    if (m->d->most_head_dim && m->c.head_dim > m->d->most_head_dim) {
        err_set(e, E_CONFIG, "the model's heads have %lld channels, the GPU's attention takes at "
                "most %lld", (long long)m->c.head_dim, (long long)m->d->most_head_dim);
        return err_hint(e, "use the CPU (--device cpu)");
    }
    if (o->ctx < 1 || o->ctx > (int64_t)1 << 31 || o->seqs < 1 || o->seqs > 1 << 20)
        return err_set(e, E_CONFIG, "cannot compute %lld sequences of %lld tokens at once",
                       (long long)o->seqs,
                       (long long)o->ctx);
    if (arch_targets(config_arch(&m->c), &o->targets, e) < 0 || stages_layers(m, e) < 0)
        return E_CONFIG;
    if (o->cp > 1 && (o->seqs != 1 || o->cp > 1024 || o->ctx < o->cp))
        return err_set(e, E_CONFIG, "cannot lay %lld sequences of %lld tokens over %lld ranks",
                       (long long)o->seqs, (long long)o->ctx, (long long)o->cp);
    if (o->shares > 1 && (o->mode == TRAIN_FULL || o->shares > 1024))
        return err_set(e, E_CONFIG, "weights cannot lie over %lld ranks%s", (long long)o->shares,
                       o->mode == TRAIN_FULL ? ": all of them are trained" : "");
    if (!(o->dropout >= 0 && o->dropout < 0.999))
        return err_set(e, E_CONFIG, "a dropout of %g: must be at least 0, and below 1", o->dropout);
    if (lora && (o->whole & o->targets))
        return err_set(e, E_CONFIG, "a matrix cannot both have a LoRA pair and be trained whole");
    for (int64_t l = 0; lora && o->pairs && l < o->pairs->layers; l++)
        for (int r = 0; r < ROLES; r++)
            if (o->pairs->at[l][r].rank > 4096)
                return err_set(e, E_CONFIG, "a LoRA pair of rank %lld: at most 4096",
                               (long long)o->pairs->at[l][r].rank);
    if (lora && (o->rank < 1 || o->rank > 4096 || !(o->alpha > 0) || !o->targets))
        return err_set(e, E_CONFIG, "LoRA needs a rank, an alpha and target matrices: got rank "
                                    "%lld, alpha %g, %d targets",
                       (long long)o->rank, o->alpha, __builtin_popcountll(o->targets));
    /* On a GPU a tile has about 90 Mi values (tile x ffn_dim), and a chunk 8 Mi (chunk x
     * dim): enough rows for fast products at any width. */
    o->mlp_tile = o->mlp_tile > 0 ? o->mlp_tile
                  : bf16 ? within(8192, ((int64_t)90 << 20) / m->c.ffn_dim, 1 << 20) : 2048;
    o->loss_chunk = o->loss_chunk > 0 ? o->loss_chunk
                    : bf16 ? within(2048, ((int64_t)8 << 20) / m->c.dim, 8192) : 1024;
    rows = model_rows(o);
    /* no more rows than a batch has */
    if (o->mlp_tile > rows)
        o->mlp_tile = rows;
    if (o->loss_chunk > rows)
        o->loss_chunk = rows;
    return 0;
}

/* What ranks that share a sequence exchange, by what their layers keep. */
static void foretell_line(struct model *m)
{
    bool dense = m->o.attention_span < 2 || m->o.attention_span >= m->o.ctx;
    struct spread_traffic t = spread_traffic(m, dense);
    double layers = (double)m->c.layers, bytes = layers * t.forward, bare;
    struct cost c;

    cost_of(m, &c);
    bare = layers * c.bare;
    if (m->o.mode != TRAIN_NONE) {
        const struct placement *p = &m->plan.placement;

        bytes += layers * t.back + (double)placement_layers(p, SAVE_INPUT) * t.whole +
                 (double)placement_layers(p, SAVE_ATTENTION) * t.keys;
        bare += layers * c.bare_back;
        for (int k = SAVE_INPUT; k < SAVE_QKV; k++)
            bare += (double)placement_layers(p, (enum save_level)k) * c.bare_again[k];
    }
    m->plan.line_bytes = bytes;
    m->plan.line_s = m->o.link_rate > 0 ? bytes / m->o.link_rate : 0;
    m->plan.line_bare_s = c.known ? bare : m->plan.line_s;
    m->plan.line_most = spread_slowest(m, dense);
}

/* What the layout has measured, under the names that a plan shows. */
static void fill_plan(struct model *m)
{
    struct memory_plan *p = &m->plan;

    p->frozen = m->mem[MEM_FROZEN].used_bytes;
    p->trained = m->mem[MEM_MASTER].used_bytes + m->mem[MEM_COMPUTE].used_bytes;
    p->gradients = m->mem[MEM_GRAD].used_bytes;
    p->moments = m->mem[MEM_MOMENTS].used_bytes;
    p->saved = m->mem[MEM_SAVED].used_bytes;
    p->work = m->mem[MEM_WORK].used_bytes;
    p->cache = m->mem[MEM_CACHE].used_bytes;
    p->total = model_bytes(m);
    p->host = m->mem[MEM_HOST].used_bytes;
    foretell_line(m);
    p->shares = m->o.shares;
    p->layers = m->to - m->from;
    p->mlp_tile = m->o.mlp_tile;
    p->loss_chunk = m->o.loss_chunk;
}

/* Frees whatever there is, so that a model that failed to open can be closed as well. */
void model_close(struct model *m)
{
    if (!m)
        return;
    for (int i = 0; i < MEM_CLASSES; i++)
        if (m->mem[i].base && i == MEM_HOST)
            m->d->host_release(m->d, m->mem[i].base, m->mem[i].cap_bytes);
        else if (m->mem[i].base)
            m->d->release(m->d, m->mem[i].base);
    cache_close(m);
    spread_close(m);
    share_close(m);
    stages_close(m);
    free(m->layers);
    free(m->params);
    free(m->inv_freq);
    free(m->local_freq);
    free(m->host_nll);
    free(m);
}

/* Everything but the device memory. */
static int measure(struct model **out, struct device *d, const struct llama_config *c,
                   const struct model_options *o, struct err *e)
{
    struct model *m = calloc(1, sizeof *m);
    int rc;

    if (!m)
        return err_set(e, E_SYS, "out of memory");
    m->d = d;
    m->c = *c;
    m->o = *o;
    m->layers = calloc((size_t)c->layers, sizeof *m->layers);
    m->inv_freq = calloc((size_t)c->head_dim, sizeof *m->inv_freq);
    m->local_freq = calloc((size_t)c->head_dim, sizeof *m->local_freq);
    if (o->device_bytes > 0 && !d->own_memory) {
        err_set(e, E_DEVICE, "--gpu-memory needs a GPU");
        rc = err_hint(e, "leave it out; only ltrain --plan takes it without a GPU");
    } else if (!m->layers || !m->inv_freq || !m->local_freq) {
        rc = err_set(e, E_SYS, "out of memory for %lld layers", (long long)c->layers);
    } else if ((rc = check_options(m, e)) == 0) {
        rc = model_place(m, e);
    }
    if (rc < 0) {
        model_close(m);
        return rc;
    }
    fill_plan(m);
    *out = m;
    return 0;
}

void model_adapter_config(const struct model *m, struct adapter_config *a)
{
    bool lora = m->o.mode == TRAIN_LORA || m->o.mode == TRAIN_LORA_PLUS;

    *a = (struct adapter_config){ .arch = config_arch(&m->c), .rank = m->o.rank, .alpha = m->o.alpha,
                                  .targets = m->o.targets, .pairs = m->o.pairs,
                                  .rslora = m->o.rslora, .saved = lora ? model_whole(m) : 0,
                                  .dropout = m->o.dropout, .base_hash = m->base_hash };
}

uint64_t model_whole(const struct model *m)
{
    const struct arch *arch = config_arch(&m->c);
    uint64_t set = m->o.mode == TRAIN_FULL ? arch_roles(arch) : m->o.mode == TRAIN_NONE ? 0
                   : m->o.mode == TRAIN_LORA_PLUS && !m->o.whole ? arch_plus(arch) : m->o.whole;

    /* one matrix, which has the embedding's place */
    if (m->c.tied && (set & ROLE_BIT(ROLE_HEAD)))
        set = (set & ~ROLE_BIT(ROLE_HEAD)) | ROLE_BIT(ROLE_EMBED);
    return set;
}

int64_t model_rank(const struct model *m, enum role r, int64_t layer, float *scale)
{
    struct adapter_config a;

    model_adapter_config(m, &a);
    *scale = (float)adapter_pair_scale(&a, r, layer);
    return adapter_rank(&a, r, layer);
}

/* Names, roles and places of the trained parts, in the order of their files. */
static int list_params(struct model *m, struct err *e)
{
    struct adapter_config a;
    bool full = m->o.mode == TRAIN_FULL;
    int64_t n;

    if (m->o.mode == TRAIN_NONE)
        return 0;
    model_adapter_config(m, &a);
    n = full ? config_tensors(&m->c) : adapter_tensors(&a, &m->c);
    if (!(m->params = calloc((size_t)n, sizeof *m->params)))
        return err_set(e, E_SYS, "out of memory for %lld names", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        struct param *p = &m->params[i];
        struct tensor_spec s;
        struct adapter_tensor t;
        const struct weight *w;
        const float *at;

        if (full) {
            config_tensor(&m->c, i, &s);
            *p = (struct param){ .role = s.role, .layer = s.layer, .count = s.count };
            snprintf(p->name, sizeof p->name, "%s", s.name);
        } else {
            adapter_tensor(&a, &m->c, i, &t);
            *p = (struct param){ .role = t.role, .layer = t.layer, .count = t.count,
                                 .part = t.part };
            snprintf(p->name, sizeof p->name, "%s", t.name);
        }
        w = weight_at(m, p->role, p->layer);
        /* part: 0 a whole tensor, 1 and 2 the A and B of a pair */
        at = p->part == 0 ? w->master : p->part == 1 ? w->pair.master_a : w->pair.master_b;
        /* in a plan there is no memory, both are NULL, and the offset means nothing */
        p->offset = at - m->t.w;
        m->plan.trained_params += p->count;
    }
    m->t.params = m->params;
    m->t.n_params = n;
    return 0;
}

int model_plan(const struct device *d, const struct llama_config *c,
               const struct model_options *o, struct memory_plan *plan, struct err *e)
{
    struct model *m;
    int rc = measure(&m, (struct device *)(uintptr_t)d, c, o, e);

    if (rc == 0)
        rc = list_params(m, e);
    else
        return rc;
    /* the counts stay, the model goes */
    *plan = m->plan;
    model_close(m);
    return rc;
}

int model_fits(struct device *d, const struct memory_plan *p, struct err *e)
{
    /* A GPU refuses at once what it does not have. The host's system may promise more than
     * it has and end the process later, so its memory is counted before. */
    size_t has = d->own_memory ? 0 : d->free_bytes(d);
    char need[16], left[16];

    if (has == 0 || p->total <= has)
        return 0;
    err_set(e, E_SYS, "the model needs %s of memory, %s is free",
            fmt_bytes((double)p->total, need, sizeof need),
            fmt_bytes((double)has, left, sizeof left));
    return err_hint(e, "lower --ctx, or use a smaller model or more memory");
}

static int too_much(const struct model *m, struct err *e)
{
    double all = (double)m->plan.total / 0x1p30;

    if (m->o.mode == TRAIN_NONE)
        return err_hint(e, "the whole plan needs %.2f GiB: lower --ctx or --batch-tokens", all);
    return err_hint(e, "the whole plan needs %.2f GiB: lower --ctx, --micro or --keep-layers "
                       "(--plan shows the parts)", all);
}

/* More than it may take is refused, though the device may have it. */
static int check_capacity(const struct model *m, struct err *e)
{
    size_t has = model_capacity(m->d, &m->o);

    if (m->plan.total <= has)
        return 0;
    err_set(e, E_CONFIG, "--gpu-memory %.4gg leaves %.4g GiB for the model; it needs more",
            (double)m->o.device_bytes / 0x1p30, (double)has / 0x1p30);
    return too_much(m, e);
}

/* Takes what was measured, one piece for each class. The model is laid out again after it. */
static int allocate(struct model *m, struct err *e)
{
    struct arena *host = &m->mem[MEM_HOST];
    struct device *d = m->d;
    int rc = 0;

    for (int i = 0; i < MEM_HOST && rc == 0; i++) {
        struct arena *a = &m->mem[i];
        a->cap_bytes = a->used_bytes;
        if (a->cap_bytes)
            rc = d->alloc(d, a->cap_bytes, (void **)&a->base, e);
    }
    if (rc < 0)
        return too_much(m, e);
    host->cap_bytes = host->used_bytes;
    if (host->cap_bytes &&
        (rc = d->host_alloc(d, host->cap_bytes, (void **)&host->base, e)) < 0)
        err_hint(e, "limit it with --host-memory (--plan shows what that costs)");
    return rc;
}

/* What biases are multiplied by. */
static int fill_ones(struct model *m, struct err *e)
{
    int64_t rows = model_rows(&m->o);
    uint16_t one = m->d->act == DT_BF16 ? f32_to_bf16(1) : f32_to_f16(1);
    size_t size = dtype_bytes(m->d->act);
    char *ones = malloc((size_t)rows * size);
    int rc;

    if (!ones)
        return err_set(e, E_SYS, "out of memory");
    for (int64_t i = 0; i < rows; i++)
        if (m->d->act == DT_F32)
            ((float *)ones)[i] = 1;
        else
            ((uint16_t *)ones)[i] = one;
    m->d->to_device(m->d, m->work.ones, ones, (size_t)rows * size);
    rc = m->d->sync(m->d, e);
    free(ones);
    return rc;
}

int model_open(struct model **out, struct device *d, const struct llama_config *c,
               const struct model_options *o, struct err *e)
{
    struct model *m;
    int rc = measure(&m, d, c, o, e);

    if (rc < 0)
        return rc;
    if (o->device_bytes > 0)
        rc = check_capacity(m, e);
    if (rc == 0)
        rc = allocate(m, e);
    /* now with memory: every buffer gets its address */
    if (rc == 0 && (rc = model_layout(m, e)) == 0 && (rc = list_params(m, e)) == 0 &&
        !(m->host_nll = calloc((size_t)model_rows(o), sizeof *m->host_nll)))
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0)
        rc = spread_open(m, e);
    if (rc == 0)
        rc = share_open(m, e);
    if (rc == 0)
        rc = stages_open(m, e);
    if (rc == 0 && m->work.ones)
        rc = fill_ones(m, e);
    if (rc == 0 && m->o.cache.rows)
        rc = cache_open(m, e);
    m->o.stored = NULL; /* it may be closed now */
    if (rc < 0)
        model_close(m);
    else
        *out = m;
    return rc;
}

const struct llama_config *model_config(const struct model *m) { return &m->c; }
struct group *model_line(const struct model *m) { return m->spread ? m->o.line : NULL; }
struct group *model_sharers(const struct model *m) { return m->share ? m->o.sharers : NULL; }
struct group *model_pipe(const struct model *m) { return m->stages ? m->o.pipe : NULL; }
const struct memory_plan *model_memory(const struct model *m) { return &m->plan; }
const struct trained *model_trained(const struct model *m) { return &m->t; }
