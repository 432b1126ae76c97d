/* train/bench.c - see bench.h. */
#include "train/bench.h"

#include "base/file.h"
#include "base/log.h"
#include "kernels/group.h"
#include "kernels/rate.h"
#include "model/flops.h"
#include "model/preset.h"
#include "train/budget.h"
#include "train/parallel.h"
#include "train/plan.h"
#include "train/update.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* WARM_UP: steps before measuring; of a mix's second kind one is enough, as the first has warmed
 * what both use. LONG_STEP_S: seconds after which a step is a long one. MOST_STEPS, MOST_KINDS:
 * limits on measured steps and on kinds of ops in a profile. */
enum { WARM_UP = 2, WARM_UP_SECOND = 1, LONG_STEP_S = 30, MOST_STEPS = 1000, MOST_KINDS = 32 };

int bench_config(const struct settings *s, struct llama_config *c, struct err *e)
{
    if (s->shape >= 0) {
        preset_config(c, s->shape);
        return 0;
    }
    if (path_is_dir(s->init)) {
        err_set(e, E_USAGE, "--init '%s' is a folder, not a file", s->init);
        return err_hint(e, "give its config.json: --init %s/config.json", s->init);
    }
    return config_read(c, s->init, e);
}

/* One context being measured. */
struct bench {
    struct settings s;
    struct session *open;
    struct budget budget;
    struct trainer t;
    struct progress p;
    struct step_result last;
    struct batch batch;
    double matrix_rate; /* operations a second of one large product */
    double *seconds;    /* of the measured steps */
    enum attention_kind kind; /* of these steps: of a mix each in its turn */
    double first_s;     /* of the first, with what is made once for a shape */
    double comm_s;      /* of the measured steps, in exchanges between ranks */
    double link_s;      /* of the same, over links, with those that something else hides */
    double wait_s;      /* that ops waited for exchanges over links */
    double flop;        /* of matrix products in one of them, recomputation included */
    double median_s[2]; /* of each kind that was measured */
};

/* Random ids: speed does not depend on the text. */
static int random_rows(struct bench *b, struct err *e)
{
    return preset_batch(&b->batch, b->s.micro, b->s.ctx, b->open->config.vocab, &b->t.seg, e);
}

/* Micro-batches of a step: one for each line of ranks. */
static int lines(const struct bench *b)
{
    struct group g = parallel_rows(b->t.d->group, b->s.cp);

    return g.size;
}

/* One training step as in update.c, but always of the same rows: a micro-batch on every rank. */
static int one_step(struct bench *b, struct err *e)
{
    const struct trained *w = model_trained(b->t.m);
    struct device *d = b->t.d;
    double nll = 0, start = now_s();
    int64_t unused;
    int rc = d->zero(d, w->grad, (size_t)w->n * sizeof(float));

    /* The last token of a sequence has no next one to predict. */
    b->last = (struct step_result){ .lr = b->s.lr,
                                    .scored = b->s.micro * (b->s.ctx - 1) * lines(b) };
    b->t.comm_s = 0;
    update_begin_sums(&b->t);
    update_sum_early(&b->t, &b->batch);
    if (rc < 0)
        err_set(e, rc, "cannot clear the gradients on '%s'", d->name);
    else
        rc = model_step(b->t.m, &b->batch, 1.0 / (double)b->last.scored, &nll, &unused, e);
    rc = update_sum(&b->t, rc, now_s() - start, &nll, &b->last, e);
    return rc < 0 ? rc : update_apply(&b->t, &b->p, nll, &b->last, e);
}

/* Times the steps. Warm-up steps come first (i below 0), as the first one also makes what is
 * made once per shape. If that first step is longer than 30 s, this weighs nothing, and it is
 * taken as the first measured step: i becomes 0. */
