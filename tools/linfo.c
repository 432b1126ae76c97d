/* tools/linfo.c - shows, verifies and decodes what the tools read and write. */
#include "base/log.h"
#include "base/opt_rows.h"
#include "base/plot.h"
#include "tools/info.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int one(const char *path, const struct info_options *o, bool raw, bool quiet,
               struct err *e)
{
    enum info_kind kind;
    json_t *j;
    char *text;
    int rc = info_kind_of(path, raw, &kind, e);

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
        } else if (!quiet) {
            info_print(j, stdout);
        }
        json_decref(j);
    }
    return rc;
}

/* All paths are looked at; the first failure decides the exit status. */
static int all(int n, char **path, const struct info_options *o, bool raw, bool quiet,
               struct err *e)
{
    struct err later = {0};
    int rc = 0;

    for (int i = 0; i < n; i++) {
        struct err *to = rc == 0 ? e : &later;
        int k = one(path[i], o, raw, quiet, to);
        if (k < 0 && i < n - 1)
            log_warn("%s", to->msg);
        if (k < 0 && rc == 0 && i == n - 1)
            return k; /* main prints this one */
        if (k < 0 && i == n - 1)
            log_warn("%s", later.msg);
        rc = rc == 0 ? k : rc;
    }
    return rc == 0 ? 0 : err_set(e, rc, "not all of the %d paths are sound", n);
}

int main(int argc, char **argv)
{
    struct info_options o = { .doc = -1 };
    bool quiet = false, raw = false, done;
    const struct opt opts[] = {
        { 0, "verify", NULL, OPT_FLAG, &o.verify, 0, 0,
          "read everything: checksums, hashes, NaN" },
        { 0, "docs", NULL, OPT_FLAG, &o.docs, 0, 0,
          "list: number, tokens, bytes, words, source, name" },
        { 0, "ids", NULL, OPT_FLAG, &o.ids, 0, 0, "print token ids, one document a line" },
        { 'd', "doc", "N", OPT_I64, &o.doc, 0, 1e15, "only document N, from 0: its text" },
        { 't', "tokenizer", "FILE", OPT_STR, &o.tokenizer, 0, 0,
          "SentencePiece model to decode with [the data's]" },
        { 0, "stats", NULL, OPT_FLAG, &o.stats, 0, 0,
          "counts by split and source, lengths of documents" },
        { 0, "plot", "FILE", OPT_STR, &o.plot, 0, 0,
          "with --stats: the lengths as PNG, SVG or PDF" },
        { 0, "sample", "N", OPT_I64, &o.sample, 1, 1e15,
          "N documents as text, bounds and masks shown" },
        { 0, "ctx", "N", OPT_TOKENS, &o.ctx, 1, 1e9,
          "with --sample: rows of N tokens, not documents" },
        ROW_SEED(&o.seed, 0, "with --sample: which ones [0]"),
        { 's', "split", "NAME", OPT_STR, &o.split, 0, 0,
          "split of a data set, --stats: only this [train]" },
        { 0, "raw", NULL, OPT_FLAG, &raw, 0, 0, "the file is headerless 16-bit token ids" },
        ROW_JSON(&o.json, "one JSON value a line"),
        ROW_QUIET(&quiet, "print nothing but errors"),
        ROW_VERBOSE(&o.verbose, "every tensor, every shard"),
        OPT_END
    };
    const struct cmd cmd = {
        "linfo", "[--verify] [--stats] [--sample N] [--docs] [--ids] [--doc N] path ...",
        "Shows what shards, token streams, models, adapters and tokenizers hold, verifies\n"
        "them, and decodes documents back to text. '-' is a token stream on standard input.",
        "  linfo --verify shards/ model/ adapter/\n"
        "  linfo --stats --plot lengths.png shards/\n"
        "  linfo --sample 5 --ctx 2k shards/ | less -R\n"
        "  linfo --doc 3 -t tokenizer.model shards/\n"
        "  lprep book.txt -t tokenizer.model | linfo --ids - | head -c 200\n",
        opts
    };
    struct err e = {0};
    int n = opt_parse(&cmd, argc, argv, &done, &e);

    if (n < 0 || done)
        return cmd_exit(&cmd, n, &e);
    log_init(cmd.name, quiet ? -1 : o.verbose ? 1 : 0);
    if (n == 0) {
        err_set(&e, E_USAGE, "no path given");
        return cmd_exit(&cmd, err_hint(&e, "linfo --help shows what it reads"), &e);
    }
    if ((o.plot && !o.stats) || (o.ctx && !o.sample) || (o.stats && o.sample)) {
        err_set(&e, E_USAGE, o.plot && !o.stats ? "--plot is for --stats"
                             : o.stats ? "--stats and --sample are two questions"
                                       : "--ctx is for --sample");
        return cmd_exit(&cmd, E_USAGE, &e);
    }
    o.colour = log_colour(STDOUT_FILENO);
    o.utf8 = plot_utf8();
    return cmd_exit(&cmd, all(n, argv + 1, &o, raw, quiet, &e), &e);
}
