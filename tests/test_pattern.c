/* tests/test_pattern.c - the patterns of a tokenizer.json: the matchers of the well-known ones against the
 * patterns themselves, and what is without regard to case. */
#include "base/bytes.h"
#include "formats/tokenizer/pattern.h"
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int open_tables(void **state)
{
    struct err e = { 0 };

    (void)state;
    return unicode_open(&e);
}

static struct pattern *make(const char *regex)
{
    struct pattern *p;
    struct err e = { 0 };

    if (pattern_make(&p, regex, strlen(regex), NULL, &e) < 0)
        fail_msg("%s: %s", regex, e.msg);
    return p;
}

/* A character of any kind: one of the many planes, or one that the patterns name. */
static size_t put_any(uint64_t *r, char *to)
{
    static const char named[] = "aAsStTlLrReEvVdDmM'''  \n\n\r\t/.1x";
    uint32_t c;

    *r = *r * 6364136223846793005u + 1442695040888963407u;
    if (*r >> 63) {
        *to = named[(*r >> 33) % (sizeof named - 1)];
        return 1;
    }
    c = (uint32_t)(*r >> 33) % (*r >> 62 ? 0x11FFF : 0x3000);
    return unicode_put(to, c >= 0xD800 && c < 0xE000 ? 0x17F : c);
}

/* Word by word as the pattern has it; of each text the first mark, too, is followed by a capital. */
static void test_words_are_their_patterns(void **state)
{
    static const char *const names[] = { "GPT-2", "Llama 3", "Qwen 2", "o200k", "tekken" };
    uint64_t r = 1;

    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        const struct words *w = words_named(names[k]);
        struct pattern *p = make(words_pattern(w));

        for (int round = 0; round < 4000; round++) {
            char text[200] = "\u0345A";
            size_t n = round % 2 ? 0 : 3, at = 0, start, end;
            struct pattern_at from = { 0 };
            struct err e = { 0 };

            for (int i = 0; i < 3 + round % 30; i++)
                n += put_any(&r, text + n);
            while (pattern_next(p, &from, text, n, &start, &end, &e) == 1) {
                if (start != at || words_next(w, text, n, at) != end)
                    fail_msg("%s, round %d: a word of '%.*s' from %zu ends at %zu, not %zu", names[k], round,
                             (int)n, text, at, end, words_next(w, text, n, at));
                at = end;
            }
            assert_int_equal(at, n);
            pattern_done(&from);
        }
        pattern_free(p);
    }
}

/* What Oniguruma matches of each text, in brackets, as tokenizers 0.23.3 cuts it. */
static void test_matches(void **state)
{
    static const struct {
        const char *regex, *text, *marked;
    } cases[] = {
        { "(?i:[^a-z])", "xA1\u017f\u212a", "xA[1]\u017f\u212a" },
        { "(?i:[^\\p{Lu}])", "aA1", "aA[1]" },
        { "(?i:\\P{Lu})", "aA\u00c9", "[a]A\u00c9" },
        { "(?i)\\p{Ll}b", "aB AB", "[aB] AB" },
        { "(?i:[A-Z&&[^K]])", "k\u212aKs\u017f", "k\u212aK[s][\u017f]" },
        { "(?i:a(?-i:b)c)", "ABC AbC abc", "ABC [AbC] [abc]" },
        { "(?i:(?:a)b)c", "ABc ABC", "[ABc] ABC" },
        { "[0-9]{1,3}+", "12345 6", "[12345] [6]" },
        { "(?:ab|c){2}+", "abcabcab", "[abcabc]ab" },
        { "a{2}+b", "aaaab aab", "[aaaab] [aab]" },
    };

    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct pattern *p = make(cases[k].regex);
        const char *text = cases[k].text;
        size_t n = strlen(text), at = 0, start, end;
        struct pattern_at from = { 0 };
        struct buf b = { 0 };
        struct err e = { 0 };

        for (; pattern_next(p, &from, text, n, &start, &end, &e) == 1; at = end)
            assert_int_equal(buf_printf(&b, &e, "%.*s[%.*s]", (int)(start - at), text + at, (int)(end - start),
                                        text + start), 0);
        assert_int_equal(buf_printf(&b, &e, "%s", text + at), 0);
        assert_int_equal(buf_add(&b, "", 1, &e), 0);
        if (strcmp(b.p, cases[k].marked) != 0)
            fail_msg("%s: '%s', must be '%s'", cases[k].regex, b.p, cases[k].marked);
        buf_free(&b);
        pattern_done(&from);
        pattern_free(p);
    }
}

