/* tests/bench_spm.c - encoding beside libsentencepiece, in one run: bench_spm [model [MB]].
 * With BENCH_TABLE: the lines of bench-data's table, the best of three rounds of both. */
#include "formats/tokenizer/splib.h"
#include "formats/tokenizer/spm.h"
#include "formats/tokenizer/spmodel.h"
#include "tests/benchrow.h"
#include "tests/spmtest.h"

/* libsentencepiece is given this much of a text: it takes seconds for it. */
#define THEIR_BYTES ((size_t)3 << 20)

static struct spm *ours;
static struct splib *theirs;

static int die(const struct err *e)
{
    fprintf(stderr, "bench_spm: %s\n", e->msg);
    exit(-e->code);
}

/* MB/s of our encoding of n bytes in documents of doc_bytes; 0 for the whole at once. */
static double our_rate(struct spm_cache *c, const char *p, size_t n, size_t doc_bytes,
                       int64_t *n_ids)
{
    struct spm_ids ids = { 0 };
    struct err e = { 0 };
    double start = cpu_s();

    *n_ids = 0;
    for (size_t at = 0, k; at < n; at += k, *n_ids += ids.len) {
        k = doc_bytes && doc_bytes < n - at ? doc_bytes : n - at;
        ids.len = 0;
        if (spm_encode(ours, c, p + at, k, &ids, &e) < 0)
            die(&e);
    }
    start = cpu_s() - start;
    spm_ids_free(&ids);
    return (double)n / start * 1e-6;
}

static double their_rate(const char *p, size_t n, size_t doc_bytes, int64_t *n_ids)
{
    struct err e = { 0 };
    double start = cpu_s();

    *n_ids = 0;
    for (size_t at = 0, k; at < n; at += k) {
        int32_t *ids;
        int64_t m;

        k = doc_bytes && doc_bytes < n - at ? doc_bytes : n - at;
        if (splib_encode(theirs, p + at, k, &ids, &m, &e) < 0)
            die(&e);
        free(ids);
        *n_ids += m;
    }
    return (double)n / (cpu_s() - start) * 1e-6;
}

static void measure(const char *what, const struct buf *text, size_t doc_bytes)
{
    static const char *const names[] = { "plain", "avx2", "avx512" };
    size_t some = text->len < THEIR_BYTES ? text->len : THEIR_BYTES;
    int64_t n, their_n, our_n;
    double lib = their_rate(text->p, some, doc_bytes, &their_n);

    for (int level = SPM_PLAIN; level <= (int)spm_best_level(); level++) {
        struct spm_cache *c;
        struct err e = { 0 };
        double cold, warm;

        if (spm_cache_open(&c, &e) < 0)
            die(&e);
        spm_cache_level(c, (enum spm_level)level);
        cold = our_rate(c, text->p, text->len, doc_bytes, &n);
        warm = our_rate(c, text->p, text->len, doc_bytes, &n);
        our_rate(c, text->p, some, doc_bytes, &our_n);
        printf("%-26s %6.1f MB  %-6s cold %7.1f MB/s  warm %7.1f  library %6.2f  ratio %5.0f"
               "  %5.1f Mtok/s%s\n", what, (double)text->len * 1e-6, names[level], cold, warm,
               lib, cold / lib, (double)n / (double)text->len * cold,
               our_n == their_n ? "" : "  IDS DIFFER");
        fflush(stdout);
        spm_cache_close(c);
    }
}

/* A line of the table. must and aim: of the ratio, or, with rate, of our MB/s. */
static void row(const char *what, const struct buf *text, size_t doc_bytes, double must,
                double aim, bool rate)
{
    size_t some = text->len < THEIR_BYTES ? text->len : THEIR_BYTES;
    double best = 0, lib = 0;
    int64_t n, our_n, their_n;
    char mine[32], peer[32];
    struct err e = { 0 };

    for (int round = 0; round < 3; round++) {
        struct spm_cache *c;
        double r = their_rate(text->p, some, doc_bytes, &their_n);

        lib = r > lib ? r : lib;
        if (spm_cache_open(&c, &e) < 0)
            die(&e);
        r = our_rate(c, text->p, text->len, doc_bytes, &n);
        best = r > best ? r : best;
        our_rate(c, text->p, some, doc_bytes, &our_n);
        spm_cache_close(c);
        if (our_n != their_n) {
            fprintf(stderr, "bench_spm: %s: the ids differ\n", what);
            exit(1);
        }
    }
    snprintf(mine, sizeof mine, "%.*f MB/s", best < 100, best);
    snprintf(peer, sizeof peer, "library %.2f", lib);
    bench_row(what, mine, peer, rate ? best : best / lib, must, aim, rate ? " MB/s" : "x", false);
}

