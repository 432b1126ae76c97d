/* prep/lpack.c - lpack: token streams to shards and a manifest, or to one shard. */
#include "base/file.h"
#include "base/log.h"
#include "base/must.h"
#include "base/opt_rows.h"
#include "formats/tokens/document.h"
#include "base/json.h"
#include "prep/export.h"
#include "prep/import.h"
#include "prep/pack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the options say. -1 is "not given" where 0 is a value. */
static struct {
    const char *folder;
    struct opt_list splits;
    int64_t shard_tokens, seed;
    bool shuffle, no_shuffle, force, append, merge, quiet, verbose, json;
    int export_to, import_from; /* enum token_format, or -1 */
    int form;                   /* 1: raw */
    const char *tokenizer;
    int64_t vocab, bos, eos;
} a = { .seed = -1, .export_to = -1, .import_from = -1, .bos = -1, .eos = -1 };

static const struct opt opts[] = {
    { 'o', "output", "DIR", OPT_STR, &a.folder, 0, 0,
      "write a data set folder; without it, one shard to stdout" },
    ROW_FORCE(&a.force, "replace a data set that DIR holds"),
    { 0, "append", NULL, OPT_FLAG, &a.append, 0, 0,
      "add to the data set that DIR holds, as new shards" },
    { 0, "merge", NULL, OPT_FLAG, &a.merge, 0, 0,
      "the operands are data set folders: join them to one" },
    { 0, "split", "NAME=X", OPT_LIST, &a.splits, 0, 0,
      "X a fraction (0.05), or a pattern on name or source; the rest is train" },
    ROW_SEED(&a.seed, OPT_RESULT, "seed of the shuffle and of splits by fraction [0]"),
    { 0, "shuffle", NULL, OPT_FLAG, &a.shuffle, 0, 0, "shuffle documents [on with -o]" },
    { 0, "no-shuffle", NULL, OPT_FLAG, &a.no_shuffle, 0, 0,
      "keep the order of the streams [on without -o]" },
    { 0, "shard-tokens", "N", OPT_TOKENS, &a.shard_tokens, 1, 1e15,
      "start another shard (--export llmc: file) at N tokens [256m]" },
    OPT_HEADING("other programs' token files"),
    { 0, "export", "u16|llmc|megatron|ndjson", OPT_ENUM, &a.export_to, 0, 0,
      "the operand is a data set: write --split of it to -o or stdout" },
    { 0, "import", "u16|llmc|megatron|ndjson", OPT_ENUM, &a.import_from, 0, 0,
      "the operands are such files, not streams" },
    { 0, "form", "auto|raw", OPT_ENUM, &a.form, 0, 0,
      "--import u16: raw reads a file even if it looks like text [auto]" },
    { 't', "tokenizer", "FILE", OPT_STR, &a.tokenizer, 0, 0,
      "tokenizer of the ids; --export ndjson adds the text" },
    { 0, "vocab", "N", OPT_I64, &a.vocab, 1, (double)INT32_MAX,
      "--import without -t: size of the vocabulary [65536]" },
    { 0, "bos", "ID", OPT_I64, &a.bos, 0, (double)INT32_MAX,
      "--import: documents begin with this id; u16, llmc: split there" },
    { 0, "eos", "ID", OPT_I64, &a.eos, 0, (double)INT32_MAX,
      "--import: documents end with this id; u16, llmc: split there" },
    OPT_HEADING("messages"),
    ROW_QUIET(&a.quiet, "only warnings and errors"),
    ROW_VERBOSE(&a.verbose, "say more, such as every shard"),
    ROW_JSON(&a.json, "print the summary as JSON on stdout (with -o)"),
    OPT_END
};