static void test_refused(void **state)
{
    static const char many[] = "several in another case (U+00DF is ss), under (?i), is not supported";
    static const struct {
        const char *regex, *why;
    } cases[] = {
        { "(?i:ss)", many },          { "(?i:(?:s)s)", many },   { "(?i:\u00df)", many },
        { "(?i:'s|\\x{DF})", many },  { "(?i:[a-z\u1e9e])", many }, { "(?i:[\\p{L}])", many },
        { "(?i)af+|fi", many },       { "(?i:\u02bcn)", many },  { "(?i:a\\u0345)", many },
        { "a)", "')' without '('" },  { "(a", "cannot be compiled" }, { "a{1,3}?", "behind a number" },
        { "(?R)", "this kind of group" }, { "(?1)", "this kind of group" }, { "(?{x})", "this kind of group" },
        { "(?C1)a", "this kind of group" }, { "(?#x)a", "this kind of group" }, { "(?|a|b)", "this kind of group" },
        { "(?(1)a|b)", "this kind of group" }, { "(?&x)", "this kind of group" }, { "(?x: a)", "this kind of group" },
        { "(?m:a)", "this kind of group" }, { "a(?i)b", "this kind of group" }, { "(*ACCEPT)", "cannot be compiled" },
        { "(a)\\1", "this escape" },  { "\\k<x>", "this escape" }, { "\\g<x>", "this escape" },
        { "a\\Kb", "this escape" },   { "\\G", "this escape" },  { "\\Qa\\E", "this escape" },
        { "\\X", "this escape" },     { "\\R", "this escape" },  { "\\h", "this escape" },
        { "\\0", "this escape" },     { "[[:alpha:]]", "a class by name" }, { "a**", "a repetition of a repetition" },
        { "[b-a]", "a range that is none" }, { "[]", "an empty class" }, { "[a", "a class without an end" },
        { "\\x{110000}", "this number" }, { "\\p{Klingon}", "this property" }, { "(?<=a+)b", "cannot be compiled" },
        { "a{99999}", "cannot be compiled" }, { "(?:(?:a{1000}){1000}){1000}", "cannot be compiled" },
    };

    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct pattern *p;
        struct err e = { 0 };

        if (pattern_make(&p, cases[k].regex, strlen(cases[k].regex), NULL, &e) != E_DATA || !strstr(e.msg, cases[k].why))
            fail_msg("%s: '%s' lacks '%s'", cases[k].regex, e.msg, cases[k].why);
        assert_null(p);
    }
}

/* A class that looks at all characters thousands of times, in one pattern or in many of a file. */
static void test_work_is_bounded(void **state)
{
    struct buf b = { 0 };
    struct pattern *p;
    struct err e = { 0 };
    uint64_t work = UINT64_C(7) << 26; /* what other patterns of the file took */
    int n = 0;

    (void)state;
    assert_int_equal(buf_printf(&b, &e, "[a"), 0);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buf_printf(&b, &e, "&&\\S"), 0);
    assert_int_equal(pattern_make(&p, b.p, b.len, NULL, &e), E_DATA);
    assert_non_null(strstr(e.msg, "so much work for classes is not supported"));
    while (n < 10000 && pattern_make(&p, "[\\p{L}\\p{N}]", 12, &work, &e) == 0) {
        pattern_free(p);
        n++;
    }
    assert_in_range(n, 10, 100);
    buf_free(&b);
}

/* Each match takes little, all together would take minutes: 65 and soon. */
static void test_time_is_bounded(void **state)
{
    static const char *const slow[] = { "(?:a?){14}a{14}b|a", "(?=.*b)|a" };
    enum { N = 1 << 18 };
    char *text = malloc(N);

    (void)state;
    memset(text, 'a', N);
    for (size_t k = 0; k < sizeof slow / sizeof *slow; k++) {
        struct pattern *p = make(slow[k]);
        struct pattern_at at = { 0 };
        struct err e = { 0 };
        size_t start, end;
        int rc;

        while ((rc = pattern_next(p, &at, text, k ? N : N / 16, &start, &end, &e)) == 1)
            ;
        assert_int_equal(rc, E_DATA);
        assert_non_null(strstr(e.msg, "the tokenizer's pattern takes too long at byte "));
        pattern_done(&at);
        pattern_free(p);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_are_their_patterns),
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_work_is_bounded),
        cmocka_unit_test(test_time_is_bounded),
    };

    return cmocka_run_group_tests(tests, open_tables, NULL);
}
