/* tools/info_stats.c - how much data there is, of what, and how long; see info.h. */
#include "tools/info.h"

#include "base/plot.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/manifest.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bin 0 holds documents without tokens, bin k > 0 those of 2^(k-1) to 2^k - 1. */
enum { BINS = 64, BAR = 32 };
/* Documents are counted in bins whose bounds are powers of two: lengths differ by factors of
 * thousands, and context lengths are powers of two themselves. */
struct stats {
    const struct info_options *o;
    const char *path;
    int64_t docs[BINS], tokens[BINS], all_docs, all_tokens, all_bytes, longest;
    json_t *splits;
};

/* The bin is the number of bits of n_ids: 1 is in bin 1, 2 and 3 in bin 2, 4 to 7 in bin 3. */
static void count_doc(struct stats *s, int64_t n_ids)
{
    int k = n_ids > 0 ? 64 - __builtin_clzll((unsigned long long)n_ids) : 0;

    s->docs[k]++;
    s->tokens[k] += n_ids;
    s->longest = n_ids > s->longest ? n_ids : s->longest;
}

static void set_int(json_t *o, const char *key, int64_t v)
{
    json_object_set_new(o, key, json_integer(v));
}

/* Four digits are enough for people, and print as they are. */
static void set_ratio(json_t *o, const char *key, int64_t a, int64_t b)
{
    if (b > 0)
        json_object_set_new(o, key, json_real(round(1e4 * (double)a / (double)b) / 1e4));
}

/* The counts that all levels have: the whole, a split and a source. A ratio without
 * a divisor is left out. */
static void set_counts(json_t *o, int64_t docs, int64_t tokens, int64_t bytes)
{
    set_int(o, "documents", docs);
    set_int(o, "tokens", tokens);
    set_int(o, "text_bytes", bytes);
    set_ratio(o, "tokens_per_byte", tokens, bytes);
    set_ratio(o, "tokens_per_document", tokens, docs);
}

static json_t *named(const char *name, int64_t docs, int64_t tokens, int64_t bytes)
{
    json_t *o = json_pack("{ss}", "name", name);

    set_counts(o, docs, tokens, bytes);
    return o;
}

/* name NULL: what has no splits. */
static void add_split(struct stats *s, const char *name, int64_t docs, int64_t tokens,
                      int64_t bytes, const struct source_table *t)
{
    json_t *o = named(name ? name : "(all)", docs, tokens, bytes), *list = json_array();

    for (int64_t i = 0; i < t->n; i++)
        json_array_append_new(list, named(t->v[i].name, t->v[i].docs, t->v[i].tokens,
                                          t->v[i].text_bytes));
    json_object_set_new(o, "sources", list);
    json_array_append_new(s->splits, o);
    s->all_docs += docs;
    s->all_tokens += tokens;
    s->all_bytes += bytes;
}

/* All documents of an opened data set; t, if not NULL, gets their sources. */
static int count_docs(struct stats *s, struct dataset *d, struct source_table *t,
                      int64_t *text_bytes, struct err *e)
{
    struct dataset_doc doc;
    int64_t at;
    int rc = 0;

    for (int64_t i = 0; i < dataset_docs(d) && rc == 0; i++) {
        if ((rc = dataset_doc(d, i, &doc, e)) < 0)
            break;
        count_doc(s, doc.n_ids);
        if (!t)
            continue;
        *text_bytes += doc.text_bytes;
        at = source_add(t, doc.source, 1, doc.n_ids, doc.text_bytes, e);
        rc = at < 0 ? (int)at : 0;
    }
    return rc;
}

