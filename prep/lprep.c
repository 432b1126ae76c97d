/* prep/lprep.c - documents in, a token stream (or JSON lines) out: the options and the wiring. */
#include "base/file.h"
#include "base/log.h"
#include "base/opt_rows.h"
#include "base/jsonscan.h"
#include "prep/part.h"
#include "prep/prep.h"
#include "prep/resume.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct args {
    const char *tokenizer, *output, *stats, *part, *skipped, *removed;
    bool quiet, verbose, json, force, mpi;
    int format, on_error, utf8, prompt, engine;
    int64_t threads, max_record;
    struct opt_list include, where, where_not, sample, eval;
    int dedup;
    int64_t dedup_bytes, bands, rows, words, eval_words;
    const char *resume;
    const struct opt *opts;
    struct prep_opts prep;
};

/* Groups of three digits: 4,712,345. */
static const char *grouped(int64_t v, char out[32])
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)v), k = 0;

    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            out[k++] = ',';
        out[k++] = digits[i];
    }
    out[k] = '\0';
    return out;
}

struct progress {
    double start_s, from_s, from; /* from: the share that was done at from_s */
    bool text;
};

static void tick(void *ctx, const struct prep_counts *c, const struct prep_load *load)
{
    struct progress *p = ctx;
    char docs[32], tokens[32], size[16], rate[16], left[16], share[40] = "";
    double s, part = c->read.bytes ? (double)c->read.bytes_done / (double)c->read.bytes : 0;

    if (!log_progress_due())
        return;
    if ((s = now_s() - p->start_s) < 1e-3)
        return;
    if (p->from_s == 0) {
        p->from_s = s;
        p->from = part;
    } else if (part > p->from) {
        fmt_duration((s - p->from_s) * (1 - part) / (part - p->from), left, sizeof left);
        snprintf(share, sizeof share, "%3.0f%%, %s left, ", 100 * part, left);
    }
    log_progress("%sfile %lld of %lld, %s documents, %s%s%s of text, %s/s; read %.0f%%, encode "
                 "%.0f%%, write %.0f%%", share,
                 (long long)(c->read.files_done < c->read.files ? c->read.files_done + 1
                                                                : c->read.files),
                 (long long)c->read.files, grouped(c->all.docs, docs),
                 p->text ? "" : grouped(c->all.tokens, tokens), p->text ? "" : " tokens, ",
                 fmt_bytes((double)c->all.bytes, size, sizeof size),
                 fmt_bytes((double)c->all.bytes / s, rate, sizeof rate), 100 * load->read_s / s,
                 100 * load->encode_s / (s * load->encoders), 100 * load->write_s / s);
}

/* ctx: the file of what was skipped, or NULL; a line each, without the remedy. */
static void note(void *ctx, bool warning, const char *text)
{
    if (warning && ctx)
        fprintf(ctx, "%.*s\n", (int)strcspn(text, "\n"), text);
    if (warning)
        log_warn("left out: %s", text);
    else
        log_info("%s", text);
}

static void tell_dropped(const struct prep_counts *c)
{
    char text[400] = "";
    size_t used = 0;

    for (int k = 1; k < DROPS; k++)
        if (c->all.dropped[k])
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld %s",
                                     used ? ", " : "", (long long)c->all.dropped[k],
                                     drop_words((enum drop)k));
    if (c->by.bad_files)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld bad files",
                                 used ? ", " : "", (long long)c->by.bad_files);
    if (used)
        log_warn("left out: %s", text);
}

/* What was not read at all, and why there is no document where there is none. */
static void tell_passed_over(const struct prep_counts *c)
{
    int64_t left_out = c->by.bad_files;

    if (c->read.passed_over)
        log_info("passed over %lld archive members that are no text by name",
                 (long long)c->read.passed_over);
    if (c->read.in_folders)
        log_info("passed over %lld files that are no text by name ('%s'%s)",
                 (long long)c->read.in_folders, c->read.first,
                 c->read.in_folders > 1 ? ", ..." : "");
    if (c->all.docs > 0)
        return;
    for (int k = 1; k < DROPS; k++)
        left_out += c->all.dropped[k];
    log_warn("no documents: %s", left_out ? "all were left out"
                                 : c->read.passed_over + c->read.in_folders
                                     ? "nothing is text by its name; --include GLOB takes more"
                                     : "the input has none");
}

