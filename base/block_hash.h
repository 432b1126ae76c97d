/* base/block_hash.h - the hash of much data, whose blocks threads may take in any order. */
#ifndef BASE_BLOCK_HASH_H
#define BASE_BLOCK_HASH_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * XXH3-64 of the list of the XXH3-64s of all blocks: 8 bytes each, little-endian, in order. A block
 * has HASH_BLOCK bytes, the last one less; 0 bytes have none. Whoever computes it, in whatever
 * pieces and threads, it is the same.
 */
#define HASH_BLOCK ((size_t)1 << 17)
#define HASH_HEX 16 /* its digits, lower-case hex, as files have them */

uint64_t block_hash(const void *p, size_t nbytes);

/* In parts: sums has 8 bytes for each of hash_blocks(nbytes). sum_block fills in those of block
 * number i of the data at p. */
static inline size_t hash_blocks(size_t nbytes)
{
    return nbytes / HASH_BLOCK + (nbytes % HASH_BLOCK > 0);
}
void sum_block(unsigned char *sums, const void *p, size_t nbytes, size_t i);
uint64_t block_hash_of(const unsigned char *sums, size_t nbytes);

/* As the data comes. end: of all that was added since begin, or since the last end. NULL: no
 * memory. */
struct block_hasher;
struct block_hasher *block_hasher_new(void);
void block_hasher_add(struct block_hasher *h, const void *p, size_t nbytes);
uint64_t block_hasher_end(struct block_hasher *h);
void block_hasher_free(struct block_hasher *h);

C_END
#endif
