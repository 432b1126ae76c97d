/* eval/result.c - the tables and the chart of result.h; result_json.c reads and writes JSON. */
#include "eval/result.h"

#include "base/plot.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a cell with its final 0; columns of the table; contexts in a table of results. */
enum { CELL = 32, COLUMNS = 10, MAX_CONTEXTS = 64 };

/* Fewer decimals for larger values: 7.1234, 1234.5, 1.235e+06. buf has CELL bytes. */
static const char *fmt_ppl(double v, char *buf)
{
    if (!isfinite(v))
        snprintf(buf, CELL, isnan(v) ? "-" : "inf");
    else
        snprintf(buf, CELL, v >= 1e5 ? "%.4g" : v >= 1000 ? "%.1f" : "%.4f", v);
    return buf;
}

/* A figure by word or byte: "-" unknown, "~" shared out over tokens. */
static const char *fmt_share(double v, bool exact, char *buf)
{
    char number[CELL];

    if (!(v > 0))
        snprintf(buf, CELL, "-");
    else
        snprintf(buf, CELL, "%s%.20s", exact ? "" : "~", fmt_ppl(v, number));
    return buf;
}

/* Right-aligned columns as wide as their widest cell; the first row is the head. */
static int put_columns(struct buf *b, char (*cell)[CELL], int64_t rows, int columns,
                       struct err *e)
{
    int width[COLUMNS] = { 0 }, rc = 0;

    for (int64_t r = 0; r < rows; r++)
        for (int k = 0; k < columns; k++) {
            int n = (int)strlen(cell[r * columns + k]);

            width[k] = n > width[k] ? n : width[k];
        }
    for (int64_t r = 0; r < rows && rc == 0; r++) {
        for (int k = 0; k < columns && rc == 0; k++)
            rc = buf_printf(b, e, "%s%*s", k ? "  " : "", width[k], cell[r * columns + k]);
        if (rc == 0)
            rc = buf_add(b, "\n", 1, e);
    }
    return rc;
}

/* The protocol in words, so that a table explains itself. */
static const char *how(const struct result *r, const struct score *s, char *buf, size_t cap)
{
    char batches[64];

    snprintf(batches, sizeof batches, "the means of batches of %" PRId64, r->mean_of);
    if (strcmp(r->protocol, "longlora") == 0)
        snprintf(buf, cap, "longlora: windows of ctx every %" PRId64 " tokens, the mean of "
                 "%s", s->step, r->mean_of > 1 ? batches : "their means");
    else if (strcmp(r->protocol, "stride") == 0)
        snprintf(buf, cap, "stride: each token once, windows of ctx advance by %" PRId64,
                 s->step);
    else
        snprintf(buf, cap, "nonoverlap: windows of ctx end to end, all tokens but their first");
    return buf;
}

/* Names and paths may hold control characters: buf_add_clean makes them harmless. */
static int put_line(struct buf *b, const char *name, const char *text, struct err *e)
{
    int rc = buf_printf(b, e, "%-9s ", name);

    if (rc == 0)
        rc = buf_add_clean(b, text, e);
    return rc < 0 ? rc : buf_add(b, "\n", 1, e);
}

/* Three lines above the table: model, data, protocol. */
static int put_head(struct buf *b, const struct result *r, struct err *e)
{
    char text[1400];
    int rc;
/* Paths of model, adapter and data may be long; what does not fit is cut. */

    rc = measured_line(b, &r->of, e);
    snprintf(text, sizeof text, "%s (%s%s%s, %" PRId64 " tokens, %" PRId64 " document%s%s%s%s)",
             r->data, r->form, r->split[0] ? ", split " : "", r->split, r->data_tokens,
             r->data_docs, r->data_docs == 1 ? "" : "s",
             r->joined && r->data_docs > 1 ? " joined" : "", r->masks[0] ? ", masked tokens " : "",
             r->masks);
    if (rc == 0)
        rc = put_line(b, "data", text, e);
    return rc < 0 ? rc : put_line(b, "protocol", how(r, &r->row[0], text, sizeof text), e);
}

