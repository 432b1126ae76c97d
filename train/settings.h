/* train/settings.h - what a run was asked to do, resolved against its model and its data. */
#ifndef TRAIN_SETTINGS_H
#define TRAIN_SETTINGS_H
#include "base/err.h"
#include "base/opt.h"
#include "formats/weights/config.h"
#include "formats/weights/weights.h"
#include "model/rope.h"
#include "model/session.h"
#include "ranks/open.h"
#include "train/lora.h"
#include "train/mix.h"
#include "train/schedule.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

enum packing { PACKING_CONCAT, PACKING_BESTFIT }; /* order.h, pack_rows.h */
enum tied { TIED_KEEP, TIED_SPLIT };

/* -1 (or NULL, or a NaN) in a field with "by": the user gave none, and settings_resolve fills
 * it in. Strings point into argv. */
struct settings {
    const char *data, *model, *init, *out;
    const char *recipe;  /* recipes.h; NULL: none */
    int shape;           /* of preset.h's SHAPES; -1: none. For plans and benchmarks */
    struct opt_counts contexts; /* --ctx: one, or of a benchmark or a plan several */
    const char *split, *val, *tokenizer, *metrics;
    int mode;            /* 0 full, 1 lora, 2 lora+; by: full with --init, else lora+ */
    int64_t rank;
    double alpha;
    struct lora_lists lora;
    int attention;       /* enum attention_kind; by: dense with --init and no group, else s2 */
    int64_t ctx;         /* by: the model's context */
    int64_t group;       /* tokens; by: group_ratio of ctx */
    const char *group_ratio; /* "1/4", "0.25" */
    struct rope_ask rope;
    bool rope_new;       /* by: a kind but pi extends the model */
    int64_t dense_every; /* with S2: every so many-th step is dense; 0: none (mix.h) */
    double dense_last;   /* and so is this share of the steps, at the end */
    bool mask_documents; /* attention does not cross documents */
    int packing;         /* enum packing; by: bestfit, documents masked, for data with masks */
    int pack_order;      /* enum pack_order: no option, see settings_before */
    int tied;            /* enum tied, of a base with one matrix for embedding and head that lora+
                            trains; by: keep. Elsewhere -1 */
    int64_t batch, micro; /* sequences; micro by: about 8k tokens at once */
    int64_t steps;       /* by: 1000, or epochs */
    double epochs;       /* 0: not given */
    double lr, min_lr;
    int64_t warmup;
    int schedule;        /* enum schedule_kind */
    double decay, beta1, beta2, eps, clip;
    int64_t seed;
    int64_t save_every, keep, log_every, val_every, val_rows;
    int64_t memory_bytes, keep_layers;
    struct machine machine;
    struct ranks_options ranks;
    const char *cp_text;  /* --cp: a number, or "auto"; NULL: not given */
    int64_t dp;           /* 0: not given */
    int64_t shares;       /* ranks that hold frozen weights together; 1: none */
    int64_t cp;           /* ranks that a sequence lies over (parallel.h); 0: to be chosen */
    int gpu;              /* of cards.h's CARDS, for a plan; -1: not given */
    int64_t hosts;        /* for a plan, of ranks.gpus each */
    const char *link;     /* for a plan: of wires.h, or bytes a second */
    bool metrics_ranks;
    int dtype;           /* of the model that full training writes: 0 f32, 1 bf16, 2 f16 */
    int form; /* 1: files without a form of ours are raw ids, whatever they look like */
    bool same_bits;      /* on any number of ranks */
    bool plan, longest, bench, force, any_tokenizer, json, quiet, verbose;
};
void settings_defaults(struct settings *s); /* the paper's */

/* The options of ltrain, over s: the one list of them. */
void settings_rows(struct opt_table *t, struct settings *s);

/* *run: what the newest checkpoint in s->out says of the run that made it (see settings_run), NULL
 * where there is none, or where s starts over. Unlike what continues it, this is not verified: it
 * is for options whose default has changed since, which an older run keeps as they were. E_SYS. */
int settings_before(const struct settings *s, json_t **run, struct err *e);
/* packing, mask_documents, pack_order for data that has masks or none, and tied for a base that is
 * tied or not; before is NULL for a new run. */
void settings_packing(struct settings *s, bool masked, const json_t *before);
void settings_tied(struct settings *s, bool tied, const json_t *before);

/* ctx from contexts, which is a list for --bench and --plan alone. E_USAGE. */
int settings_contexts(struct settings *s, struct err *e);
/* The combination of options, before any file is opened. E_USAGE. */
int settings_check(const struct settings *s, struct err *e);
/* Fills in what depends on the model, c becomes the extended configuration and *o what the
 * model is opened with. data_tokens: of the data (of a packing, those of its rows, padding
 * and all), 0 when there is no data (--plan).
 * E_CONFIG. note (cap bytes): a warning for people, or "". */
int settings_resolve(struct settings *s, struct llama_config *c, int64_t data_tokens,
                     struct model_options *o, char *note, int cap, struct err *e);

/* "1/4" or "0.25" of ctx, in (0, 1], rounded down. E_USAGE. */
int settings_ratio(const char *ratio, int64_t ctx, int64_t *group, struct err *e);
/* That a plan is for: --gpus times --hosts. 0: --gpus is no number. */
int64_t settings_ranks(const struct settings *s);
struct schedule settings_schedule(const struct settings *s);
/* Which steps are dense, by the options; none where all are. */
struct mix settings_mix(const struct settings *s);
/* Attention of a step, counted from 1. */
enum attention_kind settings_attention(const struct settings *s, int64_t step);
/* The number of steps counts in steps before the last: such a run cannot be made longer. */
bool settings_has_end(const struct settings *s);
const char *settings_attention_name(enum attention_kind kind); /* "dense", "s2" */
const char *settings_mode(int mode);           /* "full", "lora", "lora+" */
enum train_mode settings_train_mode(int mode);

/* What a checkpoint keeps, and a continued run must repeat: a flat object of the options that
 * change results (rows with OPT_RESULT) as they were resolved, and of what is resolved from them
 * and the model. The caller decrefs. model_id names the base weights or the fresh configuration,
 * device the one that was opened. NULL when out of memory. */
json_t *settings_run(const struct settings *s, const struct llama_config *c,
                     const char *model_id, const char *device);
/* Where a checkpoint's object and this run's differ: E_CONFIG naming the first setting, what
 * it was and what it is. A setting that the checkpoint does not have, as it was written before
 * there was such an option, was the option's default. */
int settings_compare(const json_t *was, const json_t *now, const char *folder, struct err *e);
/* OUT/options.json: the command and every option as resolved, enough to run again. */
int settings_save(const struct settings *s, const struct llama_config *c, const json_t *run,
                  int argc, char **argv, const char *path, struct err *e);

C_END
#endif
