/* tools/merge_gguf.c - see merge_gguf.h. */
#include "tools/merge_gguf.h"

#include "base/log.h"
#include "formats/weights/gguf_config.h"
#include "formats/weights/gguf_types.h"
#include "formats/weights/turned.h"
#include "tools/gguf_tokens.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One tensor of the file: what it is made of, with views in llama.cpp's order of rows. */
struct item {
    struct merge_item m;
    struct tensor base, rows[3];   /* the views: base, and what the adapter has by its rows */
    struct turn turns[4];
    const struct tensor *origin;   /* the base's own, of whose hash each is kept */
    char name[96];
    uint64_t at;                   /* from the start of the data */
};

struct job {
    const struct merge_options *o;
    const struct merge_plan *plan;
    const struct weights *w;
    const struct gguf_arch *arch;
    const struct tensor_type *type; /* of the matrices */
    struct item *items;
    int64_t n;
    struct merge_report *r;
};

/* That of the largest tensors, the matrices; of packed ones F16. */
static const struct tensor_type *auto_type(const struct merge_plan *p)
{
    const struct tensor *most = p->items[0].base;
    const struct tensor_type *t;

    for (int64_t i = 1; i < p->n; i++)
        most = p->items[i].base->count > most->count ? p->items[i].base : most;
    t = gguf_type((uint32_t)gguf_type_number(most->type));
    return t && t->plain != DT_OTHER ? t : &type_f16;
}

/* ggml's number of the whole file, general.file_type. */
static uint32_t file_type(const struct tensor_type *t)
{
    return t == &type_f32 ? 0 : t == &type_f16 ? 1 : t == &type_q4_0 ? 2 : t == &type_q8_0 ? 7 : 32;
}

static const struct tensor_type *item_type(const struct tensor_type *t, const struct tensor_spec *s)
{
    if (s->dims < 2)
        return &type_f32;
    if (s->shape[1] % t->block)
        return &type_f16;
    /* Fewer bits there cost much and save little. */
    return t == &type_q4_0 && (s->role == ROLE_EMBED || s->role == ROLE_HEAD) ? &type_q8_0 : t;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct merge_item *const *)a)->name, (*(const struct merge_item *const *)b)->name);
}

/* The plan's items, to be found by name. */
static const struct merge_item **sorted(const struct merge_plan *p)
{
    const struct merge_item **v = malloc(((size_t)p->n + 1) * sizeof *v);

    for (int64_t i = 0; v && i < p->n; i++)
        v[i] = &p->items[i];
    if (v && p->n)
        qsort(v, (size_t)p->n, sizeof *v, by_name);
    return v;
}

/* Views in the file's order of rows. Of a base in GGUF, itself a view, the stored rows are in it. */
static void turn(struct item *it, struct row_order order)
{
    struct merge_item *m = &it->m;
    const struct tensor **rows[] = { &m->x.whole, &m->x.b, &m->x.magnitude }; /* A has none of the result */

    if (tensor_stored(m->base) != m->base->type) {
        it->base = *m->base;
        it->base.type = tensor_stored(m->base);
        it->base.scale = NULL;
    } else {
        it->base = tensor_turned(m->base, &it->turns[0], order, false);
    }
    m->base = &it->base;
    for (int i = 0; i < 3; i++)
        if (*rows[i]) {
            it->rows[i] = tensor_turned(*rows[i], &it->turns[i + 1], order, false);
            *rows[i] = &it->rows[i];
        }
}

static int add_item(struct job *j, struct gguf_head *h, const struct tensor_spec *s,
                    const struct merge_item *from, struct err *e)
{
    struct item *it = &j->items[j->n++];
    struct row_order order = gguf_row_order(j->arch, &j->plan->config, s->role);
    int64_t size[2];

    it->m = *from;
    it->origin = from->base;
    if (!gguf_tensor_name(s, it->name, sizeof it->name))
        return err_set(e, E_CONFIG, "tensor '%s' has no name in llama.cpp", s->name);
    if (row_order_any(order))
        turn(it, order);
    it->m.type = item_type(j->type, s);
    it->m.nbytes = (size_t)(s->count / it->m.type->block) * it->m.type->block_bytes;
    size[0] = s->dims > 1 ? s->shape[1] : s->shape[0];
    size[1] = s->shape[0];
    it->at = gguf_put_tensor(h, it->name, (uint32_t)gguf_type_number(it->m.type), s->dims, size,
                             it->m.nbytes);
    j->r->bytes += (int64_t)it->m.nbytes;
    return 0;
}

/* All tensors of the configuration, in its order. */
static int add_items(struct job *j, struct gguf_head *h, struct err *e)
{
    int64_t n = config_tensors(&j->plan->config);
    const struct merge_item **v = sorted(j->plan);
    int rc = v && (j->items = calloc((size_t)n + 1, sizeof *j->items))
                 ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; i < n && rc == 0; i++) {
        struct tensor_spec s;
        const struct merge_item key = { .name = s.name }, *k = &key, **found;

        config_tensor(&j->plan->config, i, &s);
        found = bsearch(&k, v, (size_t)j->plan->n, sizeof *v, by_name);
        rc = found ? add_item(j, h, &s, *found, e)
                   : err_set(e, E_BUG, "tensor '%s' is not in the plan", s.name);
    }
    free(v);
    return rc;
}

