/* train/settings.c - see settings.h. */
#include "train/settings.h"

#include "kernels/wires.h"

#include "base/utf8.h"
#include "formats/weights/adapter_config.h"
#include "train/pack_rows.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MICRO_TOKENS 8192 /* computed at once unless --micro says otherwise */

/* Negative values stand for "not given": most are replaced by settings_resolve, with what
 * fits the model. */
void settings_defaults(struct settings *s)
{
    *s = (struct settings){
        .mode = -1, .rank = 8, .alpha = 16, .lora.targets = "q,k,v,o",
        .attention = -1, .rope.factor = -1, .ctx = -1, .shape = -1,
        .group = -1, .batch = 64, .micro = -1, .steps = -1, .lr = 2e-5, .warmup = 20,
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1.0, .seed = 42, .save_every = 100,
        .packing = -1, .pack_order = PACK_NEW, .tied = -1,
        .keep = 2, .log_every = 10, .val_every = 100, .val_rows = 16, .keep_layers = -1,
        .machine = { .device = "auto", .host_bytes = -1 }, .gpu = -1, .hosts = 1, .cp = 1, .shares = 1,
    };
}

const char *settings_mode(int mode)
{
    return mode == 0 ? "full" : mode == 1 ? "lora" : "lora+";
}

enum train_mode settings_train_mode(int mode)
{
    return mode == 0 ? TRAIN_FULL : mode == 1 ? TRAIN_LORA : TRAIN_LORA_PLUS;
}

struct schedule settings_schedule(const struct settings *s)
{
    return (struct schedule){ .kind = (enum schedule_kind)s->schedule, .lr = s->lr,
                              .min_lr = s->min_lr, .warmup = s->warmup, .steps = s->steps };
}

struct mix settings_mix(const struct settings *s)
{
    if (s->attention == ATTN_DENSE)
        return (struct mix){ .steps = s->steps };
    return (struct mix){ .every = s->dense_every, .last = s->dense_last, .steps = s->steps };
}

enum attention_kind settings_attention(const struct settings *s, int64_t step)
{
    struct mix m = settings_mix(s);

    return mix_dense(&m, step) ? ATTN_DENSE : (enum attention_kind)s->attention;
}

bool settings_has_end(const struct settings *s)
{
    struct mix m = settings_mix(s);

    return s->schedule == SCHEDULE_COSINE || m.last > 0;
}

const char *settings_attention_name(enum attention_kind kind)
{
    return kind == ATTN_DENSE ? "dense" : "s2";
}

/* "1/4" or "0.25" of ctx, in tokens. A fraction of two numbers is computed in integers, so
 * that 1/3 of 3072 is exactly 1024. */
int settings_ratio(const char *ratio, int64_t ctx, int64_t *group, struct err *e)
{
    char top[32];
    const char *slash = strchr(ratio, '/');
    int64_t a, b;
    double f;

    if (slash && slash - ratio < (int)sizeof top) {
        snprintf(top, sizeof top, "%.*s", (int)(slash - ratio), ratio);
        if (num_i64(top, &a) && num_i64(slash + 1, &b) && a > 0 && b >= a && b <= INT_MAX) {
            *group = ctx * a / b;
            return 0;
        }
    } else if (!slash && num_f64(ratio, &f) && f > 0 && f <= 1) {
        *group = (int64_t)floor((double)ctx * f);
        return 0;
    }
    return err_set(e, E_USAGE, "--group-ratio '%s': must be a fraction of the context, as 1/4 "
                               "or 0.25",
                   ratio);
}

/* --plan and --bench go through a list of contexts one by one; the first stands in until
 * then. */
int settings_contexts(struct settings *s, struct err *e)
{
    if (s->contexts.n > 1 && !s->bench && !s->plan)
        return err_set(e, E_USAGE, "--ctx takes a list only with --bench or --plan");
    if (s->contexts.n)
        s->ctx = s->contexts.v[0];
    return 0;
}

/* --bench makes its own weights and ids, so it needs sizes and nothing else. */
static int check_bench(const struct settings *s, struct err *e)
{
    if (!s->init == (s->shape < 0)) {
        err_set(e, E_USAGE, "--bench needs either --shape or --init config.json");
        return err_hint(e, "ltrain --bench --shape llama-2-7b --ctx 32k");
    }
    if (s->data || s->model || s->plan || s->out)
        return err_set(e, E_USAGE, "--bench takes no data, no --model, no --output and no --plan: "
                       "its weights and ids are random");
    return lora_check(&s->lora, s->mode == 0, e);
}

