/* train/loop.c - the steps of a run: metrics, progress, checkpoints, signals. */
#include "train/run.h"

#include "base/log.h"
#include "kernels/group.h"
#include "model/flops.h"
#include "ranks/watch.h"
#include "train/stop.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "  8 ranks: exchanges 3%, rank 5 slowest, 12% over the mean"; nothing of a single one. */
static void say_ranks(const struct metrics_line *l, bool plain, char *text, size_t cap)
{
    double share = l->comm_s / fmax(l->step_s, 1e-9), lag = l->slowest_s / fmax(l->mean_s, 1e-9) - 1;

    *text = '\0';
    if (l->ranks > 1)
        snprintf(text, cap, plain ? " ranks=%d comm=%.3f slowest=%d lag=%.3f"
                                  : "  %d ranks: exchanges %.0f%%, rank %d slowest, %.0f%% over the mean",
                 l->ranks, plain ? share : 100 * share, l->slowest, plain ? lag : 100 * lag);
}

/* A line for the terminal at most ten times a second, or one every --log-every steps where
 * stderr is a file. The first and the last step have one too, unless --log-every is 0. */
static void report(struct run *r, const struct metrics_line *l, double eta_s)
{
    char eta[16], mem[16], ranks[96];
    bool plain = r->s->log_every > 0 && (l->step % r->s->log_every == 0 || l->step == 1 ||
                                         l->step == r->s->steps);

    say_ranks(l, false, ranks, sizeof ranks);
    if (log_progress_due())
        log_progress("step %" PRId64 "/%" PRId64
                     "  loss %.4f  lr %.3g  %.0f tokens/s  mfu %.0f%%  %s left  %s%s",
                     l->step, r->s->steps, l->loss, l->lr, l->tok_s, 100 * l->mfu,
                     fmt_duration(eta_s, eta, sizeof eta),
                     fmt_bytes((double)l->mem_bytes, mem, sizeof mem), ranks);
    say_ranks(l, true, ranks, sizeof ranks);
    if (plain && !isatty(STDERR_FILENO))
        log_info("step=%" PRId64 " loss=%.4f grad_norm=%.4g lr=%.4g attention=%s tok_s=%.0f "
                 "step_ms=%.0f gemm=%.2f mfu=%.3f mem=%" PRId64 " eta_s=%.0f%s",
                 l->step, l->loss, l->grad_norm, l->lr, l->attention, l->tok_s, l->step_s * 1e3,
                 l->gemm_fraction, l->mfu, l->mem_bytes, eta_s, ranks);
    if (l->has_val)
        log_info("step=%" PRId64 " val_loss=%.4f", l->step, l->val_loss);
}

/* How long it was from the command to the end of the first step, and what took it. */
static void say_started(const struct run *r, double first_s)
{
    const double *s = r->phase_s;

    log_info("first step done after %.2f s: files %.2f, device %.2f, plan %.2f, memory %.2f, "
             "weights %.2f, step %.2f", now_s() - r->started_s, s[PHASE_FILES], s[PHASE_DEVICE],
             s[PHASE_PLAN], s[PHASE_MEMORY], s[PHASE_WEIGHTS], first_s);
}

/* Speed of the model's arithmetic; attention as in the step's last sequences. */
static void count_flops(const struct run *r, int64_t tokens, struct metrics_line *l)
{
    /* Half 0 of the segments covers all tokens of the last micro-batch; cu ends with their
     * number. What those took is scaled to all tokens of the step. */
    const struct op_segments *h = &r->t.seg.half[0];
    double seen = h->n ? (double)h->cu[h->n] : 0;

    if (seen > 0)
        l->model_flop_s = model_flops(&r->session.config, r->session.options.mode, &r->t.seg) / seen *
                          (double)tokens / fmax(l->step_s, 1e-9);
    if (r->matrix_rate > 0) /* of this rank's device: the others' are taken to be as fast */
        l->mfu = l->model_flop_s / (r->matrix_rate * r->group->size);
}

static bool validates(const struct run *r, int64_t step)
{
    return r->val && (step % r->s->val_every == 0 || step == r->s->steps);
}

/* A moving average for each kind of step, for the time left: a new step weighs a tenth. */
static void note_time(struct run *r, enum attention_kind kind, double took)
{
    double *s = &r->step_s[kind];

    *s = *s > 0 ? 0.9 * *s + 0.1 * took : took;
}

