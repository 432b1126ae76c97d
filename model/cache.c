/* model/cache.c - keys and values of texts that grow: where they lie, and who comes and goes. */
#include "model/extend.h"
#include "model/inside.h"

#include <stdlib.h>
#include <string.h>

/*
 * Each layer has [texts][rows][kv_dim] keys and as many values, in the cache's type. A text's
 * tokens stand in rows [first, end), turned by RoPE for the positions that they have in it.
 *
 * A text that keeps a window (StreamingLLM) lets the oldest go, but for its first tokens, the sinks,
 * which the softmax leans on. Its reference keeps keys unturned and turns all of them anew for every
 * token, by their places in the cache. What counts is the distance to the query, which between a
 * window's rows is what it was: so here the sinks alone are turned anew, and stand right before the
 * window. With 2 sinks and a window of 4, as tokens 6 and 7 come:
 *
 *     rows    0 1 2 3 4 5               0 1 2 3 4 5 6             0 1 2 3 4 5 6 7
 *     hold    0 1 2 3 4 5      then     . 0 1 3 4 5 6     then    . . 0 1 4 5 6 7
 *                                         ^ turned by 1 position      ^ by 2
 *
 * When the rows end, those that are kept move to the first ones.
 */
struct cache {
    struct kept_text *text;
    void *turned;              /* device: sinks that are turned, act [sinks][kv_dim] */
    const struct cached *now;
};

static size_t value_bytes(const struct model *m)
{
    enum kv_type t = m->o.cache.type;

    return t == KV_ACT ? dtype_bytes(m->d->act) : t == KV_BF16 ? 2 : 1;
}

static bool scaled(const struct model *m) { return m->o.cache.type == KV_INT8; }

/* n of the values of one layer's part at p; in a plan p is NULL. */
static void *part_of(struct arena *a, int64_t n, size_t bytes)
{
    void *p = arena_alloc(a, n, bytes, 256);

    arena_alloc(a, 0, 1, 256); /* ends are rounded, too */
    return p;
}

static void lay_kept(const struct model *m, struct kept *k, struct arena *a)
{
    int64_t rows, n;

    if (__builtin_mul_overflow(m->o.cache.rows, m->o.cache.seqs, &rows) ||
        __builtin_mul_overflow(rows, kv_dim(m), &n)) {
        a->failed = true;
        return;
    }
    *k = (struct kept){ 0 };
    k->k = part_of(a, n, value_bytes(m));
    k->v = part_of(a, n, value_bytes(m));
    if (scaled(m)) {
        k->k_scale = part_of(a, rows * m->c.kv_heads, 4);
        k->v_scale = part_of(a, rows * m->c.kv_heads, 4);
    }
}

static void lay_sinks(struct model *m, struct kept *k)
{
    int64_t n = m->o.cache.seqs * m->o.cache.sinks * kv_dim(m);

    k->sink_k = part_of(&m->mem[MEM_CACHE], n, dtype_bytes(m->d->act));
    k->sink_v = part_of(&m->mem[MEM_CACHE], n, dtype_bytes(m->d->act));
}

void cache_lay(struct model *m)
{
    struct ring *r = &m->ring[RING_CACHE];
    struct arena one = { 0 };
    struct kept unused;

    if (!m->o.cache.rows)
        return;
    if (r->n) {
        lay_kept(m, &unused, &one);
        m->mem[MEM_CACHE].failed |= one.failed;
        r->nbytes = one.used_bytes;
        for (int i = 0; i < 2 && i < r->n; i++)
            r->slot[i] = part_of(&m->mem[MEM_CACHE], (int64_t)r->nbytes, 1);
        r->host = part_of(&m->mem[MEM_HOST], r->n, r->nbytes);
    }
    for (int64_t i = m->from; i < m->to; i++) {
        struct kept *k = &m->layers[i].kept;
        struct arena slot = { .base = r->slot[(i - m->from) & 1], .cap_bytes = r->nbytes };

        lay_kept(m, k, r->n ? &slot : &m->mem[MEM_CACHE]);
        if (m->o.cache.window && m->o.cache.sinks)
            lay_sinks(m, k);
    }
}

int cache_open(struct model *m, struct err *e)
{
    size_t bytes = (size_t)(m->o.cache.sinks * kv_dim(m)) * dtype_bytes(m->d->act);

    m->cache = calloc(1, sizeof *m->cache);
    if (m->cache)
        m->cache->text = calloc((size_t)m->o.cache.seqs, sizeof *m->cache->text);
    if (!m->cache || !m->cache->text)
        return err_set(e, E_SYS, "out of memory");
    return bytes ? m->d->alloc(m->d, bytes, &m->cache->turned, e) : 0;
}

void cache_close(struct model *m)
{
    if (!m->cache)
        return;
    if (m->cache->turned)
        m->d->release(m->d, m->cache->turned);
    free(m->cache->text);
    free(m->cache);
    m->cache = NULL;
}

struct kept_text *cache_text(const struct model *m, int64_t seq) { return &m->cache->text[seq]; }
void cache_now(struct model *m, const struct cached *now) { m->cache->now = now; }

