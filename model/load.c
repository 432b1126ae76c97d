/* model/load.c - values into a model: base weights, fresh ones, adapters. */
#include "model/spread.h"
#include "model/stages.h"

#include "base/block_hash.h"
#include "base/perm.h"
#include "kernels/exchange.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 20 }; /* values converted at a time */

/* What a tensor's values become: float32 where it is trained or a norm, else what ops read. */
static const struct tensor_type *type_of(const struct weight *w)
{
    return w->trained ? &type_f32 : w->type;
}

/* n float32 values to dst as type to. half has room for them in a narrow type. A failure is
 * told by the next sync, as everywhere here. */
static int put_f32(struct model *m, const float *src, int64_t n, void *dst, enum dtype to,
                   uint16_t *half)
{
    if (to == DT_F32)
        return m->d->to_device(m->d, dst, src, (size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        half[i] = to == DT_BF16 ? f32_to_bf16(src[i]) : f32_to_f16(src[i]);
    return m->d->to_device(m->d, dst, half, (size_t)n * 2);
}

/* A source of float32 values: n of them from position at. */
typedef int values_fn(void *ctx, int64_t at, int64_t n, float *out, struct err *e);

/* Writes count values to dst, CHUNK at a time, as values makes them. */
static int fill_values(struct model *m, void *dst, enum dtype to, int64_t count, values_fn *values,
                       void *ctx, struct err *e)
{
    float *f = malloc((size_t)CHUNK * 4);
    uint16_t *half = malloc((size_t)CHUNK * 2);
    int rc = to == DT_OTHER ? err_set(e, E_BUG, "fresh values of a packed type")
             : f && half ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t at = 0; at < count && rc == 0; at += CHUNK) {
        int64_t n = count - at < CHUNK ? count - at : CHUNK;

        if ((rc = values(ctx, at, n, f, e)) < 0)
            break;
        /* sync fetches the reason of the failure into e */
        if (put_f32(m, f, n, (char *)dst + (size_t)at * dtype_bytes(to), to, half) < 0)
            rc = m->d->sync(m->d, e);
    }
    free(f);
    free(half);
    return rc;
}

struct random {
    uint64_t seed;
    double scale;
};

/* Value i depends on the seed and on i alone, so the size of a chunk changes nothing. */
static int normal_values(void *ctx, int64_t at, int64_t n, float *out, struct err *e)
{
    const struct random *r = ctx;

    (void)e;
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(r->scale * normal_at(r->seed, (uint64_t)(at + i)));
    return 0;
}

static int uniform_values(void *ctx, int64_t at, int64_t n, float *out, struct err *e)
{
    const struct random *r = ctx;

    (void)e;
    for (int64_t i = 0; i < n; i++) {
        /* the upper 53 bits, as many as a double holds exactly, as a number from 0 up to 1 */
        double u = (double)(mix64(mix64(r->seed) ^ (uint64_t)(at + i)) >> 11) * 0x1p-53;
        out[i] = (float)(r->scale * (2.0 * u - 1.0));
    }
    return 0;
}

/* All values are the one that ctx points at. */
static int same_values(void *ctx, int64_t at, int64_t n, float *out, struct err *e)
{
    (void)at, (void)e;
    for (int64_t i = 0; i < n; i++)
        out[i] = *(const float *)ctx;
    return 0;
}

/* The seed of one tensor: FNV-1a of its name, mixed with the run's. */
static uint64_t seed_of(uint64_t seed, const char *name)
{
    /* FNV's start value and prime for 64 bits */
    uint64_t h = 0xCBF29CE484222325u;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001B3u;
    return mix64(seed ^ mix64(h));
}

/* The destination of whole values for a weight: the float32 master of a trained one, the
 * host's memory of a streamed one. */
static void *place_of(const struct weight *w)
{
    return w->trained ? (void *)w->master : w->host ? w->host : w->w;
}

/* LoRA's start: A uniform within 1/sqrt(in) (Kaiming with a = sqrt 5), B zero. */
static int init_pairs(struct model *m, uint64_t seed, struct err *e)
{
    float zero = 0;
    int rc = 0;

    for (int64_t i = 0; i < m->t.n_params && rc == 0; i++) {
        const struct param *p = &m->params[i];
        const struct weight *w = weight_at(m, p->role, p->layer);
        /* w->in: the input's width, which A's rows have */
        struct random r = { seed_of(seed, p->name), 1.0 / sqrt((double)w->in) };

        if (p->part == 1)
            rc = fill_values(m, w->pair.master_a, DT_F32, p->count, uniform_values, &r, e);
        else if (p->part == 2)
            rc = fill_values(m, w->pair.master_b, DT_F32, p->count, same_values, &zero, e);
    }
    return rc;
}

/* What is to stay of masters that lie in the gradient's place: this rank's own, and the norms,
 * which ops read in float32. */
static int keep_own(struct model *m)
{
    const struct trained *t = &m->t;
    struct tensor_spec s;
    int rc = 0;

    for (int k = 0; k < t->chunks && rc == 0; k++) {
        struct share o = trained_share(t, k, t->rank);

        rc = m->d->copy(m->d, t->own + o.at, t->w + o.from, (size_t)(o.to - o.from) * sizeof *t->own);
    }
    for (int64_t i = 0; i < config_tensors(&m->c) && rc == 0; i++) {
        const struct weight *w;

        config_tensor(&m->c, i, &s);
        w = weight_at(m, s.role, s.layer);
        if (w->trained && is_norm(s.role))
            rc = m->d->copy(m->d, w->w, w->master, (size_t)w->in * sizeof *w->master);
    }
    return rc;
}

/* Ops read a copy of the trained values in the device's type; where that type is float32
 * they read the masters, and there is nothing to copy. */
int model_sync_trained(struct model *m)
{
    int rc = m->compute ? m->d->cast(m->d, &(struct op_cast){ m->t.n, m->t.w, DT_F32, m->compute,
                                                              m->d->act }) : 0;

    return rc == 0 && m->norms ? keep_own(m) : rc;
}

int model_gather_chunk(struct model *m, int chunk)
{
    const struct trained *t = &m->t;
    struct share o = trained_share(t, chunk, t->rank);
    int rc = 0;

    if (trained_apart(t))
        rc = m->d->copy(m->d, t->w + o.from, t->own + o.at, (size_t)(o.to - o.from) * sizeof *t->own);
    if (rc == 0 && m->d->links)
        rc = group_queue_share(m->d, t->w + t->chunk[chunk], t->chunk[chunk + 1] - t->chunk[chunk]);
    m->gathered = chunk + 1;
    return rc;
}

int model_gather(struct model *m, int rc, struct err *e)
{
    const struct trained *t = &m->t;

    if (t->shards == 1)
        return rc;
    while (m->gathered < t->chunks && rc == 0)
        if ((rc = model_gather_chunk(m, m->gathered)) < 0) {
            struct err why = { 0 };

            m->d->sync(m->d, &why);
            err_set(e, rc, "cannot copy what was trained on '%s'%s%.300s", m->d->name, *why.msg ? ": " : "",
                    why.msg);
        }
    m->gathered = 0;
    if ((rc = group_meet(m->d->group, rc, NULL, e)) < 0)
        return rc;
    if (m->d->links)
        return group_wait_queued(m->d, "share", e);
    for (int k = 0; k < t->chunks && rc == 0; k++)
        rc = group_share_parts(m->d, t->w + t->chunk[k], t->chunk[k + 1] - t->chunk[k], e);
    return rc;
}

/* The tensors of the configuration. each: their hashes, by their places in w. */
static int load_listed(struct model *m, const struct weights *w, uint64_t *each, struct pool *p,
                       struct err *e)
{
    struct tensor_spec s;
    int rc = 0;

    for (int64_t i = 0; i < config_tensors(&m->c) && rc == 0; i++) {
        struct tensor_spec from;
        const struct tensor *t;
        struct weight *to;

        config_tensor(&m->c, i, &s);
        to = weight_at(m, s.role, s.layer);
        /* from: the tensor of the files that this one is made from */
        tensor_source(weights_config(w), &s, &from);
        if ((rc = weights_get(w, from.name, s.dims, s.shape, &t, e)) == 0 && !stage_has(m, s.role, s.layer))
            each[t - weights_at(w, 0)] = ELSEWHERE;
        else if (rc == 0)
            rc = upload_tensor(m, p, place_of(to), type_of(to), t, &each[t - weights_at(w, 0)], e);
        if (rc == 0)
            rc = share_keep(m, s.layer, e);
    }
    return rc;
}

/* What the files have beside these belongs to the base's hash too. Of stages the first makes it. */
static int hash_others(const struct model *m, const struct weights *w, uint64_t *each, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < weights_count(w) && rc == 0; i++)
        if (each[i] == 0 && !stage_is_first(m)) {
            each[i] = ELSEWHERE;
        } else if (each[i] == 0) {
            const struct tensor *t = weights_at(w, i);
            rc = tensor_agrees(t, each[i] = block_hash(t->data, t->nbytes), e);
        }
    return rc;
}

