/* eval/leval.c - leval: the table of its tasks, what they share, and the one that was asked for. */
#include "base/log.h"
#include "eval/bench_eval.h"
#include "eval/longppl.h"
#include "eval/ppl.h"
#include "eval/tasks.h"
#include "kernels/group.h"
#include "model/model_rows.h"
#include "ranks/launch.h"
#include "ranks/open.h"

#include <string.h>

/* A task is a file that defines a struct task, and a row here. The last one asked for is
 * run. */
static const struct task *const tasks[] = { &task_ppl, &task_longppl, &task_tasks, &task_prompts, &task_list,
                                           &task_table, &task_bench };
enum { TASKS = sizeof tasks / sizeof *tasks };

/* Values that mean "not given": shape -1, host_bytes -1. The options write into this. */
static struct eval_options o = { .shape = -1, .batch_tokens = 8192,
                                 .machine = { .device = "auto", .host_bytes = -1 } };

static const struct opt shared_rows[] = {
    OPT_HEADING("the model"),
    ROW_MODEL(&o.model),
    ROW_ADAPTER(&o.adapter),
    ROW_CTX(&o.ctx, "contexts, 8k,16k [the model's own]"),
    ROWS_ROPE(&o.rope, OPT_AUTO | OPT_RESULT,
              "stretch RoPE, as ltrain does; auto: the model's kind, or pi [auto]",
              "by how much; auto: by what each context asks for [none]"),
    OPT_END
};
static const struct opt result_rows[] = {
    OPT_HEADING("results"),
    ROW_JSON(&o.json, "one JSON object in place of the table"),
    { 'o', "output", "FILE", OPT_STR, &o.out, 0, 0, "write the result there [-]" },
    ROW_FORCE(&o.force, "replace output files; accept data of another tokenizer"),
    OPT_HEADING("the machine"),
    ROWS_MACHINE(&o.machine),
    ROWS_RANKS(&o.ranks),
    { 0, "cp", "N", OPT_I64, &o.cp, 1, 1024, "ranks that share each window [1]" },
    { 0, "batch-tokens", "N", OPT_TOKENS, &o.batch_tokens, 1, 0x1p31,
      "tokens computed at once, or one window [8k]" },
    ROW_SHAPE(&o.shape, "for --bench: sizes by name"),
    ROW_QUIET(&o.quiet, "warnings and errors only"),
    ROW_VERBOSE(&o.verbose, "say more"),
    OPT_END
};

/* Filled before the options are parsed, from the tables of all tasks. */
static struct opt_table rows;
static const struct cmd cmd = {
    "leval", "--ppl FILE [--model DIR] [--adapter DIR] [--ctx LIST] | --tasks LIST --model DIR\n"
    "              [--adapter DIR] [--lengths LIST] | --table FILE ... | --bench",
    "Perplexity of a model at each of several contexts, and what it finds in long prompts.",
    "  leval --ppl pg19.val --model Llama-2-7b-hf --adapter adapter/ --ctx 8k,16k,32k\n"
    "  leval --ppl book.txt --model Llama-2-7b-hf --ctx 4k,8k --protocol stride --chart\n"
    "  leval --ppl pg19.val --longppl --model Llama-2-7b-hf --adapter adapter/ --ctx 32k\n"
    "  leval --ppl shards/ --model base/ --ctx 512,1k,2k --json > base.json\n"
    "  leval --tasks list\n"
    "  leval --tasks passkey,niah --haystack pg19/ --model Llama-2-7b-hf --adapter adapter/\n"
    "        --lengths 4k,8k,16k,32k --depths 11 --journal answers.ndjson --plot map.png\n"
    "  leval --table base.json lora.json longlora.json --plot ppl.png\n"
    "  leval --bench --shape llama-2-7b --ctx 4k,32k\n", rows.row, NULL
};

/* Options in the order of --help: the model, each task under its heading, results. */
static void put_rows_together(void)
{
    opt_add(&rows, shared_rows);
    for (int i = 0; i < TASKS; i++) {
        const struct opt heading[] = { OPT_HEADING(tasks[i]->help), OPT_END };

        if (tasks[i]->help)
            opt_add(&rows, heading);
        opt_add(&rows, tasks[i]->rows);
    }
    opt_add(&rows, result_rows);
}

/* What all tasks share; then what only this one has. */
static int check(const struct task *t, struct err *e)
{
    int rc;

    if (o.shape >= 0 && t->needs != NEEDS_SIZES)
        return err_set(e, E_USAGE, "--shape gives sizes but no weights: use it with --bench");
    if ((rc = rope_check(&o.rope, e)) < 0)
        return rc;
    /* "-" is standard output, which is also the default. */
    if (o.out && strcmp(o.out, "-") == 0)
        o.out = NULL;
    rc = t->check(&o, e);
    return rc < 0 ? rc : eval_check_output(o.out, o.force, e);
}

/* Tasks[0], perplexity, stays where no other is asked for. */
static const struct task *asked_for(void)
{
    const struct task *t = tasks[0];

    for (int i = 1; i < TASKS; i++)
        if (tasks[i]->is_asked(&o))
            t = tasks[i];
    return t;
}

/* Runs it and shows its result, by one of the ranks. */
static int run(const struct task *t, struct group *g, struct err *e)
{
    struct eval v = { .o = &o, .asked = t->asked };
    int rc = eval_run(t, &v, e);

    rc = group_meet(g, rc, NULL, e);
    if (rc == 0 && t->show && group_writes(g))
        rc = t->show(&v, e);
    /* Closing is safe after a failure at any point. */
    eval_close(t, &v);
    return group_meet(g, rc, NULL, e);
}

/* What can be refused is, before there are other processes. A task that computes nothing has one. */
static int start(struct err *e)
{
    const struct task *t = asked_for();
    struct ranks_share share;
    struct group *g;
    bool parent = false;
    int rc = t->fill ? t->fill(&o, e) : 0;

    rc = rc < 0 ? rc : check(t, e);
    if (rc == 0 && t->needs == NEEDS_NOTHING)
        return run(t, group_alone(), e);
    o.machine.device = ranks_device(&o.ranks, o.machine.device);
    if (rc < 0 || (rc = ranks_launch(&o.ranks, &parent, e)) < 0 || parent)
        return rc;
    if ((rc = ranks_open(&g, &o.ranks, &share, e)) == 0) {
        machine_share(&o.machine, g, share.gpu, share.threads);
        rc = run(t, g, e);
    }
    return ranks_close(g, rc, e);
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    bool done;
    int rc;

    put_rows_together();
    rc = opt_parse(&cmd, argc, argv, &done, &e);
    log_init(cmd.name, o.quiet ? -1 : o.verbose);
    if (rc >= 0 && !done) {
        /* opt_parse has moved the operands to the front and returned their number. */
        o.operand = argv + 1;
        o.n_operands = rc;
        rc = start(&e);
    }
    return cmd_exit(&cmd, rc, &e);
}
