/* model/spread.c - see spread.h. */
#include "model/spread.h"

#include "kernels/attention.h"
#include "model/segments.h"

#include <stdlib.h>

#define OP(m, name, ...)                                                \
    do {                                                                \
        if ((m)->rc == 0)                                               \
            (m)->rc = (m)->d->name((m)->d, &(struct op_##name){ __VA_ARGS__ }); \
    } while (0)

static int64_t first_row(int64_t whole, int64_t size, int64_t rank)
{
    struct group who = { .rank = (int)rank, .size = (int)size };
    int64_t from, to;

    group_part(&who, whole, &from, &to);
    return from;
}

/* How far the segment that has row 'border' reaches in front of it. */
static int64_t reach(const struct op_segments *s, int64_t border)
{
    return border - s->cu[segment_at(s->cu, s->n, border)];
}

/* The key heads that only the first half of the query heads reads, those that both read (one, of an
 * odd number, or all of one head), and those of the second half. */
static struct strips strips_of(const struct model *m, int64_t first, int64_t second)
{
    int64_t half = m->c.heads / 2, share = m->c.heads / m->c.kv_heads;
    int64_t a = half / share, b = (half + share - 1) / share, both = first > second ? first : second;
    const struct strip all[STRIPS] = { { first, 0, a }, { both, a, b - a },
                                       { second, b, m->c.kv_heads - b } };
    struct strips s = { 0 };

    for (int i = 0; i < STRIPS; i++)
        if (all[i].rows > 0 && all[i].heads > 0)
            s.at[s.n++] = all[i];
    return s;
}

struct strips strips_over(const struct model *m, const struct op_segments half[2], int64_t border)
{
    return strips_of(m, reach(&half[0], border), reach(&half[1], border));
}

static int64_t strips_rows(const struct strips *s)
{
    int64_t most = 0;

    for (int i = 0; i < s->n; i++)
        most = s->at[i].rows > most ? s->at[i].rows : most;
    return most;
}

/* Bytes of the keys and values of strips. */
static size_t strips_bytes(const struct model *m, const struct strips *s)
{
    int64_t n = 0;

    for (int i = 0; i < s->n; i++)
        n += s->at[i].rows * s->at[i].heads;
    return (size_t)(2 * n * m->c.head_dim) * dtype_bytes(m->d->act);
}

/* In groups of S2-Attn: how far those of both halves reach over a border. */
static void group_reach(const struct model_options *o, int64_t border, int64_t to[2])
{
    int64_t g = o->attention_span, shift = g / 2;

    to[0] = border % g;
    to[1] = border < shift ? border : (border - shift) % g;
}

int64_t spread_halo(const struct model_options *o)
{
    int64_t most = 0, size = line_size(o), to[2];

    if (size == 1 || o->attention_span < 2 || o->attention_span >= o->ctx)
        return 0;
    for (int64_t r = 1; r < size; r++) {
        group_reach(o, first_row(o->ctx, size, r), to);
        most = to[0] > most ? to[0] : most;
        most = to[1] > most ? to[1] : most;
    }
    return most <= o->ctx / size ? most : 0;
}

/* Documents only cut segments shorter. */
size_t spread_flat_bytes(const struct model *m)
{
    int64_t size = line_size(&m->o), to[2];
    size_t most = 0;

    for (int64_t r = 1; r < size && m->halo; r++) {
        struct strips s;
        size_t n;

        group_reach(&m->o, first_row(m->o.ctx, size, r), to);
        s = strips_of(m, to[0], to[1]);
        n = strips_bytes(m, &s);
        most = n > most ? n : most;
    }
    return most;
}

void segments_part(const struct op_segments *s, int64_t from, int64_t to, int64_t keys,
                   int64_t keys_to, int64_t *at, struct op_segments *part)
{
    int64_t *cu = at, *kv = cu + s->n + 2, *first = kv + s->n + 2, n = 0;
    int64_t i = segment_at(s->cu, s->n, from), begin = s->cu[i] > keys ? s->cu[i] : keys;

    cu[0] = kv[0] = 0;
    if (begin > keys) { /* keys of no use to this list */
        cu[1] = 0, kv[1] = begin - keys, first[0] = 0;
        n = 1;
    }
    for (; i < s->n && s->cu[i] < to; i++, n++) {
        int64_t q = s->cu[i] > from ? s->cu[i] : from, k = s->cu[i] > keys ? s->cu[i] : keys;
        int64_t end = s->cu[i + 1];

        cu[n + 1] = (end < to ? end : to) - from;
        kv[n + 1] = (end < keys_to ? end : keys_to) - keys;
        first[n] = q - k;
    }
    kv[n] = keys_to - keys;
    *part = (struct op_segments){ n, cu, kv, first };
}

int spread_open(struct model *m, struct err *e)
{
    if (line_size(&m->o) == 1)
        return 0;
    if (!m->o.line || m->o.line->size != m->o.cp)
        return err_set(e, E_BUG, "a sequence over %lld ranks, and no line of so many",
                       (long long)m->o.cp);
    if (!(m->spread = calloc(1, sizeof *m->spread)))
        return err_set(e, E_SYS, "out of memory");
    line_open(&m->spread->line, m->d, m->o.line);
    return turn_open(m, e);
}

void spread_close(struct model *m)
{
    struct spread *p = m->spread;

    if (!p)
        return;
    line_close(&p->line);
    turn_close(p->turn);
    free(p->lists[0]);
    free(p->lists[1]);
    free(p);
    m->spread = NULL;
}

static int make_list(struct spread *p, int h, const struct op_segments *s, struct err *e)
{
    int64_t n = 3 * (s->n + 2), *at;

    if (n > p->cap[h]) {
        if (!(at = realloc(p->lists[h], (size_t)n * sizeof *at)))
            return err_set(e, E_SYS, "out of memory for %lld segments", (long long)s->n);
        p->lists[h] = at;
        p->cap[h] = n;
    }
    segments_part(s, p->first, p->first + p->rows, p->first - p->halo, p->first + p->rows,
                  p->lists[h], &p->list[h]);
    return 0;
}

/* Every border is looked at on all ranks: all go one way. */
static bool by_neighbours(const struct model *m, const struct batch *b)
{
    int64_t size = line_size(&m->o);

    for (int64_t r = 1; r < size; r++) {
        int64_t border = first_row(b->len, size, r), before = first_row(b->len, size, r - 1);
        struct strips s = strips_over(m, b->seg->half, border);
        int64_t rows = strips_rows(&s);

        if (rows > m->halo || rows > border - before || strips_bytes(m, &s) > m->flat_bytes)
            return false;
    }
    return true;
}

int spread_begin(struct model *m, const struct batch *b, struct span *sp, struct err *e)
{
    struct spread *p = m->spread;
    int64_t size = line_size(&m->o), rank = p->line.g->rank;
    int rc = 0;

    if (b->n_seqs != 1 || b->len < size)
        return err_set(e, E_CONFIG, "%lld sequences of %lld tokens cannot lie over %lld ranks",
                       (long long)b->n_seqs, (long long)b->len, (long long)size);
    p->whole = b->len;
    p->first = first_row(b->len, size, rank);
    p->rows = first_row(b->len, size, rank + 1) - p->first;
    p->turned = !by_neighbours(m, b);
    p->in.n = p->out.n = 0;
    p->halo = 0;
    p->k = p->v = NULL;
    if (!p->turned) {
        if (rank > 0)
            p->in = strips_over(m, b->seg->half, p->first);
        if (rank + 1 < size)
            p->out = strips_over(m, b->seg->half, p->first + p->rows);
        p->halo = strips_rows(&p->in);
        for (int h = 0; h < 2 && rc == 0; h++)
            rc = make_list(p, h, &b->seg->half[h], e);
    } else {
        rc = turn_begin(m, b, e);
    }
    sp->first = p->first, sp->rows = sp->len = p->rows;
    return rc;
}

/* Strips of keys and values that end at row 'end' of both arrays, to or from one flat array. */
static void carry(struct model *m, const struct strips *s, void *k, void *v, int64_t end,
                  void *flat, bool out, bool add)
{
    int64_t dim = m->c.head_dim, ld = kv_dim(m);
    void *array[2] = { k, v };

    for (int i = 0; i < s->n; i++)
        for (int j = 0; j < 2; j++) {
            int64_t n = s->at[i].rows, cols = s->at[i].heads * dim;
            void *x = act_at(m, array[j], (end - n) * ld + s->at[i].head * dim);

            OP(m, strip, .rows = n, .cols = cols, .x_ld = out ? ld : cols, .y_ld = out ? cols : ld,
               .add = add, .x = out ? x : flat, .y = out ? flat : x);
            flat = act_at(m, flat, n * cols);
        }
}

static void pass(struct model *m, int step, const struct strips *out, const struct strips *in)
{
    struct spread *p = m->spread;
    int rc = line_pass(&p->line, m->rc == 0, step, m->work.flat[0], strips_bytes(m, out),
                       m->work.flat[1], strips_bytes(m, in));

    m->rc = m->rc < 0 ? m->rc : rc;
    p->came = p->line.begun;
}

void spread_wait(struct model *m, int64_t n)
{
    int rc = line_wait(&m->spread->line, n);

    m->rc = m->rc < 0 ? m->rc : rc;
}

void spread_keys(struct model *m, void *k, void *v, bool again)
{
    struct spread *p = m->spread;

    if (p->turned) {
        turn_keys(m, k, v, again);
        return;
    }
    carry(m, &p->out, k, v, p->rows, m->work.flat[0], true, false);
    pass(m, 1, &p->out, &p->in);
    p->k = k, p->v = v;
    offload_ahead(m);
}

void spread_queries(struct model *m, const struct op_attention *a, bool again)
{
    if (m->spread->turned)
        turn_queries(m, a, again);
}

/* What came to lie in front of keys and values, if anything. */
static void put_front(struct model *m)
{
    struct spread *p = m->spread;

    if (!p->k)
        return;
    spread_wait(m, p->came);
    carry(m, &p->in, p->k, p->v, 0, m->work.flat[1], false, false);
    p->k = p->v = NULL;
}

/* The same with the keys in front. */
static struct op_attention with_front(const struct model *m, const struct op_attention *own)
{
    const struct spread *p = m->spread;
    struct op_attention a = *own;
    int64_t n = p->halo * kv_dim(m);

    a.seg[0] = p->list[0], a.seg[1] = p->list[1];
    a.kv_rows = p->halo + p->rows;
    a.k = act_at(m, (void *)(uintptr_t)a.k, -n);
    a.v = act_at(m, (void *)(uintptr_t)a.v, -n);
    return a;
}

void spread_forward(struct model *m, const struct op_attention *own)
{
    struct op_attention a = with_front(m, own);

    if (m->spread->turned) {
        turn_forward(m, own);
        return;
    }
    put_front(m);
    if (m->rc == 0)
        m->rc = m->d->attention(m->d, &a);
}

/* The gradients of what is in front go back to whom it belongs. */
void spread_back(struct model *m, const struct op_attention_back *own)
{
    struct spread *p = m->spread;
    struct op_attention_back a = *own;

    if (p->turned) {
        turn_back(m, own);
        return;
    }
    put_front(m);
    a.fwd = with_front(m, &own->fwd);
    a.dk = act_at(m, own->dk, -p->halo * kv_dim(m));
    a.dv = act_at(m, own->dv, -p->halo * kv_dim(m));
    if (m->rc == 0)
        m->rc = m->d->attention_back(m->d, &a);
    carry(m, &p->in, own->dk, own->dv, 0, m->work.flat[0], true, false);
    pass(m, -1, &p->in, &p->out);
}

/* And own ones come. */
void spread_keys_back(struct model *m, const struct op_attention_back *own)
{
    struct spread *p = m->spread;

    if (p->turned) {
        turn_keys_back(m, own);
        return;
    }
    spread_wait(m, p->came);
    carry(m, &p->out, own->dk, own->dv, p->rows, m->work.flat[1], false, true);
}

int line_settled(struct model *m, struct line *l, int rc, struct err *e)
{
    int failed = line_failed(l, NULL);

    if (rc < 0 && m->d->links) {
        group_leave(l->g, rc);
        group_leave(m->d->group, rc);
    }
    if (rc < 0 || failed == 0)
        return rc;
    return line_failed(l, e);
}

struct spread_traffic spread_traffic(const struct model *m, bool dense)
{
    double size = (double)line_size(&m->o), flat = (double)spread_flat_bytes(m);
    double turned = turn_bytes(m) * (size - 1) / size;

    if (size < 2)
        return (struct spread_traffic){ 0 };
    if (dense || m->halo == 0)
        return (struct spread_traffic){ turned, 2 * turned, turned, 0, turn_bare(m) };
    return (struct spread_traffic){ flat, flat, flat, flat, 0 };
}

/* Lists of S2-Attn without documents, part by part. */
double spread_slowest(const struct model *m, bool dense)
{
    int64_t size = line_size(&m->o), ctx = m->o.ctx, n;
    struct op_attention a = { .heads = 2, .kv_heads = 2, .dim = 1, .window = m->c.window };
    struct segments s = { 0 };
    double most = 0, all = 0;
    int64_t *at = NULL;

    if (size < 2 || dense || m->halo == 0 ||
        segments_build(&s, ATTN_S2, 1, ctx, m->o.attention_span, NULL, 0, NULL) < 0)
        return 1;
    n = 3 * (s.half[1].n + 3);
    at = malloc((size_t)(2 * n) * sizeof *at);
    for (int64_t r = 0; r < size && at; r++) {
        int64_t from = first_row(ctx, size, r), to = first_row(ctx, size, r + 1);
        double pairs;

        for (int h = 0; h < 2; h++)
            segments_part(&s.half[h], from, to, from - (from < m->halo ? from : m->halo), to,
                          at + h * n, &a.seg[h]);
        pairs = attention_pairs(&a);
        all += pairs;
        most = pairs > most ? pairs : most;
    }
    free(at);
    segments_free(&s);
    return all > 0 ? most * (double)size / all : 1;
}
