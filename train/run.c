/* train/run.c - see run.h. */
#include "train/run.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/checkpoint.h"
#include "formats/json.h"
#include "formats/tokenizer.h"
#include "model/rope.h"
#include "train/bench.h"
#include "train/outdir.h"
#include "train/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- opening ---- */

/* The base's tokenizer, where it has one, must be the data's. */
static int check_tokenizer(const struct run *r, struct err *e)
{
    const struct token_info *info = dataset_info(r->data);
    char *path = r->s->model ? weights_tokenizer_path(r->s->model) : NULL;
    struct tokenizer *t = NULL;
    struct err why = { 0 };
    int rc = 0;

    if (path && info && *info->fingerprint && tokenizer_open(&t, path, &why) == 0) {
        if (strcmp(info->fingerprint, tokenizer_fingerprint(t)) != 0) {
            rc = err_set(e, E_CONFIG, "'%s' was made with another tokenizer than '%s'",
                         r->s->data, path);
            err_hint(e, "prepare it with 'lprep -t %s', or insist with --any-tokenizer", path);
        }
        tokenizer_close(t);
    }
    free(path);
    return rc;
}

static int open_data(struct run *r, struct dataset **d, const char *path, const char *split,
                     struct err *e)
{
    const struct token_info *info;
    int rc = dataset_open(d, path, split, r->config.vocab, e);

    if (rc < 0)
        return rc;
    info = dataset_info(*d);
    if (info && info->vocab > r->config.vocab)
        return err_set(e, E_CONFIG,
                       "'%s' has ids of a vocabulary of %" PRIu32 ", the model's has %" PRId64,
                       path, info->vocab, r->config.vocab);
    return 0;
}

/* Held-out data of another tokenizer would have a loss that says nothing. */
static int open_validation(struct run *r, struct err *e)
{
    const char *split = path_is_dir(r->s->val) ? "validation" : NULL, *a, *b;
    int rc = open_data(r, &r->val, r->s->val, split, e);

    if (rc < 0 || !r->data || r->s->any_tokenizer)
        return rc;
    a = dataset_info(r->data)->fingerprint, b = dataset_info(r->val)->fingerprint;
    if (!*a || !*b || strcmp(a, b) == 0)
        return 0;
    err_set(e, E_CONFIG, "'%s' and '%s' were made with different tokenizers", r->s->data,
            r->s->val);
    return err_hint(e, "prepare both with the same one, or insist with --any-tokenizer");
}

/* Names the base by its tensors and samples of their bytes: reading all would take as long as
 * loading. */
