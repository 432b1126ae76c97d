/* eval/task.c - opens what a task runs on; see task.h. */
#include "eval/task.h"

#include "base/file.h"
#include "base/log.h"
#include "kernels/group.h"
#include "kernels/rate.h"
#include "model/preset.h"

#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Sizes alone, by name or from a config.json. */
static int sizes(struct llama_config *c, const struct eval_options *o, struct err *e)
{
    char *path;
    int rc;

    if (o->shape >= 0) {
        preset_config(c, o->shape);
        return 0;
    }
    path = path_join(o->model, "config.json");
    rc = config_read(c, path, e);
    free(path);
    return rc;
}

static bool asked(const struct eval_options *o) { return o->rope.kind > 0 || o->rope.factor != 0; }

/* Sets the RoPE that context i is measured with. Unless asked for it stays as it is, but a
 * bench (always) must have positions for every context. */
static int extend(struct eval *v, int64_t i, bool always, struct err *e)
{
    const struct eval_options *o = v->o;
    struct llama_config *c = &v->config[i];

    *c = v->s.config;
    if (!asked(o) && !always)
        return 0;
    return rope_extend(c, v->ctx[i], &o->rope, e);
}

/* Tells where a context is beyond what RoPE reaches, and where RoPE was scaled for it. */
static void say_rope(const struct task *t, const struct eval *v)
{
    int64_t had = v->s.base_context;

    for (int64_t i = 0; i < v->n; i++) {
        const struct llama_config *c = &v->config[i];

        int64_t reach = config_reach(c);

        if (v->ctx[i] > reach && t->within)
            log_warn("length %" PRId64 " is past the model's context of %" PRId64 ", and RoPE is not scaled for it: "
                     "the scores there are those of a model out of its range", v->ctx[i], reach);
        else if (v->ctx[i] > reach)
            log_info("ctx %" PRId64 " is longer than the model's %" PRId64 "; RoPE is not "
                     "scaled further", v->ctx[i], reach);
        else if (reach != had)
            log_info("ctx %" PRId64 ": RoPE scaled from a context of %" PRId64 " to %" PRId64,
                     v->ctx[i], had, reach);
    }
}

/* Contexts, and the RoPE of each. */
static int settle_contexts(const struct task *t, struct eval *v, bool always, struct err *e)
{
    const struct eval_options *o = v->o;
    int rc = 0;

    v->n = o->ctx.n ? o->ctx.n : 1;
    v->theta = v->s.config.rope.theta;
    if (o->rope.factor > 0 && v->s.adapter && v->s.config.rope.type != ROPE_DEFAULT)
        log_warn("the adapter's own RoPE scaling is multiplied by --rope-factor %g",
                 o->rope.factor);
    for (int64_t i = 0; i < v->n && rc == 0; i++) {
        v->ctx[i] = v->longest[i] = o->ctx.n ? o->ctx.v[i] : v->s.base_context;
        rc = extend(v, i, always, e);
    }
    if (rc == 0 && !always)
        say_rope(t, v);
    return rc;
}

/* Windows of up to longest tokens, as many at once as --batch-tokens hold. */
static int plan_windows(struct eval *v, int64_t longest, struct err *e)
{
    const struct eval_options *o = v->o;
    struct model_options mo;

    model_defaults(&mo);
    mo.mode = TRAIN_NONE;
    mo.ctx = longest;
    mo.seqs = o->batch_tokens / longest > 1 ? o->batch_tokens / longest : 1;
    if (o->cp > 1) /* ranks share one window at a time */
        mo.cp = o->cp, mo.seqs = 1;
    machine_plan(&o->machine, &mo);
    return session_plan(&v->s, &mo, e);
}

/* A model for contexts [i, i + n). */
static int load(const struct task *t, struct eval *v, const struct session_options *so, int64_t i,
                int64_t n, struct err *e)
{
    struct session *s = &v->s;
    struct err why = { 0 };
    int64_t longest = 1;
    char size[24];
    int rc;

    /* The plan must hold the longest window of all contexts that share the model. */
    for (int64_t k = i; k < i + n; k++)
        longest = v->longest[k] > longest ? v->longest[k] : longest;
    s->config = v->config[i];
    /* Free memory before the model: eval_taken measures from here. */
    v->had = s->device.free_bytes(&s->device);
    if ((rc = (t->plan ? t->plan : plan_windows)(v, longest, e)) < 0)
        return rc;
    /* A bench of a model that does not fit would measure swapping, so it is refused. */
    if ((rc = model_fits(&s->device, &s->plan, &why)) < 0 && so->noise) {
        *e = why;
        return rc;
    }
    if (rc < 0) /* what is free is a guess: swap may do */
        log_warn("%s", why.msg);
    log_debug("memory: %s, %" PRId64 " tokens at once, weights of %" PRId64 " layers streamed",
              fmt_bytes((double)s->plan.total, size, sizeof size), s->options.ctx * s->options.seqs,
              s->plan.placement.streamed);
    return session_load(s, so, e);
}

