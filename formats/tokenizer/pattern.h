/* formats/tokenizer/pattern.h - the regular expressions of a tokenizer.json, as Oniguruma reads them. */
#ifndef FORMATS_TOKENIZER_PATTERN_H
#define FORMATS_TOKENIZER_PATTERN_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

/*
 * Written for Oniguruma with Unicode 16, run by PCRE2: classes are worked out here, character by
 * character (unicode.h), so that the library's own Unicode counts only for (?i). What the two read
 * differently, or only one reads, is refused by name. Read-only once made; threads may share it.
 */
struct pattern;

/* E_DATA: the offset in the pattern and what is not understood there; E_SYS. */
int pattern_make(struct pattern **p, const char *regex, size_t n, struct err *e);
void pattern_free(struct pattern *p);

/* Where it matches, one match after another; zero it before the first call for a text. */
struct pattern_at {
    size_t from, last_end;
    int begun;
    void *work; /* given to pattern_done */
};
/* 1 and the next match in n bytes of well-formed UTF-8, 0 where there is none. E_DATA: backtracking
 * was given up. */
int pattern_next(const struct pattern *p, struct pattern_at *at, const char *text, size_t n,
                 size_t *start, size_t *end, struct err *e);
void pattern_done(struct pattern_at *at);

C_END
#endif
