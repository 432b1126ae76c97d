/* prep/split.h - which split a document goes to. */
#ifndef PREP_SPLIT_H
#define PREP_SPLIT_H
#include "base/err.h"
#include "formats/tokens/stream.h"
C_BEGIN

/* "train" takes what no rule does; it is split 0. Rules by pattern go before rules by
 * fraction, each kind in the order given. */
#define SPLIT_MAX 16
struct split_rule {
    char name[64];
    double from, to;  /* by fraction: of [0, 1); from == to with a pattern */
    const char *glob; /* by pattern, borrowed; or NULL */
};
struct split_rules {
    int n; /* rules; splits are n + 1 */
    double taken; /* sum of the fractions */
    struct split_rule rule[SPLIT_MAX];
};

/* Adds "NAME=FRACTION" (0 < FRACTION < 1) or "NAME=PATTERN". E_USAGE. Zero r before use. */
int split_add(struct split_rules *r, const char *text, struct err *e);
/* Name of split i, 0 <= i <= r->n. */
const char *split_name(const struct split_rules *r, int i);

/* The split of a document: a pure function of the rules, the seed and the document's labels
 * and text hash. Documents of the same text go to the same split by fraction, so that no copy
 * of a training document is validated on. A pattern ('*' and '?' match '/' too) is tried
 * on the source, on the name, and on what follows each '/' and ':' in the name. */
int split_of(const struct split_rules *r, int64_t seed, const struct token_doc *doc);

C_END
#endif
