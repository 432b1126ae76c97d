/* base/gnuplot.h - pictures by gnuplot, from a script that is made here. */
#ifndef BASE_GNUPLOT_H
#define BASE_GNUPLOT_H
#include "base/bytes.h"
C_BEGIN

/* The line that makes gnuplot write the form that path's name ends in; PNG for all others. */
const char *gnuplot_terminal(const char *path);
/* A string for a script: plain characters, whatever s holds. E_SYS. */
int gnuplot_quote(struct buf *b, const char *s, struct err *e);
/* "set NAME 'text'". */
int gnuplot_set(struct buf *b, const char *name, const char *text, struct err *e);
/* Runs the script, and puts what it draws at path, whole or not at all. E_SYS without gnuplot (naming
 * the package), E_CREATE, E_IO. */
int gnuplot_draw(const struct buf *script, const char *path, struct err *e);

C_END
#endif
