/* formats/tokens/tally.h - what became of documents: kept or left out, and why, by source. */
#ifndef FORMATS_TOKENS_TALLY_H
#define FORMATS_TOKENS_TALLY_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* Why a document is not kept. The numbers stand in token streams: stream.md lists them. */
enum drop { KEPT, DROP_EMPTY, DROP_SHORT, DROP_LONG, DROP_LANGUAGE, DROP_WHERE, DROP_SAMPLE,
            DROP_FEW_TOKENS, DROP_MANY_TOKENS, DROP_CONTAMINATED, DROP_COPY, DROP_NEAR, DROP_BAD,
            DROPS };
const char *drop_name(enum drop d);  /* "few_tokens", as --stats and the manifest have it */
const char *drop_words(enum drop d); /* "of too few tokens" */
/* The reason of that name; DROPS when there is none. */
enum drop drop_of(const char *name);

/* Of the documents that were kept, and of those that were not. A bad document's source is not
 * known, so dropped[DROP_BAD] is 0 where a source is counted. */
struct tally_source {
    char name[256];
    int64_t docs, tokens, masked, bytes, words; /* of the text that was tokenised */
    int64_t dropped[DROPS];
};
#define TALLY_MAX_SOURCES 4096
struct tally {
    struct tally_source *v; /* sorted by name */
    int64_t n;
    size_t cap;
    int64_t bad_docs, bad_files;
    /* Of --dedup, in 10^-12: the documents that are copies of none but must be expected among the
     * copies that were left out, and the probability of that for the last document. Whole
     * numbers, so that sums do not depend on their order. */
    int64_t false_copies, false_copy_chance;
};
#define TALLY_CHANCE 1e12
#define TALLY_MANY_FALSE ((int64_t)(TALLY_CHANCE / 2)) /* from here on people are warned */
/* A document that was kept, and would have been left out with this probability. */
void tally_false_copy(struct tally *t, double chance);

/* The counts of a source; NULL when there are none. */
struct tally_source *tally_find(const struct tally *t, const char *name);
/* The same, made if need be; later calls move it. E_DATA (too many sources), E_SYS. */
int tally_of(struct tally *t, const char *name, struct tally_source **s, struct err *e);
/* E_DATA when a sum overflows or there are too many sources, E_SYS. */
int tally_source_add(struct tally_source *to, const struct tally_source *from, struct err *e);
int tally_add(struct tally *to, const struct tally *from, struct err *e);
/* The same of what was left out alone; sources of which nothing was are not made. */
int tally_add_dropped(struct tally *to, const struct tally *from, struct err *e);
/* Sums over the sources and the bad ones: E_DATA when they overflow. all->name is "". */
int tally_sum(const struct tally *t, struct tally_source *all, struct err *e);
void tally_clear(struct tally *t); /* keeps the memory */
void tally_free(struct tally *t);

C_END
#endif
