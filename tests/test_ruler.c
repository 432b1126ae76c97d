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

static void same_as_golden(const char *path, const struct word_lists *words, int prompts)
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
    assert_int_equal(n, prompts);
}

static void test_prompts_are_the_original_s(void **state)
{
    (void)state;
    same_as_golden("tests/data/probes/ruler_own.txt", NULL, 264);
}

/* With wonderwords' own lists: LONGLORA_WONDERWORDS is the folder assets of that package. */
static void test_prompts_of_wonderwords_are_too(void **state)
{
    const char *folder = getenv("LONGLORA_WONDERWORDS");
    struct word_lists w;
    struct err e = { 0 };

    (void)state;
    if (!folder)
        skip();
    assert_int_equal(word_lists_read(&w, folder, &e), 0);
    same_as_golden("tests/data/probes/ruler_wonderwords.txt", &w, 51);
    word_lists_free(&w);
}

static bool is_after_ruler(const struct probe_kind *k)
{
    return strncmp(k->origin, "RULER", 5) == 0 || strncmp(k->origin, "BABILong", 8) == 0;
}

/* Lengths that are too short say which one will do, and that one does. */
static void test_too_short_a_length_names_one_that_will_do(void **state)
{
    struct probe p = { 0 };
    int named = 0;

    (void)state;
    for (int i = 0; i < N_PROBE_KINDS; i++) {
        int64_t needed = 0;

        for (int64_t length = 20; is_after_ruler(PROBE_KINDS[i]) && length < 2000;
             length = needed ? needed : length * 2) {
            struct probe_ask a = ask(length, 42, 10);
            struct err e = { 0 };
            struct probes *s = NULL;
            const char *about;
            int rc = probes_open(&s, PROBE_KINDS[i], &a, &e);

            if (rc == 0) {
                for (int k = 0; k < 10; k++)
                    if (probes_next(s, &p, &e) < 0)
                        fail_msg("%s %" PRId64 ": %s", PROBE_KINDS[i]->name, length, e.msg);
                named += needed > 0;
                probes_close(s);
                break;
            }
            assert_null(s);
            assert_int_equal(rc, E_USAGE);
            assert_non_null(strstr(e.msg, "is too short"));
            if (needed > 0)
                fail_msg("%s: %" PRId64 " will not do: %s", PROBE_KINDS[i]->name, needed, e.msg);
            if ((about = strstr(e.msg, "about ")) != NULL)
                needed = strtoll(about + 6, NULL, 10) * 102 / 100;
        }
    }
    assert_int_equal(named, 14);
    probe_free(&p);
}

/* The page's table has each kind's row, as it is. */
static void test_the_page_has_every_kind(void **state)
{
    static const char *const scores[] = { [PROBE_ALL] = "all", [PROBE_ANY] = "any", [PROBE_FIRST] = "first",
                                          [PROBE_NUMBER] = "number", [PROBE_ONLY] = "only" };
    struct err e = { 0 };
    char *page, row[128];
    size_t n;

    (void)state;
    assert_int_equal(file_read("man/longlora-tasks.7", 1 << 20, &page, &n, &e), 0);
    for (int i = 0; i < N_PROBE_KINDS; i++) {
        const struct probe_kind *k = PROBE_KINDS[i];
        const char *marks = k->needs_text ? k->deep ? "TD" : "T" : k->deep ? "D" : "\"\"";

        snprintf(row, sizeof row, "\n.It %s Ta %d Ta %s Ta %s Ta ", k->name, (int)k->reply, scores[k->score],
                 marks);
        if (!strstr(page, row))
            fail_msg("no row%s", row);
    }
    free(page);
}

/* Opens each kind that hides things in text with that text; a prompt where that goes well. */
static void with_text(const char *t, size_t n, int want, const char *message)
{
    struct probe p = { 0 };
    int kinds = 0;

    for (int i = 0; i < N_PROBE_KINDS; i++) {
        struct probe_ask a = ask(2048, 1, 2);
        struct err e = { 0 };
        struct probes *s = NULL;
        int rc;

        if (!PROBE_KINDS[i]->needs_text)
            continue;
        a.source.text = t;
        a.source.nbytes = n;
        kinds++;
        rc = probes_open(&s, PROBE_KINDS[i], &a, &e);
        if (rc != want || (message && !strstr(e.msg, message)))
            fail_msg("%s: %d, '%s'", PROBE_KINDS[i]->name, rc, e.msg);
        for (int k = 0; k < 2 && rc == 0; k++)
            if (probes_next(s, &p, &e) < 0)
                fail_msg("%s", e.msg);
        probes_close(s);
    }
    assert_int_equal(kinds, 8);
    probe_free(&p);
}

