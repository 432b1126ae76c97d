/* prep/minhash.c - see minhash.h. */
#include "prep/minhash.h"

#include "prep/grams.h"

#include <string.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { BLOCK = 512 };

void minhash_init(struct minhash *m, int bands, int rows, int words)
{
    uint64_t x = 1;

    *m = (struct minhash){ .bands = bands, .rows = rows, .words = words };
    m->hashes = (bands * rows + 15) / 16 * 16;
    for (int i = 0; i < m->hashes; i++) {
        uint64_t h = XXH3_64bits_withSeed(&x, sizeof x, (uint64_t)i);
        m->a[i] = (uint32_t)h | 1;
        m->b[i] = (uint32_t)(h >> 32);
    }
}

/* Sixteen at a time, in two registers of AVX2; plain C otherwise. */
typedef uint32_t lanes __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) void update(const struct minhash *m,
                                                         const uint32_t *x, int64_t n,
                                                         uint32_t *smallest)
{
    for (int i = 0; i < m->hashes; i += 16) {
        lanes a, b, s;
        memcpy(&a, m->a + i, sizeof a);
        memcpy(&b, m->b + i, sizeof b);
        memcpy(&s, smallest + i, sizeof s);
        for (int64_t k = 0; k < n; k++) {
            lanes h = a * x[k] + b;
            s ^= (s ^ h) & (lanes)(h < s);
        }
        memcpy(smallest + i, &s, sizeof s);
    }
}

static void update_plain(const struct minhash *m, const uint32_t *x, int64_t n, uint32_t *s)
{
    update(m, x, n, s);
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void update_avx2(const struct minhash *m,
                                                        const uint32_t *x, int64_t n,
                                                        uint32_t *s)
{
    update(m, x, n, s);
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
                    int level)
{
#ifdef __x86_64__
    if (level != 0 && level != 1 && __builtin_cpu_supports("avx512f")) {
        update_avx512(m, x, n, smallest);
        return;
    }
    if (level != 0 && __builtin_cpu_supports("avx2")) {
        update_avx2(m, x, n, smallest);
        return;
    }
#endif
    (void)level;
    update_plain(m, x, n, smallest);
}

static bool add_text(const struct minhash *m, const struct buf *text, uint32_t *smallest)
{
    struct grams g;
    uint64_t gram[BLOCK];
    uint32_t x[BLOCK];
    int64_t n;

    grams_start(&g, text->p, text->len, m->words);
    while ((n = grams_next(&g, gram, BLOCK)) > 0) {
        for (int64_t i = 0; i < n; i++)
            x[i] = (uint32_t)gram[i];
        minhash_update(m, x, n, smallest, -1);
    }
    if (g.words > 0 && g.words < m->words) {
        x[0] = (uint32_t)grams_rest(&g);
        minhash_update(m, x, 1, smallest, -1);
    }
    return g.words > 0;
}

bool minhash_keys(const struct minhash *m, const struct doc *d, uint64_t *out)
{
    uint32_t smallest[MINHASH_MAX];
    bool any;

    memset(smallest, 255, sizeof smallest);
    any = add_text(m, &d->text, smallest);
    if (d->instruct) {
        any |= add_text(m, &d->input, smallest);
        any |= add_text(m, &d->output, smallest);
    }
    for (int i = 0; i < m->bands; i++)
        out[i] = XXH3_64bits_withSeed(smallest + i * m->rows,
                                      (size_t)m->rows * sizeof *smallest, (uint64_t)i);
    return any;
}
