/* base/heat.h - maps of shares, 0 to 1, over two things: in the terminal, or to a file by gnuplot. */
#ifndef BASE_HEAT_H
#define BASE_HEAT_H
#include "base/bytes.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

enum { HEAT_LABEL = 24 };

/* One map. Labels may hold anything: control characters are shown as '?'. */
struct heat {
    const char *title, *x_label, *y_label;
    int64_t nx, ny;
    const char (*x)[HEAT_LABEL], (*y)[HEAT_LABEL]; /* [nx], [ny]: of columns, of rows from the top */
    const double *v;                               /* [ny][nx]; NAN: not known */
};
/* Appends the map in percent, lines ended by \n, in at most width columns (at least 40): what is wider
 * goes on below. colour: on grounds of red to green; else utf8: behind a block that is the fuller the
 * larger the share; else numbers alone. E_SYS. */
int heat_text(struct buf *out, const struct heat *h, int width, bool utf8, bool colour, struct err *e);
/* n maps side by side to path, as plot_file. E_SYS, E_CREATE, E_IO; E_DATA: nothing is known. */
int heat_file(const char *path, const char *title, const struct heat *h, int64_t n, struct err *e);

C_END
#endif
