/* model/step.c - a batch through the model: score it, or add its gradient. */
#include "model/spread.h"
#include "model/stages.h"
#include "model/rope.h"

/* Refuses ids that no row of the embedding has, and targets that the head does not know.
 * Counts the scored rows: a target of -1 is not scored. Of a sequence over several ranks all look
 * at all of it; spread counts anew. */
static int check_batch(const struct model *m, const struct batch *b, int64_t *n_scored,
                       struct err *e)
{
    int64_t rows;

    if (b->n_seqs < 1 || b->len < 1 || __builtin_mul_overflow(b->n_seqs, b->len, &rows) ||
        rows > m->o.seqs * m->o.ctx)
        return err_set(e, E_BUG, "a batch of %lld x %lld tokens in a model laid out for "
                       "%lld x %lld", (long long)b->n_seqs, (long long)b->len,
                       (long long)m->o.seqs, (long long)m->o.ctx);
    *n_scored = 0;
    for (int64_t i = 0; i < rows; i++) {
        int32_t id = b->ids[i], t = b->targets ? b->targets[i] : -1;
        if (id < 0 || id >= m->c.vocab || t < -1 || t >= m->c.vocab)
            return err_set(e, E_DATA, "token id %d at row %lld is outside the vocabulary of %lld",
                           id < 0 || id >= m->c.vocab ? id : t, (long long)i,
                           (long long)m->c.vocab);
        *n_scored += t >= 0;
    }
    return 0;
}

static int64_t scored_in(const struct batch *b, const struct span *sp)
{
    int64_t n = 0;

    for (int64_t i = sp->first; i < sp->first + sp->rows && b->targets; i++)
        n += b->targets[i] >= 0;
    return n;
}

/* Rows and lists of this rank, where others have a part of the sequence: all begin, or none. */
static int begin(struct model *m, const struct batch *b, struct span *sp, int64_t *n_scored,
                 struct err *e)
{
    int rc = check_batch(m, b, n_scored, e);

    *sp = (struct span){ .rows = b->n_seqs * b->len, .len = b->len, .whole = b->len,
                         .seg = b->seg };
    if (m->spread && rc == 0)
        rc = spread_begin(m, b, sp, e);
    if (m->spread)
        rc = group_meet(m->o.line, rc, NULL, e);
    if (m->share)
        rc = group_meet(m->o.sharers, rc, NULL, e);
    if (rc == 0 && m->spread)
        *n_scored = scored_in(b, sp);
    return rc;
}

/* Training has the same rows step after step, or a few; windows to score may have any number. */
static void note_rows(struct model *m, int64_t rows)
{
    m->varies = m->o.mode == TRAIN_NONE && rows != model_rows(&m->o);
}

static void forward_layer(struct model *m, int64_t layer, void *ctx)
{
    const struct layer *l = &m->layers[layer];
    bool last = layer + 1 == m->c.layers;

    /* in training a layer writes straight into what the next one saves as its input */
    layer_forward(m, l, &l->s, ctx, m->o.mode != TRAIN_NONE && !last ? l[1].s.x : m->work.x);
}

/* A batch on its way back. */
struct back {
    struct span *sp;
    const struct batch *b;
};

/* Chunks whose gradients were waiting for no more than this layer; -1: the embedding. Where ranks
 * exchange something in every layer, all of them tell, one that failed too: in the links' queue that
 * has its place (line.h). */
static void tell_final(struct model *m, const struct batch *b, int64_t layer)
{
    bool all = m->rc == 0 || m->spread || m->share;

    while (b->final && all && m->chunk_next >= 0 && m->chunk_layer[m->chunk_next] >= layer)
        b->final(b->final_arg, m->chunk_next--);
}

static void backward_layer(struct model *m, int64_t layer, void *ctx)
{
    const struct back *k = ctx;

    layer_backward(m, &m->layers[layer], &m->layers[layer].s, k->sp);
    tell_final(m, k->b, layer);
}

/* x [rows][dim] *= by, unless that is 1. */
static void times(struct model *m, int64_t rows, double by, void *x)
{
    if (m->rc == 0 && by != 1)
        m->rc = m->d->scale(m->d, &(struct op_scale){ rows * m->c.dim, (float)by, x });
}

void step_frequencies(struct model *m, int64_t reach)
{
    const struct rope_config local = { .type = ROPE_DEFAULT, .theta = m->c.local_theta };

    m->rope_scale = rope_inv_freq(&m->c.rope, config_rotary(&m->c), reach, m->inv_freq);
    if (m->c.local_theta > 0)
        rope_inv_freq(&local, config_rotary(&m->c), reach, m->local_freq);
}

