/* train/outweights.c - see outweights.h. */
#include "train/outweights.h"

#include "base/file.h"
#include "formats/weights/naming.h"
#include "formats/weights/weights.h"
#include "train/state.h"

#include <stdlib.h>
#include <string.h>

enum { NAME = 160 };

/* One tensor of the file: a trained one, or the base's. */
struct item {
    struct st_decl decl;
    char name[NAME];
    const struct param *trained;
    const struct tensor *beside;
    int64_t at; /* in the order of the configuration, the base's behind */
};

/* Wide types first, as safetensors.h has it. */
static int by_width(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    size_t v = x->decl.type->block_bytes, w = y->decl.type->block_bytes;

    return v != w ? (v < w) - (v > w) : (x->at > y->at) - (x->at < y->at);
}

/* The names come from the configuration and the values from the trained set, by the same index. */
static int64_t list(struct item *items, struct model *m, const struct weights *base, const struct tensor_type *type)
{
    const struct llama_config *c = model_config(m);
    const struct trained *t = model_trained(m);
    int64_t n = 0;

    for (; n < t->n_params; n++) {
        struct item *x = &items[n];
        struct tensor_spec s;

        config_tensor(c, n, &s);
        naming_put(config_arch(c), base ? weights_naming(base) : NULL, s.name, x->name, sizeof x->name);
        x->decl = (struct st_decl){ .type = type, .dims = s.dims, .shape = { s.shape[0], s.shape[1] } };
        x->trained = &t->params[n];
    }
    for (int64_t i = 0; base && i < weights_count(base); i++) {
        const struct tensor *from = weights_at(base, i);
        struct item *x = &items[n];

        if (!weights_is_beside(base, from))
            continue;
        snprintf(x->name, sizeof x->name, "%s", from->name);
        x->decl = (struct st_decl){ .type = from->type, .dims = from->dims };
        memcpy(x->decl.shape, from->shape, sizeof from->shape);
        x->beside = from;
        n++;
    }
    for (int64_t i = 0; i < n; i++)
        items[i].at = i;
    qsort(items, (size_t)n, sizeof *items, by_width);
    return n;
}

static int write_items(struct st_writer *w, struct device *d, const struct model *m, const struct item *items,
                       int64_t n, struct err *e)
{
    const struct trained *t = model_trained(m);
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const struct tensor *b = items[i].beside;

        if (!b)
            rc = state_write(d, w, t->w + items[i].trained->offset, items[i].trained->count, e);
        else if ((rc = tensor_check(b, e)) == 0)
            rc = st_write_raw(w, b->data, b->nbytes, e);
    }
    return rc;
}

static int write_all(const char *path, struct device *d, struct model *m, struct item *items, int64_t n,
                     const struct st_note *notes, struct err *e)
{
    struct st_decl *decl = calloc((size_t)n + 1, sizeof *decl);
    struct st_writer *w = NULL;
    int rc = decl ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; rc == 0 && i < n; i++) {
        decl[i] = items[i].decl;
        decl[i].name = items[i].name;
    }
    if (rc == 0 && (rc = st_create_noted(&w, path, decl, n, notes, e)) == 0) {
        if ((rc = write_items(w, d, m, items, n, e)) == 0)
            rc = st_finish(w, e);
        else
            st_abandon(w);
        /* A value that does not fit the type, such as one above float16's largest. */
        if (rc == E_DATA)
            err_hint(e, "nothing trained is lost: the same command with --dtype bfloat16 or "
                        "float32 writes the model");
    }
    free(decl);
    return rc;
}

int outweights_write(const struct settings *s, struct device *d, struct model *m, const struct tensor_type *type,
                     const struct st_note *notes, struct err *e)
{
    const struct llama_config *c = model_config(m);
    const struct trained *t = model_trained(m);
    char *path = path_join(s->out, "model.safetensors");
    struct weights *base = NULL;
    struct item *items = NULL;
    int rc = t->n_params == config_tensors(c) ? 0 : err_set(e, E_BUG, "not every tensor was trained");

    if (rc == 0 && c->multimodal && s->model)
        rc = weights_open(&base, s->model, e);
    if (rc == 0 && !(items = calloc((size_t)(t->n_params + (base ? weights_count(base) : 0)) + 1, sizeof *items)))
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0)
        rc = write_all(path, d, m, items, list(items, m, base, type), notes, e);
    weights_close(base);
    free(items);
    free(path);
    return rc;
}
