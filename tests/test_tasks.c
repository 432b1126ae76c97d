/* tests/test_tasks.c - results of probes: intervals, JSON there and back, journals, maps. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/heat.h"
#include "eval/answered.h"
#include "eval/probed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct probed_cell *cell(struct probed *r, const char *task, int64_t length, double depth, int64_t n,
                                uint64_t prompts)
{
    struct probed_cell *c;
    struct err e = { 0 };

    assert_int_equal(probed_add(r, n, &c, &e), 0);
    snprintf(c->task, sizeof c->task, "%s", task);
    c->length = length;
    c->depth = depth;
    c->prompts = prompts;
    c->tokens = 100.0 * (double)n;
    return c;
}

/* Half of 100 are right: the interval of a binomial, by its own formula 0.5 +- 1.96 * 0.05. */
static void test_an_interval_of_halves(void **state)
{
    double x[100], y[3] = { 1, 1, 1 };
    struct stratum s[2] = { { x, 100 }, { y, 3 } };
    struct interval i, again;
    struct err e = { 0 };

    (void)state;
    for (int k = 0; k < 100; k++)
        x[k] = k % 2;
    assert_int_equal(bootstrap(&i, s, 1, &e), 0);
    assert_true(i.mean == 0.5);
    assert_true(i.low >= 0.39 && i.low <= 0.41 && i.high >= 0.59 && i.high <= 0.61);
    assert_int_equal(bootstrap(&again, s, 1, &e), 0);
    assert_memory_equal(&i, &again, sizeof i);
    /* strata have equal weights, and those that do not vary add nothing */
    assert_int_equal(bootstrap(&i, s, 2, &e), 0);
    assert_true(i.mean == 0.75 && fabs(i.low - (again.low + 1) / 2) < 0.006);
    assert_int_equal(bootstrap(&i, s + 1, 1, &e), 0);
    assert_true(i.mean == 1 && i.low == 1 && i.high == 1);
}

