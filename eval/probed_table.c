/* eval/probed_table.c - scores of probes as tables, maps and plots; see probed.h. */
#include "eval/probed.h"

#include "base/heat.h"
#include "base/plot.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 32, NAME = 18, LENGTHS = 64, TASKS = 64 };

/* "93.3 [80-100]": percent, or points of difference with their sign. */
static const char *fmt_score(const struct interval *i, bool difference, char *buf)
{
    if (difference)
        snprintf(buf, CELL, "%+.1f [%+.1f, %+.1f]", 100 * i->mean, 100 * i->low, 100 * i->high);
    else
        snprintf(buf, CELL, "%.1f [%.0f-%.0f]", 100 * i->mean, 100 * i->low, 100 * i->high);
    return buf;
}

static int put_name(struct buf *b, const char *name, struct err *e)
{
    size_t at = b->len;
    int rc = buf_add_clean(b, name, e), columns = (int)utf8_chars(b->p + at, b->len - at);

    return rc < 0 ? rc : buf_printf(b, e, "%*s", columns < NAME ? NAME - columns : 1, "");
}

/* A line of the table: one task, or with NULL the mean. */
static int put_row(struct buf *b, const char *name, const struct probed *r, const struct probed *c,
                   const char *task, const int64_t *length, int64_t n, int width, struct err *e)
{
    int rc = put_name(b, name, e);

    for (int64_t k = 0; k < n && rc == 0; k++) {
        struct interval i;
        char text[CELL] = "-";
        bool any;

        if ((rc = probed_score(r, c, task, length[k], &i, &any, e)) == 0)
            rc = buf_printf(b, e, "  %-*s", k == n - 1 ? 0 : width, any ? fmt_score(&i, c != NULL, text) : text);
    }
    return rc < 0 ? rc : buf_add(b, "\n", 1, e);
}

static int put_lengths(struct buf *b, const char *name, const int64_t *length, int64_t n, int width,
                       struct err *e)
{
    int rc = put_name(b, name, e);

    for (int64_t k = 0; k < n && rc == 0; k++)
        rc = length[k] ? buf_printf(b, e, "  %-*" PRId64, k == n - 1 ? 0 : width, length[k])
                       : buf_add(b, "  all", 5, e);
    return rc < 0 ? rc : buf_add(b, "\n", 1, e);
}

static int put_scores(struct buf *b, const char *head, const struct probed *r, const struct probed *c,
                      struct err *e)
{
    const char *task[TASKS];
    int64_t length[LENGTHS], n = probed_columns(r, length, LENGTHS), tasks = probed_tasks(r, task, TASKS);
    int width = c ? 20 : 15, rc = put_lengths(b, head, length, n, width, e);

    for (int64_t i = 0; i < tasks && rc == 0; i++)
        rc = put_row(b, task[i], r, c, task[i], length, n, width, e);
    return rc < 0 || tasks < 2 ? rc : put_row(b, "mean", r, c, NULL, length, n, width, e);
}

/* The map of a task: lengths across, depths down. Zero m before; free it. */
struct map {
    struct heat h;
    char (*x)[HEAT_LABEL], (*y)[HEAT_LABEL];
    double *v;
};

static double mean_of(const struct probed_cell *c)
{
    double sum = 0;

    for (int64_t i = 0; i < c->n; i++)
        sum += c->score[i];
    return c->n ? sum / (double)c->n : NAN;
}

static void map_free(struct map *m)
{
    free(m->x);
    free(m->y);
    free(m->v);
}

/* ny stays 0 where the task has no depths. */
static int map_fill(struct map *m, const struct probed *r, const char *task, struct err *e)
{
    int64_t length[LENGTHS], nx = probed_lengths(r, length, LENGTHS), from, to;

    m->x = calloc((size_t)nx + 1, sizeof *m->x);
    m->y = calloc(PROBED_DEPTHS, sizeof *m->y);
    m->v = calloc((size_t)(nx + 1) * PROBED_DEPTHS, sizeof *m->v);
    if (!m->x || !m->y || !m->v)
        return err_set(e, E_SYS, "out of memory");
    m->h = (struct heat){ task, "length", "depth", nx, 0, (const char (*)[HEAT_LABEL])m->x,
                          (const char (*)[HEAT_LABEL])m->y, m->v };
    for (int64_t i = 0; i < nx * PROBED_DEPTHS; i++)
        m->v[i] = NAN;
    for (int64_t k = 0; k < nx; k++) {
        fmt_tokens((double)length[k], m->x[k], HEAT_LABEL);
        if (!probed_find(r, task, length[k], &from, &to) || r->cell[from].depth < 0)
            continue;
        for (int64_t i = from; i < to && i - from < PROBED_DEPTHS; i++) {
            snprintf(m->y[i - from], HEAT_LABEL, "%.0f%%", 100 * r->cell[i].depth);
            m->v[(i - from) * nx + k] = mean_of(&r->cell[i]);
            m->h.ny = i - from + 1 > m->h.ny ? i - from + 1 : m->h.ny;
        }
    }
    return 0;
}