/* Of --dedup: how likely documents that are no copies were taken for copies. */
static void tell_false_copies(const struct prep_opts *o, const struct prep_counts *c)
{
    double expected = (double)c->by.false_copies / TALLY_CHANCE;
    int keys = o->near ? 1 + o->near->bands : 1;
    char size[16], lost[32];

    if (expected >= 10)
        grouped((int64_t)(expected + 0.5), lost);
    else
        snprintf(lost, sizeof lost, "%.2g", expected);
    if (c->by.false_copies >= TALLY_MANY_FALSE && dedup_over(o->seen) > 0)
        log_warn("about %s documents that are no copies were left out as such: --dedup-memory "
                 "%s would have been exact", lost,
                 fmt_bytes((double)dedup_exact_bytes(o->seen), size, sizeof size));
    else if (c->by.false_copies >= TALLY_MANY_FALSE)
        log_warn("about %s documents that are no copies were left out as such: give more "
                 "--near-rows", lost);
    if (dedup_over(o->seen) > 0)
        log_info("--dedup-memory was full: false-duplicate probability of a document %.2g (%d "
                 "key%s); %s such documents expected in this run", dedup_error(o->seen, keys),
                 keys, keys == 1 ? "" : "s", lost);
}

static void sum_up(const struct prep_counts *c, const struct progress *p)
{
    char docs[32], tokens[32], masked[32], size[16], rate[16], took[16];
    double s = now_s() - p->start_s;

    log_progress_end();
    tell_dropped(c);
    tell_passed_over(c);
    fmt_bytes((double)c->all.bytes, size, sizeof size);
    fmt_bytes((double)c->all.bytes / (s > 0.001 ? s : 0.001), rate, sizeof rate);
    fmt_duration(s, took, sizeof took);
    grouped(c->all.docs, docs);
    if (p->text)
        log_info("%s documents, %s of text in %s (%s/s)", docs, size, took, rate);
    else
        log_info("%s documents, %s tokens (%s masked), %s of text in %s (%s/s)", docs,
                 grouped(c->all.tokens, tokens), grouped(c->all.masked, masked), size, took,
                 rate);
}

static int add_source(struct buf *b, const struct tally_source *s, struct err *e)
{
    return buf_printf(b, e,
                      "\"documents\": %lld, \"tokens\": %lld, \"masked\": %lld, \"bytes\": %lld, "
                      "\"words\": %lld",
                      (long long)s->docs, (long long)s->tokens, (long long)s->masked,
                      (long long)s->bytes, (long long)s->words);
}

/* ", "left_out": {...}": all reasons, or only those there were. */
static int add_dropped(struct buf *b, const int64_t *dropped, bool all, int64_t bad_files,
                       struct err *e)
{
    const char *sep = "";
    int rc = 0;

    for (int k = 1; k < DROPS && rc == 0; k++)
        if (all || dropped[k]) {
            rc = buf_printf(b, e, "%s\"%s\": %lld", *sep ? sep : ", \"left_out\": {",
                            drop_name((enum drop)k), (long long)dropped[k]);
            sep = ", ";
        }
    if (rc == 0 && all)
        rc = buf_printf(b, e, ", \"bad_files\": %lld", (long long)bad_files);
    return rc == 0 && *sep ? buf_printf(b, e, "}") : rc;
}

/* The counts as one JSON object, on one line or, for people, on one a source. */
static int add_counts(struct buf *b, const struct prep_counts *c, bool one_line, struct err *e)
{
    const char *nl = one_line ? " " : "\n ";
    int rc = buf_printf(b, e, "{");

    if (rc == 0)
        rc = add_source(b, &c->all, e);
    if (rc == 0)
        rc = buf_printf(b, e, ",%s\"files\": %lld", nl, (long long)c->read.files);
    if (rc == 0)
        rc = add_dropped(b, c->all.dropped, true, c->by.bad_files, e);
    if (rc == 0 && c->by.false_copies + c->by.false_copy_chance > 0)
        rc = buf_printf(b, e, ",%s\"false_duplicates\": {\"probability\": %.3g, \"expected\": "
                        "%.3g}", nl, (double)c->by.false_copy_chance / TALLY_CHANCE,
                        (double)c->by.false_copies / TALLY_CHANCE);
    if (rc == 0)
        rc = buf_printf(b, e, ",%s\"sources\": {", nl);
    for (int64_t i = 0; i < c->by.n && rc == 0; i++) {
        const struct tally_source *s = &c->by.v[i];
        if ((rc = buf_printf(b, e, "%s%s%s", i ? "," : "", i || !one_line ? nl : "",
                             one_line ? "" : " ")) == 0 &&
            (rc = json_quote(b, s->name, strlen(s->name), e)) == 0 &&
            (rc = buf_printf(b, e, ": {")) == 0 && (rc = add_source(b, s, e)) == 0 &&
            (rc = add_dropped(b, s->dropped, false, 0, e)) == 0)
            rc = buf_printf(b, e, "}");
    }
    return rc == 0 ? buf_printf(b, e, "%s}}\n", one_line ? "" : nl) : rc;
}

