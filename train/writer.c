/* train/writer.c - what a run leaves on the disk, by the one rank that writes; see run.h. */
#include "train/run.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/weights/checkpoint.h"
#include "kernels/group.h"
#include "train/outdir.h"
#include "train/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int work_fn(struct run *r, struct err *e);

/* write on the rank that writes and help (NULL: nothing) on the others, unless some rank failed
 * before; then all know how it went. */
static int write_with(struct run *r, int rc, work_fn *write, work_fn *help, struct err *e)
{
    work_fn *f = group_writes(r->group) ? write : help;

    rc = group_meet(r->group, rc, NULL, e);
    if (rc == 0 && f)
        rc = f(r, e);
    return group_meet(r->group, rc, NULL, e);
}

static int write_once(struct run *r, int rc, work_fn *write, struct err *e)
{
    return write_with(r, rc, write, NULL, e);
}

/* Order: first lock the folder, then remove what is left of unfinished checkpoints. */
static int open_folder(struct run *r, struct err *e)
{
    int rc = outdir_open(r->s, &r->lock, e);

    return rc < 0 ? rc : checkpoint_sweep(r->root, e);
}

int writer_open(struct run *r, int rc, struct err *e)
{
    return write_once(r, rc, open_folder, e);
}

/* Opens the log and drops the lines of steps after the checkpoint: they will be made again. */
static int open_metrics(struct run *r, struct err *e)
{
    int64_t kept;
    int rc;

    r->metrics_path = r->s->metrics ? strdup(r->s->metrics)
                                    : path_join(r->s->out, "metrics.jsonl");
    if (!r->metrics_path)
        return err_set(e, E_SYS, "out of memory");
    rc = metrics_open(&r->metrics, r->metrics_path, r->resumed, &kept, e);
    if (rc == 0 && kept < r->resumed)
        log_warn("'%s' holds only %" PRId64 " of the %" PRId64 " steps done so far",
                 r->metrics_path, kept, r->resumed);
    return rc;
}

/* The record comes first: options.json marks the folder as ltrain's. */
static int begin(struct run *r, struct err *e)
{
    char *options = path_join(r->s->out, "options.json");
    int rc = settings_save(r->s, &r->session.config, r->run, r->argc, r->argv, options, e);

    free(options);
    if (rc == 0)
        rc = open_metrics(r, e);
    return rc < 0 ? rc : run_unsummarise(r, e);
}

int writer_begin(struct run *r, int argc, char **argv, struct err *e)
{
    r->argc = argc, r->argv = argv;
    return write_once(r, 0, begin, e);
}

/* A failure is kept, not returned: the loop then saves the step before it stops. */
void writer_line(struct run *r, const struct metrics_line *l)
{
    if (group_writes(r->group) && r->unlogged.code == 0)
        metrics_write(&r->metrics, l, &r->unlogged);
}

/* Metrics reach the disk before the checkpoint, so that a log is never behind it. */
static int save(struct run *r, struct err *e)
{
    struct checkpoint c = { .step = r->p.step, .updates = r->p.updates, .skipped = r->p.skipped,
                            .streak = r->p.streak, .data_hash = dataset_hash(r->data),
                            .tokens = r->p.step * r->t.order.batch * r->t.order.ctx };
    struct device *d = &r->session.device;
    int rc = r->unlogged.code ? 0 : metrics_sync(&r->metrics, e);

    if (rc < 0)
        return rc;
    run_hardware(c.device, sizeof c.device, d->name, d->detail);
    /* 17 digits bring every double back as it was, so a continued run compares equal. */
    if (!(c.run = json_dumps(r->run, JSON_REAL_PRECISION(17))))
        return err_set(e, E_SYS, "out of memory");
    rc = state_save(d, model_trained(r->t.m), r->root, &c, r->s->keep, e);
    checkpoint_free(&c);
    return rc;
}

/* The other ranks' parts of what is saved. */
static int send_state(struct run *r, struct err *e)
{
    return state_send(&r->session.device, model_trained(r->t.m), e);
}

/* Masters that are kept in parts come together, on all ranks. */
static int gather(struct run *r, int rc, struct err *e)
{
    rc = group_meet(r->group, rc, NULL, e);
    return rc == 0 && trained_apart(model_trained(r->t.m)) ? model_gather(r->t.m, rc, e) : rc;
}

/* Does nothing when this step is saved already. Every rank checks its values, one writes. */
int writer_save(struct run *r, struct err *e)
{
    int rc;

    if (r->saved == r->p.step || r->p.step == 0)
        return 0;
    rc = gather(r, update_finite(&r->t, e), e);
    if ((rc = write_with(r, rc, save, send_state, e)) == 0)
        r->saved = r->p.step;
    return rc;
}

/* The summary comes last: it says that the results are whole. */
static int finish(struct run *r, struct err *e)
{
    int rc = outdir_results(r->s, &r->session.device, r->t.m, dataset_info(r->data), e);

    return rc < 0 ? rc : run_summarise(r, now_s() - r->started_s, e);
}

int writer_finish(struct run *r, int rc, struct err *e)
{
    /* Nothing more is logged, whether or not the steps succeeded. */
    metrics_close(&r->metrics);
    return rc < 0 ? rc : write_once(r, gather(r, rc, e), finish, e);
}
