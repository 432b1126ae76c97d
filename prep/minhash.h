/* prep/minhash.h - signatures of texts whose bands agree where the texts nearly do. */
#ifndef PREP_MINHASH_H
#define PREP_MINHASH_H
#include "base/processor.h"
#include "prep/doc.h"
C_BEGIN

/*
 * The signature has bands * rows numbers: the smallest value of each of as many hash functions
 * over the text's word n-grams (grams.h). Two texts whose sets of n-grams have the Jaccard
 * similarity s agree in one with probability s, in a band of rows with s^rows, in some band with
 * 1 - (1 - s^rows)^bands. 14 bands of 8 rows over 5-grams, as datatrove: 0.05 at s = 0.5, 0.56
 * at 0.7, 0.92 at 0.8.
 *
 * Hash functions see 32 bits of an n-gram. Two texts of g n-grams each that have none in common
 * share g^2 / 2^32 such halves by chance, and agree in a band where one is the smallest in all
 * its rows: with 8 rows and 14 bands at most 2e-12 a pair (at g = 2), below 1e-20 from g = 20
 * on. A text of a single n-gram is compared by all 64 bits. With 1 or 2 rows chance finds copies
 * among many texts.
 */
#define MINHASH_BANDS_MAX 32
#define MINHASH_MAX 512
struct minhash {
    int bands, rows, words;
    int hashes;                              /* bands * rows, filled up to 16 */
    uint32_t a[MINHASH_MAX], b[MINHASH_MAX]; /* h(x) = a x + b mod 2^32, a odd */
};
/* 1 <= bands <= MINHASH_BANDS_MAX, bands * rows <= MINHASH_MAX, words <= GRAMS_MAX. */
void minhash_init(struct minhash *m, int bands, int rows, int words);
/* A key for each band, out[bands]; a text of fewer words than an n-gram is one n-gram. How many
 * n-grams it has: 0 for a document without a word, which is like no other; 1 too where all are
 * the same. */
int64_t minhash_keys(const struct minhash *m, const struct doc *d, uint64_t *out);
/* The probability, about, that a document of so many n-grams has by chance a band of one of
 * 'docs' others of as many. */
double minhash_chance(const struct minhash *m, int64_t grams, int64_t docs);
/* smallest[i] = min over k of a[i] x[k] + b[i] and smallest[i], the same at every level. For
 * tests and the benchmark. */
void minhash_update(const struct minhash *m, const uint32_t *x, int64_t n, uint32_t *smallest,
                    enum simd level);

C_END
#endif
