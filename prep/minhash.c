/* prep/minhash.c - near copies by MinHash; see minhash.h.
 *
 * A text is the set of its n-grams of words, each hashed to a number x. For every hash function
 * h_i(x) = a_i x + b_i mod 2^32 the signature keeps the smallest value over the set. Two texts
 * that share 9 of 10 n-grams have the same smallest value in about 9 of 10 places, because the
 * n-gram that gives it is most likely one they share. The places are grouped to bands; the hash of
 * a band is a key, and texts with a key in common are near copies. So a comparison of all pairs
 * becomes a look-up of 14 keys a text.
 */
#include "prep/minhash.h"

#include "prep/grams.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { BLOCK = 512 }; /* n-grams at once */

void minhash_init(struct minhash *m, int bands, int rows, int words)
{
    uint64_t x = 1;

    *m = (struct minhash){ .bands = bands, .rows = rows, .words = words };
    /* Sixteen at a time, so that no loop has a rest; the last ones are in no band. */
    m->hashes = (bands * rows + 15) / 16 * 16;
    for (int i = 0; i < m->hashes; i++) {
        uint64_t h = XXH3_64bits_withSeed(&x, sizeof x, (uint64_t)i);
        m->a[i] = (uint32_t)h | 1; /* odd, so that x -> a x + b takes every value once */
        m->b[i] = (uint32_t)(h >> 32);
    }
}

static void update_plain(const struct minhash *m, const uint32_t *x, int64_t n,
                         uint32_t *smallest)
{
    for (int i = 0; i < m->hashes; i++) {
        uint32_t a = m->a[i], b = m->b[i], s = smallest[i];
        for (int64_t k = 0; k < n; k++) {
            uint32_t h = a * x[k] + b;
            s = h < s ? h : s;
        }
        smallest[i] = s;
    }
}

#ifdef __x86_64__
/* Sixteen at a time in two registers, so that one product need not wait for the other. */
__attribute__((target("avx2"))) static void
update_avx2(const struct minhash *m, const uint32_t *x, int64_t n, uint32_t *smallest)
{
    for (int i = 0; i < m->hashes; i += 16) {
        const __m256i *a = (const __m256i *)(const void *)(m->a + i);
        const __m256i *b = (const __m256i *)(const void *)(m->b + i);
        __m256i *out = (__m256i *)(void *)(smallest + i);
        __m256i a0 = _mm256_loadu_si256(a), a1 = _mm256_loadu_si256(a + 1);
        __m256i b0 = _mm256_loadu_si256(b), b1 = _mm256_loadu_si256(b + 1);
        __m256i s0 = _mm256_loadu_si256(out), s1 = _mm256_loadu_si256(out + 1);
        for (int64_t k = 0; k < n; k++) {
            __m256i v = _mm256_set1_epi32((int)x[k]);
            s0 = _mm256_min_epu32(s0, _mm256_add_epi32(_mm256_mullo_epi32(a0, v), b0));
            s1 = _mm256_min_epu32(s1, _mm256_add_epi32(_mm256_mullo_epi32(a1, v), b1));
        }
        _mm256_storeu_si256(out, s0);
        _mm256_storeu_si256(out + 1, s1);
    }
}

__attribute__((target("avx512f"))) static void
update_avx512(const struct minhash *m, const uint32_t *x, int64_t n, uint32_t *smallest)
{
    for (int i = 0; i < m->hashes; i += 16) {
        __m512i a = _mm512_loadu_si512(m->a + i), b = _mm512_loadu_si512(m->b + i),
                s = _mm512_loadu_si512(smallest + i);
        for (int64_t k = 0; k < n; k++) {
            __m512i h = _mm512_mullo_epi32(a, _mm512_set1_epi32((int)x[k]));
            s = _mm512_min_epu32(s, _mm512_add_epi32(h, b));
        }
        _mm512_storeu_si512(smallest + i, s);
    }
}
#endif

void minhash_update(const struct minhash *m, const uint32_t *x, int64_t n, uint32_t *smallest,
                    enum simd level)
{
#ifdef __x86_64__
    if (level >= SIMD_AVX512) {
        update_avx512(m, x, n, smallest);
        return;
    }
    if (level == SIMD_AVX2) {
        update_avx2(m, x, n, smallest);
        return;
    }
#endif
    (void)level;
    update_plain(m, x, n, smallest);
}

/* What a document's parts have been seen to hold. */
struct seen {
    int64_t grams;
    uint64_t first, other; /* the first n-gram; bits in which a later one was another */
};

/* Takes n > 0 n-grams into the signature, of which the low 32 bits count. */
static void add_grams(const struct minhash *m, const uint64_t *gram, int64_t n, struct seen *s,
                      uint32_t *smallest)
{
    uint32_t x[BLOCK];

    if (s->grams == 0)
        s->first = gram[0];
    for (int64_t i = 0; i < n; i++) {
        x[i] = (uint32_t)gram[i];
        s->other |= gram[i] ^ s->first;
    }
    s->grams += n;
    minhash_update(m, x, n, smallest, simd_level());
}

/* All n-grams of one text; a text of fewer words than an n-gram is one n-gram. */
static void add_text(const struct minhash *m, const struct buf *text, struct seen *s,
                     uint32_t *smallest)
{
    struct grams g;
    uint64_t gram[BLOCK];
    int64_t n;

    grams_start(&g, text->p, text->len, m->words);
    while ((n = grams_next(&g, gram, BLOCK)) > 0)
        add_grams(m, gram, n, s, smallest);
    if (g.words > 0 && g.words < m->words) {
        gram[0] = grams_rest(&g);
        add_grams(m, gram, 1, s, smallest);
    }
}

/* A text of one n-gram has 32 bits of it in its signature, too few among many short texts: its
 * keys are made of all 64. */
int64_t minhash_keys(const struct minhash *m, const struct doc *d, uint64_t *out)
{
    uint32_t smallest[MINHASH_MAX];
    struct seen s = { 0, 0, 0 };

    memset(smallest, 255, sizeof smallest); /* 2^32 - 1: nothing yet */
    add_text(m, &d->text, &s, smallest);
    if (d->instruct) {
        add_text(m, &d->input, &s, smallest);
        add_text(m, &d->output, &s, smallest);
    }
    for (int i = 0; i < m->bands; i++)
        out[i] = s.other ? XXH3_64bits_withSeed(smallest + i * m->rows,
                                                (size_t)m->rows * sizeof *smallest, (uint64_t)i)
                         : XXH3_64bits_withSeed(&s.first, sizeof s.first, (uint64_t)i);
    return s.grams > 0 && !s.other ? 1 : s.grams;
}

double minhash_chance(const struct minhash *m, int64_t grams, int64_t docs)
{
    double g = (double)grams, shared = g * g * 0x1p-32, p;

    if (grams < 2)
        return 0;
    p = shared < 1 ? shared * pow(2 * g - 1, -m->rows) : pow(g * 0x1p-33, m->rows);
    p *= (double)m->bands * (double)docs;
    return p < 1 ? p : 1;
}
