/* train/ltrain.c - ltrain: fine-tune a model at a longer context, or train a fresh one. */
#include "base/file.h"
#include "base/log.h"
#include "base/opt.h"
#include "base/json.h"
#include "kernels/cards.h"
#include "train/bench.h"
#include "train/plan.h"
#include "train/run.h"
#include "train/stop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct settings s;

static const struct opt opts[] = {
    OPT_HEADING("the model"),
    { 'm', "model", "FOLDER", OPT_STR, &s.model, 0, 0,
      "base model: config.json and safetensors" },
    { 0, "init", "config.json", OPT_STR, &s.init, 0, 0, "a fresh model of this configuration" },
    { 0, "shape", SHAPES, OPT_ENUM, &s.shape, 0, 0,
      "its sizes alone, for --plan and --bench" },
    { 0, "mode", "full|lora|lora+", OPT_ENUM, &s.mode, 0, 0,
      "what is trained [lora+; full with --init]" },
    { 0, "rank", "N", OPT_I64, &s.rank, 1, 4096, "rank of the LoRA pairs [8]" },
    { 0, "alpha", "X", OPT_F64, &s.alpha, 1e-9, 1e9, "pairs add alpha/rank * B A [16]" },
    { 0, "targets", "LIST", OPT_STR, &s.targets, 0, 0,
      "of q,k,v,o,gate,up,down [q,k,v,o]" },
    OPT_HEADING("context and attention"),
    { 'c', "ctx", "TOKENS", OPT_STR, &s.ctx_text, 0, 0,
      "context trained at, 32k; several for --bench, --plan [the model's]" },
    { 0, "rope-factor", "F", OPT_F64, &s.rope_factor, 0, 1e6,
      "position interpolation, 0: ceil(ctx / model's context) [0]" },
    { 0, "attention", "dense|s2", OPT_ENUM, &s.attention, 0, 0,
      "while training [s2; dense with --init]" },
    { 0, "group", "TOKENS", OPT_TOKENS, &s.group, 2, 1 << 30, "of s2 [a quarter of --ctx]" },
    { 0, "group-ratio", "R", OPT_STR, &s.group_ratio, 0, 0, "the same as a share [1/4]" },
    { 0, "mask-documents", NULL, OPT_FLAG, &s.apart, 0, 0,
      "attention does not cross from one document to the next" },
    { 0, "packing", "concat|bestfit", OPT_ENUM, &s.packing, 0, 0,
      "rows cut from all documents joined, or of whole documents [concat]" },
    OPT_HEADING("steps"),
    { 'b', "batch", "N", OPT_I64, &s.batch, 1, 1 << 20, "sequences a step [64]" },
    { 0, "micro", "N", OPT_I64, &s.micro, 1, 1 << 20,
      "sequences computed at once [about 8k tokens]" },
    { 'n', "steps", "N", OPT_I64, &s.steps, 1, 1e12, "optimizer steps [1000]" },
    { 0, "epochs", "X", OPT_F64, &s.epochs, 1e-6, 1e6, "steps as passes over the data" },
    { 0, "lr", "X", OPT_F64, &s.lr, 0, 1e3, "learning rate [2e-5]" },
    { 0, "warmup", "N", OPT_I64, &s.warmup, 0, 1e12, "steps of linear warm-up [20]" },
    { 0, "schedule", "constant|cosine", OPT_ENUM, &s.schedule, 0, 0,
      "after the warm-up [constant]" },
    { 0, "min-lr", "X", OPT_F64, &s.min_lr, 0, 1e3, "where cosine ends [0]" },
    { 0, "decay", "X", OPT_F64, &s.decay, 0, 1e3, "decoupled weight decay, norms apart [0]" },
    { 0, "beta1", "X", OPT_F64, &s.beta1, 0, 0.999999, "of AdamW [0.9]" },
    { 0, "beta2", "X", OPT_F64, &s.beta2, 0, 0.99999999, "of AdamW [0.95]" },
    { 0, "eps", "X", OPT_F64, &s.eps, 1e-30, 1, "of AdamW [1e-8]" },
    { 0, "clip", "X", OPT_F64, &s.clip, 0, 1e9, "largest norm of the gradient, 0: any [1]" },
    { 0, "seed", "N", OPT_I64, &s.seed, 0, 1LL << 53,
      "of the order and of fresh weights [42]" },
    OPT_HEADING("data"),
    { 0, "split", "NAME", OPT_STR, &s.split, 0, 0, "of a folder of shards [train]" },
    { 0, "form", "auto|raw", OPT_ENUM, &s.form, 0, 0,
      "raw: take files for token ids that look like something else [auto]" },
    { 0, "val", "DATA", OPT_STR, &s.val, 0, 0,
      "held-out data: its loss (of a folder, the split 'validation')" },
    { 0, "val-every", "N", OPT_I64, &s.val_every, 1, 1e12, "steps between [100]" },
    { 0, "val-rows", "N", OPT_I64, &s.val_rows, 1, 1e12, "rows of it at most [16]" },
    { 0, "tokenizer", "FILE", OPT_STR, &s.tokenizer, 0, 0,
      "copied beside a model that is written whole [the data's]" },
    { 0, "any-tokenizer", NULL, OPT_FLAG, &s.any_tokenizer, 0, 0,
      "accept data made with another tokenizer than the model's" },
    OPT_HEADING("results"),
    { 'o', "output", "FOLDER", OPT_STR, &s.out, 0, 0,
      "adapter or model, checkpoints, metrics.jsonl, options.json" },
    { 'f', "force", NULL, OPT_FLAG, &s.anew, 0, 0, "start anew: what --output holds is removed" },
    { 0, "save-every", "N", OPT_I64, &s.save_every, 1, 1e12,
      "steps between checkpoints [100]" },
    { 0, "keep", "N", OPT_I64, &s.keep, 1, 1e6, "checkpoints that are kept [2]" },
    { 0, "metrics", "FILE", OPT_STR, &s.metrics, 0, 0,
      "JSON lines, a step each, - for stdout [OUTPUT/metrics.jsonl]" },
    { 0, "log-every", "N", OPT_I64, &s.log_every, 0, 1e12,
      "steps between lines where stderr is no terminal [10]" },
    { 0, "dtype", "float32|bfloat16|float16", OPT_ENUM, &s.dtype, 0, 0,
      "of a model that is written whole [float32]" },
    OPT_HEADING("the machine"),
    { 0, "device", "NAME", OPT_STR, &s.device, 0, 0, "auto, cpu or cuda [auto]" },
    { 'j', "threads", "N", OPT_I64, &s.threads, 0, 4096, "0: all processors [0]" },
    { 0, "memory", "SIZE", OPT_BYTES, &s.memory_bytes, 0, 1LL << 50,
      "that activations may fill, 24g [four fifths of what is free]" },
    { 0, "gpu-memory", "SIZE", OPT_BYTES, &s.device_bytes, 1, 1LL << 50,
      "limit on GPU memory, 24g [what is free]" },
    { 0, "host-memory", "SIZE", OPT_BYTES, &s.host_bytes, 0, 1LL << 50,
      "limit on pinned host memory [three quarters of what is free]" },
    { 0, "keep-layers", "N", OPT_I64, &s.keep_layers, -1, 1 << 20,
      "layers that are not recomputed, -1: as many as fit [-1]" },
    { 0, "plan", NULL, OPT_FLAG, &s.plan, 0, 0, "print the memory plan and stop" },
    { 0, "longest", NULL, OPT_FLAG, &s.longest, 0, 0, "with it, the longest context that fits" },
    { 0, "gpu", CARDS, OPT_ENUM, &s.gpu, 0, 0, "the card of the plan, here or not" },
    { 0, "bench", NULL, OPT_FLAG, &s.bench, 0, 0,
      "measure training steps of random weights, without data [5 steps]" },
    { 0, "deterministic", NULL, OPT_FLAG, &s.deterministic, 0, 0,
      "equal bits run after run on a GPU too, at some speed" },
    { 'q', "quiet", NULL, OPT_FLAG, &s.quiet, 0, 0, "warnings only" },
    { 'v', "verbose", NULL, OPT_FLAG, &s.verbose, 0, 0, "say more" },
    { 0, "json", NULL, OPT_FLAG, &s.json, 0, 0, "the summary, or the plan, as JSON on stdout" },
    OPT_END
};

