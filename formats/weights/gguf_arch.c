/* formats/weights/gguf_arch.c - see gguf_arch.h. As llama.cpp's src/llama-arch.cpp and its models have it. */
#include "formats/weights/gguf_arch.h"

#include <stdio.h>
#include <string.h>

/* To add a family, add a row; and to 'parts' the tensors that only it has. */
static const struct gguf_arch archs[] = {
    { "llama", "llama", true },
    { "mistral", "llama", true },
    { "qwen2", "qwen2", false },
    { "qwen3", "qwen3", false },
};
enum { ARCHS = sizeof archs / sizeof *archs };

const struct gguf_arch *gguf_arch_of(const struct llama_config *c)
{
    const char *type = config_arch(c)->model_type;

    for (int i = 0; i < ARCHS; i++)
        if (strcmp(archs[i].model_type, type) == 0)
            return &archs[i];
    return NULL;
}

const struct gguf_arch *gguf_arch_named(const char *name, size_t n)
{
    for (int i = 0; i < ARCHS; i++)
        if (strlen(archs[i].name) == n && memcmp(archs[i].name, name, n) == 0)
            return &archs[i];
    return NULL;
}

const char *gguf_arch_names(char *buf, size_t cap)
{
    size_t n = 0;

    *buf = '\0';
    for (int i = 0; i < ARCHS && n < cap; i++)
        if (i == 0 || strcmp(archs[i].name, archs[i - 1].name) != 0)
            n += (size_t)snprintf(buf + n, cap - n, "%s%s", n ? ", " : "", archs[i].name);
    return buf;
}

/* Of a layer the name stands behind "blk.N.". */
static const char *const parts[ROLES] = {
    [ROLE_EMBED] = "token_embd.weight", [ROLE_HEAD] = "output.weight",
    [ROLE_LAST_NORM] = "output_norm.weight", [ROLE_ATTN_NORM] = "attn_norm.weight",
    [ROLE_Q] = "attn_q.weight", [ROLE_K] = "attn_k.weight", [ROLE_V] = "attn_v.weight",
    [ROLE_O] = "attn_output.weight", [ROLE_MLP_NORM] = "ffn_norm.weight",
    [ROLE_GATE] = "ffn_gate.weight", [ROLE_UP] = "ffn_up.weight", [ROLE_DOWN] = "ffn_down.weight",
    [ROLE_Q_NORM] = "attn_q_norm.weight", [ROLE_K_NORM] = "attn_k_norm.weight",
    [ROLE_Q_BIAS] = "attn_q.bias", [ROLE_K_BIAS] = "attn_k.bias", [ROLE_V_BIAS] = "attn_v.bias",
    [ROLE_O_BIAS] = "attn_output.bias", [ROLE_GATE_BIAS] = "ffn_gate.bias",
    [ROLE_UP_BIAS] = "ffn_up.bias", [ROLE_DOWN_BIAS] = "ffn_down.bias",
};

bool gguf_tensor_name(const struct tensor_spec *s, char *name, size_t cap)
{
    if (!parts[s->role])
        return false;
    if (s->layer >= 0)
        snprintf(name, cap, "blk.%lld.%s", (long long)s->layer, parts[s->role]);
    else
        snprintf(name, cap, "%s", parts[s->role]);
    return true;
}

int64_t gguf_turned_head(const struct gguf_arch *a, const struct llama_config *c, enum role role)
{
    bool qk = role == ROLE_Q || role == ROLE_K || role == ROLE_Q_BIAS || role == ROLE_K_BIAS;

    return a->turned && qk ? c->head_dim : 0;
}

/* In the order in which they are written. attention.value_length, vocab_size and rope.dimension_count
 * follow from the others and are compared when read. */
const struct gguf_field gguf_fields[] = {
    { "context_length", "max_position_embeddings", false, true },
    { "embedding_length", "hidden_size", false, true },
    { "block_count", "num_hidden_layers", false, true },
    { "feed_forward_length", "intermediate_size", false, true },
    { "attention.head_count", "num_attention_heads", false, true },
    { "attention.head_count_kv", "num_key_value_heads", false, false },
    { "attention.key_length", "head_dim", false, false },
    { "attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true },
};
const int gguf_n_fields = sizeof gguf_fields / sizeof *gguf_fields;