static const struct cmd cmd = {
    "lpack", "[-o DIR] [--split NAME=X ...] [stream ... | -]",
    "Packs token streams, as lprep writes them, into memory-mapped shards; joins what several\n"
    "machines have packed; exports to, and imports from, the token files of other programs.",
    "  lprep books/ -t tokenizer.model | lpack -o shards/\n"
    "  lprep books/ -t tokenizer.model | lpack --split validation=0.05 -o shards/\n"
    "  lprep pg19.tar.zst -t tokenizer.model | lpack --split 'validation=pg19/validation/*' shards/\n"
    "  lprep pg19/validation -t tokenizer.model | lpack > pg19.val\n"
    "  lpack a.stream b.stream -o shards/ -f\n"
    "  lprep more/ -t tokenizer.model | lpack --append -o shards/\n"
    "  lpack --merge -o shards/ machine1/ machine2/\n"
    "  lpack --export megatron -o corpus_text_document shards/\n"
    "  lpack --import llmc --bos 50256 -o shards/ edu_fineweb_train_*.bin\n",
    opts, NULL
};

static struct pack *volatile current; /* for the signal handler */

/* Only what is async-signal-safe: the temporaries go, then the signal ends the process. */
static void on_signal(int sig)
{
    if (current)
        pack_remove_temporaries(current);
    signal(sig, SIG_DFL);
    raise(sig); /* waits until this returns, and then ends the process as the sender meant */
}

static void on_no_memory(void)
{
    if (current)
        pack_remove_temporaries(current);
}