static int open_device(struct eval *v, const struct session_options *so, struct err *e)
{
    struct session *s = &v->s;
    int rc = session_device(s, &so->machine, e);

    if (rc == 0 &&
        (rc = rate_matrix(&s->device, s->free_bytes / 8, &v->matrix_rate, e)) == 0)
        log_info("device %s: %s, one large product %.4g TFLOP/s", s->device.name,
                 s->device.detail, 1e-12 * v->matrix_rate);
    return rc;
}

/* Contexts that share a model: the same RoPE; with a cache, whose room sets what RoPE depends on, of the
 * same length too. */
static bool alike(const struct task *t, const struct eval *v, int64_t i, int64_t k)
{
    const struct rope_config *a = &v->config[i].rope, *b = &v->config[k].rope;

    return config_rope_same(a, b) &&
           (!t->plan || rope_length(a, v->ctx[i]) == rope_length(b, v->ctx[k]));
}

/* Runs a task: files, contexts, its own preparation, the device, then the model. Contexts
 * with the same RoPE that follow each other share one model; a bench loads one for each, as
 * memory is a part of what it measures. */
int eval_run(const struct task *t, struct eval *v, struct err *e)
{
    const struct eval_options *o = v->o;
    struct llama_config c;
    struct session_options so = { .model = o->model, .adapter = o->adapter, .seed = 1,
                                  .machine = o->machine };
    struct group *g = o->machine.group ? o->machine.group : group_alone();
    bool random = t->needs == NEEDS_SIZES;
    int rc = random ? sizes(&c, o, e) : 0;

    /* Results on disk are compared without a model or a device. */
    if (t->needs == NEEDS_NOTHING)
        return t->run(v, 0, 0, e);
    if (random)
        so.model = so.adapter = NULL, so.sizes = &c, so.noise = true;
    if (rc == 0 && (rc = session_files(&v->s, &so, e)) == 0 &&
        (rc = settle_contexts(t, v, random, e)) == 0 &&
        (!t->prepare || (rc = t->prepare(v, e)) == 0) && !v->known)
        rc = open_device(v, &so, e);
    if (rc == 0 && o->cp > 1 && g->size % o->cp) {
        rc = err_set(e, E_USAGE, "--cp %" PRId64 " does not fit the number of ranks", o->cp);
        err_hint(e, "it divides the ranks of --gpus or --processes");
    }
    /* From here on ranks work together: none goes on if one has failed. */
    if ((rc = group_meet(g, rc, NULL, e)) < 0 || v->known)
        return rc;
    for (int64_t i = 0, n; i < v->n && rc == 0; i += n) {
        for (n = 1; !random && i + n < v->n && alike(t, v, i, i + n);)
            n++;
        if ((rc = group_meet(g, load(t, v, &so, i, n, e), NULL, e)) == 0)
            rc = group_meet(g, t->run(v, i, n, e), NULL, e);
        session_unload(&v->s);
    }
    return rc;
}

void eval_close(const struct task *t, struct eval *v)
{
    if (t->close && v->state)
        t->close(v);
    v->state = NULL;
    session_close(&v->s);
}

/* Bytes of the device's own memory that the model took; 0 where it has none. */
size_t eval_taken(struct eval *v)
{
    struct device *d = &v->s.device;
    size_t left = d->own_memory ? d->free_bytes(d) : 0;

    return d->own_memory && v->had > left ? v->had - left : 0;
}

int eval_check_output(const char *path, bool force, struct err *e)
{
    char dir[PATH_MAX];
    struct stat st;

    if (!path)
        return 0;
    if (stat(path, &st) < 0) { /* a folder that is missing is told before the work, not after */
        snprintf(dir, sizeof dir, "%s", path);
        return access(dirname(dir), W_OK) == 0
                   ? 0 : err_sys(e, E_CREATE, "cannot write '%s'", path);
    }
    if (!S_ISREG(st.st_mode))
        return err_set(e, E_CREATE, "'%s' is not a regular file", path);
    if (force)
        return 0;
    err_set(e, E_CREATE, "'%s' exists", path);
    return err_hint(e, "-f replaces it");
}

/* To --output by a rename, so that it is whole or not there; else to standard output. */
int eval_deliver(const struct eval_options *o, const struct buf *out, struct err *e)
{
    if (o->out)
        return file_replace(o->out, out->p, out->len, e);
    if (fwrite(out->p, 1, out->len, stdout) != out->len || fflush(stdout) != 0)
        return err_sys(e, E_IO, "cannot write standard output");
    return 0;
}