int model_load(struct model *m, const struct weights *w, uint64_t seed, struct err *e)
{
    struct pool *p = pool_open(0, NULL); /* without it: slower */
    uint64_t *each = calloc((size_t)weights_count(w) + 1, sizeof *each);
    int rc = each ? 0 : err_set(e, E_SYS, "out of memory");

    /* a ring may hold matrices that are about to change */
    offload_forget(m);
    upload_begin(m);
    if (rc == 0 && (rc = load_listed(m, w, each, p, e)) == 0)
        rc = hash_others(m, w, each, e);
    rc = stages_hashes(m, each, weights_count(w), rc, e);
    upload_end(m);
    pool_close(p);
    if (rc == 0)
        m->base_hash = weights_hash(w, each);
    free(each);
    if (rc == 0)
        rc = init_pairs(m, seed, e);
    if (rc == 0 && model_sync_trained(m) < 0)
        rc = m->d->sync(m->d, e);
    return rc;
}

uint64_t model_base_hash(const struct model *m) { return m->base_hash; }

int model_init(struct model *m, uint64_t seed, struct err *e)
{
    struct tensor_spec s;
    int rc = 0;

    offload_forget(m);
    /* the same rule for every tensor: matrices are normal, norms 1, biases 0 */
    for (int64_t i = 0; i < config_tensors(&m->c) && rc == 0; i++) {
        struct weight *to;
        struct random r;
        float same;
        bool matrix;

        config_tensor(&m->c, i, &s);
        if (!stage_has(m, s.role, s.layer))
            continue;
        to = weight_at(m, s.role, s.layer);
        matrix = role_form(s.role) == FORM_MATRIX;
        same = role_form(s.role) == FORM_NORM ? 1 - norm_shift(m) : 0; /* and biases */
        r = (struct random){ seed_of(seed, s.name), m->c.init_range };
        rc = fill_values(m, place_of(to), type_of(to)->plain, s.count,
                         matrix ? normal_values : same_values, matrix ? (void *)&r : (void *)&same, e);
        if (rc == 0)
            rc = share_keep(m, s.layer, e);
    }
    if (rc == 0)
        rc = init_pairs(m, seed, e);
    if (rc == 0 && model_sync_trained(m) < 0)
        rc = m->d->sync(m->d, e);
    return rc;
}

