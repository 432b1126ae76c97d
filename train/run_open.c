/* train/run_open.c - opens what a run needs, and refuses what can be refused; see run.h. */
#include "train/run.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/tokenizer/tokenizer.h"
#include "kernels/group.h"
#include "kernels/rate.h"
#include "model/model_tokenizer.h"
#include "train/bench.h"
#include "train/outdir.h"
#include "train/parallel.h"
#include "train/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* The base's tokenizer, where it has one, must be the data's. */
static int check_tokenizer(const struct run *r, struct err *e)
{
    struct model_tokenizer t = { .folder = r->s->model };
    int rc = r->s->model ? model_tokenizer_check(&t, dataset_info(r->data), r->s->data, e) : 0;

    if (rc < 0)
        return rc == E_CONFIG ? err_hint(e, "%s, or use it anyway with --any-tokenizer",
                                         t.remedy) : rc;
    if (*t.doubt)
        log_warn("%s (--any-tokenizer silences this)", t.doubt);
    return 0;
}

/* Opens data and refuses ids that the model has no embedding for. Raw files carry no
 * vocabulary, so theirs are checked when they are read. */
static int open_data(struct run *r, struct dataset **d, const char *path, const char *split,
                     struct err *e)
{
    const struct token_info *info;
    int rc = (r->s->form ? dataset_open_raw : dataset_open)(d, path, split,
                                                            r->session.config.vocab, e);

    if (rc < 0)
        return rc;
    info = dataset_info(*d);
    if (info && info->vocab > r->session.config.vocab)
        return err_set(e, E_CONFIG,
                       "'%s' was made for a vocabulary of %" PRIu32 " ids; the model has "
                       "%" PRId64,
                       path, info->vocab, r->session.config.vocab);
    return 0;
}

/* Held-out data of another tokenizer would have a loss that says nothing. */
static int open_validation(struct run *r, struct err *e)
{
    const char *split = path_is_dir(r->s->val) ? "validation" : NULL, *a, *b;
    int rc = open_data(r, &r->val, r->s->val, split, e);

    if (rc < 0 || !r->data || r->s->any_tokenizer)
        return rc;
    /* Data without a fingerprint cannot be compared and is let pass. */
    a = dataset_info(r->data)->fingerprint, b = dataset_info(r->val)->fingerprint;
    if (!*a || !*b || tokenizer_alike(a, dataset_info(r->data)->tokenizer, b,
                                      dataset_info(r->val)->tokenizer))
        return 0;
    err_set(e, E_CONFIG, "'%s' and '%s' were made with different tokenizers", r->s->data,
            r->s->val);
    return err_hint(e, "prepare both with the same one, or use them anyway with "
                       "--any-tokenizer");
}

/* A hash that names the base: names, shapes, and the first and last 256 bytes of each
 * tensor. Reading all bytes would take as long as loading. */
static uint64_t weights_id(const struct weights *w)
{
    XXH3_state_t *h = XXH3_createState();
    uint64_t id;

    if (!h)
        return 0;
    XXH3_64bits_reset(h);
    for (int64_t i = 0; i < weights_count(w); i++) {
        const struct tensor *t = weights_at(w, i);
        size_t n = t->nbytes < 256 ? t->nbytes : 256;
        XXH3_64bits_update(h, t->name, strlen(t->name) + 1);
        XXH3_64bits_update(h, t->shape, (size_t)t->dims * sizeof *t->shape);
        XXH3_64bits_update(h, t->data, n);
        XXH3_64bits_update(h, (const char *)t->data + t->nbytes - n, n);
    }
    id = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return id;
}

static size_t weights_bytes(const struct weights *w)
{
    size_t sum = 0;

    for (int64_t i = 0; i < weights_count(w); i++)
        sum += weights_at(w, i)->nbytes;
    return sum;
}

/* Base weights that will be mapped. Those of a plan by --init are not at hand: taken to be
 * 16-bit, as most are. */
static size_t base_bytes(const struct run *r)
{
    struct tensor_spec t;
    size_t sum = 0;

    if (r->session.weights)
        return weights_bytes(r->session.weights);
    for (int64_t i = 0; r->s->mode > 0 && i < config_tensors(&r->session.config); i++) {
        config_tensor(&r->session.config, i, &t);
        sum += 2 * (size_t)t.count;
    }
    return sum;
}

/* Only a warning: what is free is a guess, and on the host swap may help. A --plan for a
 * device with its own memory makes it an error later (plan.c), so nothing is said here. */
static void warn_too_large(const struct run *r)
{
    size_t need = budget_need(&r->budget);
    char a[16], b[16];

    if (budget_too_large(&r->budget) && !(r->s->plan && r->session.device.own_memory)) /* an error, then */
        log_warn("the plan needs %s of memory, %s is free: lower --ctx or --micro%s, or give "
                 "more memory",
                 fmt_bytes((double)need, a, sizeof a),
                 fmt_bytes((double)r->budget.capacity, b, sizeof b),
                 r->s->mode == 0 && !r->s->init ? ", train with --mode lora+" : "");
}

