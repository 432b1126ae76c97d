/* base/mapped.h - whose file a mapped byte is, and the end when that file was cut short. */
#ifndef BASE_MAPPED_H
#define BASE_MAPPED_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

/*
 * A file that somebody cuts while it is mapped has pages that are not there: reading one raises
 * SIGBUS. With mapped_begin the process then names the file, removes what is temporary
 * (must_end_with) and ends with 74 (E_IO). The same when the disk under a page fails.
 * file_map and file_unmap keep the list; they may be called from any thread.
 */
#define MAPPED_CUT ": it was cut short meanwhile, or its disk failed"
void mapped_begin(void); /* opt_parse calls it */
/* path is copied. E_SYS: no memory. */
int mapped_add(const void *map, size_t nbytes, const char *path, struct err *e);
void mapped_remove(const void *map);
/* The file that p lies in, or NULL. Takes no lock: for the signal handler too. */
const char *mapped_path(const void *p);

C_END
#endif