/* One row per context. The cells are laid out row after row, the head first. */
static int put_scores(struct buf *b, const struct result *r, struct err *e)
{
    static const char *const head[COLUMNS] = {
        "ctx", "ppl", "loss", "tokens", "windows", "docs", "word ppl", "byte ppl", "bits/byte",
        "tokens/s"
    };
    char (*cell)[CELL] = calloc((size_t)(r->n + 1) * COLUMNS, sizeof *cell);
    bool about = false;
    int rc;

    if (!cell)
        return err_set(e, E_SYS, "out of memory");
    for (int k = 0; k < COLUMNS; k++)
        snprintf(cell[k], CELL, "%s", head[k]);
    for (int64_t i = 0; i < r->n; i++) {
        const struct score *s = &r->row[i];
        char (*c)[CELL] = cell + (i + 1) * COLUMNS;

        snprintf(c[0], CELL, "%" PRId64, s->ctx);
        fmt_ppl(score_ppl(s), c[1]);
        snprintf(c[2], CELL, "%.5f", s->loss);
        snprintf(c[3], CELL, "%" PRId64, s->tokens);
        snprintf(c[4], CELL, "%" PRId64, s->windows);
        snprintf(c[5], CELL, "%" PRId64, s->docs);
        fmt_share(score_word_ppl(s), s->text_exact, c[6]);
        fmt_share(score_byte_ppl(s), s->text_exact, c[7]);
        fmt_share(score_bits_per_byte(s), s->text_exact, c[8]);
        snprintf(c[9], CELL, "%.0f", s->seconds > 0 ? (double)s->read / s->seconds : 0);
        /* Words or bytes were shared out: the footnote explains the "~". */
        about |= s->bytes > 0 && !s->text_exact;
    }
    rc = put_columns(b, cell, r->n + 1, COLUMNS, e);
    free(cell);
    if (rc == 0 && about)
        rc = buf_printf(b, e, "~ words and bytes in proportion to tokens, as some of a document were "
                        "not scored: its first, unless a BOS is before it\n");
    return rc;
}

/* Perplexity by the number of tokens before the predicted one: rows are powers of two,
 * columns are contexts, as many as there are columns for. Rows without a prediction are left
 * out. */
static int put_positions(struct buf *b, const struct result *r, struct err *e)
{
    int columns = r->n < COLUMNS - 1 ? (int)r->n + 1 : COLUMNS, rows = 1, rc;
    char (*cell)[CELL] = calloc((SCORE_BUCKETS + 1) * COLUMNS, sizeof *cell);

    if (!cell)
        return err_set(e, E_SYS, "out of memory");
    snprintf(cell[0], CELL, "tokens before");
    for (int k = 1; k < columns; k++)
        snprintf(cell[k], CELL, "ppl @ %" PRId64, r->row[k - 1].ctx);
    for (int i = 0; i < SCORE_BUCKETS; i++) {
        bool any = false;

        for (int k = 1; k < columns; k++)
            any |= r->row[k - 1].bucket[i].n > 0;
        if (!any)
            continue;
        /* Bucket i holds 2^i to 2^(i+1) - 1 tokens. */
        snprintf(cell[rows * columns], CELL, "%" PRId64 "-%" PRId64, (int64_t)1 << i,
                 ((int64_t)2 << i) - 1);
        for (int k = 1; k < columns; k++) {
            const struct score_bucket *p = &r->row[k - 1].bucket[i];

            if (p->n)
                fmt_ppl(exp(p->nll / (double)p->n), cell[rows * columns + k]);
            else
                snprintf(cell[rows * columns + k], CELL, "-");
        }
        rows++;
    }
    rc = buf_add(b, "\n", 1, e);
    if (rc == 0)
        rc = put_columns(b, cell, rows, columns, e);
    free(cell);
    return rc;
}

int result_table(struct buf *out, const struct result *r, bool by_position, struct err *e)
{
    int rc = put_head(out, r, e);

    if (rc == 0)
        rc = put_scores(out, r, e);
    return rc == 0 && by_position ? put_positions(out, r, e) : rc;
}

/* Collects the contexts of all results, ascending, each once; at most MAX_CONTEXTS. Sorting
 * by insertion does: there are few. */
static int contexts(const struct result *r, int64_t n, int64_t *ctx)
{
    int count = 0;

    for (int64_t k = 0; k < n; k++)
        for (int64_t i = 0; i < r[k].n; i++) {
            int at = 0;

            while (at < count && ctx[at] < r[k].row[i].ctx)
                at++;
            if ((at < count && ctx[at] == r[k].row[i].ctx) || count == MAX_CONTEXTS)
                continue;
            memmove(ctx + at + 1, ctx + at, (size_t)(count - at) * sizeof *ctx);
            ctx[at] = r[k].row[i].ctx;
            count++;
        }
    return count;
}

/* The scores at a context, or NULL where it was not measured. */
static const struct score *at_ctx(const struct result *r, int64_t ctx)
{
    for (int64_t i = 0; i < r->n; i++)
        if (r->row[i].ctx == ctx)
            return &r->row[i];
    return NULL;
}

/* Columns a terminal gives to a label: its characters. */
static int label_width(const char *s)
{
    return (int)utf8_chars(s, strlen(s));
}

/* A label padded to 'width' columns; printf would count bytes. */
static int put_label(struct buf *b, const char *label, int width, struct err *e)
{
    int rc = buf_add_clean(b, label, e);

    return rc < 0 ? rc : buf_printf(b, e, "%*s", width - label_width(label), "");
}

