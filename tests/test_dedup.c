/* tests/test_dedup.c - copies, near copies and contamination, against brute force. */
#include "prep/contam.h"
#include "prep/dedup.h"
#include "prep/grams.h"
#include "prep/minhash.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t state_of_chance = 42;
static uint32_t chance(uint32_t below)
{
    state_of_chance = state_of_chance * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(state_of_chance >> 33) % below;
}

static XXH128_hash_t key_of(uint64_t i) { return XXH3_128bits(&i, sizeof i); }

/* As long as the table has room the set is exact; then it never forgets, and errs as promised. */
static void test_set(void **state)
{
    struct dedup *d;
    struct err e = { 0 };
    const int64_t exact = 65536 / 2 / 16 / 8 * 7, n = 20000;
    int64_t wrong = 0;
    double expected;

    (void)state;
    assert_int_equal(dedup_open(&d, 65536, false, &e), 0);
    assert_false(dedup_has(d, (XXH128_hash_t){ 0, 0 }));
    dedup_add(d, (XXH128_hash_t){ 0, 0 }, 0);
    assert_true(dedup_has(d, (XXH128_hash_t){ 0, 0 }));
    for (int64_t i = 1; i < exact; i++) {
        assert_false(dedup_has(d, key_of((uint64_t)i)));
        dedup_add(d, key_of((uint64_t)i), 0);
        dedup_add(d, key_of((uint64_t)i), 0); /* once more changes nothing */
    }
    assert_int_equal(dedup_over(d), 0);
    for (int64_t i = exact; i < exact + n; i++)
        dedup_add(d, key_of((uint64_t)i), 0);
    for (int64_t i = 1; i < exact + n; i++)
        assert_true(dedup_has(d, key_of((uint64_t)i)));
    for (int64_t i = 0; i < 200000; i++)
        wrong += dedup_has(d, key_of((uint64_t)(1 << 30) + (uint64_t)i));
    expected = pow(1 - exp(-8.0 * (double)dedup_over(d) / (65536 * 4)), 8);
    assert_true(fabs(dedup_error(d, 1) / expected - 1) < 0.03);
    if (fabs((double)wrong / 200000 - expected) > 0.1 * expected + 1e-4)
        fail_msg("%lld of 200000 wrong, expected %g", (long long)wrong, expected);
    dedup_close(d);
}

/* Unique documents of 15 keys, as lprep makes them, until the filter's m bits have 'fill' keys
 * each eight bits, in a set of 64 KiB: how many are taken for copies, and how many the formula of
 * dedup.h has. The number of each is a draw, so they must agree within four standard errors.
 * (A fuller filter loses more than the formula has: what is kept sets more bits than what is
 * not. What is told counts the bits.) */
static void lose(bool near, int64_t memory, double fill, int rounds)
{
    const double m = 4 * (double)memory;
    int64_t docs = 0, lost = 0;
    int n = near ? 15 : 1;
    double expected = 0, told = 0, p = 0;
    struct dedup *d;
    struct err e = { 0 };

    for (int r = 0; r < rounds; r++) {
        assert_int_equal(dedup_open(&d, (size_t)memory, false, &e), 0);
        for (; (double)dedup_over(d) < fill * m; docs++) {
            XXH128_hash_t key[15];
            uint32_t of;
            for (int i = 0; i < n; i++) {
                uint64_t x[3] = { (uint64_t)(memory * 2 + near), (uint64_t)docs, (uint64_t)i };
                key[i] = i ? (XXH128_hash_t){ XXH3_64bits(x, sizeof x), (uint64_t)i }
                           : XXH3_128bits(x, sizeof x);
            }
            p = pow(1 - exp(-8 * (double)dedup_over(d) / m), 8);
            expected += 1 - pow(1 - p, n);
            told += dedup_error(d, n);
            lost += dedup_doc(d, key, n, 1, &of) != KEPT;
        }
        dedup_close(d);
    }
    if (fabs((double)lost - expected) > 4 * sqrt(expected) + 2)
        fail_msg("%lld of %lld documents lost, expected %g", (long long)lost, (long long)docs,
                 expected);
    if (fabs(told / expected - 1) > 0.05 || fabs((double)lost - told) > 4 * sqrt(told) + 2)
        fail_msg("told %g, %lld lost, expected %g", told, (long long)lost, expected);
    if (fill > 0.04 && expected < 100)
        fail_msg("only %g expected of %lld: nothing was measured", expected, (long long)docs);
}

