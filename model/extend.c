/* model/extend.c - see extend.h. */
#include "model/extend.h"

#include "model/stages.h"
#include "model/rope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * A pass is one of two kinds. A run of tokens of one text is a segment whose keys are the rows that
 * the text has, and its own behind them. Single tokens of several texts go together, a row each: the
 * cache's rows are then cut in two segments a text, what no query sees and what its query does. Of
 * texts in 4 rows each, which keep 2 and 3 tokens:
 *
 *     queries  cu    0 0 1 1 2          rows 0 and 1 are of text 0, as new; of text 1 row 1
 *     keys     kv    0 0 4 4 8          a text that keeps a window begins later: 0 1 4 ...
 *              first 0 2 0 3
 */
struct lists {
    int64_t *cu, *kv, *first; /* of segments */
    int64_t *rows, *to, *at;  /* of pieces: ends of their rows, rows of the cache, positions */
    int32_t *ids;
};

static int check(const struct model *m, const struct extend *x, struct err *e)
{
    const struct cache_options *o = &m->o.cache;

    for (int64_t i = 0; i < x->n; i++) {
        const struct piece *p = &x->piece[i];
        int64_t has;

        if (!m->cache || p->n < 1 || p->seq < 0 || p->seq >= o->seqs ||
            (i && p->seq <= x->piece[i - 1].seq))
            return err_set(e, E_BUG, "%" PRId64 " tokens for text %" PRId64 " of %" PRId64, p->n,
                           p->seq, o->seqs);
        has = model_text_length(m, p->seq);
        if (!o->window && p->n > o->rows - has)
            return err_set(e, E_CONFIG, "cannot add %" PRId64 " tokens to %" PRId64 ": the session "
                           "was opened for %" PRId64, p->n, has, o->rows);
        for (int64_t k = 0; k < p->n; k++)
            if (p->ids[k] < 0 || p->ids[k] >= m->c.vocab)
                return err_set(e, E_DATA, "token id %d is outside the vocabulary of %" PRId64,
                               p->ids[k], m->c.vocab);
    }
    return 0;
}

/* RoPE's frequencies may depend on a text's length (dynamic, longrope). Keys that are kept stay as they
 * were turned, so they are those of a text that fills its room, from the first token on. */
static int64_t reach_of(const struct model *m)
{
    const struct cache_options *o = &m->o.cache;

    return o->window ? o->sinks + o->window : o->rows;
}

/* Logits of rows [from, to) of the pass to the host, LOGIT_ROWS at a time. */
static void give_logits(struct model *m, int64_t from, int64_t to, float *out)
{
    int64_t vocab = m->c.vocab;

    for (int64_t at = from, n; at < to && m->rc == 0; at += n, out += n * vocab) {
        n = to - at < LOGIT_ROWS ? to - at : LOGIT_ROWS;
        m->rc = m->d->gemm(m->d, &(struct op_gemm){ .trans_b = true, .m = n, .n = vocab,
            .k = m->c.dim, .alpha = 1, .a = act_at(m, m->work.h, at * m->c.dim), .lda = m->c.dim,
            .b = weight_mat(&m->top[ROLE_HEAD]), .ldb = m->c.dim, .c = m->work.logits,
            .ldc = vocab, .c_type = DT_F32, .varies = m->varies });
        step_cap(m, n * vocab, m->work.logits);
        if (m->rc == 0)
            m->rc = m->d->to_host(m->d, out, m->work.logits, (size_t)(n * vocab) * 4);
    }
}

/* Queues a pass and waits. logits of rows [from, span's), or NULL. */
static int pass(struct model *m, struct span *sp, const int32_t *ids, int64_t reach, int64_t from,
                float *logits, struct err *e)
{
    /* rows of any number come once each, few ones again and again */
    m->varies = sp->rows > LOGIT_ROWS && sp->rows != m->o.seqs * m->o.ctx;
    cache_now(m, sp->cached);
    step_forward(m, ids, reach, sp);
    if (logits && stage_is_last(m)) {
        step_norm(m, sp->rows);
        give_logits(m, from, sp->rows, logits);
    }
    return step_settled(m, e);
}

/* Tokens of one text in a run. */
static int run_pass(struct model *m, const struct piece *p, float *logits, bool all, struct err *e)
{
    int64_t cu[2] = { 0, p->n }, kv[2], before, to, base = p->seq * m->o.cache.rows;
    struct kept_text *t = cache_text(m, p->seq);
    struct cached c = { .n = 1, .cu = cu, .to = &to, .seq = p->seq, .at = t->n };
    struct span sp = { .rows = p->n, .len = p->n, .first = t->n, .cached = &c };
    int rc;

    step_frequencies(m, reach_of(m));
    m->rc = 0;
    cache_make_room(m, p->seq, p->n);
    if (m->rc < 0)
        return step_settled(m, e);
    to = base + t->end;
    before = t->end - t->first;
    c.row = base + t->first;
    c.rows = before + p->n;
    kv[0] = 0, kv[1] = c.rows;
    c.seg = (struct op_segments){ 1, cu, kv, &before };
    rc = pass(m, &sp, p->ids, reach_of(m), all ? 0 : p->n - 1, logits, e);
    if (rc == 0)
        t->n += p->n, t->end += p->n;
    return rc;
}

