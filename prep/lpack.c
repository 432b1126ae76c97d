/* prep/lpack.c - lpack: token streams to shards and a manifest, or to one shard. */
#include "base/file.h"
#include "base/log.h"
#include "base/opt.h"
#include "formats/document.h"
#include "formats/json.h"
#include "prep/pack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *folder;
    struct opt_list splits;
    int64_t shard_tokens, seed;
    bool shuffle, no_shuffle, force, append, merge, quiet, verbose, json;
} a = { .seed = -1 };

static const struct opt opts[] = {
    { 'o', "output", "DIR", OPT_STR, &a.folder, 0, 0,
      "write a data set folder; without it, one shard to stdout" },
    { 'f', "force", NULL, OPT_FLAG, &a.force, 0, 0, "replace a data set that DIR holds" },
    { 0, "append", NULL, OPT_FLAG, &a.append, 0, 0,
      "add to the data set that DIR holds, as new shards" },
    { 0, "merge", NULL, OPT_FLAG, &a.merge, 0, 0,
      "the operands are data set folders: join them to one" },
    { 0, "split", "NAME=X", OPT_LIST, &a.splits, 0, 0,
      "X a fraction (0.05), or a pattern on name or source; the rest is train" },
    { 0, "seed", "N", OPT_I64, &a.seed, 0, (double)MANIFEST_SEED_MAX,
      "of the shuffle and of splits by fraction [0]" },
    { 0, "shuffle", NULL, OPT_FLAG, &a.shuffle, 0, 0, "shuffle documents [on with -o]" },
    { 0, "no-shuffle", NULL, OPT_FLAG, &a.no_shuffle, 0, 0,
      "keep the order of the streams [on without -o]" },
    { 0, "shard-tokens", "N", OPT_TOKENS, &a.shard_tokens, 1, 1e15,
      "start another shard before N tokens are exceeded [256m]" },
    OPT_HEADING("messages"),
    { 'q', "quiet", NULL, OPT_FLAG, &a.quiet, 0, 0, "only warnings and errors" },
    { 'v', "verbose", NULL, OPT_FLAG, &a.verbose, 0, 0, "say more, such as every shard" },
    { 0, "json", NULL, OPT_FLAG, &a.json, 0, 0, "print the summary as JSON on stdout (with -o)" },
    OPT_END
};

static const struct cmd cmd = {
    "lpack", "[-o DIR] [--split NAME=X ...] [stream ... | -]",
    "Packs token streams, as lprep writes them, into memory-mapped shards; joins what several\n"
    "machines have packed.",
    "  lprep books/ -t tokenizer.model | lpack -o shards/\n"
    "  lprep books/ -t tokenizer.model | lpack --split validation=0.05 -o shards/\n"
    "  lprep pg19.tar.zst -t tokenizer.model | lpack --split 'validation=pg19/validation/*' shards/\n"
    "  lprep pg19/validation -t tokenizer.model | lpack > pg19.val\n"
    "  lpack a.stream b.stream -o shards/ -f\n"
    "  lprep more/ -t tokenizer.model | lpack --append -o shards/\n"
    "  lpack --merge -o shards/ machine1/ machine2/\n",
    opts
};

static struct pack *volatile current; /* for the signal handler */

static void on_signal(int sig)
{
    if (current)
        pack_remove_temporaries(current);
    signal(sig, SIG_DFL);
    raise(sig); /* waits until this returns, and then ends the process as the sender meant */
}