static void test_false_copies(void **state)
{
    (void)state;
    for (int near = 0; near < 2; near++) {
        lose(near, 65536, near ? 0.1 : 0.12, 4);
        lose(near, 262144, near ? 0.08 : 0.11, 4);
        lose(near, 1048576, near ? 0.085 : 0.09, 1);
        lose(near, 1048576, 0.02, 1);
    }
}

/* Which document brought a key, as long as the table has it. */
static void test_which(void **state)
{
    struct dedup *d;
    struct err e = { 0 };
    uint32_t of = 9;

    (void)state;
    assert_int_equal(dedup_open(&d, 65536, true, &e), 0);
    for (uint32_t i = 1; i <= 3000; i++) {
        XXH128_hash_t key[2] = { key_of(i), { 77 + i, 1 } };
        assert_int_equal(dedup_doc(d, key, 2, i, &of), KEPT);
        assert_int_equal(of, 0);
    }
    for (uint32_t i = 1; i <= 3000; i++) {
        XXH128_hash_t key[2] = { key_of(1000000 + i), { 77 + i, 1 } }, same = key_of(i);
        assert_int_equal(dedup_doc(d, key, 2, 5000, &of), DROP_NEAR);
        assert_int_equal(of, i <= 896 ? i : 0); /* 1792 keys are in the table */
        assert_int_equal(dedup_doc(d, &same, 1, 5000, &of), DROP_COPY);
        assert_int_equal(of, i <= 896 ? i : 0);
    }
    dedup_close(d);
}

/* The words of a text as the header defines them, each ended by '|'. */
static char *plain_words(const char *p, size_t n, int *count)
{
    char *out = malloc(2 * n + 2);
    size_t k = 0;

    *count = 0;
    for (size_t i = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)p[i] : ' ';
        if (isalnum(c) || c >= 0x80) {
            out[k++] = (char)(c < 0x80 ? tolower(c) : c);
        } else if (k && out[k - 1] != '|') {
            out[k++] = '|';
            ++*count;
        }
    }
    out[k] = '\0';
    return out;
}

/* n-gram i of such words: where it stands and how long it is. */
static const char *plain_gram(const char *words, int i, int n, size_t *len)
{
    const char *p = words, *q;

    for (; i > 0; i--)
        p = strchr(p, '|') + 1;
    for (q = p; n > 0; n--)
        q = strchr(q, '|') + 1;
    *len = (size_t)(q - p);
    return p;
}

static size_t random_text(char *p, size_t cap, int vocabulary)
{
    static const char *const between[] = { " ", ", ", "\n", " - ", "\t", ". " };
    size_t n = 0;

    while (n + 24 < cap) {
        uint32_t w = chance((uint32_t)vocabulary);
        n += (size_t)snprintf(p + n, cap - n, chance(3) ? "w%uxyzabcdefgh" : "W%u\xC3\xA9", w);
        if (w % 3)
            p[n - 1 - (w & 1)] = 'q';
        n += (size_t)snprintf(p + n, cap - n, "%s", between[chance(6)]);
    }
    return n;
}

/* Equal n-grams have equal hashes and others have not, wherever blocks are cut. */
static void test_grams(void **state)
{
    char text[600];

    (void)state;
    for (int round = 0; round < 60; round++) {
        size_t n = random_text(text, sizeof text, 3);
        uint64_t h[600];
        int words, size = 1 + (int)chance(6);
        char *plain = plain_words(text, n, &words);
        struct grams g;
        int64_t k = 0, got;

        grams_start(&g, text, n, size);
        while ((got = grams_next(&g, h + k, 1 + chance(7))) > 0)
            k += got;
        assert_int_equal(g.words, words);
        assert_int_equal(k, words >= size ? words - size + 1 : 0);
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < i; j++) {
                size_t a, b;
                const char *p = plain_gram(plain, (int)i, size, &a);
                const char *q = plain_gram(plain, (int)j, size, &b);
                assert_int_equal(h[i] == h[j], a == b && memcmp(p, q, a) == 0);
            }
        free(plain);
    }
}

