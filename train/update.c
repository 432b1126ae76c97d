/* train/update.c - see update.h. */
#include "train/update.h"

#include "base/log.h"
#include "kernels/exchange.h"
#include "train/parallel.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* What could not be done, and why, which the device tells when it is waited for. */
static int device_failed(struct trainer *t, int rc, const char *what, struct err *e)
{
    struct err why = { 0 };

    t->d->sync(t->d, &why);
    return err_set(e, rc, "%s on '%s'%s%.300s", what, t->d->name, *why.msg ? ": " : "", why.msg);
}

/* Each rank holds the moments of a part of what is trained, and updates that. */
static bool sharded(const struct trainer *t) { return model_trained(t->m)->shards > 1; }

static struct share own_share(const struct trainer *t, int chunk)
{
    const struct trained *w = model_trained(t->m);

    return trained_share(w, chunk, w->rank);
}

/* Of n rows those of this rank, or of the line of ranks that it computes them with. */
static void own_rows(const struct trainer *t, int64_t n, int64_t *from, int64_t *to)
{
    struct group lines = parallel_rows(t->d->group, t->s->cp);

    group_part(&lines, n, from, to);
}

/* The first of a line speaks for it where all of them know the same. */
static bool speaks(const struct trainer *t)
{
    return t->s->cp <= 1 || t->d->group->rank % t->s->cp == 0;
}

/* A failure of one is one of all whose calls are made together: they go on, or none does. */
static int with_others(struct trainer *t, int rc, struct err *e)
{
    struct group *line = model_line(t->m), *sharers = model_sharers(t->m);

    rc = line ? group_meet(line, rc, NULL, e) : rc;
    return sharers ? group_meet(sharers, rc, NULL, e) : rc;
}

/* Loads sequence k of the run (counted over all epochs) into place 'at' of the buffer. A
 * packed epoch has a plan of its own, made when its first row is asked for. */
static int load_row(struct trainer *t, int64_t at, int64_t k, int64_t *scored, struct err *e)
{
    int64_t row = order_row(&t->order, k);
    int rc;

    if (t->pack.rows == 0)
        return rows_load(&t->rows, at, t->data, row, scored, e);
    rc = pack_rows_plan(&t->pack, k / t->order.rows, e);
    return rc < 0 ? rc : rows_load_packed(&t->rows, at, t->data, &t->pack, row, scored, e);
}

/* Counts the targets of the whole batch, over all ranks: the loss is their mean. This comes
 * before the first gradient, because each part of the batch is divided by the total. Rows
 * are loaded one by one into place 0 and not kept. */
static int count_scored(struct trainer *t, int64_t first, int64_t *scored, struct err *e)
{
    struct group_note note = { 0 };
    int64_t from, to;
    int rc = 0;

    *scored = 0;
    own_rows(t, t->order.batch, &from, &to);
    for (int64_t j = from; rc == 0 && j < to; j++)
        rc = load_row(t, 0, first + j, scored, e);
    note.sum[0] = speaks(t) ? (double)*scored : 0;
    rc = group_meet(t->d->group, rc, &note, e);
    *scored = (int64_t)note.sum[0];
    return rc;
}

/* Loads sequences first .. first + n - 1 and builds their attention segments. */
static int load_micro(struct trainer *t, int64_t first, int64_t n, struct batch *b,
                      struct err *e)
{
    int64_t unused = 0;
    int rc = 0;

    for (int64_t j = 0; rc == 0 && j < n; j++)
        rc = load_row(t, j, first + j, &unused, e);
    if (rc == 0)
        rc = segments_build(&t->seg, settings_attention(t->s, first / t->order.batch + 1), n,
                            t->order.ctx, t->s->group, t->rows.starts, t->rows.n_starts, e);
    *b = (struct batch){ .n_seqs = n, .len = t->order.ctx, .ids = t->rows.ids,
                         .targets = t->rows.targets, .seg = &t->seg };
    return rc;
}

/* A chunk of the gradient is final: over links it goes on its way while earlier layers go back. */
static void queue_chunk(void *arg, int chunk)
{
    struct trainer *t = arg;
    const struct trained *w = model_trained(t->m);

    if (t->link_rc == 0)
        t->link_rc = group_queue_sum(t->d, w->grad + w->chunk[chunk],
                                     w->chunk[chunk + 1] - w->chunk[chunk]);
    t->chunks_left = chunk;
}

static bool sums_early(const struct trainer *t)
{
    return t->d->links && sharded(t) && !t->sums.number;
}

void update_begin_sums(struct trainer *t)
{
    t->link_rc = 0, t->chunks_left = model_trained(t->m)->chunks;
}

