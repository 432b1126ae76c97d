/* base/plot_file.c - the chart of plot.h through gnuplot, to PNG, SVG or PDF. */
#include "base/plot.h"

#include "base/gnuplot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The same test as in plot.c: gnuplot would stop at what a logarithmic axis
 * has no place for. */
static bool drawable(const struct plot *p, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!p->log2_x || x > 0) && (!p->log_y || y > 0);
}

/* One inline data block a series; returns how many points there are, or an error. */
static int64_t put_data(struct buf *b, const struct plot *p, struct err *e)
{
    int64_t points = 0;
    int rc = 0;

    for (int64_t k = 0; k < p->n_series && rc == 0; k++) {
        rc = buf_printf(b, e, "$s%lld << EOD\n", (long long)k);
        for (int64_t i = 0; i < p->series[k].n && rc == 0; i++)
            if (drawable(p, p->series[k].x[i], p->series[k].y[i])) {
                /* 17 digits: every double is read back as it was. */
                rc = buf_printf(b, e, "%.17g %.17g\n", p->series[k].x[i], p->series[k].y[i]);
                points++;
            }
        if (rc == 0)
            rc = buf_printf(b, e, "EOD\n");
    }
    return rc < 0 ? rc : points;
}

static bool has_points(const struct plot *p, int64_t k)
{
    for (int64_t i = 0; i < p->series[k].n; i++)
        if (drawable(p, p->series[k].x[i], p->series[k].y[i]))
            return true;
    return false;
}

/* Ticks at the points' own x: contexts are few. */
static int put_ticks(struct buf *b, const struct plot *p, struct err *e)
{
    int rc = buf_printf(b, e, "set logscale x 2\nset xtics (");
    char text[24];
    bool first = true;

    for (int64_t k = 0; k < p->n_series && rc == 0; k++)
        for (int64_t i = 0; i < p->series[k].n && i < 64 && rc == 0; i++)
            if (drawable(p, p->series[k].x[i], p->series[k].y[i])) {
                rc = buf_printf(b, e, "%s'%s' %.17g", first ? "" : ", ",
                                fmt_tokens(p->series[k].x[i], text, sizeof text),
                                p->series[k].x[i]);
                first = false;
            }
    return rc < 0 ? rc : buf_printf(b, e, ")\n");
}

/* A logarithmic axis that fits the points, with six ticks: powers of ten alone may be none. */
static int put_log_y(struct buf *b, const struct plot *p, struct err *e)
{
    double lo = INFINITY, hi = 0;
    int rc;

    for (int64_t k = 0; k < p->n_series; k++)
        for (int64_t i = 0; i < p->series[k].n; i++)
            if (drawable(p, p->series[k].x[i], p->series[k].y[i])) {
                lo = fmin(lo, p->series[k].y[i]);
                hi = fmax(hi, p->series[k].y[i]);
            }
    if (hi == 0)
        return 0;
    /* Equal values would give a range of nothing. */
    if (hi < lo * 1.05)
        hi = lo * 1.05;
    rc = buf_printf(b, e, "set logscale y\nset yrange [%.17g:%.17g]\nset ytics (", lo * 0.96,
                    hi * 1.04);
    for (int i = 0; i <= 5 && rc == 0; i++) {
        /* Equal steps on a logarithmic axis are equal factors: lo, then five steps up to hi. */
        double v = lo * pow(hi / lo, i / 5.0);

        rc = buf_printf(b, e, "%s'%.4g' %.17g", i ? ", " : "", v, v);
    }
    return rc < 0 ? rc : buf_printf(b, e, ")\n");
}

/* The whole script for gnuplot: settings, data and one plot command. Data come first, as the
 * command names the blocks. */
static int script(struct buf *b, const char *path, const struct plot *p, struct err *e)
{
    int64_t points;
    int rc = buf_printf(b, e, "set encoding utf8\n%s", gnuplot_terminal(path));
    bool first = true;

    if (rc == 0)
        rc = gnuplot_set(b, "title", p->title, e);
    if (rc == 0)
        rc = gnuplot_set(b, "xlabel", p->x_label, e);
    if (rc == 0)
        rc = gnuplot_set(b, "ylabel", p->y_label, e);
    if (rc == 0)
        rc = buf_printf(b, e, "set grid lc rgb '#cccccc'\nset key below noenhanced\n"
                        "set bmargin 5.5\n"
                        "set offsets graph 0.03, graph 0.03, graph 0.03, graph 0.03\n");
    /* Bars are compared by their height, so they begin at 0. */
    if (rc == 0 && p->bars)
        rc = buf_printf(b, e, "set yrange [0:*]\n");
    if (rc == 0 && p->log_y)
        rc = put_log_y(b, p, e);
    if (rc == 0 && p->log2_x)
        rc = put_ticks(b, p, e);
    if (rc < 0)
        return rc;
    if ((points = put_data(b, p, e)) <= 0)
        return points < 0 ? (int)points : err_set(e, E_DATA, "nothing to plot");
    for (int64_t k = 0; k < p->n_series && rc == 0; k++) {
        /* A series without points is left out, as is its name in the legend. */
        if (!has_points(p, k))
            continue;
        rc = buf_printf(b, e, first ? "plot " : ", ");
        if (rc == 0 && p->bars) /* side by side within 4/5 of what lies up to the next power */
            rc = buf_printf(b, e, "$s%lld using 1:2:($1*2**%.4f):($1*2**%.4f):(0):2 "
                            "with boxxyerror fill solid 0.7 title ", (long long)k,
                            0.1 + 0.8 * (double)k / (double)p->n_series,
                            0.1 + 0.8 * (double)(k + 1) / (double)p->n_series);
        else if (rc == 0)
            /* Point types 5, 7, 9, 11 and 13 are gnuplot's filled shapes. */
            rc = buf_printf(b, e, "$s%lld using 1:2 with linespoints lw 2 pt %d ps 1.3 title ",
                            (long long)k, 5 + 2 * (int)(k % 5));
        first = false;
        if (rc == 0)
            rc = gnuplot_quote(b, p->series[k].label, e);
    }
    return rc < 0 ? rc : buf_printf(b, e, "\n");
}

int plot_file(const char *path, const struct plot *p, struct err *e)
{
    struct buf text = { 0 };
    int rc = script(&text, path, p, e);

    if (rc == 0)
        rc = gnuplot_draw(&text, path, e);
    buf_free(&text);
    return rc;
}
