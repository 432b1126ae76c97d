/* prep/lprep.c - documents in, a token stream (or JSON lines) out: the wiring and the report. */
#include "base/file.h"
#include "base/jsonscan.h"
#include "base/log.h"
#include "prep/lprep_options.h"
#include "prep/part.h"
#include "prep/resume.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

/* When the run began, and where reading stood when it was first shown. */
struct progress {
    double start_s, from_s, from; /* from: the share that was done at from_s */
    bool text;
};

/* Called after every batch. The time left follows from the share that was read since the
 * first line was shown, because a resumed run begins with a part that cost no time. */
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

/* The file of --skipped gets a line each, without the remedy. ctx: struct args. */
static int note(void *ctx, bool warning, const char *text, struct err *e)
{
    const struct args *a = ctx;

    if (warning)
        log_warn("left out: %s", text);
    else
        log_info("%s", text);
    if (warning && a->skipped_file) {
        fprintf(a->skipped_file, "%.*s\n", (int)strcspn(text, "\n"), text);
        if (ferror(a->skipped_file))
            return err_sys(e, E_IO, "cannot write '%s'", a->skipped);
    }
    return 0;
}

/* One warning with the number of documents for each reason to leave them out. */
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
        log_info("skipped %lld archive members whose names are not of text",
                 (long long)c->read.passed_over);
    if (c->read.in_folders)
        log_info("skipped %lld files whose names are not of text ('%s'%s)",
                 (long long)c->read.in_folders, c->read.first,
                 c->read.in_folders > 1 ? ", ..." : "");
    if (c->all.docs > 0)
        return;
    for (int k = 1; k < DROPS; k++)
        left_out += c->all.dropped[k];
    /* Three causes: filters, names of files, or an empty input. */
    log_warn("no documents: %s", left_out ? "all were left out"
                                 : c->read.passed_over + c->read.in_folders
                                     ? "no file name is of text; --include GLOB takes others"
                                     : "the input has none");
}

/* Of --dedup: how likely documents that are no copies were taken for copies. */
static void tell_false_copies(const struct prep_opts *o, const struct prep_counts *c)
{
    /* Chances are summed as whole numbers of 1e-12,
     * so that the sum does not depend on the order. */
    double expected = (double)c->by.false_copies / TALLY_CHANCE;
    int keys = o->near ? 1 + o->near->bands : 1;
    char size[16], lost[32];

    if (expected >= 10)
        grouped((int64_t)(expected + 0.5), lost);
    else
        snprintf(lost, sizeof lost, "%.2g", expected);
    /* Where the table is full, memory is what helps; else bands of few rows agree by chance. */
    if (c->by.false_copies >= TALLY_MANY_FALSE && dedup_over(o->seen) > 0)
        log_warn("about %s documents were left out as copies by mistake: --dedup-memory "
                 "%s would be exact", lost,
                 fmt_bytes((double)dedup_exact_bytes(o->seen), size, sizeof size));
    else if (c->by.false_copies >= TALLY_MANY_FALSE)
        log_warn("about %s documents were left out as copies by mistake: raise "
                 "--near-rows", lost);
    if (dedup_over(o->seen) > 0)
        log_info("--dedup-memory was full: false-duplicate probability of a document %.2g (%d "
                 "key%s); %s such documents expected in this run", dedup_error(o->seen, keys),
                 keys, keys == 1 ? "" : "s", lost);
}

/* The last lines of a run: what was left out, and how much was made in what time. */
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

/* The counts of one source as members of a JSON object, without its braces. */
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
            /* sep is "" only before the first reason, which opens the object. */
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
    /* These are counts of --dedup: without it there is nothing to say. */
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

/* --stats: the file is replaced whole, and only once all documents are written. */
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

/* Options that cannot go together. All of this is found before any input is opened. */
static int check(const struct args *a, struct err *e)
{
    if (!a->tokenizer && !a->prep.text) {
        err_set(e, E_USAGE, "no tokenizer given");
        return err_hint(e, "-t MODEL-FOLDER or -t TOKENIZER makes tokens; --text writes JSON lines instead");
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
        err_set(e, E_USAGE, "will not write a token stream to the terminal");
        return err_hint(e, "lprep ... | lpack -o shards/, -o FILE, or --text to see the documents");
    }
    return 0;
}