/* Where ranks share a sequence or weights, only if these are all ranks, which come to every call
 * together: what the layers send each other would stand behind sums with ranks that are not there
 * yet, of which one may have failed. */
void update_sum_early(struct trainer *t, struct batch *b)
{
    const struct group *line = model_line(t->m), *sharers = model_sharers(t->m);
    int all = t->d->group->size, together = line ? line->size : 0;

    together = sharers && sharers->size > together ? sharers->size : together;
    b->final = sums_early(t) && (together == 0 || together == all) ? queue_chunk : NULL;
    b->final_arg = t;
}

/* What no backward of this rank has come to, as where it has no rows: every rank queues all. */
static int queue_rest(struct trainer *t, struct err *e)
{
    while (t->chunks_left > 0)
        queue_chunk(t, t->chunks_left - 1);
    return t->link_rc < 0 ? device_failed(t, t->link_rc, "cannot add the gradients", e) : 0;
}

/* The exchanges of a step, and the time they take that nothing else hides. */
static int sum_gradients(struct trainer *t, struct err *e)
{
    const struct trained *w = model_trained(t->m);
    double start = now_s();
    int rc = 0;

    if (sums_early(t))
        rc = group_wait_queued(t->d, "add", e);
    else if (!sharded(t))
        rc = group_sum(t->d, w->grad, w->n, e);
    else
        for (int k = w->chunks - 1; k >= 0 && rc == 0; k--)
            rc = group_sum_parts(t->d, w->grad + w->chunk[k], w->chunk[k + 1] - w->chunk[k], e);
    t->comm_s += now_s() - start;
    return rc;
}

/* Of what the device is busy with meanwhile, AdamW, no more counts than the links were. */
static int gather(struct trainer *t, int rc, struct err *e)
{
    double start = now_s(), was = t->d->link_s, took;

    rc = model_gather(t->m, rc, e);
    took = now_s() - start;
    t->comm_s += t->d->links ? fmin(took, t->d->link_s - was) : took;
    return rc;
}

/* By the tree that knows no ranks: of every row the gradient and the loss. */
static int sum_rows(struct trainer *t, double *nll, struct err *e)
{
    double start = now_s();
    int rc = row_sums_numbers(&t->sums, t->d->group, t->order.batch, nll, e);

    if (rc == 0)
        rc = row_sums_finish(&t->sums, t->d, t->order.batch, model_trained(t->m)->grad, e);
    t->comm_s += now_s() - start;
    return rc;
}

int update_sum(struct trainer *t, int rc, double took_s, double *nll, struct step_result *r,
               struct err *e)
{
    struct group_note note = { .most = took_s, .sum = { *nll, took_s } };

    if (rc == 0 && sums_early(t))
        rc = queue_rest(t, e);
    rc = group_meet(t->d->group, rc, &note, e); /* none waits in vain for another's gradient */
    *nll = note.sum[0];
    r->own_s = took_s, r->slowest_s = note.most, r->slowest = note.most_rank;
    r->all_s = note.sum[1];
    if (rc == 0 && t->sums.number)
        rc = sum_rows(t, nll, e);
    else if (rc == 0)
        rc = sum_gradients(t, e);
    return rc;
}

static int clear(struct trainer *t, struct err *e)
{
    const struct trained *w = model_trained(t->m);
    int rc = t->d->zero(t->d, w->grad, (size_t)w->n * sizeof(float));

    return rc < 0 ? device_failed(t, rc, "cannot clear the gradients", e) : 0;
}

/* The gradient of row j of the batch, which was computed alone, joins those of the tree. */
static int row_alone(struct trainer *t, int64_t j, int64_t from, double loss, struct err *e)
{
    int rc = row_sums_add(&t->sums, t->d, j, model_trained(t->m)->grad, e);

    t->sums.number[j - from] = loss;
    return rc < 0 ? rc : clear(t, e);
}

/* Adds up the losses of the batch in *nll, and leaves in trained.grad the gradient of their
 * mean. A rank takes its part of the batch, at most rows.cap sequences at a time. */
static int gradients(struct trainer *t, int64_t first, double *nll, struct step_result *r,
                     struct err *e)
{
    double start = now_s();
    int64_t from, to;
    int rc = clear(t, e);

    *nll = 0;
    row_sums_begin(&t->sums);
    update_begin_sums(t);
    own_rows(t, t->order.batch, &from, &to);
    rc = with_others(t, rc, e);
    for (int64_t j = from, n; rc == 0 && j < to; j += n) {
        struct batch b;
        double sum = 0;
        int64_t unused = 0;

        n = to - j < t->rows.cap ? to - j : t->rows.cap;
        model_number(t->m, (uint64_t)t->s->seed, first + j);
        rc = with_others(t, load_micro(t, first + j, n, &b, e), e);
        if (rc == 0 && j + n == to)
            update_sum_early(t, &b);
        if (rc == 0)
            rc = model_step(t->m, &b, 1.0 / (double)r->scored, &sum, &unused, e);
        *nll += sum;
        if (rc == 0 && t->sums.number)
            rc = row_alone(t, j, from, sum, e);
    }
    return update_sum(t, rc, now_s() - start, nll, r, e);
}

