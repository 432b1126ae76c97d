/* tests/bench_pipe.c - lprep from end to end, for the table of 'make bench-data': c4-like rows of
 * real text in a .jsonl.zst, against what its stages alone would let through; two cores against
 * one; memory over large documents.
 * usage: bench_pipe [MB]    default: 300, of the books in $LONGLORA_DATA, or of made-up words */
#include "base/file.h"
#include "base/log.h"
#include "base/perm.h"
#include "base/jsonscan.h"
#include "formats/tokenizer/spmodel.h"
#include "formats/tokens/stream.h"
#include "prep/prep.h"
#include "tests/benchrow.h"
#include "tests/spmtest.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

enum { ROUNDS = 3, LARGE = 4 };
#define LARGE_BYTES ((size_t)16000000) /* of a large document: close to --max-record */

static char dir[] = "/tmp/bench_pipe.XXXXXX";
static struct err err;

static void die(const char *what)
{
    struct err ignored = { 0 };

    fprintf(stderr, "bench_pipe: %s: %s\n", what, err.msg);
    dir_remove(dir, &ignored);
    exit(err.code ? -err.code : 71);
}

static const char *in_dir(const char *name)
{
    static char path[4][64];
    static int k;

    snprintf(path[k = (k + 1) % 4], sizeof path[0], "%s/%s", dir, name);
    return path[k];
}

/* Words of one to twelve letters, the common ones short: some 60,000 of them, as Zipf has it. */
static void made_up(struct buf *text, size_t bytes)
{
    for (uint64_t k = 0; text->len < bytes; k++) {
        uint64_t w = (uint64_t)exp(11 * (double)(mix64(k) >> 11) * 0x1p-53);
        char word[16];
        int n = 1 + (int)(log2((double)w + 1) * 0.7);

        for (int i = 0; i < n; i++)
            word[i] = (char)('a' + mix64(w * 16 + (uint64_t)i) % 26);
        word[n] = mix64(k ^ 77) % 12 ? ' ' : '\n';
        if (buf_add(text, word, (size_t)n + 1, &err) < 0)
            die("text");
    }
}

static void read_books(struct buf *text, size_t bytes)
{
    static const char *const books[] = { "pg19/pg19-train-more.tar.zst",
                                         "pg19/pg19-validation.tar.zst",
                                         "pg19/pg19-train.tar.zst", "pg19/pg19-test.tar.zst" };
    const char *data = bench_data();

    for (int i = 0; data && i < 4; i++)
        if (read_some(text, bytes, data, books[i], NULL, &err) < 0)
            die(books[i]);
    made_up(text, bytes);
}

/* RedPajama's c4: rows of lognormal length, 2.6 kB on average, packed by zstd -3. */
static void write_c4(const struct buf *text)
{
    struct buf rows = { 0 }, packed = { 0 };
    size_t at = 0, n;

    for (uint64_t k = 0; at < text->len; k++) {
        n = 1 + (size_t)exp(7.3 + normal_at(3, k));
        n = n < text->len - at ? n : text->len - at;
        while (at + n < text->len && ((unsigned char)text->p[at + n] & 0xC0) == 0x80)
            n++;
        if (buf_printf(&rows, &err, "{\"text\":") < 0 ||
            json_quote(&rows, text->p + at, n, &err) < 0 ||
            buf_printf(&rows, &err, ",\"meta\":{\"timestamp\":\"2019-04-25T12:57:54Z\",\"url\":"
                       "\"https://example.org/%llu\",\"language\":\"en\",\"source\":\"c4\"}}\n",
                       (unsigned long long)k) < 0)
            die("rows");
        at += n;
    }
    if (buf_reserve(&packed, ZSTD_compressBound(rows.len), &err) < 0)
        die("rows");
    packed.len = ZSTD_compress(packed.p, packed.cap, rows.p, rows.len, 3);
    if (ZSTD_isError(packed.len) ||
        file_replace(in_dir("c4.jsonl.zst"), packed.p, packed.len, &err) < 0 ||
        file_replace(in_dir("c4.jsonl"), rows.p, rows.len, &err) < 0)
        die("rows");
    buf_free(&rows);
    buf_free(&packed);
}

/* The model, the rows, the large documents, made in a process of their own, so that memory that
 * this one had does not count for what it starts. */
