/* tests/bench_ops.c - speeds of the CPU device's ops: bench_ops [threads [g|a|f]]. */
#include "base/log.h"
#include "base/perm.h"
#include "kernels/kernels.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each measurement is the best of several runs that together last about this long. */
static const double measure_s = 0.4;

typedef void work_fn(void *ctx);

/* Best times of one or two ways to do the same, in turn, so that both meet the same machine. */
static void best_of(work_fn *fn, work_fn *other, void *ctx, double best[2])
{
    double start = now_s();

    best[0] = best[1] = 1e30;
    fn(ctx);
    do {
        for (int i = 0; i < (other ? 2 : 1); i++) {
            double t = now_s();
            (i ? other : fn)(ctx);
            t = now_s() - t;
            best[i] = t < best[i] ? t : best[i];
        }
    } while (now_s() - start < measure_s);
}

static double best_s(work_fn *fn, void *ctx)
{
    double best[2];

    best_of(fn, NULL, ctx, best);
    return best[0];
}

static float *random_block(struct device *d, int64_t n)
{
    struct err e = { 0 };
    void *p;

    if (d->alloc(d, (size_t)n * sizeof(float), &p, &e) < 0) {
        fprintf(stderr, "bench_ops: %s\n", e.msg);
        exit(71);
    }
    for (int64_t i = 0; i < n; i++)
        ((float *)p)[i] = (float)(mix64((uint64_t)i) >> 40) * 0x1p-23f - 1.0f;
    return p;
}

/* OpenBLAS itself: the device loaded the same library, so this finds it and its state. */
struct plain {
    void (*sgemm)(int, int, int, int, int, int, float, const float *, int, const float *, int,
                  float, float *, int);
    void (*set_threads)(int);
    int threads;
};

static struct plain plain_blas(int threads)
{
    struct plain p = { NULL, NULL, threads };
    void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_NOLOAD), *f;

    if (!lib)
        return p;
    f = dlsym(lib, "cblas_sgemm");
    memcpy(&p.sgemm, &f, sizeof f);
    f = dlsym(lib, "openblas_set_num_threads");
    memcpy(&p.set_threads, &f, sizeof f);
    return p;
}

struct product {
    struct device *d;
    struct plain plain;
    struct op_gemm op;
};

static void ours(void *ctx)
{
    struct product *p = ctx;
    p->d->gemm(p->d, &p->op);
}

static void theirs(void *ctx)
{
    const struct product *p = ctx;
    const struct op_gemm *g = &p->op;

    p->plain.set_threads(p->plain.threads);
    p->plain.sgemm(101, g->trans_a ? 112 : 111, g->trans_b ? 112 : 111, (int)g->m, (int)g->n,
                   (int)g->k, g->alpha, g->a, (int)g->lda, g->b.data, (int)g->ldb, g->beta, g->c,
                   (int)g->ldc);
    p->plain.set_threads(1);
}

static void bench_gemm(struct device *d, struct plain plain, bool ta, bool tb, int64_t m,
                       int64_t n, int64_t k)
{
    float *a = random_block(d, m * k), *b = random_block(d, k * n), *c = random_block(d, m * n);
    struct product p = { d, plain,
                         { ta, tb, m, n, k, 1, 0, a, mat_plain(DT_F32, b), c, ta ? m : k, tb ? k : n, n,
                           DT_F32, NULL } };
    double gflop = 2e-9 * (double)m * (double)n * (double)k, best[2];

    best_of(ours, plain.sgemm ? theirs : NULL, &p, best);
    printf("gemm %c%c  m %5lld  n %5lld  k %5lld   %7.1f GFLOP/s", ta ? 'T' : 'N',
           tb ? 'T' : 'N', (long long)m, (long long)n, (long long)k, gflop / best[0]);
    if (plain.sgemm)
        printf("   OpenBLAS %7.1f   %3.0f%%", gflop / best[1], 100 * best[1] / best[0]);
    printf("\n");
    fflush(stdout);
    d->release(d, a), d->release(d, b), d->release(d, c);
}