static void catch_signals(void)
{
    static const int sig[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction s = { .sa_handler = on_signal }, was;

    for (size_t i = 0; i < sizeof sig / sizeof *sig; i++)
        if (sigaction(sig[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(sig[i], &s, NULL);
}

static void progress(void *ctx, bool writing, int64_t docs, int64_t tokens)
{
    const double *start_s = ctx;
    double s;

    if (!log_progress_due())
        return;
    s = now_s() - *start_s;
    log_progress("%s: %" PRId64 " documents, %" PRId64 " tokens, %.2f Mtokens/s",
                 writing ? "writing" : "reading", docs, tokens,
                 s > 0 ? 1e-6 * (double)tokens / s : 0.0);
}

/* A folder among the operands is the output; it is taken out. Returns how many are left. */
static int take_folder(int n, char **v, struct err *e)
{
    int left = 0, dash = 0;

    for (int i = 0; i < n; i++) {
        size_t k = strlen(v[i]);
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

/* What cannot go together, once it is known where the output goes. */
static int check_usage(int n, char **v, struct err *e)
{
    bool tty = n == 0;
    int rc = check_joins(n, e);

    if (rc < 0 || a.merge)
        return rc;
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
    if (tty && isatty(STDIN_FILENO)) {
        err_set(e, E_USAGE, "standard input is a terminal, not a token stream");
        return err_hint(e, "lprep FILE ... -t tokenizer.model | lpack -o shards/");
    }
    return 0;
}

static int pack_all(struct pack *p, int n, char **v, struct err *e)
{
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

static void say_split(const struct manifest_split *s)
{
    char size[16];
    int64_t bytes = 0;

    for (int64_t i = 0; i < s->n_shards; i++)
        bytes += s->shards[i].bytes;
    log_info("%s: %" PRId64 " document%s, %" PRId64 " tokens in %" PRId64 " shard%s, %s", s->name,
             s->docs, s->docs == 1 ? "" : "s", s->tokens, s->n_shards, s->n_shards == 1 ? "" : "s",
             fmt_bytes((double)bytes, size, sizeof size));
    for (int64_t i = 0; i < s->n_shards && s->shards[i].file[0]; i++)
        log_debug("%s: %" PRId64 " documents, %" PRId64 " tokens", s->shards[i].file,
                  s->shards[i].docs, s->shards[i].tokens);
    if (s->docs == 0 && !a.merge)
        log_warn("split '%s' has no documents: it needs a larger share, another --seed, or a "
                 "pattern that matches", s->name);
}

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

static int run(struct pack_options *o, int n, char **v, struct err *e)
{
    struct manifest *m = NULL;
    struct pack *p;
    sigset_t all, before;
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
        pack_abandon(p);
    current = NULL;
    if (rc < 0) /* else it is done, and a signal comes too late to say otherwise */
        sigprocmask(SIG_SETMASK, &before, NULL);
    log_progress_end();
    for (int i = 0; rc == 0 && i < m->n_splits; i++)
        say_split(&m->splits[i]);
    if (rc == 0 && a.json)
        rc = print_json(m, e);
    manifest_free(m);
    return rc;
}

int main(int argc, char **argv)
{
    struct pack_options o = {0};
    struct err e = {0};
    double start_s = now_s();
    char **given = malloc((size_t)(argc + 1) * sizeof *given);
    bool done;
    int rc, n = 0;

    if (!given)
        return cmd_exit(&cmd, err_set(&e, E_SYS, "out of memory"), &e);
    memcpy(given, argv, (size_t)argc * sizeof *given); /* opt_parse moves the operands */
    rc = opt_parse(&cmd, argc, argv, &done, &e);
    log_init(cmd.name, a.quiet ? -1 : a.verbose ? 1 : 0);
    if (rc >= 0 && !done && (rc = n = a.merge ? rc : take_folder(rc, argv + 1, &e)) >= 0 &&
        (rc = check_usage(n, argv + 1, &e)) == 0) {
        static char name[] = "lpack";
        given[0] = name;
        o.folder = a.folder;
        o.fd = STDOUT_FILENO;
        o.shard_tokens = a.shard_tokens ? a.shard_tokens : (int64_t)256 << 20;
        o.shuffle = a.folder && !a.merge ? !a.no_shuffle : a.shuffle;
        o.force = a.force;
        o.append = a.append;
        o.merge = a.merge;
        o.seed = a.seed;
        o.command = given;
        o.n_command = argc;
        o.progress = progress;
        o.progress_ctx = &start_s;
        catch_signals();
        rc = run(&o, n, argv + 1, &e);
    }
    free(given);
    return cmd_exit(&cmd, rc > 0 ? 0 : rc, &e);
}
