/* tests/bench_hft.c - lines of bench-data's table: tokenizer.json and rank files, over books and code, one
 * core. bench_hft FILE TEXT: three rounds of one file over one text, the first with an empty cache. */
#include "base/file.h"
#include "formats/tokenizer/engine.h"
#include "formats/tokenizer/spmodel.h"
#include "tests/benchrow.h"
#include "tests/spmtest.h"

#define DOC_BYTES ((size_t)20000)

static int die(const struct err *e)
{
    fprintf(stderr, "bench_hft: %s\n", e->msg);
    exit(-e->code);
}

static double encode_all(const struct tokenizer_engine *g, const void *t, struct spm_cache *c,
                         const struct buf *text)
{
    struct spm_ids ids = { 0 };
    struct err e = { 0 };
    double start = cpu_s();

    for (size_t at = 0, k; at < text->len; at += k) {
        k = text->len - at < DOC_BYTES ? text->len - at : DOC_BYTES;
        ids.len = 0;
        if (g->encode(t, c, text->p + at, k, &ids, &e) < 0)
            die(&e);
    }
    start = cpu_s() - start;
    spm_ids_free(&ids);
    return (double)text->len / start * 1e-6;
}

/* The best of three: cold, then warm. */
static void rates(const struct tokenizer_engine *g, const void *t, const struct buf *text,
                  double *cold, double *warm)
{
    struct err e = { 0 };

    *cold = *warm = 0;
    for (int round = 0; round < 3; round++) {
        struct spm_cache *c;
        double r;

        if (spm_cache_open(&c, &e) < 0)
            die(&e);
        r = encode_all(g, t, c, text);
        *cold = r > *cold ? r : *cold;
        r = encode_all(g, t, c, text);
        *warm = r > *warm ? r : *warm;
        spm_cache_close(c);
    }
}

static void *open_file(const char *folder, const char *name, const struct tokenizer_engine **g,
                       double *ms)
{
    struct buf b = { 0 };
    struct err e = { 0 };
    void *t;

    if (read_some(&b, (size_t)64 << 20, folder, name, "*", &e) < 0)
        die(&e);
    *g = engine_of(b.p, b.len, name);
    *ms = cpu_s();
    if ((*g)->parse(&t, b.p, b.len, name, &e) < 0)
        die(&e);
    *ms = (cpu_s() - *ms) * 1e3;
    buf_free(&b);
    return t;
}

/* gigatoken 0.10 made 48 MB/s cold and 267 warm of one AVX2 core. */
static void rows(const char *who, const char *folder, const char *name, const struct buf *books,
                 const struct buf *code)
{
    const struct tokenizer_engine *g;
    double ms, cold, warm;
    void *t = open_file(folder, name, &g, &ms);
    char what[64], mine[32], peer[32];

    for (int k = 0; k < 2; k++) {
        const struct buf *text = k ? code : books;

        if (text->len == 0)
            continue;
        rates(g, t, text, &cold, &warm);
        snprintf(what, sizeof what, "%s, %s, 20 kB", who, k ? "code" : "books");
        snprintf(mine, sizeof mine, "%.*f MB/s", cold < 100, cold);
        snprintf(peer, sizeof peer, "warm %.0f", warm);
        bench_row(what, mine, peer, cold, 48, 267, " MB/s", false);
    }
    snprintf(what, sizeof what, "%s, load", who);
    snprintf(mine, sizeof mine, "%.0f ms", ms);
    bench_row(what, mine, "-", ms, 200, 100, " ms", true);
    g->free(t);
}

int main(int argc, char **argv)
{
    const char *data = bench_data();
    struct buf books = { 0 }, code = { 0 };
    struct err e = { 0 };

    if (argc == 3) {
        const struct tokenizer_engine *g;
        double ms, cold, warm;
        void *t = open_file(".", argv[1], &g, &ms);

        if (read_some(&books, (size_t)64 << 20, ".", argv[2], "*", &e) < 0)
            die(&e);
        rates(g, t, &books, &cold, &warm);
        printf("%s: load %.0f ms, cold %.1f MB/s, warm %.1f MB/s\n", argv[1], ms, cold, warm);
        g->free(t);
        buf_free(&books);
        return 0;
    }
    if (!data) {
        bench_absent("tokenizer.json", "no $LONGLORA_DATA");
        return 0;
    }
    if (read_some(&books, (size_t)30 << 20, data, "pg19/pg19-validation.tar.zst", NULL, &e) < 0)
        die(&e);
    read_some(&code, (size_t)16 << 20, "/usr", "lib/python3", "*.py", &e);
    rows("GPT-2", data, "tokenizers/gpt2/tokenizer.json.zst", &books, &code);
    rows("Llama 3", data, "tokenizers/llama3/tokenizer.model.zst", &books, &code);
    buf_free(&books);
    buf_free(&code);
    return 0;
}
