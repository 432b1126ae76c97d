/* formats/text/gunzip.h - gzip unpacked as it streams, its checksums and lengths held to. */
#ifndef FORMATS_TEXT_GUNZIP_H
#define FORMATS_TEXT_GUNZIP_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* libarchive's own filter for gzip looks at neither, so that bytes that were turned go unseen. */
struct gunzip;

/* The next packed bytes: how many, with *block on them until the next call; 0 at the end; below
 * 0, with errno set, when they cannot be read. */
typedef int64_t gunzip_read_fn(void *ctx, const void **block);

/* NULL: out of memory. */
struct gunzip *gunzip_open(gunzip_read_fn *read, void *ctx);
void gunzip_close(struct gunzip *g); /* NULL is fine */

/* The next unpacked bytes, of all members one after another, in the same manner; below 0 with
 * *why set to words for a message where the data are bad (and NULL where read failed). */
int64_t gunzip_next(struct gunzip *g, const void **block, const char **why);
/* Packed bytes that were unpacked so far. */
int64_t gunzip_packed(const struct gunzip *g);

C_END
#endif