/* A signal that was ignored when the program started, as nohup does, stays ignored. */
static void catch_signals(void)
{
    static const int sig[] = { SIGINT, SIGTERM, SIGHUP, SIGXCPU };
    struct sigaction s = { .sa_handler = on_signal }, was;

    must_end_with(on_no_memory);
    for (size_t i = 0; i < sizeof sig / sizeof *sig; i++)
        if (sigaction(sig[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(sig[i], &s, NULL);
}

/* The speed is that of lpack alone: time spent waiting for lprep is taken out of it, and
 * shown as a share of all time. */
static void progress(void *ctx, bool writing, int64_t docs, int64_t tokens, double waited_s)
{
    const double *start_s = ctx;
    double s, share;

    if (!log_progress_due())
        return;
    s = now_s() - *start_s;
    share = s > 0 ? 100 * waited_s / s : 0;
    s -= waited_s;
    log_progress("%s: %" PRId64 " documents, %" PRId64 " tokens, %.2f Mtokens/s, waited %.0f%%",
                 writing ? "writing" : "reading", docs, tokens,
                 s > 0 ? 1e-6 * (double)tokens / s : 0.0, share);
}

/* A folder among the operands is the output; it is taken out. Returns how many are left. */
static int take_folder(int n, char **v, struct err *e)
{
    int left = 0, dash = 0;

    for (int i = 0; i < n; i++) {
        size_t k = strlen(v[i]);
        /* A slash at the end names a folder that need not exist yet. */
        if ((k > 0 && v[i][k - 1] == '/') || path_is_dir(v[i])) {
            if (a.folder)
                return err_set(e, E_USAGE, "two output folders, '%s' and '%s'", a.folder, v[i]);
            a.folder = v[i];
            continue;
        }
        dash += strcmp(v[i], "-") == 0;
        v[left++] = v[i];
    }
    return dash > 1 ? err_set(e, E_USAGE, "'-', standard input, is given more than once") : left;
}

/* --merge and --append: where to, and what does not go with them. */
static int check_joins(int n, struct err *e)
{
    if ((a.merge || a.append) && !a.folder)
        return err_set(e, E_USAGE, "--merge and --append need an output folder: name it with -o");
    if (a.append && a.force)
        return err_set(e, E_USAGE, "--append and --force exclude each other");
    if (a.merge && (a.splits.n || a.shard_tokens || a.shuffle || a.no_shuffle || a.seed >= 0))
        return err_set(e, E_USAGE, "--merge takes shards as they are: no --split, --seed, "
                                   "--shuffle or --shard-tokens");
    return a.merge && n == 0 ? err_set(e, E_USAGE, "no data set to merge is given") : 0;
}

/* What goes with --export and --import alone, and what does not go with them. */
static int check_formats(int n, struct err *e)
{
    const char *split = a.splits.n ? a.splits.v[0] : "";

    if (a.export_to >= 0 && a.import_from >= 0)
        return err_set(e, E_USAGE, "--export and --import exclude each other");
    if (a.form && a.import_from != FORMAT_U16)
        return err_set(e, E_USAGE, "--form is for --import u16");
    if (a.import_from < 0 && (a.vocab || a.bos >= 0 || a.eos >= 0))
        return err_set(e, E_USAGE, "--vocab, --bos and --eos are for --import");
    /* -t needs exactly one of --import and --export ndjson; both were refused above. */
    if (a.tokenizer && (a.import_from < 0) == (a.export_to != FORMAT_NDJSON))
        return err_set(e, E_USAGE, "-t is for --import and --export ndjson");
    if (a.tokenizer && a.vocab)
        return err_set(e, E_USAGE, "-t and --vocab exclude each other");
    if (a.import_from >= 0 && a.merge)
        return err_set(e, E_USAGE, "--merge joins data sets, --import makes one");
    /* From here on it is --export alone. */
    if (a.export_to < 0)
        return 0;
    if (n != 1)
        return err_set(e, E_USAGE, "--export takes one data set, %d are given", n);
    if (a.splits.n > 1 || strchr(split, '='))
        return err_set(e, E_USAGE, "--export takes one split by its name, as --split validation");
    if (a.append || a.merge || a.shuffle || a.no_shuffle || a.seed >= 0 || a.json ||
        (a.shard_tokens && a.export_to != FORMAT_LLMC))
        return err_set(e, E_USAGE, "--export takes only -o, -f, --split, -t and, for llmc, "
                                   "--shard-tokens beside it");
    return 0;
}

/* What cannot go together, once it is known where the output goes. */
static int check_usage(int n, char **v, struct err *e)
{
    bool tty = n == 0;
    int rc = check_joins(n, e);

    if (rc < 0 || a.merge)
        return rc;
    if (a.import_from >= 0 && n == 0)
        return err_set(e, E_USAGE, "no file to import is given");
    for (int i = 0; i < n; i++)
        tty |= strcmp(v[i], "-") == 0;
    if (a.shuffle && a.no_shuffle)
        return err_set(e, E_USAGE, "--shuffle and --no-shuffle exclude each other");
    if (!a.folder && (a.splits.n || a.shard_tokens || a.force || a.json)) {
        err_set(e, E_USAGE, "--split, --shard-tokens, --force and --json need an output folder");
        return err_hint(e, "name one with -o, or leave them out for one shard on stdout");
    }
    if (!a.folder && isatty(STDOUT_FILENO)) {
        err_set(e, E_USAGE, "will not write a shard to the terminal");
        return err_hint(e, "name a folder, 'lpack -o shards/', or a file, 'lpack > FILE.shard'");
    }
    if (tty && a.import_from < 0 && isatty(STDIN_FILENO)) {
        err_set(e, E_USAGE, "standard input is a terminal, not a token stream");
        return err_hint(e, "lprep FILE ... -t tokenizer.model | lpack -o shards/");
    }
    return 0;
}

/* Other programs' files take the place of streams: each operand is one input of the pack. */
static int import_all(struct pack *p, int n, char **v, struct err *e)
{
    struct import_options o = { .format = (enum token_format)a.import_from, .vocab = a.vocab,
                                .tokenizer = a.tokenizer, .bos = a.bos, .eos = a.eos,
                                .surely_raw = a.form == 1 };
    struct import *x;
    int rc = import_open(&x, &o, e);

    for (int i = 0; i < n && rc == 0; i++)
        rc = import_file(x, p, v[i], e);
    import_close(x);
    return rc;
}

/* All operands in order: files to import, data sets to merge, or token streams. Without any
 * it is the stream on standard input. */
static int pack_all(struct pack *p, int n, char **v, struct err *e)
{
    if (a.import_from >= 0)
        return import_all(p, n, v, e);

    int rc = n ? 0 : pack_stream(p, STDIN_FILENO, "standard input", e);

    for (int i = 0; i < n && rc == 0; i++) {
        int fd;
        if (a.merge) {
            rc = pack_set(p, v[i], e);
        } else if (strcmp(v[i], "-") == 0) {
            rc = pack_stream(p, STDIN_FILENO, "standard input", e);
        } else if ((fd = open(v[i], O_RDONLY | O_CLOEXEC)) < 0) {
            rc = err_sys(e, E_NOINPUT, "cannot open '%s'", v[i]);
        } else {
            rc = pack_stream(p, fd, v[i], e);
            close(fd);
        }
    }
    return rc;
}

/* The summary of a split. An empty one is a warning: most likely its rule took nothing. */
static void say_split(const struct manifest_split *s, bool alone)
{
    char size[16];
    int64_t bytes = 0;

    for (int64_t i = 0; i < s->n_shards; i++)
        bytes += s->shards[i].bytes;
    log_info("%s: %" PRId64 " document%s, %" PRId64 " tokens in %" PRId64 " shard%s, %s", s->name,
             s->docs, s->docs == 1 ? "" : "s", s->tokens, s->n_shards, s->n_shards == 1 ? "" : "s",
             fmt_bytes((double)bytes, size, sizeof size));
    /* The shard on standard output has no name. */
    for (int64_t i = 0; i < s->n_shards && s->shards[i].file[0]; i++)
        log_debug("%s: %" PRId64 " documents, %" PRId64 " tokens", s->shards[i].file,
                  s->shards[i].docs, s->shards[i].tokens);
    if (s->docs == 0 && alone)
        log_warn("no documents: the data set is empty");
    else if (s->docs == 0 && !a.merge)
        log_warn("split '%s' has no documents: it needs a larger share, another --seed, or a "
                 "pattern that matches", s->name);
}

/* The summary as JSON, for programs. */
static int print_json(const struct manifest *m, struct err *e)
{
    json_t *splits = json_object(), *top;
    int64_t docs = 0, tokens = 0;
    char folder[4096], *text;

    for (int i = 0; i < m->n_splits; i++) {
        const struct manifest_split *s = &m->splits[i];
        json_object_set_new(splits, s->name,
                            json_pack("{sIsIsIsI}", "documents", (json_int_t)s->docs, "tokens",
                                      (json_int_t)s->tokens, "text_bytes",
                                      (json_int_t)s->text_bytes, "shards",
                                      (json_int_t)s->n_shards));
        docs += s->docs;
        tokens += s->tokens;
    }
    /* JSON is UTF-8, and a path need not be. */
    label_clean(folder, sizeof folder - 1, a.folder);
    top = json_pack("{sssIsIso}", "folder", folder, "documents", (json_int_t)docs, "tokens",
                    (json_int_t)tokens, "splits", splits);
    text = top ? json_dumps(top, 0) : NULL;
    json_decref(top);
    if (!text)
        return err_set(e, E_SYS, "cannot print '%s' as JSON", a.folder);
    puts(text);
    free(text);
    return 0;
}

static const char *plural(int64_t n) { return n == 1 ? "" : "s"; }

/* --export: writes the files, then warns of what their format could not hold. */
static int run_export(const char *data, double *start_s, struct err *e)
{
    static const char *const name[] = { "u16", "llm.c", "Megatron", "NDJSON" };
    struct export_options o = {
        .format = (enum token_format)a.export_to, .data = data, .fd = STDOUT_FILENO,
        .split = a.splits.n ? a.splits.v[0] : NULL, .tokenizer = a.tokenizer, .force = a.force,
        .out = a.folder && strcmp(a.folder, "-") != 0 ? a.folder : NULL,
        /* llm.c's reader takes offsets for 32-bit numbers, so that its files are kept
         * shorter than their format allows. */
        .file_tokens = a.shard_tokens ? a.shard_tokens : (int64_t)512 << 20,
        .progress = progress, .progress_ctx = start_s
    };
    struct export_sums s;
    int rc;

    /* Megatron without a name is refused by export_data, with a better reason. */
    if (!o.out && o.format != FORMAT_MEGATRON && isatty(STDOUT_FILENO))
        return err_set(e, E_USAGE, "will not write tokens to the terminal: name a file with -o");
    rc = export_data(&o, &s, e);
    log_progress_end();
    if (rc < 0)
        return rc;
    if (s.lost_masked)
        log_warn("%s's format has no loss mask: %" PRId64 " masked token%s will be trained on",
                 name[o.format], s.lost_masked, plural(s.lost_masked));
    if (s.lost_bounds)
        log_warn("%s's format has no bounds: %" PRId64 " document%s run%s into the next",
                 name[o.format], s.lost_bounds, plural(s.lost_bounds),
                 s.lost_bounds == 1 ? "s" : "");
    if (s.lost_labels)
        log_warn("%s's format has no place for source and name, which %" PRId64 " document%s had",
                 name[o.format], s.lost_labels, plural(s.lost_labels));
    log_info("%" PRId64 " document%s, %" PRId64 " tokens in %" PRId64 " file%s", s.docs,
             plural(s.docs), s.tokens, s.files, plural(s.files));
    return 0;
}

/* Reads everything and publishes. Signals are blocked while the pack is opened, so that none
 * finds a folder that "current" does not name, and again while results get their names. */
static int run(struct pack_options *o, int n, char **v, struct err *e)
{
    struct manifest *m = NULL;
    struct pack *p;
    sigset_t all, before;
    int64_t kept = 0;
    int rc;

    for (int i = 0; i < a.splits.n; i++)
        if ((rc = split_add(&o->rules, a.splits.v[i], e)) < 0)
            return rc;
    sigfillset(&all); /* a signal finds no folder, or one it can clear away */
    sigprocmask(SIG_BLOCK, &all, &before);
    rc = pack_open(&p, o, e);
    current = p;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (rc < 0)
        return rc;
    if ((rc = pack_all(p, n, v, e)) == 0)
        rc = pack_write(p, e);
    /* From here it is all or nothing, and short. */
    sigprocmask(SIG_BLOCK, &all, &before);
    if (rc == 0)
        rc = pack_finish(p, &m, e);
    else
        kept = pack_abandon(p);
    current = NULL;
    if (rc < 0) /* else it is done, and a signal comes too late to say otherwise */
        sigprocmask(SIG_SETMASK, &before, NULL);
    log_progress_end();
    if (kept > 0)
        log_info("%" PRId64 " input%s done: run the same command again to continue", kept,
                 kept == 1 ? " is" : "s are");
    for (int i = 0; rc == 0 && i < m->n_splits; i++)
        say_split(&m->splits[i], m->n_splits == 1);
    if (rc == 0 && a.json)
        rc = print_json(m, e);
    manifest_free(m);
    return rc;
}

/* given: the command line as it was, for the manifest. */
static int run_pack(int n_operands, char **v, int n_given, char **given, double *start_s,
                    struct err *e)
{
    static char name[] = "lpack";
    struct pack_options o = {
        .fd = STDOUT_FILENO, .force = a.force, .append = a.append, .merge = a.merge,
        .seed = a.seed, .command = given, .n_command = n_given, .progress = progress,
        .progress_ctx = start_s,
        .shard_tokens = a.shard_tokens ? a.shard_tokens : (int64_t)256 << 20
    };
    /* With --merge folders are inputs, and the output is only what -o names. */
    int rc, n = a.merge ? n_operands : take_folder(n_operands, v, e);

    if (n < 0 || (rc = check_usage(n, v, e)) < 0)
        return n < 0 ? n : rc;
    /* Not the path it was started by: the manifest does not depend on it. */
    given[0] = name;
    o.folder = a.folder;
    /* A run can be continued only where one stream is all there is; a folder is shuffled
     * unless it is said otherwise. */
    o.journal = a.folder && !a.merge && n <= 1;
    o.shuffle = a.folder && !a.merge ? !a.no_shuffle : a.shuffle;
    catch_signals();
    return run(&o, n, v, e);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    double start_s = now_s();
    char **given = malloc((size_t)(argc + 1) * sizeof *given);
    bool done;
    int rc, n;

    if (!given)
        return cmd_exit(&cmd, err_set(&e, E_SYS, "out of memory"), &e);
    memcpy(given, argv, (size_t)argc * sizeof *given); /* opt_parse moves the operands */
    rc = n = opt_parse(&cmd, argc, argv, &done, &e);
    log_init(cmd.name, a.quiet ? -1 : a.verbose ? 1 : 0);
    if (n >= 0 && !done && (rc = check_formats(n, &e)) == 0)
        rc = a.export_to >= 0 ? run_export(argv[1], &start_s, &e)
                              : run_pack(n, argv + 1, argc, given, &start_s, &e);
    free(given);
    return cmd_exit(&cmd, rc > 0 ? 0 : rc, &e);
}
