/* base/plot.c - the terminal chart of plot.h; plot_file.c has the one through gnuplot. */
#include "base/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* MARGIN: columns left of the plot, for the value, a space and the axis. MARKERS: kinds, which
 * repeat where there are more series. */
enum { MARGIN = 9, MARKERS = 8, MAX_TICKS = 64 };

static const char *const marker_utf8[MARKERS] = { "●", "■", "▲", "◆",
                                                  "○", "□", "△", "◇" };
static const char marker_ascii[MARKERS] = { '*', '#', '@', '+', 'o', 'x', '%', '&' };
static const char *const colour_of[MARKERS] = {
    "\033[36m", "\033[33m", "\033[35m", "\033[32m",
    "\033[31m", "\033[34m", "\033[96m", "\033[93m"
};

/* One character cell: braille dots of the lines through it, or a point's marker. */
struct cell {
    unsigned char dots;
    signed char series; /* -1 empty */
    bool marker;
};

struct canvas {
    const struct plot *p;
    int w, h; /* cells */
    bool utf8, colour;
    double x0, x1, y0, y1; /* on the axes' own scales */
    struct cell *cell;
};

/* The variables in the order that POSIX gives them: the first that is set decides. */
bool plot_utf8(void)
{
    const char *s = getenv("LC_ALL");

    if (!s || !*s)
        s = getenv("LC_CTYPE");
    if (!s || !*s)
        s = getenv("LANG");
    return s && (strcasestr(s, "utf-8") || strcasestr(s, "utf8"));
}

/* In k or m where that is exact enough to read back: 1536 is 1.5k, 1000 stays 1000. */
const char *fmt_tokens(double n, char *buf, int cap)
{
    if (n >= 1024 * 1024 && fmod(n, 1024) == 0)
        snprintf(buf, (size_t)cap, "%.4gm", n / (1024 * 1024));
    else if (n >= 1024 && fmod(n * 10, 1024) == 0)
        snprintf(buf, (size_t)cap, "%.7gk", n / 1024);
    else
        snprintf(buf, (size_t)cap, "%.0f", n);
    return buf;
}

int buf_add_clean(struct buf *b, const char *s, struct err *e)
{
    size_t at = b->len;
    /* The NUL is added too, as text_clean works on C strings, and then taken off again. */
    int rc = buf_add(b, s, strlen(s) + 1, e);

    if (rc == 0) {
        text_clean(b->p + at, false);
        b->len--;
    }
    return rc;
}

static double on_axis(double v, bool logarithmic) { return logarithmic ? log2(v) : v; }

/* No infinities or NaN, and nothing below or at zero on a logarithmic axis. */
static bool drawable(const struct plot *p, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!p->log2_x || x > 0) && (!p->log_y || y > 0);
}

/* The axes' ends; false without a point. A flat one is opened a little. */
static bool find_range(struct canvas *c)
{
    const struct plot *p = c->p;
    bool any = false;

    for (int64_t k = 0; k < p->n_series; k++)
        for (int64_t i = 0; i < p->series[k].n; i++) {
            double x = p->series[k].x[i], y = p->series[k].y[i];

            if (!drawable(p, x, y))
                continue;
            x = on_axis(x, p->log2_x);
            y = on_axis(y, p->log_y);
            c->x0 = any ? fmin(c->x0, x) : x;
            c->x1 = any ? fmax(c->x1, x) : x;
            c->y0 = any ? fmin(c->y0, y) : y;
            c->y1 = any ? fmax(c->y1, y) : y;
            any = true;
        }
    /* One x alone, or one y, would have a range of 0 to divide by. */
    if (any && !(c->x1 > c->x0)) {
        c->x0 -= 1;
        c->x1 += 1;
    }
    if (any && !(c->y1 - c->y0 > 1e-9 * fabs(c->y1))) {
        double room = p->log_y ? 0.05 : fmax(fabs(c->y1) * 0.05, 1e-9);

        c->y0 -= room;
        c->y1 += room;
    }
    return any;
}

/* Dots: two a cell across, four down, row 0 on top. */
static int dot_x(const struct canvas *c, double x)
{
    /* From 0 to the last dot: 2 * w - 1 steps across. */
    return (int)lround((on_axis(x, c->p->log2_x) - c->x0) / (c->x1 - c->x0) * (2 * c->w - 1));
}

static int dot_y(const struct canvas *c, double y)
{
    double part = (on_axis(y, c->p->log_y) - c->y0) / (c->y1 - c->y0);

    return (int)lround((1 - part) * (4 * c->h - 1));
}

