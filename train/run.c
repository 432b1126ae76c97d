/* train/run.c - see run.h. */
#include "train/run.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/weights/checkpoint.h"
#include "kernels/group.h"
#include "train/outdir.h"
#include "train/state.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE_HASH "base_xxh3" /* in a checkpoint's record of its run */

static void on_bad(void *ctx, const char *folder, const struct err *why)
{
    (void)ctx, (void)folder;
    log_warn("checkpoint skipped: %s", why->msg);
}

/* The device's name and details without the number of threads, as in "NAME, 8 threads, avx2":
 * a run continued with more threads is still on the same hardware. */
void run_hardware(char *out, size_t cap, const char *name, const char *detail)
{
    const char *end = strstr(detail, " thread"), *from = end;

    while (from && from > detail && isdigit((unsigned char)from[-1]))
        from--;
    if (!from || from == end) {
        snprintf(out, cap, "%s%s%s", name, *name ? " " : "", detail);
        return;
    }
    end += strcspn(end, ",");
    /* Past the comma that follows "threads". */
    end += strspn(end, ", ");
    snprintf(out, cap, "%s%s%.*s%s", name, *name ? " " : "", (int)(from - detail), detail, end);
}

/* The base's hash is in no record that is made before the weights are read: it is kept for then. */
static void keep_base(struct run *r, json_t *was)
{
    const char *hash = json_string_value(json_object_get(was, BASE_HASH));

    snprintf(r->base_was, sizeof r->base_was, "%s", hash ? hash : "");
    json_object_del(was, BASE_HASH);
}

/* Every byte of the base has been read: it is the one that the checkpoint was trained on, and the
 * next checkpoints will name it. */
static int check_base(struct run *r, struct err *e)
{
    uint64_t hash = model_base_hash(r->t.m);
    char is[sizeof r->base_was];

    if (!hash) /* a fresh model, made from the seed */
        return 0;
    snprintf(is, sizeof is, "%016" PRIx64, hash);
    json_object_set_new(r->run, BASE_HASH, json_string(is));
    if (!*r->base_was || strcmp(r->base_was, is) == 0)
        return 0;
    err_set(e, E_CONFIG, "'%s' has other weights than the base that '%s' was trained on so far",
            r->s->model, r->s->out);
    return err_hint(e, "give the same base, start over with -f, or give another folder (-o)");
}

/* Compares a checkpoint with this run: settings and data must be the same, other hardware is
 * only warned of. Then takes over its progress. */
static int check_resume(struct run *r, const struct checkpoint *c, const char *folder,
                        struct err *e)
{
    char now[sizeof c->device], then[sizeof c->device];
    json_t *was = json_loads(c->run, 0, NULL);
    int rc;

    if (!was)
        return err_set(e, E_DATA, "'%s': cannot read the settings of its run ('run')", folder);
    keep_base(r, was);
    rc = settings_compare(was, r->run, folder, e);
    json_decref(was);
    if (rc < 0)
        return rc;
    if (c->data_hash != dataset_hash(r->data)) {
        err_set(e, E_CONFIG, "'%s' is not the data that '%s' was trained on so far", r->s->data,
                folder);
        return err_hint(e, "give the same data, start over with -f, or give another folder "
                           "(-o)");
    }
    run_hardware(now, sizeof now, r->session.device.name, r->session.device.detail);
    run_hardware(then, sizeof then, "", c->device);
    if (strcmp(now, then) != 0)
        log_warn("the checkpoint was made by '%s', this is '%s': losses may differ in the last "
                 "bits", then, now);
    r->p = (struct progress){ c->step, c->updates, c->skipped, c->streak };
    return 0;
}

/* Finds the newest checkpoint that is whole and sets r->resumed to its step (0: none).
 * *done: all steps were made and the final files are there, so nothing is left to do. */
static int find_checkpoint(struct run *r, bool *done, struct err *e)
{
    struct checkpoint c = { 0 };
    char *folder = NULL, *summary = NULL;
    int rc = checkpoint_find(r->root, &c, &folder, on_bad, NULL, e);

    if (rc < 0)
        return rc;
    if (rc == 1)
        rc = check_resume(r, &c, folder, e);
    if (rc == 0 && r->p.step > r->s->steps) {
        rc = err_set(e, E_CONFIG, "'%s' is already past --steps %" PRId64, folder,
                     r->s->steps);
        err_hint(e, "give more --steps, start over with -f, or give another folder (-o)");
    }
    r->resumed = r->saved = r->p.step;
    checkpoint_free(&c);
    free(folder);
    /* A run that was killed after its last checkpoint may lack its results: it is not done. */
    if (rc == 0 && r->resumed == r->s->steps) {
        summary = run_summary(r);
        *done = summary && outdir_done(r->s);
        free(summary);
    }
    return rc;
}

