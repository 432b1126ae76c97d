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
 *
 * A set is taken in bands of its heads, one after the other: while attention computes one, the next is
 * on its way here and the last one's result on its way back. Arrays hold band after band, each
 * [rows][heads of a band]. On the links, forwards, of bands 0 to 3:
 *
 *     k0 v0 k1 v1 ...   beside the product of q        q0            beside nothing
 *     q1 q2 q3          beside attention of band 0     o0 o1 o2      beside that of bands 1 to 3
 *     o3                beside nothing
 *
 * and backwards q, k, v and o where they are not here any more, beside the MLP's backward; d_o0 beside
 * nothing, d_o1 to 3 beside attention's; dq, dk and dv of a band beside that of the next; of the
 * last one dq beside nothing, dk and dv beside the product of dq.
 */
enum { BANDS = 4, FLAT_Q = 0, FLAT_K, FLAT_V, FLAT_O, FLAT_D_O };
struct turn {
    int64_t set, part;             /* of this rank */
    size_t *n;                     /* [size * size] bytes of an exchange */
    const void **out;
    void **in;
    int64_t *list[2][2], cap[2][2]; /* of chunk and half */
    struct op_segments seg[2][2];
    bool fresh;                    /* q, k, v and o of the last forward are here, or on their way */
    int64_t came[BANDS];           /* of a band: with that exchange of the line, */
    int64_t keys_came[BANDS];      /* and its dk and dv */
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

/* Of one set with two lists a band has heads of one half. */
static int64_t bands_of(const struct model *m)
{
    int64_t keys = m->c.kv_heads / sets_of(m);

    return keys % 4 == 0 ? 4 : keys % 2 == 0 ? 2 : 1;
}

/* Columns of a band. */
static int64_t q_cols(const struct model *m) { return q_dim(m) / sets_of(m) / bands_of(m); }
static int64_t kv_cols(const struct model *m) { return kv_dim(m) / sets_of(m) / bands_of(m); }

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

double turn_bytes(const struct model *m)
{
    double rows = (double)model_rows(&m->o), keys = (double)(kv_dim(m) * parts_of(m));

    return 2 * rows * ((double)q_dim(m) + keys) * (double)dtype_bytes(m->d->act);
}

/* Of q, k, v and o of a layer the first band of q and the last of o, as of their gradients. */
double turn_bare(const struct model *m)
{
    double q = (double)q_dim(m), keys = (double)(kv_dim(m) * parts_of(m));

    return q / (q + keys) / (double)bands_of(m);
}

size_t turn_scratch_bytes(const struct model *m)
{
    int64_t sets = sets_of(m) * bands_of(m), rows = parts_of(m) > 1 ? m->o.ctx : most_queries(m);

    /* cuDNN may want it by the keys */
    return turn_planned(m) ? m->d->attention_scratch_bytes(m->d, rows, m->c.heads / sets,
                                                           m->c.kv_heads / sets, m->c.head_dim)
                           : 0;
}

void turn_lay(struct model *m, void *take(struct model *m, int64_t rows, int64_t cols))
{
    struct turned *t = &m->work.turned;
    int64_t rows = model_rows(&m->o), sets = sets_of(m), q = q_dim(m) / sets, kv = kv_dim(m) / sets;
    bool back = m->o.mode != TRAIN_NONE;

    *t = (struct turned){ 0 };
    if (!turn_planned(m))
        return;
    t->q = take(m, most_queries(m), q);
    t->o = take(m, most_queries(m), q);
    t->k = take(m, m->o.ctx, kv);
    t->v = take(m, m->o.ctx, kv);
    for (int i = FLAT_Q; i <= FLAT_D_O - !back; i++)
        t->flat[i] = i == FLAT_K || i == FLAT_V ? take(m, rows * parts_of(m), kv_dim(m))
                                                : take(m, rows, q_dim(m));
    if (!back)
        return;
    t->d_o = take(m, most_queries(m), q);
    t->dq = take(m, most_queries(m), q);
    for (int i = 0; i < (parts_of(m) > 1 ? 2 : 1); i++) {
        t->dk[i] = take(m, m->o.ctx, kv);
        t->dv[i] = take(m, m->o.ctx, kv);
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

/* One of the arrays, and where own rows of it lie on their way: of what kind, in which order. */
struct way {
    void *own;          /* [rows][ld] of this rank */
    void *turned;       /* of all rows, by bands */
    int flat;           /* FLAT_ */
    bool keys;
};

static int64_t cols_of(const struct model *m, bool keys) { return keys ? kv_cols(m) : q_cols(m); }

/* A band's own rows on their way; of queries those of chunk 1 behind those of chunk 0. */
static void *flat_at(const struct model *m, const struct way *w, int64_t band, int chunk)
{
    int64_t size = line_size(&m->o), me = m->spread->line.g->rank, before = 0;
    int64_t copies = w->keys ? parts_of(m) : 1; /* of a row: to all ranks of a set */
    int64_t all = model_rows(&m->o) * copies * sets_of(m);

    for (int64_t j = 0; j < size && chunk > 0; j++)
        before += run_n(shared(m, me, j, 0));
    return act_at(m, m->work.turned.flat[w->flat], (band * all + before) * cols_of(m, w->keys));
}

/* A band of an array of all rows, from a chunk's on. */
static void *turned_at(const struct model *m, void *x, bool keys, int64_t band, int chunk)
{
    int64_t rows = keys ? m->o.ctx : most_queries(m);
    int64_t before = chunk > 0 ? run_n(queries_of(m, m->spread->line.g->rank, 0)) : 0;

    return act_at(m, x, (band * rows + before) * cols_of(m, keys));
}

/* Where in own rows the band is that rank j computes with, of rows from 'from' on. */
static void *own_at(const struct model *m, const struct way *w, int64_t j, int64_t band, int64_t from)
{
    int64_t cols = cols_of(m, w->keys), ld = w->keys ? kv_dim(m) : q_dim(m);

    return act_at(m, w->own, (from - m->spread->first) * ld + (j / parts_of(m) * bands_of(m) + band) * cols);
}

/* A band's own rows to their way (out), or from it, where every rank of the line has a set of its own: in
 * one copy, in which the set is the head. False: ranks share sets. */
static bool copy_sets(struct model *m, const struct way *w, int64_t band, bool out)
{
    int64_t cols = cols_of(m, w->keys), rows = m->spread->rows, ld = w->keys ? kv_dim(m) : q_dim(m);
    void *own = own_at(m, w, 0, band, m->spread->first), *flat = flat_at(m, w, band, -1);

    if (parts_of(m) > 1)
        return false;
    if (out)
        OP(m, heads, .rows = rows, .heads = sets_of(m), .dim = cols, .x = own, .x_ld = ld,
           .x_stride = bands_of(m) * cols, .y = flat, .y_ld = cols, .y_stride = rows * cols);
    else
        OP(m, heads, .rows = rows, .heads = sets_of(m), .dim = cols, .x = flat, .x_ld = cols,
           .x_stride = rows * cols, .y = own, .y_ld = ld, .y_stride = bands_of(m) * cols);
    return true;
}

/* Own rows to those who compute with them, theirs to this rank, in the order of rows: begun. */
static void turn_chunk(struct model *m, const struct way *w, int64_t band, int chunk)
{
    struct spread *p = m->spread;
    int64_t size = line_size(&m->o), me = p->line.g->rank, cols = cols_of(m, w->keys);
    void *flat = flat_at(m, w, band, chunk), *to = turned_at(m, w->turned, w->keys, band, chunk);

    bool copied = copy_sets(m, w, band, true);

    count_bytes(m, cols, chunk, false);
    for (int64_t j = 0; j < size; j++) {
        struct run r = shared(m, me, j, chunk);

        p->turn->out[j] = flat;
        if (!copied)
            OP(m, strip, .rows = run_n(r), .cols = cols, .x_ld = w->keys ? kv_dim(m) : q_dim(m),
               .y_ld = cols, .x = own_at(m, w, j, band, r.from), .y = flat);
        flat = act_at(m, flat, run_n(r) * cols);
    }
    for (int64_t i = 0; i < size; i++) {
        p->turn->in[i] = to;
        to = act_at(m, to, run_n(shared(m, i, me, chunk)) * cols);
    }
    exchange(m);
}

/* The way back, begun: what this rank has computed, and of others what they have of own rows. */
static void turn_chunk_back(struct model *m, const struct way *w, int64_t band, int chunk)
{
    struct spread *p = m->spread;
    int64_t size = line_size(&m->o), me = p->line.g->rank, cols = cols_of(m, w->keys);
    void *flat = flat_at(m, w, band, chunk), *from = turned_at(m, w->turned, w->keys, band, chunk);

    count_bytes(m, cols, chunk, true);
    for (int64_t i = 0; i < size; i++) {
        p->turn->out[i] = from;
        from = act_at(m, from, run_n(shared(m, i, me, chunk)) * cols);
    }
    for (int64_t j = 0; j < size; j++) {
        p->turn->in[j] = flat;
        flat = act_at(m, flat, run_n(shared(m, me, j, chunk)) * cols);
    }
    exchange(m);
}

/* And to its place. Of keys several ranks may have a part of the sum. */
static void put_chunk(struct model *m, const struct way *w, int64_t band, int chunk)
{
    int64_t size = line_size(&m->o), me = m->spread->line.g->rank, cols = cols_of(m, w->keys);
    void *flat = flat_at(m, w, band, chunk);
    bool copied = copy_sets(m, w, band, false);

    for (int64_t j = 0; j < size && !copied; j++) {
        struct run r = shared(m, me, j, chunk);

        OP(m, strip, .rows = run_n(r), .cols = cols, .x_ld = cols, .y_ld = w->keys ? kv_dim(m) : q_dim(m),
           .add = w->keys && j % parts_of(m) > 0, .x = flat, .y = own_at(m, w, j, band, r.from));
        flat = act_at(m, flat, run_n(r) * cols);
    }
}

/* Of a band of all chunks. */
static void for_chunks(struct model *m, const struct way *w, int64_t band,
                       void go(struct model *m, const struct way *w, int64_t band, int chunk))
{
    if (w->keys)
        go(m, w, band, -1);
    for (int i = 0; i < chunks(m) && !w->keys; i++)
        go(m, w, band, i);
}

/* Of all bands, begun in their order; came: after which exchange each is here. */
static void turn_bands(struct model *m, const struct way *w)
{
    for (int64_t b = 0; b < bands_of(m); b++) {
        for_chunks(m, w, b, turn_chunk);
        m->spread->turn->came[b] = m->spread->line.begun;
    }
}

static void *plain(const void *x) { return (void *)(uintptr_t)x; }

/* ---- attention ---- */

void turn_keys(struct model *m, const void *k, const void *v, bool again)
{
    struct turned *w = &m->work.turned;
    const struct way keys = { plain(k), w->k, FLAT_K, true }, values = { plain(v), w->v, FLAT_V, true };

    if (again && m->spread->turn->fresh)
        return;
    for (int64_t b = 0; b < bands_of(m); b++) {
        turn_chunk(m, &keys, b, -1);
        turn_chunk(m, &values, b, -1);
    }
}

void turn_queries(struct model *m, const struct op_attention *own, bool again)
{
    struct turned *w = &m->work.turned;

    if (!again || !m->spread->turn->fresh)
        turn_bands(m, &(struct way){ plain(own->q), w->q, FLAT_Q, false });
    if (again && !m->spread->turn->fresh)
        turn_bands(m, &(struct way){ own->o, w->o, FLAT_O, false });
    m->spread->turn->fresh = true;
    offload_ahead(m);
}

/* The op of a band's chunk: its queries, and the keys up to the last of them. */
static struct op_attention chunk_of(const struct model *m, const struct op_attention *own, int64_t band,
                                    int chunk)
{
    const struct turned *w = &m->work.turned;
    const struct turn *t = m->spread->turn;
    int64_t sets = sets_of(m), bands = bands_of(m), rank = m->spread->line.g->rank;
    struct run q = queries_of(m, rank, chunk);
    int64_t before = chunk ? run_n(queries_of(m, rank, 0)) : 0;
    struct op_attention a = *own;
    /* a set has a list, but where all heads are one */
    int low = bands > 1 && band >= bands / 2, high = bands > 1 ? low : 1;

    a.q_rows = run_n(q), a.kv_rows = q.to;
    a.heads /= sets * bands, a.kv_heads /= sets * bands, a.q_ld = q_cols(m), a.kv_ld = kv_cols(m);
    a.q = turned_at(m, w->q, false, band, chunk), a.o = turned_at(m, w->o, false, band, chunk);
    a.k = turned_at(m, w->k, true, band, -1), a.v = turned_at(m, w->v, true, band, -1);
    a.lse = own->lse + (band * most_queries(m) + before) * a.heads;
    a.seg[0] = t->seg[chunk][low], a.seg[1] = t->seg[chunk][high];
    return a;
}

void turn_forward(struct model *m, const struct op_attention *own)
{
    struct turn *t = m->spread->turn;
    const struct way o = { own->o, m->work.turned.o, FLAT_O, false };

    for (int64_t b = 0; b < bands_of(m); b++) {
        spread_wait(m, t->came[b]);
        for (int i = 0; i < chunks(m); i++) {
            struct op_attention a = chunk_of(m, own, b, i);

            if (m->rc == 0 && a.q_rows)
                m->rc = m->d->attention(m->d, &a);
        }
        for_chunks(m, &o, b, turn_chunk_back);
        t->came[b] = m->spread->line.begun;
    }
    for (int64_t b = 0; b < bands_of(m); b++) {
        spread_wait(m, t->came[b]);
        for_chunks(m, &o, b, put_chunk);
    }
}

/* The second chunk sees the most keys: its gradients are there first, and those of the first chunk
 * are added to the keys that it sees. */
static void chunks_back(struct model *m, const struct op_attention_back *own, int64_t band)
{
    struct turned *w = &m->work.turned;
    int last = chunks(m) - 1;

    for (int i = last; i >= 0; i--) {
        struct op_attention_back a = { .fwd = chunk_of(m, &own->fwd, band, i), .scratch = own->scratch,
                                       .d_o = turned_at(m, w->d_o, false, band, i),
                                       .dq = turned_at(m, w->dq, false, band, i),
                                       .dk = turned_at(m, w->dk[last - i], true, band, -1),
                                       .dv = turned_at(m, w->dv[last - i], true, band, -1) };
        int64_t n = a.fwd.kv_rows * kv_cols(m), rest = m->spread->whole * kv_cols(m) - n;
        size_t each = dtype_bytes(m->d->act);

        if (i == last && rest > 0 && m->rc == 0 &&
            (m->rc = m->d->zero(m->d, act_at(m, a.dk, n), (size_t)rest * each)) == 0)
            m->rc = m->d->zero(m->d, act_at(m, a.dv, n), (size_t)rest * each);
        if (m->rc == 0 && a.fwd.q_rows)
            m->rc = m->d->attention_back(m->d, &a);
        if (i < last && a.fwd.q_rows) {
            OP(m, add, .n = n, .x = a.dk, .y = turned_at(m, w->dk[0], true, band, -1));
            OP(m, add, .n = n, .x = a.dv, .y = turned_at(m, w->dv[0], true, band, -1));
        }
    }
}

void turn_back(struct model *m, const struct op_attention_back *own)
{
    struct turned *w = &m->work.turned;
    struct turn *t = m->spread->turn;
    const struct way dq = { own->dq, w->dq, FLAT_Q, false }, dk = { own->dk, w->dk[0], FLAT_K, true },
                     dv = { own->dv, w->dv[0], FLAT_V, true };
    int64_t bands = bands_of(m), came[BANDS];

    turn_bands(m, &(struct way){ plain(own->d_o), w->d_o, FLAT_D_O, false });
    for (int64_t b = 0; b < bands; b++) {
        spread_wait(m, t->came[b]);
        chunks_back(m, own, b);
        for_chunks(m, &dq, b, turn_chunk_back);
        came[b] = m->spread->line.begun;
        turn_chunk_back(m, &dk, b, -1);
        turn_chunk_back(m, &dv, b, -1);
        t->keys_came[b] = m->spread->line.begun;
    }
    t->fresh = false;
    for (int64_t b = 0; b < bands; b++) {
        spread_wait(m, came[b]);
        for_chunks(m, &dq, b, put_chunk);
    }
}

void turn_keys_back(struct model *m, const struct op_attention_back *own)
{
    struct turned *w = &m->work.turned;
    const struct way dk = { own->dk, w->dk[0], FLAT_K, true }, dv = { own->dv, w->dv[0], FLAT_V, true };

    for (int64_t b = 0; b < bands_of(m); b++) {
        spread_wait(m, m->spread->turn->keys_came[b]);
        put_chunk(m, &dk, b, -1);
        put_chunk(m, &dv, b, -1);
    }
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