static void put_dot(struct canvas *c, int x, int y, int series)
{
    /* Unicode's numbers of the braille dots: 1 to 3 go down on the left and 4 to 6 on the
     * right, and the lowest row, 7 and 8, came later. */
    static const unsigned char bit[4][2] = { { 1, 8 }, { 2, 16 }, { 4, 32 }, { 64, 128 } };
    struct cell *at;

    if (x < 0 || y < 0 || x >= 2 * c->w || y >= 4 * c->h)
        return;
    at = &c->cell[y / 4 * c->w + x / 2];
    at->dots |= bit[y % 4][x % 2];
    at->series = (signed char)series;
}

/* A straight line, a dot for each step along its longer side; n is 0 for a single point. */
static void put_line(struct canvas *c, int xa, int ya, int xb, int yb, int series)
{
    int n = abs(xb - xa) > abs(yb - ya) ? abs(xb - xa) : abs(yb - ya);

    for (int i = 0; i <= n; i++)
        put_dot(c, n ? xa + (int)lround((double)(xb - xa) * i / n) : xa,
                n ? ya + (int)lround((double)(yb - ya) * i / n) : ya, series);
}

static void draw(struct canvas *c)
{
    const struct plot *p = c->p;

    /* All lines, then all markers, so that no line hides a point. */
    for (int pass = 0; pass < 2; pass++)
        for (int64_t k = 0; k < p->n_series; k++) {
            const struct plot_series *s = &p->series[k];
            int mark = (int)(k % MARKERS), px = 0, py = 0;
            bool before = false;

            for (int64_t i = 0; i < s->n; i++) {
                int x, y;

                /* A point that cannot be drawn leaves a gap in the line. */
                if (!drawable(p, s->x[i], s->y[i])) {
                    before = false;
                    continue;
                }
                x = dot_x(c, s->x[i]);
                y = dot_y(c, s->y[i]);
                if (pass == 0 && before)
                    put_line(c, px, py, x, y, mark);
                if (pass == 1)
                    c->cell[y / 4 * c->w + x / 2] = (struct cell){ 0, (signed char)mark, true };
                px = x;
                py = y;
                before = true;
            }
        }
}

/* One cell as text: a marker, braille, or plain ASCII, in the colour of its series. */
static int put_cell(struct buf *b, const struct canvas *c, const struct cell *at, struct err *e)
{
    char text[8] = " ";
    /* The braille pattern with these dots is U+2800 plus their bits; below,
     * its three bytes of UTF-8. */
    unsigned glyph = 0x2800u + at->dots;

    if (at->marker && c->utf8)
        snprintf(text, sizeof text, "%s", marker_utf8[at->series]);
    else if (at->marker)
        text[0] = marker_ascii[at->series];
    else if (at->dots && !c->utf8)
        text[0] = '.';
    else if (at->dots)
        snprintf(text, sizeof text, "%c%c%c", (int)(0xE0u | glyph >> 12),
                 (int)(0x80u | (glyph >> 6 & 0x3Fu)), (int)(0x80u | (glyph & 0x3Fu)));
    if (!c->colour || at->series < 0)
        return buf_add(b, text, strlen(text), e);
    return buf_printf(b, e, "%s%s\033[0m", colour_of[at->series], text);
}