/* One row per result, one column per context; "-" where a result lacks the context. */
int results_table(struct buf *out, const struct result *r, int64_t n, struct err *e)
{
    int64_t ctx[MAX_CONTEXTS + 1];
    int columns = contexts(r, n, ctx), width = 10, rc;
    char text[CELL];

    for (int64_t k = 0; k < n; k++)
        width = label_width(r[k].of.label) > width ? label_width(r[k].of.label) : width;
    rc = put_label(out, "perplexity", width, e);
    for (int c = 0; c < columns && rc == 0; c++)
        rc = buf_printf(out, e, "  %10" PRId64, ctx[c]);
    for (int64_t k = 0; k < n && rc == 0; k++) {
        if ((rc = buf_add(out, "\n", 1, e)) == 0)
            rc = put_label(out, r[k].of.label, width, e);
        for (int c = 0; c < columns && rc == 0; c++) {
            const struct score *s = at_ctx(&r[k], ctx[c]);

            rc = buf_printf(out, e, "  %10s", s ? fmt_ppl(score_ppl(s), text) : "-");
        }
    }
    return rc < 0 ? rc : buf_add(out, "\n", 1, e);
}

/* Why results k and 0 should not be compared, or NULL. Step and number of windows are looked
 * at only for contexts that both have. */
const char *results_differ(const struct result *r, int64_t k)
{
    if (strcmp(r[k].protocol, r[0].protocol) != 0)
        return "another protocol";
    if (r[k].data_hash != r[0].data_hash || r[k].data_tokens != r[0].data_tokens)
        return "other data";
    if (r[k].joined != r[0].joined)
        return "documents joined in one and apart in the other";
    if (strcmp(r[k].keys, r[0].keys) != 0)
        return "other key tokens";
    if (strcmp(r[k].masks, r[0].masks) != 0)
        return "masked tokens treated otherwise";
    if ((r[k].mean_of > 1 || r[0].mean_of > 1) && r[k].mean_of != r[0].mean_of)
        return "another number of windows averaged together";
    for (int64_t i = 0; i < r[k].n; i++) {
        const struct score *s = at_ctx(r, r[k].row[i].ctx);

        if (s && (s->step != r[k].row[i].step || s->windows != r[k].row[i].windows))
            return "another choice of windows";
    }
    return NULL;
}

/* Fills the points of one line of a chart and returns how many. s NULL: perplexity by
 * context; else by position in the windows of s. */
static int64_t points(const struct result *r, const struct score *s, double *x, double *y)
{
    int64_t n = 0;

    if (!s) {
        for (int64_t i = 0; i < r->n; i++) {
            x[i] = (double)r->row[i].ctx;
            y[i] = score_ppl(&r->row[i]);
        }
        return r->n;
    }
    for (int b = 0; b < SCORE_BUCKETS; b++)
        if (s->bucket[b].n) {
            x[n] = exp2(b);
            y[n++] = exp(s->bucket[b].nll / (double)s->bucket[b].n);
        }
    return n;
}

int results_chart(struct buf *out, const char *path, const struct result_chart *h,
                  const struct result *r, int64_t n, struct err *e)
{
    /* One block of x and y for all lines, each with room for the longest possible. */
    int64_t lines = h->by_position ? r->n : n, each = SCORE_BUCKETS;
    struct plot_series *s = calloc((size_t)lines, sizeof *s);
    double *xy = calloc((size_t)(lines * each * 2), sizeof *xy);
    /* Labels of a chart by position; those of results have their own. */
    char (*name)[CELL] = calloc((size_t)lines, sizeof *name);
    struct plot p = { .title = h->title ? h->title : "perplexity",
                      .log2_x = true, .log_y = true,
                      .x_label = h->by_position ? "tokens before" : "context (tokens)",
                      .y_label = "perplexity", .series = s, .n_series = lines };
    int rc = s && xy && name ? 0 : err_set(e, E_SYS, "out of memory");

    /* points fills at most one value per context or per bucket. */
    _Static_assert((int)RESULT_ROWS <= (int)SCORE_BUCKETS, "room for every context");
    for (int64_t k = 0; k < lines && rc == 0; k++) {
        double *x = xy + k * each * 2, *y = x + each;

        s[k].x = x;
        s[k].y = y;
        s[k].n = points(&r[h->by_position ? 0 : k], h->by_position ? &r->row[k] : NULL, x, y);
        s[k].label = h->by_position ? name[k] : r[k].of.label;
        if (h->by_position)
            snprintf(name[k], CELL, "ctx %" PRId64, r->row[k].ctx);
    }
    if (rc == 0)
        rc = path ? plot_file(path, &p, e) : plot_text(out, &p, h->width, 14, h->utf8,
                                                       h->colour, e);
    free(s);
    free(xy);
    free(name);
    return rc;
}
