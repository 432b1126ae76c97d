/* gen/opening.c - opens what lgen runs on; see asked.h. */
#include "gen/asked.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_ROWS = 64 };

static struct session_options options_of(const struct asked *o)
{
    return (struct session_options){ .model = o->model, .adapter = o->adapter, .seed = 1, .keep_types = true,
                                     .machine = o->machine };
}

static int open_tokenizer(struct opening *g, struct err *e)
{
    char *own = g->o->tokenizer ? NULL : tokenizer_in_folder(g->o->model);
    const char *path = g->o->tokenizer ? g->o->tokenizer : own;
    int rc;

    if (!path) {
        err_set(e, E_NOINPUT, "'%s' has no tokenizer", g->o->model);
        return err_hint(e, "name one with --tokenizer FILE");
    }
    rc = tokenizer_open(&g->t, path, e);
    free(own);
    /* an id beyond the model's embedding would be refused for each text: here it is told once */
    if (rc == 0 && tokenizer_vocab(g->t) > g->s.config.vocab)
        log_warn("the tokenizer has %" PRId64 " tokens, the model %" PRId64,
                 tokenizer_vocab(g->t), g->s.config.vocab);
    return rc;
}

/* Without --chat a model's own template is taken for a conversation; a single prompt is not one. */
static int settle_chat(struct opening *g, struct err *e)
{
    bool known = true, wanted = g->o->talk || g->o->system;
    int rc = 0;

    g->chat = g->o->chat > 0 ? (enum chat_form)g->o->chat : CHAT_OTHER;
    if (g->o->chat < 0 && wanted && (rc = turns_recognise(g->o->model, &g->chat, &known, e)) == 0) {
        if (!known)
            log_warn("the chat template of '%s' is none that is known here: name one with --chat",
                     g->o->model);
        log_info("conversation as %s", turns_name(g->chat));
    }
    return rc == E_DATA ? err_hint(e, "or say with --chat how its turns are written") : rc;
}

/* A hash of an adapter's two files. */
static int hash_adapter(struct opening *g, struct err *e)
{
    static const char *const names[] = { "adapter_config.json", "adapter_model.safetensors" };
    int rc = 0;

    for (int i = 0; g->o->adapter && i < 2 && rc == 0; i++) {
        char *path = path_join(g->o->adapter, names[i]);
        const void *p;
        size_t n;

        if (path_is_file(path) && (rc = file_map(path, &p, &n, e)) == 0) {
            g->adapter_hash = g->adapter_hash * 31 + hash64_of(p, n);
            file_unmap(p, n);
        }
        free(path);
    }
    return rc;
}

int opening_files(struct opening *g, const struct asked *o, struct err *e)
{
    struct session_options so = options_of(o);
    int rc;

    g->o = o;
    rc = session_files(&g->s, &so, e);
    if (rc == 0 && (rc = open_tokenizer(g, e)) == 0 && (rc = settle_chat(g, e)) == 0)
        rc = hash_adapter(g, e);
    return rc;
}

int opening_rows(const struct opening *g, int64_t n, int64_t *rows, struct err *e)
{
    int64_t reach = config_reach(&g->s.config), need = n + g->o->reply.max_tokens;
    int64_t most = g->o->ctx ? g->o->ctx : reach;

    if (g->o->window) {
        *rows = g->o->sinks + g->o->window + (g->o->window / 4 > 256 ? g->o->window / 4 : 256);
        return 0;
    }
    if (need > most) {
        err_set(e, E_CONFIG, "the prompt has %" PRId64 " tokens and up to %" PRId64 " are to come: more "
                "than the %s of %" PRId64, n, g->o->reply.max_tokens,
                g->o->ctx ? "--ctx" : "model's context", most);
        return err_hint(e, n < most ? "lower --max-tokens, or raise --ctx, or keep a --window of the text"
                        : "give less text, raise --ctx (past its training a model is worse: ltrain "
                          "extends it), or keep a --window of the text");
    }
    *rows = g->o->ctx ? g->o->ctx : need > LEAST_ROWS ? need : LEAST_ROWS;
    return 0;
}

static int cache_type(const struct opening *g, enum kv_type *t, struct err *e)
{
    int cache = g->o->cache;

    *t = cache == CACHE_BF16 ? KV_BF16 : cache == CACHE_INT8 ? KV_INT8 : KV_ACT;
    if (cache == CACHE_FLOAT && g->s.device.act != DT_F32)
        return err_set(e, E_CONFIG, "a cache of float is for the CPU: here it has bf16 or int8");
    return 0;
}

/* What a plan is made for. */
struct wanted {
    int64_t rows, seqs;
    int rank, ranks;
};

