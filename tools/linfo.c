/* tools/linfo.c - shows, verifies and decodes what the tools read and write. */
#include "base/log.h"
#include "base/opt_rows.h"
#include "base/plot.h"
#include "tools/info.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct args {
    struct info_options info;
    bool raw, quiet;
};

/* Options that list something replace the description; --verify is part of it. */
static void add_rows(struct opt_table *t, struct args *a)
{
    const struct opt rows[] = {
        { 0, "verify", NULL, OPT_FLAG, &a->info.verify, 0, 0,
          "read everything: checksums, hashes, NaN" },
        { 0, "docs", NULL, OPT_FLAG, &a->info.docs, 0, 0,
          "list: number, tokens, bytes, words, source, name" },
        { 0, "ids", NULL, OPT_FLAG, &a->info.ids, 0, 0,
          "print token ids, one document a line" },
        { 'd', "doc", "N", OPT_I64, &a->info.doc, 0, 1e15,
          "only document N, from 0: its text" },
        { 't', "tokenizer", "FILE", OPT_STR, &a->info.tokenizer, 0, 0,
          "tokenizer to decode with [the data's]" },
        { 0, "stats", NULL, OPT_FLAG, &a->info.stats, 0, 0,
          "counts by split and source, lengths of documents" },
        { 0, "plot", "FILE", OPT_STR, &a->info.plot, 0, 0,
          "with --stats: the lengths as PNG, SVG or PDF" },
        { 0, "sample", "N", OPT_I64, &a->info.sample, 1, 1e15,
          "N documents as text, bounds and masks shown" },
        { 0, "ctx", "N", OPT_TOKENS, &a->info.ctx, 1, 1e9,
          "with --sample: rows of N tokens, not documents" },
        ROW_SEED(&a->info.seed, 0, "with --sample: seed of the choice [0]"),
        { 's', "split", "NAME", OPT_STR, &a->info.split, 0, 0,
          "split of a data set, --stats: only this [train]" },
        { 0, "raw", NULL, OPT_FLAG, &a->raw, 0, 0,
          "the file is 16-bit token ids without a header" },
        ROW_JSON(&a->info.json, "one JSON value a line"),
        ROW_QUIET(&a->quiet, "print nothing but errors"),
        ROW_VERBOSE(&a->info.verbose, "every tensor, every shard"),
        OPT_END
    };

    opt_add(t, rows);
}

/* Options that ask for something another option must be there for. */
static int check(const struct info_options *o, int n_paths, struct err *e)
{
    if (n_paths == 0) {
        err_set(e, E_USAGE, "no path given");
        return err_hint(e, "linfo --help shows what it reads");
    }
    if (o->plot && !o->stats)
        return err_set(e, E_USAGE, "--plot draws what --stats counts: give both");
    if (o->stats && o->sample)
        return err_set(e, E_USAGE, "--stats and --sample cannot be given together");
    if (o->ctx && !o->sample)
        return err_set(e, E_USAGE, "--ctx is the length of --sample's rows: give both");
    return 0;
}

/* Configurations may be edited, and then this is what the status says; or they are damaged. */
static int unchanged(const json_t *j, const char *path, struct err *e)
{
    const char *names = json_string_value(json_object_get(j, "changed"));

    if (!names)
        return 0;
    err_set(e, E_NO, "'%s': changed after the weights were written: %s", path, names);
    return err_hint(e, "edited by hand, or damaged: the hashes beside the weights are of what was "
                    "written");
}

/* One path, in the way that the options ask for; the first that fits is done. */
static int one(const char *path, const struct args *a, struct err *e)
{
    const struct info_options *o = &a->info;
    enum info_kind kind;
    json_t *j;
    char *text;
    int rc = info_kind_of(path, a->raw, &kind, e);

    if (rc == 0 && o->stats)
        return info_stats(path, kind, o, stdout, e);
    if (rc == 0 && o->sample)
        return info_sample(path, kind, o, stdout, e);
    if (rc == 0 && (o->docs || o->ids || o->doc >= 0))
        return info_documents(path, kind, o, stdout, e);
    if (rc == 0 && (rc = info_describe(path, kind, o, &j, e)) == 0) {
        if (o->json && (text = json_dumps(j, JSON_COMPACT | info_json_flags()))) {
            puts(text);
            free(text);
        } else if (!a->quiet) {
            /* With --quiet only the exit status is left, for scripts that verify. */
            info_print(j, stdout);
        }
        rc = o->verify ? unchanged(j, path, e) : 0;
        json_decref(j);
    }
    return rc;
}

/* All paths are looked at; the first failure decides the exit status. */
static int all(int n, char **path, const struct args *a, struct err *e)
{
    struct err later = {0};
    int rc = 0;

    /* The first error goes to the caller, and later ones are only shown. */
    for (int i = 0; i < n; i++) {
        struct err *to = rc == 0 ? e : &later;
        int k = one(path[i], a, to);
        /* Each error is said when it happens, but that of the last path: main prints it where
         * it is the only one. */
        if (k < 0 && i < n - 1)
            log_warn("%s", to->msg);
        if (k < 0 && rc == 0 && i == n - 1)
            return k; /* main prints this one */
        if (k < 0 && i == n - 1)
            log_warn("%s", later.msg);
        rc = rc == 0 ? k : rc;
    }
    return rc == 0 ? 0 : err_set(e, rc, "some of the %d paths have errors", n);
}

int main(int argc, char **argv)
{
    /* -1: no single document was asked for, as 0 is one. */
    struct args a = { .info.doc = -1 };
    struct opt_table t = { .n = 0 };
    const struct cmd cmd = {
        "linfo", "[--verify] [--stats] [--sample N] [--docs] [--ids] [--doc N] path ...",
        "Shows what shards, token streams, models, adapters and tokenizers hold, verifies\n"
        "them, and decodes documents back to text. '-' is a token stream on standard input.",
        "  linfo --verify shards/ model/ adapter/\n"
        "  linfo --stats --plot lengths.png shards/\n"
        "  linfo --sample 5 --ctx 2k shards/ | less -R\n"
        "  linfo --doc 3 -t tokenizer.model shards/\n"
        "  lprep book.txt -t tokenizer.model | linfo --ids - | head -c 200\n",
        t.row, NULL
    };
    struct err e = {0};
    bool done;
    int n;

    add_rows(&t, &a);
    n = opt_parse(&cmd, argc, argv, &done, &e);
    if (n < 0 || done)
        return cmd_exit(&cmd, n, &e);
    log_init(cmd.name, a.quiet ? -1 : a.info.verbose ? 1 : 0);
    if (check(&a.info, n, &e) < 0)
        return cmd_exit(&cmd, e.code, &e);
    a.info.colour = log_colour(STDOUT_FILENO);
    a.info.utf8 = plot_utf8();
    return cmd_exit(&cmd, all(n, argv + 1, &a, &e), &e);
}
