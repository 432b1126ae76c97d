/* eval/bench_eval.c - see bench_eval.h. */
#include "eval/bench_eval.h"

#include "base/file.h"
#include "base/log.h"
#include "kernels/rate.h"
#include "model/flops.h"
#include "model/rope.h"
#include "model/trial.h"

#include <inttypes.h>
#include <stdlib.h>

enum { WARM_UP = 2 };

struct trial {
    struct device *d;
    struct model *m;
    struct segments seg;
    struct batch batch;
    double seconds[BENCH_WINDOWS], matrix_rate, loss;
};

static int measure(struct trial *t, struct err *e)
{
    int rc = 0;

    for (int i = -WARM_UP; i < BENCH_WINDOWS && rc == 0; i++) {
        double start = now_s(), nll;
        int64_t n;

        rc = model_forward(t->m, &t->batch, &nll, &n, e);
        if (rc == 0 && i >= 0)
            t->seconds[i] = now_s() - start, t->loss = nll / (double)n;
    }
    trial_sort(t->seconds, BENCH_WINDOWS);
    return rc;
}

static void say(const struct trial *t, bool json, size_t taken, FILE *f)
{
    const struct batch *b = &t->batch;
    double s = t->seconds[BENCH_WINDOWS / 2], rate = (double)(b->n_seqs * b->len) / s;
    double flop = model_flops(model_config(t->m), TRAIN_NONE, &t->seg) / s;
    const struct memory_plan *p = model_memory(t->m);
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
        fprintf(f, "; predicted %.4g s, of the host's memory %s pinned", p->step_s,
                fmt_bytes((double)p->host, host, sizeof host));
    fputc('\n', f);
}

static int one_context(struct trial *t, const struct ppl_options *o, struct llama_config *c,
                       int64_t ctx, bool json, FILE *f, struct err *e)
{
    int64_t n = o->batch_tokens / ctx > 1 ? o->batch_tokens / ctx : 1;
    struct model_options mo;
    struct memory_plan plan;
    size_t had = t->d->free_bytes(t->d), left;
    int rc = rope_extend(c, ctx, 0, e);

    model_defaults(&mo);
    mo.mode = TRAIN_NONE, mo.ctx = ctx, mo.seqs = n;
    mo.device_bytes = o->device_bytes, mo.host_bytes = o->host_bytes;
    if (rc == 0 && (rc = model_plan(t->d, c, &mo, &plan, e)) == 0 &&
        (rc = model_fits(t->d, &plan, e)) == 0 &&
        (rc = model_open(&t->m, t->d, c, &mo, e)) == 0 &&
        (rc = model_noise(t->m, 1, e)) == 0 &&
        (rc = trial_batch(&t->batch, n, ctx, c->vocab, &t->seg, e)) == 0 &&
        (rc = segments_build(&t->seg, ATTN_DENSE, n, ctx, ctx, NULL, 0, e)) == 0 &&
        (rc = measure(t, e)) == 0) {
        left = t->d->free_bytes(t->d);
        say(t, json, t->d->own_memory && had > left ? had - left : 0, f);
        fflush(f);
    }
    trial_free(&t->batch);
    segments_free(&t->seg);
    model_close(t->m);
    return rc;
}

static int sizes(struct llama_config *c, const struct ppl_options *o, int shape, struct err *e)
{
    char *path;
    int rc;

    if (shape >= 0) {
        trial_shape(c, shape);
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
    struct device d;
    double rate;
    int rc = sizes(&base, o, shape, e);

    if (rc < 0 || (rc = device_open(&d, o->device, o->threads, e)) < 0)
        return rc;
    if ((rc = rate_matrix(&d, d.free_bytes(&d) / 8, &rate, e)) == 0)
        log_info("device %s: %s, one large product %.4g TFLOP/s", d.name, d.detail, 1e-12 * rate);
    for (int64_t i = 0; i < (o->n_ctx ? o->n_ctx : 1) && rc == 0; i++) {
        struct trial t = { .d = &d, .matrix_rate = rate };
        struct llama_config c = base;

        rc = one_context(&t, o, &c, o->n_ctx ? o->ctx[i] : c.context, json, f, e);
    }
    d.close(&d);
    return rc;
}
