/* base/plot.h - a line chart: in the terminal with Unicode, or to a file through gnuplot. */
#ifndef BASE_PLOT_H
#define BASE_PLOT_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* Labels may hold anything: control characters are shown as '?'. Points that are not finite,
 * or not positive on a logarithmic axis, are left out. */
struct plot_series {
    const char *label;
    const double *x, *y;
    int64_t n;
};
struct plot {
    const char *title, *x_label, *y_label; /* NULL: none */
    bool log2_x;                           /* tokens: 512, 1k, 2k ... */
    bool log_y;
    bool bars;                             /* in a file, with log2_x: a histogram from 0 */
    const struct plot_series *series;
    int64_t n_series;
};

/* Appends the chart, lines ended by \n, about width columns (at least 40) by height rows (at
 * least 8) of data. utf8: braille lines and markers, else ASCII; colour: ANSI colours.
 * Needs no program. E_SYS; E_DATA when there is no point to draw. */
int plot_text(struct buf *out, const struct plot *p, int width, int height, bool utf8,
              bool colour, struct err *e);

/* Draws to path, which is replaced whole or not at all: PNG, or SVG or PDF where the name
 * ends so. E_SYS without gnuplot (naming the package), E_CREATE, E_IO, E_DATA. */
int plot_file(const char *path, const struct plot *p, struct err *e);
/* Is gnuplot there? The same E_SYS before long work. */
int plot_check(struct err *e);

/* True where the locale of the environment is UTF-8. */
bool plot_utf8(void);
/* 8192 -> "8k", 1536 -> "1.5k", 500 -> "500". buf: 24 bytes are enough; returns buf. */
const char *fmt_tokens(double n, char *buf, int cap);
/* s with control characters replaced by '?' (C0, DEL, and C1 in UTF-8): safe to print. */
int buf_add_clean(struct buf *b, const char *s, struct err *e);

C_END
#endif
