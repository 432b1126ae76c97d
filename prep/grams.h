/* prep/grams.h - hashes of a text's word n-grams, for near copies and contamination. */
#ifndef PREP_GRAMS_H
#define PREP_GRAMS_H
#include <stddef.h>
#include <stdint.h>

/* A word is a maximal run of ASCII letters and digits and of bytes >= 0x80; case of ASCII
 * letters does not count, nor does what stands between words. */
#define GRAMS_MAX 32
struct grams {
    const unsigned char *p, *end;
    int n;                    /* words in a gram, 1 .. GRAMS_MAX */
    int64_t words;            /* seen so far */
    uint64_t ring[GRAMS_MAX]; /* their hashes */
    uint64_t sum, power;      /* sum of ring[i] B^(n-1-i), and B^n */
};
void grams_start(struct grams *g, const char *p, size_t n_bytes, int n);
/* Up to cap hashes of the n-grams that follow, in order: how many, 0 at the end. */
int64_t grams_next(struct grams *g, uint64_t *out, int64_t cap);
/* After the end of a text of fewer than n words: the hash of all of them (0 of none). */
uint64_t grams_rest(const struct grams *g);

#endif
