/* tests/bench_packing.c - best-fit packing of documents with lognormal lengths: documents a
 * second, padding, and what cutting the joined text would have cut.
 * usage: bench_packing [documents]    default: 10 million */
#include "base/log.h"
#include "base/perm.h"
#include "train/pack_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t *begin;

static int doc(void *from, int64_t i, int64_t *start, int64_t *n_ids, struct err *e)
{
    (void)from, (void)e;
    *start = begin[i];
    *n_ids = begin[i + 1] - begin[i];
    return 0;
}

/* Documents that would fit into a row, and that rows cut from the joined text would cut. */
static double cut_by_concat(int64_t n, int64_t ctx)
{
    int64_t fit = 0, cut = 0;

    for (int64_t i = 0; i < n; i++)
        if (begin[i + 1] - begin[i] <= ctx && begin[i + 1] > begin[i]) {
            fit++;
            cut += begin[i] / ctx != (begin[i + 1] - 1) / ctx;
        }
    return 100.0 * (double)cut / (double)fit;
}

int main(int argc, char **argv)
{
    int64_t n = argc > 1 ? atoll(argv[1]) : 10000000;
    struct err e = { 0 };

    if (n < 1 || n > 1 << 30 || !(begin = malloc(((size_t)n + 1) * sizeof *begin))) {
        fprintf(stderr, "bench_packing: bad number of documents\n");
        return 64;
    }
    begin[0] = 0;
    for (int64_t i = 0; i < n; i++)
        begin[i + 1] = begin[i] + 1 + (int64_t)exp(6.2 + 1.2 * normal_at(1, (uint64_t)i));
    printf("%lld documents, %lld tokens\n%8s %14s %14s %12s %12s\n", (long long)n,
           (long long)begin[n], "ctx", "open docs/s", "epoch docs/s", "padding", "concat cuts");
    for (int64_t ctx = 2048; ctx <= 131072; ctx *= 4) {
        struct pack_rows p = { 0 };
        double t = now_s(), opened, planned;

        if (pack_rows_open(&p, n, doc, NULL, ctx, 42, "bench", &e) < 0)
            break;
        opened = now_s() - t;
        t = now_s();
        if (pack_rows_plan(&p, 1, &e) < 0)
            break;
        planned = now_s() - t;
        printf("%8lld %13.1fM %13.1fM %11.5f%% %11.1f%%\n", (long long)ctx,
               1e-6 * (double)n / opened, 1e-6 * (double)n / planned,
               100 - 100.0 * (double)p.tokens / (double)(p.rows * ctx), cut_by_concat(n, ctx));
        pack_rows_close(&p);
    }
    if (e.code)
        fprintf(stderr, "bench_packing: %s\n", e.msg);
    free(begin);
    return -e.code;
}