/* Options about a GPU and its plan. */
/* How many ranks a plan is for, and by what they are linked. */
static int check_ranks(const struct settings *s, struct err *e)
{
    double rate;

    if ((s->hosts > 1 || s->link) && !s->plan)
        return err_set(e, E_USAGE, "--%s: only with --plan", s->link ? "link" : "hosts");
    if (s->plan && s->ranks.gpus && settings_ranks(s) == 0)
        return err_set(e, E_USAGE, "--gpus '%.40s': a plan needs a number, from 1 to 1024",
                       s->ranks.gpus);
    if (s->plan && (s->hosts > 1 || s->link) && !s->ranks.gpus) {
        err_set(e, E_USAGE, "--%s: of how many GPUs a host?", s->link ? "link" : "hosts");
        return err_hint(e, "give --gpus N");
    }
    if (s->link && !wire_rate(s->link, &rate))
        return err_set(e, E_USAGE, "--link '%.40s': must be one of %s, or bytes a second (25g)",
                       s->link, WIRES);
    return 0;
}

int64_t settings_ranks(const struct settings *s)
{
    int64_t n = 1;

    if (s->ranks.gpus && (!num_i64(s->ranks.gpus, &n) || n < 1 || n > 1024))
        return 0;
    return n * s->hosts;
}

static int check_gpu(const struct settings *s, struct err *e)
{
    if ((s->gpu >= 0 || s->longest) && !s->plan)
        return err_set(e, E_USAGE, "--%s works only with --plan",
                       s->longest ? "longest" : "gpu");
    if ((s->machine.device_bytes || s->gpu >= 0) && strcmp(s->machine.device, "cpu") == 0)
        return err_set(e, E_USAGE, "--%s needs a GPU, but --device is cpu",
                       s->gpu >= 0 ? "gpu" : "gpu-memory");
    return 0;
}

/* Which steps are dense only means something where the others are not. */
static int check_mix(const struct settings *s, struct err *e)
{
    const char *name = s->dense_every ? "--dense-every" : "--dense-last";

    if (s->attention == ATTN_DENSE && (s->dense_every || s->dense_last > 0)) {
        err_set(e, E_USAGE, "--attention dense makes every step dense, so %s says nothing", name);
        return err_hint(e, "leave one of them out");
    }
    if (s->dense_every == 1) {
        err_set(e, E_USAGE, "--dense-every 1 makes every step dense");
        return err_hint(e, "--attention dense does that");
    }
    return 0;
}

/* adapter_config.json names the base: said before the training, not after it. */
static int check_base(const struct settings *s, struct err *e)
{
    /* The longest name that fits beside its final 0. */
    enum { MOST = sizeof ((struct adapter_config *)0)->base - 1 };
    size_t n = s->model ? strlen(s->model) : 0;

    if (!s->model || s->mode == 0 || s->plan)
        return 0;
    if (n > MOST)
        err_set(e, E_USAGE, "the path of the base has %zu bytes, and adapter_config.json, which "
                "names it, may have %d", n, MOST);
    else if (!utf8_valid(s->model, n, NULL))
        err_set(e, E_USAGE, "the path of the base, '%s', is not UTF-8, and adapter_config.json has "
                "to name it", s->model);
    else
        return 0;
    return err_hint(e, "give --model a link to it of another name");
}

/* Checks what can be checked without opening a file. What depends on the model's sizes waits
 * for settings_resolve. */
int settings_check(const struct settings *s, struct err *e)
{
    int64_t group;

    if (check_gpu(s, e) < 0 || check_ranks(s, e) < 0 || rope_check(&s->rope, e) < 0 ||
        check_mix(s, e) < 0)
        return E_USAGE;
    if (s->bench)
        return check_bench(s, e);
    if (!s->data && !s->plan)
        return err_set(e, E_USAGE, "no data given, try --help");
    if (s->shape >= 0 && !s->plan)
        return err_set(e, E_USAGE, "--shape gives sizes but no weights: use it with --plan or "
                                   "--bench");
    /* Exactly one of the three. */
    if (!!s->model + !!s->init + (s->shape >= 0) != 1)
        return err_set(e, E_USAGE, "give either --model FOLDER or --init config.json");
    if (!s->out && !s->plan)
        return err_set(e, E_USAGE, "no output folder given (-o)");
    if (s->init && s->mode > 0 && !s->plan) { /* a plan needs the sizes alone */
        err_set(e, E_USAGE, "--mode %s needs an existing model, but --init makes a new one",
                settings_mode(s->mode));
        return err_hint(e, "give --model, or --mode full");
    }
    if (s->steps >= 0 && s->epochs > 0)
        return err_set(e, E_USAGE, "--steps and --epochs set the same thing: give one");
    if (s->group >= 0 && s->group_ratio)
        return err_set(e, E_USAGE, "--group and --group-ratio set the same thing: give one");
    if (s->micro > s->batch)
        return err_set(e, E_USAGE, "--micro %" PRId64 " is more than --batch %" PRId64,
                       s->micro, s->batch);
    if (s->schedule == SCHEDULE_COSINE && s->min_lr > s->lr)
        return err_set(e, E_USAGE, "--min-lr %g is above --lr %g", s->min_lr,
                       s->lr);
    if (check_base(s, e) < 0)
        return E_USAGE;
    /* 4096 only stands in for the context: what is checked is the form of the text. */
    if (s->group_ratio && settings_ratio(s->group_ratio, 4096, &group, e) < 0)
        return E_USAGE;
    return lora_check(&s->lora, s->mode == 0, e);
}

