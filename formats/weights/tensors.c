/* formats/weights/tensors.c - see tensors.h.
 *
 * Everything here follows from the family's table, in which '#' marks the rows of a layer. The
 * model has these rows once for each layer, so its list of tensors is: the rows of the top, the
 * layer rows for layer 0, for layer 1, ..., and the rest of the top. */
#include "formats/weights/tensors.h"

#include <stdio.h>
#include <string.h>

const struct arch *config_arch(const struct llama_config *c)
{
    return c->arch ? c->arch : arch_nth(0);
}

int64_t config_size(const struct llama_config *c, enum size s)
{
    switch (s) {
    case SIZE_VOCAB: return c->vocab;
    case SIZE_DIM: return c->dim;
    case SIZE_Q: return c->heads * c->head_dim;
    case SIZE_KV: return c->kv_heads * c->head_dim;
    case SIZE_FFN: return c->ffn_dim;
    case SIZE_HEAD_DIM: return c->head_dim;
    case SIZE_QKV: return (c->heads + 2 * c->kv_heads) * c->head_dim;
    case SIZE_GATE_UP: return 2 * c->ffn_dim;
    case SIZE_NONE: break;
    }
    return 1;
}

/* Elements of one tensor. A norm has SIZE_NONE columns, which count as 1. */
static int64_t elements(const struct llama_config *c, const struct tensor_def *d)
{
    return config_size(c, d->rows) * config_size(c, d->cols);
}

/* How often a row of the table is in the model: once for each layer, or once. */
static int64_t times(const struct llama_config *c, const struct tensor_def *d)
{
    return tensor_of_layer(d) ? c->layers : 1;
}

int64_t tensors_count(const struct llama_config *c, tensor_things *n, const void *ctx)
{
    const struct arch *a = config_arch(c);
    int64_t sum = 0;

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        sum += times(c, d) * n(d, ctx);
    return sum;
}

/* The things of the layers' rows repeat, layer by layer. */
const struct tensor_def *tensors_at(const struct llama_config *c, int64_t i, tensor_things *n,
                                    const void *ctx, int64_t *layer, int *which)
{
    const struct arch *a = config_arch(c);
    const struct tensor_def *d = a->tensors, *end = d + a->n_tensors;
    int64_t each = 0;

    *layer = -1;
    /* The table is in three parts: top, the rows of a layer, top. i is counted down by the
     * things that were passed over. */
    for (; d < end && !tensor_of_layer(d); d++) {
        if (i < n(d, ctx))
            goto found;
        i -= n(d, ctx);
    }
    for (const struct tensor_def *k = d; k < end && tensor_of_layer(k); k++)
        each += n(k, ctx);
    /* d is at the first row of a layer. Within the layers a division finds the layer at
     * once. */
    if (i < each * c->layers) {
        *layer = i / each;
        i %= each;
    } else {
        i -= each * c->layers;
        for (; d < end && tensor_of_layer(d); d++)
            ;
    }
    for (; i >= n(d, ctx); d++)
        i -= n(d, ctx);
found:
    *which = (int)i;
    return d;
}

/* Fills in name and shape; the '#' in the name becomes the number of the layer. */
static void spec_of(const struct llama_config *c, const struct tensor_def *d, int64_t layer,
                    struct tensor_spec *s)
{
    const char *number = strchr(d->name, '#');
    int dims = d->cols == SIZE_NONE ? 1 : 2;

    *s = (struct tensor_spec){ .role = d->role, .layer = layer, .dims = dims,
                               .shape = { config_size(c, d->rows),
                                          dims == 2 ? config_size(c, d->cols) : 0 },
                               .count = elements(c, d) };
    if (number)
        snprintf(s->name, sizeof s->name, "%.*s%lld%s", (int)(number - d->name), d->name,
                 (long long)layer, number + 1);
    else
        snprintf(s->name, sizeof s->name, "%s", d->name);
}

void tensor_spec_of(const struct llama_config *c, enum role role, int64_t layer,
                    struct tensor_spec *s)
{
    const struct tensor_def *d = config_arch(c)->tensors;

    while (d->role != role)
        d++;
    spec_of(c, d, layer, s);
}

void tensor_source(const struct llama_config *base, const struct tensor_spec *s,
                   struct tensor_spec *from)
{
    *from = *s;
    /* A tied model has no head of its own in its files. */
    if (s->role == ROLE_HEAD && base->tied)
        tensor_spec_of(base, ROLE_EMBED, -1, from);
}

/* One thing for each tensor: the tensor. A tied head is none, since it is not in the file. */
static int itself(const struct tensor_def *d, const void *c)
{
    return d->role != ROLE_HEAD || !((const struct llama_config *)c)->tied;
}

int64_t config_tensors(const struct llama_config *c) { return tensors_count(c, itself, c); }

void config_tensor(const struct llama_config *c, int64_t i, struct tensor_spec *s)
{
    int64_t layer;
    int which;
    const struct tensor_def *d = tensors_at(c, i, itself, c, &layer, &which);

    spec_of(c, d, layer, s);
}

int64_t config_params(const struct llama_config *c)
{
    const struct arch *a = config_arch(c);
    int64_t sum = 0;

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        sum += itself(d, c) * times(c, d) * elements(c, d);
    return sum;
}

/* Of the tensors of one layer that have a bit in set. */
static int64_t layer_elements(const struct llama_config *c, uint64_t set)
{
    const struct arch *a = config_arch(c);
    int64_t sum = 0;

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        if (tensor_of_layer(d) && (set & ROLE_BIT(d->role)))
            sum += elements(c, d);
    return sum;
}

int64_t config_readers(const struct llama_config *c, enum role r)
{
    enum role first, whole;
    int n = role_readers(r, &first);

    whole = role_whole(r);
    /* Roles that read one input are neighbours in the enum, so they are n bits from 'first'
     * on. */
    return layer_elements(c, (ROLE_BIT(n) - 1) << first | (whole < ROLES ? ROLE_BIT(whole) : 0));
}

int64_t config_layer_products(const struct llama_config *c)
{
    return layer_elements(c, arch_pairs(config_arch(c)));
}

int64_t config_biases(const struct llama_config *c)
{
    const struct arch *a = config_arch(c);
    int64_t sum = 0;

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        if (role_form(d->role) == FORM_BIAS)
            sum += elements(c, d);
    return sum;
}

int64_t config_rotary(const struct llama_config *c)
{
    return c->rotary_dim ? c->rotary_dim : c->head_dim;
}

/* The head is counted even where it is tied, because it is multiplied by all the same. */
int64_t config_products(const struct llama_config *c)
{
    return c->layers * config_layer_products(c) + c->vocab * c->dim;
}
