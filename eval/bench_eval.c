/* eval/bench_eval.c - see bench_eval.h. */
#include "eval/bench_eval.h"

#include "base/log.h"
#include "eval/ppl.h"
#include "kernels/group.h"
#include "model/flops.h"
#include "model/preset.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Passes before measuring: the first also makes what is made once per shape. */
enum { WARM_UP = 2 };

struct eval_bench {
    struct eval *v;
    struct batch batch;
    double seconds[BENCH_WINDOWS], loss;
};

/* Ranks, or lines of those that share a window: each scores as many. */
static int scorers(const struct eval_bench *t)
{
    return t->v->s.device.group->size / (t->v->s.line ? t->v->s.line->size : 1);
}

/* Scores the same random windows again and again, and sorts the times. Ranks score as many each,
 * at the same time, and bring their losses together as a perplexity does. */
static int measure(struct eval_bench *t, struct err *e)
{
    struct group *g = t->v->s.device.group;
    size_t bytes = (size_t)(t->batch.n_seqs * t->batch.len) * sizeof(float);
    float *mine = malloc(bytes), *all = malloc(bytes * (size_t)g->size);
    int rc = mine && all ? 0 : err_set(e, E_SYS, "out of memory");

    for (int i = -WARM_UP; i < BENCH_WINDOWS && rc == 0; i++) {
        double start, nll;
        int64_t n;

        if ((rc = group_meet(g, rc, NULL, e)) < 0)
            break;
        start = now_s();
        rc = session_losses(&t->v->s, t->batch.n_seqs, t->batch.len, t->batch.ids,
                            t->batch.targets, mine, &nll, &n, e);
        if ((rc = group_meet(g, rc, NULL, e)) == 0)
            rc = g->gather(g, mine, all, bytes, e);
        if (rc == 0 && i >= 0)
            t->seconds[i] = now_s() - start, t->loss = nll / (double)n;
    }
    free(mine);
    free(all);
    preset_sort(t->seconds, BENCH_WINDOWS);
    return rc;
}

/* Prints the median, and the fastest and slowest pass. taken: bytes of device memory, or 0. */
static void say(const struct eval_bench *t, bool json, size_t taken, FILE *f)
{
    const struct batch *b = &t->batch;
    /* The median: one slow pass does not move it. */
    int ranks = t->v->s.device.group->size, each = scorers(t);
    double s = t->seconds[BENCH_WINDOWS / 2], rate = (double)(b->n_seqs * b->len) * each / s;
    double flop = model_flops(&t->v->s.config, TRAIN_NONE, &t->v->s.seg) / s;
    const struct memory_plan *p = &t->v->s.plan;
    char mem[16], planned[16], host[16];

    if (json) { /* memory_bytes 0: the device has none of its own */
        fprintf(f, "{\"ctx\":%" PRId64 ",\"windows\":%" PRId64 ",\"tok_s\":%.1f,\"step_s\":%.6f,"
                "\"min_s\":%.6f,\"max_s\":%.6f,\"model_flop_s\":%.4g,\"matrix_flop_s\":%.4g,"
                "\"memory_bytes\":%zu,\"predicted_bytes\":%zu,\"predicted_s\":%.6f,"
                "\"pinned_bytes\":%zu,\"loss\":%.4f,\"ranks\":%d}\n", b->len, b->n_seqs, rate, s,
                t->seconds[0],
                t->seconds[BENCH_WINDOWS - 1], flop, t->v->matrix_rate, taken, p->total, p->step_s,
                p->host, t->loss, ranks);
        return;
    }
    fprintf(f, "ctx=%" PRId64 " windows=%" PRId64, b->len, b->n_seqs);
    if (ranks > each)
        fprintf(f, " on each of %d x %d ranks that share it", each, ranks / each);
    else if (ranks > 1)
        fprintf(f, " on each of %d ranks, operations and memory of one", ranks);
    fputc('\n', f);
    fprintf(f, "  %.0f tokens/s  %.4g s (%.4g to %.4g)  loss %.4f\n", rate, s, t->seconds[0],
            t->seconds[BENCH_WINDOWS - 1], t->loss);
    fprintf(f, "  %.4g TFLOP/s of the model, %.0f%% of %.4g\n", 1e-12 * flop,
            100 * flop / t->v->matrix_rate, 1e-12 * t->v->matrix_rate);
    fprintf(f, "  memory %s predicted", fmt_bytes((double)p->total, planned, sizeof planned));
    if (taken)
        fprintf(f, ", %s taken", fmt_bytes((double)taken, mem, sizeof mem));
    if (p->step_s > 0)
        fprintf(f, "; predicted %.4g s, offload: %s of host memory pinned", p->step_s,
                fmt_bytes((double)p->host, host, sizeof host));
    fputc('\n', f);
}

/* A task's run function: eval_run loads the model for context i before calling it. */
static int bench_context(struct eval *v, int64_t i, int64_t unused, struct err *e)
{
    struct eval_bench t = { .v = v };
    int rc = preset_batch(&t.batch, v->s.options.seqs, v->ctx[i], v->s.config.vocab, NULL, e);

    (void)unused;
    if (rc == 0 && (rc = measure(&t, e)) == 0) {
        if (group_writes(v->s.device.group))
            say(&t, v->o->json, eval_taken(v), stdout);
        /* Each context is shown as soon as it is measured. */
        fflush(stdout);
    }
    preset_batch_free(&t.batch);
    return rc;
}

/* Set by --bench. */
static bool asked;
static const struct opt rows[] = {
    { 0, "bench", NULL, OPT_FLAG, &asked, 0, 0,
      "measure scoring with random weights, without data" },
    OPT_END
};

static bool is_asked(const struct eval_options *o)
{
    (void)o;
    return asked;
}

/* Refuses options that --bench would ignore. */
static int check(const struct eval_options *o, struct err *e)
{
    const struct ppl_options *p = ppl_asked();

    if (p->table || p->data.path || o->n_operands || !o->model == (o->shape < 0))
        return err_set(e, E_USAGE, "--bench takes either --shape or --model, and no data");
    if (!o->adapter && !o->out && !p->plot && !p->chart && !p->by_position)
        return 0;
    err_set(e, E_USAGE, "--bench measures only speed: leave out --%s",
            o->adapter ? "adapter" : o->out ? "output" : p->plot ? "plot"
            : p->chart ? "chart" : "by-position");
    return err_hint(e, "it prints to standard output; --json prints JSON lines");
}

const struct task task_bench = { .name = "bench", .help = "the speed of this machine",
                                 .rows = rows, .needs = NEEDS_SIZES, .is_asked = is_asked,
                                 .check = check, .run = bench_context };
