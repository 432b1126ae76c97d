/* tests/gpu/bench_windows.c - scoring windows of many lengths, as leval does documents: what it
 * costs to look for algorithms of products, an octave of rows at a time and, beside it, for every
 * number of rows, as it was before.
 * usage: bench_windows [WINDOWS [LAYERS [CTX [DEVICE]]]]   default: 200 8 8192 cuda
 * Exits with 1 where an octave's algorithms are more than 3% slower once all are found, where
 * finding them takes longer than the others', or where losses differ. */
#include "base/log.h"
#include "base/perm.h"
#include "eval/score.h"
#include "model/preset.h"
#include "model/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 3, ROUNDS = 3 };
static int (*real_gemm)(struct device *d, const struct op_gemm *a);
static int (*real_loss)(struct device *d, const struct op_loss *a);

static int exact_gemm(struct device *d, const struct op_gemm *a)
{
    struct op_gemm b = *a;

    b.varies = false;
    return real_gemm(d, &b);
}
static int exact_loss(struct device *d, const struct op_loss *a)
{
    struct op_loss b = *a;

    b.varies = false;
    return real_loss(d, &b);
}

static void die(const char *what, const struct err *e)
{
    printf("bench_windows: %s: %s\n", what, e->msg);
    exit(1);
}

struct window_set {
    int64_t n, rows;       /* of a batch, at most */
    int64_t *seqs, *len;
};

/* Lengths from 300 to the context, as leval rounds them, as many together as it may be. */
static void make_windows(struct window_set *w, int64_t n, int64_t ctx)
{
    *w = (struct window_set){ n, ctx, malloc((size_t)n * 8), malloc((size_t)n * 8) };
    for (int64_t i = 0; i < n && w->seqs && w->len; i++) {
        int64_t least = ctx < 300 ? 1 : 300;
        int64_t exact = least + (int64_t)(mix64((uint64_t)i) % (uint64_t)(ctx - least));
        w->len[i] = score_length(exact, ctx);
        w->seqs[i] = 1 + (int64_t)(mix64((uint64_t)(i + n)) % (uint64_t)(ctx / w->len[i]));
    }
}

static int64_t different_rows(const struct window_set *w)
{
    int64_t n = 0;

    for (int64_t i = 0; i < w->n; i++) {
        int64_t k = 0;
        while (k < i && w->seqs[k] * w->len[k] != w->seqs[i] * w->len[i])
            k++;
        n += k == i;
    }
    return n;
}

static double pass(struct session *s, const struct window_set *w, double *sum)
{
    int32_t *ids = malloc((size_t)w->rows * 4);
    struct err e = { 0 };
    double start, nll;
    int64_t n;

    for (int64_t i = 0; ids && i < w->rows; i++)
        ids[i] = (int32_t)(mix64((uint64_t)i) % (uint64_t)s->config.vocab);
    start = now_s();
    *sum = 0;
    for (int64_t i = 0; i < w->n; i++) {
        if (session_losses(s, w->seqs[i], w->len[i], ids, ids, NULL, &nll, &n, &e) < 0)
            die("scoring", &e);
        *sum += nll;
    }
    free(ids);
    return now_s() - start;
}

/* A device of its own, so that it knows of no shape yet. s[k]: seconds of pass k. */
static void run(const struct llama_config *c, const struct window_set *w, const char *device,
                bool exact, double s[PASSES], double *sum)
{
    struct session_options o = { .sizes = c, .noise = true, .seed = 1,
                                 .machine = { .device = device, .host_bytes = 0 } };
    struct session m = { 0 };
    struct err e = { 0 };

    model_defaults(&o.plan);
    o.plan.mode = TRAIN_NONE;
    o.plan.ctx = w->rows;
    if (session_open(&m, &o, &e) < 0)
        die("opening", &e);
    if (exact) {
        real_gemm = m.device.gemm, m.device.gemm = exact_gemm;
        real_loss = m.device.loss, m.device.loss = exact_loss;
    }
    for (int k = 0; k < PASSES; k++)
        s[k] = pass(&m, w, sum);
    session_close(&m);
}

int main(int argc, char **argv)
{
    /* the first round also pays for what a process loads once, and does not count */
    static const bool exact[ROUNDS] = { false, true, false };
    int64_t ctx = argc > 3 ? atoll(argv[3]) : 8192;
    double s[ROUNDS][PASSES], sum[ROUNDS], found[ROUNDS], steady[ROUNDS];
    struct llama_config c;
    struct window_set w;
    bool good;

    preset_config(&c, 0);
    c.layers = argc > 2 ? atoll(argv[2]) : 8;
    make_windows(&w, argc > 1 ? atoll(argv[1]) : 200, ctx);
    printf("%lld batches of windows, %lld different numbers of rows, %lld layers of Llama-2-7B\n",
           (long long)w.n, (long long)different_rows(&w), (long long)c.layers);
    for (int r = 0; r < ROUNDS; r++) {
        run(&c, &w, argc > 4 ? argv[4] : "cuda", exact[r], s[r], &sum[r]);
        steady[r] = fmin(s[r][1], s[r][2]);
        found[r] = s[r][0] - steady[r];
        printf("timed %s: first pass %.2f s, then %.2f and %.2f s: %.2f s to find kernels; "
               "loss %.6f\n", exact[r] ? "for every m    " : "once an octave ", s[r][0], s[r][1],
               s[r][2], found[r], sum[r]);
    }
    good = steady[2] <= 1.03 * steady[1] && found[2] <= found[1] &&
           fabs(sum[2] - sum[1]) <= 1e-3 * fabs(sum[1]);
    printf("RESULT windows: an octave %.2f s, every m %.2f s in the first pass (%.2f of it); then "
           "%.3f of its speed: %s\n", s[2][0], s[1][0], s[2][0] / s[1][0], steady[1] / steady[2],
           good ? "good" : "NOT GOOD");
    return !good;
}
