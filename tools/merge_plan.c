/* tools/merge_plan.c - see merge_plan.h. */
#include "tools/merge_plan.h"

#include "formats/weights/gguf_types.h"
#include "formats/weights/naming.h"
#include "formats/weights/safetensors.h"

#include <stdlib.h>
#include <string.h>

void merge_plan_free(struct merge_plan *p)
{
    free(p->items);
    free(p->names);
    *p = (struct merge_plan){0};
}

/* The type in the result: ids and flags keep theirs whatever was asked for. */
static const struct tensor_type *out_type(const struct merge_options *o,
                                          const struct tensor_type *t)
{
    if (!type_real(t) || !o->keep_dtype)
        return type_real(t) ? o->type : t;
    /* What GGUF has packed in blocks is float16 in a folder, rows in another order the same type. */
    return st_type(t->name) ? st_type(t->name) : gguf_type_number(t) >= 0 ? &type_f16 : t;
}

/* Appends an item with its type and size. There is room: the list was made large
 * enough for all tensors. */
static int add(struct merge_plan *p, const struct merge_options *o, const struct merge_item *it,
               struct err *e)
{
    struct merge_item *m = &p->items[p->n];

    *m = *it;
    m->type = m->beside ? it->base->type : out_type(o, it->base->type);
    /* Only what safetensors can hold value by value; types that pack values in
     * blocks cannot be copied. */
    if (m->type != st_type(m->type->name) || m->type->block != 1)
        return err_set(e, E_CONFIG, "tensor '%.200s' of the base is of a type that cannot be "
                       "copied", it->name);
    if (__builtin_mul_overflow((size_t)it->base->count, m->type->block_bytes, &m->nbytes))
        return err_set(e, E_DATA, "tensor '%.200s' is too large", it->name);
    p->n++;
    return 0;
}

/* The tensors the configuration lists. The result of a tied base may be untied: its head is
 * then the base's embedding, or what the adapter saved for it. */