static int write_stats(const char *path, const struct prep_counts *c, struct err *e)
{
    struct buf b = { 0 };
    int rc = add_counts(&b, c, false, e);

    if (rc == 0)
        rc = file_replace(path, b.p, b.len, e);
    buf_free(&b);
    return rc;
}

/* On standard output, unless that is where the documents go. */
static int print_json(const struct args *a, const struct prep_counts *c, struct err *e)
{
    int fd = a->output ? STDOUT_FILENO : STDERR_FILENO;
    struct buf b = { 0 };
    int rc = add_counts(&b, c, true, e);

    if (rc == 0)
        rc = file_write_all(fd, b.p, b.len, a->output ? "standard output" : "standard error",
                            e);
    buf_free(&b);
    return rc;
}

static int check(const struct args *a, struct err *e)
{
    if (!a->tokenizer && !a->prep.text) {
        err_set(e, E_USAGE, "no tokenizer given");
        return err_hint(e, "-t tokenizer.model makes tokens; --text writes JSON lines instead");
    }
    if (a->prep.text && (a->prep.min_tokens || a->prep.max_tokens))
        return err_set(e, E_USAGE, "--text makes no tokens for --min-tokens and --max-tokens");
    if (a->prep.text && a->resume)
        return err_set(e, E_USAGE, "--text makes no stream to --resume");
    if (a->output && !a->force && path_is_file(a->output)) {
        err_set(e, E_CREATE, "'%s' exists", a->output);
        return err_hint(e, "-f replaces it");
    }
    if (!a->prep.text && !a->output && isatty(STDOUT_FILENO)) {
        err_set(e, E_USAGE, "a token stream is not for a terminal");
        return err_hint(e, "lprep ... | lpack -o shards/, -o FILE, or --text to see the documents");
    }
    return 0;
}

static int add_filters(const struct args *a, struct filter *f, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < a->where.n && rc == 0; i++)
        rc = filter_add_where(f, a->where.v[i], false, e);
    for (int i = 0; i < a->where_not.n && rc == 0; i++)
        rc = filter_add_where(f, a->where_not.v[i], true, e);
    for (int i = 0; i < a->sample.n && rc == 0; i++)
        rc = filter_add_rate(f, a->sample.v[i], e);
    return rc;
}

static int add_eval(void *ctx, const struct doc *d, struct err *e)
{
    return contam_add(ctx, d, e);
}

/* What was seen, and what must not be: near and the two sets live until the run is over. */
static int open_sets(const struct args *a, struct prep_opts *o, struct minhash *near,
                     struct contam **contam, struct err *e)
{
    struct feed_opts plain = { .max_record_bytes = (size_t)a->max_record,
                               .doc = { .replace = true } };
    int rc = 0;

    if (a->removed && (rc = removed_open(&o->removed, a->removed, a->resume != NULL, e)) < 0)
        return rc;
    if (a->dedup && (rc = dedup_open(&o->seen, (size_t)a->dedup_bytes, a->removed != NULL, e)) < 0)
        return rc;
    if (a->dedup == 2) {
        minhash_init(near, (int)a->bands, (int)a->rows, (int)a->words);
        o->near = near;
    }
    if (a->eval.n == 0)
        return 0;
    if ((rc = contam_open(contam, (int)a->eval_words, e)) < 0)
        return rc;
    o->contam = *contam;
    if ((rc = feed_each(a->eval.v, a->eval.n, &plain, add_eval, *contam, e)) < 0)
        return rc < 0 ? err_within(e, "--decontaminate") : rc;
    if (contam_grams(*contam) == 0)
        log_warn("no text of --decontaminate has %lld words", (long long)a->eval_words);
    return 0;
}

