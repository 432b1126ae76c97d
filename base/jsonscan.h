/* base/jsonscan.h - walks JSON text in place: finds keys, builds no tree, never recurses. */
#ifndef BASE_JSONSCAN_H
#define BASE_JSONSCAN_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* RFC 8259, but for NaN, Infinity and -Infinity, which Python writes and which count as
 * numbers. Values are slices of the caller's bytes and live as long as those. */
#define JSON_MAX_DEPTH 128

enum json_kind { JK_NULL, JK_FALSE, JK_TRUE, JK_NUMBER, JK_STRING, JK_ARRAY,
                 JK_OBJECT };
const char *json_type_name(enum json_kind t); /* "a string", "null", ... */

struct json_value {
    enum json_kind type;
    bool escaped;  /* JK_STRING: has a backslash */
    const char *p; /* JK_STRING: between the quotes; else the whole value with its brackets */
    size_t n;
};

/* An object's members in order of writing. Zero-cost to make; holds no memory. */
struct json_object {
    const char *start, *p, *end;
    bool begun;
};
/* n bytes that hold one object and white space around it. */
struct json_object json_scan(const char *p, size_t n);
/* 1 and the next member (key a JK_STRING), 0 after the closing brace and only white space
 * behind it, or E_DATA with the byte offset in the n bytes. What was passed over is checked:
 * grammar, depth, no bare control characters in strings. UTF-8 is not (json_text does). */
int json_next(struct json_object *o, struct json_value *key, struct json_value *v,
              struct err *e);

/* The same of an array's elements, where json_scan was given n bytes that hold one array. */
int json_next_element(struct json_object *o, struct json_value *v, struct err *e);

/* True when the string v says name. */
bool json_is(const struct json_value *v, const char *name);

/* Appends the text of the string v to out. Invalid UTF-8 and lone surrogates are E_DATA, with
 * the offset in v, or become U+FFFD each (a bad byte at a time) when replace is set. */
int json_text(const struct json_value *v, bool replace, struct buf *out, struct err *e);

/* Appends n bytes of valid UTF-8 as a JSON string with its quotes. */
int json_quote(struct buf *out, const char *p, size_t n, struct err *e);

/* Where a value that begins with '{' ends, as its bytes arrive. Zero it before the first byte;
 * returns how many of these n bytes belong to the value when it ends here, else 0. Only braces,
 * brackets and strings are looked at. */
struct json_ending {
    int64_t depth;
    bool in_string, after_backslash;
};
size_t json_ending(struct json_ending *s, const char *p, size_t n);

C_END
#endif
