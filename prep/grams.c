/* prep/grams.c - see grams.h. */
#include "prep/grams.h"

#include <string.h>

#define BASE UINT64_C(0x9E3779B97F4A7C15) /* odd: what leaves the window can be taken out */

/* Each byte's letter, lower case; 0 between words. */
static const unsigned char letter[256] = {
    ['0'] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9',
    ['A'] = 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p',
    'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
    ['a'] = 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p',
    'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
    [0x80] = 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8C, 0x8D,
    0x8E, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C,
    0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB,
    0xAC, 0xAD, 0xAE, 0xAF, 0xB0, 0xB1, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
    0xBB, 0xBC, 0xBD, 0xBE, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9,
    0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8,
    0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7,
    0xE8, 0xE9, 0xEA, 0xEB, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6,
    0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF
};

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

int64_t grams_next(struct grams *g, uint64_t *out, int64_t cap)
{
    const unsigned char *p = g->p, *end = g->end;
    int64_t k = 0;
    int at = (int)(g->words % g->n);

    while (k < cap) {
        uint64_t h = 0, eight = 0;
        while (p < end && !letter[*p])
            p++;
        if (p == end)
            break;
        for (int i = 0; p < end && letter[*p]; p++) {
            eight = eight << 8 | letter[*p];
            if ((++i & 7) == 0) {
                h = mix(h ^ eight);
                eight = 0;
            }
        }
        h = mix((h + BASE) ^ eight);
        g->sum = g->sum * BASE + h - g->ring[at] * g->power;
        g->ring[at] = h;
        at = at + 1 == g->n ? 0 : at + 1;
        if (++g->words >= g->n)
            out[k++] = mix(g->sum);
    }
    g->p = p;
    return k;
}

uint64_t grams_rest(const struct grams *g)
{
    return g->words > 0 && g->words < g->n ? mix(g->sum ^ (uint64_t)g->words) : 0;
}