static void bench_gemms(struct device *d, struct plain plain)
{
    static const int64_t sizes[][3] = { /* rows, width, MLP width */
        { 1024, 256, 688 }, { 4096, 256, 688 }, { 2048, 1024, 2816 }, { 1024, 4096, 11008 } };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t t = sizes[i][0], w = sizes[i][1], f = sizes[i][2];
        bench_gemm(d, plain, false, true, t, w, w);   /* y = x W^T */
        bench_gemm(d, plain, false, false, t, w, w);  /* dx = dy W */
        bench_gemm(d, plain, true, false, w, w, t);   /* dW = dy^T x */
        bench_gemm(d, plain, false, true, t, f, w);   /* MLP up */
        bench_gemm(d, plain, false, true, t, w, f);   /* MLP down */
        bench_gemm(d, plain, false, true, t, 8, w);   /* LoRA: x A^T */
        bench_gemm(d, plain, false, true, t, w, 8);   /* LoRA: (x A^T) B^T */
        bench_gemm(d, plain, true, false, 8, w, t);   /* dA */
        bench_gemm(d, plain, true, false, w, 8, t);   /* dB */
    }
    bench_gemm(d, plain, false, true, 1024, 32000, 256);
}

struct attention {
    struct device *d;
    struct op_attention_back b;
};

static void attend(void *ctx)
{
    struct attention *a = ctx;
    a->d->attention(a->d, &a->b.fwd);
}

static void attend_back(void *ctx)
{
    struct attention *a = ctx;
    a->d->attention_back(a->d, &a->b);
}

/* group 0: dense. Rates count the products of scored pairs only: 2 forward, 5 backward. */
static void bench_attention(struct device *d, int64_t t, int64_t heads, int64_t kv, int64_t dim,
                            int64_t group)
{
    int64_t cu[2][16] = { { 0, t }, { 0, t } }, n[2] = { 1, 1 }, q = t * heads * dim;
    float *x = random_block(d, 4 * q + 4 * t * kv * dim + 2 * heads * t), *k = x + 4 * q;
    float *rest = k + 4 * t * kv * dim;
    struct attention a = { d, { { .q_rows = t, .kv_rows = t, .heads = heads, .kv_heads = kv, .dim = dim,
                                  .q_ld = heads * dim, .kv_ld = kv * dim, .scale = 0.1f,
                                  .seg = { { .cu = cu[0] }, { .cu = cu[1] } }, .q = x, .k = k,
                                  .v = k + t * kv * dim, .o = x + q, .lse = rest },
                                x + 2 * q, x + 3 * q, k + 2 * t * kv * dim,
                                k + 3 * t * kv * dim, rest + heads * t } };
    double pairs = 0, f, b, products;

    for (int h = 0; h < 2 && group > 0; h++) {
        n[h] = 1;
        for (int64_t at = h ? group / 2 : group; at < t; at += group)
            cu[h][n[h]++] = at;
        cu[h][n[h]] = t;
    }
    for (int h = 0; h < 2; h++) {
        a.b.fwd.seg[h].n = n[h];
        for (int64_t i = 0; i < n[h]; i++) {
            double len = (double)(cu[h][i + 1] - cu[h][i]);
            pairs += len * (len + 1) / 2 * (double)heads / 2;
        }
    }
    f = best_s(attend, &a);
    b = best_s(attend_back, &a);
    d->gemm_s = 0;
    attend_back(&a);
    products = d->gemm_s;
    printf("attention %s  T %5lld  heads %2lld/%-2lld dim %3lld  forward %6.1f  backward %6.1f "
           "GFLOP/s (%.0f%% in products)\n", group ? "s2   " : "dense", (long long)t,
           (long long)heads, (long long)kv, (long long)dim, 4e-9 * (double)dim * pairs / f,
           10e-9 * (double)dim * pairs / b, 100 * products / b);
    fflush(stdout);
    d->release(d, x);
}