static int put_maps(struct buf *b, const struct probed *r, const struct probed_how *how, struct err *e)
{
    const char *task[TASKS];
    int64_t tasks = probed_tasks(r, task, TASKS);
    int rc = 0;

    for (int64_t i = 0; i < tasks && rc == 0; i++) {
        struct map m = { .x = NULL };

        rc = map_fill(&m, r, task[i], e);
        if (rc == 0 && m.h.ny > 0 && (rc = buf_add(b, "\n", 1, e)) == 0)
            rc = heat_text(b, &m.h, how->width, how->utf8, how->colour, e);
        map_free(&m);
    }
    return rc;
}

static int put_head(struct buf *b, const struct probed *r, struct err *e)
{
    int rc = measured_line(b, &r->of, e);

    if (rc == 0)
        rc = buf_printf(b, e, "prompts   ");
    if (rc == 0 && r->seed < 0)
        rc = buf_printf(b, e, "seeds of the originals");
    else if (rc == 0)
        rc = buf_printf(b, e, "seed %" PRId64, r->seed);
    if (rc == 0 && r->haystack[0] && (rc = buf_printf(b, e, ", hidden in ")) == 0)
        rc = buf_add_clean(b, r->haystack, e);
    return rc < 0 ? rc : buf_printf(b, e, "; the likeliest tokens answer\nscores    %%, [%.0f%% of %d "
                                    "resamples]\n", 100 * BOOTSTRAP_CONFIDENCE, BOOTSTRAP_RESAMPLES);
}

int probed_table(struct buf *out, const struct probed *r, const struct probed_how *how, struct err *e)
{
    int rc = put_head(out, r, e);

    if (rc == 0)
        rc = put_scores(out, "task", r, NULL, e);
    return rc < 0 ? rc : put_maps(out, r, how, e);
}

int probed_compare(struct buf *out, const struct probed *r, int64_t n, struct err *e)
{
    int rc = 0;

    for (int64_t k = 0; k < n && rc == 0; k++)
        if ((rc = k ? buf_add(out, "\n", 1, e) : 0) == 0)
            rc = put_scores(out, r[k].of.label, &r[k], NULL, e);
    for (int64_t k = 1; k < n && rc == 0; k++) {
        if ((rc = buf_printf(out, e, "\npoints that ")) == 0 && (rc = buf_add_clean(out, r[k].of.label, e)) == 0 &&
            (rc = buf_printf(out, e, " is above ")) == 0 && (rc = buf_add_clean(out, r[0].of.label, e)) == 0)
            rc = buf_printf(out, e, ", same prompts resampled in pairs [%.0f%%]\n", 100 * BOOTSTRAP_CONFIDENCE);
        if (rc == 0)
            rc = put_scores(out, "task", &r[0], &r[k], e);
    }
    return rc;
}

/* Lines: the score of every task over lengths; of several models the mean of all tasks. */
static int plot_lines(const struct probed *r, int64_t n, const char *title, const char *path, struct err *e)
{
    const char *task[TASKS] = { NULL };
    int64_t lines = n > 1 ? n : probed_tasks(r, task, TASKS);
    double *x = calloc((size_t)lines * 2 * LENGTHS, sizeof *x);
    struct plot_series *s = calloc((size_t)lines, sizeof *s);
    struct plot p = { .title = title, .x_label = "length (tokens)", .y_label = "score (%)", .log2_x = true,
                      .series = s, .n_series = lines };
    int rc = x && s ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t k = 0; k < lines && rc == 0; k++) {
        const struct probed *m = n > 1 ? &r[k] : r;
        int64_t length[LENGTHS], have = probed_lengths(m, length, LENGTHS);
        double *at = x + k * 2 * LENGTHS;

        s[k] = (struct plot_series){ n > 1 ? m->of.label : task[k], at, at + LENGTHS, 0 };
        for (int64_t i = 0; i < have && rc == 0; i++) {
            struct interval score;
            bool any;

            rc = probed_score(m, NULL, n > 1 ? NULL : task[k], length[i], &score, &any, e);
            if (rc == 0 && any)
                at[s[k].n] = (double)length[i], at[LENGTHS + s[k].n++] = 100 * score.mean;
        }
    }
    if (rc == 0)
        rc = plot_file(path, &p, e);
    free(x);
    free(s);
    return rc;
}

int probed_plot(const struct probed *r, int64_t n, const char *title, const char *path, struct err *e)
{
    const char *task[TASKS];
    int64_t tasks = probed_tasks(r, task, TASKS), maps = 0;
    struct map m[TASKS] = { { .x = NULL } };
    struct heat h[TASKS];
    int rc = 0;

    title = title ? title : n > 1 ? "probes" : r->of.label;
    for (int64_t i = 0; i < tasks && n == 1 && rc == 0; i++) {
        rc = map_fill(&m[i], r, task[i], e);
        if (rc == 0 && m[i].h.ny > 0)
            h[maps++] = m[i].h;
    }
    if (rc == 0)
        rc = maps ? heat_file(path, title, h, maps, e) : plot_lines(r, n, title, path, e);
    for (int64_t i = 0; i < tasks; i++)
        map_free(&m[i]);
    return rc;
}