/* ---- the head ---- */

/* What the file is called, without its ending. */
static void put_name(struct gguf_head *h, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);

    n -= n > 5 && strcmp(name + n - 5, ".gguf") == 0 ? 5 : 0;
    gguf_put_string(h, "general.name", name, n);
}

static void put_lists(struct gguf_head *h, const struct gguf_rope *r, uint64_t at[2])
{
    for (int i = 0; i < r->lists; i++)
        at[i] = gguf_put_tensor(h, gguf_rope_tensors[r->lists == 1 ? 0 : 1 + i], GGML_F32, 1, &r->pairs,
                                (size_t)r->pairs * 4);
}

static int write_lists(struct gguf_out *out, const struct gguf_rope *r, const uint64_t at[2], struct err *e)
{
    int rc = 0;

    for (int i = 0; i < r->lists && rc == 0; i++)
        rc = gguf_write_at(out, at[i], r->list[i], (size_t)r->pairs * 4, e);
    return rc;
}

static int put_head(struct job *j, struct gguf_head *h, struct gguf_rope *rope, const char *path,
                    struct err *e)
{
    const struct merge_options *o = j->o;
    bool none;
    int rc = gguf_config_write(h, &j->plan->config, rope, e);

    if (rc < 0)
        return rc;
    gguf_put_string(h, "general.type", "model", 5);
    put_name(h, path);
    gguf_put_u32(h, "general.quantization_version", 2);
    gguf_put_u32(h, "general.file_type", file_type(j->type));
    if ((rc = gguf_put_tokenizer(h, o->base, &j->plan->config, &none, e)) < 0)
        return rc;
    if (none)
        log_warn("'%s' has no tokenizer: llama.cpp will take token ids alone", o->base);
    return 0;
}

/* ---- the tensors ---- */

struct sink {
    struct gguf_out *out;
    uint64_t at;
};
static int sink_begin(void *to, size_t nbytes, struct err *e) { return (void)to, (void)nbytes, (void)e, 0; }
static int sink_end(void *to, uint64_t hash, struct err *e) { return (void)to, (void)hash, (void)e, 0; }
static int sink_write(void *to, size_t at, const void *p, size_t n, struct err *e)
{
    struct sink *s = to;

    return gguf_write_at(s->out, s->at + at, p, n, e);
}

static int write_items(struct job *j, struct gguf_out *out, struct merger *g, uint64_t *each,
                       struct err *e)
{
    double all = (double)j->r->bytes + 1, done = 0;
    int rc = 0;

    for (int64_t i = 0; i < j->n && rc == 0; i++) {
        const struct item *it = &j->items[i];
        struct sink s = { out, it->at };
        const struct merge_sink to = { &s, sink_begin, sink_write, sink_end };

        log_progress("%s  %.0f%%", it->name, 100.0 * done / all);
        rc = merger_write(g, &to, &it->m, &each[it->origin - weights_at(j->w, 0)], e);
        done += (double)it->m.nbytes;
    }
    log_progress_end();
    return rc;
}

int merge_gguf_build(struct merge_gguf *m, const struct merge_options *o, const struct merge_plan *p,
                     struct merger *g, const struct weights *w, uint64_t *each, const char *path,
                     struct merge_report *r, struct err *e)
{
    struct job j = { .o = o, .plan = p, .w = w, .arch = gguf_arch_of(&p->config),
                     .type = o->gguf ? o->gguf : auto_type(p), .r = r };
    struct gguf_head h = { 0 };
    struct gguf_rope rope;
    uint64_t at[2];
    int rc;

    *m = (struct merge_gguf){ 0 };
    r->bytes = 0;
    r->files = 1;
    r->dtype = j.type->name;
    if ((rc = put_head(&j, &h, &rope, path, e)) == 0) {
        put_lists(&h, &rope, at);
        if ((rc = add_items(&j, &h, e)) == 0 && (rc = gguf_create(&m->out, path, &h, e)) == 0) {
            m->open = true;
            if ((rc = write_lists(&m->out, &rope, at, e)) == 0)
                rc = write_items(&j, &m->out, g, each, e);
        }
    }
    gguf_head_free(&h);
    free(j.items);
    return rc;
}

int merge_gguf_publish(struct merge_gguf *m, struct err *e)
{
    m->open = false;
    return gguf_publish(&m->out, e);
}

void merge_gguf_abandon(struct merge_gguf *m)
{
    if (m->open)
        gguf_abandon(&m->out);
    m->open = false;
}

/* ---- an adapter alone ---- */

