/* tests/gpu/bench_few.c - products of few rows on the GPU, each shape of a 7B by itself: GB/s of the matrix. */
#include "base/log.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More bytes than the L2 cache holds, so that a matrix comes from memory each time. */
enum { ROOM = 640 << 20, MOST_M = 16, MOST_K = 11008, MOST_N = 32000, WARM_UP = 20, TIMES = 200 };

struct shape {
    const char *name;
    int64_t n, k;
    int parts; /* products of n columns each, in one launch */
};

static int product(struct device *d, const struct shape *s, int64_t m, char *b, void *a, char *c)
{
    struct op_gemm g[3];

    for (int i = s->parts - 1; i >= 0; i--)
        g[i] = (struct op_gemm){ .trans_b = true, .m = m, .n = s->n, .k = s->k, .alpha = 1, .a = a, .lda = s->k,
            .b = mat_plain(DT_BF16, b + i * s->n * s->k * 2), .ldb = s->k, .c = c + i * s->n * MOST_M * 2,
            .ldc = s->n, .c_type = DT_BF16, .also = i + 1 < s->parts ? &g[i + 1] : NULL };
    return d->gemm(d, g);
}

static double rate(struct device *d, const struct shape *s, int64_t m, char *b, void *a, char *c)
{
    int64_t bytes = s->parts * s->n * s->k * 2, fit = ROOM / bytes;
    struct err e = { 0 };
    double start = 0;
    int rc = 0;

    for (int i = -WARM_UP; i < TIMES && rc == 0; i++) {
        if (i == 0)
            rc = d->sync(d, &e), start = now_s();
        rc = rc < 0 ? rc : product(d, s, m, b + (i + WARM_UP) % fit * bytes, a, c);
    }
    if (rc == 0)
        rc = d->sync(d, &e);
    return rc < 0 ? 0 : 1e-9 * (double)bytes * TIMES / (now_s() - start);
}

static int fill(struct device *d, char *to, int64_t bytes)
{
    enum { PIECE = 1 << 20 };
    uint16_t *x = malloc(PIECE);
    int rc = x ? 0 : E_SYS;

    for (int i = 0; x && i < PIECE / 2; i++)
        x[i] = (uint16_t)(0x3c00 | (rand() & 0x80ff)); /* of either sign, about 0.01 */
    for (int64_t at = 0; at < bytes && rc == 0; at += PIECE)
        rc = d->to_device(d, to + at, x, (size_t)(bytes - at < PIECE ? bytes - at : PIECE));
    free(x);
    return rc;
}

int main(void)
{
    static const struct shape v[] = { { "q, k, v", 4096, 4096, 3 }, { "o", 4096, 4096, 1 }, { "gate, up", 11008, 4096, 2 },
                                      { "down", 4096, 11008, 1 },   { "head", 32000, 4096, 1 },
                                      { "8B's q, k, v", 2048, 4096, 3 } };
    static const int64_t m[] = { 1, 2, 3, 4, 8, 16 };
    struct device d;
    struct err e = { 0 };
    void *a, *b, *c;
    int rc = device_open(&d, &(struct device_options){ .name = "cuda" }, &e);

    if (rc < 0) {
        fprintf(stderr, "# no GPU, skipped: %s\n", e.msg);
        return 0;
    }
    if (d.alloc(&d, MOST_M * MOST_K * 2, &a, NULL) < 0 || d.alloc(&d, (size_t)MOST_N * MOST_M * 2 * 2, &c, NULL) < 0 ||
        d.alloc(&d, ROOM, &b, NULL) < 0 || fill(&d, a, MOST_M * MOST_K * 2) < 0 || fill(&d, b, ROOM) < 0) {
        fprintf(stderr, "bench_few: no memory\n");
        return 70;
    }
    printf("# %s: GB/s of the matrix by rows\n%-14s", d.detail, "");
    for (size_t k = 0; k < sizeof m / sizeof *m; k++)
        printf(" %6lld", (long long)m[k]);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        printf("\n%-14s", v[i].name);
        for (size_t k = 0; k < sizeof m / sizeof *m; k++)
            printf(" %6.0f", rate(&d, &v[i], m[k], b, a, c));
    }
    putchar('\n');
    d.close(&d);
    return 0;
}
