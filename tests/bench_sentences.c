/* tests/bench_sentences.c - bench_sentences plain|english FILE: where its sentences are, from and to, as
 * sentence_check.py reads them; without arguments how fast they are found. */
#include "base/file.h"
#include "probes/sentences.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int fail(const struct err *e)
{
    fprintf(stderr, "bench_sentences: %s\n", e->msg);
    return -e->code;
}

static int print_sentences(const char *how, const char *path)
{
    const enum sentence_ends ends = strcmp(how, "plain") == 0 ? SENTENCES_PLAIN : SENTENCES_ENGLISH;
    struct sentences s = { 0 };
    struct err e = { 0 };
    char *text;
    size_t n;

    if (file_read(path, (size_t)1 << 30, &text, &n, &e) < 0 ||
        sentences_cut(&s, ends, text, n, &e) < 0)
        return fail(&e);
    for (int64_t i = 0; i < s.n; i++)
        printf("%zu %zu\n", s.at[i].from, s.at[i].to);
    sentences_free(&s);
    free(text);
    return 0;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    static const char some[] = "Mr. Smith went to the garden, where he met his aunt. \"Is it you?\" she "
                               "asked... A. Jones came too, at 12. The three of them sat down. ";
    const size_t n = (size_t)(16 << 20) / (sizeof some - 1) * (sizeof some - 1);
    struct sentences s = { 0 };
    struct err e = { 0 };
    double start;
    char *text;

    if (argc == 3)
        return print_sentences(argv[1], argv[2]);
    if (!(text = malloc(n)))
        return 71;
    for (size_t at = 0; at < n; at += sizeof some - 1)
        memcpy(text + at, some, sizeof some - 1);
    start = now();
    if (sentences_cut(&s, SENTENCES_ENGLISH, text, n, &e) < 0)
        return fail(&e);
    printf("sentences: %lld in %.1f MB, %.0f MB/s\n", (long long)s.n, (double)n * 1e-6,
           (double)n * 1e-6 / (now() - start));
    sentences_free(&s);
    free(text);
    return 0;
}
