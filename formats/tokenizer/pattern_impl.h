/* formats/tokenizer/pattern_impl.h - between pattern.c and pattern_class.c; no one else includes it. */
#ifndef FORMATS_TOKENIZER_PATTERN_IMPL_H
#define FORMATS_TOKENIZER_PATTERN_IMPL_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

#define PATTERN_DEPTH 64

/* A pattern as it is read, from p on. */
struct reading {
    const char *start, *p, *end;
    bool edges; /* \b or \B was there */
    uint64_t *work; /* characters that classes have looked at */
    struct err *e;
    int depth; /* of groups */
    struct pattern_group {
        bool caseless;
        size_t at; /* where it begins in what is written */
    } group[PATTERN_DEPTH + 1]; /* the pattern itself first */
    uint32_t last; /* without regard to case: the character before, or 0 */
};
static inline bool pattern_caseless(const struct reading *r) { return r->group[r->depth].caseless; }
int pattern_bad(const struct reading *r, const char *what); /* E_DATA with the offset */
/* A character, its escape undone: one that stands for itself, or 0 and *bits for a class such as
 * \p{L} (inverted: all others). E_DATA. */
struct pattern_item {
    uint32_t c;
    uint64_t bits; /* of unicode_bits; 0: it is c */
    bool inverted;
};
int pattern_escape(struct reading *r, struct pattern_item *item);

/* Sets of characters, one bit each. */
int pattern_class(struct reading *r, struct buf *out); /* r->p stands at '[' */
/* Whether, case aside, it is two or three others, as U+00DF is "ss". */
bool pattern_is_many(uint32_t c);
int pattern_bits(struct reading *r, uint64_t bits, bool inverted, struct buf *out);

#endif