static int put_rows(struct buf *b, const struct canvas *c, struct err *e)
{
    const char *edge[2] = { c->utf8 ? "┤" : "+", c->utf8 ? "│" : "|" };
    /* About five values along the axis, one of them at the last row. */
    int every = (c->h - 1) / 4, rc = 0;

    for (int r = 0; r < c->h && rc == 0; r++) {
        bool tick = every < 1 || r % every == 0 || r == c->h - 1;
        /* The value at the middle of the row. */
        double part = 1 - (4.0 * r + 1.5) / (4 * c->h - 1), v = c->y0 + part * (c->y1 - c->y0);

        /* This value would stand too close to the last one. */
        if (tick && every > 0 && r != c->h - 1 && c->h - 1 - r < every)
            tick = false;
        rc = tick ? buf_printf(b, e, "%*.4g %s", MARGIN - 2, c->p->log_y ? exp2(v) : v, edge[0])
                  : buf_printf(b, e, "%*s%s", MARGIN - 1, "", edge[1]);
        for (int x = 0; x < c->w && rc == 0; x++)
            rc = put_cell(b, c, &c->cell[r * c->w + x], e);
        /* Empty cells at the end of a row are not written. */
        while (rc == 0 && b->len && b->p[b->len - 1] == ' ')
            b->len--;
        if (rc == 0)
            rc = buf_add(b, "\n", 1, e);
    }
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The x of every point, once; the first MAX_TICKS found. */
static int find_ticks(const struct plot *p, double *tick)
{
    int n = 0;

    for (int64_t k = 0; k < p->n_series; k++)
        for (int64_t i = 0; i < p->series[k].n; i++) {
            int j = 0;

            if (!drawable(p, p->series[k].x[i], p->series[k].y[i]))
                continue;
            /* A search through all is fast enough for 64. */
            while (j < n && tick[j] != p->series[k].x[i])
                j++;
            if (j == n && n < MAX_TICKS)
                tick[n++] = p->series[k].x[i];
        }
    qsort(tick, (size_t)n, sizeof *tick, by_value);
    return n;
}

static int put_x_axis(struct buf *b, const struct canvas *c, struct err *e)
{
    double tick[MAX_TICKS];
    /* at: the column behind the last label written. */
    int n = find_ticks(c->p, tick), rc, at = 0, total = MARGIN + c->w;
    char text[24];

    rc = buf_printf(b, e, "%*s%s", MARGIN - 1, "", c->utf8 ? "└" : "+");
    for (int x = 0; x < c->w && rc == 0; x++)
        rc = buf_printf(b, e, "%s", c->utf8 ? "─" : "-");
    if (rc == 0)
        rc = buf_add(b, "\n", 1, e);
    for (int i = 0; i < n && rc == 0; i++) {
        int len, from;

        if (c->p->log2_x)
            fmt_tokens(tick[i], text, sizeof text);
        else
            snprintf(text, sizeof text, "%.4g", tick[i]);
        len = (int)strlen(text);
        /* The label is centred below its point: two dots are one column. */
        from = MARGIN + dot_x(c, tick[i]) / 2 - len / 2;
        if (from + len > total)
            from = total - len;
        if (from < (at ? at + 1 : 0))
            continue; /* no room beside its neighbour */
        rc = buf_printf(b, e, "%*s%s", from - at, "", text);
        at = from + len;
    }
    if (rc == 0 && c->p->x_label)
        rc = buf_printf(b, e, "  ");
    if (rc == 0 && c->p->x_label)
        rc = buf_add_clean(b, c->p->x_label, e);
    return rc < 0 ? rc : buf_add(b, "\n", 1, e);
}

/* A line for each series: its marker in its colour, and its name. */
static int put_legend(struct buf *b, const struct canvas *c, struct err *e)
{
    int rc = 0;

    for (int64_t k = 0; k < c->p->n_series && rc == 0; k++) {
        struct cell at = { 0, (signed char)(k % MARKERS), true };

        rc = buf_printf(b, e, "%*s", MARGIN, "");
        if (rc == 0)
            rc = put_cell(b, c, &at, e);
        if (rc == 0)
            rc = buf_add(b, " ", 1, e);
        if (rc == 0)
            rc = buf_add_clean(b, c->p->series[k].label ? c->p->series[k].label : "", e);
        if (rc == 0)
            rc = buf_add(b, "\n", 1, e);
    }
    return rc;
}

/* The title above, indented as the plot is; then what the y axis shows. */
static int put_title(struct buf *b, const struct plot *p, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < 2 && rc == 0; i++) {
        const char *s = i ? p->y_label : p->title;

        if (!s || !*s)
            continue;
        rc = buf_printf(b, e, "%*s", i ? 1 : MARGIN, "");
        if (rc == 0)
            rc = buf_add_clean(b, s, e);
        if (rc == 0)
            rc = buf_add(b, "\n", 1, e);
    }
    return rc;
}

int plot_text(struct buf *out, const struct plot *p, int width, int height, bool utf8,
              bool colour, struct err *e)
{
    struct canvas c = { .p = p, .utf8 = utf8, .colour = colour };
    int rc;

    /* Smaller ones could not be read; the upper bounds keep the canvas small. */
    width = width < 40 ? 40 : width > 400 ? 400 : width;
    c.w = width - MARGIN;
    c.h = height < 8 ? 8 : height > 200 ? 200 : height;
    if (!find_range(&c))
        return err_set(e, E_DATA, "nothing to plot");
    if (!(c.cell = calloc((size_t)c.w * (size_t)c.h, sizeof *c.cell)))
        return err_set(e, E_SYS, "out of memory");
    for (int i = 0; i < c.w * c.h; i++)
        c.cell[i].series = -1;
    draw(&c);
    if ((rc = put_title(out, p, e)) == 0 && (rc = put_rows(out, &c, e)) == 0 &&
        (rc = put_x_axis(out, &c, e)) == 0)
        rc = put_legend(out, &c, e);
    free(c.cell);
    return rc;
}
