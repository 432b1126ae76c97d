/* model/turn.c - attention over a whole sequence that lies over several ranks; see spread.h. */
#include "model/spread.h"

#include <stdlib.h>

/*
 * Where attention reaches over many ranks, arrays are turned: instead of some rows of all heads a
 * rank gets all rows of some heads, computes their attention as a single process would, and gives
 * the result back (DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv:2309.14509). Every rank has as much
 * to do. There are as many sets of heads as divide both the ranks and the key heads:
 *
 *     8 ranks, 8 key heads    8 sets: each rank has one key head and all queries of it
 *     8 ranks, 2 key heads    2 sets: four ranks share a set. Each has all its keys, and a part of
 *                             the queries: of 8 chunks one from the front and its mirror image
 *                             from the back, so that they see as many keys together
 *     3 ranks, 4 key heads    1 set: all keys reach all ranks
 *
 * The first rows of a chunk come from the rank that has them; what a rank is sent lands in the order
 * of rows. lse stays turned: only the backward reads it.
 */
struct turn {
    int64_t set, part;             /* of this rank */
    size_t *n;                     /* [size * size] bytes of an exchange */
    const void **out;
    void **in;
    int64_t *list[2][2], cap[2][2]; /* of chunk and half */
    struct op_segments seg[2][2];
    bool fresh;                    /* q, k, v and o are still those of the last forward */
};