static int try_plan(struct opening *g, const struct wanted *w, bool in_host, struct err *e)
{
    struct model_options mo = { .ctx = g->o->chunk, .stages = w->ranks, .stage = w->rank, .cache = {
        .rows = w->rows, .seqs = w->seqs, .sinks = g->o->sinks, .window = g->o->window, .in_host = in_host } };
    int rc = cache_type(g, &mo.cache.type, e);

    return rc < 0 ? rc : session_plan_texts(&g->s, &g->o->machine, &mo, e);
}

static int check_host(const struct opening *g, struct err *e)
{
    const struct cache_options *c = &g->s.options.cache;
    int rc = session_texts_fit_host(&g->s, e);

    if (rc == 0)
        return 0;
    return err_hint(e, "raise --host-memory, lower --ctx%s%s, or keep a --window of the text",
                    c->seqs > 1 ? " or --parallel" : "", c->type == KV_INT8 ? "" : ", take --cache int8");
}

static int check_fits(const struct opening *g, struct err *e)
{
    const struct device *d = &g->s.device;
    size_t has = model_capacity(d, &g->s.options);
    char need[16], cache[16], left[16];
    int rc = model_fits((struct device *)(uintptr_t)d, &g->s.plan, e);

    if (rc == 0 && (!d->own_memory || g->s.plan.total <= has))
        return check_host(g, e);
    err_set(e, E_SYS, "%" PRId64 " tokens need %s of memory, %s of it for keys and values: %s is free",
            g->s.options.cache.rows * g->s.options.cache.seqs,
            fmt_bytes((double)g->s.plan.total, need, sizeof need),
            fmt_bytes((double)g->s.plan.cache, cache, sizeof cache),
            fmt_bytes((double)(d->own_memory ? has : d->free_bytes((struct device *)(uintptr_t)d)),
                      left, sizeof left));
    return err_hint(e, "lower --ctx, take --cache int8, or keep a --window of the text%s",
                    d->own_memory && !g->s.options.cache.in_host ? ", or --cache-in-host" : "");
}

/* The device, or the card of --gpu. */
static int open_device(struct opening *g, struct err *e)
{
    const struct asked *o = g->o;

    if (g->s.has_device)
        return 0;
    if (o->plan && o->gpu >= 0)
        return session_card(&g->s, card_at(o->gpu), (size_t)(card_at(o->gpu)->gib * 0x1p30), e);
    return session_device(&g->s, &o->machine, e);
}

static int plan(struct opening *g, const struct wanted *w, struct err *e)
{
    const struct asked *o = g->o;
    const struct device *d = &g->s.device;
    bool in_host = o->cache_in_host, moved;
    int rc;

    if (in_host && !d->own_memory)
        return err_set(e, E_CONFIG, "--cache-in-host is for a GPU: here the memory is the host's");
    if ((rc = try_plan(g, w, in_host, e)) < 0)
        return rc;
    /* where the cache, not the model, is what does not fit, each token waits for all of it */
    moved = d->own_memory && !in_host && !o->window && model_host_capacity(d, &g->s.options) > 0 &&
            g->s.plan.total > model_capacity(d, &g->s.options);
    if (moved && (rc = try_plan(g, w, true, e)) < 0)
        return rc;
    rc = check_fits(g, e);
    if (rc == 0 && moved)
        log_warn("the keys and values do not fit the GPU: they lie in the host's memory, each token "
                 "fetches them%s", g->s.options.cache.type == KV_INT8 ? "" : " (--cache int8 halves that)");
    return rc;
}

struct group *opening_ranks(const struct opening *g)
{
    return g->o->machine.group ? g->o->machine.group : group_alone();
}

int opening_plan_rank(struct opening *g, int rank, int ranks, int64_t rows, int64_t seqs, struct err *e)
{
    struct wanted w = { rows, seqs, rank, ranks };
    int rc = open_device(g, e);

    return rc < 0 ? rc : plan(g, &w, e);
}

int opening_plan(struct opening *g, int64_t rows, int64_t seqs, struct err *e)
{
    struct group *ranks = opening_ranks(g);

    return group_meet(ranks, opening_plan_rank(g, ranks->rank, ranks->size, rows, seqs, e), NULL, e);
}

int opening_load(struct opening *g, struct err *e)
{
    struct session_options so = options_of(g->o);
    int rc = session_load(&g->s, &so, e);

    if (rc == 0 && !(g->logits = malloc((size_t)g->s.config.vocab * sizeof *g->logits)))
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0)
        log_info("%s on %s: %.1f s to load", g->o->model, g->s.device.detail,
                 g->s.memory_s + g->s.weights_s);
    session_close_files(&g->s);
    return group_meet(opening_ranks(g), rc, NULL, e);
}

void opening_close(struct opening *g)
{
    session_close(&g->s);
    tokenizer_close(g->t);
    free(g->said.ids);
    free(g->logits);
}
