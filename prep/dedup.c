/* prep/dedup.c - a set of keys in fixed memory; see dedup.h.
 *
 * Keys go to a hash table until it is 7/8 full; later ones go to a Bloom filter: 8 bits chosen by
 * the key are set, and a key is "seen" if all of its 8 are. A key never added may find its bits
 * set by others: a false duplicate, whose probability (the share of set bits, to the 8th) is
 * reported. With 256 MiB the table holds 7.3 million keys exactly, and the filter has 2^30 bits.
 */
#include "prep/dedup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOOM_BITS = 8 }; /* a key */

struct dedup {
    XXH128_hash_t *table; /* [slots], a power of two; {0, 0} is empty */
    uint32_t *who;        /* [slots]: the document that brought the key; or NULL */
    uint64_t slots, used, limit;
    unsigned char *bloom;
    uint64_t bits, ones, over; /* a power of two; of them set; keys in it */
};

int dedup_open(struct dedup **out, size_t memory_bytes, bool remember, struct err *e)
{
    struct dedup *d = calloc(1, sizeof *d);
    uint64_t half = 32768;

    /* half becomes the largest power of two that
     * is at most memory_bytes / 2, from 32 KiB on. */
    while (half <= memory_bytes / 4)
        half *= 2;
    *out = NULL;
    if (d) {
        d->slots = half / sizeof *d->table;
        d->limit = d->slots / 8 * 7;
        d->bits = half * 8;
        d->table = calloc(d->slots, sizeof *d->table);
        d->bloom = calloc(1, half);
        d->who = remember ? calloc(d->slots, sizeof *d->who) : NULL;
    }
    if (!d || !d->table || !d->bloom || (remember && !d->who)) {
        dedup_close(d);
        return err_set(e, E_SYS, "out of memory for %zu bytes of --dedup-memory", memory_bytes);
    }
    *out = d;
    return 0;
}

void dedup_close(struct dedup *d)
{
    if (!d)
        return;
    free(d->table);
    free(d->who);
    free(d->bloom);
    free(d);
}

/* The key {0, 0} means an empty slot, so that it is stored as {0, 1} (low64, high64). */
static XXH128_hash_t stored(XXH128_hash_t key)
{
    key.high64 |= (key.low64 | key.high64) == 0;
    return key;
}

/* Its slot, or the empty one where it would stand. */
static uint64_t place(const struct dedup *d, XXH128_hash_t key)
{
    uint64_t i = key.low64 & (d->slots - 1);

    while ((d->table[i].low64 | d->table[i].high64) &&
           (d->table[i].low64 != key.low64 || d->table[i].high64 != key.high64))
        i = (i + 1) & (d->slots - 1);
    return i;
}

/* Both halves of the key reach every bit: a half may be a small number, as a band's is. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* The key's bits of the filter. Each is a draw of its own, so that two keys share all eight no
 * more often than chance has it. */
static void bits_of(const struct dedup *d, XXH128_hash_t key, uint64_t bit[BLOOM_BITS])
{
    uint64_t h = mix(key.low64 ^ mix(key.high64 + UINT64_C(0x9E3779B97F4A7C15)));

    for (int k = 0; k < BLOOM_BITS; k++) {
        h += UINT64_C(0x9E3779B97F4A7C15);
        bit[k] = mix(h) & (d->bits - 1);
    }
}

/* Whether the key was seen, and which document brought it: 0 if only the filter has it. */
static bool find(const struct dedup *d, XXH128_hash_t key, uint32_t *who)
{
    uint64_t bit[BLOOM_BITS], i;
    bool all = d->over > 0; /* an empty filter has no key */

    *who = 0;
    key = stored(key);
    i = place(d, key);
    if (d->table[i].low64 | d->table[i].high64) {
        *who = d->who ? d->who[i] : 0;
        return true;
    }
    if (all)
        bits_of(d, key, bit);
    for (int k = 0; k < BLOOM_BITS && all; k++)
        all = d->bloom[bit[k] / 8] >> bit[k] % 8 & 1;
    return all;
}

bool dedup_has(const struct dedup *d, XXH128_hash_t key)
{
    uint32_t who;

    return find(d, key, &who);
}

void dedup_add(struct dedup *d, XXH128_hash_t key, uint32_t id)
{
    uint64_t bit[BLOOM_BITS], at;

    if (dedup_has(d, key))
        return;
    key = stored(key);
    if (d->used < d->limit) {
        at = place(d, key);
        d->table[at] = key;
        if (d->who)
            d->who[at] = id;
        d->used++;
        return;
    }
    d->over++;
    bits_of(d, key, bit);
    for (int k = 0; k < BLOOM_BITS; k++) {
        unsigned char *p = &d->bloom[bit[k] / 8], one = (unsigned char)(1u << bit[k] % 8);
        d->ones += !(*p & one);
        *p |= one;
    }
}

enum drop dedup_doc(struct dedup *d, const XXH128_hash_t *key, int n, uint32_t id, uint32_t *of)
{
    enum drop drop = KEPT;
    uint32_t who;

    *of = 0;
    /* Goes on past a key that only the filter has, as a later one may name the document. */
    for (int i = 0; i < n && drop != DROP_COPY && *of == 0; i++)
        if (find(d, key[i], &who)) {
            drop = i == 0 ? DROP_COPY : DROP_NEAR;
            *of = who;
        }
    for (int i = 0; i < n && drop == KEPT; i++)
        dedup_add(d, key[i], id);
    return drop;
}

int64_t dedup_over(const struct dedup *d) { return (int64_t)d->over; }

int64_t dedup_exact_bytes(const struct dedup *d)
{
    int64_t half = 32768;

    while ((uint64_t)half / sizeof *d->table / 8 * 7 < d->used + d->over)
        half *= 2;
    return 2 * half;
}

/* 1 - (1 - q)^n with q = (ones / bits)^8. log1p and expm1 keep the digits of a tiny q. */
double dedup_error(const struct dedup *d, int n)
{
    return -expm1(n * log1p(-pow((double)d->ones / (double)d->bits, BLOOM_BITS)));
}

XXH128_hash_t dedup_key(const struct doc *d)
{
    const struct buf *part[] = { &d->text, &d->input, &d->output };
    XXH128_hash_t h[3];

    for (int i = 0; i < (d->instruct ? 3 : 1); i++)
        h[i] = XXH3_128bits(part[i]->len ? part[i]->p : "", part[i]->len);
    return d->instruct ? XXH3_128bits(h, sizeof h) : h[0];
}
