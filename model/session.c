/* model/session.c - see session.h. */
#include "model/session.h"

#include "base/log.h"
#include "formats/weights/multimodal.h"
#include "kernels/exchange.h"
#include "kernels/planned.h"
#include "kernels/subgroup.h"
#include "model/extend.h"

#include <inttypes.h>
#include <stdlib.h>

/* Edited by hand, most likely, and meant; or damaged. */
static void warn_changed(const char *folder, const char *names)
{
    if (names)
        log_warn("'%s': changed after the weights were written: %s", folder, names);
}

/* The model is what the adapter makes of the base: also in its vocabulary. */
static int take_adapter(struct session *s, const struct session_options *o, struct err *e)
{
    int64_t was = s->config.vocab;

    s->config = *adapter_model_config(s->adapter);
    if (s->config.vocab != was)
        log_warn("the vocabulary becomes that of '%s': %" PRId64 " tokens, the base's has %" PRId64,
                 o->adapter, s->config.vocab, was);
    return s->weights ? weights_resize(s->weights, s->config.vocab, e) : 0;
}

/* An adapter comes after the weights: it may change the configuration, such as the context. */
int session_files(struct session *s, const struct session_options *o, struct err *e)
{
    int rc = 0;

    s->keep_types = o->keep_types;
    if (!o->model)
        s->config = *o->sizes;
    else if ((rc = weights_open(&s->weights, o->model, e)) == 0)
        s->config = *weights_config(s->weights);
    if (rc == 0 && s->weights && weights_beside(s->weights))
        log_info("'%s': the language model of %s is used, and passed over are %s", o->model,
                 s->config.multimodal->model_type, weights_beside(s->weights));
    if (rc == 0 && o->adapter &&
        (rc = adapter_open(&s->adapter, o->adapter, &s->config, e)) == 0)
        rc = take_adapter(s, o, e);
    if (rc == 0 && s->adapter && adapter_idle(s->adapter))
        log_info("'%s': %" PRId64 " tensors are of what is no text, and add nothing to it", o->adapter,
                 adapter_idle(s->adapter));
    if (rc == 0 && s->weights)
        warn_changed(o->model, weights_changed(s->weights));
    if (rc == 0 && s->adapter)
        warn_changed(o->adapter, adapter_changed(s->adapter));
    s->base_context = config_reach(&s->config);
    return rc;
}

/* Every rank of the group comes here together. How much memory is free is read before the model
 * takes any, and after the links have taken theirs. */
int session_device(struct session *s, const struct machine *m, struct err *e)
{
    struct device_options o = { m->device ? m->device : "auto", m->index, (int)m->threads,
                                m->group };
    struct group *g = m->group ? m->group : group_alone();
    int rc = device_open(&s->device, &o, e);

    s->has_device = rc == 0;
    s->device.group = g;
    if (rc == 0 && m->deterministic)
        s->device.be_deterministic(&s->device);
    if ((rc = group_link(&s->device, rc, e)) == 0)
        s->free_bytes = s->device.free_bytes(&s->device);
    return rc;
}

/* Replaces the device by one that can only plan, of a card that need not be here. */
int session_card(struct session *s, const struct card *c, size_t memory_bytes, struct err *e)
{
    int rc;

    if (s->has_device)
        s->device.close(&s->device);
    s->has_device = false;
    if ((rc = device_open_planned(&s->device, c, memory_bytes, e)) == 0) {
        s->has_device = true;
        s->free_bytes = s->device.free_bytes(&s->device);
    }
    return rc;
}

static void close_groups(struct session *s)
{
    if (s->line)
        s->line->close(s->line);
    if (s->sharers)
        s->sharers->close(s->sharers);
    s->line = s->sharers = NULL;
}

/* Groups of so many of the ranks; none where the plan is for ranks that are not here. */
static int open_group(struct session *s, int64_t size, struct group **part, struct err *e)
{
    struct group *g = s->device.group;
    int rc;

    if (size <= 1 || !g || g->size < size)
        return 0;
    rc = group_split(g, (int)size, part, e);
    if (rc < 0)
        *part = NULL;
    return rc;
}

static int open_groups(struct session *s, const struct model_options *o, struct err *e)
{
    int rc;

    close_groups(s);
    rc = open_group(s, o->cp, &s->line, e);
    return rc < 0 ? rc : open_group(s, o->shares, &s->sharers, e);
}