void step_cap(struct model *m, int64_t n, float *logits)
{
    if (m->rc == 0 && m->c.cap.logits > 0)
        m->rc = m->d->softcap(m->d, &(struct op_softcap){ n, (float)m->c.cap.logits, logits });
}

/* Embedding and all layers; leaves the residual stream in work.x. back: saves what the backward
 * reads. */
static void pass(struct model *m, const int32_t *ids, const int32_t *targets, int64_t reach,
                 struct span *sp, bool back)
{
    struct device *d = m->d;
    void *x = m->o.mode != TRAIN_NONE ? m->layers[0].s.x : m->work.x;

    /* ids and targets are small and come from ordinary memory: the calls wait for them */
    step_frequencies(m, reach);
    m->rc = d->to_device(d, m->work.ids, ids, (size_t)sp->rows * 4);
    if (m->rc == 0 && targets)
        m->rc = d->to_device(d, m->work.targets, targets, (size_t)sp->rows * 4);
    offload_begin(m);
    if (m->rc == 0 && stage_is_first(m))
        m->rc = d->embed(d, &(struct op_embed){ .rows = sp->rows, .dim = m->c.dim,
            .vocab = m->c.vocab, .table = weight_mat(&m->top[ROLE_EMBED]), .ids = m->work.ids,
            .y = x });
    if (stage_is_first(m))
        times(m, sp->rows, config_embed_times(&m->c, d->act), x);
    stages_take(m, sp->rows);
    offload_forward(m, back, forward_layer, sp);
    stages_give(m, sp->rows);
}

void step_forward(struct model *m, const int32_t *ids, int64_t reach, struct span *sp)
{
    pass(m, ids, NULL, reach, sp, false);
}

static void forward(struct model *m, const struct batch *b, struct span *sp, bool back)
{
    pass(m, b->ids + sp->first, b->targets ? b->targets + sp->first : NULL, sp->whole, sp, back);
}

/* work.h = final norm of the residual stream, times what logits are multiplied by; rstd stays for
 * norm's backward. */
void step_norm(struct model *m, int64_t rows)
{
    norm_forward(m, &m->top[ROLE_LAST_NORM], rows, m->work.x, m->work.h, m->work.rstd);
    times(m, rows, config_times(m->c.times.logits), m->work.h);
}

/* nll of every row; with back also work.dh and the head's gradient. */
static void loss(struct model *m, int64_t rows, double grad_scale, bool back)
{
    const struct weight *head = &m->top[ROLE_HEAD];

    if (m->rc == 0)
        m->rc = m->d->loss(m->d, &(struct op_loss){ .rows = rows, .dim = m->c.dim,
            .vocab = m->c.vocab, .chunk = m->o.loss_chunk, .h = m->work.h, .w = weight_mat(head),
            .targets = m->work.targets, .nll = m->work.nll, .grad_scale = (float)grad_scale,
            .cap = (float)m->c.cap.logits,
            .dh = back ? m->work.dh : NULL, .dw = back ? head->grad : NULL,
            .scratch = m->work.loss, .varies = m->varies });
    if (back)
        times(m, rows, config_times(m->c.times.logits), m->work.dh);
}

/* The way back: the final norm turns the loss's gradient dh into dx, each layer takes dx of
 * its output to dx of its input, and the rest goes to the embedding. */
static void backward(struct model *m, struct span *sp, const struct batch *b)
{
    struct device *d = m->d;
    struct back k = { sp, b };
    const struct weight *embed = &m->top[ROLE_EMBED];

    norm_backward(m, &m->top[ROLE_LAST_NORM], sp->rows, m->work.x, m->work.dh, m->work.rstd, m->work.dx,
                  true);
    m->chunk_next = m->t.chunks - 1;
    offload_backward(m, backward_layer, &k);
    if (embed->grad)
        times(m, sp->rows, config_embed_times(&m->c, d->act), m->work.dx);
    if (m->rc == 0 && embed->grad)
        m->rc = d->embed_back(d, &(struct op_embed_back){ .rows = sp->rows, .dim = m->c.dim,
            .vocab = m->c.vocab, .ids = m->work.ids, .dy = m->work.dx, .d_table = embed->grad });
    tell_final(m, b, -1);
}

/* Waits for everything queued. The device's own failure comes first, for it has a reason.
 * After any failure the rings' contents are unknown, because copies may not have run. */
int step_settled(struct model *m, struct err *e)
{
    int rc = m->d->sync(m->d, e);

    if (m->spread)
        rc = line_settled(m, &m->spread->line, rc, e);
    if (m->share)
        rc = line_settled(m, share_line(m), rc, e);
    rc = stages_settled(m, rc, e);
    if (rc == 0 && m->rc < 0)
        rc = err_set(e, m->rc, "a device operation failed");
    if (rc < 0)
        offload_forget(m);
    return rc;
}

