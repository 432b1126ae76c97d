/* tests/bench_train.c - a training step on the CPU: tokens a second, and the matrix products'
 * share of the time and of the rate that the same matrix library reaches on one big product.
 * usage: bench_train [threads [ctx [dim [layers]]]]    defaults: all, 512, 256, 4 */
#include "base/log.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const struct err *e)
{
    fprintf(stderr, "bench_train: %s\n", e->msg);
    exit(1);
}

/* GFLOP/s of one product of 2048 x 2048 x 2048. */
static double sgemm_rate(struct device *d)
{
    enum { N = 2048 };
    struct err e = {0};
    void *p;
    double best = 0;

    if (d->alloc(d, 3ul * N * N * 4, &p, &e) < 0)
        die(&e);
    for (int i = 0; i < 4; i++) {
        float *a = p, *b = a + N * N, *c = b + N * N;
        double t = now_s(), rate;
        d->gemm(d, &(struct op_gemm){ .trans_b = true, .m = N, .n = N, .k = N, .alpha = 1, .a = a,
            .lda = N, .b = mat_plain(DT_F32, b), .ldb = N, .c = c, .ldc = N, .c_type = DT_F32 });
        rate = 2e-9 * N * N * N / (now_s() - t);
        best = rate > best ? rate : best;
    }
    d->release(d, p);
    return best;
}

static void bench(struct device *d, const struct llama_config *c, enum train_mode mode,
                  enum attention_kind kind, int64_t ctx, int64_t keep, double peak)
{
    static const char *const modes[] = { "none", "full", "lora", "lora+" };
    int64_t seqs = ctx < 2048 ? 2048 / ctx : 1, rows = seqs * ctx, scored;
    int32_t *ids = malloc((size_t)rows * sizeof *ids);
    struct model_options o;
    struct segments seg = {0};
    struct model *m;
    struct err e = {0};
    double sum, t, flop = 0, gemm = 1, best = 1e9;

    model_defaults(&o);
    o.mode = mode;
    o.ctx = ctx;
    o.seqs = seqs;
    o.keep_layers = keep;
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(i * 7919 % c->vocab);
    if (model_open(&m, d, c, &o, &e) < 0 || model_init(m, 1, &e) < 0 ||
        segments_build(&seg, kind, seqs, ctx, ctx / 4, NULL, 0, &e) < 0)
        die(&e);
    for (int i = 0; i < 5; i++) {
        struct batch b = { .n_seqs = seqs, .len = ctx, .ids = ids, .targets = ids, .seg = &seg };
        const struct trained *tr = model_trained(m);
        double f0 = d->gemm_flop, g0 = d->gemm_s, s;

        t = now_s();
        d->zero(d, tr->grad, (size_t)tr->n * 4);
        if (model_step(m, &b, 1e-3, &sum, &scored, &e) < 0)
            die(&e);
        d->adamw(d, &(struct op_adamw){ .n = tr->n, .step = i + 1, .lr = 1e-6f, .beta1 = .9f,
            .beta2 = .95f, .eps = 1e-8f, .grad_scale = 1, .w = tr->w, .m = tr->m, .v = tr->v,
            .grad = tr->grad });
        s = now_s() - t;
        if (s < best) {
            best = s;
            flop = d->gemm_flop - f0;
            gemm = d->gemm_s - g0;
        }
    }
    printf("%-6s %-6s %7lld %4lld/%-4lld %10.0f %8.1f%% %9.1f %9.1f%% %9.1f%%\n", modes[mode],
           kind == ATTN_S2 ? "s2" : "dense", (long long)ctx,
           (long long)placement_layers(&model_memory(m)->placement, SAVE_ALL), (long long)c->layers,
           (double)rows / best,
           100 * gemm / best, flop / gemm * 1e-9, 100 * flop / gemm * 1e-9 / peak,
           100 * flop / best * 1e-9 / peak);
    segments_free(&seg);
    model_close(m);
    free(ids);
}

int main(int argc, char **argv)
{
    int64_t ctx = argc > 2 ? atoll(argv[2]) : 512, dim = argc > 3 ? atoll(argv[3]) : 256;
    struct llama_config c = { .vocab = 4096, .dim = dim, .ffn_dim = dim * 43 / 16,
        .layers = argc > 4 ? atoll(argv[4]) : 4, .heads = dim / 32, .kv_heads = dim / 32,
        .head_dim = 32, .context = ctx, .norm_eps = 1e-5, .init_range = .02,
        .rope = { .type = ROPE_DEFAULT, .theta = 1e4 } };
    struct device d;
    struct err e = {0};
    double peak;

    if (device_open(&d,
            &(struct device_options){ .name = "cpu", .threads = argc > 1 ? atoi(argv[1]) : 0 },
            &e) < 0)
        die(&e);
    peak = sgemm_rate(&d);
    printf("%s\none product of 2048^3: %.1f GFLOP/s; dim %lld, %lld layers, vocabulary %lld\n",
           d.detail, peak, (long long)dim, (long long)c.layers, (long long)c.vocab);
    printf("%-6s %-6s %7s %9s %10s %9s %9s %10s %10s\n", "mode", "attn", "ctx", "kept", "tokens/s",
           "in gemm", "GFLOP/s", "of peak", "step/peak");
    bench(&d, &c, TRAIN_FULL, ATTN_DENSE, ctx, c.layers, peak);
    bench(&d, &c, TRAIN_FULL, ATTN_S2, ctx, c.layers, peak);
    bench(&d, &c, TRAIN_LORA_PLUS, ATTN_S2, ctx, c.layers, peak);
    bench(&d, &c, TRAIN_LORA_PLUS, ATTN_S2, ctx, 0, peak);
    bench(&d, &c, TRAIN_LORA_PLUS, ATTN_S2, 4 * ctx, 0, peak);
    d.close(&d);
    return 0;
}
