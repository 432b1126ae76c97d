/* train/options.c - the options of ltrain, one row each; see settings.h.
 *
 * OPT_RESULT is for what the numbers of a run depend on: such a row is kept in its checkpoints, and
 * the run is continued only with the same value. Defaults stand in settings_defaults. */
#include "train/settings.h"

#include "kernels/cards.h"
#include "model/model_rows.h"

/* In all rows: short name (0: none), long name, its argument, type, where the value goes,
 * smallest and largest value, help. The help ends with the default in brackets, if there is
 * one. */
static void model_rows(struct opt_table *t, struct settings *s)
{
    const struct opt rows[] = {
        { 0, "recipe", "NAME", OPT_STR, &s->recipe, 0, 0,
          "options by one name; list shows them [mix-2026; none with --init]" },
        OPT_HEADING("the model"),
        ROW_MODEL(&s->model),
        { 0, "init", "config.json", OPT_STR, &s->init, 0, 0,
          "a fresh model of this configuration" },
        ROW_SHAPE(&s->shape, "sizes without weights, for --plan and --bench"),
        { 0, "mode", "full|lora|lora+", OPT_ENUM | OPT_RESULT, &s->mode, 0, 0,
          "what is trained [lora+; full with --init]" },
        { 0, "rank", "N", OPT_I64 | OPT_RESULT, &s->rank, 1, 4096, "rank of the LoRA pairs [8]" },
        { 0, "alpha", "X", OPT_F64 | OPT_RESULT, &s->alpha, 1e-9, 1e9,
          "pairs add alpha/rank * B A [16]" },
        { 0, "targets", "LIST", OPT_STR | OPT_RESULT, &s->lora.targets, 0, 0,
          "with a LoRA pair: q,k,v,o,gate,up,down, names, or all-linear [q,k,v,o]" },
        { 0, "rank-pattern", "LIST", OPT_STR | OPT_RESULT, &s->lora.rank_pattern, 0, 0,
          "ranks of some: down=16,layers.0.mlp.up_proj=4" },
        { 0, "alpha-pattern", "LIST", OPT_STR | OPT_RESULT, &s->lora.alpha_pattern, 0, 0,
          "alphas of some, likewise" },
        { 0, "rslora", NULL, OPT_FLAG | OPT_RESULT, &s->lora.rslora, 0, 0,
          "pairs add alpha/sqrt(rank) * B A instead" },
        { 0, "dropout", "P", OPT_F64 | OPT_RESULT, &s->lora.dropout, 0, 0.99,
          "share of what pairs read that a step leaves out [0]" },
        { 0, "trainable", "LIST", OPT_STR | OPT_RESULT, &s->lora.trainable, 0, 0,
          "trained whole too: embed,norm,head, names [embed,norm; lora: none]" },
        { 0, "tied", "keep|split", OPT_ENUM | OPT_RESULT, &s->tied, 0, 0,
          "where embedding and lm_head are one: train both uses, or one [keep]" },
        OPT_HEADING("context and attention"),
        ROW_CTX(&s->contexts,
                "context trained at, 32k; several for --bench, --plan [the model's]"),
        ROWS_ROPE(&s->rope, OPT_AUTO | OPT_RESULT,
                  "how RoPE is stretched to --ctx; auto: the model's kind, or pi [auto]",
                  "by how much; auto: by what --ctx asks for [auto]"),
        { 0, "attention", "dense|s2", OPT_ENUM | OPT_RESULT, &s->attention, 0, 0,
          "attention while training [s2; dense with --init]" },
        { 0, "group", "TOKENS", OPT_TOKENS | OPT_RESULT, &s->group, 2, 1 << 30,
          "tokens in a group of s2 [--group-ratio of --ctx]" },
        { 0, "group-ratio", "R", OPT_STR, &s->group_ratio, 0, 0, "the same, as a fraction of "
          "--ctx [1/16 by mix-2026, else 1/4]" },
        { 0, "dense-every", "N", OPT_I64 | OPT_RESULT, &s->dense_every, 0, 1e12,
          "with s2: every N-th step is dense, 0: none [10 by mix-2026, else 0]" },
        { 0, "dense-last", "SHARE", OPT_F64 | OPT_RESULT, &s->dense_last, 0, 0.999999,
          "with s2: so is this share, at the end [0.05 by mix-2026, else 0]" },
        { 0, "mask-documents", NULL, OPT_FLAG | OPT_RESULT, &s->mask_documents, 0, 0,
          "attention does not cross from one document to the next" },
        { 0, "packing", "concat|bestfit", OPT_ENUM | OPT_RESULT, &s->packing, 0, 0,
          "rows of joined documents, or of whole ones [concat; by masks: bestfit]" },
        OPT_END
    };

    opt_add(t, rows);
}

