/* formats/weights/gguf_reader.c - a GGUF file as a model; see reader.h. */
#include "formats/weights/reader.h"

#include "formats/weights/gguf_config.h"
#include "formats/weights/gguf_types.h"
#include "formats/weights/turned.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = sizeof ((struct tensor_spec *)0)->name };

struct gguf_model {
    struct gguf *g;
    struct turn *turns; /* of q, k and v, one a tensor of the model */
    char *names;        /* Hugging Face's, NAME bytes each */
    bool *used;         /* of the file's tensors: the model has them */
};

static void close_model(void *state)
{
    struct gguf_model *m = state;

    if (!m)
        return;
    gguf_close(m->g);
    free(m->turns);
    free(m->names);
    free(m->used);
    free(m);
}

/* One tensor under the name and in the order of rows that the model wants. */
static int add(struct weights_files *f, struct gguf_model *m, const struct gguf_arch *a,
               const struct tensor_spec *s, const struct gguf_tensor *t, struct err *e)
{
    struct row_order rows = gguf_row_order(a, &f->config, s->role);
    int64_t whole = rows.head * (rows.heads ? 3 * rows.heads : 1);
    struct tensor *to = &f->all[f->n];

    *to = (struct tensor){ .name = memcpy(m->names + f->n * NAME, s->name, NAME), .dims = t->dims,
                           .count = 1, .type = gguf_type(t->type), .data = t->data,
                           .nbytes = t->nbytes, .file = gguf_name(m->g) };
    if (!to->type) {
        err_set(e, E_CONFIG, "'%s': tensor '%s' at byte %zu is of type %s, which is not computed with",
                gguf_name(m->g), t->name, t->at, gguf_type_name(t->type));
        return err_hint(e, "F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are: use such a file of the model");
    }
    for (int i = 0; i < t->dims; i++) {
        to->shape[i] = t->size[t->dims - 1 - i];
        to->count *= to->shape[i];
    }
    if (row_order_any(rows) && (whole == 0 || to->shape[0] % whole == 0)) /* else its shape is refused later */
        *to = tensor_turned(to, &m->turns[f->n], rows, true);
    f->n++;
    return 0;
}

/* What the list of the family does not have would be left out silently. */
static int check_others(const struct gguf_model *m, const struct llama_config *c, struct err *e)
{
    for (int64_t i = 0; i < gguf_tensors(m->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(m->g, i);
        bool rope = false;

        for (int k = 0; k < 3; k++)
            rope |= strcmp(t->name, gguf_rope_tensors[k]) == 0;
        if (!m->used[i] && !rope)
            return err_set(e, E_CONFIG, "'%s': tensor '%s' at byte %zu is none of a model of family '%s'",
                           gguf_name(m->g), t->name, t->at, config_arch(c)->model_type);
    }
    return 0;
}

static int add_all(struct weights_files *f, struct gguf_model *m, const struct gguf_arch *a,
                   struct err *e)
{
    /* A count of layers is only a number of the file: what there is of tensors bounds it. */
    int64_t n = config_tensors(&f->config), most = gguf_tensors(m->g);
    struct tensor_spec s;
    char name[96];
    int rc = 0;

    f->all = calloc((size_t)most + 1, sizeof *f->all);
    m->turns = calloc((size_t)most + 1, sizeof *m->turns);
    m->names = malloc(((size_t)most + 1) * NAME);
    m->used = calloc((size_t)most + 1, sizeof *m->used);
    if (!f->all || !m->turns || !m->names || !m->used)
        return err_set(e, E_SYS, "out of memory");
    for (int64_t i = 0; i < n && rc == 0; i++) {
        const struct gguf_tensor *t;

        config_tensor(&f->config, i, &s);
        if (!gguf_tensor_name(&s, name, sizeof name) || !(t = gguf_tensor_find(m->g, name)))
            continue;
        m->used[t - gguf_tensor_at(m->g, 0)] = true;
        rc = add(f, m, a, &s, t, e);
    }
    if (rc == 0 && (rc = check_others(m, &f->config, e)) == 0)
        rc = weights_sort(f, e);
    return rc;
}

static int open_model(struct weights_files *f, const char *path, struct err *e)
{
    struct gguf_model *m = f->state = calloc(1, sizeof *m);
    const struct gguf_arch *a;
    int rc = m ? gguf_open(&m->g, path, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && (rc = gguf_config_read(&f->config, &a, m->g, e)) == 0)
        rc = add_all(f, m, a, e);
    return rc;
}

const struct weights_reader gguf_reader = {
    .name = "GGUF",
    .file = true,
    .finds = gguf_is,
    .open = open_model,
    .close = close_model,
};