static int measure(struct bench *b, int warm_up, struct err *e)
{
    struct device *d = b->t.d;
    double flop = d->gemm_flop, links = d->link_s, waits = d->link_wait_s;
    int rc = 0;

    for (int64_t i = -warm_up; i < b->s.steps && rc == 0; i++) {
        double start = now_s(), took;
        if (i == 0)
            flop = d->gemm_flop, links = d->link_s, waits = d->link_wait_s;
        if ((rc = group_meet(d->group, 0, NULL, e)) == 0)
            start = now_s(), rc = one_step(b, e);
        rc = group_meet(d->group, rc, NULL, e);
        took = now_s() - start;
        if (i == -warm_up) {
            b->first_s = took;
            i = took > LONG_STEP_S ? 0 : i;
        }
        if (i >= 0)
            b->seconds[i] = took, b->comm_s += b->last.comm_s;
    }
    b->flop = (d->gemm_flop - flop) / (double)b->s.steps;
    b->link_s = d->link_s - links, b->wait_s = d->link_wait_s - waits;
    return rc;
}

/* What was planned for a step of the kind that is measured; 0: not known. */
static double predicted(const struct bench *b)
{
    const struct memory_plan *p = &b->budget.model;
    double sparse, dense;

    mix_times(p, b->open->options.dense_share, &sparse, &dense);
    return p->dense_ratio <= 0 ? p->step_s : b->kind == ATTN_DENSE ? dense : sparse;
}

/* Prints the figures of one context and kind of step. 'seconds' is sorted: its middle is the
 * median, its ends are the fastest and the slowest step. taken: bytes of memory in use. */
static void say(const struct bench *b, FILE *f, size_t taken)
{
    double s = b->median_s[b->kind], tokens, comm = b->comm_s / (double)b->s.steps;
    double waits = b->wait_s / (double)b->s.steps, bare = fmax(comm, waits);
    double hidden = fmax(b->link_s / (double)b->s.steps - bare, 0);
    double model = model_flops(&b->open->config, settings_train_mode(b->s.mode), &b->t.seg) / s;
    double foretold = predicted(b);
    int ranks = b->t.d->group->size;
    const struct memory_plan *p = &b->budget.model;
    char saved[SAVED_CHARS], mem[16], plan[16], host[16];

    tokens = (double)(b->s.micro * b->s.ctx) * lines(b);
    if (b->s.json) {
        fprintf(f, "{\"ctx\":%" PRId64 ",\"micro\":%" PRId64 ",\"mode\":\"%s\",\"attention\":"
                "\"%s\",\"tok_s\":%.1f,\"step_s\":%.6f,\"min_s\":%.6f,\"max_s\":%.6f,"
                "\"first_s\":%.3f,\"model_flop_s\":%.4g,\"matrix_flop_s\":%.4g,\"memory_bytes\":%zu,"
                "\"predicted_bytes\":%zu,\"predicted_s\":%.6f,\"pinned_bytes\":%zu,"
                "\"loss\":%.4f,\"ranks\":%d,\"comm_s\":%.6f,\"wait_s\":%.6f,\"hidden_s\":%.6f}\n", b->s.ctx, b->s.micro,
                settings_mode(b->s.mode), settings_attention_name(b->kind),
                tokens / s, s, b->seconds[0], b->seconds[b->s.steps - 1], b->first_s, model,
                b->matrix_rate, taken, b->budget.peak, foretold, p->host, b->last.loss,
                ranks, comm, waits, hidden);
        return;
    }
    budget_saved(&b->budget.model, saved, sizeof saved);
    fprintf(f, "ctx=%" PRId64 " micro=%" PRId64 " mode=%s attention=%s group=%" PRId64 "\n",
            b->s.ctx, b->s.micro, settings_mode(b->s.mode),
            settings_attention_name(b->kind), b->kind == ATTN_DENSE ? b->s.ctx : b->s.group);
    fprintf(f, "  %.0f tokens/s  %.4g s a step (%.4g to %.4g; the first %.4g)  loss %.4f\n",
            tokens / s, s, b->seconds[0], b->seconds[b->s.steps - 1], b->first_s, b->last.loss);
    fprintf(f, "  %.4g TFLOP/s of the model, %.4g with what is computed twice; "
            "%.0f%% and %.0f%% of %.4g\n", 1e-12 * model, 1e-12 * b->flop / s,
            100 * model / b->matrix_rate, 100 * b->flop / s / b->matrix_rate,
            1e-12 * b->matrix_rate);
    if (ranks > 1)
        fprintf(f, "  %d ranks, operations and memory of one; exchanges between them %.2f ms, "
                "%.1f%% of a step, and %.2f ms behind other work\n", ranks, 1e3 * bare,
                100 * bare / s, 1e3 * hidden);
    fprintf(f, "  memory %s, predicted %s; saved: %s\n", fmt_bytes((double)taken, mem, sizeof mem),
            fmt_bytes((double)b->budget.peak, plan, sizeof plan), saved);
    if (foretold > 0)
        fprintf(f, "  predicted %.4g s a step; offload: %s of host memory pinned\n", foretold,
                fmt_bytes((double)p->host, host, sizeof host));
}

