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
    assert_int_equal(dedup_open(&d, 65536, &e), 0);
    assert_false(dedup_has(d, (XXH128_hash_t){ 0, 0 }));
    dedup_add(d, (XXH128_hash_t){ 0, 0 });
    assert_true(dedup_has(d, (XXH128_hash_t){ 0, 0 }));
    for (int64_t i = 1; i < exact; i++) {
        assert_false(dedup_has(d, key_of((uint64_t)i)));
        dedup_add(d, key_of((uint64_t)i));
        dedup_add(d, key_of((uint64_t)i)); /* once more changes nothing */
    }
    assert_int_equal(dedup_over(d), 0);
    for (int64_t i = exact; i < exact + n; i++)
        dedup_add(d, key_of((uint64_t)i));
    for (int64_t i = 1; i < exact + n; i++)
        assert_true(dedup_has(d, key_of((uint64_t)i)));
    for (int64_t i = 0; i < 200000; i++)
        wrong += dedup_has(d, key_of((uint64_t)(1 << 30) + (uint64_t)i));
    expected = pow(1 - exp(-8.0 * (double)dedup_over(d) / (65536 * 4)), 8);
    assert_true(fabs(dedup_error(d) - expected) < 1e-12);
    if (fabs((double)wrong / 200000 - expected) > 0.1 * expected + 1e-4)
        fail_msg("%lld of 200000 wrong, expected %g", (long long)wrong, expected);
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
        for (int level = -1; level <= 2; level++) {
            memset(got, 255, sizeof got);
            minhash_update(&m, x, 37, got, level);
            minhash_update(&m, x + 37, 63, got, level);
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
    assert_false(minhash_keys(&m, &d[3], key[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_grams),
        cmocka_unit_test(test_contamination),
        cmocka_unit_test(test_minima),
        cmocka_unit_test(test_similarity),
        cmocka_unit_test(test_short_and_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