static void make_data(size_t bytes)
{
    struct buf text = { 0 }, model = { 0 };
    const char *data = bench_data();
    char name[32];

    if (read_some(&model, SPMODEL_MAX_BYTES, data ? data : "tests/data",
                  data ? "tokenizers/llama2/tokenizer.model.zst" : "tiny.model", "*", &err) < 0 ||
        file_replace(in_dir("model"), model.p, model.len, &err) < 0)
        die("model");
    read_books(&text, bytes > LARGE_BYTES ? bytes : LARGE_BYTES);
    for (int i = 0; i < LARGE; i++) {
        snprintf(name, sizeof name, "large%d.txt", i);
        if (file_replace(in_dir(name), text.p, LARGE_BYTES, &err) < 0)
            die(name);
    }
    for (size_t i = 0; i + 3 <= LARGE_BYTES; i += 3) /* a token a byte, for Llama-2 */
        memcpy(text.p + i, "\xE1\x8C\x80", 3);
    if (file_replace(in_dir("large.txt"), text.p, LARGE_BYTES / 3 * 3, &err) < 0)
        die("large.txt");
    text.len = 0;
    read_books(&text, bytes);
    text.len = bytes;
    write_c4(&text);
    exit(0);
}

/* Peak memory of lprep, of two threads, over this glob; MB. 0: it did not run. */
static double peak_mb(const char *glob)
{
    struct rusage used;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        execlp("lprep", "lprep", "-q", "-j", "2", "--utf8", "replace", "-t", in_dir("model"),
               in_dir(glob), (char *)NULL);
        _exit(127);
    }
    return pid < 0 || wait4(pid, &status, 0, &used) < 0 || status != 0
               ? 0 : (double)used.ru_maxrss * 1024e-6;
}

static void memory(const char *what, const char *glob)
{
    double mb = peak_mb(glob);
    char ours[32];

    snprintf(ours, sizeof ours, "%.0f MB", mb);
    if (mb > 0)
        bench_row(what, ours, "", mb, 256 * 1.048576, 0, " MB", true);
    else
        bench_absent(what, "lprep is not on the PATH");
}

static double process_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The stages alone, each once over everything; seconds of processor time. */
struct stages {
    double unpack, parse, encode, write;
};

static double time_unpack(const char *file)
{
    static char out[256 << 10];
    struct source_member m;
    struct source *src;
    double t = process_s();
    int64_t n;

    if (source_open(&src, &file, 1, NULL, 0, NULL, &err) < 0 || source_next(src, &m, &err) != 1)
        die("unpacking");
    while ((n = source_read(src, out, sizeof out, &err)) > 0)
        ;
    source_close(src);
    if (n < 0)
        die("unpacking");
    return process_s() - t;
}

/* A document, and later its tokens. */
struct item {
    size_t from, to; /* its text, in docs */
    struct token_doc tokens;
};

/* docs gets the texts one after another, item[] where they are. */
static double time_parse(const struct buf *rows, struct buf *docs, struct item *item, size_t *k)
{
    const char *p = rows->p, *nl, *stop = rows->p + rows->len;
    struct doc_place at = { "c4.jsonl", 1, 0 };
    struct doc_opts o = { 0 };
    struct doc d = { 0 };
    double t = process_s();

    docs->len = *k = 0;
    for (; p < stop && (nl = memchr(p, '\n', (size_t)(stop - p))); p = nl + 1) {
        if (doc_from_json(&d, &at, p, (size_t)(nl - p), &o, &err) < 0)
            die("parsing");
        item[*k].from = docs->len; /* one copy, as a stage has to hand on what it made */
        memcpy(docs->p + docs->len, d.text.p, d.text.len);
        item[(*k)++].to = docs->len += d.text.len;
    }
    doc_free(&d);
    return process_s() - t;
}

static double time_encode(const struct tokenizer *t, const struct buf *docs, struct item *item,
                          size_t k)
{
    struct prep_opts o = { 0 };
    struct doc d = { .source = "c4" };
    int64_t masked;
    double start = process_s();

    for (size_t i = 0; i < k; i++) {
        d.text = (struct buf){ docs->p + item[i].from, item[i].to - item[i].from, 0 };
        if (prep_encode(t, &d, &o, &item[i].tokens, &masked, &err) < 0)
            die("encoding");
    }
    return process_s() - start;
}