/* Runs one step more with every op timed, and prints each kind's share. Ops on a queue of
 * their own run beside the others, so they are left out of the sum. Prints nothing where the
 * device cannot profile. */
static int profile(struct bench *b, FILE *f, struct err *e)
{
    struct op_time was[MOST_KINDS], now[MOST_KINDS];
    struct device *d = b->t.d;
    int n = d->profile(d, true, was, MOST_KINDS), rc;
    double start = now_s(), all = 0, wall;

    if (n == 0)
        return 0;
    rc = group_meet(d->group, one_step(b, e), NULL, e);
    wall = now_s() - start;
    d->profile(d, false, now, MOST_KINDS);
    if (!group_writes(d->group))
        return rc;
    for (int i = 0; i < n && rc == 0; i++) {
        double s = now[i].s - was[i].s, flop = now[i].flop - was[i].flop;

        all += now[i].beside ? 0 : s;
        if (now[i].calls == was[i].calls)
            continue;
        fprintf(f, "  %-15s %6" PRId64 " calls %9.2f ms %5.1f%%", now[i].name,
                now[i].calls - was[i].calls, 1e3 * s, 100 * s / wall);
        if (flop > 0 && s > 0)
            fprintf(f, "  %4.0f TFLOP/s", 1e-12 * flop / s);
        fputc('\n', f);
    }
    if (rc == 0)
        fprintf(f, "  %-15s              %9.2f ms %5.1f%%\n", "between ops", 1e3 * (wall - all),
                100 * (wall - all) / wall);
    return rc;
}

/* Measures the steps of one kind and prints what they took, at once: the next kind's may take
 * minutes, or be cut. */
static int one_kind(struct bench *b, enum attention_kind kind, int warm_up, FILE *f,
                    struct err *e)
{
    int rc = segments_build(&b->t.seg, kind, b->s.micro, b->s.ctx, b->s.group, NULL, 0, e);
    size_t left;

    b->kind = kind, b->comm_s = 0;
    if ((rc = group_meet(b->t.d->group, rc, NULL, e)) < 0 || (rc = measure(b, warm_up, e)) < 0)
        return rc;
    left = b->t.d->free_bytes(b->t.d);
    preset_sort(b->seconds, b->s.steps);
    b->median_s[kind] = b->seconds[b->s.steps / 2];
    /* Host memory is what the process holds; device memory is what is missing since the
     * plan. */
    if (group_writes(b->t.d->group))
        say(b, f, !b->budget.own_memory ? (size_t)budget_rss()
                  : b->budget.free > left ? b->budget.free - left : 0);
    fflush(f);
    rc = b->s.json ? 0 : profile(b, f, e);
    fflush(f);
    return rc;
}

/* The rate of the mix, of both kinds as often as they come in a long run. */
static void say_mix(const struct bench *b, FILE *f)
{
    double share = b->open->options.dense_share;
    double tokens = (double)(b->s.micro * b->s.ctx) * lines(b);
    double s = (1 - share) * b->median_s[ATTN_S2] + share * b->median_s[ATTN_DENSE];

    if (b->s.json)
        fprintf(f, "{\"ctx\":%" PRId64 ",\"micro\":%" PRId64 ",\"mode\":\"%s\",\"attention\":"
                "\"mix\",\"group\":%" PRId64 ",\"dense_share\":%.6g,\"tok_s\":%.1f,\"step_s\":%.6f,"
                "\"predicted_s\":%.6f}\n", b->s.ctx, b->s.micro, settings_mode(b->s.mode),
                b->s.group, share, tokens / s, s, b->budget.model.step_s);
    else
        fprintf(f, "mix: dense-every=%" PRId64 " dense-last=%g, %.3g%% of the steps dense\n"
                "  %.0f tokens/s  %.4g s a step on the average\n", b->s.dense_every,
                b->s.dense_last, 100 * share, tokens / s, s);
}