/* What is exchanged in a step follows from what layers save: it is the same on all of them. */
static int plan_alike(struct session *s, int rc, struct err *e)
{
    struct group_note note = { .most = -(double)model_capacity(&s->device, &s->options) };
    struct group *g = s->device.group;
    struct memory_plan p = s->plan;

    if (!s->line && !s->sharers)
        return rc;
    if ((rc = group_meet(g, rc, &note, e)) < 0 ||
        (rc = g->broadcast(g, note.most_rank, &p, sizeof p, e)) < 0)
        return rc;
    if (g->rank != note.most_rank) {
        s->options.placement = &p.placement;
        s->options.mlp_tile = p.mlp_tile, s->options.loss_chunk = p.loss_chunk;
        rc = model_plan(&s->device, &s->config, &s->options, &s->plan, e);
        s->plan.step_s = p.step_s, s->plan.dense_ratio = p.dense_ratio;
    }
    return group_meet(g, rc, NULL, e);
}

int session_plan(struct session *s, const struct model_options *o, struct err *e)
{
    int rc = open_groups(s, o, e);

    if (rc < 0)
        return rc;
    s->options = *o;
    s->options.line = s->line, s->options.sharers = s->sharers;
    s->options.pipe = NULL;
    if (o->stages > 1 && s->device.group && s->device.group->size == o->stages)
        s->options.pipe = s->device.group, s->options.stage = s->options.pipe->rank;
    if (s->options.ctx == 0)
        s->options.ctx = config_reach(&s->config);
    /* what is merged into a matrix is added where it is act, and rounded once; or as it is kept */
    s->options.stored = s->adapter && o->mode == TRAIN_NONE && !s->keep_types ? NULL : s->weights;
    rc = model_plan(&s->device, &s->config, &s->options, &s->plan, e);
    rc = plan_alike(s, rc, e);
    /* what was chosen for the plan becomes what the model is opened with */
    if (rc == 0)
        model_as_planned(&s->options, &s->plan);
    return rc;
}

void session_close_files(struct session *s)
{
    adapter_close(s->adapter);
    weights_close(s->weights);
    s->adapter = NULL;
    s->weights = NULL;
}

/* Host memory cannot be had or pinned (WSL, containers), and nobody asked for it: a plan without it
 * may fit. Else rc and e stay. */
static int open_without_host(struct session *s, int rc, struct err *e)
{
    struct model_options o = s->options;
    struct memory_plan p;
    struct err why = { 0 };

    /* only where the plan itself chose to use host memory: 0 leaves it to the plan, -1
     * forbids it */
    if ((rc != E_SYS && rc != E_DEVICE) || s->plan.host == 0 || o.host_bytes != 0 || s->line ||
        s->sharers)
        return rc;
    o.placement = NULL, o.host_bytes = -1;
    /* a plan without host memory has to fit the device; otherwise the first failure stands */
    if (model_plan(&s->device, &s->config, &o, &p, &why) < 0 || p.host > 0 ||
        p.total > model_capacity(&s->device, &o))
        return rc;
    log_warn("%s", e->msg);
    log_warn("continuing without offloading, predicted %.0f%% slower",
             s->plan.step_s > 0 ? 100 * (p.step_s / s->plan.step_s - 1) : 0.0);
    s->options = o;
    s->plan = p;
    model_as_planned(&s->options, &s->plan);
    *e = (struct err){ 0 };
    return model_open(&s->model, &s->device, &s->config, &s->options, e);
}

/* Every byte of the base is known now. Other weights of the same sizes are no error: an adapter may
 * be tried on a base that was trained on, or is of another type. */
static void warn_other_base(const struct session *s, const struct session_options *o)
{
    uint64_t want = s->adapter ? adapter_config(s->adapter)->base_hash : 0;

    if (want && s->weights && want != model_base_hash(s->model))
        log_warn("'%s' was trained on other weights than those of '%s'", o->adapter, o->model);
}

int session_load(struct session *s, const struct session_options *o, struct err *e)
{
    double start = now_s();
    int rc = open_without_host(s, model_open(&s->model, &s->device, &s->config, &s->options, e), e);

    s->memory_s = now_s() - start;
    if (s->options.pipe)
        rc = group_meet(s->options.pipe, rc, NULL, e);
    if (rc == 0)
        rc = s->weights ? model_load(s->model, s->weights, o->seed, e)
             : o->noise ? model_noise(s->model, o->seed, e)
                        : model_init(s->model, o->seed, e);
    if (rc == 0)
        warn_other_base(s, o);
    if (rc == 0 && s->adapter)
        rc = model_load_adapter(s->model, s->adapter, e);
    s->weights_s = now_s() - start - s->memory_s;
    return rc;
}

