/* probes/python_random.c - the random numbers of Python's random and of numpy's RandomState. */
#include "probes/python_random.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 624, SHIFT = 397 };

void numpy_random_seed(struct python_random *r, uint32_t seed)
{
    r->word[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++)
        r->word[i] = 1812433253u * (r->word[i - 1] ^ (r->word[i - 1] >> 30)) + i;
    r->at = WORDS;
}

/* MT19937's init_by_array with the seed's words as the key: as many as it has, at least one. */
void python_random_seed(struct python_random *r, uint64_t seed)
{
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    const int n = key[1] ? 2 : 1;
    uint32_t *w = r->word;
    int i = 1, j = 0;

    numpy_random_seed(r, 19650218);
    for (int k = WORDS; k > 0; k--) {
        w[i] = (w[i] ^ ((w[i - 1] ^ (w[i - 1] >> 30)) * 1664525u)) + key[j] + (uint32_t)j;
        j = (j + 1) % n;
        if (++i == WORDS) {
            w[0] = w[WORDS - 1];
            i = 1;
        }
    }
    for (int k = WORDS - 1; k > 0; k--) {
        w[i] = (w[i] ^ ((w[i - 1] ^ (w[i - 1] >> 30)) * 1566083941u)) - (uint32_t)i;
        if (++i == WORDS) {
            w[0] = w[WORDS - 1];
            i = 1;
        }
    }
    w[0] = 0x80000000u;
}

static void next_words(uint32_t *w)
{
    for (int i = 0; i < WORDS; i++) {
        const uint32_t y = (w[i] & 0x80000000u) | (w[(i + 1) % WORDS] & 0x7fffffffu);

        w[i] = w[(i + SHIFT) % WORDS] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t python_random_word(struct python_random *r)
{
    uint32_t y;

    if (r->at == WORDS) {
        next_words(r->word);
        r->at = 0;
    }
    y = r->word[r->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

double python_random_real(struct python_random *r)
{
    const uint32_t a = python_random_word(r) >> 5, b = python_random_word(r) >> 6;

    return (a * 67108864.0 + b) / 9007199254740992.0;
}

void python_random_bits(struct python_random *r, uint32_t *words, int n)
{
    for (int i = 0; i < n; i++)
        words[i] = python_random_word(r);
}

/* getrandbits(bits), bits in 1 .. 64: the last word gives its upper bits. */
static uint64_t few_bits(struct python_random *r, int bits)
{
    uint64_t low;

    if (bits <= 32)
        return python_random_word(r) >> (32 - bits);
    low = python_random_word(r);
    return low | (uint64_t)(python_random_word(r) >> (64 - bits)) << 32;
}

uint64_t python_random_below(struct python_random *r, uint64_t n)
{
    const int bits = 64 - __builtin_clzll(n);
    uint64_t x;

    do
        x = few_bits(r, bits);
    while (x >= n);
    return x;
}

int64_t python_random_int(struct python_random *r, int64_t low, int64_t high)
{
    return low + (int64_t)python_random_below(r, (uint64_t)high - (uint64_t)low + 1);
}

int64_t python_random_choices(struct python_random *r, int64_t n)
{
    return (int64_t)(python_random_real(r) * (double)n);
}

/* From a pool, whose drawn numbers are replaced by its last ones. */
static void sample_pool(struct python_random *r, int64_t n, int64_t k, int64_t *out, int64_t *pool)
{
    for (int64_t i = 0; i < n; i++)
        pool[i] = i;
    for (int64_t i = 0; i < k; i++) {
        const int64_t j = (int64_t)python_random_below(r, (uint64_t)(n - i));

        out[i] = pool[j];
        pool[j] = pool[n - i - 1];
    }
}

/* Drawing again what has been drawn; drawn has a bit a number. */
static void sample_set(struct python_random *r, int64_t n, int64_t k, int64_t *out,
                       unsigned char *drawn)
{
    for (int64_t i = 0; i < k; i++) {
        int64_t j;

        do
            j = (int64_t)python_random_below(r, (uint64_t)n);
        while (drawn[j / 8] >> (j % 8) & 1);
        drawn[j / 8] |= (unsigned char)(1 << (j % 8));
        out[i] = j;
    }
}

int python_random_sample(struct python_random *r, int64_t n, int64_t k, int64_t *out, struct err *e)
{
    int64_t set = 21, table = 1;
    bool pool;
    void *mem;

    if (k < 0 || n < k)
        return err_set(e, E_BUG, "a sample of %lld from %lld", (long long)k, (long long)n);
    if (k == 0)
        return 0;
    if (k > 5) { /* the sizes at which Python thinks that a list is the smaller */
        while (table / 3 < k && table < INT64_MAX / 4)
            table *= 4;
        set += table;
    }
    pool = n <= set;
    mem = calloc(pool ? (size_t)n : (size_t)n / 8 + 1, pool ? sizeof(int64_t) : 1);
    if (!mem)
        return err_set(e, E_SYS, "no memory to draw from %lld", (long long)n);
    if (pool)
        sample_pool(r, n, k, out, mem);
    else
        sample_set(r, n, k, out, mem);
    free(mem);
    return 0;
}

static void swap(char *a, char *b, size_t each)
{
    for (size_t i = 0; i < each; i++) {
        const char c = a[i];

        a[i] = b[i];
        b[i] = c;
    }
}

void python_random_shuffle(struct python_random *r, void *items, int64_t n, size_t each)
{
    char *p = items;

    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)python_random_below(r, (uint64_t)i + 1);

        swap(p + (size_t)i * each, p + (size_t)j * each, each);
    }
}

int64_t numpy_random_int(struct python_random *r, int64_t low, int64_t high)
{
    const uint32_t most = (uint32_t)(high - low - 1);
    uint32_t x;

    if (most == 0) /* numpy draws nothing for a single number */
        return low;
    do
        x = python_random_word(r) & (uint32_t)(UINT64_MAX >> __builtin_clzll(most));
    while (x > most);
    return low + x;
}