/* One AdamW update of values [from, to) of the share o. */
static int apply_to(struct trainer *t, struct op_adamw *a, struct share o, int64_t from, int64_t to)
{
    const struct trained *w = model_trained(t->m);
    int64_t at = o.at + from - o.from;

    a->n = to - from;
    a->w = w->own + at, a->m = w->m + at, a->v = w->v + at, a->grad = w->grad + from;
    return a->n > 0 ? t->d->adamw(t->d, a) : 0;
}

/* Of this rank's share of a chunk. Without decay all parameters go in one call; with it, each is
 * called for alone, because only matrices decay. */
static int apply_share(struct trainer *t, struct op_adamw *a, struct share o)
{
    const struct trained *w = model_trained(t->m);
    int rc = 0;

    if (t->s->decay == 0)
        return apply_to(t, a, o, o.from, o.to);
    for (int64_t i = 0; rc == 0 && i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        int64_t end = p->offset + p->count;

        a->decay = role_form(p->role) == FORM_MATRIX ? (float)t->s->decay : 0;
        rc = apply_to(t, a, o, p->offset > o.from ? p->offset : o.from, end < o.to ? end : o.to);
    }
    return rc;
}

/* Chunk by chunk; each goes to the other ranks while the next one is updated. step: updates so
 * far, for AdamW's bias correction. */
static int apply(struct trainer *t, int64_t step, double lr, double scale)
{
    const struct settings *s = t->s;
    struct op_adamw a = { .step = step, .lr = (float)lr, .beta1 = (float)s->beta1,
                          .beta2 = (float)s->beta2, .eps = (float)s->eps,
                          .grad_scale = (float)scale };
    int rc = 0;

    for (int k = 0; k < model_trained(t->m)->chunks && rc == 0; k++) {
        rc = apply_share(t, &a, own_share(t, k));
        if (rc == 0 && sharded(t))
            rc = model_gather_chunk(t->m, k);
    }
    return rc;
}

int update_step(struct trainer *t, struct progress *p, struct step_result *r, struct err *e)
{
    struct schedule schedule = settings_schedule(t->s);
    int64_t first = p->step * t->order.batch;
    double nll;
    int rc;

    t->comm_s = 0;
    *r = (struct step_result){ .lr = schedule_lr(&schedule, p->step + 1) };
    if ((rc = count_scored(t, first, &r->scored, e)) < 0)
        return rc;
    if (r->scored == 0) { /* nothing but prompts: no loss, nothing to learn */
        p->step++;
        return 0;
    }
    rc = gradients(t, first, &nll, r, e);
    return rc < 0 ? rc : update_apply(t, p, nll, r, e);
}

static int no_squares(struct trainer *t, int rc, const char *what, struct err *e)
{
    char text[80];

    snprintf(text, sizeof text, "cannot sum the %s", what);
    return device_failed(t, rc, text, e);
}

/* The sum of the squares of x, n floats. */
static int squares_of(struct trainer *t, const float *x, int64_t n, double *sum, const char *what,
                      struct err *e)
{
    int rc = t->d->sum_squares(t->d, &(struct op_sum_squares){ n, x, sum });

    return rc < 0 ? no_squares(t, rc, what, e) : t->d->sync(t->d, e);
}

/* Of this rank's share of the gradient. */
static int share_squares(struct trainer *t, double *sum, struct err *e)
{
    const struct trained *w = model_trained(t->m);
    double each[CHUNKS_MOST] = { 0 }; /* they have their values after sync */
    int rc = 0;

    for (int k = 0; k < w->chunks && rc == 0; k++) {
        struct share o = own_share(t, k);

        rc = t->d->sum_squares(t->d, &(struct op_sum_squares){ o.to - o.from, w->grad + o.from,
                                                               &each[k] });
    }
    rc = rc < 0 ? no_squares(t, rc, "gradients", e) : t->d->sync(t->d, e);
    for (int k = 0; k < w->chunks; k++)
        *sum += each[k];
    return rc;
}

/* Of the whole gradient: where each rank has the sums of a part only, over all of them. */
static int gradient_squares(struct trainer *t, double *sum, struct err *e)
{
    struct group_note note = { 0 };
    int rc = share_squares(t, &note.sum[0], e);

    if (sharded(t))
        rc = group_meet(t->d->group, rc, &note, e);
    *sum = note.sum[0];
    return rc;
}