/* Sequences per step and their optimizer. Limits are inclusive. */
static void step_rows(struct opt_table *t, struct settings *s)
{
    const struct opt rows[] = {
        OPT_HEADING("steps"),
        { 'b', "batch", "N", OPT_I64 | OPT_RESULT, &s->batch, 1, 1 << 20,
          "sequences per step [64]" },
        { 0, "micro", "N", OPT_I64 | OPT_RESULT, &s->micro, 1, 1 << 20, /* the order of sums */
          "sequences computed at once [about 8k tokens]" },
        { 'n', "steps", "N", OPT_I64 | OPT_RESULT, &s->steps, 1, 1e12, "optimizer steps [1000]" },
        { 0, "epochs", "X", OPT_F64, &s->epochs, 1e-6, 1e6, "steps, as passes over the data" },
        { 0, "lr", "X", OPT_F64 | OPT_RESULT, &s->lr, 0, 1e3, "learning rate [2e-5]" },
        { 0, "warmup", "N", OPT_I64 | OPT_RESULT, &s->warmup, 0, 1e12,
          "steps of linear warm-up [20]" },
        { 0, "schedule", "constant|cosine", OPT_ENUM | OPT_RESULT, &s->schedule, 0, 0,
          "learning rate after the warm-up [constant]" },
        { 0, "min-lr", "X", OPT_F64 | OPT_RESULT, &s->min_lr, 0, 1e3, "learning rate at the "
                                                                      "end of cosine [0]" },
        { 0, "decay", "X", OPT_F64 | OPT_RESULT, &s->decay, 0, 1e3,
          "decoupled weight decay, not of norms [0]" },
        { 0, "beta1", "X", OPT_F64 | OPT_RESULT, &s->beta1, 0, 0.999999, "of AdamW [0.9]" },
        { 0, "beta2", "X", OPT_F64 | OPT_RESULT, &s->beta2, 0, 0.99999999, "of AdamW [0.95]" },
        { 0, "eps", "X", OPT_F64 | OPT_RESULT, &s->eps, 1e-30, 1, "of AdamW [1e-8]" },
        { 0, "clip", "X", OPT_F64 | OPT_RESULT, &s->clip, 0, 1e9,
          "largest norm of the gradient, 0: any [1]" },
        ROW_SEED(&s->seed, OPT_RESULT, "of the order of the data and of fresh weights [42]"),
        OPT_END
    };

    opt_add(t, rows);
}

/* Where data and results are. None of it changes the numbers of a run, except the data
 * itself, which the checkpoint names by its hash. */