/* The texts of --where, --where-not and --sample, parsed; a bad one ends the run at once. */
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
    /* Evaluation texts pass no filter, and bad UTF-8 in them is no error. */
    struct feed_opts plain = { .max_record_bytes = (size_t)a->max_record,
                               .doc = { .replace = true } };
    int rc = 0;

    if (a->removed && (rc = removed_open(&o->removed, a->removed, a->resume != NULL, e)) < 0)
        return rc;
    /* Only the list of --removed needs to know which document brought a key. */
    if (a->dedup && (rc = dedup_open(&o->seen, (size_t)a->dedup_bytes, a->removed != NULL, e)) < 0)
        return rc;
    if (a->dedup == 2) { /* near */
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

/* The file of --skipped. A resumed run adds to it. "e" is close-on-exec. */
static int open_skipped(struct args *a, struct err *e)
{
    if (a->skipped && !(a->skipped_file = fopen(a->skipped, a->resume ? "ae" : "we")))
        return err_sys(e, E_CREATE, "cannot create '%s'", a->skipped);
    if (a->skipped)
        setvbuf(a->skipped_file, NULL, _IOLBF, 0); /* there before the mark that it is done */
    return 0;
}

/* Of --skipped and --removed, unless they are closed. Returns rc, or E_IO where the run went well
 * but a list could not be written. */
static int close_lists(struct args *a, int rc, struct err *e)
{
    bool bad = a->skipped_file && ferror(a->skipped_file);

    if (a->skipped_file && (fclose(a->skipped_file) != 0 || bad) && rc == 0)
        rc = err_sys(e, E_IO, "cannot write '%s'", a->skipped);
    a->skipped_file = NULL;
    rc = removed_close(a->prep.removed, rc, e);
    a->prep.removed = NULL;
    return rc;
}

/* Before END leaves: whoever finds the stream whole, as lpack must to publish a data set, finds
 * these files whole too, even if this process is killed at once. ctx: struct args. */
static int write_lists(void *ctx, const struct prep_counts *c, struct err *e)
{
    struct args *a = ctx;
    int rc = close_lists(a, 0, e);

    return rc == 0 && a->stats ? write_stats(a->stats, c, e) : rc;
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

/* The same without what an earlier run of this command has done. */
static int prep_rest(struct args *a, const char *const *operands, int n,
                     const struct tokenizer *t, struct prep_counts *c, struct err *e)
{
    struct resume r;
    int rc = resume_open(&r, a->resume, a->opts, &a->eval, e);

    if (rc == 0 && r.files > 0)
        log_info("continuing after %lld finished input%s", (long long)r.files,
                 r.files == 1 ? "" : "s");
    a->prep.resume = &r;
    if (rc == 0)
        rc = prep_out(a, operands, n, t, c, e);
    a->prep.resume = NULL;
    resume_close(&r);
    return rc;
}

/* The fields of a->prep that no row fills as they are. */
static void fill_opts(struct args *a, struct progress *progress)
{
    static const enum record_mode mode[] = { RECORDS_AUTO, RECORDS_TEXT, RECORDS_JSON,
                                             RECORDS_LINES };
    struct prep_opts *o = &a->prep;

    o->threads = (int)a->threads;
    o->prompt = a->prompt ? PROMPT_ALPACA : PROMPT_LLAMA2;
    o->tick = tick;
    o->tick_ctx = progress;
    o->whole = write_lists;
    o->whole_ctx = a;
    o->feed.include = a->include.v;
    o->feed.n_include = a->include.n;
    o->feed.mode = mode[a->format];
    o->feed.max_record_bytes = (size_t)a->max_record;
    o->feed.skip_errors = a->on_error == 1;
    o->feed.doc.replace = a->utf8 == 1;
    o->feed.note = note;
    o->feed.note_ctx = a;
    if (a->output && strcmp(a->output, "-") == 0) /* NULL is standard output */
        a->output = NULL;
}

/* Says what was taken, as a folder or a configuration beside it may have had a say. */
static void tell_tokenizer(const struct tokenizer *t)
{
    char line[1024];
    struct err e = { 0 };

    if (tokenizer_note(t, line, sizeof line, &e) == 0)
        log_info("tokenizer %s", line);
}

/* *t stays NULL for --text. */
static int open_tokenizer(const struct args *a, struct tokenizer **t, struct err *e)
{
    char name[sizeof ((struct token_info *)0)->tokenizer];
    int rc = 0;

    if (a->tokenizer && !a->prep.text && (rc = tokenizer_open(t, a->tokenizer, e)) < 0)
        return rc;
    if (*t && !prep_tokenizer_name(tokenizer_path(*t), name, sizeof name))
        log_warn("the path of the model's folder does not fit into the data: ltrain and leval will "
                 "need --model");
    if (*t && a->engine == 1 && (rc = tokenizer_use(*t, TOKENIZER_SENTENCEPIECE, e)) < 0) {
        tokenizer_close(*t);
        *t = NULL;
    }
    if (*t)
        tell_tokenizer(*t);
    return rc;
}

/* After a run that went well: the summary, and warnings about what the options did not do. */
static void report(const struct args *a, const struct prep_counts *c, const struct progress *p)
{
    const struct filter *f = &a->prep.feed.filter;

    sum_up(c, p);
    for (int i = 0; i < f->n_rates; i++)
        if (!filter_rate_meets(&f->rate[i], &c->by))
            log_warn("--sample: no document is of source '%s'", f->rate[i].glob);
    if (a->prep.seen)
        tell_false_copies(&a->prep, c);
}

/* One run over the operands: check, open what is needed, convert, report, close everything. */
static int run(struct args *a, const char *const *operands, int n, struct err *e)
{
    struct progress progress = { .start_s = now_s(), .text = a->prep.text };
    struct prep_counts c = { 0 };
    struct tokenizer *t = NULL;
    struct prep_opts *o = &a->prep;
    struct minhash near;
    struct contam *contam = NULL;
    int rc;

    fill_opts(a, &progress);
    if ((rc = check(a, e)) < 0)
        return rc;
    if ((rc = add_filters(a, &o->feed.filter, e)) < 0 || (rc = open_tokenizer(a, &t, e)) < 0)
        return rc;
    if (n == 0)
        log_debug("reading standard input");
    if ((rc = open_skipped(a, e)) == 0 && (rc = open_sets(a, o, &near, &contam, e)) == 0)
        rc = a->resume ? prep_rest(a, operands, n, t, &c, e)
                       : prep_out(a, operands, n, t, &c, e);
    if (rc == 0)
        report(a, &c, &progress);
    else
        log_progress_end();
    rc = close_lists(a, rc, e); /* of a run that failed */
    if (rc == 0 && a->json)
        rc = print_json(a, &c, e);
    prep_counts_free(&c);
    filter_free(&o->feed.filter);
    dedup_close(o->seen);
    contam_close(contam);
    tokenizer_close(t);
    return rc;
}

/* With --part or --mpi only this machine's files become the operands of run. */
static int run_part(struct args *a, const char *const *operands, int n, struct err *e)
{
    struct part_files f = { 0 };
    struct part p;
    int rc = 0;

    if (a->mpi && a->part)
        return err_set(e, E_USAGE, "--mpi means --part auto: give only one of them");
    if (a->mpi)
        a->part = "auto";
    if (a->part)
        rc = part_parse(&p, a->part, e);
    if (rc < 0 || !a->part) /* no part: all operands are ours */
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
    struct args a = ARGS_DEFAULT;
    struct opt_table t = { .n = 0 };
    const struct cmd cmd = {
        "lprep", "-t tokenizer.model [options] [file|folder|glob|- ...]",
        "Turns text, JSON and archives of them into a token stream on standard output.",
        "  lprep -t tokenizer.model pg19/validation | lpack > pg19.val\n"
        "  lprep -t tokenizer.model 'redpajama/*.jsonl.zst' | lpack -o shards/\n"
        "  lprep --text books.tar.gz | grep -i whale | lprep -t tokenizer.model | lpack -o w/\n",
        t.row, NULL
    };
    struct err e = { 0 };
    bool done;
    int n;

    lprep_rows(&t, &a);
    a.opts = t.row;
    n = opt_parse(&cmd, argc, argv, &done, &e);
    log_init("lprep", a.quiet ? -1 : a.verbose ? 1 : 0);
    if (n < 0 || done)
        return cmd_exit(&cmd, n, &e);
    return cmd_exit(&cmd, run_part(&a, (const char *const *)argv + 1, n, &e), &e);
}