static int by_size(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static struct doc doc_of(char *p, size_t n) { return (struct doc){ .text = { p, n, 0 } }; }

static void test_contamination(void **state)
{
    char eval[2000], text[400];
    int shared = 0;

    (void)state;
    for (int round = 0; round < 300; round++) {
        size_t n = random_text(eval, sizeof eval, 12), m = random_text(text, sizeof text, 12);
        int eval_words, words, size = 2 + (int)chance(4), brute = 0;
        char *a = plain_words(eval, n, &eval_words), *b = plain_words(text, m, &words);
        struct doc e_doc = doc_of(eval, n), d = doc_of(text, m);
        struct contam *c;
        struct err e = { 0 };

        assert_int_equal(contam_open(&c, size, &e), 0);
        assert_int_equal(contam_add(c, &e_doc, &e), 0);
        for (int i = 0; i + size <= words; i++) {
            size_t len;
            const char *g = plain_gram(b, i, size, &len);
            for (const char *p = a; (p = memmem(p, strlen(p), g, len)); p++)
                brute |= p == a || p[-1] == '|';
        }
        assert_int_equal(contam_shares(c, &d), brute);
        shared += brute;
        contam_close(c);
        free(a);
        free(b);
    }
    assert_in_range(shared, 30, 270); /* both answers were asked for */
}

/* All levels agree with the formula. */
static void test_minima(void **state)
{
    static struct minhash m;
    uint32_t x[100], want[MINHASH_MAX], got[MINHASH_MAX];

    (void)state;
    for (int round = 0; round < 20; round++) {
        minhash_init(&m, 1 + (int)chance(14), 1 + (int)chance(16), 5);
        for (int i = 0; i < 100; i++)
            x[i] = chance(UINT32_MAX);
        for (int i = 0; i < m.hashes; i++) {
            assert_true(m.a[i] & 1);
            want[i] = UINT32_MAX;
            for (int k = 0; k < 100; k++)
                if (m.a[i] * x[k] + m.b[i] < want[i])
                    want[i] = m.a[i] * x[k] + m.b[i];
        }
        for (int level = SIMD_NONE; level <= (int)simd_level(); level++) {
            memset(got, 255, sizeof got);
            minhash_update(&m, x, 37, got, (enum simd)level);
            minhash_update(&m, x + 37, 63, got, (enum simd)level);
            assert_memory_equal(got, want, (size_t)m.hashes * sizeof *want);
        }
    }
}

/* One band of one row agrees with probability s, measured over bands and pairs; and 14 x 8 finds
 * what is near and not what is far. */
static void test_similarity(void **state)
{
    static const double share[] = { 0.2, 0.5, 0.8 };
    static struct minhash one, usual;
    static char a[60000], b[60000];

    (void)state;
    minhash_init(&one, 32, 1, 1);
    minhash_init(&usual, 14, 8, 1);
    for (int k = 0; k < 3; k++) {
        int agree = 0, near = 0;
        for (int pair = 0; pair < 60; pair++) { /* sets of 1000 words, a share of them in both */
            int common = (int)(2000 * share[k] / (1 + share[k])), bands = 0;
            size_t n = 0, m = 0;
            uint64_t p[2][32], q[2][32];
            struct doc d[2];
            for (int i = 0; i < 1000; i++) {
                n += (size_t)sprintf(a + n, "p%dw%d ", pair, i);
                m += (size_t)sprintf(b + m, "p%dw%d ", pair, i < common ? i : 5000 + i);
            }
            d[0] = doc_of(a, n);
            d[1] = doc_of(b, m);
            for (int i = 0; i < 2; i++) {
                assert_true(minhash_keys(&one, &d[i], p[i]));
                assert_true(minhash_keys(&usual, &d[i], q[i]));
            }
            for (int i = 0; i < 32; i++)
                agree += p[0][i] == p[1][i];
            for (int i = 0; i < 14; i++)
                bands |= q[0][i] == q[1][i];
            near += bands;
        }
        if (fabs(agree / 1920.0 - share[k]) > 0.05)
            fail_msg("similarity %g: %g agree", share[k], agree / 1920.0);
        if (fabs(near / 60.0 - (1 - pow(1 - pow(share[k], 8), 14))) > 0.15)
            fail_msg("similarity %g: %d of 60 near", share[k], near);
    }
}

static void test_short_and_empty(void **state)
{
    static struct minhash m;
    char a[] = "Two words.", b[] = "two  WORDS", c[] = "two other", none[] = " .,! ";
    struct doc d[4] = { doc_of(a, sizeof a - 1), doc_of(b, sizeof b - 1), doc_of(c, sizeof c - 1),
                        doc_of(none, sizeof none - 1) };
    uint64_t key[3][32];

    (void)state;
    minhash_init(&m, 14, 8, 5);
    for (int i = 0; i < 3; i++)
        assert_true(minhash_keys(&m, &d[i], key[i]));
    assert_memory_equal(key[0], key[1], 14 * sizeof key[0][0]);
    for (int i = 0; i < 14; i++)
        assert_true(key[0][i] != key[2][i]);
    assert_int_equal(minhash_keys(&m, &d[3], key[0]), 0);
}

/* Texts of one n-gram are kept apart by more than the 32 bits that the hash functions see. */
static void test_single_grams(void **state)
{
    enum { N = 200000 };
    static struct minhash m;
    uint64_t *first = malloc(N * sizeof *first), key[32];
    int same = 0;

    (void)state;
    minhash_init(&m, 1, 8, 5);
    for (int i = 0; i < N; i++) {
        char text[40];
        struct doc d = doc_of(text, (size_t)sprintf(text, "the page number %d ends", i));
        assert_int_equal(minhash_keys(&m, &d, key), 1);
        first[i] = key[0];
    }
    qsort(first, N, sizeof *first, by_size);
    for (int i = 1; i < N; i++)
        same += first[i] == first[i - 1];
    free(first);
    assert_int_equal(same, 0); /* by 32 bits 4.7 pairs were expected */
}

/* With one row chance makes copies of texts that share no word, as often as is said. */
static void test_chance(void **state)
{
    enum { DOCS = 2500, WORDS = 1000 };
    static struct minhash m;
    static char text[WORDS * 12];
    struct dedup *d;
    struct err e = { 0 };
    double expected = 0;
    int lost = 0;

    (void)state;
    minhash_init(&m, 32, 1, 1);
    assert_int_equal(dedup_open(&d, 8 << 20, false, &e), 0);
    for (int i = 0; i < DOCS; i++) {
        XXH128_hash_t key[33] = { key_of((uint64_t)i) };
        struct doc doc;
        uint64_t near[32];
        uint32_t of;
        size_t n = 0;
        for (int w = 0; w < WORDS; w++)
            n += (size_t)sprintf(text + n, "%d ", i * WORDS + w);
        doc = doc_of(text, n);
        assert_int_equal(minhash_keys(&m, &doc, near), WORDS);
        for (int k = 0; k < 32; k++)
            key[k + 1] = (XXH128_hash_t){ near[k], (uint64_t)k + 1 };
        expected += minhash_chance(&m, WORDS, i);
        lost += dedup_doc(d, key, 33, 1, &of) != KEPT;
    }
    assert_int_equal(dedup_over(d), 0);
    if (fabs(lost - expected) > 4 * sqrt(expected))
        fail_msg("%d lost, expected %g", lost, expected);
    dedup_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_false_copies),
        cmocka_unit_test(test_which),
        cmocka_unit_test(test_grams),
        cmocka_unit_test(test_contamination),
        cmocka_unit_test(test_minima),
        cmocka_unit_test(test_similarity),
        cmocka_unit_test(test_short_and_empty),
        cmocka_unit_test(test_single_grams),
        cmocka_unit_test(test_chance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
