/* prep/dedup.c - see dedup.h. */
#include "prep/dedup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOOM_BITS = 8 }; /* a key */

struct dedup {
    XXH128_hash_t *table; /* [slots], a power of two; {0, 0} is empty */
    uint64_t slots, used, limit;
    unsigned char *bloom;
    uint64_t bits, over; /* a power of two; keys in it */
};

int dedup_open(struct dedup **out, size_t memory_bytes, struct err *e)
{
    struct dedup *d = calloc(1, sizeof *d);
    uint64_t half = 32768;

    while (half <= memory_bytes / 4)
        half *= 2;
    *out = NULL;
    if (d) {
        d->slots = half / sizeof *d->table;
        d->limit = d->slots / 8 * 7;
        d->bits = half * 8;
        d->table = calloc(d->slots, sizeof *d->table);
        d->bloom = calloc(1, half);
    }
    if (!d || !d->table || !d->bloom) {
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
    free(d->bloom);
    free(d);
}

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

static uint64_t bit_of(const struct dedup *d, XXH128_hash_t key, int k)
{
    return (key.high64 + (uint64_t)k * (key.low64 | 1)) & (d->bits - 1);
}

bool dedup_has(const struct dedup *d, XXH128_hash_t key)
{
    uint64_t i;

    key = stored(key);
    i = place(d, key);
    if (d->table[i].low64 | d->table[i].high64)
        return true;
    if (d->over == 0)
        return false;
    for (int k = 0; k < BLOOM_BITS; k++) {
        uint64_t b = bit_of(d, key, k);
        if (!(d->bloom[b / 8] >> b % 8 & 1))
            return false;
    }
    return true;
}

void dedup_add(struct dedup *d, XXH128_hash_t key)
{
    if (dedup_has(d, key))
        return;
    key = stored(key);
    if (d->used < d->limit) {
        d->table[place(d, key)] = key;
        d->used++;
        return;
    }
    d->over++;
    for (int k = 0; k < BLOOM_BITS; k++) {
        uint64_t b = bit_of(d, key, k);
        d->bloom[b / 8] |= (unsigned char)(1u << b % 8);
    }
}

int64_t dedup_over(const struct dedup *d) { return (int64_t)d->over; }

double dedup_error(const struct dedup *d)
{
    return pow(-expm1(-(double)BLOOM_BITS * (double)d->over / (double)d->bits), BLOOM_BITS);
}

XXH128_hash_t dedup_key(const struct doc *d)
{
    const struct buf *part[] = { &d->text, &d->input, &d->output };
    XXH128_hash_t h[3];

    for (int i = 0; i < (d->instruct ? 3 : 1); i++)
        h[i] = XXH3_128bits(part[i]->len ? part[i]->p : "", part[i]->len);
    return d->instruct ? XXH3_128bits(h, sizeof h) : h[0];
}