/* Means by hand, over tasks and depths, and differences in pairs. */
static void test_means_and_differences(void **state)
{
    struct probed a = { .n = 0 }, b = { .n = 0 };
    struct probed *r[2] = { &a, &b };
    struct interval i;
    struct err e = { 0 };
    bool any;

    (void)state;
    for (int m = 0; m < 2; m++)
        for (int d = 0; d < 2; d++) {
            struct probed_cell *c = cell(r[m], "one", 1000, d, 4, 7 + (uint64_t)d);
            for (int k = 0; k < 4; k++)
                c->score[k] = m ? 1 : k % 2;
        }
    for (int m = 0; m < 2; m++) {
        struct probed_cell *c = cell(r[m], "two", 1000, -1, 2, 9 + (uint64_t)m);
        c->score[0] = c->score[1] = m;
    }
    assert_int_equal(probed_score(&a, NULL, "one", 1000, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.5);
    assert_int_equal(probed_score(&a, NULL, NULL, 1000, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.25); /* of 0.5 and 0 */
    assert_int_equal(probed_score(&a, &b, "one", 1000, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.5 && i.low > 0 && i.high <= 1);
    /* "two" had other prompts: nothing to pair, and the mean is of "one" alone */
    assert_int_equal(probed_score(&a, &b, "two", 1000, &i, &any, &e), 0);
    assert_false(any);
    assert_int_equal(probed_score(&a, &b, NULL, 1000, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.5);
    assert_int_equal(probed_score(&a, NULL, "one", 999, &i, &any, &e), 0);
    assert_false(any);
    /* all lengths: the mean of theirs, however many prompts each has; compared only where all can be */
    for (int m = 0; m < 2; m++) {
        struct probed_cell *c = cell(r[m], "one", 2000, -1, 1, 3);
        c->score[0] = 1;
    }
    assert_int_equal(probed_score(&a, NULL, "one", 0, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.75);
    assert_int_equal(probed_score(&a, &b, "one", 0, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.25);
    assert_int_equal(probed_score(&a, &b, "two", 0, &i, &any, &e), 0);
    assert_false(any);
    assert_int_equal(probed_score(&a, NULL, NULL, 0, &i, &any, &e), 0);
    assert_true(any && i.mean == 0.5); /* of 0.5, 0 and 1 */
    b.cell[b.n - 1].prompts++;
    assert_int_equal(probed_score(&a, &b, "one", 0, &i, &any, &e), 0);
    assert_false(any);
    assert_int_equal(probed_score(&a, &b, "one", 1000, &i, &any, &e), 0);
    assert_true(any);
    probed_free(&a);
    probed_free(&b);
}

static struct probed some_result(void)
{
    struct probed r = { .of = { .label = "a \"b\"\n", .model = "m", .context = 8192 }, .seed = -1, .haystack = "x" };

    for (int d = 0; d < 3; d++) {
        struct probed_cell *c = cell(&r, "passkey", 4096, d / 2.0, 2, 0xfedcba9876543210u + (uint64_t)d);
        c->score[0] = d / 3.0, c->score[1] = 1;
    }
    return r;
}

static void test_json_there_and_back(void **state)
{
    struct probed r = some_result(), back;
    struct buf b = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_int_equal(probed_json(&b, &r, &e), 0);
    assert_int_equal(probed_parse(&back, b.p, b.len, "x.json", &e), 0);
    assert_int_equal(back.n, 3);
    assert_string_equal(back.of.label, r.of.label);
    assert_true(back.seed == -1 && back.of.context == 8192);
    for (int k = 0; k < 3; k++) {
        assert_string_equal(back.cell[k].task, "passkey");
        assert_true(back.cell[k].depth == r.cell[k].depth && back.cell[k].prompts == r.cell[k].prompts);
        assert_memory_equal(back.cell[k].score, r.cell[k].score, 2 * sizeof(double));
    }
    probed_free(&back);
    probed_free(&r);
    buf_free(&b);
}

/* A result that somebody else wrote: every byte of it turned, and cut anywhere, is an error or a result. */
static void test_hostile_json(void **state)
{
    struct probed r = some_result(), back;
    struct buf b = { 0 };
    struct err e = { 0 };
    int refused = 0;

    (void)state;
    assert_int_equal(probed_json(&b, &r, &e), 0);
    for (size_t i = 0; i < b.len; i++) {
        char *copy = malloc(b.len);

        memcpy(copy, b.p, b.len);
        copy[i] ^= 1 << i % 7;
        e = (struct err){ 0 };
        if (probed_parse(&back, copy, b.len, "x.json", &e) == 0) {
            for (int64_t k = 0; k < back.n; k++)
                for (int64_t s = 0; s < back.cell[k].n; s++)
                    assert_true(back.cell[k].score[s] >= 0 && back.cell[k].score[s] <= 1);
            probed_free(&back);
        } else {
            assert_int_equal(e.code, E_DATA);
            refused++;
        }
        if (i % 3 == 0) {
            memcpy(copy, b.p, i);
            assert_int_equal(probed_parse(&back, copy, i, "x.json", &e), E_DATA);
        }
        free(copy);
    }
    assert_true(refused > 200);
    probed_free(&r);
    buf_free(&b);
}

static void add(struct answered *a, uint64_t key, double score, const char *output, size_t n)
{
    struct err e = { 0 };

    assert_int_equal(answered_add(a, &(struct answer){ key, "t", 10, 0, 5, -1, score, output, n }, &e), 0);
}

/* Whatever is cut off a journal, the whole lines before it count, and no line that was not written. */
static void test_a_journal_cut_anywhere(void **state)
{
    char path[] = "/tmp/longlora-journal-XXXXXX", *text;
    struct answered *a;
    struct err e = { 0 };
    size_t n;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(answered_parse(&a, path, "", 0, 99, &e), 0);
    assert_int_equal(answered_write(a, "cpu", &e), 0);
    add(a, 1, 0.25, "a\0b\xff\n\"", 6);
    add(a, 2, 1, "", 0);
    answered_close(a);
    assert_int_equal(file_read(path, 1 << 20, &text, &n, &e), 0);
    for (size_t cut = 0; cut <= n; cut++) {
        char *copy = malloc(cut + 1);
        int64_t lines = 0;
        double score = 0;

        memcpy(copy, text, cut);
        for (size_t i = 0; i < cut; i++)
            lines += copy[i] == '\n';
        assert_int_equal(answered_parse(&a, path, copy, cut, 99, &e), 0);
        assert_int_equal(answered_count(a), lines > 0 ? lines - 1 : 0);
        assert_int_equal(answered_find(a, 1, &score), lines > 1);
        assert_true(lines < 2 || score == 0.25);
        assert_false(answered_find(a, 3, &score));
        answered_close(a);
        free(copy);
    }
    for (size_t i = 0; i < n; i++) { /* and a byte that is turned is seen, wherever it is, but in the last line's end */
        text[i] ^= 4;
        if (i < n - 1)
            assert_true(answered_parse(&a, path, text, n, 99, &e) < 0);
        else
            assert_int_equal(answered_parse(&a, path, text, n, 99, &e), 0);
        answered_close(a);
        text[i] ^= 4;
    }
    assert_int_equal(answered_parse(&a, path, text, n, 98, &e), E_CONFIG);
    answered_close(a);
    free(text);
    unlink(path);
}

/* Lines are as wide as the terminal at most, and every value is there. */
static void test_a_map_fits(void **state)
{
    enum { NX = 30, NY = 2 };
    static char x[NX][HEAT_LABEL], y[NY][HEAT_LABEL] = { "0%", "100%" };
    double v[NX * NY];
    struct heat h = { "t\x1b", "length", "depth", NX, NY, (const char (*)[HEAT_LABEL])x,
                      (const char (*)[HEAT_LABEL])y, v };
    struct err e = { 0 };

    (void)state;
    for (int i = 0; i < NX; i++)
        snprintf(x[i], HEAT_LABEL, "%dk", i + 1), v[i] = i / (NX - 1.0), v[NX + i] = i ? 0.5 : NAN;
    for (int width = 20; width <= 200; width += 15)
        for (int utf8 = 0; utf8 < 2; utf8++) {
            struct buf b = { 0 };
            int numbers = 0, dashes = 0;

            assert_int_equal(heat_text(&b, &h, width, utf8, false, &e), 0);
            assert_null(memchr(b.p, '\x1b', b.len));
            for (size_t i = 0, at = 0; i < b.len; i++) {
                at = b.p[i] == '\n' ? 0 : at + (((unsigned char)b.p[i] & 0xC0) != 0x80);
                assert_true(at <= (size_t)(width > 40 ? width : 40));
                numbers += i >= 2 && strncmp(b.p + i - 2, " 50 ", 4) == 0;
                dashes += i > 0 && strncmp(b.p + i - 1, " - ", 3) == 0;
                assert_true(utf8 || (unsigned char)b.p[i] < 0x80);
            }
            assert_true(numbers >= NX - 1 && dashes == 1);
            buf_free(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_interval_of_halves), cmocka_unit_test(test_means_and_differences),
        cmocka_unit_test(test_json_there_and_back), cmocka_unit_test(test_hostile_json),
        cmocka_unit_test(test_a_journal_cut_anywhere), cmocka_unit_test(test_a_map_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
