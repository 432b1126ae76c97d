/* base/magic.h - what bytes that are no text are, by how they begin. */
#ifndef BASE_MAGIC_H
#define BASE_MAGIC_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

/* Of the first n bytes of a file (512 are enough): "a token shard", "a PNG picture" ..., or NULL
 * where they may be text. *remedy, if not NULL, is then a hint. Where text could begin the same
 * way, a byte among the first 512 that text does not have decides. */
const char *magic_kind(const void *p, size_t n, const char **remedy);

C_END
#endif