/* "dim=32 layers=2 ... xxh3=...": the sizes for people, the hash for the rest. */
static void model_id(const struct run *r, uint64_t hash, char *id, int cap)
{
    const struct llama_config *c = &r->session.config;

    snprintf(id, (size_t)cap,
             "vocab=%" PRId64 " dim=%" PRId64 " layers=%" PRId64 " heads=%" PRId64 "/%" PRId64
             " xxh3=%016" PRIx64,
             c->vocab, c->dim, c->layers, c->heads, c->kv_heads, hash);
}

/* The description of the run that its checkpoints keep and that a continued run must match.
 * Without weights the base is named by the sizes that model_id does not show; the seed keeps
 * the two hashes apart. */
static int name_run(struct run *r, struct err *e)
{
    const struct llama_config *c = &r->session.config;
    uint64_t hash;
    char id[256];

    if (r->session.weights) {
        hash = weights_id(r->session.weights);
    } else {
        int64_t n[] = { c->ffn_dim, c->head_dim, r->session.base_context, c->tied };
        double f[] = { c->norm_eps, c->init_range, c->rope.theta };
        hash = XXH3_64bits(n, sizeof n) ^ XXH3_64bits_withSeed(f, sizeof f, 1);
    }
    model_id(r, hash, id, sizeof id);
    r->run = settings_run(r->s, c, id, r->session.device.name);
    return r->run ? 0 : err_set(e, E_SYS, "out of memory");
}

/* Opens the folder of the base, or takes sizes alone from --init or --shape. "sizes" points
 * into this frame, so it is cleared before returning. */
static int open_model_files(struct run *r, struct err *e)
{
    const struct settings *s = r->s;
    struct llama_config sizes;
    int rc = s->model ? 0 : bench_config(s, &sizes, e);

    r->open = (struct session_options){ .model = s->model, .seed = (uint64_t)s->seed };
    r->open.sizes = &sizes;
    if (rc == 0)
        rc = session_files(&r->session, &r->open, e);
    r->open.sizes = NULL;
    return rc;
}

/* *n_tokens becomes that of the rows, padding and all. settings_resolve has not run yet, so
 * the default of --ctx, the context of the model, is applied here too. */
static int open_packing(struct run *r, int64_t *n_tokens, struct err *e)
{
    const struct settings *s = r->s;
    int rc = pack_rows_open(&r->t.pack, dataset_docs(r->data), pack_rows_dataset, r->data,
                            s->ctx < 0 ? r->session.base_context : s->ctx, (uint64_t)s->seed,
                            (enum pack_order)s->pack_order, s->data, e);

    *n_tokens = r->t.pack.rows * r->t.pack.ctx; /* at most one row is not half full */
    return rc;
}

/* Too little held-out data for one row. */
static int check_validation(const struct run *r, struct err *e)
{
    const struct settings *s = r->s;

    if (!r->val || dataset_tokens(r->val) >= s->ctx)
        return 0;
    err_set(e, E_CONFIG, "--val '%s'%s has %" PRId64 " tokens, too few for one row of %" PRId64,
            s->val, path_is_dir(s->val) ? " (split validation)" : "", dataset_tokens(r->val),
            s->ctx);
    return err_hint(e, "pack more for validation: lpack --split validation=0.1");
}

/* Examples of instructions are cut or seen by each other only where that is asked for. */
static void choose_packing(struct run *r, const json_t *before)
{
    struct settings *s = r->s;
    bool given = s->packing >= 0;

    settings_packing(s, r->data && dataset_masked(r->data) > 0, before);
    if (!given && s->packing == PACKING_BESTFIT)
        log_info("the data has masks: its documents stay whole%s (--packing bestfit%s; --packing "
                 "concat joins and cuts them)",
                 s->mask_documents ? " and do not see each other" : "",
                 s->mask_documents ? " --mask-documents" : "");
}

/* Opens model, data and validation data, in this order: the data is checked against the
 * model. */
static int open_files(struct run *r, const json_t *before, int64_t *n_tokens, struct err *e)
{
    struct settings *s = r->s;
    int rc = open_model_files(r, e);

    if (rc == 0 && s->data && (rc = open_data(r, &r->data, s->data, s->split, e)) == 0) {
        *n_tokens = dataset_tokens(r->data);
        rc = s->any_tokenizer ? 0 : check_tokenizer(r, e);
        if (rc == 0 && s->tokenizer)
            rc = outdir_tokenizer(s, dataset_info(r->data), s->tokenizer, e);
    }
    if (rc == 0 && s->val)
        rc = open_validation(r, e);
    if (rc == 0)
        choose_packing(r, before);
    if (rc == 0 && r->data && s->packing == PACKING_BESTFIT)
        rc = open_packing(r, n_tokens, e);
    return rc;
}

