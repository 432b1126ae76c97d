/* train/ltrain.c - ltrain: fine-tune a model at a longer context, or train a fresh one. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/opt.h"
#include "kernels/group.h"
#include "ranks/launch.h"
#include "ranks/open.h"
#include "train/bench.h"
#include "train/defaults.h"
#include "train/plan.h"
#include "train/recipes.h"
#include "train/run.h"
#include "train/stop.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The options write into this; all else gets it as an argument. */
static struct settings s;

static struct opt_table rows;
static bool given[sizeof rows.row / sizeof *rows.row];

static const struct cmd cmd = {
    .name = "ltrain",
    .synopsis = "DATA [--model FOLDER] [-o OUT] [--ctx TOKENS] [option ...]",
    .summary = "Trains a model on DATA (shards, one shard, raw u16 ids) at a longer "
               "context.\nRun the same command again to continue a stopped run.",
    .examples = "  ltrain shards/ --ctx 100k\n"
                "  ltrain shards/ --model Llama-2-7b-hf --ctx 32k -o adapter/\n"
                "  ltrain shards/ --init config.json --ctx 256 --lr 1e-3 -o base/\n"
                "  ltrain shards/ --model Llama-2-7b-hf --ctx 100k --plan\n"
                "  ltrain --shape llama-2-7b --ctx 8k,100k --plan --gpu rtx-4090\n"
                "  ltrain --bench --shape llama-2-7b --ctx 8k,32k\n",
    .opts = rows.row,
    .given = given,
};

/* The first n bytes of a path (-1: all) as they stand between single quotes in a shell. */
static int quoted(struct buf *to, const char *path, int n)
{
    int rc = 0;

    for (; *path && n != 0 && rc == 0; path++, n--)
        rc = *path == '\'' ? buf_add(to, "'\\''", 4, NULL) : buf_add(to, path, 1, NULL);
    return rc;
}

/* An adapter's folder has no field that tells PEFT of the RoPE scaling or the context. So
 * this shows how to make a model that has both. Said only when one of them has changed. */
static void say_merge(const struct run *r)
{
    const struct settings *now = r->s;
    const struct llama_config *c = &r->session.config;
    int n = (int)strlen(now->out);
    bool scaled = now->rope_new || (now->rope.factor > 0 && now->rope.factor != 1);
    char advice[256];
    struct buf line = { 0 };

    if (!scaled && config_reach(c) == r->session.base_context)
        return;
    rope_advice(c, advice, sizeof advice);
    if (*advice)
        log_info("%s", advice);
    if (now->mode == 0)
        return;
    /* "out/" becomes "out-merged", not "out/-merged". */
    while (n > 1 && now->out[n - 1] == '/')
        n--;
    /* A command that cannot be told in full is not told at all. */
    if (buf_printf(&line, NULL, "lmerge --model '") == 0 && quoted(&line, now->model, -1) == 0 &&
        buf_printf(&line, NULL, "' --adapter '") == 0 && quoted(&line, now->out, -1) == 0 &&
        buf_printf(&line, NULL, "' -o '") == 0 && quoted(&line, now->out, n) == 0)
        log_info("PEFT would load this adapter without its RoPE scaling; to make a model with it: "
                 "%.*s-merged'", (int)line.len, line.p);
    buf_free(&line);
}

/* Tells where the results are. With --json, summary.json goes to stdout as well. */
static int finish(const struct run *r, bool done)
{
    char *text = run_summary(r);

    if (done)
        log_info("'%s' is already complete: %" PRId64 " steps (%s-f starts over)", r->s->out,
                 r->resumed, settings_has_end(r->s) ? "" : "more --steps continues it, ");
    else
        log_info("%s in '%s'", r->s->mode > 0 ? "adapter" : "model", r->s->out);
    say_merge(r);
    if (r->s->json && text && group_writes(r->group))
        fputs(text, stdout);
    free(text);
    return 0;
}

/* Opens, looks for a checkpoint, and trains unless all is done. run_close takes any state. */
static int train(struct group *g, int argc, char **argv, struct err *e)
{
    struct run r = { .group = g };
    bool done = false;
    int rc = run_open(&r, &s, e);

    if (rc == 0 && (rc = run_begin(&r, &done, e)) == 0 &&
        (done || (rc = run_train(&r, argc, argv, e)) == 0))
        rc = finish(&r, done);
    if (rc == E_AGAIN)
        stop_over();
    run_close(&r);
    return rc;
}

/* What the command leaves open comes from its data and from a recipe; a command that is wrong is
 * told before the recipe is. */
static int fill_in(struct err *e)
{
    char said[1024];
    int rc = defaults_take(&s, said, sizeof said, e);

    if (rc == 0 && *said)
        log_info("%s", said);
    if (rc == 0 && (rc = settings_check(&s, e)) == 0)
        rc = recipe_apply(&s, rows.row, given, said, sizeof said, e);
    if (rc == 0 && *said)
        log_info("%s", said);
    return rc;
}

/* One rank of the run, or the only one. */
static int be_rank(int argc, char **argv, struct err *e)
{
    struct ranks_share share;
    struct group *g;
    int rc;

    if ((rc = ranks_open(&g, &s.ranks, &share, e)) == 0) {
        machine_share(&s.machine, g, share.gpu, share.threads);
        rc = s.bench ? bench_run(&s, stdout, e) : train(g, argc, argv, e);
    }
    return ranks_close(g, rc, e);
}

static int start(int argc, char **argv, struct err *e)
{
    int rc = settings_contexts(&s, e);
    bool parent;

    if (s.recipe && strcmp(s.recipe, "list") == 0) {
        recipes_print(stdout);
        return 0;
    }
    if (rc < 0 || (rc = fill_in(e)) < 0)
        return rc;
    signal(SIGPIPE, SIG_IGN); /* a write then fails */
    if (s.plan)
        return plan_run(&s, stdout, e);
    s.machine.device = ranks_device(&s.ranks, s.machine.device);
    if (!s.bench) /* which has nothing to save */
        stop_install(); /* before there are ranks: each is born with it */
    rc = ranks_launch(&s.ranks, &parent, e);
    return parent || rc < 0 ? rc : be_rank(argc, argv, e);
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    bool stop = false;
    /* A copy of the command line for options.json: opt_parse reorders its arguments. */
    char **args = malloc(((size_t)argc + 1) * sizeof *args); /* opt_parse moves them */
    int rc;

    log_init("ltrain", 0);
    if (!args)
        return cmd_exit(&cmd, err_set(&e, E_SYS, "out of memory"), &e);
    memcpy(args, argv, ((size_t)argc + 1) * sizeof *args);
    settings_defaults(&s);
    settings_rows(&rows, &s);
    /* rc is the number of operands, which opt_parse has moved to argv[1] and after. */
    rc = opt_parse(&cmd, argc, argv, &stop, &e);
    if (rc >= 0 && !stop) {
        log_init("ltrain", s.quiet ? -1 : s.verbose);
        s.data = rc > 0 ? argv[1] : NULL;
        rc = rc > 1 ? err_set(&e, E_USAGE, "ltrain takes one data set; '%s' is a second",
                              argv[2])
                    : start(argc, args, &e);
    }
    free(args);
    return cmd_exit(&cmd, rc < 0 ? rc : 0, &e);
}
