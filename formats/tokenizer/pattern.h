/* formats/tokenizer/pattern.h - the regular expressions of a tokenizer.json, as Oniguruma reads them. */
#ifndef FORMATS_TOKENIZER_PATTERN_H
#define FORMATS_TOKENIZER_PATTERN_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * Written for Oniguruma with Unicode 16, run by PCRE2: classes are worked out here, character by
 * character (unicode.h), so that the library's own Unicode counts only for (?i). What the two read
 * differently, or only one reads, is refused by name. Read-only once made; threads may share it.
 */
struct pattern;

/* work: 0 at first, what the patterns of a file have taken together, which is bounded; NULL: of this one alone.
 * E_DATA: the offset in the pattern and what is not understood there; E_SYS. */
int pattern_make(struct pattern **p, const char *regex, size_t n, uint64_t *work, struct err *e);
void pattern_free(struct pattern *p);

/* Where it matches, one match after another; zero it before the first call for a text. */
struct pattern_at {
    size_t from, last_end;
    int begun;
    void *work; /* given to pattern_done */
};
/* 1 and the next match in n bytes of well-formed UTF-8, 0 where there is none. E_DATA: backtracking
 * was given up, or all matches together took too long. */
int pattern_next(const struct pattern *p, struct pattern_at *at, const char *text, size_t n,
                 size_t *start, size_t *end, struct err *e);
/* To the start of another text of n bytes, or another piece of one: the time of all is bounded together. */
void pattern_begin(struct pattern_at *at, size_t n);
void pattern_done(struct pattern_at *at);

C_END
#endif