/* Of a kind that has not come yet what the plan says of it, beside the other. */
static double kind_s(const struct run *r, enum attention_kind kind)
{
    double ratio = r->budget.model.dense_ratio, other = r->step_s[!kind];

    if (r->step_s[kind] > 0 || ratio <= 0)
        return r->step_s[kind];
    return kind == ATTN_DENSE ? other * ratio : other / ratio;
}

/* The plan's, for a rank with the most rows; 0: of this device it knows no times. */
static double foretold_s(const struct run *r, enum attention_kind kind)
{
    const struct memory_plan *p = &r->budget.model;
    int64_t rows = (r->s->batch + r->group->size - 1) / r->group->size;
    double micros = (double)((rows + r->s->micro - 1) / r->s->micro), sparse, dense;

    mix_times(p, r->session.options.dense_share, &sparse, &dense);
    return micros * (p->dense_ratio <= 0 ? p->step_s : kind == ATTN_DENSE ? dense : sparse);
}

double run_expected_s(const struct run *r, int64_t step)
{
    enum attention_kind kind = settings_attention(r->s, step);
    double plan = foretold_s(r, kind), took = kind_s(r, kind);

    if (plan <= 0 || took <= 0)
        return plan > 0 ? plan : took;
    return took > WATCH_LATE * plan ? took : fmin(plan, took);
}

/* Steps and validations still to come. */
static double time_left(const struct run *r, int64_t step)
{
    struct mix mix = settings_mix(r->s);
    int64_t last = r->s->steps, every = r->s->val_every;
    int64_t dense = r->s->attention == ATTN_DENSE ? last - step : mix_count(&mix, step, last);
    /* Multiples of val_every that are still ahead, and the last step if it is not one of
     * them. */
    int64_t vals = r->val ? last / every - step / every + (last % every != 0 && step < last) : 0;

    return (double)dense * kind_s(r, ATTN_DENSE) + (double)(last - step - dense) * kind_s(r, ATTN_S2) +
           (double)vals * r->val_s;
}

static int validate(struct run *r, struct metrics_line *l, struct err *e)
{
    double start = now_s();
    int rc;

    watch_step(0); /* it takes its own time */
    l->has_val = true;
    rc = update_validate(&r->t, r->val, r->s->val_rows, &l->val_loss, e);
    r->val_s = now_s() - start;
    return rc;
}

/* Of several ranks: their times, and with --metrics-ranks what each has to say of itself. */
static int tell_ranks(struct run *r, const struct step_result *s, struct metrics_line *l,
                      struct err *e)
{
    struct group *g = r->group;
    struct metrics_rank mine = { s->own_s, s->comm_s, (int64_t)run_memory(r), g->sent, g->received };
    int rc;

    l->ranks = g->size, l->slowest = s->slowest;
    l->comm_s = s->comm_s, l->slowest_s = s->slowest_s, l->mean_s = s->all_s / g->size;
    r->comm_s += s->comm_s, r->all_s += s->all_s;
    if (g->size == 1 || !r->s->metrics_ranks)
        return 0;
    if (!r->each && !(r->each = calloc((size_t)g->size, sizeof *r->each)))
        err_set(e, E_SYS, "out of memory for %d ranks", g->size);
    if ((rc = group_meet(g, r->each ? 0 : E_SYS, NULL, e)) == 0)
        rc = g->gather(g, &mine, r->each, sizeof mine, e);
    l->rank = r->each;
    return rc;
}

/* One training step, then its validation, figures and line of metrics. Time for validation
 * is not part of the step's time. */