#define OP(m, name, ...)                                                \
    do {                                                                \
        if ((m)->rc == 0)                                               \
            (m)->rc = (m)->d->name((m)->d, &(struct op_##name){ __VA_ARGS__ }); \
    } while (0)

/* ---- sizes ---- */

static int64_t common(int64_t a, int64_t b) { return b ? common(b, a % b) : a; }

/* Sets of heads. Halves of the heads with lists of their own must not share one, unless it has
 * all. */
static int64_t sets_of(const struct model *m)
{
    int64_t n = common(line_size(&m->o), m->c.kv_heads);
    bool halves = m->halo == 0 && m->o.attention_span > 1 && m->o.attention_span < m->o.ctx;

    return n % 2 && halves ? 1 : n;
}

static int64_t parts_of(const struct model *m) { return line_size(&m->o) / sets_of(m); }
static int64_t q_cols(const struct model *m) { return q_dim(m) / sets_of(m); }
static int64_t kv_cols(const struct model *m) { return kv_dim(m) / sets_of(m); }

/* The most rows of queries that a rank gets: two chunks, each a row more than the shortest. */
static int64_t most_queries(const struct model *m)
{
    int64_t parts = parts_of(m);

    return parts == 1 ? m->o.ctx : 2 * ((m->o.ctx + 2 * parts - 1) / (2 * parts));
}

bool turn_planned(const struct model *m)
{
    return line_size(&m->o) > 1 && (m->halo == 0 || m->o.spans_ctx || m->o.dense_share > 0 ||
                                    m->o.mode == TRAIN_NONE);
}

size_t turn_flat_bytes(const struct model *m)
{
    int64_t rows = model_rows(&m->o), q = rows * q_dim(m), kv = rows * kv_dim(m) * parts_of(m);

    return turn_planned(m) ? (size_t)(q > kv ? q : kv) * dtype_bytes(m->d->act) : 0;
}

double turn_bytes(const struct model *m)
{
    double rows = (double)model_rows(&m->o), keys = (double)(kv_dim(m) * parts_of(m));

    return 2 * rows * ((double)q_dim(m) + keys) * (double)dtype_bytes(m->d->act);
}

size_t turn_scratch_bytes(const struct model *m)
{
    int64_t sets = sets_of(m), rows = parts_of(m) > 1 ? m->o.ctx : most_queries(m);

    /* cuDNN may want it by the keys */
    return turn_planned(m) ? m->d->attention_scratch_bytes(m->d, rows, m->c.heads / sets,
                                                           m->c.kv_heads / sets, m->c.head_dim)
                           : 0;
}

void turn_lay(struct model *m, void *take(struct model *m, int64_t rows, int64_t cols))
{
    struct turned *t = &m->work.turned;
    bool back = m->o.mode != TRAIN_NONE;

    *t = (struct turned){ 0 };
    if (!turn_planned(m))
        return;
    t->q = take(m, most_queries(m), q_cols(m));
    t->o = take(m, most_queries(m), q_cols(m));
    t->k = take(m, m->o.ctx, kv_cols(m));
    t->v = take(m, m->o.ctx, kv_cols(m));
    if (!back)
        return;
    t->d_o = take(m, most_queries(m), q_cols(m));
    t->dq = take(m, most_queries(m), q_cols(m));
    for (int i = 0; i < (parts_of(m) > 1 ? 2 : 1); i++) {
        t->dk[i] = take(m, m->o.ctx, kv_cols(m));
        t->dv[i] = take(m, m->o.ctx, kv_cols(m));
    }
}

/* ---- who has what ---- */

struct run { /* rows [from, to) of the sequence */
    int64_t from, to;
};
static int64_t run_n(struct run r) { return r.to > r.from ? r.to - r.from : 0; }

static struct run nth(int64_t whole, int64_t size, int64_t i)
{
    struct group who = { .rank = (int)i, .size = (int)size };
    struct run r;

    group_part(&who, whole, &r.from, &r.to);
    return r;
}

static struct run rows_of(const struct model *m, int64_t rank)
{
    return nth(m->spread->whole, line_size(&m->o), rank);
}

/* The queries of a rank: chunk 0 or 1 of them. */
static struct run queries_of(const struct model *m, int64_t rank, int chunk)
{
    int64_t parts = parts_of(m), part = rank % parts;

    if (parts == 1)
        return chunk ? (struct run){ 0, 0 } : (struct run){ 0, m->spread->whole };
    return nth(m->spread->whole, 2 * parts, chunk ? 2 * parts - 1 - part : part);
}

static int chunks(const struct model *m) { return parts_of(m) > 1 ? 2 : 1; }

static struct run both(struct run a, struct run b)
{
    struct run r = { a.from > b.from ? a.from : b.from, a.to < b.to ? a.to : b.to };

    return r.to > r.from ? r : (struct run){ a.from, a.from };
}

/* Of rank i's rows those that rank j computes with: queries of a chunk, or (chunk < 0) keys. */
static struct run shared(const struct model *m, int64_t i, int64_t j, int chunk)
{
    return chunk < 0 ? rows_of(m, i) : both(rows_of(m, i), queries_of(m, j, chunk));
}

/* ---- there and back ---- */

/* Bytes from i to j; of the way back, from j to i. */
static void count_bytes(struct model *m, int64_t cols, int chunk, bool back)
{
    int64_t size = line_size(&m->o);
    size_t row = (size_t)cols * dtype_bytes(m->d->act);

    for (int64_t i = 0; i < size; i++)
        for (int64_t j = 0; j < size; j++)
            m->spread->turn->n[back ? j * size + i : i * size + j] =
                (size_t)run_n(shared(m, i, j, chunk)) * row;
}

static void exchange(struct model *m)
{
    struct turn *t = m->spread->turn;
    int rc = line_turn(&m->spread->line, m->rc == 0, t->out, t->in, t->n);

    m->rc = m->rc < 0 ? m->rc : rc;
}

/* Own rows of x, all heads, to those who compute with them; theirs to 'to', in the order of rows. */
static void turn(struct model *m, const void *x, int64_t ld, int64_t cols, int chunk, void *to)
{
    struct spread *p = m->spread;
    int64_t size = line_size(&m->o), me = p->line.g->rank;
    void *flat = m->work.flat[0];

    count_bytes(m, cols, chunk, false);
    for (int64_t j = 0; j < size; j++) {
        struct run r = shared(m, me, j, chunk);
        int64_t set = j / parts_of(m);

        p->turn->out[j] = flat;
        OP(m, strip, .rows = run_n(r), .cols = cols, .x_ld = ld, .y_ld = cols,
           .x = act_at(m, (void *)(uintptr_t)x, (r.from - p->first) * ld + set * cols), .y = flat);
        flat = act_at(m, flat, run_n(r) * cols);
    }
    for (int64_t i = 0; i < size; i++) {
        p->turn->in[i] = to;
        to = act_at(m, to, run_n(shared(m, i, me, chunk)) * cols);
    }
    exchange(m);
}

/* And back: what ranks have computed of own rows. Of keys several may have a part of the sum. */
static void turn_back(struct model *m, const void *from, int64_t cols, int chunk, void *x, int64_t ld)
{
    struct spread *p = m->spread;
    int64_t size = line_size(&m->o), me = p->line.g->rank;
    void *flat = m->work.flat[1];

    count_bytes(m, cols, chunk, true);
    for (int64_t i = 0; i < size; i++) {
        p->turn->out[i] = from;
        from = act_at(m, (void *)(uintptr_t)from, run_n(shared(m, i, me, chunk)) * cols);
    }
    for (int64_t j = 0; j < size; j++) {
        p->turn->in[j] = flat;
        flat = act_at(m, flat, run_n(shared(m, me, j, chunk)) * cols);
    }
    exchange(m);
    for (int64_t j = 0; j < size; j++) {
        struct run r = shared(m, me, j, chunk);
        int64_t set = j / parts_of(m), part = j % parts_of(m);

        OP(m, strip, .rows = run_n(r), .cols = cols, .x_ld = cols, .y_ld = ld,
           .add = chunk < 0 && part > 0, .x = p->turn->in[j],
           .y = act_at(m, x, (r.from - p->first) * ld + set * cols));
    }
}

/* Arrays of queries, in both chunks one behind the other. */
static void *chunk_at(const struct model *m, void *x, int chunk)
{
    int64_t rows = chunk ? run_n(queries_of(m, m->spread->line.g->rank, 0)) : 0;

    return act_at(m, x, rows * q_cols(m));
}

static void turn_queries(struct model *m, const void *x, void *to)
{
    for (int i = 0; i < chunks(m); i++)
        turn(m, x, q_dim(m), q_cols(m), i, chunk_at(m, to, i));
}

static void turn_queries_back(struct model *m, void *from, void *x)
{
    for (int i = 0; i < chunks(m); i++)
        turn_back(m, chunk_at(m, from, i), q_cols(m), i, x, q_dim(m));
}

/* ---- attention ---- */

/* The op of a chunk: its queries, and the keys up to the last of them. */
static struct op_attention chunk_of(const struct model *m, const struct op_attention *own, int chunk)
{
    const struct turned *w = &m->work.turned;
    const struct turn *t = m->spread->turn;
    int64_t sets = sets_of(m), rank = m->spread->line.g->rank;
    struct run q = queries_of(m, rank, chunk);
    int64_t before = chunk ? run_n(queries_of(m, rank, 0)) : 0;
    struct op_attention a = *own;

    a.q_rows = run_n(q), a.kv_rows = q.to;
    a.heads /= sets, a.kv_heads /= sets, a.q_ld = q_cols(m), a.kv_ld = kv_cols(m);
    a.q = chunk_at(m, w->q, chunk), a.k = w->k, a.v = w->v;
    a.o = chunk_at(m, w->o, chunk);
    a.lse = own->lse + before * a.heads;
    a.seg[0] = t->seg[chunk][0], a.seg[1] = t->seg[chunk][1];
    return a;
}

void turn_forward(struct model *m, const struct op_attention *own)
{
    struct turned *w = &m->work.turned;

    turn_queries(m, own->q, w->q);
    turn(m, own->k, kv_dim(m), kv_cols(m), -1, w->k);
    turn(m, own->v, kv_dim(m), kv_cols(m), -1, w->v);
    for (int i = 0; i < chunks(m); i++) {
        struct op_attention a = chunk_of(m, own, i);

        if (m->rc == 0 && a.q_rows)
            m->rc = m->d->attention(m->d, &a);
    }
    turn_queries_back(m, w->o, own->o);
    m->spread->turn->fresh = true;
}

/* The second chunk sees the most keys: its gradients are there first, and those of the first chunk
 * are added to the keys that it sees. */
static void chunks_back(struct model *m, const struct op_attention_back *own)
{
    struct turned *w = &m->work.turned;
    int last = chunks(m) - 1;

    for (int i = last; i >= 0; i--) {
        struct op_attention_back a = { .fwd = chunk_of(m, &own->fwd, i), .scratch = own->scratch,
                                       .d_o = chunk_at(m, w->d_o, i), .dq = chunk_at(m, w->dq, i),
                                       .dk = w->dk[last - i], .dv = w->dv[last - i] };
        int64_t n = a.fwd.kv_rows * kv_cols(m), rest = m->spread->whole * kv_cols(m) - n;
        size_t each = dtype_bytes(m->d->act);

        if (i == last && rest > 0 && m->rc == 0 &&
            (m->rc = m->d->zero(m->d, act_at(m, a.dk, n), (size_t)rest * each)) == 0)
            m->rc = m->d->zero(m->d, act_at(m, a.dv, n), (size_t)rest * each);
        if (m->rc == 0 && a.fwd.q_rows)
            m->rc = m->d->attention_back(m->d, &a);
        if (i < last && a.fwd.q_rows) {
            OP(m, add, .n = n, .x = a.dk, .y = w->dk[0]);
            OP(m, add, .n = n, .x = a.dv, .y = w->dv[0]);
        }
    }
}

void turn_backward(struct model *m, const struct op_attention_back *own)
{
    struct turned *w = &m->work.turned;

    if (!m->spread->turn->fresh) {
        turn_queries(m, own->fwd.q, w->q);
        turn(m, own->fwd.k, kv_dim(m), kv_cols(m), -1, w->k);
        turn(m, own->fwd.v, kv_dim(m), kv_cols(m), -1, w->v);
        turn_queries(m, own->fwd.o, w->o);
    }
    m->spread->turn->fresh = false;
    turn_queries(m, own->d_o, w->d_o);
    chunks_back(m, own);
    turn_queries_back(m, w->dq, own->dq);
    turn_back(m, w->dk[0], kv_cols(m), -1, own->dk, kv_dim(m));
    turn_back(m, w->dv[0], kv_cols(m), -1, own->dv, kv_dim(m));
}

/* ---- opening ---- */

int turn_open(struct model *m, struct err *e)
{
    size_t size = (size_t)line_size(&m->o);
    struct turn *t = calloc(1, sizeof *t);

    m->spread->turn = t;
    if (t) {
        t->n = calloc(size * size, sizeof *t->n);
        t->out = calloc(size, sizeof *t->out);
        t->in = calloc(size, sizeof *t->in);
    }
    if (!t || !t->n || !t->out || !t->in)
        return err_set(e, E_SYS, "out of memory for %zu ranks", size);
    t->set = m->o.line->rank / parts_of(m);
    t->part = m->o.line->rank % parts_of(m);
    return 0;
}

void turn_close(struct turn *t)
{
    if (!t)
        return;
    free(t->n);
    free(t->out);
    free(t->in);
    for (int i = 0; i < 4; i++)
        free(t->list[i / 2][i % 2]);
    free(t);
}

/* The list of a chunk's queries: the whole one where they are all. */
static int chunk_list(struct model *m, int chunk, int half, const struct op_segments *s,
                      struct err *e)
{
    struct turn *t = m->spread->turn;
    struct run q = queries_of(m, m->spread->line.g->rank, chunk);
    int64_t n = 3 * (s->n + 2), *at;

    if (parts_of(m) == 1) {
        t->seg[chunk][half] = *s;
        return 0;
    }
    if (n > t->cap[chunk][half]) {
        if (!(at = realloc(t->list[chunk][half], (size_t)n * sizeof *at)))
            return err_set(e, E_SYS, "out of memory for %lld segments", (long long)s->n);
        t->list[chunk][half] = at;
        t->cap[chunk][half] = n;
    }
    if (run_n(q))
        segments_part(s, q.from, q.to, 0, q.to, t->list[chunk][half], &t->seg[chunk][half]);
    return 0;
}

static bool same_lists(const struct op_segments half[2])
{
    bool same = half[0].n == half[1].n;

    for (int64_t i = 0; same && i <= half[0].n; i++)
        same = half[0].cu[i] == half[1].cu[i];
    return same;
}

int turn_begin(struct model *m, const struct batch *b, struct err *e)
{
    const struct op_segments *half = b->seg->half;
    int64_t sets = sets_of(m);
    int rc = 0;

    if (!turn_planned(m))
        return err_set(e, E_CONFIG, "attention reaches further than from one rank into the next, "
                       "for which there is no room");
    if (sets % 2 && sets > 1 && !same_lists(half))
        return err_set(e, E_CONFIG, "groups that reach further than from one rank into the next, on "
                       "%lld sets of heads", (long long)sets);
    m->spread->turn->fresh = false;
    for (int i = 0; i < chunks(m) && rc == 0; i++)
        for (int h = 0; h < 2 && rc == 0; h++) {
            int of = sets == 1 ? h : m->spread->turn->set < sets / 2 ? 0 : 1;

            rc = chunk_list(m, i, h, &half[of], e);
        }
    return rc;
}
