/* tests/test_ruler.c - prompts after RULER, against those of its own scripts (make_ruler_golden.py), and
 * what text and words of any sort do to them. */
#include "base/file.h"
#include "probes/probe.h"
#include "probes/word_lists.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define TOKENIZER "demo/base/tokenizer.model"
#define TEXT "tests/data/tiny.txt"

static struct tokenizer *tokenizer;
static char *text;
static size_t text_bytes;

static int set_up(void **state)
{
    struct err e = { 0 };

    (void)state;
    return tokenizer_open(&tokenizer, TOKENIZER, &e) < 0 ||
           file_read(TEXT, 1 << 20, &text, &text_bytes, &e) < 0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    free(text);
    return 0;
}

static struct probe_ask ask(int64_t length, uint64_t seed, int64_t number)
{
    return (struct probe_ask){ .length = length, .seed = seed, .number = number, .depth = -1,
                               .tokenizer = tokenizer, .source = { text, text_bytes, NULL } };
}

/* A line of the golden file. */
struct line {
    char kind[32], answers[512];
    int64_t length, seed, number, tokens, bytes, at;
    uint32_t crc;
};

static bool read_line(FILE *f, struct line *l)
{
    return fscanf(f, "%31s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNx32 " %" SCNd64
                  " %511[^\n]", l->kind, &l->length, &l->seed, &l->number, &l->tokens, &l->bytes, &l->crc,
                  &l->at, l->answers) == 9;
}

static void same_prompt(const struct line *l, const struct probe_kind *k, const struct probe *p)
{
    const char *save = getenv("PROMPTS");
    struct buf answers = { 0 };
    const char *a = p->answers.p;
    struct err e = { 0 };

    if (save) { /* to look at what differs */
        char path[4096];

        snprintf(path, sizeof path, "%s/%s_%" PRId64 "_%" PRId64 "_%" PRId64, save, l->kind, l->length,
                 l->seed, l->number);
        assert_int_equal(file_replace(path, p->prompt.p, p->prompt.len, &e), 0);
    }
    for (int64_t i = 0; i < p->n; i++, a += strlen(a) + 1)
        assert_int_equal(buf_printf(&answers, &e, "%s%s", i ? "|" : "", a), 0);
    if (p->tokens + k->reply != l->tokens || (int64_t)p->prompt.len != l->bytes ||
        crc32(0, (const Bytef *)p->prompt.p, (uInt)p->prompt.len) != l->crc ||
        strcmp(answers.p, l->answers) != 0)
        fail_msg("%s %" PRId64 " %" PRId64 " %" PRId64 ": %" PRId64 " tokens, %zu bytes, '%s'; not %" PRId64
                 ", %" PRId64 ", '%s'", l->kind, l->length, l->seed, l->number, p->tokens + k->reply,
                 p->prompt.len, answers.p, l->tokens, l->bytes, l->answers);
    if (l->at >= 0)
        assert_true(p->depth == (double)l->at / (double)p->prompt.len);
    buf_free(&answers);
}

static void same_as_golden(const char *path, const struct word_lists *words)
{
    FILE *f = fopen(path, "r");
    struct line l;
    struct probes *s = NULL;
    struct probe p = { 0 };
    struct err e = { 0 };
    int n = 0;

    assert_non_null(f);
    for (; read_line(f, &l); n++) {
        const struct probe_kind *k = probe_kind_named(l.kind);

        assert_non_null(k);
        if (l.number == 0) {
            struct probe_ask a = ask(l.length, (uint64_t)l.seed, 1000);

            a.source.words = words;
            probes_close(s);
            if (probes_open(&s, k, &a, &e) < 0)
                fail_msg("%s %" PRId64 ": %s", l.kind, l.length, e.msg);
        }
        assert_int_equal(probes_next(s, &p, &e), 0);
        same_prompt(&l, k, &p);
    }
    assert_true(feof(f));
    fclose(f);
    probes_close(s);
    probe_free(&p);
    assert_true(n >= 60);
}

static void test_prompts_are_the_original_s(void **state)
{
    (void)state;
    same_as_golden("tests/data/probes/ruler_own.txt", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_are_the_original_s),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