/* Every rank reads the checkpoint by itself: it must be the same one. */
static int same_checkpoint(struct run *r, bool *done, struct err *e)
{
    struct group *g = r->group;
    struct { int64_t step, done; } first = { r->resumed, *done };
    int rc = g->broadcast(g, 0, &first, sizeof first, e);

    if (rc == 0 && (first.step != r->resumed || first.done != *done)) {
        err_set(e, E_CONFIG, "'%s' holds step %" PRId64 " here and %" PRId64 " for rank 0",
                r->s->out, r->resumed, first.step);
        rc = err_hint(e, "all hosts must see the same folder (-o)");
    }
    return group_meet(g, rc, NULL, e);
}

/* The folder is opened first, by the rank that writes: it removes what -f asks to remove,
 * and only then do all ranks look for a checkpoint. */
int run_begin(struct run *r, bool *done, struct err *e)
{
    int rc;

    *done = false;
    r->root = path_join(r->s->out, "checkpoints");
    if ((rc = writer_open(r, 0, e)) == 0)
        rc = group_meet(r->group, find_checkpoint(r, done, e), NULL, e);
    return rc < 0 ? rc : same_checkpoint(r, done, e);
}

/* Loads the base, then replaces the trained values by the checkpoint's. The last call renews
 * what the device computes with, such as copies of the weights. */
static int load_model(struct run *r, struct err *e)
{
    char path[64];
    char *folder;
    int rc;

    rc = session_load(&r->session, &r->open, e);
    session_close_files(&r->session);
    r->t.m = r->session.model;
    r->phase_s[PHASE_MEMORY] = r->session.memory_s;
    r->phase_s[PHASE_WEIGHTS] = r->session.weights_s;
    if (rc < 0 || (rc = check_base(r, e)) < 0 || r->resumed == 0)
        return rc;
    snprintf(path, sizeof path, "step-%08" PRId64, r->resumed);
    folder = path_join(r->root, path);
    rc = state_load(&r->session.device, model_trained(r->t.m), folder, e);
    free(folder);
    if (rc == 0 && (rc = model_sync_trained(r->t.m)) < 0)
        err_set(e, rc, "cannot refresh the weights on '%s'", r->session.device.name);
    return rc;
}

/* How many steps are dense, and what they cost, where the device foretells it. */
static void echo_mix(const struct run *r, const struct mix *m)
{
    const struct memory_plan *p = &r->budget.model;
    double sparse, dense;
    double micros = (double)r->s->batch / (double)(r->s->micro * r->group->size) * (double)r->s->cp;

    mix_times(p, mix_share(m), &sparse, &dense);
    log_info("dense_every=%" PRId64 " dense_last=%g: %" PRId64 " of %" PRId64 " steps are dense",
             m->every, m->last, mix_count(m, 0, m->steps), m->steps);
    if (p->step_s > 0)
        log_info("predicted %.4g s a step, dense %.4g s, on the average %.4g s",
                 micros * sparse, micros * dense, micros * p->step_s);
}

/* How documents become rows: what rows are padded with, or what the rows leave out. Where there is
 * more than one epoch, how many rows the second has from the first: drawing anew which documents
 * share a row is no use where few fit together. */
static int say_packing(struct run *r, struct err *e)
{
    struct pack_rows *p = &r->t.pack;
    int64_t rows = r->t.order.rows, ctx = r->s->ctx, all = dataset_tokens(r->data), same, shared;
    bool again = r->s->steps > rows / r->s->batch;
    char recur[64] = "";
    int rc = 0;

    if (p->rows == 0) {
        log_info("packing=concat left_out=%" PRId64 " (%.2g%%): the tokens at the end, which fill "
                 "no row", all - rows * ctx,
                 100 * (double)(all - rows * ctx) / (double)(all ? all : 1));
        return 0;
    }
    if (again && (rc = pack_rows_recur(p, 0, 1, &same, &shared, e)) == 0)
        snprintf(recur, sizeof recur, " recurring=%" PRId64 " of %" PRId64 " shared rows", same,
                 shared);
    if (rc == 0)
        log_info("packing=bestfit padding=%.4f%% cut=%" PRId64 "%s",
                 100 - 100.0 * (double)p->tokens / fmax(1, (double)(rows * ctx)), p->cut, recur);
    return rc;
}