/* On success the files are closed again, because everything is on the device by then. */
int session_open(struct session *s, const struct session_options *o, struct err *e)
{
    struct model_options plan = o->plan;
    int rc = session_files(s, o, e);

    machine_plan(&o->machine, &plan);
    if (rc == 0 && (rc = session_device(s, &o->machine, e)) == 0 &&
        (rc = session_plan(s, &plan, e)) == 0 &&
        (rc = model_fits(&s->device, &s->plan, e)) == 0)
        rc = session_load(s, o, e);
    if (rc < 0)
        session_close(s);
    else
        session_close_files(s);
    return rc;
}

/* Frees the model and its tokens; device and files stay open. */
void session_unload(struct session *s)
{
    model_close(s->model);
    s->model = NULL;
    free(s->ids);
    s->ids = NULL;
    s->n = 0;
}

void session_close(struct session *s)
{
    session_unload(s);
    segments_free(&s->seg);
    session_close_files(s);
    close_groups(s);
    if (s->has_device)
        s->device.close(&s->device);
    s->has_device = false;
}

void machine_share(struct machine *m, struct group *g, int gpu, int threads)
{
    m->group = g;
    if (g->size == 1)
        return;
    m->index = gpu;
    m->threads = m->threads ? m->threads : threads;
}

/* A machine's host_bytes of -1 leave the amount to the plan, and 0 means none; in a plan's
 * options it is the other way round. */
void machine_plan(const struct machine *m, struct model_options *o)
{
    o->device_bytes = m->device_bytes;
    o->host_bytes = m->host_bytes < 0 ? 0 : m->host_bytes == 0 ? -1 : m->host_bytes;
}

/* Every sequence is one segment, with all tokens before it in view. */
int session_losses(struct session *s, int64_t n_seqs, int64_t len, const int32_t *ids,
                   const int32_t *targets, float *nll, double *sum, int64_t *n, struct err *e)
{
    struct batch b = { .n_seqs = n_seqs, .len = len, .ids = ids, .targets = targets,
                       .seg = &s->seg, .nll = nll };
    int rc = segments_build(&s->seg, ATTN_DENSE, n_seqs, len, len, NULL, 0, e);

    return rc < 0 ? rc : model_forward(s->model, &b, sum, n, e);
}

/* Behind a cache; the text's length is the cache's. */
static int extend_cached(struct session *s, const int32_t *ids, int64_t n, float *logits,
                         struct err *e)
{
    struct piece p = { 0, n, ids };
    int rc = n ? model_extend(s->model, &(struct extend){ 1, &p, logits, false }, e) : 0;

    s->n = model_text_length(s->model, 0);
    return rc;
}

/* Keeps the tokens of a text that grows. Without a cache the model has no memory of earlier tokens:
 * for logits all of them go through it again. After a failure the text is as long as before. */
int session_extend(struct session *s, const int32_t *ids, int64_t n, float *logits,
                   struct err *e)
{
    struct batch b = { .n_seqs = 1, .len = s->n + n, .seg = &s->seg };
    int rc = 0;

    if (s->options.cache.rows && n >= 0)
        return extend_cached(s, ids, n, logits, e);
    if (n < 0 || n > s->options.ctx - s->n)
        return err_set(e, E_CONFIG, "cannot add %" PRId64 " tokens to %" PRId64 ": the session "
                                    "was opened for %" PRId64, n, s->n, s->options.ctx);
    /* room for the whole context at once, so that ids never move */
    if (!s->ids && !(s->ids = malloc((size_t)s->options.ctx * sizeof *s->ids)))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " tokens", s->options.ctx);
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= s->config.vocab)
            return err_set(e, E_DATA, "token id %d is outside the vocabulary of %" PRId64, ids[i],
                           s->config.vocab);
        s->ids[s->n + i] = ids[i];
    }
    b.ids = s->ids;
    if (logits &&
        (rc = segments_build(&s->seg, ATTN_DENSE, 1, b.len, b.len, NULL, 0, e)) == 0)
        rc = model_last_logits(s->model, &b, logits, e);
    if (rc == 0)
        s->n += n;
    return rc;
}

/* Drops the tokens from n on; a text shorter than that stays as it is. */
void session_rewind(struct session *s, int64_t n)
{
    s->n = n < s->n ? n : s->n;
    if (s->options.cache.rows)
        model_text_cut(s->model, 0, s->n);
}
