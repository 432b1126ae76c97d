/* formats/weights/tensors.c - the list of tensors that a Llama model has; see weights.h. */
#include "formats/weights/weights.h"

#include <stdio.h>

static const struct { const char *name; int dims; } kinds[] = {
    [TK_EMBED] = { "model.embed_tokens.weight", 2 },
    [TK_NORM1] = { "input_layernorm.weight", 1 },
    [TK_Q] = { "self_attn.q_proj.weight", 2 },
    [TK_K] = { "self_attn.k_proj.weight", 2 },
    [TK_V] = { "self_attn.v_proj.weight", 2 },
    [TK_O] = { "self_attn.o_proj.weight", 2 },
    [TK_NORM2] = { "post_attention_layernorm.weight", 1 },
    [TK_GATE] = { "mlp.gate_proj.weight", 2 },
    [TK_UP] = { "mlp.up_proj.weight", 2 },
    [TK_DOWN] = { "mlp.down_proj.weight", 2 },
    [TK_NORM] = { "model.norm.weight", 1 },
    [TK_HEAD] = { "lm_head.weight", 2 },
};
enum { PER_LAYER = TK_DOWN - TK_NORM1 + 1 }; /* the kinds of a layer are in file order */

void tensor_spec_of(const struct llama_config *c, enum tensor_kind kind, int64_t layer,
                    struct tensor_spec *s)
{
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, rows = c->dim,
            cols = c->dim;

    switch (kind) {
    case TK_EMBED: case TK_HEAD: rows = c->vocab; break;
    case TK_Q: rows = q; break;
    case TK_K: case TK_V: rows = kv; break;
    case TK_O: cols = q; break;
    case TK_GATE: case TK_UP: rows = c->ffn_dim; break;
    case TK_DOWN: cols = c->ffn_dim; break;
    default: cols = 1; /* a norm: [dim] */
    }
    *s = (struct tensor_spec){ .kind = kind, .layer = layer, .dims = kinds[kind].dims,
                               .shape = { rows, kinds[kind].dims == 2 ? cols : 0 },
                               .count = rows * cols };
    if (layer < 0)
        snprintf(s->name, sizeof s->name, "%s", kinds[kind].name);
    else
        snprintf(s->name, sizeof s->name, "model.layers.%lld.%s", (long long)layer,
                 kinds[kind].name);
}

int64_t config_tensors(const struct llama_config *c)
{
    return c->layers * PER_LAYER + (c->tied ? 2 : 3);
}

void config_tensor(const struct llama_config *c, int64_t i, struct tensor_spec *s)
{
    if (i == 0)
        tensor_spec_of(c, TK_EMBED, -1, s);
    else if (i <= c->layers * PER_LAYER)
        tensor_spec_of(c, (enum tensor_kind)(TK_NORM1 + (i - 1) % PER_LAYER),
                       (i - 1) / PER_LAYER, s);
    else
        tensor_spec_of(c, i == c->layers * PER_LAYER + 1 ? TK_NORM : TK_HEAD, -1, s);
}