static void data_rows(struct opt_table *t, struct settings *s)
{
    const struct opt rows[] = {
        OPT_HEADING("data"),
        { 0, "split", "NAME", OPT_STR, &s->split, 0, 0, "split of a folder of shards [train]" },
        { 0, "form", "auto|raw", OPT_ENUM, &s->form, 0, 0,
          "raw: read files as token ids, whatever they look like [auto]" },
        { 0, "val", "DATA", OPT_STR, &s->val, 0, 0,
          "held-out data, its loss is measured (of a folder: split 'validation')" },
        { 0, "val-every", "N", OPT_I64, &s->val_every, 1, 1e12, "steps between measurements "
                                                                "[100]" },
        { 0, "val-rows", "N", OPT_I64, &s->val_rows, 1, 1e12, "at most so many rows of it "
                                                              "[16]" },
        { 0, "tokenizer", "FILE", OPT_STR, &s->tokenizer, 0, 0,
          "copied beside a full model [the data's]" },
        { 0, "any-tokenizer", NULL, OPT_FLAG, &s->any_tokenizer, 0, 0,
          "accept data made with another tokenizer than the model's" },
        OPT_HEADING("results"),
        { 'o', "output", "FOLDER", OPT_STR, &s->out, 0, 0,
          "adapter or model, checkpoints, metrics, record [adapter, or model]" },
        ROW_FORCE(&s->force, "start over: what --output holds is removed"),
        { 0, "save-every", "N", OPT_I64, &s->save_every, 1, 1e12,
          "steps between checkpoints [100]" },
        { 0, "keep", "N", OPT_I64, &s->keep, 1, 1e6, "checkpoints that are kept [2]" },
        { 0, "metrics", "FILE", OPT_STR, &s->metrics, 0, 0,
          "JSON lines, one per step; - for stdout [OUTPUT/metrics.jsonl]" },
        { 0, "metrics-ranks", NULL, OPT_FLAG, &s->metrics_ranks, 0, 0,
          "times and memory of every rank in each line too" },
        { 0, "log-every", "N", OPT_I64, &s->log_every, 0, 1e12,
          "steps between lines when stderr is not a terminal [10]" },
        { 0, "dtype", "float32|bfloat16|float16", OPT_ENUM, &s->dtype, 0, 0,
          "type of the weights of a full model [float32]" },
        OPT_END
    };

    opt_add(t, rows);
}

/* Where and how the run computes. Of these only --device is marked OPT_RESULT: another kind
 * of device adds up in another order. */
static void machine_rows(struct opt_table *t, struct settings *s)
{
    const struct opt rows[] = {
        OPT_HEADING("the machine"),
        ROWS_MACHINE(&s->machine),
        ROWS_RANKS(&s->ranks),
        { 0, "cp", "N|auto", OPT_STR, &s->cp_text, 0, 0,
          "ranks that share a sequence; auto: as the plan is fastest [1]" },
        { 0, "dp", "N", OPT_I64, &s->dp, 1, 1 << 20,
          "ranks, or groups of --cp of them, that share a batch [all]" },
        { 0, "shard-weights", "N", OPT_I64, &s->shares, 1, 1024,
          "ranks that hold the frozen weights together, each a part [1]" },
        { 0, "memory", "SIZE", OPT_BYTES, &s->memory_bytes, 0, 1LL << 50,
          "limit on saved activations, 24g [four fifths of what is free]" },
        { 0, "keep-layers", "N", OPT_I64, &s->keep_layers, -1, 1 << 20,
          "layers that save all activations, -1: as many as fit [-1]" },
        { 0, "plan", NULL, OPT_FLAG, &s->plan, 0, 0, "print the memory plan and stop" },
        { 0, "longest", NULL, OPT_FLAG, &s->longest, 0, 0,
          "with --plan: the longest context that fits" },
        { 0, "gpu", CARDS, OPT_ENUM, &s->gpu, 0, 0, "with --plan: the card to plan for, "
                                                    "present or not" },
        { 0, "hosts", "N", OPT_I64, &s->hosts, 1, 1 << 16,
          "with --plan and --gpus: on so many hosts [1]" },
        { 0, "link", "NAME|RATE", OPT_STR, &s->link, 0, 0,
          "with --plan: the slowest link between ranks, 400g or bytes/s" },
        { 0, "bench", NULL, OPT_FLAG, &s->bench, 0, 0,
          "measure training steps of random weights, without data [5 steps]" },
        { 0, "deterministic", NULL, OPT_FLAG, &s->machine.deterministic, 0, 0,
          "the same bits in every run on a GPU too; slower" },
        { 0, "same-on-any-ranks", NULL, OPT_FLAG | OPT_RESULT, &s->same_bits, 0, 0,
          "the same bits on any number of ranks on the CPU; slower, takes memory" },
        ROW_QUIET(&s->quiet, "warnings only"),
        ROW_VERBOSE(&s->verbose, "say more"),
        ROW_JSON(&s->json, "the summary, or the plan, as JSON on stdout"),
        OPT_END
    };

    opt_add(t, rows);
}

void settings_rows(struct opt_table *t, struct settings *s)
{
    model_rows(t, s);
    step_rows(t, s);
    data_rows(t, s);
    machine_rows(t, s);
}
