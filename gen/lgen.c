/* gen/lgen.c - lgen: what a model writes. */
#include "base/log.h"
#include "gen/talk.h"
#include "kernels/cards.h"
#include "model/model_rows.h"
#include "ranks/launch.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct asked o = { .machine = { .device = "auto", .host_bytes = -1 }, .gpu = -1, .chat = -1,
                          .parallel = 8, .sinks = 4, .reply = { .max_tokens = 256 } };
static int64_t seed;

static const struct opt rows[] = {
    OPT_HEADING("the model"),
    ROW_MODEL(&o.model),
    ROW_ADAPTER(&o.adapter),
    { 't', "tokenizer", "FILE", OPT_STR, &o.tokenizer, 0, 0, "its tokenizer [the model folder's]" },
    OPT_HEADING("what it is given"),
    { 0, "file", "FILE", OPT_LIST, &o.files, 0, 0, "text that stands before the prompt; may be repeated" },
    { 0, "session", "FILE", OPT_STR, &o.session, 0, 0,
      "keep what was read of --file there, and start from it" },
    { 'i', "interactive", NULL, OPT_FLAG, &o.talk, 0, 0, "a conversation: a line of input is a message" },
    { 0, "batch", "FILE", OPT_STR, &o.batch, 0, 0, "many prompts, a JSON object a line; - is standard input" },
    { 0, "parallel", "N", OPT_I64, &o.parallel, 1, 4096, "with --batch: prompts at once [8]" },
    { 0, "chat", TURNS_FORMS, OPT_ENUM, &o.chat, 0, 0,
      "the form of a conversation [the model's own, else none]" },
    { 0, "system", "TEXT", OPT_STR, &o.system, 0, 0, "a conversation's first, standing message" },
    { 0, "no-bos", NULL, OPT_FLAG, &o.no_bos, 0, 0, "no BOS before the text" },
    OPT_HEADING("what it writes"),
    { 'n', "max-tokens", "N", OPT_TOKENS, &o.reply.max_tokens, 0, 0x1p31, "at most so many [256]" },
    { 0, "temperature", "X", OPT_F64, &o.reply.sampling.temperature, 0, 100,
      "choose at random, flatter the higher; 0: the likeliest [0]" },
    { 0, "top-k", "N", OPT_I64, &o.reply.sampling.top_k, 0, 0x1p31, "of the N likeliest; 0: of all [0]" },
    { 0, "top-p", "P", OPT_F64, &o.reply.sampling.top_p, 1e-9, 1,
      "of the likeliest that have P together [1]" },
    { 0, "min-p", "P", OPT_F64, &o.reply.sampling.min_p, 0, 1,
      "of those with P times the likeliest's probability [0]" },
    { 0, "repetition-penalty", "X", OPT_F64, &o.reply.sampling.repetition, 0.01, 100,
      "make less likely what was there [1]" },
    ROW_SEED(&seed, 0, "of the choices [0]"),
    { 0, "stop", "TEXT", OPT_LIST, &o.stop, 0, 0, "end where this would come; may be repeated" },
    { 0, "ignore-eos", NULL, OPT_FLAG, &o.reply.ignore_eos, 0, 0, "go on behind the end of a text" },
    { 0, "logprobs", NULL, OPT_FLAG, &o.logprobs, 0, 0, "with JSON: of each token, in the model's own odds" },
    ROW_JSON(&o.json, "one JSON object in place of the text"),
    { 0, "raw", NULL, OPT_FLAG, &o.raw, 0, 0, "to a terminal as it is, control characters too" },
    OPT_HEADING("memory"),
    { 'c', "ctx", "TOKENS", OPT_TOKENS, &o.ctx, 2, 0x1p31,
      "room for a text [as many as it needs; -i, --batch: at most 4k]" },
    { 0, "cache", CACHES, OPT_ENUM, &o.cache, 0, 0,
      "keys and values: auto is float on the CPU, bf16 on a GPU [auto]" },
    { 0, "cache-in-host", NULL, OPT_FLAG, &o.cache_in_host, 0, 0,
      "of a GPU: in the host's memory, where they are too many for it" },
    { 0, "window", "N", OPT_TOKENS, &o.window, 4, 0x1p30,
      "keep a text's first tokens and its last N (StreamingLLM); 0: all [0]" },
    { 0, "sinks", "N", OPT_I64, &o.sinks, 0, 4096, "with --window: so many first ones [4]" },
    { 0, "chunk", "N", OPT_TOKENS, &o.chunk, 1, 0x1p24,
      "tokens of a prompt computed at once; 0: 512, of a GPU 2k [0]" },
    { 0, "plan", NULL, OPT_FLAG, &o.plan, 0, 0, "say what it takes and how fast it is, and end" },
    { 0, "gpu", CARDS, OPT_ENUM, &o.gpu, 0, 0, "with --plan: the card to plan for, here or not" },
    OPT_HEADING("the machine"),
    ROWS_MACHINE(&o.machine),
    ROWS_RANKS(&o.ranks),
    ROW_QUIET(&o.quiet, "warnings and errors only"),
    ROW_VERBOSE(&o.verbose, "say more"),
    OPT_END
};

