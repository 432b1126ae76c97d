/* formats/tokenizer/unicode_data.h - the tables of unicode.c; no one else includes it. */
#ifndef FORMATS_TOKENIZER_UNICODE_DATA_H
#define FORMATS_TOKENIZER_UNICODE_DATA_H
#include <stdint.h>

/* Strings of numbers, see unicode.c. runs: how many characters in a row are of which kind; marks:
 * how far to the next combining mark, and its class; the others: how far to the next character, how
 * many it becomes, and those. canonical and compatible: twice that, and 1 for what composing
 * never gives. */
extern const uint64_t unicode_kinds[];
extern const char unicode_runs[], unicode_marks[], unicode_canonical[], unicode_compatible[],
    unicode_lower[];

#endif
