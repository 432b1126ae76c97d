/* gen/book.h - what a session keeps of files, saved and brought back. */
#ifndef GEN_BOOK_H
#define GEN_BOOK_H
#include "gen/ask.h"
C_BEGIN

/* The session comes to have what q's files are, from o->session where that is there, else by reading
 * them, and then it is written. E_CONFIG: it is of another model, adapter or text, or its cache of another
 * type. E_DATA: damaged. E_CREATE, E_IO, E_DEVICE, E_SYS. */
int book_use(struct opening *g, const struct question *q, struct err *e);

C_END
#endif