static int open_skipped(const struct args *a, struct prep_opts *o, struct err *e)
{
    if (a->skipped && !(o->feed.note_ctx = fopen(a->skipped, a->resume ? "ae" : "we")))
        return err_sys(e, E_CREATE, "cannot create '%s'", a->skipped);
    if (a->skipped)
        setvbuf(o->feed.note_ctx, NULL, _IOLBF, 0); /* there before the mark that it is done */
    return 0;
}

static int close_skipped(const struct args *a, const struct prep_opts *o, int rc, struct err *e)
{
    bool bad = o->feed.note_ctx && ferror((FILE *)o->feed.note_ctx);

    if (o->feed.note_ctx && (fclose(o->feed.note_ctx) != 0 || bad) && rc == 0)
        return err_sys(e, E_IO, "cannot write '%s'", a->skipped);
    return rc;
}

/* All documents, to standard output or into the file that takes its place when it is whole. */
static int prep_out(const struct args *a, const char *const *operands, int n,
                    const struct tokenizer *t, struct prep_counts *c, struct err *e)
{
    struct file_out out;
    int rc;

    if (!a->output)
        return prep_run(operands, n, &a->prep, t, STDOUT_FILENO, "standard output", c, e);
    if ((rc = file_out_open(&out, a->output, e)) < 0)
        return rc;
    if ((rc = prep_run(operands, n, &a->prep, t, out.fd, a->output, c, e)) == 0)
        return file_out_publish(&out, e);
    file_out_abandon(&out);
    return rc;
}

/* The same without what an earlier run of this command has done. The options named here leave
 * the documents as they are, or are seen to otherwise. */
static int prep_rest(struct args *a, const char *const *operands, int n,
                     const struct tokenizer *t, struct prep_counts *c, struct err *e)
{
    struct resume r;
    int rc = resume_open(&r, a->resume, a->opts, " tokenizer output force part mpi skipped removed "
                         "engine threads resume stats json quiet verbose ", &a->eval, e);

    if (rc == 0 && r.files > 0)
        log_info("goes on behind %lld done input%s", (long long)r.files,
                 r.files == 1 ? "" : "s");
    a->prep.resume = &r;
    if (rc == 0)
        rc = prep_out(a, operands, n, t, c, e);
    a->prep.resume = NULL;
    resume_close(&r);
    return rc;
}

static int run(struct args *a, const char *const *operands, int n, struct err *e)
{
    static const enum record_mode mode[] = { RECORDS_AUTO, RECORDS_TEXT, RECORDS_JSON,
                                             RECORDS_LINES };
    struct progress progress = { .start_s = now_s(), .text = a->prep.text };
    struct prep_counts c = { 0 };
    struct tokenizer *t = NULL;
    struct prep_opts *o = &a->prep;
    struct minhash near;
    struct contam *contam = NULL;
    int rc;

    o->threads = (int)a->threads;
    o->prompt = a->prompt ? PROMPT_ALPACA : PROMPT_LLAMA2;
    o->tick = tick;
    o->tick_ctx = &progress;
    o->feed.include = a->include.v;
    o->feed.n_include = a->include.n;
    o->feed.mode = mode[a->format];
    o->feed.max_record_bytes = (size_t)a->max_record;
    o->feed.skip_errors = a->on_error == 1;
    o->feed.doc.replace = a->utf8 == 1;
    o->feed.note = note;
    if (a->output && strcmp(a->output, "-") == 0)
        a->output = NULL;
    if ((rc = check(a, e)) < 0)
        return rc;
    if ((rc = add_filters(a, &o->feed.filter, e)) < 0)
        return rc;
    if (a->tokenizer && !o->text && (rc = tokenizer_open(&t, a->tokenizer, e)) < 0)
        return rc;
    if (t && a->engine == 1 && (rc = tokenizer_use(t, TOKENIZER_SENTENCEPIECE, e)) < 0) {
        tokenizer_close(t);
        return rc;
    }
    if (n == 0)
        log_debug("reading standard input");
    if ((rc = open_skipped(a, o, e)) == 0 && (rc = open_sets(a, o, &near, &contam, e)) == 0)
        rc = a->resume ? prep_rest(a, operands, n, t, &c, e)
                       : prep_out(a, operands, n, t, &c, e);
    if (rc == 0)
        sum_up(&c, &progress);
    for (int i = 0; i < o->feed.filter.n_rates && rc == 0; i++)
        if (!filter_rate_meets(&o->feed.filter.rate[i], &c.by))
            log_warn("--sample: no document is of source '%s'", o->feed.filter.rate[i].glob);
    if (rc == 0 && o->seen)
        tell_false_copies(o, &c);
    if (rc < 0)
        log_progress_end();
    rc = removed_close(o->removed, close_skipped(a, o, rc, e), e);
    if (rc == 0 && a->stats)
        rc = write_stats(a->stats, &c, e);
    if (rc == 0 && a->json)
        rc = print_json(a, &c, e);
    prep_counts_free(&c);
    filter_free(&o->feed.filter);
    dedup_close(o->seen);
    contam_close(contam);
    tokenizer_close(t);
    return rc;
}