static void open_model(const char *folder, const char *name)
{
    struct buf b = { 0 };
    struct spmodel m;
    struct err e = { 0 };
    double start;

    if (read_some(&b, SPMODEL_MAX_BYTES, folder, name, "*", &e) < 0)
        die(&e);
    start = cpu_s();
    if (spm_parse(&ours, b.p, b.len, name, &e) < 0)
        die(&e);
    start = cpu_s() - start;
    if (spmodel_check(&m, b.p, b.len, &e) < 0 || splib_parse(&theirs, b.p, b.len, &e) < 0)
        die(&e);
    if (!bench_table())
        printf("%s: %lld pieces, read in %.1f ms\n", name, (long long)spm_vocab(ours),
               start * 1e3);
    buf_free(&b);
}

/* At most max bytes of text: books of the data, headers of this machine, Python's library. */
static void read_text(struct buf *text, size_t max, const char *data, const char *kind)
{
    static const char *const books[] = { "pg19/pg19-validation.tar.zst",
                                         "pg19/pg19-test.tar.zst",
                                         "pg19/pg19-train.tar.zst",
                                         "pg19/pg19-train-more.tar.zst" };
    struct err e = { 0 };

    text->len = 0;
    for (int i = 0; i < 4 && *kind == 'b'; i++)
        if (read_some(text, max, data, books[i], NULL, &e) < 0)
            die(&e);
    if (*kind == 'h')
        read_some(text, max, "/usr", "include", "*.h", &e);
    if (*kind == 'p')
        read_some(text, max, "/usr", "lib/python3", "*.py", &e);
    if (*kind == 'l')
        read_some(text, max, data, "proof-pile/train", NULL, &e);
    if (*kind == 'r' && add_pieces(text, ours, max, 1, &e) < 0)
        die(&e);
    if (*kind == 'a' && buf_reserve(text, max, &e) == 0) {
        memset(text->p, 'a', max);
        text->len = max;
    }
}

static const struct {
    const char *kind, *what;
    size_t max, doc_bytes; /* max: share of the megabytes asked for, in 1/100 */
    double must, aim;      /* must 0: not in the table */
    bool rate;
} texts[] = {
    { "books", "books, 20 kB a document", 100, 20000, 80, 120, false },
    { "books", "books, 1 MB", 100, 1000000, 150, 250, false },
    { "books", "books, 150 B", 100, 150, 0, 0, false },
    { "headers", "headers of C, 20 kB", 20, 20000, 60, 80, false },
    { "python", "Python, 20 kB", 20, 20000, 60, 80, false },
    { "latex", "LaTeX in JSON, 20 kB", 20, 20000, 0, 0, false },
    { "random", "random pieces, 20 kB", 4, 20000, 15, 30, true },
    { "a", "one letter, 1 MB", 1, 0, 10, 30, true }, /* 0.1 s */
};

int main(int argc, char **argv)
{
    const char *data = bench_data();
    size_t max = (argc > 2 ? strtoul(argv[2], NULL, 10) : 100) * 10000;
    struct buf text = { 0 };

    if (!data) {
        bench_absent("encoding", "no $LONGLORA_DATA, so no model of Llama-2");
        return 0;
    }
    if (argc > 1 && *argv[1])
        open_model(".", argv[1]);
    else
        open_model(data, "tokenizers/llama2/tokenizer.model.zst");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (i == 0 || texts[i].kind != texts[i - 1].kind)
            read_text(&text, max * texts[i].max, data, texts[i].kind);
        if (text.len > 0 && bench_table() && texts[i].must > 0)
            row(texts[i].what, &text, texts[i].doc_bytes, texts[i].must, texts[i].aim,
                texts[i].rate);
        else if (text.len > 0 && !bench_table())
            measure(texts[i].what, &text, texts[i].doc_bytes);
    }
    buf_free(&text);
    spm_free(ours);
    splib_free(theirs);
    return 0;
}
