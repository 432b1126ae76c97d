/* base/heat.c - maps of shares; see heat.h. */
#include "base/heat.h"

#include "base/gnuplot.h"
#include "base/plot.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { GRADES = 5, LEAST_CELL = 6 };

/* Of the 256 colours that terminals have: red, orange, yellow, light green, green; black on them. */
static const char *const ground[GRADES] = { "\033[30;48;5;203m", "\033[30;48;5;215m",
                                            "\033[30;48;5;228m", "\033[30;48;5;156m",
                                            "\033[30;48;5;77m" };
static const char *const block[GRADES] = { " ", "░", "▒", "▓", "█" };

static int grade(double share)
{
    int g = (int)(share * GRADES);

    return g < 0 ? 0 : g >= GRADES ? GRADES - 1 : g;
}

/* Columns of a terminal. */
static int columns_of(const char *s)
{
    return (int)utf8_chars(s, strlen(s));
}

/* A label to the right of its width. */
static int put_label(struct buf *b, const char *s, int width, struct err *e)
{
    int pad = width - columns_of(s), rc = buf_printf(b, e, "%*s", pad > 0 ? pad : 0, "");

    return rc < 0 ? rc : buf_add_clean(b, s, e);
}

/* A cell of 'width' columns, the first of which parts it from the one before. */
static int put_cell(struct buf *b, double v, int width, bool utf8, bool colour, struct err *e)
{
    char text[16];

    snprintf(text, sizeof text, isnan(v) ? "-" : "%.0f", 100 * v);
    if (colour && !isnan(v))
        return buf_printf(b, e, " %s%*s \033[0m", ground[grade(v)], width - 2, text);
    if (utf8 && !isnan(v))
        return buf_printf(b, e, " %s%*s ", block[grade(v)], width - 3, text);
    return buf_printf(b, e, " %*s ", width - 2, text);
}

static int widest(const char (*s)[HEAT_LABEL], int64_t n, int least)
{
    for (int64_t i = 0; i < n; i++)
        least = columns_of(s[i]) > least ? columns_of(s[i]) : least;
    return least;
}

/* Columns [from, to) of the map. */
static int put_part(struct buf *b, const struct heat *h, int64_t from, int64_t to, int left, int cell,
                    bool utf8, bool colour, struct err *e)
{
    int rc = put_label(b, h->y_label, left, e);

    for (int64_t x = from; x < to && rc == 0; x++)
        if ((rc = put_label(b, h->x[x], cell - 1, e)) == 0)
            rc = buf_add(b, " ", 1, e);
    for (int64_t y = 0; y < h->ny && rc == 0; y++) {
        if ((rc = buf_add(b, "\n", 1, e)) == 0)
            rc = put_label(b, h->y[y], left, e);
        for (int64_t x = from; x < to && rc == 0; x++)
            rc = put_cell(b, h->v[y * h->nx + x], cell, utf8, colour, e);
    }
    return rc < 0 ? rc : buf_add(b, "\n", 1, e);
}

int heat_text(struct buf *out, const struct heat *h, int width, bool utf8, bool colour, struct err *e)
{
    int left = widest(h->y, h->ny, columns_of(h->y_label)), cell = widest(h->x, h->nx, LEAST_CELL - 2) + 2;
    int64_t most = ((width > 40 ? width : 40) - left) / cell, to;
    int rc = buf_add_clean(out, h->title, e);

    if (rc == 0)
        rc = buf_printf(out, e, ", %% by %s and %s\n", h->y_label, h->x_label);
    most = most > 0 ? most : 1;
    for (int64_t x = 0; x < h->nx && rc == 0; x = to) {
        to = h->nx - x < most ? h->nx : x + most;
        rc = put_part(out, h, x, to, left, cell, utf8, colour, e);
    }
    return rc;
}

/* A tick's text is a format of gnuplot's, in which % begins something. */
static void double_percent(const char *s, char *out, size_t cap)
{
    size_t n = 0;

    for (; *s && n + 2 < cap; s++) {
        out[n++] = *s;
        if (*s == '%')
            out[n++] = '%';
    }
    out[n] = '\0';
}

static int put_ticks(struct buf *b, const char *axis, const char (*s)[HEAT_LABEL], int64_t n,
                     struct err *e)
{
    int64_t every = n > 12 ? (n + 11) / 12 : 1;
    int rc = buf_printf(b, e, "set %stics (", axis);

    for (int64_t i = 0; i < n && rc == 0; i += every) {
        char text[2 * HEAT_LABEL];

        double_percent(s[i], text, sizeof text);
        if ((rc = buf_printf(b, e, "%s", i ? ", " : "")) == 0 && (rc = gnuplot_quote(b, text, e)) == 0)
            rc = buf_printf(b, e, " %lld", (long long)i);
    }
    return rc < 0 ? rc : buf_printf(b, e, ") scale 0\n");
}

/* One map's data, and the command that draws it. */
static int put_map(struct buf *b, const struct heat *h, struct err *e)
{
    int rc = gnuplot_set(b, "title", h->title, e);

    if (rc == 0 && (rc = gnuplot_set(b, "xlabel", h->x_label, e)) == 0 &&
        (rc = gnuplot_set(b, "ylabel", h->y_label, e)) == 0 &&
        (rc = put_ticks(b, "x", h->x, h->nx, e)) == 0 && (rc = put_ticks(b, "y", h->y, h->ny, e)) == 0)
        rc = buf_printf(b, e, "set xrange [-0.5:%lld.5]\nset yrange [%lld.5:-0.5]\nplot '-' using 1:2:3 "
                        "with image notitle\n", (long long)h->nx - 1, (long long)h->ny - 1);
    /* image needs a whole grid: what is not known is drawn as nothing */
    for (int64_t i = 0; i < h->nx * h->ny && rc == 0; i++) {
        if (isnan(h->v[i]))
            rc = buf_printf(b, e, "%lld %lld NaN\n", (long long)(i % h->nx), (long long)(i / h->nx));
        else
            rc = buf_printf(b, e, "%lld %lld %.17g\n", (long long)(i % h->nx), (long long)(i / h->nx),
                            100 * h->v[i]);
    }
    return rc < 0 ? rc : buf_printf(b, e, "e\n");
}

int heat_file(const char *path, const char *title, const struct heat *h, int64_t n, struct err *e)
{
    int64_t across = n > 2 ? (n > 6 ? 3 : 2) : n, known = 0;
    struct buf b = { 0 };
    int rc;

    for (int64_t k = 0; k < n; k++)
        for (int64_t i = 0; i < h[k].nx * h[k].ny; i++)
            known += !isnan(h[k].v[i]);
    if (known == 0)
        return err_set(e, E_DATA, "nothing to plot");
    if ((rc = buf_printf(&b, e, "set encoding utf8\n%sset palette defined (0 '#d7301f', 50 '#fee08b', "
                         "100 '#1a9850')\nset cbrange [0:100]\nset cblabel '%%'\nset size noratio\n",
                         gnuplot_terminal(path))) == 0 &&
        (rc = buf_printf(&b, e, "set multiplot layout %lld,%lld title ", (long long)((n + across - 1) / across),
                         (long long)across)) == 0 &&
        (rc = gnuplot_quote(&b, title, e)) == 0)
        rc = buf_printf(&b, e, " noenhanced\n");
    for (int64_t k = 0; k < n && rc == 0; k++)
        rc = put_map(&b, &h[k], e);
    if (rc == 0 && (rc = buf_printf(&b, e, "unset multiplot\n")) == 0)
        rc = gnuplot_draw(&b, path, e);
    buf_free(&b);
    return rc;
}