static uint64_t weights_id(const struct weights *w)
{
    XXH3_state_t *h = XXH3_createState();
    uint64_t id;

    if (!h)
        return 0;
    XXH3_64bits_reset(h);
    for (int64_t i = 0; i < weights_count(w); i++) {
        const struct st_tensor *t = weights_at(w, i);
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

    if (r->weights)
        return weights_bytes(r->weights);
    for (int64_t i = 0; r->s->mode > 0 && i < config_tensors(&r->config); i++) {
        config_tensor(&r->config, i, &t);
        sum += 2 * (size_t)t.count;
    }
    return sum;
}

static void warn_too_large(const struct run *r)
{
    size_t need = budget_need(&r->budget);
    char a[16], b[16];

    if (budget_too_large(&r->budget))
        log_warn("the plan takes %s, %s are free: give less --ctx or --micro%s, or more memory",
                 fmt_bytes((double)need, a, sizeof a),
                 fmt_bytes((double)r->budget.free, b, sizeof b),
                 r->s->mode == 0 && !r->s->init ? ", train by --mode lora+" : "");
}

/* "dim=32 layers=2 ... xxh3=...": the sizes for people, the hash for the rest. */
static void model_id(const struct run *r, uint64_t hash, char *id, int cap)
{
    const struct llama_config *c = &r->config;

    snprintf(id, (size_t)cap,
             "vocab=%" PRId64 " dim=%" PRId64 " layers=%" PRId64 " heads=%" PRId64 "/%" PRId64
             " xxh3=%016" PRIx64,
             c->vocab, c->dim, c->layers, c->heads, c->kv_heads, hash);
}

static int name_run(struct run *r, struct err *e)
{
    const struct llama_config *c = &r->config;
    uint64_t hash;
    char id[256];

    if (r->weights) {
        hash = weights_id(r->weights);
    } else {
        int64_t n[] = { c->ffn_dim, c->head_dim, r->base_context, c->tied };
        double f[] = { c->norm_eps, c->init_range, c->rope.theta };
        hash = XXH3_64bits(n, sizeof n) ^ XXH3_64bits_withSeed(f, sizeof f, 1);
    }
    model_id(r, hash, id, sizeof id);
    r->run = settings_run(r->s, c, id, r->device.name);
    return r->run ? 0 : err_set(e, E_SYS, "out of memory");
}

static int open_model_files(struct run *r, struct err *e)
{
    int rc;

    if (!r->s->model)
        return bench_config(r->s, &r->config, e);
    if ((rc = weights_open(&r->weights, r->s->model, e)) == 0)
        r->config = *weights_config(r->weights);
    return rc;
}

/* n_tokens becomes that of the rows, padding and all. */
static int open_packing(struct run *r, int64_t *n_tokens, struct err *e)
{
    const struct settings *s = r->s;
    int rc = pack_rows_open(&r->t.pack, dataset_docs(r->data), pack_rows_dataset, r->data,
                            s->ctx < 0 ? r->config.context : s->ctx, (uint64_t)s->seed, s->data,
                            e);

    *n_tokens = r->t.pack.rows * r->t.pack.ctx; /* at most one row is not half full */
    return rc;
}

int run_open(struct run *r, struct settings *s, struct err *e)
{
    char note[256];
    int64_t n_tokens = 0;
    int rc = settings_check(s, e);

    r->s = s;
    r->lock = -1;
    r->metrics.fd = -1;
    r->started_s = now_s();
    if (rc == 0)
        rc = open_model_files(r, e);
    r->base_context = r->config.context;
    if (rc == 0 && s->data && (rc = open_data(r, &r->data, s->data, s->split, e)) == 0) {
        n_tokens = dataset_tokens(r->data);
        rc = s->any_tokenizer ? 0 : check_tokenizer(r, e);
        if (rc == 0 && s->tokenizer)
            rc = outdir_tokenizer(s, dataset_info(r->data), s->tokenizer, e);
    }
    if (rc == 0 && s->val)
        rc = open_validation(r, e);
    if (rc == 0 && r->data && s->packing == PACKING_BESTFIT)
        rc = open_packing(r, &n_tokens, e);
    if (rc == 0)
        rc = settings_resolve(s, &r->config, n_tokens, &r->options, note, sizeof note, e);
    if (rc == 0 && *note)
        log_warn("%s", note);
    if (rc == 0 && s->mode == 2 && r->config.tied) {
        log_info("the base ties lm_head to the embedding: the embedding is trained, "
                 "lm_head stays");
        r->config.tied = false;
    }
    if (rc == 0 && r->data)
        rc = order_make(&r->t.order, n_tokens, s->ctx, s->batch, (uint64_t)s->seed, s->data, e);
    if (rc == 0 && r->val && dataset_tokens(r->val) < s->ctx) {
        rc = err_set(e, E_CONFIG, "--val '%s'%s has %" PRId64 " tokens, too few for one row of %"
                     PRId64, s->val, path_is_dir(s->val) ? " (split validation)" : "",
                     dataset_tokens(r->val), s->ctx);
        err_hint(e, "pack more for validation: lpack --split validation=0.1");
    }
    if (rc == 0 && (rc = device_open(&r->device, s->device, (int)s->threads, e)) == 0)
        r->has_device = true;
    if (rc == 0 && s->deterministic)
        r->device.be_deterministic(&r->device);
    if (rc == 0)
        rc = budget_make(&r->budget, &r->device, &r->config, &r->options, base_bytes(r), e);
    if (rc == 0)
        warn_too_large(r);
    return rc == 0 ? name_run(r, e) : rc;
}

/* ---- going on ---- */

static void on_bad(void *ctx, const char *folder, const struct err *why)
{
    (void)ctx, (void)folder;
    log_warn("checkpoint passed over: %s", why->msg);
}

static int check_resume(struct run *r, const struct checkpoint *c, const char *folder,
                        struct err *e)
{
    char now[sizeof c->device];
    json_t *was = json_loads(c->run, 0, NULL);
    int rc;

    if (!was)
        return err_set(e, E_DATA, "'%s': its 'run' cannot be read", folder);
    rc = settings_compare(was, r->run, folder, e);
    json_decref(was);
    if (rc < 0)
        return rc;
    if (c->data_hash != dataset_hash(r->data)) {
        err_set(e, E_CONFIG, "'%s' is not the data that '%s' was trained on so far", r->s->data,
                folder);
        return err_hint(e, "give the same data, start anew with -f, or give another folder "
                           "(-o)");
    }
    snprintf(now, sizeof now, "%s %s", r->device.name, r->device.detail);
    if (strcmp(now, c->device) != 0)
        log_warn("the checkpoint was made by '%s', this is '%s': losses may differ in the last "
                 "bits", c->device, now);
    r->p = (struct progress){ c->step, c->updates, c->skipped, c->streak };
    return 0;
}

int run_begin(struct run *r, bool *done, struct err *e)
{
    struct checkpoint c = { 0 };
    char *folder = NULL, *summary = NULL;
    int rc = outdir_open(r->s, &r->lock, e);

    *done = false;
    if (rc < 0)
        return rc;
    r->root = path_join(r->s->out, "checkpoints");
    if ((rc = checkpoint_sweep(r->root, e)) < 0 ||
        (rc = checkpoint_find(r->root, &c, &folder, on_bad, NULL, e)) < 0)
        return rc;
    if (rc == 1)
        rc = check_resume(r, &c, folder, e);
    if (rc == 0 && r->p.step > r->s->steps) {
        rc = err_set(e, E_CONFIG, "'%s' is beyond the %" PRId64 " steps asked for", folder,
                     r->s->steps);
        err_hint(e, "give more --steps, start anew with -f, or give another folder (-o)");
    }
    r->resumed = r->saved = r->p.step;
    checkpoint_free(&c);
    free(folder);
    if (rc == 0 && r->resumed == r->s->steps) {
        summary = run_summary(r);
        *done = summary && outdir_done(r->s);
        free(summary);
    }
    return rc;
}

static int load_model(struct run *r, struct err *e)
{
    char path[64];
    char *folder;
    int rc = model_open(&r->t.m, &r->device, &r->config, &r->options, e);

    if (rc == 0)
        rc = r->weights ? model_load(r->t.m, r->weights, (uint64_t)r->s->seed, e)
                        : model_init(r->t.m, (uint64_t)r->s->seed, e);
    weights_close(r->weights); /* its pages count as ours as long as it is mapped */
    r->weights = NULL;
    if (rc < 0 || r->resumed == 0)
        return rc;
    snprintf(path, sizeof path, "step-%08" PRId64, r->resumed);
    folder = path_join(r->root, path);
    rc = state_load(&r->device, model_trained(r->t.m), folder, e);
    free(folder);
    if (rc == 0 && (rc = model_sync_trained(r->t.m)) < 0)
        err_set(e, rc, "cannot refresh the weights on '%s'", r->device.name);
    return rc;
}

/* What was resolved, in five lines. */
static void echo(const struct run *r)
{
    const struct settings *s = r->s;
    const struct memory_plan *p = &r->budget.model;
    double padding = 100 - 100.0 * (double)r->t.pack.tokens /
                               fmax(1, (double)(r->t.order.rows * s->ctx));
    char mem[16], kept[96];

    budget_kept(p, kept, sizeof kept);
    log_info("data '%s': %s, tokens=%" PRId64 " documents=%" PRId64 " rows=%" PRId64, s->data,
             dataset_form(r->data), dataset_tokens(r->data), dataset_docs(r->data),
             r->t.order.rows);
    if (r->t.pack.rows)
        log_info("packing=bestfit padding=%.4f%% cut=%" PRId64, padding, r->t.pack.cut);
    log_info("model '%s': params=%" PRId64 " mode=%s trained=%" PRId64 " (%.2f%%)",
             s->model ? s->model : s->init, p->params, settings_mode(s->mode),
             p->trained_params, 100.0 * (double)p->trained_params / (double)(p->params ? p->params : 1));
    log_info("ctx=%" PRId64 " (model %" PRId64
             ") rope=%s factor=%g attention=%s group=%" PRId64,
             s->ctx, r->base_context,
             r->config.rope.type == ROPE_LINEAR ? "linear"
             : r->config.rope.type == ROPE_LLAMA3 ? "llama3" : "default",
             r->config.rope.type == ROPE_DEFAULT ? 1.0 : r->config.rope.factor,
             s->attention == ATTN_DENSE ? "dense" : "s2", s->group);
    log_info("batch=%" PRId64 " micro=%" PRId64 " tokens_per_step=%" PRId64 " steps=%" PRId64
             " epochs=%.2f lr=%g", s->batch, s->micro, s->batch * s->ctx, s->steps,
             order_epoch(&r->t.order, s->steps), s->lr);
    log_info("device=%s (%s) memory=%s predicted, kept %s",
             r->device.name, r->device.detail,
             fmt_bytes((double)r->budget.peak, mem, sizeof mem), kept);
    if (r->resumed)
        log_info("going on after step %" PRId64, r->resumed);
}

size_t run_memory(const struct run *r)
{
    struct device *d = (struct device *)(uintptr_t)&r->device;
    size_t left = d->free_bytes(d);

    if (!r->budget.own_memory)
        return (size_t)budget_rss();
    return r->budget.free > left ? r->budget.free - left : 0;
}

static json_t *summary_object(const struct run *r, double seconds)
{
    const struct memory_plan *p = &r->budget.model;
    double tok_s = r->trained_s > 0 ? (double)r->trained_tokens / r->trained_s : 0;
    const struct {
        const char *key;
        int64_t value;
    } field[] = {
        { "steps", r->p.step },
        { "tokens", r->p.step * r->t.order.batch * r->t.order.ctx },
        { "skipped", r->p.skipped },
        { "resumed_from", r->resumed },
        { "params", p->params },
        { "trained_params", p->trained_params },
        { "context", r->config.context },
        { "peak_rss_bytes", budget_peak_rss() },
        { "predicted_bytes", (int64_t)r->budget.peak },
    };
    json_t *o = json_object();

    json_object_set_new(o, "mode", json_string(settings_mode(r->s->mode)));
    for (size_t i = 0; i < sizeof field / sizeof *field; i++)
        json_object_set_new(o, field[i].key, json_integer(field[i].value));
    if (r->budget.own_memory)
        json_object_set_new(o, "device_bytes", json_integer((int64_t)run_memory(r)));
    json_object_set_new(o, "seconds", json_real(round(seconds * 1e3) / 1e3));
    json_object_set_new(o, "tok_s", json_real(round(tok_s)));
    if (r->trained_tokens) /* none where only publishing was left to do */
        json_object_set_new(o, "loss", json_real(r->last_loss));
    return o;
}

static int write_summary(const struct run *r, double seconds, struct err *e)
{
    char *path = path_join(r->s->out, "summary.json");
    json_t *o = summary_object(r, seconds);
    int rc = o ? js_save(o, path, e) : err_set(e, E_SYS, "out of memory");

    json_decref(o);
    free(path);
    return rc;
}

static int open_metrics(struct run *r, char **path, struct err *e)
{
    int64_t kept;
    int rc;

    *path = r->s->metrics ? strdup(r->s->metrics) : path_join(r->s->out, "metrics.jsonl");
    if (!*path)
        return err_set(e, E_SYS, "out of memory");
    rc = metrics_open(&r->metrics, *path, r->resumed, &kept, e);
    if (rc == 0 && kept < r->resumed)
        log_warn("'%s' holds the first %" PRId64 " of %" PRId64 " steps: the others are lost",
                 *path, kept, r->resumed);
    return rc;
}

/* The summary speaks of finished results: it goes before they change, and comes back last. */
static int drop_summary(const struct run *r, struct err *e)
{
    char *path = path_join(r->s->out, "summary.json");
    int rc = 0;

    if (path_exists(path) && unlink(path) < 0)
        rc = err_sys(e, E_CREATE, "cannot remove '%s'", path);
    free(path);
    return rc;
}

int run_train(struct run *r, int argc, char **argv, struct err *e)
{
    char *options = path_join(r->s->out, "options.json"), *log = NULL;
    int rc;

    r->t.s = r->s, r->t.d = &r->device, r->t.data = r->data;
    echo(r);
    rc = settings_save(r->s, &r->config, r->run, argc, argv, options, e);
    if (rc == 0)
        rc = open_metrics(r, &log, e);
    if (rc == 0)
        rc = drop_summary(r, e);
    if (rc == 0)
        rc = load_model(r, e);
    if (rc == 0)
        rc = rows_open(&r->t.rows, r->s->ctx, r->s->micro, r->config.vocab, r->s->apart, e);
    if (rc == 0)
        rc = run_loop(r, e);
    metrics_close(&r->metrics);
    if (rc == 0)
        rc = outdir_results(r->s, &r->device, r->t.m, dataset_info(r->data), e);
    if (rc == 0)
        rc = write_summary(r, now_s() - r->started_s, e);
    free(options);
    free(log);
    return rc;
}

char *run_summary(const struct run *r)
{
    char *path = path_join(r->s->out, "summary.json"), *text = NULL;
    size_t n;

    if (file_read(path, 1 << 16, &text, &n, NULL) < 0)
        text = NULL;
    free(path);
    return text;
}

void run_close(struct run *r)
{
    rows_close(&r->t.rows);
    pack_rows_close(&r->t.pack);
    segments_free(&r->t.seg);
    model_close(r->t.m);
    if (r->has_device)
        r->device.close(&r->device);
    weights_close(r->weights);
    dataset_close(r->data);
    dataset_close(r->val);
    metrics_close(&r->metrics);
    json_decref(r->run);
    free(r->root);
    if (r->lock >= 0)
        close(r->lock);
}