/* Logs what was resolved, in five lines or six, before the long work begins. */
static void echo(const struct run *r)
{
    const struct settings *s = r->s;
    const struct memory_plan *p = &r->budget.model;
    const struct rope_config *rope = &r->session.config.rope;
    char mem[16], saved[SAVED_CHARS], theta[32] = "";
    struct mix mix = settings_mix(s);

    budget_saved(p, saved, sizeof saved);
    if (s->rope_new && rope->type == ROPE_DEFAULT)
        snprintf(theta, sizeof theta, " theta=%g", rope->theta);
    log_info("data '%s': %s, tokens=%" PRId64 " documents=%" PRId64 " rows=%" PRId64, s->data,
             dataset_form(r->data), dataset_tokens(r->data), dataset_docs(r->data),
             r->t.order.rows);
    log_info("model '%s': params=%" PRId64 " mode=%s trained=%" PRId64 " (%.2f%%)",
             s->model ? s->model : s->init, p->params, settings_mode(s->mode),
             p->trained_params, 100.0 * (double)p->trained_params / (double)(p->params ? p->params : 1));
    log_info("ctx=%" PRId64 " (model %" PRId64
             ") rope=%s factor=%g%s attention=%s group=%" PRId64,
             s->ctx, r->session.base_context,
             config_rope_name(rope->type), rope->type == ROPE_DEFAULT ? 1.0 : rope->factor, theta,
             s->attention == ATTN_DENSE ? "dense" : "s2", s->group);
    if (mix_any(&mix))
        echo_mix(r, &mix);
    log_info("batch=%" PRId64 " micro=%" PRId64 " tokens_per_step=%" PRId64 " steps=%" PRId64
             " epochs=%.2f lr=%g", s->batch, s->micro, s->batch * s->ctx, s->steps,
             order_epoch(&r->t.order, s->steps), s->lr);
    log_info("device=%s (%s) memory=%s predicted, saved: %s",
             r->session.device.name, r->session.device.detail,
             fmt_bytes((double)r->budget.peak, mem, sizeof mem), saved);
    if (p->host)
        log_info("offload: %s of host memory pinned",
                 fmt_bytes((double)p->host, mem, sizeof mem));
    if (r->resumed)
        log_info("continuing after step %" PRId64, r->resumed);
}

/* Rows of a batch or of a validation, whichever are more. */
static int open_sums(struct run *r, struct err *e)
{
    int64_t rows = r->val ? dataset_tokens(r->val) / r->s->ctx : 0;

    rows = rows < r->s->val_rows ? rows : r->s->val_rows;
    return row_sums_open(&r->t.sums, model_trained(r->t.m)->n,
                         rows > r->s->batch ? rows : r->s->batch, e);
}

/* Loads the model, makes the steps and writes the results. Ranks meet before the loop: one
 * that could not load must not leave the others waiting there. */
int run_train(struct run *r, int argc, char **argv, struct err *e)
{
    int rc = say_packing(r, e);

    r->t.s = r->s, r->t.d = &r->session.device, r->t.data = r->data;
    echo(r);
    if ((rc = group_meet(r->group, rc, NULL, e)) < 0 ||
        (rc = writer_begin(r, argc, argv, e)) < 0)
        return rc;
    if ((rc = load_model(r, e)) == 0 && r->s->same_bits)
        rc = open_sums(r, e);
    if (rc == 0)
        rc = rows_open(&r->t.rows, r->s->ctx, r->s->micro, r->session.config.vocab, r->s->mask_documents, e);
    if ((rc = group_meet(r->group, rc, NULL, e)) == 0)
        rc = run_loop(r, e);
    return writer_finish(r, rc, e);
}

void run_close(struct run *r)
{
    rows_close(&r->t.rows);
    row_sums_close(&r->t.sums);
    pack_rows_close(&r->t.pack);
    segments_free(&r->t.seg);
    session_close(&r->session);
    if (r->s)
        lora_free(&r->s->lora);
    dataset_close(r->data);
    dataset_close(r->val);
    metrics_close(&r->metrics);
    free(r->metrics_path);
    free(r->each);
    json_decref(r->run);
    free(r->root);
    if (r->lock >= 0)
        close(r->lock);
}
