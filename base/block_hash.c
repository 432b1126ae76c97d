/* base/block_hash.c - see block_hash.h. */
#include "base/block_hash.h"

#include "base/bytes.h"
#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include "base/hash.h"

#include <stdlib.h>

struct block_hasher {
    XXH3_state_t *block, *all; /* of the block in hand; of the sums of those before */
    size_t used;               /* bytes of the block in hand */
};

void sum_block(unsigned char *sums, const void *p, size_t nbytes, size_t i)
{
    size_t at = i * HASH_BLOCK, n = nbytes - at < HASH_BLOCK ? nbytes - at : HASH_BLOCK;

    put_le(sums + 8 * i, hash64_of((const char *)p + at, n), 8);
}

uint64_t block_hash_of(const unsigned char *sums, size_t nbytes)
{
    return hash64_of(sums, 8 * hash_blocks(nbytes));
}

uint64_t block_hash(const void *p, size_t nbytes)
{
    XXH3_state_t all;

    XXH3_64bits_reset(&all);
    for (size_t at = 0; at < nbytes; at += HASH_BLOCK) {
        unsigned char sum[8];
        sum_block(sum, (const char *)p + at, nbytes - at, 0);
        XXH3_64bits_update(&all, sum, sizeof sum);
    }
    return XXH3_64bits_digest(&all);
}

struct block_hasher *block_hasher_new(void)
{
    struct block_hasher *h = calloc(1, sizeof *h);

    if (h && (h->block = XXH3_createState()) && (h->all = XXH3_createState())) {
        XXH3_64bits_reset(h->block);
        XXH3_64bits_reset(h->all);
        return h;
    }
    block_hasher_free(h);
    return NULL;
}

void block_hasher_free(struct block_hasher *h)
{
    if (!h)
        return;
    XXH3_freeState(h->block);
    XXH3_freeState(h->all);
    free(h);
}

/* The sum of a block, whose bytes are all known now. */
static void end_block(struct block_hasher *h, uint64_t hash)
{
    unsigned char sum[8];

    put_le(sum, hash, 8);
    XXH3_64bits_update(h->all, sum, sizeof sum);
    h->used = 0;
}

void block_hasher_add(struct block_hasher *h, const void *p, size_t nbytes)
{
    for (size_t n; nbytes > 0; p = (const char *)p + n, nbytes -= n) {
        n = HASH_BLOCK - h->used < nbytes ? HASH_BLOCK - h->used : nbytes;
        if (n == HASH_BLOCK) { /* whole, as it lies there */
            end_block(h, hash64_of(p, n));
            continue;
        }
        if (h->used == 0)
            XXH3_64bits_reset(h->block);
        hash64_add(h->block, p, n);
        h->used += n;
        if (h->used == HASH_BLOCK)
            end_block(h, XXH3_64bits_digest(h->block));
    }
}

uint64_t block_hasher_end(struct block_hasher *h)
{
    uint64_t hash;

    if (h->used)
        end_block(h, XXH3_64bits_digest(h->block));
    hash = XXH3_64bits_digest(h->all);
    XXH3_64bits_reset(h->all);
    return hash;
}