/* Values that repeat after NOISE: making each would take minutes for a model of billions. */
enum { NOISE = 1 << 22 };
struct noise {
    float *f;
    uint16_t *half;
};

static int make_noise(struct noise *z, const struct model *m, uint64_t seed, struct err *e)
{
    /* 1.7 is about the root of 3: uniform within 1.7 r, values have the standard deviation r */
    struct random r = { seed, 1.7 * m->c.init_range };

    z->f = malloc((size_t)NOISE * sizeof *z->f);
    z->half = malloc((size_t)NOISE * sizeof *z->half);
    if (!z->f || !z->half)
        return err_set(e, E_SYS, "out of memory");
    uniform_values(&r, 0, NOISE, z->f, e);
    for (int64_t i = 0; i < NOISE; i++)
        z->half[i] = m->d->act == DT_BF16 ? f32_to_bf16(z->f[i]) : f32_to_f16(z->f[i]);
    return 0;
}

/* Every tensor begins with the first value of the noise. */
static int put_noise(struct model *m, const struct noise *z, void *dst, enum dtype to, int64_t n)
{
    const void *src = to == DT_F32 ? (const void *)z->f : z->half;
    int rc = to == DT_OTHER ? E_BUG : 0;

    for (int64_t at = 0; at < n && rc == 0; at += NOISE)
        rc = m->d->to_device(m->d, (char *)dst + (size_t)at * dtype_bytes(to), src,
                             (size_t)(n - at < NOISE ? n - at : NOISE) * dtype_bytes(to));
    return rc;
}

