/* tests/test_random.c - random numbers as Python and numpy draw them (make_random_golden.py). */
#include "probes/python_random.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define GOLDEN "tests/data/probes/random.txt"
enum { MOST = 8192 };

/* CRC-32 as zlib's, of n numbers of 8 bytes, least byte first. */
static uint32_t crc32_of(const int64_t *x, int64_t n)
{
    uint32_t crc = ~0u;

    for (int64_t i = 0; i < 8 * n; i++) {
        crc ^= (uint32_t)((uint64_t)x[i / 8] >> (8 * (i % 8)) & 255);
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* A line of the file: a call with its numbers, then what came of it. */
struct line {
    char call[16];
    uint64_t a[2]; /* below zero: as two's complement */
    const char *values;
};

static struct line parsed(char *s)
{
    struct line l = { .call = "" };
    char *colon = strchr(s, ':'), *p = s;
    int n = 0;

    assert_non_null(colon);
    *colon = 0;
    l.values = colon + 1;
    assert_int_equal(sscanf(s, "%15s", l.call), 1);
    for (p = strchr(p, ' '); p && n < 2; p = strchr(p, ' ')) {
        while (*p == ' ')
            p++;
        if (!*p)
            break;
        l.a[n++] = *p == '-' ? (uint64_t)strtoll(p, NULL, 10) : strtoull(p, NULL, 10);
    }
    return l;
}

/* What was drawn is what the line says: up to 20 numbers, of more the checksum. */
static void same(const struct line *l, const int64_t *x, int64_t n)
{
    const char *p = l->values;
    char *end;
    int64_t many;
    uint32_t crc;

    for (int64_t i = 0; i < n && i < 20; i++) {
        uint64_t want = strtoull(p, &end, 10); /* takes a minus sign too */
        assert_true(end != p);
        if ((uint64_t)x[i] != want)
            fail_msg("%s %" PRIu64 " %" PRIu64 ": number %" PRId64 " is %" PRId64 ", not %" PRId64,
                     l->call, l->a[0], l->a[1], i, x[i], (int64_t)want);
        p = end;
    }
    if (n > 20) {
        assert_int_equal(sscanf(p, " crc %" SCNd64 " %" SCNx32, &many, &crc), 2);
        assert_int_equal(many, n);
        assert_int_equal(crc32_of(x, n), crc);
    } else {
        assert_int_equal(strspn(p, " \n"), strlen(p));
    }
}

static void same_real(const struct line *l, double x)
{
    assert_true(x == strtod(l->values, NULL));
}

/* Draws as the line says into x; how many, -1 for a call of another sort. */
static int64_t draw(struct python_random *r, const struct line *l, int64_t *x)
{
    const int64_t a = (int64_t)l->a[0], b = (int64_t)l->a[1];
    struct err e = { 0 };
    int64_t n = 3;

    if (!strcmp(l->call, "below")) {
        for (int i = 0; i < 3; i++)
            x[i] = (int64_t)python_random_below(r, l->a[0]);
    } else if (!strcmp(l->call, "choice")) {
        for (n = 0; n < 6; n++)
            x[n] = (int64_t)python_random_below(r, l->a[0]);
    } else if (!strcmp(l->call, "int")) {
        for (int i = 0; i < 3; i++)
            x[i] = python_random_int(r, a, b);
    } else if (!strcmp(l->call, "choices")) {
        for (n = 0; n < 50; n++)
            x[n] = python_random_choices(r, a);
    } else if (!strcmp(l->call, "numpy_int")) {
        for (n = 0; n < 5; n++)
            x[n] = numpy_random_int(r, a, b);
    } else if (!strcmp(l->call, "sample")) {
        n = b;
        assert_int_equal(python_random_sample(r, a, b, x, &e), 0);
    } else if (!strcmp(l->call, "shuffle")) {
        for (n = 0; n < a; n++)
            x[n] = n;
        python_random_shuffle(r, x, a, sizeof *x);
    } else if (!strcmp(l->call, "bits")) {
        uint32_t w[4];
        python_random_bits(r, w, (int)a / 32);
        for (n = 0; n < a / 32; n++)
            x[n] = w[n];
    } else {
        return -1;
    }
    return n;
}

static void test_each_call_draws_what_python_does(void **state)
{
    static int64_t x[MOST];
    struct python_random r;
    char s[1024];
    int calls = 0;
    FILE *f = fopen(GOLDEN, "r");

    (void)state;
    assert_non_null(f);
    while (fgets(s, sizeof s, f)) {
        struct line l = parsed(s);
        int64_t n;

        calls++;
        if (!strcmp(l.call, "seed")) {
            python_random_seed(&r, l.a[0]);
        } else if (!strcmp(l.call, "numpy")) {
            numpy_random_seed(&r, (uint32_t)l.a[0]);
        } else if (!strcmp(l.call, "real")) {
            same_real(&l, python_random_real(&r));
        } else {
            assert_true((n = draw(&r, &l, x)) >= 0);
            same(&l, x, n);
        }
    }
    fclose(f);
    assert_int_equal(calls, 8 * 56 + 4 * 13);
}

static void test_a_sample_larger_than_what_there_is(void **state)
{
    struct python_random r;
    struct err e = { 0 };
    int64_t x[4] = { 7, 7, 7, 7 };

    (void)state;
    python_random_seed(&r, 1);
    assert_int_equal(python_random_sample(&r, 3, 4, x, &e), E_BUG);
    assert_int_equal(python_random_sample(&r, 3, -1, x, &e), E_BUG);
    assert_int_equal(python_random_sample(&r, 0, 0, x, &e), 0);
    assert_int_equal(x[0], 7);
}

static void test_shuffle_moves_items_of_any_size(void **state)
{
    struct python_random r;
    char text[] = "aaabbbcccdddeeefff";
    int64_t x[6] = { 0, 1, 2, 3, 4, 5 };

    (void)state;
    python_random_seed(&r, 5);
    python_random_shuffle(&r, x, 6, sizeof *x);
    python_random_seed(&r, 5);
    python_random_shuffle(&r, text, 6, 3);
    for (int i = 0; i < 18; i++)
        assert_int_equal(text[i], 'a' + x[i / 3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_call_draws_what_python_does),
        cmocka_unit_test(test_a_sample_larger_than_what_there_is),
        cmocka_unit_test(test_shuffle_moves_items_of_any_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