static const struct cmd cmd = {
    .name = "ltrain",
    .synopsis = "DATA --model FOLDER -o OUT [--ctx TOKENS] [option ...]",
    .summary = "Trains a model on DATA (shards, one shard, raw u16 ids) at a longer context.\n"
               "The same command goes on where a stopped run was.",
    .examples = "  ltrain shards/ --model Llama-2-7b-hf --ctx 32k -o adapter/\n"
                "  ltrain shards/ --init config.json --ctx 256 --lr 1e-3 -o base/\n"
                "  ltrain shards/ --model Llama-2-7b-hf --ctx 100k --plan\n"
                "  ltrain --shape llama-2-7b --ctx 8k,100k --plan --gpu rtx-4090\n"
                "  ltrain --bench --shape llama-2-7b --ctx 8k,32k\n",
    .opts = opts,
};

static int finish(const struct run *r, bool done)
{
    char *text = run_summary(r);

    if (done)
        log_info("'%s' is complete already: %" PRId64
                 " steps (-f starts anew, more --steps goes on)", r->s->out, r->resumed);
    else
        log_info("%s in '%s'", r->s->mode > 0 ? "adapter" : "model", r->s->out);
    if (r->s->json && text)
        fputs(text, stdout);
    free(text);
    return 0;
}

static int train(int argc, char **argv, struct err *e)
{
    struct run r = { 0 };
    bool done = false;
    int rc = run_open(&r, &s, e);

    if (rc == 0 && (rc = run_begin(&r, &done, e)) == 0 &&
        (done || (rc = run_train(&r, argc, argv, e)) == 0))
        rc = finish(&r, done);
    run_close(&r);
    return rc;
}

static int start(int argc, char **argv, struct err *e)
{
    int rc = settings_contexts(&s, e);

    if (rc < 0)
        return rc;
    stop_install();
    return s.bench ? bench_run(&s, stdout, e) : s.plan ? plan_run(&s, stdout, e)
                                                       : train(argc, argv, e);
}

int main(int argc, char **argv)
{
    struct err e = { 0 };
    bool stop = false;
    char **args = malloc(((size_t)argc + 1) * sizeof *args); /* opt_parse moves them */
    int rc;

    log_init("ltrain", 0);
    if (!args)
        return cmd_exit(&cmd, err_set(&e, E_SYS, "out of memory"), &e);
    memcpy(args, argv, ((size_t)argc + 1) * sizeof *args);
    settings_defaults(&s);
    rc = opt_parse(&cmd, argc, argv, &stop, &e);
    if (rc >= 0 && !stop) {
        log_init("ltrain", s.quiet ? -1 : s.verbose);
        s.data = rc > 0 ? argv[1] : NULL;
        rc = rc > 1 ? err_set(&e, E_USAGE, "'%s' is one data set too many", argv[2])
                    : start(argc, args, &e);
    }
    free(args);
    return cmd_exit(&cmd, rc < 0 ? rc : 0, &e);
}
