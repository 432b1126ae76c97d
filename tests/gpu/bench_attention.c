/* tests/gpu/bench_attention.c - attention alone, forward and backward: cuDNN beside our own.
 * usage: bench_attention [CASE ...]   default: all */
#include "base/log.h"
#include "base/perm.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { DENSE, S2, DOCUMENTS };
struct bench_case {
    const char *name;
    enum kind kind;
    int64_t rows, heads, kv_heads, dim;
};

static const struct bench_case cases[] = {
    { "dense-8192", DENSE, 8192, 32, 32, 128 },
    { "dense-32768", DENSE, 32768, 32, 32, 128 },
    { "dense-8192-dim64", DENSE, 8192, 32, 32, 64 },
    { "dense-8192-gqa", DENSE, 8192, 32, 8, 128 },
    { "s2-8192", S2, 8192, 32, 32, 128 },
    { "s2-32768", S2, 32768, 32, 32, 128 },
    { "documents-8192", DOCUMENTS, 8192, 32, 32, 128 },
    { "documents-32768", DOCUMENTS, 32768, 32, 32, 128 },
    { "documents-32768-dim64", DOCUMENTS, 32768, 32, 8, 64 },
};

static void die(const char *what, const struct err *e)
{
    printf("bench_attention: %s: %s\n", what, e->msg);
    exit(1);
}

/* The lists of both halves; returns the pairs of rows that see each other, all heads. */
static double lists(const struct bench_case *c, struct op_segments seg[2], int64_t *room)
{
    double pairs = 0;

    for (int half = 0; half < 2; half++) {
        int64_t at = 0, n = 0, *cu = room + half * (c->rows + 1), group = c->rows / 4;
        while (at < c->rows) {
            int64_t len = c->kind == DENSE ? c->rows
                          : c->kind == S2  ? (half && at == 0 ? group / 2 : group)
                                           : 1 + (int64_t)(mix64((uint64_t)n) % 3999);
            len = len < c->rows - at ? len : c->rows - at;
            cu[n++] = at;
            at += len;
            pairs += (double)len * (double)(len + 1) / 2 * (double)(c->heads / 2);
        }
        cu[n] = c->rows;
        seg[half] = (struct op_segments){ .n = n, .cu = cu };
    }
    return pairs;
}

/* n numbers of about 1, bfloat16: a sum of uniform ones, the same every 1 Mi. */
static void *noise(struct device *d, int64_t n, uint64_t seed)
{
    enum { MOST = 1 << 20 };
    int64_t m = n < MOST ? n : MOST;
    uint16_t *h = malloc((size_t)m * 2);
    struct err e = { 0 };
    char *p;

    for (int64_t i = 0; i < m; i++) {
        uint64_t r = mix64(seed << 32 | (uint64_t)i);
        float x = (float)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff)) / 32768 - 3;
        uint32_t u;
        memcpy(&u, &x, 4);
        h[i] = (uint16_t)(u >> 16);
    }
    if (d->alloc(d, (size_t)n * 2, (void **)&p, &e) < 0)
        die("memory", &e);
    for (int64_t i = 0; i < n; i += m)
        d->to_device(d, p + 2 * i, h, (size_t)(n - i < m ? n - i : m) * 2);
    d->sync(d, &e);
    free(h);
    return p;
}

static double once(struct device *d, const struct op_attention_back *b, bool back)
{
    struct err e = { 0 };
    double start = now_s();
    int rc = back ? d->attention_back(d, b) : d->attention(d, &b->fwd);

    if (d->sync(d, &e) < 0 || rc < 0)
        die(back ? "backward" : "forward", &e);
    return now_s() - start;
}

/* The median of seven, after two that warm up. */
static double timed(struct device *d, const struct op_attention_back *b, bool back)
{
    double s[7];

    once(d, b, back), once(d, b, back);
    for (int i = 0; i < 7; i++) {
        double x = once(d, b, back);
        int at = i;
        while (at > 0 && s[at - 1] > x)
            s[at] = s[at - 1], at--;
        s[at] = x;
    }
    return s[3];
}

static float from_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;

    memcpy(&x, &u, 4);
    return x;
}

/* ||x - y|| / ||y|| of one number in 13, and leaves x in y, for the next to be held against. */
static double apart(struct device *d, const void *p, int64_t n, uint16_t *y, bool first)
{
    uint16_t *x = malloc((size_t)n * 2);
    double off = 0, norm = 0;

    d->to_host(d, x, p, (size_t)n * 2);
    for (int64_t i = 0; i < n && !first; i += 13) {
        double a = (double)from_bf16(x[i]), b = (double)from_bf16(y[i]);
        off += (a - b) * (a - b);
        norm += b * b;
    }
    memcpy(y, x, (size_t)n * 2);
    free(x);
    return norm > 0 ? sqrt(off / norm) : 0;
}

