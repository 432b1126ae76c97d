/* base/utf8.h - well-formed UTF-8, and names that do nothing to a terminal. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* True when the n bytes at s are well-formed UTF-8 (no overlong forms, surrogates, or
 * values above U+10FFFF). On false *at, if not NULL, is the offset of the first bad byte. */
bool utf8_valid(const char *s, size_t n, size_t *at);
/* Characters in n bytes of it. */
int64_t utf8_chars(const char *s, size_t n);
/* In place, up to the NUL: control characters (C0, DEL, and C1 as UTF-8 or as bytes of their own)
 * become '?', so that a name which somebody else chose does nothing to a terminal. Line ends do
 * too, unless they are to stay. */
void text_clean(char *s, bool keep_line_ends);
/* Bytes of s, whole characters, that fit into so many columns of a terminal: East Asian characters
 * and emoji take two, marks upon others none, a byte that is not UTF-8 one. */
size_t text_fit(const char *s, int width);

#ifdef __cplusplus
}
#endif
#endif
