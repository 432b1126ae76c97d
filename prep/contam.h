/* prep/contam.h - word n-grams of evaluation texts, which training documents must not share. */
#ifndef PREP_CONTAM_H
#define PREP_CONTAM_H
#include "prep/doc.h"
C_BEGIN

/*
 * A set of 64-bit hashes of n-grams (grams.h), 8 bytes each in a table at most half full. A
 * document of w words is taken for contaminated by chance with probability below
 * w * n_grams / 2^64. Read-only once built, and shared by threads.
 */
struct contam;
int contam_open(struct contam **c, int words, struct err *e); /* 1 .. GRAMS_MAX */
void contam_close(struct contam *c);                          /* NULL is fine */
/* All n-grams of a document; one of fewer words adds none. E_SYS. */
int contam_add(struct contam *c, const struct doc *d, struct err *e);
int64_t contam_grams(const struct contam *c);
bool contam_shares(const struct contam *c, const struct doc *d);

C_END
#endif