/* A data set of shards: counts come from the manifest, lengths from each document. */
static int stats_shards(struct stats *s, const char *folder, struct err *e)
{
    struct manifest *m = NULL;
    struct dataset *d = NULL;
    int rc = manifest_read(&m, folder, e);

    if (rc == 0 && s->o->split && !manifest_find(m, s->o->split)) {
        /* its message lists those that there are */
        rc = dataset_open(&d, folder, s->o->split, 0, e);
        dataset_close(d);
    }
    for (int i = 0; rc == 0 && i < m->n_splits; i++) {
        const struct manifest_split *p = &m->splits[i];
        if (s->o->split && strcmp(s->o->split, p->name) != 0)
            continue;
        if ((rc = dataset_open(&d, folder, p->name, 0, e)) < 0)
            break;
        /* The counts by source are in the manifest, so no table is asked for. */
        rc = count_docs(s, d, NULL, NULL, e);
        add_split(s, p->name, p->docs, p->tokens, p->text_bytes, &p->sources);
        dataset_close(d);
    }
    manifest_free(m);
    return rc;
}

/* A single shard or raw ids: there is no manifest, so sources are added up here. */
static int stats_file(struct stats *s, struct err *e)
{
    struct source_table t = { 0 };
    struct dataset *d = NULL;
    int64_t bytes = 0;
    int rc = dataset_open_raw(&d, s->path, NULL, 0, e);

    if (rc == 0)
        rc = count_docs(s, d, &t, &bytes, e);
    if (rc == 0)
        add_split(s, NULL, dataset_docs(d), dataset_tokens(d), bytes, &t);
    source_free(&t);
    dataset_close(d);
    return rc;
}

