/* base/crc32c.c - CRC32C three ways, all with the same sums; see bytes.h. */
#include "base/bytes.h"
#include "base/processor.h"

#include <pthread.h>
#include <string.h>
#ifdef __x86_64__
#include <nmmintrin.h>
#include <wmmintrin.h>
#endif

#define POLYNOMIAL 0x82F63B78u /* bit-reversed, as is every remainder below */
#define LANE 1360 /* bytes: three of them are a little under a page */

static uint32_t table[256];
static uint32_t past_one, past_two; /* x^(8 n - 33) mod P for n of LANE and 2 LANE bytes */
static int best_way;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The remainder for one more zero bit. With bits reversed the lowest bit is the highest power,
 * so x is a shift to the right. */
static uint32_t times_x(uint32_t c)
{
    return c & 1 ? (c >> 1) ^ POLYNOMIAL : c >> 1;
}

/* x^(8 n - 33) mod P, n >= 5. */
static uint32_t power(size_t n)
{
    uint32_t c = 0x80000000u; /* x^0 */

    for (int i = 0; i < 7; i++)
        /* 7 zero bits give x^7, and n - 5 zero bytes 8 n - 40 more: together 8 n - 33. */
        c = times_x(c);
    for (; n > 5; n--)
        c = table[c & 255] ^ (c >> 8);
    return c;
}

/* Runs once, before the first sum: the table, the two factors and the way to take. */
static void prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = times_x(c);
        /* What byte i leaves behind after its eight bits. */
        table[i] = c;
    }
    past_one = power(LANE);
    past_two = power(2 * LANE);
#ifdef __x86_64__
    /* 2: three lanes and the product without carries; 1: the instruction
     * alone; 0: the table. */
    if (!simd_hidden(SIMD_AVX2) && __builtin_cpu_supports("sse4.2"))
        best_way = __builtin_cpu_supports("pclmul") ? 2 : 1;
#endif
}

/* One byte at a time, on any processor. */
static uint32_t by_table(uint32_t c, const unsigned char *p, size_t n)
{
    while (n--)
        c = table[(c ^ *p++) & 255] ^ (c >> 8);
    return c;
}

#ifdef __x86_64__
static inline uint64_t load8(const unsigned char *p)
{
    uint64_t w;

    memcpy(&w, p, 8);
    return w;
}

/* Eight bytes at a time, by the processor's own instruction; the last ones singly. */
__attribute__((target("sse4.2"))) static uint32_t by_word(uint32_t c, const unsigned char *p,
                                                          size_t n)
{
    uint64_t c64 = c;

    for (; n >= 8; n -= 8, p += 8)
        c64 = _mm_crc32_u64(c64, load8(p));
    c = (uint32_t)c64;
    while (n--)
        c = _mm_crc32_u8(c, *p++);
    return c;
}

/* The instruction answers after three cycles, and one may start in each: so three lanes are
 * summed at once. A remainder that n more bytes follow counts x^(8 n) times as much; the
 * product without carries has 63 bits and, reversed, one place too few, and reducing it by the
 * instruction multiplies by x^32: hence the 33 in 'power'. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t by_lanes(uint32_t c,
                                                                  const unsigned char *p,
                                                                  size_t n)
{
    const __m128i past = _mm_set_epi64x(past_one, past_two);

    for (; n >= 3 * LANE; n -= 3 * LANE, p += 3 * LANE) {
        /* The first lane continues the sum; the others begin at 0 and are joined by xor. */
        uint64_t c0 = c, c1 = 0, c2 = 0;
        __m128i moved;
        for (int i = 0; i < LANE; i += 8) {
            c0 = _mm_crc32_u64(c0, load8(p + i));
            c1 = _mm_crc32_u64(c1, load8(p + LANE + i));
            c2 = _mm_crc32_u64(c2, load8(p + 2 * LANE + i));
        }
        moved = _mm_xor_si128(
            _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)c0), past, 0x00),
            _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)c1), past, 0x10));
        /* The sum of the last lane, to which nothing has to be added behind, joins as it is. */
        c = (uint32_t)(c2 ^ _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(moved)));
    }
    return by_word(c, p, n);
}
#endif

uint32_t crc32c_by(int way, uint32_t crc, const void *buf, size_t nbytes)
{
    /* By the standard a sum begins as all ones and is turned around at the end. Undoing that
     * first lets a caller go on from an earlier sum. */
    crc = ~crc;
    pthread_once(&once, prepare);
    way = way < best_way ? way : best_way;
#ifdef __x86_64__
    if (way > 0)
        return ~(way > 1 ? by_lanes(crc, buf, nbytes) : by_word(crc, buf, nbytes));
#endif
    return ~by_table(crc, buf, nbytes);
}

uint32_t crc32c(uint32_t crc, const void *buf, size_t nbytes)
{
    return crc32c_by(2, crc, buf, nbytes);
}