static char *value_at(const struct model *m, void *p, int64_t row)
{
    return (char *)p + (size_t)(row * kv_dim(m)) * value_bytes(m);
}

static float *scale_at(const struct model *m, float *p, int64_t row)
{
    return p ? p + row * m->c.kv_heads : NULL;
}

static void copy(struct model *m, void *to, const void *from, size_t nbytes)
{
    if (m->rc == 0 && nbytes)
        m->rc = m->d->copy(m->d, to, from, nbytes);
}

/* The sinks as they are stored for the first time are kept apart. */
static void note_sinks(struct model *m, const struct layer *l, const struct span *b, const void *k,
                       const void *v)
{
    const struct cached *c = b->cached;
    int64_t n = m->o.cache.sinks - c->at, to = (c->seq * m->o.cache.sinks + c->at) * kv_dim(m);
    size_t bytes;

    if (!l->kept.sink_k || n <= 0)
        return;
    bytes = (size_t)((n < b->rows ? n : b->rows) * kv_dim(m)) * dtype_bytes(m->d->act);
    copy(m, act_at(m, l->kept.sink_k, to), k, bytes);
    copy(m, act_at(m, l->kept.sink_v, to), v, bytes);
}

static struct op_store store_of(const struct model *m, const struct layer *l, int64_t rows,
                                const void *k, const void *v)
{
    return (struct op_store){ .rows = rows, .heads = m->c.kv_heads, .dim = m->c.head_dim,
                              .ld = kv_dim(m), .k = k, .v = v, .type = m->o.cache.type,
                              .k_to = l->kept.k, .v_to = l->kept.v, .k_scale = l->kept.k_scale,
                              .v_scale = l->kept.v_scale };
}

void cache_attend(struct model *m, const struct layer *l, const struct span *b, const void *k,
                  const void *v, struct op_attention *a)
{
    const struct cached *c = b->cached;
    struct op_store s = store_of(m, l, b->rows, k, v);

    s.n = c->n, s.cu = c->cu, s.to = c->to;
    if (m->rc == 0)
        m->rc = m->d->store(m->d, &s);
    note_sinks(m, l, b, k, v);
    a->kv_rows = c->rows;
    a->cached = true;
    a->kv_type = m->o.cache.type;
    a->k = value_at(m, l->kept.k, c->row);
    a->v = value_at(m, l->kept.v, c->row);
    a->k_scale = scale_at(m, l->kept.k_scale, c->row);
    a->v_scale = scale_at(m, l->kept.v_scale, c->row);
}

/* The sinks of a text, turned by so many positions, to rows from to on of every layer; of one without RoPE
 * as they are. */
static void turn_sinks(struct model *m, int64_t seq, int64_t by, int64_t to)
{
    int64_t n = m->o.cache.sinks, at = seq * n * kv_dim(m), cu[2] = { 0, n };
    size_t bytes = (size_t)(n * kv_dim(m)) * dtype_bytes(m->d->act);

    for (int64_t i = m->from; i < m->to && m->rc == 0; i++) {
        const struct layer *l = &m->layers[i];
        struct op_store s = store_of(m, l, n, m->cache->turned, act_at(m, l->kept.sink_v, at));

        copy(m, m->cache->turned, act_at(m, l->kept.sink_k, at), bytes);
        if (m->rc == 0 && !layer_in(&m->c.no_rope, i))
            m->rc = m->d->rope(m->d, &(struct op_rope){ .rows = n, .ld = kv_dim(m),
                .heads = m->c.kv_heads, .dim = config_rotary(&m->c), .stride = m->c.head_dim,
                .first = by, .period = 1, .scale = 1, .inv_freq = layer_freq(m, i),
                .x = m->cache->turned });
        s.n = 1, s.cu = cu, s.to = &to;
        if (m->rc == 0)
            m->rc = m->d->store(m->d, &s);
    }
}

/* Rows [from, end) of a text to its first ones: as many at a time as no row is read late. */
static void move_down(struct model *m, int64_t seq, int64_t from, int64_t end)
{
    int64_t base = seq * m->o.cache.rows;

    for (int64_t i = m->from; i < m->to; i++) {
        const struct kept *k = &m->layers[i].kept;

        for (int64_t at = from, n; at < end; at += n) {
            int64_t to = base + at - from, row = base + at;
            size_t bytes, scales;

            n = end - at < from ? end - at : from;
            bytes = (size_t)(n * kv_dim(m)) * value_bytes(m);
            scales = scaled(m) ? (size_t)(n * m->c.kv_heads) * 4 : 0;
            copy(m, value_at(m, k->k, to), value_at(m, k->k, row), bytes);
            copy(m, value_at(m, k->v, to), value_at(m, k->v, row), bytes);
            copy(m, scale_at(m, k->k_scale, to), scale_at(m, k->k_scale, row), scales);
            copy(m, scale_at(m, k->v_scale, to), scale_at(m, k->v_scale, row), scales);
        }
    }
}

