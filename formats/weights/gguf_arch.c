/* formats/weights/gguf_arch.c - see gguf_arch.h. As llama.cpp's src/llama-arch.cpp and its models have it. */
#include "formats/weights/gguf_arch.h"

#include <stdio.h>
#include <string.h>

#define B(r) ROLE_BIT(ROLE_##r)
#define MLP_BIASES (B(GATE_BIAS) | B(UP_BIAS) | B(DOWN_BIAS))
enum { FREQS = 1, FACTORS = 2 };

/* To add a family, add a row; and to 'parts' the tensors that only it has. */
static const struct gguf_arch archs[] = {
    { "llama", "llama", .turned = true, .lists = FREQS | FACTORS },
    { "mistral", "llama", .turned = true, .lists = FREQS | FACTORS },
    { "qwen2", "qwen2", .square = true },
    { "qwen3", "qwen3", .lacks = B(O_BIAS) },
    { "phi3", "phi3", .lists = FACTORS, .square = true },
    { "gpt_neox", "gptneox", .needs = B(QKV_BIAS) | B(O_BIAS) | B(HEAD), .square = true, .gelu = true },
    { "olmo2", "olmo2", .lacks = B(O_BIAS), .needs = B(HEAD), .square = true },
    { "granite", "granite", .turned = true, .lists = FREQS | FACTORS },
    { "smollm3", "smollm3", .turned = true, .lacks = B(O_BIAS) | MLP_BIASES, .unturned = 4 },
    { "gemma", "gemma", .gelu = true, .embed_head = true },
    { "gemma2", "gemma2", .gelu = true, .embed_head = true, .full = 2, .whole_layers = 46 },
    { "gemma3_text", "gemma3", .gelu = true, .full = 6, .whole_layers = 62 },
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
    [ROLE_POST_ATTN_NORM] = "post_attention_norm.weight", [ROLE_POST_MLP_NORM] = "post_ffw_norm.weight",
    [ROLE_QKV] = "attn_qkv.weight", [ROLE_QKV_BIAS] = "attn_qkv.bias",
    [ROLE_GATE_UP] = "ffn_up.weight", /* gate above up, as in Hugging Face's files */
    [ROLE_ATTN_NORM_BIAS] = "attn_norm.bias", [ROLE_MLP_NORM_BIAS] = "ffn_norm.bias",
    [ROLE_LAST_NORM_BIAS] = "output_norm.bias",
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

struct row_order gguf_row_order(const struct gguf_arch *a, const struct llama_config *c, enum role role)
{
    struct row_order o = { 0 };
    bool qk = role == ROLE_Q || role == ROLE_K || role == ROLE_Q_BIAS || role == ROLE_K_BIAS;

    if (a->turned && qk)
        o.head = c->head_dim;
    if (config_arch(c)->block.by_head && (role == ROLE_QKV || role == ROLE_QKV_BIAS))
        o = (struct row_order){ .head = c->head_dim, .heads = c->heads };
    if (config_arch(c)->block.one_more && role_form(role) == FORM_NORM)
        o.more = 1;
    return o;
}

/* attention.value_length, vocab_size and rope.dimension_count
 * follow from the others and are compared when read. */
const struct gguf_field gguf_fields[] = {
    { "context_length", "max_position_embeddings", true },
    { "embedding_length", "hidden_size", true },
    { "block_count", "num_hidden_layers", true },
    { "feed_forward_length", "intermediate_size", true },
    { "attention.head_count", "num_attention_heads", true },
    { "attention.head_count_kv", "num_key_value_heads", false },
    { "attention.key_length", "head_dim", false },
};
const int gguf_n_fields = sizeof gguf_fields / sizeof *gguf_fields;
