/* formats/weights/st_scan.h - the pieces of JSON that a safetensors header is made of (internal). */
#ifndef FORMATS_WEIGHTS_ST_SCAN_H
#define FORMATS_WEIGHTS_ST_SCAN_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

/* A scanner of our own, because a header may be 100 MB of hostile text and its shape is fixed:
 * nothing is allocated here. p walks the header; strings are decoded to out. A string in the
 * header has two quotes, so what it decodes to plus its NUL never takes more room than it did
 * there: out needs as many bytes as the header has. start is byte 8 of the file. */
struct scan {
    const char *file, *start, *p, *end;
    char *out;
    struct err *e;
};

/* E_DATA: what, with file and place. */
int scan_bad(struct scan *s, const char *what);
void scan_space(struct scan *s);
/* Steps over c where that is the next byte other than white space. */
bool scan_take(struct scan *s, char c);
/* A string without NUL, decoded; all are E_DATA when something else stands there. */
int scan_string(struct scan *s, const char **v);
/* An integer in [0, 2^63). */
int scan_number(struct scan *s, uint64_t *v);
/* "[" number, ... "]" of at most max numbers into v. Returns how many. */
int scan_numbers(struct scan *s, uint64_t *v, int max);

#endif
