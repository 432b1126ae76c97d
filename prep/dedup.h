/* prep/dedup.h - keys seen before, in bounded memory; the hash of a document's text. */
#ifndef PREP_DEDUP_H
#define PREP_DEDUP_H
#include "base/err.h"
#include "prep/doc.h"
#include <xxhash.h>
C_BEGIN

/*
 * A set of 128-bit keys in memory_bytes. One half is a table of 16 bytes a key, which holds
 * 7/8 as many as fit and is exact. Keys after that go to a Bloom filter in the other half, of
 * m = 4 memory_bytes bits and 8 a key: with n keys in it, it takes a new key for a seen one with
 * probability (1 - e^(-8n/m))^8, and never a seen one for new. What is not used is not touched.
 */
struct dedup;
int dedup_open(struct dedup **d, size_t memory_bytes, struct err *e); /* at least 64 KiB */
void dedup_close(struct dedup *d);                                    /* NULL is fine */
bool dedup_has(const struct dedup *d, XXH128_hash_t key);
void dedup_add(struct dedup *d, XXH128_hash_t key);
/* Keys that the table did not hold, and the chance that the next new one is taken for seen. */
int64_t dedup_over(const struct dedup *d);
double dedup_error(const struct dedup *d);

/* XXH3-128 of the text; of an instruction, of the digests of its three parts. */
XXH128_hash_t dedup_key(const struct doc *d);

C_END
#endif
