/* prep/dedup.h - keys seen before, in bounded memory; the hash of a document's text. */
#ifndef PREP_DEDUP_H
#define PREP_DEDUP_H
#include "base/err.h"
#include "formats/tokens/tally.h"
#include "prep/doc.h"
#include <stdbool.h>
#include <xxhash.h>
C_BEGIN

/*
 * A set of 128-bit keys in memory_bytes. One half is a table of 16 bytes a key, which holds
 * 7/8 as many as fit and is exact. Keys after that go to a Bloom filter in the other half, of
 * m = 4 memory_bytes bits and 8 a key: with n keys in it, it takes a new key for a seen one with
 * probability q = (1 - e^(-8n/m))^8, and never a seen one for new. A document of k new keys is
 * taken for a copy with 1 - (1 - q)^k. What is not used is not touched.
 *
 * remember: the table holds which document brought a key, in 4 bytes a key on top of
 * memory_bytes; the filter cannot.
 */
struct dedup;
enum { DEDUP_KEYS_MAX = 64 };
int dedup_open(struct dedup **d, size_t memory_bytes, bool remember, struct err *e); /* 64 KiB.. */
void dedup_close(struct dedup *d);                                    /* NULL is fine */
bool dedup_has(const struct dedup *d, XXH128_hash_t key);
void dedup_add(struct dedup *d, XXH128_hash_t key, uint32_t id);
/* A document by its n <= DEDUP_KEYS_MAX keys: that of its text, then those of its bands. KEPT, and its keys are added
 * with its id, above 0; or DROP_COPY or DROP_NEAR, with the id of the document that it is like,
 * 0 where that is not known. */
enum drop dedup_doc(struct dedup *d, const XXH128_hash_t *key, int n, uint32_t id, uint32_t *of);
/* Keys that the table did not hold, and the probability that a document of n new keys would now
 * be taken for a copy: q above, from the bits that are set. */
int64_t dedup_over(const struct dedup *d);
double dedup_error(const struct dedup *d, int n);
/* The memory_bytes that would have held all keys so far in the table. */
int64_t dedup_exact_bytes(const struct dedup *d);

/* XXH3-128 of the text; of an instruction, of the digests of its three parts. */
XXH128_hash_t dedup_key(const struct doc *d);

C_END
#endif
