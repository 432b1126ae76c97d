/* base/sealed.h - JSON files that hold a hash of themselves. */
#ifndef BASE_SEALED_H
#define BASE_SEALED_H
#include "base/err.h"
#include <jansson.h>
#include <stddef.h>
C_BEGIN

/*
 * The file begins with two lines of its own, without which it is the same object:
 *   {
 *     "sealed": true,
 *     "xxh3_128": "0123456789abcdef0123456789abcdef",
 * The hash is XXH3-128 of the whole file, its own 32 digits taken as zeros. Neither line stands
 * without the other, so that damage to one is found too.
 */

/* js_text of an object that has neither key, with both put in front; malloc'ed, NULL when memory is
 * short. */
char *sealed_text(const json_t *root);
/* 0 where the text's hash is right, or it has neither line: an older file, or made by others. E_DATA:
 * it was changed. name is for messages. */
int sealed_check(const char *text, size_t nbytes, const char *name, struct err *e);

C_END
#endif
