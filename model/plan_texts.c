/* model/plan_texts.c - the memory plan of texts that grow over a cache; see session.h. */
#include "model/session.h"

#include "base/log.h"

#include <inttypes.h>

enum { CPU_CHUNK = 512, GPU_CHUNK = 2048 }; /* tokens of a prompt at once, where nobody says */

int session_plan_texts(struct session *s, const struct machine *m, const struct model_options *o,
                       struct err *e)
{
    const struct cache_options *c = &o->cache;
    int64_t most = o->ctx > 0 ? o->ctx : s->device.own_memory ? GPU_CHUNK : CPU_CHUNK;
    struct model_options mo;

    model_defaults(&mo);
    mo.mode = TRAIN_NONE;
    mo.seqs = 1;
    mo.ctx = most < c->rows ? most : c->rows;
    if (mo.ctx < c->seqs)
        mo.ctx = c->seqs;
    machine_plan(m, &mo);
    mo.cache = *c;
    mo.stages = o->stages;
    mo.stage = o->stage;
    return session_plan(s, &mo, e);
}

int session_texts_fit_host(const struct session *s, struct err *e)
{
    const struct cache_options *c = &s->options.cache;
    size_t has = model_host_capacity(&s->device, &s->options);
    char need[16], left[16];

    if (!c->in_host || s->plan.host <= has)
        return 0;
    return err_set(e, E_SYS, "%" PRId64 " tokens of %" PRId64 " texts need %s of the host's memory, where keys and "
                   "values are to lie: %s may be taken", c->rows * c->seqs, c->seqs,
                   fmt_bytes((double)s->plan.host, need, sizeof need), fmt_bytes((double)has, left, sizeof left));
}