static const struct cmd cmd = {
    "lgen", "--model DIR [--adapter DIR] [--file FILE ...] [prompt ...] | -i | --batch FILE",
    "Writes on from a prompt: text of a model, of a base with its adapter, or merged.",
    "  lgen -m Llama-2-7b-hf -a adapter/ 'Once upon a time'\n"
    "  lgen -m merged/ --file book.txt --session book.kv 'Who is the gardener?'\n"
    "  lgen -m merged/ -i --system 'Answer briefly.'\n"
    "  lgen -m merged/ --temperature 0.8 --top-p 0.95 --seed 7 < prompt.txt\n"
    "  lgen -m merged/ --batch prompts.jsonl > replies.jsonl\n"
    "  lgen -m Llama-2-7b-hf --ctx 100k --plan --gpu rtx-4090\n", rows, NULL
};

static int check(struct err *e)
{
    int rc = sampling_check(&o.reply.sampling, e);

    if (rc < 0)
        return rc;
    if (!o.model) {
        err_set(e, E_USAGE, "no --model DIR given");
        return err_hint(e, "lgen --help shows examples");
    }
    if (o.talk + (o.batch != NULL) + (o.words > 0 || o.session != NULL) > 1)
        return err_set(e, E_USAGE, "-i, --batch, and a prompt or --session exclude each other");
    if (o.session && o.files.n == 0)
        return err_set(e, E_USAGE, "--session keeps what --file names: give both");
    if (o.session && o.window)
        return err_set(e, E_USAGE, "--session keeps a whole text: leave out --window");
    if (o.batch && o.window)
        return err_set(e, E_USAGE, "--window is for one text: leave out --batch");
    if (o.window && (o.cache_in_host || o.ctx))
        return err_set(e, E_USAGE, "--window limits a text by itself: leave out --%s",
                       o.ctx ? "ctx" : "cache-in-host");
    if (o.gpu >= 0 && !o.plan)
        return err_set(e, E_USAGE, "--gpu plans for a card: give --plan");
    if (o.system && o.chat == CHAT_OTHER)
        return err_set(e, E_USAGE, "--system needs a form of conversation: --chat");
    if (o.logprobs && !o.json && !o.batch)
        return err_set(e, E_USAGE, "--logprobs are for --json and --batch");
    /* before the model is loaded, which may take minutes */
    if (o.batch && !o.plan && strcmp(o.batch, "-") != 0 && access(o.batch, R_OK) != 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", o.batch);
    return 0;
}

/* Stop strings, with the one that ends a reply of the chat. */
static void settle_stops(const struct opening *g)
{
    const char *end = turns_stop(g->chat);

    if (end && o.stop.n < (int)(sizeof o.stop.v / sizeof *o.stop.v))
        o.stop.v[o.stop.n++] = end;
    o.reply.stop = o.stop.v;
    o.reply.n_stop = o.stop.n;
}

/* Rows of each text where it is not known how long they will be. */
static int64_t usual_rows(const struct opening *g)
{
    int64_t reach = config_reach(&g->s.config);

    return o.ctx ? o.ctx : reach < 4096 ? reach : 4096;
}

/* Everything that can be refused is, before the weights are loaded. ranks: that a plan is for. */
static int run(struct opening *g, struct question *q, int ranks, struct err *e)
{
    bool one = !o.talk && !o.batch && !(o.plan && o.words == 0 && o.files.n == 0);
    int64_t need, seqs = o.batch ? o.parallel : 1;
    int rc = opening_files(g, &o, e);

    if (rc == 0)
        settle_stops(g);
    if (rc == 0 && one)
        rc = question_read(q, g, e);
    if (rc == 0 && (one || o.window))
        rc = opening_rows(g, q->n, &need, e);
    else if (rc == 0)
        need = usual_rows(g);
    if ((rc = group_meet(opening_ranks(g), rc, NULL, e)) < 0)
        return rc;
    if (o.plan)
        return opening_print(g, ranks > 1 ? ranks : 1, need, seqs, stdout, e);
    if ((rc = opening_plan(g, need, seqs, e)) < 0 || (rc = opening_load(g, e)) < 0)
        return rc;
    rc = o.batch ? talk_many(g, e) : o.talk ? talk_on(g, e) : talk_once(g, q, e);
    /* the others may wait for rows of the text, and come to no meeting */
    return rc < 0 && !opening_ranks(g)->over ? group_leave(opening_ranks(g), rc) : rc;
}

/* As one of the ranks, if there are more. */
static int start(struct err *e)
{
    struct opening g = { 0 };
    struct question q = { 0 };
    struct ranks_share share;
    struct group *ranks = NULL;
    bool parent = false;
    int n = ranks_asked(&o.ranks, e), rc = n < 0 ? n : check(e);

    o.machine.device = ranks_device(&o.ranks, o.machine.device);
    if (rc == 0 && !o.plan)
        rc = ranks_launch(&o.ranks, &parent, e);
    if (rc < 0 || parent)
        return rc;
    if (!o.plan && (rc = ranks_open(&ranks, &o.ranks, &share, e)) == 0)
        machine_share(&o.machine, ranks, share.gpu, share.threads);
    if (rc == 0)
        rc = run(&g, &q, n, e);
    question_free(&q);
    opening_close(&g);
    return ranks_close(ranks, rc, e);
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    bool done;
    int rc;

    sampling_defaults(&o.reply.sampling);
    rc = opt_parse(&cmd, argc, argv, &done, &e);
    log_init(cmd.name, o.quiet ? -1 : o.verbose);
    if (rc >= 0 && !done) {
        o.word = argv + 1;
        o.words = rc;
        o.reply.sampling.seed = (uint64_t)seed;
        signal(SIGPIPE, SIG_IGN); /* a write then fails */
        rc = start(&e);
    }
    return cmd_exit(&cmd, rc, &e);
}