static char *repeated(const char *what, size_t times)
{
    const size_t n = strlen(what);
    char *p = malloc(n * times);

    assert_non_null(p);
    for (size_t i = 0; i < times; i++)
        memcpy(p + i * n, what, n);
    return p;
}

static void test_texts_of_any_sort(void **state)
{
    const size_t n = (size_t)1 << 20;
    char *word = repeated("x", n), *endless = repeated("word ", n / 5), *marks = repeated(". ", n / 2);
    char *brief = repeated("A b. ", n / 5);
    char *long_ones = repeated("word word word word word word word word word word word word word. ", 4000);

    (void)state;
    with_text(NULL, 0, E_USAGE, "--haystack");
    with_text("", 0, E_DATA, "no ");
    with_text(" \n\t ", 4, E_DATA, "no ");
    with_text("A b. \xff C d.", 12, E_DATA, "not UTF-8 at byte 5");
    with_text(word, n, E_DATA, NULL);
    with_text(endless, n / 5 * 5, E_DATA, "sentence");
    with_text(long_ones, 4000 * 66, 0, NULL);
    /* sentences that are none: too short for BABILong, good enough for RULER */
    for (int i = 0; i < N_PROBE_KINDS; i++)
        if (PROBE_KINDS[i]->needs_text)
            for (int k = 0; k < 2; k++) {
                struct probe_ask a = ask(2048, 1, 1);
                struct probes *s = NULL;
                struct err e = { 0 };

                a.source.text = k ? brief : marks;
                a.source.nbytes = k ? n / 5 * 5 : n;
                assert_int_equal(probes_open(&s, PROBE_KINDS[i], &a, &e),
                                 strncmp(PROBE_KINDS[i]->name, "babi", 4) == 0 ? E_DATA : 0);
                probes_close(s);
            }
    free(word);
    free(endless);
    free(marks);
    free(brief);
    free(long_ones);
}

/* A chosen depth moves the needle and changes nothing else: names and numbers are those of the stream. */
static void test_a_depth_that_is_asked_for(void **state)
{
    char *even = repeated("Word word word word word word word word word word word word. ", 4000);
    struct err e = { 0 };
    int kinds = 0;

    (void)state;
    for (int i = 0; i < N_PROBE_KINDS; i++) {
        const struct probe_kind *k = PROBE_KINDS[i];
        struct probe_ask a = ask(4096, 5, 3), any;
        struct probe p = { 0 }, q = { 0 };

        if (!is_after_ruler(k) || !k->deep)
            continue;
        kinds++;
        a.source.text = even;
        a.source.nbytes = 4000 * 61;
        any = a;
        for (int d = 0; d <= 4; d++) {
            struct probes *s, *t;

            a.depth = d / 4.0;
            assert_int_equal(probes_open(&s, k, &a, &e), 0);
            assert_int_equal(probes_open(&t, k, &any, &e), 0);
            for (int n = 0; n < 3; n++) {
                assert_int_equal(probes_next(s, &p, &e), 0);
                assert_int_equal(probes_next(t, &q, &e), 0);
                assert_string_equal(p.answers.p, q.answers.p);
                if (p.depth < a.depth - 0.12 || p.depth > a.depth + 0.12)
                    fail_msg("%s: at %g, not %g", k->name, p.depth, a.depth);
                assert_true(p.prompt.len < q.prompt.len + 8 && q.prompt.len < p.prompt.len + 8);
            }
            probes_close(s);
            probes_close(t);
        }
        probe_free(&p);
        probe_free(&q);
    }
    free(even);
    assert_int_equal(kinds, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_are_the_original_s),
        cmocka_unit_test(test_prompts_of_wonderwords_are_too),
        cmocka_unit_test(test_too_short_a_length_names_one_that_will_do),
        cmocka_unit_test(test_the_page_has_every_kind),
        cmocka_unit_test(test_texts_of_any_sort),
        cmocka_unit_test(test_a_depth_that_is_asked_for),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
