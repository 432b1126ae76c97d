/* prep/filter.h - which documents are wanted, by their row, length and source. */
#ifndef PREP_FILTER_H
#define PREP_FILTER_H
#include "base/err.h"
#include "formats/tokens/tally.h"
#include "prep/doc.h"
#include <regex.h>
C_BEGIN

/* Zero it before use. Once built it is read-only and shared by threads. */
#define FILTER_MAX 64
struct filter_where {
    const char *path; /* "meta.url"; malloc'ed */
    regex_t regex;
    bool not;
};
struct filter_rate {
    char *glob; /* malloc'ed */
    double rate;
};
struct filter {
    int64_t min_chars, max_chars; /* max 0: no limit */
    const char *languages;        /* "en,de", or NULL; borrowed */
    int n_where, n_rates;
    struct filter_where where[FILTER_MAX];
    struct filter_rate rate[FILTER_MAX];
    int64_t seed; /* of the rates */
};
/* "KEY=REGEX", a POSIX extended one; "SOURCE=RATE", 0 <= RATE <= 1. E_USAGE. */
int filter_add_where(struct filter *f, const char *text, bool not, struct err *e);
int filter_add_rate(struct filter *f, const char *text, struct err *e);
/* Does the rate's glob match a source that was seen? */
bool filter_rate_meets(const struct filter_rate *r, const struct tally *seen);
void filter_free(struct filter *f);

/* row: the n bytes of the document's JSON object, which has been found good; NULL for a text
 * file, which has no keys. The first of enum drop that applies, in its order. A rate is applied
 * to the first glob that matches the source, by a hash of seed and text alone. E_SYS. */
int filter_doc(const struct filter *f, const struct doc *d, const char *row, size_t n,
               struct err *e);

/* The value at a path of keys joined by dots in a JSON object, objects inside strings included
 * (RedPajama's meta): 1 and its text appended to out (what is no string as it is written), or 0,
 * or E_SYS. A key may itself hold dots. */
int filter_find(const char *row, size_t n, const char *path, struct buf *out, struct err *e);

C_END
#endif