enum { N = 1 << 22, WIDE = 1024 };
struct flat {
    struct device *d;
    float *x[5];
    int32_t *ids;
    double sum;
};
static void do_add(void *c)
{
    struct flat *f = c;
    f->d->add(f->d, &(struct op_add){ N, f->x[0], f->x[1] });
}
static void do_sum(void *c)
{
    struct flat *f = c;
    f->d->sum_squares(f->d, &(struct op_sum_squares){ N, f->x[0], &f->sum });
}
static void do_cast(void *c)
{
    struct flat *f = c;
    f->d->cast(f->d, N, f->x[0], DT_F32, f->x[4], DT_BF16);
}
static void do_swiglu(void *c)
{
    struct flat *f = c;
    struct op_swiglu a = { N, f->x[0], f->x[1], f->x[4], GATE_SILU };
    f->d->swiglu(f->d, &a);
}
static void do_swiglu_back(void *c)
{
    struct flat *f = c;
    struct op_swiglu_back a = { N, f->x[0], f->x[1], f->x[2], f->x[3], f->x[4], NULL, GATE_SILU };
    f->d->swiglu_back(f->d, &a);
}
static void do_norm(void *c)
{
    struct flat *f = c;
    struct op_rmsnorm a = { N / WIDE, WIDE, 1e-5f, f->x[0], f->x[1], f->x[4], f->x[3], NULL, 0 };
    f->d->rmsnorm(f->d, &a);
}
static void do_norm_back(void *c)
{
    struct flat *f = c;
    struct op_rmsnorm_back a = { N / WIDE, WIDE, f->x[0], f->x[2], f->x[1], f->x[3], f->x[4],
                                 f->x[3] + N / 2, false, 0 };
    f->d->rmsnorm_back(f->d, &a);
}
static void do_rope(void *c)
{
    struct flat *f = c;
    struct op_rope a = { N / WIDE, WIDE, WIDE / 64, 64, 0, N / WIDE, false, 1, f->x[2],
                         f->x[0], 0, 0, NULL, 0 };
    f->d->rope(f->d, &a);
}
static void do_embed_back(void *c)
{
    struct flat *f = c;
    struct op_embed_back a = { N / WIDE, WIDE, N / WIDE, f->ids, f->x[0], f->x[4] };
    f->d->embed_back(f->d, &a);
}
static void do_adamw(void *c)
{
    struct flat *f = c;
    struct op_adamw a = { N, 1, 1e-6f, 0.9f, 0.95f, 1e-8f, 0, 1, f->x[4], f->x[2], f->x[3],
                          f->x[0] };
    f->d->adamw(f->d, &a);
}

static void bench_flat(struct device *d)
{
    static const struct { const char *name; work_fn *fn; int bytes; } v[] = { /* an element */
        { "add", do_add, 12 }, { "sum_squares", do_sum, 4 }, { "cast to bf16", do_cast, 6 },
        { "rmsnorm", do_norm, 8 }, { "rmsnorm_back", do_norm_back, 16 }, { "rope", do_rope, 8 },
        { "swiglu", do_swiglu, 12 }, { "swiglu_back", do_swiglu_back, 20 },
        { "embed_back", do_embed_back, 12 }, { "adamw", do_adamw, 28 } };
    struct flat f = { .d = d };

    for (int i = 0; i < 5; i++)
        f.x[i] = random_block(d, N);
    f.ids = (int32_t *)random_block(d, N / WIDE);
    for (int64_t i = 0; i < N / WIDE; i++)
        f.ids[i] = (int32_t)(mix64((uint64_t)i) % (N / WIDE));
    for (int64_t i = 0; i < N; i++)
        f.x[3][i] = f.x[3][i] * f.x[3][i];
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        double s = best_s(v[i].fn, &f);
        printf("%-14s %6.2f ns/element  %6.1f GB/s\n", v[i].name, s * 1e9 / N,
               v[i].bytes * (double)N / s / 1e9);
        fflush(stdout);
    }
    for (int i = 0; i < 5; i++)
        d->release(d, f.x[i]);
    d->release(d, f.ids);
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    struct device d;
    const char *only = argc > 2 ? argv[2] : "";
    int threads = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);

    log_init("bench_ops", 0);
    if (device_open(&d,
                    &(struct device_options){ .name = "cpu", .threads = threads }, &e) < 0) {
        fprintf(stderr, "bench_ops: %s\n", e.msg);
        return -e.code;
    }
    printf("%s\n", d.detail);
    if (!*only || strchr(only, 'g'))
        bench_gemms(&d, plain_blas(threads));
    if (!*only || strchr(only, 'a')) {
        bench_attention(&d, 1024, 8, 8, 32, 0);
        bench_attention(&d, 4096, 8, 8, 32, 0);
        bench_attention(&d, 4096, 8, 8, 32, 1024);
        bench_attention(&d, 2048, 16, 4, 64, 0);
        bench_attention(&d, 4096, 8, 1, 128, 1024);
        bench_attention(&d, 2048, 8, 1, 128, 0);
    }
    if (!*only || strchr(only, 'f'))
        bench_flat(&d);
    d.close(&d);
    return 0;
}
