/* train/summary.c - OUT/summary.json, what a finished run was; see run.h. */
#include "train/run.h"

#include "base/file.h"
#include "base/log.h"
#include "base/json.h"
#include "kernels/group.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* Memory in use now: of the process, or what the run has taken of the device's own memory. */
size_t run_memory(const struct run *r)
{
    /* The device is not changed, but its functions take it without const. */
    struct device *d = (struct device *)(uintptr_t)&r->session.device;
    size_t left;

    if (!r->budget.own_memory)
        return (size_t)budget_rss();
    left = d->free_bytes(d);
    return r->budget.free > left ? r->budget.free - left : 0;
}

/* scaling: how many ranks' worth of gradients the run made a second, as against one that would
 * have made them all one after the other; at most their number. */
static void put_ranks(const struct run *r, json_t *o)
{
    double s = r->trained_s;

    json_object_set_new(o, "ranks", json_integer(r->group->size));
    json_object_set_new(o, "sent_bytes", json_integer(r->group->sent));
    json_object_set_new(o, "received_bytes", json_integer(r->group->received));
    json_object_set_new(o, "comm_s", json_real(round(r->comm_s * 1e3) / 1e3));
    if (s > 0) {
        json_object_set_new(o, "comm_share", json_real(round(r->comm_s / s * 1e4) / 1e4));
        json_object_set_new(o, "scaling", json_real(round(r->all_s / s * 1e3) / 1e3));
    }
}

/* seconds: from the command to here. Speed counts the steps of this process alone, while
 * steps and tokens are those of the whole run. */
static json_t *summary_object(const struct run *r, double seconds)
{
    const struct memory_plan *p = &r->budget.model;
    struct mix mix = settings_mix(r->s);
    double tok_s = r->trained_s > 0 ? (double)r->trained_tokens / r->trained_s : 0;
    const struct {
        const char *key;
        int64_t value;
    } field[] = {
        { "steps", r->p.step },
        { "tokens", r->p.step * r->t.order.batch * r->t.order.ctx },
        { "dense_steps", r->s->attention == ATTN_DENSE ? r->p.step : mix_count(&mix, 0, r->p.step) },
        { "skipped", r->p.skipped },
        { "resumed_from", r->resumed },
        { "params", p->params },
        { "trained_params", p->trained_params },
        { "context", config_reach(&r->session.config) },
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
    if (r->group->size > 1)
        put_ranks(r, o);
    if (r->trained_tokens) /* none where only publishing was left to do */
        json_object_set_new(o, "loss", json_real(r->last_loss));
    return o;
}

int run_summarise(const struct run *r, double seconds, struct err *e)
{
    char *path = path_join(r->s->out, "summary.json");
    json_t *o = summary_object(r, seconds);
    int rc = o ? js_save(o, path, e) : err_set(e, E_SYS, "out of memory");

    json_decref(o);
    free(path);
    return rc;
}

/* The text of the summary, or NULL where there is none: it is written last, so none means
 * that the run is not finished. */
char *run_summary(const struct run *r)
{
    char *path = path_join(r->s->out, "summary.json"), *text = NULL;
    size_t n;

    if (file_read(path, 1 << 16, &text, &n, NULL) < 0)
        text = NULL;
    free(path);
    return text;
}

/* Removes the summary before steps are made, since it says that the run is finished. */
int run_unsummarise(const struct run *r, struct err *e)
{
    char *path = path_join(r->s->out, "summary.json");
    int rc = 0;

    if (path_exists(path) && unlink(path) < 0)
        rc = err_sys(e, E_CREATE, "cannot remove '%s'", path);
    free(path);
    return rc;
}
