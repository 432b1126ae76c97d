/* tests/bench_spm.c - encoding beside libsentencepiece, in one run: bench_spm [model [MB]]. */
#include "formats/splib.h"
#include "formats/spm.h"
#include "formats/spmodel.h"
#include "tests/spmtest.h"

#include <time.h>

/* libsentencepiece is given this much of a text: it takes seconds for it. */
#define THEIR_BYTES ((size_t)3 << 20)

static struct spm *ours;
static struct splib *theirs;

/* Processor time: other work on the machine counts for neither of the two. */
static double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

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
    printf("%s: %lld pieces, read in %.1f ms\n", name, (long long)spm_vocab(ours), start * 1e3);
    buf_free(&b);
}

int main(int argc, char **argv)
{
    static const char *const books[] = { "pg19/pg19-validation.tar.zst",
                                         "pg19/pg19-test.tar.zst",
                                         "pg19/pg19-train.tar.zst",
                                         "pg19/pg19-train-more.tar.zst" };
    const char *data = getenv("LONGLORA_DATA");
    size_t max = argc > 2 ? strtoul(argv[2], NULL, 10) * 1000000 : 100000000;
    struct buf text = { 0 };
    struct err e = { 0 };

    if (!data) {
        printf("bench_spm: no $LONGLORA_DATA, nothing measured\n");
        return 0;
    }
    if (argc > 1)
        open_model(".", argv[1]);
    else
        open_model(data, "tokenizers/llama2/tokenizer.model.zst");
    for (int i = 0; i < 4; i++)
        if (read_some(&text, max, data, books[i], NULL, &e) < 0)
            die(&e);
    measure("books, 20 kB a document", &text, 20000);
    measure("books, 1 MB", &text, 1000000);
    measure("books, 150 B", &text, 150);
    text.len = 0;
    if (read_some(&text, max / 5, "/usr", "include", "*.h", &e) == 0)
        measure("headers of C, 20 kB", &text, 20000);
    text.len = 0;
    if (read_some(&text, max / 5, "/usr", "lib/python3", "*.py", &e) == 0)
        measure("Python, 20 kB", &text, 20000);
    text.len = 0;
    if (read_some(&text, max / 5, data, "proof-pile/train", NULL, &e) == 0)
        measure("LaTeX in JSON, 20 kB", &text, 20000);
    text.len = 0;
    if (add_pieces(&text, ours, 4000000, 1, &e) < 0)
        die(&e);
    measure("random pieces, 20 kB", &text, 20000);
    memset(text.p, 'a', 1000000);
    text.len = 1000000;
    measure("one letter, 1 MB", &text, 0);
    buf_free(&text);
    spm_free(ours);
    splib_free(theirs);
    return 0;
}
