/* eval/bench_eval.c - see bench_eval.h. */
#include "eval/bench_eval.h"

#include "base/file.h"
#include "base/log.h"
#include "kernels/rate.h"
#include "model/flops.h"
#include "model/rope.h"
#include "model/preset.h"

#include <inttypes.h>
#include <stdlib.h>

enum { WARM_UP = 2 };

struct eval_bench {
    struct session s;
    struct batch batch;
    double seconds[BENCH_WINDOWS], matrix_rate, loss;
};

static int measure(struct eval_bench *t, struct err *e)
{
    int rc = 0;

    for (int i = -WARM_UP; i < BENCH_WINDOWS && rc == 0; i++) {
        double start = now_s(), nll;
        int64_t n;

        rc = session_losses(&t->s, t->batch.n_seqs, t->batch.len, t->batch.ids,
                            t->batch.targets, NULL, &nll, &n, e);
        if (rc == 0 && i >= 0)
            t->seconds[i] = now_s() - start, t->loss = nll / (double)n;
    }
    preset_sort(t->seconds, BENCH_WINDOWS);
    return rc;
}

static void say(const struct eval_bench *t, bool json, size_t taken, FILE *f)
{
    const struct batch *b = &t->batch;
    double s = t->seconds[BENCH_WINDOWS / 2], rate = (double)(b->n_seqs * b->len) / s;
    double flop = model_flops(&t->s.config, TRAIN_NONE, &t->s.seg) / s;
    const struct memory_plan *p = &t->s.plan;
    char mem[16], planned[16], host[16];

    if (json) { /* memory_bytes 0: the device has none of its own */
        fprintf(f, "{\"ctx\":%" PRId64 ",\"windows\":%" PRId64 ",\"tok_s\":%.1f,\"step_s\":%.6f,"
                "\"min_s\":%.6f,\"max_s\":%.6f,\"model_flop_s\":%.4g,\"matrix_flop_s\":%.4g,"
                "\"memory_bytes\":%zu,\"predicted_bytes\":%zu,\"predicted_s\":%.6f,"
                "\"pinned_bytes\":%zu,\"loss\":%.4f}\n", b->len, b->n_seqs, rate, s,
                t->seconds[0],
                t->seconds[BENCH_WINDOWS - 1], flop, t->matrix_rate, taken, p->total, p->step_s,
                p->host, t->loss);
        return;
    }
    fprintf(f, "ctx=%" PRId64 " windows=%" PRId64 "\n", b->len, b->n_seqs);
    fprintf(f, "  %.0f tokens/s  %.4g s (%.4g to %.4g)  loss %.4f\n", rate, s, t->seconds[0],
            t->seconds[BENCH_WINDOWS - 1], t->loss);
    fprintf(f, "  %.4g TFLOP/s of the model, %.0f%% of %.4g\n", 1e-12 * flop,
            100 * flop / t->matrix_rate, 1e-12 * t->matrix_rate);
    fprintf(f, "  memory %s predicted", fmt_bytes((double)p->total, planned, sizeof planned));
    if (taken)
        fprintf(f, ", %s taken", fmt_bytes((double)taken, mem, sizeof mem));
    if (p->step_s > 0)
        fprintf(f, "; predicted %.4g s, offload: %s of host memory pinned", p->step_s,
                fmt_bytes((double)p->host, host, sizeof host));
    fputc('\n', f);
}

static int one_context(struct eval_bench *t, const struct ppl_options *o,
                       const struct session_options *so, int64_t ctx, bool json, FILE *f,
                       struct err *e)
{
    int64_t n = o->batch_tokens / ctx > 1 ? o->batch_tokens / ctx : 1;
    struct device *d = &t->s.device;
    struct model_options mo;
    size_t had = d->free_bytes(d), left;
    int rc;

    t->s.config = *so->sizes;
    rc = rope_extend(&t->s.config, ctx, 0, e);

    model_defaults(&mo);
    mo.mode = TRAIN_NONE, mo.ctx = ctx, mo.seqs = n;
    machine_plan(&so->machine, &mo);
    if (rc == 0 && (rc = session_plan(&t->s, &mo, e)) == 0 &&
        (rc = model_fits(d, &t->s.plan, e)) == 0 && (rc = session_load(&t->s, so, e)) == 0 &&
        (rc = preset_batch(&t->batch, n, ctx, t->s.config.vocab, NULL, e)) == 0 &&
        (rc = measure(t, e)) == 0) {
        left = d->free_bytes(d);
        say(t, json, d->own_memory && had > left ? had - left : 0, f);
        fflush(f);
    }
    preset_batch_free(&t->batch);
    session_unload(&t->s);
    return rc;
}

static int sizes(struct llama_config *c, const struct ppl_options *o, int shape, struct err *e)
{
    char *path;
    int rc;

    if (shape >= 0) {
        preset_config(c, shape);
        return 0;
    }
    path = path_join(o->model, "config.json");
    rc = config_read(c, path, e);
    free(path);
    return rc;
}

int bench_eval(const struct ppl_options *o, int shape, bool json, FILE *f, struct err *e)
{
    struct llama_config base;
    struct session_options so = { .sizes = &base, .noise = true, .seed = 1,
                                  .machine = o->machine };
    struct eval_bench t = { 0 };
    int rc = sizes(&base, o, shape, e);

    if (rc == 0 && (rc = session_files(&t.s, &so, e)) == 0 &&
        (rc = session_device(&t.s, &so.machine, e)) == 0 &&
        (rc = rate_matrix(&t.s.device, t.s.free_bytes / 8, &t.matrix_rate, e)) == 0)
        log_info("device %s: %s, one large product %.4g TFLOP/s", t.s.device.name,
                 t.s.device.detail, 1e-12 * t.matrix_rate);
    for (int64_t i = 0; i < (o->n_ctx ? o->n_ctx : 1) && rc == 0; i++)
        rc = one_context(&t, o, &so, o->n_ctx ? o->ctx[i] : base.context, json, f, e);
    session_close(&t.s);
    return rc;
}
