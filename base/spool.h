/* base/spool.h - bytes set aside now and read back later, in bounded memory. */
#ifndef BASE_SPOOL_H
#define BASE_SPOOL_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
#include <stdint.h>
C_BEGIN

/* The first MiB stays in memory; what follows goes to a temporary file without a name, which
 * vanishes with the process however it ends. One thread at a time. */
struct spool;

/* folder: where the temporary file will be; NULL: $TMPDIR, or /tmp. E_SYS. */
int spool_open(struct spool **s, const char *folder, struct err *e);
/* The same in a file that has a name and stays: its first keep_bytes are what was added, what
 * follows them is cut off. E_CREATE; E_DATA when there are fewer. */
int spool_open_at(struct spool **s, const char *path, int64_t keep_bytes, struct err *e);
/* Puts all that was added on disk. E_CREATE, E_IO. */
int spool_sync(struct spool *s, struct err *e);
void spool_close(struct spool *s); /* NULL is fine */
/* Appends. E_CREATE when there can be no temporary file, E_IO when it cannot be written. */
int spool_add(struct spool *s, const void *p, size_t nbytes, struct err *e);
int64_t spool_bytes(const struct spool *s);
/* Reads nbytes at offset; both must lie within what was added. E_IO. */
int spool_read(const struct spool *s, int64_t offset, void *p, size_t nbytes, struct err *e);

C_END
#endif
