/* tests/gpu/bench_step.c - training steps of the Llama-2-7B shape with random weights: speed,
 * memory, and where the time goes.
 * usage: bench_step [--dense] [--eval] [--keep N] [--tile N] [--chunk N] [--steps N] CTX ... */
#include "base/log.h"
#include "base/perm.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 32 };

static const struct llama_config llama = {
    .vocab = 32000, .dim = 4096, .ffn_dim = 11008, .layers = 32, .heads = 32, .kv_heads = 32,
    .head_dim = 128, .context = 1 << 20, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.02,
    .rope = { .type = ROPE_LINEAR, .theta = 1e4, .factor = 8 }
};

static struct model_options options;
static enum attention_kind kind = ATTN_S2;
static int64_t steps = 3;

static void die(const struct err *e)
{
    printf("bench_step: %s\n", e->msg);
    exit(1);
}

static void train_step(struct device *d, struct model *m, const struct batch *b, int64_t n,
                       double *loss)
{
    const struct trained *t = model_trained(m);
    struct op_adamw a = { t->n, n, 1e-4f, 0.9f, 0.95f, 1e-8f, 0, 1, t->w, t->m, t->v, t->grad };
    struct err e = { 0 };
    double sum = 0, squares = 0;
    int64_t scored = 0;
    int rc;

    if (options.mode == TRAIN_NONE) {
        if (model_forward(m, b, &sum, &scored, &e) < 0)
            die(&e);
        *loss = sum / (double)scored;
        return;
    }
    if ((rc = d->zero(d, t->grad, (size_t)t->n * 4)) < 0 ||
        (rc = model_step(m, b, 1.0 / (double)(b->len - 1), &sum, &scored, &e)) < 0 ||
        (rc = d->sum_squares(d, t->n, t->grad, &squares)) < 0 || (rc = d->adamw(d, &a)) < 0 ||
        (rc = model_sync_trained(m)) < 0 || d->sync(d, &e) < 0) {
        if (!e.code)
            d->sync(d, &e);
        die(&e);
    }
    *loss = sum / (double)scored;
    if (!isfinite(squares))
        printf("  gradient is not finite\n");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* One step more, every op timed. */
static void table(struct device *d, struct model *m, const struct batch *b)
{
    struct op_time was[32], now[32];
    int n = d->profile(d, true, was, 32);
    double start = now_s(), wall, loss, all = 0;

    train_step(d, m, b, steps + 3, &loss);
    wall = now_s() - start;
    d->profile(d, false, now, 32);
    for (int k = 0; k < n; k++) {
        double s = now[k].s - was[k].s, flop = now[k].flop - was[k].flop;
        all += now[k].beside ? 0 : s;
        if (now[k].calls > was[k].calls)
            printf("  %-15s %6lld calls %9.2f ms %5.1f%%  %.0f TFLOP/s\n", now[k].name,
                   (long long)(now[k].calls - was[k].calls), 1e3 * s, 100 * s / wall,
                   s > 0 ? flop / s / 1e12 : 0);
    }
    printf("  %-15s              %9.2f ms %5.1f%%\n", "between ops", 1e3 * (wall - all),
           100 * (wall - all) / wall);
}

static void bench(struct device *d, int64_t ctx)
{
    struct model_options o = options;
    struct segments seg = { 0 };
    struct err e = { 0 };
    struct model *m;
    size_t free_at_start = d->free_bytes(d);
    int32_t *ids = malloc((size_t)ctx * 4), *targets = malloc((size_t)ctx * 4);
    struct batch b = { 1, ctx, ids, targets, &seg, NULL };
    double s[MOST_STEPS], loss, start = now_s(), median, flop;

    for (int64_t i = 0; i < ctx; i++)
        ids[i] = (int32_t)(mix64((uint64_t)i) % (uint64_t)llama.vocab);
    for (int64_t i = 0; i < ctx; i++)
        targets[i] = i + 1 < ctx ? ids[i + 1] : -1;
    o.ctx = ctx;
    o.attention_span = kind == ATTN_S2 ? ctx / 4 : ctx;
    if (model_open(&m, d, &llama, &o, &e) < 0 ||
        segments_build(&seg, kind, 1, ctx, ctx / 4, NULL, 0, &e) < 0)
        die(&e);
    if (model_noise(m, 1, &e) < 0 || d->sync(d, &e) < 0)
        die(&e);
    printf("ctx %lld: ready in %.1f s, kept", (long long)ctx, now_s() - start);
    for (int k = 0; k < KEEP_LEVELS; k++)
        printf(" %lld", (long long)placing_kept(&model_memory(m)->placing, (enum keep)k));
    printf(" layers, plan %.1f GiB\n", (double)model_memory(m)->total / 0x1p30);
    start = now_s();
    train_step(d, m, &b, 1, &loss);
    printf("  first step %.2f s (plans, algorithms), loss %.4f\n", now_s() - start, loss);
    fflush(stdout);
    train_step(d, m, &b, 2, &loss);
    flop = d->gemm_flop;
    for (int64_t i = 0; i < steps; i++) {
        start = now_s();
        train_step(d, m, &b, i + 3, &loss);
        s[i] = now_s() - start;
    }
    flop = (d->gemm_flop - flop) / (double)steps;
    qsort(s, (size_t)steps, sizeof *s, by_value);
    median = s[steps / 2];
    printf("RESULT ctx %lld %s%s: %.0f tokens/s, %.3f s a step (%.3f to %.3f), %.1f GiB used, "
           "%.0f TFLOP/s, loss %.4f\n", (long long)ctx, kind == ATTN_S2 ? "s2" : "dense",
           o.mode == TRAIN_NONE ? " eval" : "", (double)ctx / median, median, s[0], s[steps - 1],
           (double)(free_at_start - d->free_bytes(d)) / 0x1p30, flop / median / 1e12, loss);
    table(d, m, &b);
    fflush(stdout);
    segments_free(&seg);
    model_close(m);
    free(ids), free(targets);
}

int main(int argc, char **argv)
{
    struct device d;
    struct err e = { 0 };

    model_defaults(&options);
    options.mlp_tile = 8192;
    options.loss_chunk = 2048;
    if (device_open(&d, "cuda", 0, &e) < 0)
        die(&e);
    printf("%s, %.1f GiB free\n", d.detail, (double)d.free_bytes(&d) / 0x1p30);
    for (int i = 1; i < argc; i++) {
        int64_t *to = NULL;
        if (strcmp(argv[i], "--dense") == 0)
            kind = ATTN_DENSE;
        else if (strcmp(argv[i], "--s2") == 0)
            kind = ATTN_S2;
        else if (strcmp(argv[i], "--eval") == 0)
            options.mode = TRAIN_NONE, kind = ATTN_DENSE;
        else if (strcmp(argv[i], "--keep") == 0)
            to = &options.keep_layers;
        else if (strcmp(argv[i], "--tile") == 0)
            to = &options.mlp_tile;
        else if (strcmp(argv[i], "--chunk") == 0)
            to = &options.loss_chunk;
        else if (strcmp(argv[i], "--steps") == 0)
            to = &steps;
        else
            bench(&d, strtoll(argv[i], NULL, 10));
        if (to && i + 1 < argc)
            *to = strtoll(argv[++i], NULL, 10);
        steps = steps < 1 ? 1 : steps > MOST_STEPS ? MOST_STEPS : steps;
    }
    d.close(&d);
    return 0;
}
