/* tests/test_probes.c - prompts with a known answer: those of the originals, their sizes, depths, scores. */
#include "probes/probe.h"

#include "base/file.h"
#include "base/hash.h"
#include "probes/fit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define GOLDEN "tests/data/probes/golden.txt"

static struct tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    struct err e = { 0 };

    (void)state;
    return tokenizer_open(&tokenizer, "tests/data/tiny.model", &e);
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static struct probes *stream_of(const char *name, int64_t length, uint64_t seed, int64_t n, double depth)
{
    struct probe_ask a = { .length = length, .seed = seed, .number = n, .depth = depth, .tokenizer = tokenizer };
    const struct probe_kind *k = probe_kind_named(name);
    struct probes *s = NULL;
    struct err e = { 0 };

    assert_non_null(k);
    if (probes_open(&s, k, &a, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

/* A line of the file is a prompt of the original generator, by its hash; they follow each other as in a
 * stream. make_probes_golden.py has compared their text byte for byte. */
static void test_the_originals(void **state)
{
    FILE *f = fopen(GOLDEN, "re");
    char name[64], hash[32], answer[64], was[128] = "", text[32];
    int64_t length, seed, number, bytes, tokens, seen = 0;
    struct probes *s = NULL;
    struct probe p = { .n = 0 };
    struct err e = { 0 };

    (void)state;
    assert_non_null(f);
    while (fscanf(f, "%63s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %31s %" SCNd64 " %63s", name, &length,
                  &seed, &number, &bytes, hash, &tokens, answer) == 8) {
        char now[128];

        snprintf(now, sizeof now, "%s %" PRId64 " %" PRId64, name, length, seed);
        if (strcmp(now, was) != 0) {
            probes_close(s);
            s = stream_of(name, length, (uint64_t)seed, 8, -1);
        }
        strcpy(was, now);
        assert_int_equal(probes_next(s, &p, &e), 0);
        assert_int_equal(p.prompt.len, bytes);
        assert_int_equal(p.tokens, tokens);
        snprintf(text, sizeof text, "%016" PRIx64, hash64_of(p.prompt.p, p.prompt.len));
        assert_string_equal(text, hash);
        assert_int_equal(p.n, 1);
        assert_string_equal(p.answers.p, answer);
        seen++;
    }
    assert_true(feof(f));
    fclose(f);
    assert_true(seen >= 18);
    probes_close(s);
    probe_free(&p);
}

/* What probe.h promises of every kind that needs no text: it fits, it fills, the answer stands where it was
 * asked to, and a seed is a seed. */
static void check_size(const struct probe_kind *k, int64_t length, double depth)
{
    struct probes *s = stream_of(k->name, length, 3, 3, depth), *again = stream_of(k->name, length, 3, 3, depth);
    int64_t slack = strcmp(k->name, "passkey") == 0 ? 1024 : 192, ids;
    struct probe p = { .n = 0 }, q = { .n = 0 };
    struct err e = { 0 };
    int32_t *id;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(probes_next(s, &p, &e), 0);
        assert_int_equal(probes_next(again, &q, &e), 0);
        assert_int_equal(p.prompt.len, q.prompt.len);
        assert_memory_equal(p.prompt.p, q.prompt.p, p.prompt.len);
        assert_int_equal(tokenizer_encode(tokenizer, p.prompt.p, p.prompt.len, &id, &ids, &e), 0);
        free(id);
        assert_int_equal(ids, p.tokens);
        assert_true(p.tokens <= length - k->reply);
        if (p.tokens < length - k->reply - slack)
            fail_msg("%s: %" PRId64 " tokens of %" PRId64, k->name, p.tokens, length);
        if (k->deep && depth >= 0) {
            const char *at = memmem(p.prompt.p, p.prompt.len, p.answers.p, strlen(p.answers.p));

            assert_true(p.depth > depth - 0.1 && p.depth < depth + 0.1);
            assert_non_null(at);
            assert_true((double)(at - p.prompt.p) > (depth - 0.25) * (double)p.prompt.len);
            assert_true((double)(at - p.prompt.p) < (depth + 0.45) * (double)p.prompt.len);
        }
    }
    probes_close(s);
    probes_close(again);
    probe_free(&p);
    probe_free(&q);
}

static void test_sizes_and_depths(void **state)
{
    static const double depths[] = { -1, 0, 0.5, 1 };
    static const char *const names[] = { "passkey", "json_kv", "lines" };

    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (int64_t length = 1500; length <= 24000; length *= 4)
            for (int d = 0; d < 4; d++)
                if (probe_kind_named(names[k]))
                    check_size(probe_kind_named(names[k]), length, depths[d]);
}

/* ---- prompts that come out too long ---- */

struct made_items {
    struct python_random random;
    uint32_t first;   /* the number that the last prompt began with */
    int64_t tried[8]; /* items of each */
    int n;
};

/* Ten tokens an item, and numbers drawn as a kind draws them. */
static int make_items(void *state, int64_t n, struct probe *p, struct err *e)
{
    struct made_items *m = state;

    (void)e;
    m->tried[m->n++] = n;
    m->first = python_random_word(&m->random);
    p->tokens = 10 * n;
    return 0;
}

/* Items are taken away until the reply has room, and each prompt begins with the same random numbers. */
static void test_a_prompt_is_made_anew_with_fewer_items(void **state)
{
    static const struct probe_items by_one = { .least = 2, .step = 1, .reply = 20, .spare = 3 };
    static const struct probe_items by_share = { .least = 2, .step = 1, .per = 10, .reply = 20, .spare = 3 };
    struct probe_ask a = { .length = 200 };
    struct made_items m = { .n = 0 };
    struct probe p = { .n = 0 };
    struct err e = { 0 };
    uint32_t first;

    (void)state;
    python_random_seed(&m.random, 7);
    assert_int_equal(probe_make_fitting(&p, &by_one, &a, 18, &m.random, make_items, &m, &e), 0);
    assert_int_equal(m.n, 1);
    first = m.first;
    for (int share = 0; share < 2; share++) {
        m.n = 0;
        python_random_seed(&m.random, 7);
        assert_int_equal(probe_make_fitting(&p, share ? &by_share : &by_one, &a, 21, &m.random, make_items,
                                            &m, &e), 0);
        assert_int_equal(m.tried[m.n - 1], 18);
        assert_int_equal(m.n, share ? 2 : 4); /* 21 18, or 21 20 19 18 */
        assert_int_equal(m.first, first);
    }
    a.length = 39; /* the fewest, 2, have 20 tokens and the reply 20 */
    m.n = 0;
    assert_int_equal(probe_make_fitting(&p, &by_one, &a, 4, &m.random, make_items, &m, &e), E_USAGE);
    assert_int_equal(m.tried[2], 2);
    assert_non_null(strstr(e.msg, "39 tokens is too short"));
    assert_non_null(strstr(e.msg, "about 43"));
}

static void test_too_short_is_said(void **state)
{
    (void)state;
    for (int k = 0; k < N_PROBE_KINDS; k++) {
        struct probe_ask a = { .length = 60, .number = 1, .depth = -1, .tokenizer = tokenizer };
        struct probes *s = NULL;
        struct probe p = { .n = 0 };
        struct err e = { 0 };
        int rc = probes_open(&s, PROBE_KINDS[k], &a, &e);

        if (rc == 0)
            rc = probes_next(s, &p, &e);
        assert_int_equal(rc, E_USAGE);
        assert_non_null(strstr(e.msg, PROBE_KINDS[k]->name));
        probes_close(s);
        if (!PROBE_KINDS[k]->needs_text) { /* and a length that will do is named */
            assert_non_null(strstr(e.msg, "that will do has about "));
            a.length = atoll(strstr(e.msg, "about ") + 6);
            assert_int_equal(probes_open(&s, PROBE_KINDS[k], &a, &e), 0);
            assert_int_equal(probes_next(s, &p, &e), 0);
            assert_true(p.tokens + PROBE_KINDS[k]->reply <= a.length);
            probes_close(s);
        }
        probe_free(&p);
    }
}

static const struct {
    enum probe_score score;
    const char *answers[3];
    const char *output;
    double want;
} scored[] = {
    { PROBE_ALL, { "red", "blue" }, "Blue, and nothing else", 0.5 },
    { PROBE_ALL, { "red", "blue" }, "RED BLUE", 1 },
    { PROBE_ALL, { "red" }, "re d", 0 },
    { PROBE_ALL, { "red" }, "", 0 },
    { PROBE_ANY, { "red", "blue" }, "it is blue", 1 },
    { PROBE_ANY, { "red", "blue" }, "green", 0 },
    { PROBE_FIRST, { "1234" }, " 1234.", 1 },
    { PROBE_FIRST, { "1234" }, "12345", 1 },  /* as many tokens as the answer has are looked at */
    { PROBE_FIRST, { "1234" }, "  1234", 0 },
    { PROBE_FIRST, { "1234" }, "\n1234", 0 },
    { PROBE_FIRST, { "1234" }, "123", 0 },
    { PROBE_NUMBER, { "407" }, " <407>\nline", 1 },
    { PROBE_NUMBER, { "407" }, "first 12, then 0407.", 1 },
    { PROBE_NUMBER, { "407" }, " 407 and 8", 0 },
    { PROBE_NUMBER, { "407" }, " 1407", 0 },
    { PROBE_NUMBER, { "407" }, "none", 0 },
};

static void test_scores(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scored / sizeof *scored; i++) {
        struct probe_kind k = { .score = scored[i].score };
        struct probe p = { .n = 0 };
        struct err e = { 0 };
        double got;

        for (int a = 0; a < 3 && scored[i].answers[a]; a++)
            assert_int_equal(probe_answer(&p, scored[i].answers[a], strlen(scored[i].answers[a]), &e), 0);
        got = probe_score(&k, &p, scored[i].output, strlen(scored[i].output));
        if (got != scored[i].want)
            fail_msg("'%s': %g, not %g", scored[i].output, got, scored[i].want);
        probe_free(&p);
    }
}

/* Named once, and each with all that the list shows. */
static void test_the_table(void **state)
{
    (void)state;
    for (int i = 0; i < N_PROBE_KINDS; i++) {
        const struct probe_kind *k = PROBE_KINDS[i];

        assert_ptr_equal(probe_kind_named(k->name), k);
        assert_true(*k->what && *k->origin && k->reply > 0);
    }
    assert_null(probe_kind_named("no such"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_originals), cmocka_unit_test(test_sizes_and_depths),
        cmocka_unit_test(test_a_prompt_is_made_anew_with_fewer_items),
        cmocka_unit_test(test_too_short_is_said), cmocka_unit_test(test_scores), cmocka_unit_test(test_the_table),
    };

    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