/* The kinds of steps that the options ask for, the sparse one first. */
static int all_kinds(struct bench *b, FILE *f, struct err *e)
{
    struct mix m = settings_mix(&b->s);
    int rc = one_kind(b, (enum attention_kind)b->s.attention, WARM_UP, f, e);

    if (rc < 0 || !mix_any(&m))
        return rc;
    if ((rc = one_kind(b, ATTN_DENSE, WARM_UP_SECOND, f, e)) == 0 && group_writes(b->t.d->group))
        say_mix(b, f);
    return rc;
}

/* Loads a model of random weights for one context, measures it and unloads it again, so that
 * the next context starts with the same free memory. */
static int one_context(struct bench *b, const struct session_options *so, FILE *f,
                       struct err *e)
{
    struct session *open = b->open;
    struct model_options o;
    char note[256];
    int rc;

    /* Every context starts from the sizes as read: resolving the settings changes them. */
    open->config = *so->sizes;
    rc = settings_resolve(&b->s, &open->config, 0, &o, note, sizeof note, e);
    if (b->s.mode == 2)
        open->config.tied = false;
    if (rc == 0 && *note)
        log_warn("%s", note);
    o.shards = b->t.d->group->size;
    if (rc == 0 && !(b->seconds = calloc((size_t)b->s.steps, sizeof *b->seconds)))
        rc = err_set(e, E_SYS, "out of memory");
    if (b->s.cp > 1 || b->s.shares > 1)
        rc = group_meet(b->t.d->group, rc, NULL, e);
    if (rc == 0)
        rc = parallel_choose(&b->s, open, &o, b->t.d->group->size, b->t.d->group, e);
    if (rc == 0 && (rc = session_plan(open, &o, e)) == 0 &&
        (rc = budget_make(&b->budget, open, 0, e)) == 0 &&
        (rc = model_fits(b->t.d, &open->plan, e)) == 0 &&
        (rc = session_load(open, so, e)) == 0) {
        b->t.m = open->model;
        rc = random_rows(b, e);
    }
    /* a rank that could not load must not leave the others waiting in the steps */
    if ((rc = group_meet(b->t.d->group, rc, NULL, e)) == 0) {
        rc = all_kinds(b, f, e);
        fflush(f);
    }
    segments_free(&b->t.seg);
    session_unload(open);
    lora_free(&b->s.lora);
    free(b->seconds);
    preset_batch_free(&b->batch);
    return rc;
}

int bench_run(const struct settings *s, FILE *f, struct err *e)
{
    struct llama_config c;
    struct session_options so = { .sizes = &c, .noise = true, .seed = (uint64_t)s->seed };
    struct session open = { 0 };
    struct device *d = &open.device;
    double rate = 0;
    struct group *g = s->machine.group ? s->machine.group : group_alone();
    struct settings own = *s;
    int rc = settings_check(s, e);

    if (rc == 0 && (rc = parallel_resolve(&own, g->size, e)) == 0 && own.cp == 0)
        rc = err_set(e, E_USAGE, "--bench measures one --cp at a time: give a number");
    s = &own;

    if (rc == 0)
        rc = bench_config(s, &c, e);
    if (rc == 0 && (rc = session_files(&open, &so, e)) == 0 &&
        (rc = plan_device(&open, s, s->machine.group, e)) == 0 &&
        (rc = rate_matrix(d, open.free_bytes / 8, &rate, e)) == 0)
        log_info("device=%s (%s), one large product %.4g TFLOP/s", d->name, d->detail,
                 1e-12 * rate);
    rc = group_meet(g, rc, NULL, e);
    for (int i = 0; i < (s->contexts.n ? s->contexts.n : 1) && rc == 0; i++) {
        struct bench b = { .s = *s, .open = &open, .matrix_rate = rate };

        b.s.ctx = s->contexts.n ? s->contexts.v[i] : config_reach(&c);
        b.s.steps = s->steps < 0 ? BENCH_STEPS : s->steps < MOST_STEPS ? s->steps : MOST_STEPS;
        b.s.warmup = 0;
        b.t.s = &b.s, b.t.d = d;
        rc = one_context(&b, &so, f, e);
    }
    session_close(&open);
    return rc;
}