/* Sets the number of tokens in a group of S2 attention. Dense attention is one group as long
 * as the context. note: a remark for the user, where the groups do not divide the context. */
static int resolve_group(struct settings *s, char *note, int cap, struct err *e)
{
    int rc = 0;

    if (s->attention == ATTN_DENSE) {
        s->group = s->ctx;
        return 0;
    }
    if (s->group < 0)
        rc = settings_ratio(s->group_ratio ? s->group_ratio : "1/4", s->ctx, &s->group, e);
    if (rc < 0)
        return rc;
    if (s->group < 2 || s->group > s->ctx) {
        err_set(e, E_CONFIG, "a group of %" PRId64 " tokens: must be between 2 and the context "
                             "of %" PRId64,
                s->group, s->ctx);
        return err_hint(e, "give --group, --group-ratio or --attention dense");
    }
    if (s->ctx % s->group)
        snprintf(note, (size_t)cap,
                 "the context, %" PRId64 " tokens, is not divisible by the group, %" PRId64
                 ": the last group takes the rest",
                 s->ctx, s->group);
    return 0;
}

/* The cheap pattern is for extending a model that can attend, or where an option asks for it. */
static bool wants_s2(const struct settings *s)
{
    return !s->init || s->mode != 0 || s->group >= 0 || s->group_ratio || s->dense_every ||
           s->dense_last > 0;
}

/* The order matters: the group is a part of the context, and micro and the steps come from
 * it. */
int settings_resolve(struct settings *s, struct llama_config *c, int64_t data_tokens,
                     struct model_options *o, char *note, int cap, struct err *e)
{
    struct rope_config was = c->rope;
    struct mix mix;
    int rc;

    *note = '\0';
    if (s->mode < 0)
        s->mode = s->init ? 0 : 2;
    if (s->ctx < 0)
        s->ctx = config_reach(c);
    if (s->attention < 0)
        s->attention = wants_s2(s) ? ATTN_S2 : ATTN_DENSE;
    if ((rc = resolve_group(s, note, cap, e)) < 0 ||
        (rc = rope_extend(c, s->ctx, &s->rope, e)) < 0)
        return rc;
    s->rope_new = c->rope.type != ROPE_LINEAR && !config_rope_same(&was, &c->rope);
    if (s->micro < 0)
        s->micro = MICRO_TOKENS / s->ctx;
    if (s->same_bits || s->cp > 1) /* rows are computed one by one */
        s->micro = 1;
    s->micro = s->micro < 1 ? 1 : s->micro > s->batch ? s->batch : s->micro;
    /* Steps for so many passes over the data, rounded up; below one row order_make refuses. */
    if (s->epochs > 0 && data_tokens >= s->ctx) {
        double n = ceil(s->epochs * (double)(data_tokens / s->ctx) / (double)s->batch);
        if (n > 1e12)
            return err_set(e, E_CONFIG, "--epochs %g: too many steps", s->epochs);
        s->steps = (int64_t)n;
    }
    if (s->steps < 0)
        s->steps = 1000;
    model_defaults(o);
    o->mode = settings_train_mode(s->mode);
    o->rank = s->rank, o->alpha = s->alpha;
    o->ctx = s->ctx, o->seqs = s->micro;
    o->attention_span = s->group;
    mix = settings_mix(s);
    o->cp = s->cp, o->shares = s->shares;
    o->spans_ctx = s->val || mix_any(&mix);
    if (s->bench) /* its steps are those that are measured */
        mix.steps = 0;
    o->dense_share = mix_share(&mix);
    o->keep_layers = s->keep_layers, o->memory_bytes = s->memory_bytes;
    machine_plan(&s->machine, o);
    return lora_resolve(&s->lora, c, o, e);
}
