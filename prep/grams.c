/* prep/grams.c - see grams.h. */
#include "prep/grams.h"

#include "base/bytes.h"

#include <string.h>

#define BASE UINT64_C(0x9E3779B97F4A7C15) /* odd: what leaves the window can be taken out */

enum { BLOCK = 256 }; /* bytes of text that are sorted into words at once */

/* A word's byte: ASCII letters, digits, and all that is not ASCII. */
static inline unsigned char is_letter(unsigned char c)
{
    return ((unsigned char)((c | 0x20) - 'a') < 26) | ((unsigned char)(c - '0') < 10) | (c >> 7);
}

/* 'A' to 'Z' get bit 5 set, which is what tells 'a' from 'A'. No branch. */
static inline unsigned char lower(unsigned char c)
{
    return (unsigned char)(c | ((unsigned char)(c - 'A') < 26) << 5);
}

/* n (1..64) bytes at p to their lower case at to, which has room for 64; bit i: p[i] is a
 * word's. The loops vectorise. */
static uint64_t sort_bytes(const unsigned char *p, size_t n, unsigned char *to)
{
    unsigned char from[64] = { 0 }, word[64];
    uint64_t bits = 0, eight;

    if (n == 64) {
        for (int i = 0; i < 64; i++)
            to[i] = lower(p[i]), word[i] = is_letter(p[i]);
    } else {
        memcpy(from, p, n);
        for (int i = 0; i < 64; i++)
            to[i] = lower(from[i]), word[i] = is_letter(from[i]);
    }
    for (int i = 0; i < 8; i++) { /* the low bits of eight bytes, side by side */
        eight = get_le(word + 8 * i, 8);
        bits |= (eight * UINT64_C(0x0102040810204080) >> 56) << 8 * i;
    }
    return bits;
}

/* A block's words: where they begin and end; the last one may go on behind the block. */
struct block {
    unsigned char text[BLOCK + 8]; /* in lower case */
    uint16_t from[BLOCK / 2 + 1], to[BLOCK / 2 + 1];
    int words;
    bool goes_on;
};

/* A word begins where a bit is set and the one before is not, and ends where it is the other
 * way round. Of "ab c" the bits are 1, 1, 0, 1, so that words go from 0 to 2 and from 3 to 4.
 * e &= e - 1 clears the lowest bit that is set. */
static void cut_words(struct block *b, const unsigned char *p, size_t n)
{
    uint64_t before = 0; /* the last byte before these 64 was a word's */
    int begun = 0, ended = 0;

    for (size_t i = 0; i < n; i += 64) {
        uint64_t bits = sort_bytes(p + i, n - i < 64 ? n - i : 64, b->text + i);
        uint64_t edges = bits ^ (bits << 1 | before);
        for (uint64_t e = edges & bits; e; e &= e - 1)
            b->from[begun++] = (uint16_t)(i + (size_t)__builtin_ctzll(e));
        for (uint64_t e = edges & ~bits; e; e &= e - 1)
            b->to[ended++] = (uint16_t)(i + (size_t)__builtin_ctzll(e));
        before = bits >> 63;
    }
    b->goes_on = before && n % 64 == 0;
    if (begun > ended)
        b->to[ended++] = (uint16_t)n;
    b->words = begun;
}

/* A one-to-one mixing of 64 bits: what was different before it stays different. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= UINT64_C(0xD6E8FEB86659FD93);
    x ^= x >> 32;
    x *= UINT64_C(0xD6E8FEB86659FD93);
    return x ^ x >> 32;
}

void grams_start(struct grams *g, const char *p, size_t n_bytes, int n)
{
    *g = (struct grams){ .n = n, .power = 1 };
    g->p = (const unsigned char *)(n_bytes ? p : "");
    g->end = g->p + n_bytes;
    for (int i = 0; i < n; i++)
        g->power *= BASE;
}

/* The bytes of a word, eight at a time, the first one highest. 8 bytes may
 * be read behind it. */
static uint64_t hash_word(const unsigned char *p, size_t n)
{
    uint64_t h = 0, eight = 0;

    for (; n >= 8; n -= 8, p += 8)
        h = mix(h ^ __builtin_bswap64(get_le(p, 8)));
    if (n > 0)
        eight = __builtin_bswap64(get_le(p, 8)) >> (64 - 8 * n);
    return mix((h + BASE) ^ eight);
}

/* The same of a word that is longer than a block; *p moves behind it. */
static uint64_t hash_long(const unsigned char **p, const unsigned char *end)
{
    uint64_t h = 0, eight = 0;

    for (int i = 0; *p < end && is_letter(**p); ++*p) {
        eight = eight << 8 | lower(**p);
        if ((++i & 7) == 0) {
            h = mix(h ^ eight);
            eight = 0;
        }
    }
    return mix((h + BASE) ^ eight);
}

/* One more word: 1 if it ends an n-gram, which goes to out. */
static inline int add_word(struct grams *g, uint64_t h, int *at, uint64_t *out)
{
    /* The word that leaves the window is the one whose place in the ring h takes. */
    g->sum = g->sum * BASE + h - g->ring[*at] * g->power;
    g->ring[*at] = h;
    *at = *at + 1 == g->n ? 0 : *at + 1;
    *out = mix(g->sum);
    return ++g->words >= g->n;
}

int64_t grams_next(struct grams *g, uint64_t *out, int64_t cap)
{
    struct block b;
    int64_t k = 0;
    int at = (int)(g->words % g->n);

    /* hash_word may read 8 bytes past the last word. */
    memset(b.text + BLOCK, 0, sizeof b.text - BLOCK);
    while (k < cap && g->p < g->end) {
        size_t left = (size_t)(g->end - g->p), n = left < BLOCK ? left : BLOCK, done = n;

        cut_words(&b, g->p, n);
        if (b.goes_on && n < left) { /* what is cut belongs to the next block */
            done = b.from[--b.words];
            /* The word fills the whole block: it is hashed byte by byte to its end. */
            if (done == 0) {
                k += add_word(g, hash_long(&g->p, g->end), &at, &out[k]);
                continue;
            }
        }
        for (int i = 0; i < b.words; i++) {
            if (k == cap) {
                done = b.from[i];
                break;
            }
            k += add_word(g, hash_word(b.text + b.from[i], (size_t)(b.to[i] - b.from[i])), &at,
                          &out[k]);
        }
        g->p += done;
    }
    return k;
}

/* The number of words is mixed in, so that this is no hash of a longer text's n-gram. */
uint64_t grams_rest(const struct grams *g)
{
    return g->words > 0 && g->words < g->n ? mix(g->sum ^ (uint64_t)g->words) : 0;
}