/* Brings the losses to the host and adds them in row order. */
static int finish(struct model *m, const struct batch *b, const struct span *sp, double *nll_sum,
                  struct err *e)
{
    int64_t rows = sp->rows;
    float *nll = b->nll ? b->nll + sp->first : m->host_nll;
    int rc;

    if (m->rc == 0)
        m->rc = m->d->to_host(m->d, nll, m->work.nll, (size_t)rows * 4);
    rc = step_settled(m, e);
    *nll_sum = 0;
    /* in float64 and in one order, so that equal losses give equal bits */
    for (int64_t i = 0; i < rows && rc == 0; i++)
        *nll_sum += (double)nll[i];
    return rc;
}

/* Everything is queued first; finish() waits and looks for a failure. */
static int run(struct model *m, const struct batch *b, bool back, double grad_scale,
               double *nll_sum, int64_t *n_scored, struct err *e)
{
    struct span sp;
    int rc = begin(m, b, &sp, n_scored, e);

    if (rc < 0)
        return rc;
    note_rows(m, sp.rows);
    m->dropout.drop = back ? (uint32_t)(m->o.dropout * 65536 + 0.5) : 0;
    m->dropout.token = m->dropout.first * b->len + sp.first;
    forward(m, b, &sp, back);
    step_norm(m, sp.rows);
    loss(m, sp.rows, grad_scale, back);
    if (back)
        backward(m, &sp, b);
    return finish(m, b, &sp, nll_sum, e);
}

void model_number(struct model *m, uint64_t seed, int64_t first)
{
    m->dropout.seed = seed;
    m->dropout.first = first;
}

int model_forward(struct model *m, const struct batch *b, double *nll_sum, int64_t *n_scored,
                  struct err *e)
{
    return run(m, b, false, 0, nll_sum, n_scored, e);
}

int model_step(struct model *m, const struct batch *b, double grad_scale, double *nll_sum,
               int64_t *n_scored, struct err *e)
{
    if (m->o.mode == TRAIN_NONE)
        return err_set(e, E_BUG, "a model opened for scoring cannot be trained");
    return run(m, b, true, grad_scale, nll_sum, n_scored, e);
}

/* Logits of rows [from, rows of the batch) to the host. */
static int logits_from(struct model *m, const struct batch *b, int64_t from, float *logits,
                       struct err *e)
{
    struct span sp = { .rows = b->n_seqs * b->len, .len = b->len, .whole = b->len, .seg = b->seg };
    int64_t vocab = m->c.vocab, left = sp.rows - from;
    /* logits are large, vocab values a row: only a chunk of rows is on the device at a time */
    int64_t chunk = left < m->o.loss_chunk ? left : m->o.loss_chunk;
    float *out = NULL;
    int rc;

    if (m->spread)
        return err_set(e, E_BUG, "no rank has the logits of a sequence that lies over several");
    rc = m->d->alloc(m->d, (size_t)(chunk * vocab) * 4, (void **)&out, e);
    if (rc < 0)
        return rc;
    note_rows(m, sp.rows);
    m->dropout.drop = 0;
    forward(m, b, &sp, false);
    step_norm(m, sp.rows);
    for (int64_t at = from; at < sp.rows && m->rc == 0; at += chunk) {
        int64_t n = sp.rows - at < chunk ? sp.rows - at : chunk;
        struct op_gemm g = { .trans_b = true, .m = n, .n = vocab, .k = m->c.dim, .alpha = 1,
            .a = act_at(m, m->work.h, at * m->c.dim), .lda = m->c.dim,
            .b = weight_mat(&m->top[ROLE_HEAD]), .ldb = m->c.dim, .c = out, .ldc = vocab, .c_type = DT_F32,
            .varies = m->varies };

        /* to_host waits for the product and its copy, so out can be used again */
        m->rc = m->d->gemm(m->d, &g);
        step_cap(m, n * vocab, out);
        if (m->rc == 0)
            m->rc = m->d->to_host(m->d, logits + (at - from) * vocab, out,
                                  (size_t)(n * vocab) * 4);
    }
    rc = step_settled(m, e);
    m->d->release(m->d, out);
    return rc;
}

int model_logits(struct model *m, const struct batch *b, float *logits, struct err *e)
{
    int64_t scored;
    int rc = check_batch(m, b, &scored, e);

    return rc < 0 ? rc : logits_from(m, b, 0, logits, e);
}

int model_last_logits(struct model *m, const struct batch *b, float *logits, struct err *e)
{
    int64_t scored;
    int rc = check_batch(m, b, &scored, e);

    /* the last row alone */
    return rc < 0 ? rc : logits_from(m, b, b->n_seqs * b->len - 1, logits, e);
}
