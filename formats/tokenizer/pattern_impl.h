/* formats/tokenizer/pattern_impl.h - between pattern.c and pattern_class.c; no one else includes it. */
#ifndef FORMATS_TOKENIZER_PATTERN_IMPL_H
#define FORMATS_TOKENIZER_PATTERN_IMPL_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

/* A pattern as it is read, from p on. */
struct reading {
    const char *start, *p, *end;
    bool edges; /* \b or \B was there */
    struct err *e;
};
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
int pattern_bits(struct reading *r, uint64_t bits, bool inverted, struct buf *out);

#endif