/* A stream can only be read once, from its beginning to its end. */
static int stats_stream(struct stats *s, struct err *e)
{
    bool from_stdin = strcmp(s->path, "-") == 0;
    int64_t docs = 0, tokens = 0, bytes = 0;
    struct source_table t = { 0 };
    struct stream_reader *r = NULL;
    struct token_doc d;
    int fd = from_stdin ? STDIN_FILENO : open(s->path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", s->path);
    rc = stream_open(&r, fd, from_stdin ? "standard input" : s->path, e);
    /* 1 is a document, 0 the end, and less than 0 an error. */
    while (rc == 0 && (rc = stream_read(r, &d, e)) == 1) {
        int64_t at = source_add(&t, d.source, 1, d.n_ids, d.text_bytes, e);
        rc = at < 0 ? (int)at : 0;
        count_doc(s, d.n_ids);
        docs++;
        tokens += d.n_ids;
        bytes += d.text_bytes;
    }
    if (rc == 0)
        add_split(s, NULL, docs, tokens, bytes, &t);
    source_free(&t);
    stream_close(r);
    if (!from_stdin)
        close(fd);
    return rc;
}

/* The fewest tokens of a document in bin k. */
static int64_t bin_from(int k) { return k ? (int64_t)1 << (k - 1) : 0; }

static json_t *bins_json(const struct stats *s)
{
    json_t *list = json_array();

    for (int k = 0; k < BINS; k++)
        if (s->docs[k])
            json_array_append_new(list, json_pack(
                "{sI sI sI sI}", "from", (json_int_t)bin_from(k), "to",
                (json_int_t)(k ? 2 * bin_from(k) - 1 : 0), "documents",
                (json_int_t)s->docs[k], "tokens", (json_int_t)s->tokens[k]));
    return list;
}

/* A bar of part (0 to 1) of BAR cells, in eighths where the terminal has them. */
static void bar(const struct stats *s, double part, FILE *f)
{
    static const char *const eighth[8] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
    int n = (int)lround(part * BAR * 8);

    if (part <= 0)
        return;
    n = n == 0 ? 1 : n; /* something is there */
    fputs(s->o->colour ? "  \033[36m" : "  ", f);
    /* In ASCII, which has no parts of a cell, one that is begun counts as whole. */
    for (int i = 0; i < (s->o->utf8 ? n / 8 : (n + 7) / 8); i++)
        fputs(s->o->utf8 ? "█" : "#", f);
    fputs(s->o->utf8 ? eighth[n % 8] : "", f);
    fputs(s->o->colour ? "\033[0m" : "", f);
}

/* A line for each bin from the first to the last that holds documents; the longest bar is the
 * one with the most of them. The share on the left is of tokens. */
static void print_bins(const struct stats *s, FILE *f)
{
    int first = 0, last = BINS - 1;
    int64_t most = 1;

    while (first < BINS - 1 && !s->docs[first])
        first++;
    while (last > 0 && !s->docs[last])
        last--;
    for (int k = first; k <= last; k++)
        most = s->docs[k] > most ? s->docs[k] : most;
    if (first <= last)
        fprintf(f, "  %-21s %12s %8s\n", "tokens a document", "documents", "tokens");
    for (int k = first; k <= last; k++) {
        char from[24], below[24], range[64];
        fmt_tokens((double)bin_from(k), from, sizeof from);
        /* Bin 0 is "0 to below 1". */
        fmt_tokens((double)(k ? 2 * bin_from(k) : 1), below, sizeof below);
        snprintf(range, sizeof range, "%s to below %s", from, below);
        fprintf(f, "  %-21s %12lld %7.1f%%", range, (long long)s->docs[k],
                s->all_tokens ? 100.0 * (double)s->tokens[k] / (double)s->all_tokens : 0.0);
        bar(s, (double)s->docs[k] / (double)most, f);
        fputc('\n', f);
    }
}

/* Shares, so that documents and their tokens go on one axis. */
static int draw(const struct stats *s, struct err *e)
{
    double x[BINS], docs[BINS], tokens[BINS];
    struct plot_series series[2] = { { "documents", x, docs, 0 }, { "tokens", x, tokens, 0 } };
    struct plot p = { .title = s->path, .x_label = "tokens a document, from",
                      .y_label = "per cent", .log2_x = true, .bars = true,
                      .series = series, .n_series = 2 };
    int64_t n = 0;
    int last = BINS - 1;

    while (last > 0 && !s->docs[last])
        last--;
    for (int k = 1; k <= last; k++) /* documents without tokens have no place on this axis */
        /* Bins before the first one with documents are left out; empty ones in between stay. */
        if (s->docs[k] || n) {
            x[n] = (double)bin_from(k);
            docs[n] = 100.0 * (double)s->docs[k] / (double)s->all_docs;
            tokens[n++] = 100.0 * (double)s->tokens[k] / (double)s->all_tokens;
        }
    series[0].n = series[1].n = n;
    return plot_file(s->o->plot, &p, e);
}

/* Both forms come from one tree of values, so that people and programs see the same. */
static int show(struct stats *s, const char *form, FILE *f, struct err *e)
{
    json_t *o = json_pack("{ss ss}", "path", s->path, "form", form);
    char *text;

    set_counts(o, s->all_docs, s->all_tokens, s->all_bytes);
    set_int(o, "longest", s->longest);
    json_object_set(o, "splits", s->splits);
    if (!s->o->json) {
        info_print(o, f);
        print_bins(s, f);
    } else {
        json_object_set_new(o, "lengths", bins_json(s));
        if ((text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(10) | info_json_flags())))
            fprintf(f, "%s\n", text);
        free(text);
    }
    json_decref(o);
    return ferror(f) ? err_sys(e, E_IO, "cannot write the statistics") : 0;
}

int info_stats(const char *path, enum info_kind kind, const struct info_options *o, FILE *f,
               struct err *e)
{
    static const char *const form[] = { "shards", "shard", "token stream", "raw u16" };
    struct stats s = { .o = o, .path = path };
    char *folder = NULL;
    /* A missing gnuplot is found now, not after all was counted. */
    int rc = o->plot ? plot_check(e) : 0;

    if (rc < 0)
        return rc;
    if (kind > INFO_RAW) {
        err_set(e, E_USAGE, "'%s' holds no documents", path);
        return err_hint(e, "--stats is for shards and token streams");
    }
    s.splits = json_array();
    if (kind == INFO_SHARDS && !(folder = info_folder(path)))
        rc = err_set(e, E_SYS, "out of memory");
    else if (kind == INFO_SHARDS)
        rc = stats_shards(&s, folder, e);
    else
        rc = kind == INFO_STREAM ? stats_stream(&s, e) : stats_file(&s, e);
    if (rc == 0)
        rc = show(&s, form[kind], f, e);
    if (rc == 0 && o->plot)
        rc = draw(&s, e);
    json_decref(s.splits);
    free(folder);
    return rc;
}
