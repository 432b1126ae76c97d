/* tests/bench_packing.c - best-fit packing of documents with lognormal lengths: documents a
 * second, padding, and what cutting the joined text would have cut.
 * With BENCH_TABLE: the lines of bench-data's table, the slowest and the worst of all rows.
 * usage: bench_packing [documents]    default: 10 million */
#include "base/perm.h"
#include "tests/benchrow.h"
#include "train/pack_rows.h"

#include <math.h>

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

/* Best of five rounds of planning, in seconds of this thread; < 0 when it cannot be. */
static double plan(struct pack_rows *p, struct err *e)
{
    double best = 1e9;

    for (int epoch = 1; epoch <= (bench_table() ? 5 : 1); epoch++) {
        double t = cpu_s();
        if (pack_rows_plan(p, epoch, e) < 0)
            return -1;
        t = cpu_s() - t;
        best = t < best ? t : best;
    }
    return best;
}

static void rows(double slowest, double padding, bool lost)
{
    char ours[32];

    snprintf(ours, sizeof ours, "%.1f M docs/s", 1e-6 * slowest);
    bench_row("best-fit packing, rows of 2k to 128k", ours, "", 1e-6 * slowest, 20, 0,
              " M/s", false);
    snprintf(ours, sizeof ours, "%.5f%%", padding);
    bench_row("  its padding", ours, "", padding, 0.01, 0, "%", true);
    bench_row("  tokens lost", lost ? "some" : "none", "", lost, 0, 0, "", true);
}

int main(int argc, char **argv)
{
    int64_t n = argc > 1 ? atoll(argv[1]) : 10000000;
    double slowest = 1e18, worst = 0;
    struct err e = { 0 };
    bool lost = false;

    if (n < 1 || n > 1 << 30 || !(begin = malloc(((size_t)n + 1) * sizeof *begin))) {
        fprintf(stderr, "bench_packing: bad number of documents\n");
        return 64;
    }
    begin[0] = 0;
    for (int64_t i = 0; i < n; i++)
        begin[i + 1] = begin[i] + 1 + (int64_t)exp(6.2 + 1.2 * normal_at(1, (uint64_t)i));
    if (!bench_table())
        printf("%lld documents, %lld tokens\n%8s %14s %14s %12s %12s\n", (long long)n,
               (long long)begin[n], "ctx", "open docs/s", "epoch docs/s", "padding",
               "concat cuts");
    for (int64_t ctx = 2048; ctx <= 131072; ctx *= 4) {
        struct pack_rows p = { 0 };
        double t = cpu_s(), opened, planned, padding;

        if (pack_rows_open(&p, n, doc, NULL, ctx, 42, PACK_NEW, "bench", &e) < 0)
            break;
        opened = cpu_s() - t;
        if ((planned = plan(&p, &e)) < 0)
            break;
        padding = 100 - 100.0 * (double)p.tokens / (double)(p.rows * ctx);
        slowest = (double)n / planned < slowest ? (double)n / planned : slowest;
        worst = padding > worst ? padding : worst;
        lost |= p.tokens != begin[n];
        if (!bench_table())
            printf("%8lld %13.1fM %13.1fM %11.5f%% %11.1f%%\n", (long long)ctx,
                   1e-6 * (double)n / opened, 1e-6 * (double)n / planned, padding,
                   cut_by_concat(n, ctx));
        pack_rows_close(&p);
    }
    if (e.code)
        fprintf(stderr, "bench_packing: %s\n", e.msg);
    else if (bench_table())
        rows(slowest, worst, lost);
    free(begin);
    return -e.code;
}