int model_noise(struct model *m, uint64_t seed, struct err *e)
{
    struct noise z = { 0 };
    struct tensor_spec s;
    float one = 1 - norm_shift(m);
    int rc = make_noise(&z, m, seed, e);

    offload_forget(m);
    for (int64_t i = 0; i < config_tensors(&m->c) && rc == 0; i++) {
        struct weight *to;

        config_tensor(&m->c, i, &s);
        if (!stage_has(m, s.role, s.layer))
            continue;
        to = weight_at(m, s.role, s.layer);
        if (is_norm(s.role))
            rc = fill_values(m, place_of(to), DT_F32, s.count, same_values, &one, e);
        else if (put_noise(m, &z, place_of(to), type_of(to)->plain, s.count) < 0)
            rc = m->d->sync(m->d, e);
        if (rc == 0)
            rc = share_keep(m, s.layer, e);
    }
    for (int64_t i = 0; i < m->t.n_params && rc == 0; i++)
        /* part 0 is a whole tensor, done above; 1 and 2 are A and B of a pair */
        if (m->params[i].part && put_noise(m, &z, m->t.w + m->params[i].offset, DT_F32,
                                           m->params[i].count) < 0)
            rc = m->d->sync(m->d, e);
    if (rc == 0 && model_sync_trained(m) < 0)
        rc = m->d->sync(m->d, e);
    free(z.f);
    free(z.half);
    return rc;
}

/* Training goes on with an adapter only as it is: same rank, scale and matrices. Scoring
 * merges it, so that any will do. */
static int same_shape(const struct model *m, const struct adapter_config *a, struct err *e)
{
    struct adapter_config ours;
    bool same;

    if (m->o.mode == TRAIN_NONE)
        return 0;
    if (m->o.mode == TRAIN_FULL)
        return err_set(e, E_CONFIG, "--mode full cannot continue an adapter: merge it first "
                                    "(lmerge)");
    if (a->dora)
        return err_set(e, E_CONFIG, "an adapter with DoRA cannot be trained on: merge it first (lmerge)");
    model_adapter_config(m, &ours);
    same = a->targets == ours.targets;
    for (int64_t l = -1; l < m->c.layers; l++)
        for (int r = 0; r < ROLES; r++)
            same &= adapter_rank(a, r, l) == adapter_rank(&ours, r, l) &&
                    adapter_pair_scale(a, r, l) == adapter_pair_scale(&ours, r, l);
    if (!same)
        return err_set(e, E_CONFIG, "the adapter has rank %lld and scale %g (alpha / rank); "
                                    "the options ask for rank %lld, scale %g, or other "
                                    "--targets", (long long)a->rank,
                       adapter_scale(a), (long long)m->o.rank, adapter_scale(&ours));
    return 0;
}

/* What the adapter has for one tensor: scoring adds the pair to its matrix, training fills the pair's
 * masters. */
static int load_change(struct model *m, const struct adapter_change *x, const struct tensor_spec *s,
                       struct err *e)
{
    struct weight *to = weight_at(m, s->role, s->layer);
    int rc = x->whole ? upload_tensor(m, NULL, place_of(to), type_of(to), x->whole, NULL, e) : 0;

    if (rc < 0 || !x->a)
        return rc;
    if (m->o.mode == TRAIN_NONE)
        return pair_merge(m, to, s, x, e);
    if ((rc = upload_tensor(m, NULL, to->pair.master_a, &type_f32, x->a, NULL, e)) == 0)
        rc = upload_tensor(m, NULL, to->pair.master_b, &type_f32, x->b, NULL, e);
    return rc;
}

int model_load_adapter(struct model *m, const struct adapter *a, struct err *e)
{
    const uint64_t both = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD);
    const struct adapter_config *ac = adapter_config(a);
    uint64_t named = ac->saved & ~adapter_loose(a) & both;
    int rc = same_shape(m, ac, e);
    struct tensor_spec s;

    offload_forget(m);
    /* a whole embedding or head alone would change the other use of the tied matrix, too */
    if (rc == 0 && m->c.tied && named != 0 && named != both)
        rc = err_set(e, E_CONFIG, "the adapter holds a trained embedding or head, and the "
                                  "model uses one matrix for both: set tie_word_embeddings to "
                                  "false in its config.json");
    for (int64_t i = 0; i < config_tensors(&m->c) && rc == 0; i++) {
        struct adapter_change x;

        config_tensor(&m->c, i, &s);
        adapter_change(a, &s, &x);
        if (stage_has(m, s.role, s.layer))
            rc = load_change(m, &x, &s, e);
    }
    if (rc == 0 && model_sync_trained(m) < 0)
        rc = m->d->sync(m->d, e);
    return rc;
}