/* A piece, in runs of as many rows as the model computes at once. */
static int one_piece(struct model *m, const struct piece *p, float *logits, bool all, struct err *e)
{
    int64_t most = m->o.seqs * m->o.ctx;
    int rc = 0;

    if (m->o.cache.window && most > m->o.cache.window / 4)
        most = m->o.cache.window / 4 > 0 ? m->o.cache.window / 4 : 1;
    for (int64_t at = 0; at < p->n && rc == 0; at += most) {
        int64_t n = p->n - at < most ? p->n - at : most;
        struct piece part = { p->seq, n, p->ids + at };
        bool last = at + n == p->n;

        rc = run_pass(m, &part, !logits || (!all && !last) ? NULL : all ? logits + at * m->c.vocab : logits,
                      all, e);
    }
    return rc;
}

static int lists_open(struct lists *l, int64_t seqs, struct err *e)
{
    size_t n = (size_t)seqs + 1;

    l->cu = calloc(9 * n, sizeof *l->cu);
    l->ids = calloc(n, sizeof *l->ids);
    if (!l->cu || !l->ids)
        return err_set(e, E_SYS, "out of memory");
    l->kv = l->cu + 2 * n, l->first = l->kv + 2 * n, l->rows = l->first + 2 * n;
    l->to = l->rows + n, l->at = l->to + n;
    return 0;
}

static void lists_close(struct lists *l)
{
    free(l->cu);
    free(l->ids);
}

/* n pieces of one token, by the texts of all. */
static void fill(const struct model *m, const struct piece *p, int64_t n, struct lists *l)
{
    int64_t rows = m->o.cache.rows, row = 0;

    for (int64_t s = 0; s < m->o.cache.seqs; s++) {
        const struct kept_text *t = cache_text(m, s);

        l->cu[2 * s] = l->cu[2 * s + 1] = row;
        l->kv[2 * s] = s * rows;
        l->kv[2 * s + 1] = s * rows + t->first;
        l->first[2 * s] = 0;
        l->first[2 * s + 1] = t->end - t->first;
        if (row == n || p[row].seq != s)
            continue;
        l->ids[row] = p[row].ids[0];
        l->to[row] = s * rows + t->end;
        l->at[row] = t->n;
        l->rows[row] = row;
        row++;
    }
    l->rows[n] = n;
    l->cu[2 * m->o.cache.seqs] = n;
    l->kv[2 * m->o.cache.seqs] = m->o.cache.seqs * rows;
}

/* Single tokens of n texts, together. */
static int together(struct model *m, const struct piece *p, int64_t n, float *logits, struct err *e)
{
    struct cached c = { .rows = m->o.cache.seqs * m->o.cache.rows, .n = n };
    struct span sp = { .rows = n, .len = 1, .cached = &c };
    struct lists l = { 0 };
    int rc = lists_open(&l, m->o.cache.seqs, e);

    if (rc == 0) {
        fill(m, p, n, &l);
        c.seg = (struct op_segments){ 2 * m->o.cache.seqs, l.cu, l.kv, l.first };
        c.cu = l.rows, c.to = l.to, c.firsts = l.at;
        rc = pass(m, &sp, l.ids, reach_of(m), 0, logits, e);
    }
    for (int64_t i = 0; i < n && rc == 0; i++) {
        struct kept_text *t = cache_text(m, p[i].seq);
        t->n++, t->end++;
    }
    lists_close(&l);
    return rc;
}

static bool all_single(const struct extend *x)
{
    for (int64_t i = 0; i < x->n; i++)
        if (x->piece[i].n != 1)
            return false;
    return true;
}

static int all_pieces(struct model *m, const struct extend *x, struct err *e)
{
    int64_t most = m->o.seqs * m->o.ctx, n;
    float *logits = x->logits;
    int rc = 0;

    most = most < LOGIT_ROWS ? most : LOGIT_ROWS;
    if (all_single(x) && !m->o.cache.window) {
        for (int64_t i = 0; i < x->n && rc == 0; i += n) {
            n = x->n - i < most ? x->n - i : most;
            rc = together(m, x->piece + i, n, logits ? logits + i * m->c.vocab : NULL, e);
        }
        return rc;
    }
    for (int64_t i = 0; i < x->n && rc == 0; i++) {
        rc = one_piece(m, &x->piece[i], logits, x->all, e);
        logits = logits ? logits + (x->all ? x->piece[i].n : 1) * m->c.vocab : NULL;
    }
    return rc;
}

static int64_t tokens_of(const struct extend *x)
{
    int64_t n = 0;

    for (int64_t i = 0; i < x->n; i++)
        n += x->piece[i].n;
    return n;
}

int model_extend(struct model *m, const struct extend *x, struct err *e)
{
    int rc = check(m, x, e);
    int64_t *had;

    if (rc < 0)
        return rc;
    if (!(had = malloc((size_t)(x->n + 1) * sizeof *had)))
        return stages_logits(m, err_set(e, E_SYS, "out of memory"), NULL, 0, e);
    for (int64_t i = 0; i < x->n; i++)
        had[i] = model_text_length(m, x->piece[i].seq);
    rc = all_pieces(m, x, e);
    rc = stages_logits(m, rc, x->logits, (x->all ? tokens_of(x) : x->n) * m->c.vocab, e);
    for (int64_t i = 0; i < x->n && rc < 0; i++)
        model_text_set(m, x->piece[i].seq, m->o.cache.window ? 0 : had[i]);
    free(had);
    return rc;
}

int32_t likeliest(const float *logits, int64_t n)
{
    int32_t best = -1;

    for (int64_t i = 0; i < n; i++)
        if (logits[i] == logits[i] && (best < 0 || logits[i] > logits[best]))
            best = (int32_t)i;
    return best;
}
