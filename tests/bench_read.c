/* tests/bench_read.c - verifying shards, and reading rows of them in shuffled order, from the
 * page cache: bytes and tokens a second.
 * One core is measured in its own time, all of them by the clock on the wall.
 * With BENCH_TABLE: lines of the table of bench-data.
 * usage: bench_read [MiB [folder]]    default: 1024 in $TMPDIR or /tmp; removed again */
#include "base/file.h"
#include "base/log.h"
#include "base/perm.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/manifest.h"
#include "tests/benchrow.h"
#include "train/order.h"
#include "train/rows.h"

#include <fcntl.h>
#include <unistd.h>

enum { SHARDS = 4, DOC_IDS = 3000, VOCAB = 32000 };

/* Documents of 0 .. 2 * DOC_IDS ids, until the shard has n tokens. */
static int fill(struct shard_writer *w, int64_t n, uint64_t seed, struct err *e)
{
    static uint32_t ids[2 * DOC_IDS];
    int rc = 0;

    for (uint64_t k = 0; n > 0 && rc == 0; k++) {
        struct token_doc d = { .ids = ids, .source = "bench", .name = "" };
        d.n_ids = (int64_t)(mix64(seed + k) % (2 * DOC_IDS));
        d.n_ids = d.n_ids < n ? d.n_ids : n;
        for (int64_t i = 0; i < d.n_ids; i++)
            ids[i] = (uint32_t)(mix64(seed ^ (k << 20) ^ (uint64_t)i) % VOCAB);
        n -= d.n_ids;
        rc = shard_write(w, &d, e);
    }
    return rc;
}

static int make(const char *folder, int64_t tokens, struct err *e)
{
    struct token_info info = { .width = 2, .vocab = VOCAB, .bos = 1, .eos = 2 };
    struct manifest *m = manifest_new();
    struct manifest_split *s = manifest_add_split(m, "train");
    int rc = 0;

    m->info = info;
    for (int i = 0; i < SHARDS && rc == 0; i++) {
        struct manifest_shard h = { 0 };
        struct shard_writer *w;
        struct shard_sums sums;
        snprintf(h.file, sizeof h.file, "train-%05d.shard", i);
        char *path = path_join(folder, h.file);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0)
            rc = err_sys(e, E_CREATE, "cannot create '%s'", path);
        else if ((rc = shard_create(&w, fd, path, &info, folder, e)) == 0 &&
                 (rc = fill(w, tokens / SHARDS, (uint64_t)i << 50, e)) == 0)
            rc = shard_finish(w, &sums, e);
        close(fd);
        free(path);
        if (rc < 0)
            break;
        h.bytes = sums.bytes, h.docs = sums.docs, h.tokens = sums.tokens;
        h.footer_hash = sums.footer_hash;
        memcpy(h.hash, sums.hash, sizeof h.hash);
        s->docs += sums.docs, s->tokens += sums.tokens;
        if ((rc = manifest_add_shard(s, &h, e)) == 0 &&
            source_add(&s->sources, "bench", sums.docs, sums.tokens, 0, e) < 0)
            rc = e->code;
    }
    if (rc == 0)
        rc = manifest_write(m, folder, e);
    manifest_free(m);
    return rc;
}

/* Best of five, in seconds: everything is in the page cache after the first. */
static int time_verify(const char *folder, int threads, double *best, struct err *e)
{
    struct pool *team = pool_open(threads, e);
    int rc = team ? 0 : e->code;

    *best = 1e9;
    for (int i = 0; i < 5 && rc == 0; i++) {
        struct dataset *d;
        double t = threads == 1 ? cpu_s() : now_s();
        if ((rc = dataset_open(&d, folder, NULL, 0, e)) < 0)
            break;
        rc = dataset_verify(d, team, e);
        dataset_close(d);
        t = (threads == 1 ? cpu_s() : now_s()) - t;
        *best = t < *best ? t : *best;
    }
    pool_close(team);
    return rc;
}

/* One epoch in the order that ltrain has: the first checks every block as it is touched. */
static int time_rows(struct dataset *d, int64_t ctx, bool whole_rows, double best[2],
                     struct err *e)
{
    struct order o;
    struct rows r;
    int64_t scored = 0;
    int rc = order_make(&o, dataset_tokens(d), ctx, 1, 42, "bench", e);

    if (rc < 0 || (rc = rows_open(&r, ctx, 1, VOCAB, false, e)) < 0)
        return rc;
    best[0] = best[1] = 1e9;
    for (int pass = 0; pass < 6 && rc == 0; pass++) {
        double t = cpu_s(), *b = &best[pass > 0];
        for (int64_t k = 0; k < o.rows && rc == 0; k++) {
            int64_t row = order_row(&o, pass * o.rows + k);
            rc = whole_rows ? rows_load(&r, 0, d, row, &scored, e)
                            : dataset_read(d, row * ctx, ctx, r.ids, NULL, e);
        }
        t = cpu_s() - t;
        *b = t < *b ? t : *b;
    }
    rows_close(&r);
    return rc;
}

/* A line of bench-data's table. */
static void row(const char *what, double got, double must, const char *unit)
{
    char ours[32];

    snprintf(ours, sizeof ours, "%.2f%s", got, unit);
    bench_row(what, ours, "", got, must, 0, unit, false);
}

static int run(const char *folder, int64_t mib, struct err *e)
{
    int64_t tokens = mib << 19;
    struct dataset *d;
    double best, pass[2];
    int rc = make(folder, tokens, e);

    for (int all = 0; all < (bench_table() ? 1 : 2) && rc == 0; all++)
        if ((rc = time_verify(folder, !all, &best, e)) == 0 && bench_table())
            row("verify, one core", 2e-9 * (double)tokens / best, 5, " GB/s");
        else if (rc == 0)
            printf("verify %lld MiB, %s: %.2f GB/s\n", (long long)mib,
                   all ? "all cores" : "one core", 2e-9 * (double)tokens / best);
    for (int whole = 0; whole < 2 && rc == 0; whole++)
        for (int64_t ctx = 4096; ctx <= 8192 && rc == 0; ctx *= 2) {
            if ((rc = dataset_open(&d, folder, NULL, 0, e)) < 0)
                break;
            rc = time_rows(d, ctx, whole, pass, e);
            dataset_close(d);
            if (rc == 0 && bench_table() && !whole && ctx == 8192)
                row("shuffled rows of 8192 tokens", 1e-9 * (double)tokens / pass[1], 2.5,
                    " G/s");
            else if (rc == 0 && !bench_table())
                printf("%s of %lld tokens, shuffled: %.2f G tokens/s; in a first epoch, which "
                       "checks blocks: %.2f\n", whole ? "rows with targets" : "plain rows",
                       (long long)ctx, 1e-9 * (double)tokens / pass[1],
                       1e-9 * (double)tokens / pass[0]);
        }
    return rc;
}

int main(int argc, char **argv)
{
    int64_t mib = argc > 1 ? atoll(argv[1]) : 1024;
    const char *in = argc > 2 ? argv[2] : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char *folder = path_join(in, "bench_read.XXXXXX");
    struct err e = { 0 }, ignored = { 0 };

    if (mib < 1 || mib > 1 << 20 || !mkdtemp(folder)) {
        fprintf(stderr, "bench_read: bad size, or no folder in '%s'\n", in);
        free(folder);
        return 64;
    }
    run(folder, mib, &e);
    dir_remove(folder, &ignored);
    free(folder);
    if (e.code)
        fprintf(stderr, "bench_read: %s\n", e.msg);
    return -e.code;
}