static int add_listed(struct merge_plan *p, const struct merge_options *o,
                      const struct weights *w, const struct adapter *a, struct err *e)
{
    int64_t n = config_tensors(&p->config);
    enum { NAME = sizeof ((struct tensor_spec *)0)->name + 32 }; /* more, as the files' may be longer */

    if (!(p->names = malloc((size_t)n * NAME + 1)))
        return err_set(e, E_SYS, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        struct merge_item it = {0};
        struct tensor_spec s, from;
        int rc;

        config_tensor(&p->config, i, &s);
        /* The names live in one block, a fixed size each, as long as the plan. */
        it.name = naming_put(config_arch(&p->config), o->to_gguf ? NULL : weights_naming(w), s.name,
                             p->names + i * NAME, NAME);
        /* The tensor of the base that this one is made from: for the head of a
         * tied base, its embedding. */
        tensor_source(weights_config(w), &s, &from);
        if ((rc = weights_get(w, from.name, from.dims, from.shape, &it.base, e)) < 0)
            return rc;
        /* A whole tensor of the adapter's, or a pair, or neither: the item says which. */
        if (a)
            adapter_change(a, &s, &it.x);
        if ((rc = add(p, o, &it, e)) < 0)
            return rc;
    }
    return 0;
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Tensors of the base that the list has not, as they are; but a head that a tied base carries
 * along is the embedding again. What is no text stays out of a GGUF file, and keeps its type in a folder. */
static int add_others(struct merge_plan *p, const struct merge_options *o,
                      const struct weights *w, struct err *e)
{
    size_t n = (size_t)p->n;
    const char **names = malloc((n + 1) * sizeof *names);
    struct tensor_spec head;
    int rc = names ? 0 : err_set(e, E_SYS, "out of memory");

    tensor_spec_of(&p->config, ROLE_HEAD, -1, &head);
    for (size_t i = 0; i < n && rc == 0; i++)
        names[i] = p->items[i].name;
    /* Sorted names, so that each of the base's is looked up in a few steps. */
    if (rc == 0)
        qsort(names, n, sizeof *names, by_string);
    for (int64_t i = 0; i < weights_count(w) && rc == 0; i++) {
        const struct tensor *t = weights_at(w, i);
        const struct merge_item it = { .name = tensor_file_name(t), .base = t,
                                       .beside = weights_is_beside(w, t) };
        const char *const *name = o->to_gguf ? &t->name : &it.name;
        if (!bsearch(name, names, n, sizeof *names, by_string) && strcmp(t->name, head.name) != 0 &&
            !(it.beside && o->to_gguf))
            rc = add(p, o, &it, e);
    }
    free(names);
    return rc;
}

/* Files in model order; no tensor is split, so one that is larger has a file to itself. */
static void assign_files(struct merge_plan *p, int64_t shard_bytes)
{
    size_t used = 0, cap = (size_t)shard_bytes;

    for (int64_t i = 0; i < p->n; i++) {
        struct merge_item *m = &p->items[i];
        /* used > 0: the first tensor of a file always fits. The second test is written so that
         * nothing overflows where one tensor is beyond the cap. */
        if (i == 0 || (used > 0 && (used > cap || m->nbytes > cap - used))) {
            p->files++;
            used = 0;
        }
        used += m->nbytes;
        m->file = p->files - 1;
    }
}

/* Wide types first within a file, so that each tensor starts at a multiple of its element
 * size; otherwise the order stays. */
static int order_files(struct merge_plan *p, struct err *e)
{
    struct merge_item *sorted = malloc((size_t)p->n * sizeof *sorted + 1);
    int64_t k = 0, first = 0;

    if (!sorted)
        return err_set(e, E_SYS, "out of memory");
    for (int f = 0; f < p->files; f++) {
        int64_t end = first;
        while (end < p->n && p->items[end].file == f)
            end++;
        /* For each size the items in their old order: 8 bytes, 4, 2, then 1. */
        for (size_t size = 8; size >= 1; size /= 2)
            for (int64_t i = first; i < end; i++)
                if (p->items[i].type->block_bytes == size)
                    sorted[k++] = p->items[i];
        first = end;
    }
    free(p->items);
    p->items = sorted;
    return 0;
}

/* Fills the report: how many tensors were merged, replaced or copied, and the type that most
 * bytes are of, which config.json names. */
static void count(const struct merge_plan *p, struct merge_report *r)
{
    int64_t bytes[DT_OTHER + 1] = {0};
    int most = DT_F32;

    for (int64_t i = 0; i < p->n; i++) {
        const struct merge_item *m = &p->items[i];
        /* A pair is merged, a whole tensor replaces the base's, and all others are copies. */
        r->beside += m->beside;
        *(m->x.a ? &r->merged : m->x.whole ? &r->replaced : &r->copied) += 1;
        bytes[m->type->plain] += (int64_t)m->nbytes;
        r->bytes += (int64_t)m->nbytes;
        if (m->x.a)
            r->delta_entries += m->base->count;
    }
    for (int t = 0; t < DT_OTHER; t++)
        if (bytes[t] > bytes[most])
            most = t;
    r->dtype = most == DT_F32 ? "float32" : most == DT_F16 ? "float16" : "bfloat16";
    r->files = p->files;
    r->params = config_params(&p->config);
    r->context = config_reach(&p->config);
}

int merge_plan_make(struct merge_plan *p, const struct merge_options *o,
                    const struct weights *w, const struct adapter *a, struct merge_report *r,
                    struct err *e)
{
    int64_t room;
    int rc;

    *p = (struct merge_plan){ .config = a ? *adapter_model_config(a) : *weights_config(w) };
    /* The base's head is its embedding, and the result has a head of its own. */
    r->untied = weights_config(w)->tied && !p->config.tied;
    /* At most: each listed tensor, and each of the base that is not listed. */
    room = config_tensors(&p->config) + weights_count(w) + 1;
    if (!(p->items = calloc((size_t)room, sizeof *p->items)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = add_listed(p, o, w, a, e)) < 0 || (rc = add_others(p, o, w, e)) < 0)
        return rc;
    assign_files(p, o->shard_bytes);
    if ((rc = order_files(p, e)) == 0)
        count(p, r);
    return rc;
}