static int run_part(struct args *a, const char *const *operands, int n, struct err *e)
{
    struct part_files f = { 0 };
    struct part p;
    int rc = 0;

    if (a->mpi && a->part)
        return err_set(e, E_USAGE, "--mpi is --part auto: give one of them");
    if (a->mpi)
        a->part = "auto";
    if (a->part)
        rc = part_parse(&p, a->part, e);
    if (rc < 0 || !a->part)
        return rc < 0 ? rc : run(a, operands, n, e);
    rc = part_take(&f, &p, operands, n, a->include.v, a->include.n, e);
    if (rc == 0)
        log_info("part %lld of %lld: %lld of %lld files", (long long)p.k + 1, (long long)p.n,
                 (long long)f.n, (long long)f.of);
    if (rc == 0)
        rc = run(a, (const char *const *)f.path, (int)f.n, e);
    part_free(&f);
    return rc;
}

int main(int argc, char **argv)
{
    struct args a = { .max_record = 16 << 20, .dedup_bytes = 256 << 20, .bands = 14,
                      .rows = 8, .words = 5, .eval_words = 13 };
    const struct opt opts[] = {
        { 't', "tokenizer", "FILE", OPT_STR, &a.tokenizer, 0, 0,
          "SentencePiece model that makes the tokens" },
        { 0, "text", NULL, OPT_FLAG, &a.prep.text, 0, 0,
          "write documents as JSON lines, not tokens" },
        { 'o', "output", "FILE", OPT_STR, &a.output, 0, 0,
          "write there, whole or not at all [-]" },
        ROW_FORCE(&a.force, "replace the output file"),
        OPT_HEADING("which documents"),
        { 0, "include", "GLOB", OPT_LIST, &a.include, 0, 0,
          "take such names from folders and archives" },
        { 0, "part", "K/N|auto", OPT_STR, &a.part, 0, 0,
          "only the K-th of N parts of the files [all]" },
        { 0, "mpi", NULL, OPT_FLAG, &a.mpi, 0, 0, "the rank's part, under mpirun or srun" },
        { 0, "format", "auto|text|json|lines", OPT_ENUM, &a.format, 0, 0,
          "what files hold, whatever their names [auto]" },
        { 0, "field", "NAME", OPT_STR, &a.prep.feed.doc.field, 0, 0,
          "key that holds the text [by schema]" },
        { 0, "source", "NAME", OPT_STR, &a.prep.feed.doc.source, 0, 0,
          "source of all documents [by schema]" },
        { 0, "min-chars", "N", OPT_I64, &a.prep.feed.filter.min_chars, 0, 1e15,
          "leave out documents of fewer characters [0]" },
        { 0, "max-chars", "N", OPT_I64, &a.prep.feed.filter.max_chars, 0, 1e15,
          "leave out documents of more, 0: none [0]" },
        { 0, "min-tokens", "N", OPT_TOKENS, &a.prep.min_tokens, 0, 1e15,
          "leave out documents of fewer tokens [0]" },
        { 0, "max-tokens", "N", OPT_TOKENS, &a.prep.max_tokens, 0, 1e15,
          "leave out documents of more, 0: none [0]" },
        { 0, "language", "LIST", OPT_STR, &a.prep.feed.filter.languages, 0, 0,
          "take rows whose language is one of these" },
        { 0, "where", "KEY=REGEX", OPT_LIST, &a.where, 0, 0,
          "take rows whose key matches: meta.url=org" },
        { 0, "where-not", "KEY=REGEX", OPT_LIST, &a.where_not, 0, 0,
          "leave out rows whose key matches" },
        { 0, "sample", "SOURCE=RATE", OPT_LIST, &a.sample, 0, 0,
          "take that share of a source, chosen by text" },
        ROW_SEED(&a.prep.feed.filter.seed, OPT_RESULT,
                 "another seed, another choice by --sample [0]"),
        { 0, "max-docs", "N", OPT_I64, &a.prep.feed.max_docs, 0, 1e15,
          "stop after N documents, 0: all [0]" },
        { 0, "max-record", "SIZE", OPT_BYTES, &a.max_record, 1024, (double)((int64_t)1 << 30),
          "longest text file or row [16m]" },
        { 0, "on-error", "stop|skip", OPT_ENUM, &a.on_error, 0, 0,
          "at a bad document or file [stop]" },
        { 0, "skipped", "FILE", OPT_STR, &a.skipped, 0, 0,
          "write there, a line each, what was skipped" },
        { 0, "utf8", "strict|replace", OPT_ENUM, &a.utf8, 0, 0,
          "invalid UTF-8 is bad, or becomes U+FFFD [strict]" },
        OPT_HEADING("copies"),
        { 0, "dedup", "off|exact|near", OPT_ENUM, &a.dedup, 0, 0,
          "leave out copies of documents before [off]" },
        { 0, "dedup-memory", "SIZE", OPT_BYTES, &a.dedup_bytes, 65536, 1e13,
          "exact up to this size, approximate beyond [256m]" },
        { 0, "removed", "FILE", OPT_STR, &a.removed, 0, 0,
          "list what was left out, and as a copy of what" },
        { 0, "near-bands", "N", OPT_I64, &a.bands, 1, MINHASH_BANDS_MAX,
          "MinHash: one equal band of N is a near copy [14]" },
        { 0, "near-rows", "N", OPT_I64, &a.rows, 1, 16, "hashes in a band [8]" },
        { 0, "near-words", "N", OPT_I64, &a.words, 1, 32, "words in an n-gram [5]" },
        { 0, "decontaminate", "FILE", OPT_LIST, &a.eval, 0, 0,
          "leave out what shares an n-gram with this text" },
        { 0, "contam-words", "N", OPT_I64, &a.eval_words, 1, 32, "words in that n-gram [13]" },
        OPT_HEADING("tokens"),
        { 0, "add-bos", NULL, OPT_FLAG, &a.prep.add_bos, 0, 0, "begin documents with BOS" },
        { 0, "no-eos", NULL, OPT_FLAG, &a.prep.no_eos, 0, 0, "do not end documents with EOS" },
        { 0, "prompt", "llama2|alpaca", OPT_ENUM, &a.prompt, 0, 0,
          "template of instructions [llama2]" },
        { 0, "engine", "own|sentencepiece", OPT_ENUM, &a.engine, 0, 0,
          "who makes the tokens, which are the same [own]" },
        OPT_HEADING("running"),
        ROW_THREADS(&a.threads),
        { 0, "resume", "DIR", OPT_STR, &a.resume, 0, 0,
          "leave out what lpack -o DIR has of this run" },
        { 0, "stats", "FILE", OPT_STR, &a.stats, 0, 0, "write the counts there as JSON" },
        ROW_JSON(&a.json, "print the counts as JSON, on stderr without -o"),
        ROW_QUIET(&a.quiet, "warnings only"),
        ROW_VERBOSE(&a.verbose, "say more"),
        OPT_END
    };
    const struct cmd cmd = {
        "lprep", "-t tokenizer.model [options] [file|folder|glob|- ...]",
        "Turns text, JSON and archives of them into a token stream on standard output.",
        "  lprep -t tokenizer.model pg19/validation | lpack > pg19.val\n"
        "  lprep -t tokenizer.model 'redpajama/*.jsonl.zst' | lpack -o shards/\n"
        "  lprep --text books.tar.gz | grep -i whale | lprep -t tokenizer.model | lpack -o w/\n",
        opts
    };
    struct err e = { 0 };
    bool done;
    int n = opt_parse(&cmd, argc, argv, &done, &e);

    a.opts = opts;
    log_init("lprep", a.quiet ? -1 : a.verbose ? 1 : 0);
    if (n < 0 || done)
        return cmd_exit(&cmd, n, &e);
    return cmd_exit(&cmd, run_part(&a, (const char *const *)argv + 1, n, &e), &e);
}