/* llama.cpp leaves out what is not a pair, without a word. */
static int check_pairs(const struct adapter_config *c, const struct llama_config *model, struct err *e)
{
    const uint64_t ends = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD);
    int rc = gguf_check(model, e);

    if (rc < 0)
        return rc;
    if (c->dora)
        return err_set(e, E_CONFIG, "the adapter is of DoRA, which llama.cpp does not know: merge it");
    if (c->targets & ROLE_BIT(ROLE_EMBED))
        return err_set(e, E_CONFIG, "the adapter has a pair of the embedding, which is not written to GGUF: "
                                    "merge it");
    if (!c->saved)
        return 0;
    err_set(e, E_CONFIG, "the adapter has trained %s, which llama.cpp does not take from an adapter",
            !(c->saved & ends) ? "norms" : c->saved & ~ends ? "norms and the embedding or head"
                                                              : "the embedding or head");
    return err_hint(e, "merge it: without --adapter-only the file is the whole model");
}

/* times: llama.cpp multiplies a pair by alpha / its rank, and knows one alpha: what another scale asks
 * for is in B. */
struct half {
    struct tensor t;
    struct turn turn;
    uint64_t at;
    float times;
};

/* One half of a pair, as float32. */
static int write_half(struct gguf_out *out, const struct half *h, struct err *e)
{
    const struct tensor *t = &h->t;
    float *f = malloc((size_t)t->count * sizeof *f + 1);
    int rc = f ? tensor_check(t, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && (rc = tensor_to_f32(t, 0, t->count, f, e)) == 0) {
        for (int64_t i = 0; i < t->count; i++)
            f[i] *= h->times;
        if (merge_not_finite(DT_F32, f, t->count))
            rc = err_set(e, E_DATA, "tensor '%.200s' has values that are not finite", t->name);
        else
            rc = gguf_write_at(out, h->at, f, (size_t)t->count * sizeof *f, e);
    }
    free(f);
    return rc;
}

static void put_half(struct gguf_head *h, struct half *half, const struct tensor *t, struct row_order order,
                     const char *name, const char *ending)
{
    const int64_t size[2] = { t->shape[1], t->shape[0] };
    char whole[128];

    snprintf(whole, sizeof whole, "%s%s", name, ending);
    half->t = order.head > 0 ? tensor_turned(t, &half->turn, order, false) : *t;
    half->times = 1;
    half->at = gguf_put_tensor(h, whole, GGML_F32, 2, size, (size_t)t->count * 4);
}

static double alpha_of(const struct adapter *a)
{
    const struct adapter_config *c = adapter_config(a);

    return adapter_scale(c) * (double)c->rank;
}

/* Fills halves, two a pair; returns how many. */
static int64_t put_pairs(struct gguf_head *h, const struct adapter *a, struct half *halves)
{
    const struct llama_config *c = adapter_model_config(a);
    const struct gguf_arch *arch = gguf_arch_of(c);
    int64_t k = 0;

    for (int64_t i = 0; i < config_tensors(c); i++) {
        struct adapter_change x;
        struct tensor_spec s;
        char name[96];

        config_tensor(c, i, &s);
        adapter_change(a, &s, &x);
        if (!x.a || !gguf_tensor_name(&s, name, sizeof name))
            continue;
        put_half(h, &halves[k++], x.a, (struct row_order){ 0 }, name, ".lora_a");
        put_half(h, &halves[k], x.b, gguf_row_order(arch, c, s.role), name, ".lora_b");
        halves[k++].times = (float)(x.scale * (double)x.a->shape[0] / alpha_of(a));
    }
    return k;
}

int merge_gguf_adapter(const struct merge_options *o, const struct adapter *a, const char *path,
                       struct merge_report *r, struct err *e)
{
    const struct llama_config *c = adapter_model_config(a);
    const struct adapter_config *ac = adapter_config(a);
    struct half *halves = calloc(2 * (size_t)config_tensors(c) + 1, sizeof *halves);
    struct gguf_head h = { 0 };
    struct gguf_out out;
    int64_t n = 0;
    int rc = halves ? check_pairs(ac, c, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0) {
        gguf_put_string(&h, "general.architecture", gguf_arch_of(c)->name, strlen(gguf_arch_of(c)->name));
        gguf_put_string(&h, "general.type", "adapter", 7);
        gguf_put_string(&h, "adapter.type", "lora", 4);
        put_name(&h, path);
        /* llama.cpp divides it by the rank. */
        gguf_put_f32(&h, "adapter.lora.alpha", alpha_of(a));
        gguf_put_u32(&h, "general.quantization_version", 2);
        gguf_put_u32(&h, "general.file_type", 0);
        n = put_pairs(&h, a, halves);
        rc = gguf_create(&out, path, &h, e);
    }
    if (rc == 0) {
        for (int64_t i = 0; i < n && rc == 0; i++) {
            rc = o->stop && *o->stop ? err_set(e, E_NO, "stopped") : 0;
            if (rc == 0)
                rc = write_half(&out, &halves[i], e);
        }
        if (rc == 0)
            rc = gguf_publish(&out, e);
        else
            gguf_abandon(&out);
    }
    *r = (struct merge_report){ .merged = n / 2, .files = 1, .bytes = (int64_t)h.data_bytes, .dtype = "F32",
                                .context = config_reach(c) };
    for (int64_t i = 0; i < n; i++)
        r->params += halves[i].t.count;
    gguf_head_free(&h);
    free(halves);
    return rc;
}