static void bench(struct device *gpu, const struct bench_case *c)
{
    struct device *d = &gpu[0];
    int64_t q_ld = c->heads * c->dim, kv_ld = c->kv_heads * c->dim;
    int64_t n[] = { c->rows * q_ld, c->rows * q_ld, c->rows * kv_ld, c->rows * kv_ld };
    int64_t *room = malloc((size_t)(c->rows + 1) * 2 * sizeof *room);
    uint16_t *was[4];
    struct op_segments seg[2];
    double flop = lists(c, seg, room) * (double)c->dim;
    struct op_attention_back b = {
        .fwd = { .q_rows = c->rows, .kv_rows = c->rows, .heads = c->heads,
                 .kv_heads = c->kv_heads, .dim = c->dim, .q_ld = q_ld, .kv_ld = kv_ld,
                 .scale = 1 / sqrtf((float)c->dim), .seg = { seg[0], seg[1] },
                 .q = noise(d, n[0], 1), .k = noise(d, n[2], 2), .v = noise(d, n[2], 3),
                 .o = noise(d, n[0], 4) },
        .d_o = noise(d, n[0], 5), .dq = noise(d, n[0], 6), .dk = noise(d, n[2], 7),
        .dv = noise(d, n[2], 8) };
    const void *out[] = { b.fwd.o, b.dq, b.dk, b.dv };
    size_t scratch_bytes = 0;
    struct err e = { 0 };

    for (int i = 0; i < 2; i++) {
        size_t s = gpu[i].attention_scratch_bytes(&gpu[i], c->rows, c->heads, c->kv_heads,
                                                   c->dim);
        scratch_bytes = s > scratch_bytes ? s : scratch_bytes;
    }
    if (d->alloc(d, (size_t)(c->rows * c->heads) * 4, (void **)&b.fwd.lse, &e) < 0 ||
        d->alloc(d, scratch_bytes, (void **)&b.scratch, &e) < 0)
        die("memory", &e);
    for (int k = 0; k < 4; k++)
        was[k] = malloc((size_t)n[k] * 2);
    for (int i = c->kind == DOCUMENTS; i < 2; i++) { /* cuDNN does not take documents */
        struct device *at = &gpu[i];
        double f = timed(at, &b, false), g = timed(at, &b, true), off[4];
        printf("RESULT %-22s %-5s forward %9.3f ms %4.0f TFLOP/s, backward %9.3f ms %4.0f TFLOP/s",
               c->name, i ? "own" : "cudnn", 1e3 * f, 4 * flop / f / 1e12, 1e3 * g,
               10 * flop / g / 1e12);
        for (int k = 0; k < 4; k++)
            off[k] = apart(at, out[k], n[k], was[k], i == (c->kind == DOCUMENTS));
        if (i > (c->kind == DOCUMENTS))
            printf(", apart: o %.4f dq %.4f dk %.4f dv %.4f", off[0], off[1], off[2], off[3]);
        printf("\n");
        fflush(stdout);
    }
    void *all[] = { (void *)(uintptr_t)b.fwd.q, (void *)(uintptr_t)b.fwd.k,
                    (void *)(uintptr_t)b.fwd.v, b.fwd.o, b.fwd.lse, (void *)(uintptr_t)b.d_o, b.dq,
                    b.dk, b.dv, b.scratch };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        d->release(d, all[i]);
    for (int k = 0; k < 4; k++)
        free(was[k]);
    free(room);
}

int main(int argc, char **argv)
{
    struct device gpu[2];
    struct err e = { 0 };

    for (int i = 0; i < 2; i++) {
        if (i)
            setenv("LONGLORA_CUDNN", "none", 1);
        if (device_open(&gpu[i], &(struct device_options){ .name = "cuda" }, &e) < 0)
            die("cuda", &e);
        printf("%s: %s\n", i ? "own" : "default", gpu[i].detail);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool wanted = argc < 2;
        for (int k = 1; k < argc; k++)
            wanted |= strcmp(argv[k], cases[i].name) == 0;
        if (wanted)
            bench(gpu, &cases[i]);
    }
    gpu[0].close(&gpu[0]);
    gpu[1].close(&gpu[1]);
    return 0;
}