static int open_out(void)
{
    int fd;

    unlink(in_dir("out"));
    if ((fd = open(in_dir("out"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) < 0)
        die("out");
    return fd;
}

static double time_write(const struct tokenizer *t, struct item *item, size_t k)
{
    struct prep_opts o = { 0 };
    struct token_info info;
    struct stream_writer *w;
    int fd = open_out();
    double start = process_s();

    if (prep_info(t, &o, &info, &err) < 0 || stream_create(&w, fd, "out", &info, &err) < 0)
        die("writing");
    for (size_t i = 0; i < k; i++) {
        item[i].tokens.source = item[i].tokens.name = "c4";
        if (stream_write(w, &item[i].tokens, &err) < 0)
            die("writing");
    }
    if (stream_finish(w, &err) < 0)
        die("writing");
    start = process_s() - start;
    for (size_t i = 0; i < k; i++)
        free((void *)item[i].tokens.ids);
    close(fd);
    return start;
}

/* lprep as a function, on the processors that are allowed: its time by the clock on the wall,
 * and of the processors. */
static void whole(int threads, double *wall, double *cpu)
{
    const char *operand = in_dir("c4.jsonl.zst");
    struct prep_opts o = { .feed = { .max_record_bytes = 16 << 20 }, .threads = threads };
    struct prep_counts c;
    struct tokenizer *t;
    int fd = open_out();

    if (tokenizer_open(&t, in_dir("model"), &err) < 0)
        die("model");
    *wall = now_s();
    *cpu = process_s();
    if (prep_run(&operand, 1, &o, t, fd, "out", &c, &err) < 0)
        die("lprep");
    *wall = now_s() - *wall;
    *cpu = process_s() - *cpu;
    prep_counts_free(&c);
    tokenizer_close(t);
    close(fd);
}

static void least(double *best, double t) { *best = t < *best ? t : *best; }

static void time_stages(struct stages *s, const struct buf *rows, struct buf *docs,
                        struct item *item)
{
    struct tokenizer *t;
    size_t k;

    if (tokenizer_open(&t, in_dir("model"), &err) < 0)
        die("model");
    least(&s->unpack, time_unpack(in_dir("c4.jsonl.zst")));
    least(&s->parse, time_parse(rows, docs, item, &k));
    least(&s->encode, time_encode(t, docs, item, k));
    least(&s->write, time_write(t, item, k));
    tokenizer_close(t);
}

static void report(double mb, const struct stages *s, double one, double one_wall,
                   double two_wall)
{
    double sum = s->unpack + s->parse + s->encode + s->write;
    char ours[32], beside[48];

    snprintf(ours, sizeof ours, "%.0f MB/s", mb / one);
    snprintf(beside, sizeof beside, "stages %.0f", mb / sum);
    bench_row("lprep, c4-like .jsonl.zst, one core", ours, beside, 100 * sum / one, 70, 85, "%",
              false);
    if (!bench_table())
        printf("  unpack %.0f, parse %.0f, encode %.0f, write %.0f MB/s of JSON\n",
               mb / s->unpack, mb / s->parse, mb / s->encode, mb / s->write);
    snprintf(ours, sizeof ours, "%.0f MB/s", mb / two_wall);
    snprintf(beside, sizeof beside, "one core %.0f", mb / one_wall);
    if (two_wall < 1e9)
        bench_row("  on two cores", ours, beside, one_wall / two_wall, 1.8, 1.95, "x", false);
    else
        bench_absent("  on two cores", "one processor");
}

/* Best of some rounds, in each of which all is measured once. */
static void speed(void)
{
    struct stages s = { 1e9, 1e9, 1e9, 1e9 };
    double one = 1e9, one_wall = 1e9, two_wall = 1e9, wall, cpu;
    struct buf rows = { 0 }, docs = { 0 };
    cpu_set_t all, first;
    struct item *item;

    if (file_read(in_dir("c4.jsonl"), (size_t)4 << 30, &rows.p, &rows.len, &err) < 0 ||
        buf_reserve(&docs, rows.len, &err) < 0)
        die("rows");
    if (!(item = calloc(rows.len / 100, sizeof *item))) /* a row has more than 100 bytes */
        die("rows");
    memset(docs.p, 1, rows.len); /* touched: not to be paid for by a stage */
    sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&first);
    CPU_SET(sched_getcpu(), &first);
    for (int round = 0; round < ROUNDS; round++) {
        sched_setaffinity(0, sizeof first, &first);
        whole(1, &wall, &cpu);
        least(&one, cpu);
        least(&one_wall, wall);
        time_stages(&s, &rows, &docs, item);
        sched_setaffinity(0, sizeof all, &all);
        if (CPU_COUNT(&all) > 1) {
            whole(2, &wall, &cpu);
            least(&two_wall, wall);
        }
    }
    report((double)rows.len * 1e-6, &s, one, one_wall, two_wall);
    free(item);
    buf_free(&rows), buf_free(&docs);
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 300) * 1000000;
    struct err ignored = { 0 };
    int status;
    pid_t pid;

    if (bytes == 0 || bytes > (size_t)1 << 31 || !mkdtemp(dir)) {
        fprintf(stderr, "bench_pipe: bad size, or no folder in /tmp\n");
        return 64;
    }
    if ((pid = fork()) == 0)
        make_data(bytes);
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
        return 71;
    memory("memory of lprep -j 2, books of 16 MB", "large?.txt");
    memory("  a token a byte, 16 MB", "large.txt");
    memory("  c4-like rows", "c4.jsonl.zst");
    speed();
    dir_remove(dir, &ignored);
    return 0;
}
