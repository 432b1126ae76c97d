/* train/update.c - see update.h. */
#include "train/update.h"

#include "base/log.h"
#include "kernels/exchange.h"
#include "train/parallel.h"

#include <inttypes.h>
#include <math.h>

/* Each rank holds the moments of a part of what is trained, and updates that. */
static bool sharded(const struct trainer *t)
{
    const struct trained *w = model_trained(t->m);

    return w->to - w->from < w->n;
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

/* The exchanges of a step, and the time they take. */
static int sum_gradients(struct trainer *t, struct err *e)
{
    const struct trained *w = model_trained(t->m);
    double start = now_s();
    int rc = (sharded(t) ? group_sum_parts : group_sum)(t->d, w->grad, w->n, e);

    t->comm_s += now_s() - start;
    return rc;
}

static int gather(struct trainer *t, struct err *e)
{
    double start = now_s();
    int rc = model_gather(t->m, e);

    t->comm_s += now_s() - start;
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

    return rc < 0 ? err_set(e, rc, "cannot clear the gradients on '%s'", t->d->name) : 0;
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
    own_rows(t, t->order.batch, &from, &to);
    rc = with_others(t, rc, e);
    for (int64_t j = from, n; rc == 0 && j < to; j += n) {
        struct batch b;
        double sum = 0;
        int64_t unused = 0;

        n = to - j < t->rows.cap ? to - j : t->rows.cap;
        if ((rc = with_others(t, load_micro(t, first + j, n, &b, e), e)) == 0)
            rc = model_step(t->m, &b, 1.0 / (double)r->scored, &sum, &unused, e);
        *nll += sum;
        if (rc == 0 && t->sums.number)
            rc = row_alone(t, j, from, sum, e);
    }
    return update_sum(t, rc, now_s() - start, nll, r, e);
}

/* One AdamW update of this rank's part. Without decay all parameters go in one call; with it,
 * each is called for alone, because only matrices decay. step: updates so far, for AdamW's bias
 * correction. */
static int apply(struct trainer *t, int64_t step, double lr, double scale)
{
    const struct trained *w = model_trained(t->m);
    const struct settings *s = t->s;
    struct op_adamw a = { .n = w->to - w->from, .step = step, .lr = (float)lr, .beta1 = (float)s->beta1,
                          .beta2 = (float)s->beta2, .eps = (float)s->eps,
                          .grad_scale = (float)scale, .w = w->own, .m = w->m,
                          .v = w->v, .grad = w->grad + w->from };
    int rc = 0;

    if (s->decay == 0)
        return t->d->adamw(t->d, &a);
    for (int64_t i = 0; rc == 0 && i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        int64_t from = p->offset > w->from ? p->offset : w->from;
        int64_t to = p->offset + p->count < w->to ? p->offset + p->count : w->to;

        a.n = to - from, a.decay = role_form(p->role) == FORM_MATRIX ? (float)s->decay : 0;
        a.w = w->own + (from - w->from);
        a.m = w->m + (from - w->from), a.v = w->v + (from - w->from);
        a.grad = w->grad + from;
        rc = a.n > 0 ? t->d->adamw(t->d, &a) : 0;
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

/* The sum of the squares of x, n floats; it has its value only after sync. */
static int squares_of(struct trainer *t, const float *x, int64_t n, double *sum, const char *what,
                      struct err *e)
{
    int rc = t->d->sum_squares(t->d, &(struct op_sum_squares){ n, x, sum });

    if (rc < 0)
        return err_set(e, rc, "cannot sum the %s on '%s'", what, t->d->name);
    return t->d->sync(t->d, e);
}

/* Of the whole gradient: where each rank has the sums of a part only, over all of them. */
static int gradient_squares(struct trainer *t, double *sum, struct err *e)
{
    const struct trained *w = model_trained(t->m);
    struct group_note note = { 0 };
    int rc = squares_of(t, w->grad + w->from, w->to - w->from, &note.sum[0], "gradients", e);

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
        err_set(e, rc, "the optimizer step failed on '%s'", t->d->name);
    if (sharded(t) && (rc = group_meet(t->d->group, rc, NULL, e)) == 0)
        rc = gather(t, e);
    r->comm_s = t->comm_s;
    if (rc == 0 && (rc = model_sync_trained(t->m)) < 0)
        err_set(e, rc, "the optimizer step failed on '%s'", t->d->name);
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
        { w->own, w->to - w->from, "weights" }, { w->m, w->to - w->from, "first moments" },
        { w->v, w->to - w->from, "second moments" },
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