static int one_step(struct run *r, struct err *e)
{
    struct metrics_line l = { 0 };
    const char *notes;
    struct step_result s;
    enum attention_kind kind;
    double start = now_s(), gemm = r->session.device.gemm_s;
    int64_t tokens = r->t.order.batch * r->t.order.ctx;
    int rc = update_step(&r->t, &r->p, &s, e);

    if ((notes = device_notes(&r->session.device)))
        log_warn("%s", notes);
    if (rc < 0)
        return rc;
    l.step_s = now_s() - start;
    kind = settings_attention(r->s, r->p.step);
    l.attention = settings_attention_name(kind);
    note_time(r, kind, l.step_s);
    if (r->trained_tokens == 0)
        say_started(r, l.step_s);
    r->trained_s += l.step_s;
    r->trained_tokens += tokens;
    r->last_loss = s.loss;
    l.step = r->p.step, l.tokens = r->p.step * tokens, l.scored = s.scored;
    l.skipped = r->p.skipped, l.epoch = order_epoch(&r->t.order, r->p.step);
    l.loss = s.loss, l.grad_norm = s.grad_norm, l.lr = s.lr;
    l.tok_s = (double)tokens / fmax(l.step_s, 1e-9);
    l.gemm_fraction = (r->session.device.gemm_s - gemm) / fmax(l.step_s, 1e-9);
    count_flops(r, tokens, &l);
    l.mem_bytes = (int64_t)run_memory(r);
    if ((rc = tell_ranks(r, &s, &l, e)) < 0)
        return rc;
    if (validates(r, l.step) && (rc = validate(r, &l, e)) < 0)
        return rc;
    report(r, &l, time_left(r, l.step));
    if (r->p.streak > 0)
        log_warn("step %" PRId64 ": skipped, no weight changed: loss %g, gradient norm %g",
                 l.step, l.loss, l.grad_norm);
    writer_line(r, &l);
    return 0;
}

/* The metrics could not be written: a reason to stop, beside the signals. */
enum { STOP_UNLOGGED = 1 << 16 };

/* What asks any of the ranks to stop: a signal, STOP_UNLOGGED, or 0. */
static int stop_any(struct run *r, int *sig, struct err *e)
{
    struct group_note note = { .flag = r->unlogged.code ? STOP_UNLOGGED : stop_asked() };
    int rc = group_meet(r->group, 0, &note, e);

    *sig = note.flag;
    return rc;
}

/* Publishes the last step, so that nothing of it is lost, and says why the run ends here. */
static int leave(struct run *r, int why, struct err *e)
{
    /* Where saving fails, that error is the one to tell. */
    int rc = writer_save(r, e);

    if (rc < 0)
        return rc;
    if (why != STOP_UNLOGGED) {
        err_set(e, E_AGAIN, "stopped by SIG%s after step %" PRId64 " of %" PRId64 "%s",
                sigabbrev_np(why), r->p.step, r->s->steps,
                r->saved ? ", checkpoint saved" : "");
        return err_hint(e, "run the same command again to continue");
    }
    if (r->unlogged.code)
        *e = r->unlogged;
    else
        err_set(e, E_IO, "rank 0 cannot write its metrics");
    return err_hint(e, "step %" PRId64 " is saved: the same command continues after it, but "
                       "its line of metrics is lost", r->p.step);
}

/* The error after RUN_MAX_STREAK such steps. Nothing is saved: the last checkpoint stands. */
static int not_finite(const struct run *r, struct err *e)
{
    err_set(e, E_NO,
            "loss or gradient was not finite in %d steps in a row, up to step %" PRId64 "; "
            "those steps changed no weight and no checkpoint",
            RUN_MAX_STREAK, r->p.step);
    return err_hint(e, "look for bad values in the base (linfo --verify), or lower --lr; the "
                       "last checkpoint is step %" PRId64, r->saved);
}

/* Ranks agree on stopping before each step, and on its failure after it, so that all leave
 * the loop at the same step. The last step is always saved. */
int run_loop(struct run *r, struct err *e)
{
    int rc = 0, why = 0;

    stop_after_step();
    for (;;) {
        /* From here to the next time, but for what is not part of a step, a rank can be late. */
        watch_step(rc == 0 && r->p.step < r->s->steps ? run_expected_s(r, r->p.step + 1) : 0);
        if (rc < 0 || (rc = stop_any(r, &why, e)) < 0 || why || r->p.step >= r->s->steps)
            break;
        if ((rc = group_meet(r->group, one_step(r, e), NULL, e)) < 0)
            break;
        if (r->p.streak >= RUN_MAX_STREAK)
            rc = group_meet(r->group, not_finite(r, e), NULL, e);
        else if (r->p.step % r->s->save_every == 0 || r->p.step == r->s->steps) {
            watch_step(0);
            rc = writer_save(r, e);
        }
    }
    watch_step(0);
    log_progress_end();
    /* A signal during the last step is ignored: the run is finished, and its results follow. */
    if (rc == 0 && why && (why == STOP_UNLOGGED || r->p.step < r->s->steps))
        rc = leave(r, why, e);
    return rc;
}