int update_apply(struct trainer *t, struct progress *p, double nll, struct step_result *r,
                 struct err *e)
{
    double squares, scale = 1.0;
    int rc = gradient_squares(t, &squares, e);

    r->comm_s = t->comm_s;
    if (rc < 0)
        return rc;
    r->loss = nll / (double)r->scored;
    r->grad_norm = sqrt(squares);
    /* A skipped step counts as a step, so the data moves on, but not as an update of AdamW. */
    p->step++;
    if (!isfinite(r->loss) || !isfinite(r->grad_norm)) {
        p->skipped++, p->streak++;
        return 0;
    }
    p->streak = 0;
    if (t->s->clip > 0 && r->grad_norm > t->s->clip)
        scale = t->s->clip / r->grad_norm;
    if ((rc = apply(t, ++p->updates, r->lr, scale)) < 0)
        device_failed(t, rc, "the optimizer step failed", e);
    if (sharded(t))
        rc = gather(t, rc, e);
    r->comm_s = t->comm_s;
    if (rc == 0 && (rc = model_sync_trained(t->m)) < 0)
        device_failed(t, rc, "the optimizer step failed", e);
    return rc < 0 ? rc : t->d->sync(t->d, e);
}

/* Where weights lie over ranks all of these make as many calls: this one's end, so many rows on. */
static int64_t last_row(const struct trainer *t, int64_t rows, int64_t from, int64_t to)
{
    struct group lines = parallel_rows(t->d->group, t->s->cp);
    int64_t cap = t->rows.cap, most = (rows + lines.size - 1) / lines.size;

    return model_sharers(t->m) ? to + (most + cap - 1) / cap - (to - from + cap - 1) / cap : to;
}

/* The mean loss of the first rows of d. Attention is dense, whatever the training uses: this
 * is how the model will be used. */
int update_validate(struct trainer *t, struct dataset *d, int64_t max_rows, double *loss,
                    struct err *e)
{
    int64_t ctx = t->order.ctx, rows = dataset_tokens(d) / ctx, n, from, to;
    struct group_note note = { 0 };
    int rc = 0;

    rows = rows < max_rows ? rows : max_rows;
    own_rows(t, rows, &from, &to);
    for (int64_t i = from; rc == 0 && i < last_row(t, rows, from, to); i += n) {
        bool extra = i >= to; /* computed with the others, and left out */
        struct batch b = { .len = ctx, .ids = t->rows.ids, .targets = t->rows.targets,
                           .seg = &t->seg };
        int64_t scored = 0, unused = 0;
        double nll = 0;

        n = extra ? 1 : to - i < t->rows.cap ? to - i : t->rows.cap;
        for (int64_t j = 0; rc == 0 && j < n; j++)
            rc = rows_load(&t->rows, j, d, extra ? 0 : i + j, &scored, e);
        b.n_seqs = n;
        if (rc == 0)
            rc = segments_build(&t->seg, ATTN_DENSE, n, ctx, ctx, t->rows.starts,
                                t->rows.n_starts, e);
        if ((rc = with_others(t, rc, e)) == 0)
            rc = model_forward(t->m, &b, &nll, &unused, e);
        if (extra)
            continue;
        note.sum[0] += nll, note.sum[1] += speaks(t) ? (double)scored : 0;
        if (t->sums.number)
            t->sums.number[i - from] = nll;
    }
    rc = group_meet(t->d->group, rc, &note, e);
    if (rc == 0 && t->sums.number)
        rc = row_sums_numbers(&t->sums, t->d->group, rows, &note.sum[0], e);
    *loss = note.sum[1] > 0 ? note.sum[0] / note.sum[1] : NAN;
    return rc;
}

/* A NaN or infinity anywhere makes the sum of squares not finite. Called before saving, so
 * that no checkpoint holds such values. */
int update_finite(struct trainer *t, struct err *e)
{
    const struct trained *w = model_trained(t->m);
    const struct { const float *x; int64_t n; const char *name; } part[] = {
        { w->own, w->held, "weights" }, { w->m, w->held, "first moments" },
        { w->v, w->held, "second moments" },
    };

    for (int i = 0; i < 3; i++) {
        double sum = 0;
        int rc = squares_of(t, part[i].x, part[i].n, &sum, part[i].name, e);

        if (rc < 0)
            return rc;
        if (!isfinite(sum)) {
            err_set(e, E_NO, "the %s are no longer finite: nothing was saved", part[i].name);
            return err_hint(e, "try a lower --lr or --clip, or a longer --warmup; the last "
                               "checkpoint is good");
        }
    }
    return 0;
}