/* What works, and is hardly what was meant. */
static void warn_odd(const struct run *r)
{
    const struct settings *s = r->s;

    if (s->mode > 0 && s->dtype && !s->plan)
        log_warn("--dtype is of a model that is written whole: the adapter is float32");
    if (r->t.order.rows && s->batch > r->t.order.rows)
        log_warn("the data has %" PRId64 " rows, fewer than the %" PRId64 " of a step "
                 "(--batch): each step uses each row %.3g times",
                 r->t.order.rows, s->batch, (double)s->batch / (double)r->t.order.rows);
    if (s->schedule == SCHEDULE_COSINE && s->steps == 1 && s->warmup == 0 &&
        s->min_lr == 0)
        log_warn("nothing will be trained: with one step and no warm-up the cosine is already "
                 "at its end, --min-lr 0");
}

/* Turns defaults that depend on the model and the data into numbers, then makes the order of
 * the rows. n_tokens: of the data, or of all rows when packed. */
static int resolve(struct run *r, const json_t *before, int64_t n_tokens, struct err *e)
{
    struct settings *s = r->s;
    char note[256];
    int rc = settings_resolve(s, &r->session.config, n_tokens, &r->open.plan, note, sizeof note, e);

    if (rc == 0 && *note)
        log_warn("%s", note);
    settings_tied(s, r->session.config.tied, before);
    if (rc == 0 && s->tied >= 0)
        log_info("the base uses one matrix as embedding and lm_head: %s (--tied %s)",
                 s->tied == TIED_SPLIT && s->lora.trainable ? "from now on they are two"
                 : s->tied == TIED_SPLIT ? "the embedding is trained, lm_head stays as it was"
                                       : "it is trained through both uses",
                 s->tied == TIED_SPLIT ? "split" : "keep");
    r->session.config.tied &= s->tied != TIED_SPLIT;
    if (rc == 0 && r->data)
        rc = order_make(&r->t.order, n_tokens, s->ctx, s->batch, (uint64_t)s->seed, s->data, e);
    if (rc == 0)
        warn_odd(r);
    return rc < 0 ? rc : check_validation(r, e);
}

void run_phase(struct run *r, enum run_phase p)
{
    double now = now_s();

    r->phase_s[p] += now - r->mark_s;
    r->mark_s = now;
}

/* Cheap checks come first, so that a wrong option is told before minutes of work. Ranks meet
 * at the end: a failure of one is a failure of all. */
int run_open(struct run *r, struct settings *s, struct err *e)
{
    int64_t n_tokens = 0;
    json_t *before = NULL;
    int rc = settings_check(s, e);

    r->s = s;
    r->group = r->group ? r->group : s->machine.group ? s->machine.group : group_alone();
    r->lock = -1;
    r->metrics.fd = -1;
    r->started_s = r->mark_s = now_s();
    if (rc == 0)
        rc = parallel_resolve(s, s->plan ? settings_ranks(s) : r->group->size, e);
    if (rc == 0 && (rc = settings_before(s, &before, e)) == 0 &&
        (rc = open_files(r, before, &n_tokens, e)) == 0)
        rc = resolve(r, before, n_tokens, e);
    json_decref(before);
    /* with the whole gradient everywhere, its norm too is added in one order */
    r->open.plan.shards = s->same_bits ? 1 : s->plan ? settings_ranks(s) : r->group->size;
    run_phase(r, PHASE_FILES);
    if (rc == 0)
        rc = plan_device(&r->session, s, r->group, e);
    run_phase(r, PHASE_DEVICE);
    if (s->cp != 1 || s->shares > 1) /* whoever failed so far would not come to what follows */
        rc = group_meet(r->group, rc, NULL, e);
    if (rc == 0)
        rc = parallel_choose(s, &r->session, &r->open.plan,
                             s->plan ? settings_ranks(s) : r->group->size, r->group, e);
    if (rc == 0 && (rc = session_plan(&r->session, &r->open.plan, e)) == 0 &&
        (rc = budget_make(&r->budget, &r->session, base_bytes(r), e)) == 0)
        warn_too_large(r);
    if (rc == 0 && !s->plan) /* no larger than what is coming, so that the prediction holds */
        rc = rate_matrix(&r->session.device, r->budget.model.total, &r->matrix_rate, e);
    run_phase(r, PHASE_PLAN);
    if (rc == 0)
        rc = name_run(r, e);
    rc = group_meet(r->group, rc, NULL, e);
    return rc < 0 ? rc : run_agree(r, e);
}