void cache_make_room(struct model *m, int64_t seq, int64_t n)
{
    const struct cache_options *o = &m->o.cache;
    struct kept_text *t = cache_text(m, seq);
    int64_t gone = t->end - t->first + n - o->sinks - o->window;

    if (!o->window)
        return;
    t->first += gone > 0 ? gone : 0;
    if (t->end + n > o->rows) {
        move_down(m, seq, t->first, t->end);
        t->end -= t->first;
        t->first = 0;
    }
    if (gone > 0 && o->sinks)
        turn_sinks(m, seq, t->n - (t->end - t->first), seq * o->rows + t->first);
}

/* Rows [at, at + n) of a layer, four parts, between its slot and the host's memory. */
static int move_rows(struct model *m, const struct ring *r, int64_t item, int64_t at, int64_t n,
                     bool in)
{
    const struct kept *k = &m->layers[m->from + item].kept;
    char *slot = (char *)r->slot[item & 1];
    char *host = (char *)r->host + (size_t)item * r->nbytes;
    char *part[TEXT_PARTS] = { value_at(m, k->k, at), value_at(m, k->v, at),
                               (char *)scale_at(m, k->k_scale, at),
                               (char *)scale_at(m, k->v_scale, at) };
    int rc = 0;

    for (int p = 0; p < TEXT_PARTS && rc == 0 && n > 0; p++) {
        size_t bytes = (size_t)n * model_text_row_bytes(m, p);

        if (bytes && in)
            rc = m->d->fetch(m->d, part[p], host + (part[p] - slot), bytes);
        else if (bytes)
            rc = m->d->send(m->d, host + (part[p] - slot), part[p], bytes);
    }
    return rc;
}

static int bring_texts(struct device *d, const struct ring *r, int64_t item, void *slot)
{
    struct model *m = r->state;
    int rc = 0;

    (void)d, (void)slot;
    for (int64_t i = 0; m->cache && i < m->o.cache.seqs && rc == 0; i++)
        rc = move_rows(m, r, item, i * m->o.cache.rows, cache_text(m, i)->end, true);
    return rc;
}

static int send_new(struct device *d, const struct ring *r, int64_t item, const void *slot)
{
    struct model *m = r->state;
    const struct cached *c = m->cache ? m->cache->now : NULL;
    int rc = 0;

    (void)d, (void)slot;
    for (int64_t i = 0; c && i < c->n && rc == 0; i++)
        rc = move_rows(m, r, item, c->to[i], c->cu[i + 1] - c->cu[i], false);
    return rc;
}

const struct ring_source ring_cache = { .bring_on = QUEUE_IN, .bring = bring_texts,
                                        .store_on = QUEUE_OUT, .store = send_new };

size_t model_text_row_bytes(const struct model *m, int part)
{
    if (part < 2)
        return (size_t)kv_dim(m) * value_bytes(m);
    return scaled(m) ? (size_t)m->c.kv_heads * 4 : 0;
}

/* Where a part of a text's row lies: on the device, or of a cache in the host's memory there. */
static char *row_of(const struct model *m, int64_t seq, int64_t layer, int part, int64_t at)
{
    const struct ring *r = &m->ring[RING_CACHE];
    const struct kept *k = &m->layers[layer].kept;
    int64_t row = seq * m->o.cache.rows + at;
    char *p = part < 2 ? value_at(m, part ? k->v : k->k, row)
                       : (char *)scale_at(m, part == 3 ? k->v_scale : k->k_scale, row);

    layer -= m->from; /* its item */
    return r->n ? (char *)r->host + (size_t)layer * r->nbytes + (p - (char *)r->slot[layer & 1]) : p;
}

int model_text_get(struct model *m, int64_t seq, int64_t layer, int part, int64_t at, int64_t n,
                   void *to, struct err *e)
{
    const char *from = row_of(m, seq, layer, part, at);
    size_t bytes = (size_t)n * model_text_row_bytes(m, part);

    if (m->ring[RING_CACHE].n)
        memcpy(to, from, bytes);
    else if (bytes && m->d->to_host(m->d, to, from, bytes) < 0)
        return m->d->sync(m->d, e);
    return 0;
}

int model_text_put(struct model *m, int64_t seq, int64_t layer, int part, int64_t at, int64_t n,
                   const void *from, struct err *e)
{
    char *to = row_of(m, seq, layer, part, at);
    size_t bytes = (size_t)n * model_text_row_bytes(m, part);

    if (m->ring[RING_CACHE].n)
        memcpy(to, from, bytes);
    else if (bytes && m->d->to_device(m->d, to, from, bytes) < 0)
        return m->d->sync(m->d, e);
    return 0;
}

void model_text_set(struct model *m, int64_t seq, int64_t n)
{
    *cache_text(m, seq) = (struct kept_text){ n, 0, n };
}

int64_t model_text_length(const struct model *m, int64_t seq) { return cache_text(m, seq)->n; }

void model_text_cut(struct model *m, int64_t seq, int64_t n)
{
    struct kept_text *t = cache_text(m, seq);

    if (n < t->n)
        model_text_set(m, seq, m->o.cache.window ? 0 : n);
}
