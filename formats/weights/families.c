/* formats/weights/families.c - the families of models; see arch.h. To add one, add an entry. */
#include "formats/weights/arch.h"
#include "formats/weights/config_rope.h"

/* ---- rows that families share; '#' stands for the number of the layer ---- */

#define LAYER "model.layers.#."

/* Name in files, role, rows, columns, and whether LoRA+ trains the tensor as a whole. */
#define EMBED { "model.embed_tokens.weight", ROLE_EMBED, SIZE_VOCAB, SIZE_DIM, true }
#define ENDS { "model.norm.weight", ROLE_LAST_NORM, SIZE_DIM, SIZE_NONE, true }, \
             { "lm_head.weight", ROLE_HEAD, SIZE_VOCAB, SIZE_DIM, false }
#define MATRIX(name, role, rows, cols) { LAYER name ".weight", role, rows, cols, false }
#define NORM(name, role, rows) { LAYER name ".weight", role, rows, SIZE_NONE, true }
#define BIAS(name, role, rows) { LAYER name ".bias", role, rows, SIZE_NONE, false }

#define QKV MATRIX("self_attn.q_proj", ROLE_Q, SIZE_Q, SIZE_DIM), \
            MATRIX("self_attn.k_proj", ROLE_K, SIZE_KV, SIZE_DIM), \
            MATRIX("self_attn.v_proj", ROLE_V, SIZE_KV, SIZE_DIM)
#define O MATRIX("self_attn.o_proj", ROLE_O, SIZE_DIM, SIZE_Q)
#define MLP MATRIX("mlp.gate_proj", ROLE_GATE, SIZE_FFN, SIZE_DIM), \
            MATRIX("mlp.up_proj", ROLE_UP, SIZE_FFN, SIZE_DIM), \
            MATRIX("mlp.down_proj", ROLE_DOWN, SIZE_DIM, SIZE_FFN)
#define QKV_BIAS BIAS("self_attn.q_proj", ROLE_Q_BIAS, SIZE_Q), \
                 BIAS("self_attn.k_proj", ROLE_K_BIAS, SIZE_KV), \
                 BIAS("self_attn.v_proj", ROLE_V_BIAS, SIZE_KV)
#define O_BIAS BIAS("self_attn.o_proj", ROLE_O_BIAS, SIZE_DIM)
#define MLP_BIAS BIAS("mlp.gate_proj", ROLE_GATE_BIAS, SIZE_FFN), \
                 BIAS("mlp.up_proj", ROLE_UP_BIAS, SIZE_FFN), \
                 BIAS("mlp.down_proj", ROLE_DOWN_BIAS, SIZE_DIM)
#define QK_NORM(rows_q, rows_k) NORM("self_attn.q_norm", ROLE_Q_NORM, rows_q), \
                                NORM("self_attn.k_norm", ROLE_K_NORM, rows_k)
#define NORMS_1 NORM("input_layernorm", ROLE_ATTN_NORM, SIZE_DIM)
#define NORMS_2 NORM("post_attention_layernorm", ROLE_MLP_NORM, SIZE_DIM)

/* ---- tables of tensors ---- */

/* Llama's, and with biases, which attention_bias and mlp_bias switch. */
static const struct tensor_def llama_tensors[] = { EMBED, NORMS_1, QKV, O, NORMS_2, MLP, ENDS };
static const struct tensor_def llama_attention_biases[] = {
    EMBED, NORMS_1, QKV, QKV_BIAS, O, O_BIAS, NORMS_2, MLP, ENDS };
static const struct tensor_def llama_mlp_biases[] = {
    EMBED, NORMS_1, QKV, O, NORMS_2, MLP, MLP_BIAS, ENDS };
static const struct tensor_def llama_biases[] = {
    EMBED, NORMS_1, QKV, QKV_BIAS, O, O_BIAS, NORMS_2, MLP, MLP_BIAS, ENDS };

static const struct tensor_def qwen2_tensors[] = {
    EMBED, NORMS_1, QKV, QKV_BIAS, O, NORMS_2, MLP, ENDS };
static const struct tensor_def qwen3_tensors[] = {
    EMBED, NORMS_1, QKV, O, QK_NORM(SIZE_HEAD_DIM, SIZE_HEAD_DIM), NORMS_2, MLP, ENDS };
static const struct tensor_def qwen3_biases[] = {
    EMBED, NORMS_1, QKV, QKV_BIAS, O, O_BIAS, QK_NORM(SIZE_HEAD_DIM, SIZE_HEAD_DIM), NORMS_2, MLP,
    ENDS };

/* Norms behind attention and the MLP, none before them. */
#define AFTER_1 NORM("post_attention_layernorm", ROLE_POST_ATTN_NORM, SIZE_DIM)
#define AFTER_2 NORM("post_feedforward_layernorm", ROLE_POST_MLP_NORM, SIZE_DIM)
static const struct tensor_def olmo2_tensors[] = {
    EMBED, QKV, O, QK_NORM(SIZE_Q, SIZE_KV), AFTER_1, MLP, AFTER_2, ENDS };
static const struct tensor_def olmo2_biases[] = {
    EMBED, QKV, QKV_BIAS, O, O_BIAS, QK_NORM(SIZE_Q, SIZE_KV), AFTER_1, MLP, AFTER_2, ENDS };

/* Norms before and behind both. */
static const struct tensor_def gemma2_tensors[] = {
    EMBED, NORMS_1, QKV, O, AFTER_1, NORM("pre_feedforward_layernorm", ROLE_MLP_NORM, SIZE_DIM), MLP, AFTER_2,
    ENDS };
static const struct tensor_def gemma3_tensors[] = {
    EMBED, NORMS_1, QKV, O, QK_NORM(SIZE_HEAD_DIM, SIZE_HEAD_DIM), AFTER_1,
    NORM("pre_feedforward_layernorm", ROLE_MLP_NORM, SIZE_DIM), MLP, AFTER_2, ENDS };

static const struct tensor_def phi3_tensors[] = {
    EMBED, NORMS_1, MATRIX("self_attn.qkv_proj", ROLE_QKV, SIZE_QKV, SIZE_DIM), O, NORMS_2,
    MATRIX("mlp.gate_up_proj", ROLE_GATE_UP, SIZE_GATE_UP, SIZE_DIM),
    MATRIX("mlp.down_proj", ROLE_DOWN, SIZE_DIM, SIZE_FFN), ENDS };

#define NEOX "gpt_neox.layers.#."
#define NEOX_NORM(name, role, bias) { NEOX name ".weight", role, SIZE_DIM, SIZE_NONE, true }, \
                                    { NEOX name ".bias", bias, SIZE_DIM, SIZE_NONE, true }
#define NEOX_LAYER(qkv_bias, o_bias) \
    { "gpt_neox.embed_in.weight", ROLE_EMBED, SIZE_VOCAB, SIZE_DIM, true }, \
    NEOX_NORM("input_layernorm", ROLE_ATTN_NORM, ROLE_ATTN_NORM_BIAS), \
    NEOX_NORM("post_attention_layernorm", ROLE_MLP_NORM, ROLE_MLP_NORM_BIAS), \
    { NEOX "attention.query_key_value.weight", ROLE_QKV, SIZE_QKV, SIZE_DIM, false }, qkv_bias \
    { NEOX "attention.dense.weight", ROLE_O, SIZE_DIM, SIZE_Q, false }, o_bias \
    { NEOX "mlp.dense_h_to_4h.weight", ROLE_UP, SIZE_FFN, SIZE_DIM, false }, \
    { NEOX "mlp.dense_h_to_4h.bias", ROLE_UP_BIAS, SIZE_FFN, SIZE_NONE, false }, \
    { NEOX "mlp.dense_4h_to_h.weight", ROLE_DOWN, SIZE_DIM, SIZE_FFN, false }, \
    { NEOX "mlp.dense_4h_to_h.bias", ROLE_DOWN_BIAS, SIZE_DIM, SIZE_NONE, false }, \
    { "gpt_neox.final_layer_norm.weight", ROLE_LAST_NORM, SIZE_DIM, SIZE_NONE, true }, \
    { "gpt_neox.final_layer_norm.bias", ROLE_LAST_NORM_BIAS, SIZE_DIM, SIZE_NONE, true }, \
    { "embed_out.weight", ROLE_HEAD, SIZE_VOCAB, SIZE_DIM, false }
#define NEOX_BIAS(name, role, rows) { NEOX "attention." name ".bias", role, rows, SIZE_NONE, false },
static const struct tensor_def neox_tensors[] = {
    NEOX_LAYER(NEOX_BIAS("query_key_value", ROLE_QKV_BIAS, SIZE_QKV),
               NEOX_BIAS("dense", ROLE_O_BIAS, SIZE_DIM)) };
static const struct tensor_def neox_no_attention_biases[] = { NEOX_LAYER(, ) };

/* A table and its length, for the two fields of struct arch. */
#define TENSORS(t) t, (int)(sizeof (t) / sizeof *(t))

/* What a text_config leaves out: vocab_size, hidden_size, intermediate_size, num_hidden_layers,
 * num_attention_heads. */
#define SIZES(v, d, f, l, h) .vocab = v, .dim = d, .ffn = f, .layers = l, .heads = h
#define LLAMA_SIZES SIZES(32000, 4096, 11008, 32, 32)

/* ---- entries ---- */

#define LLAMA(t) { "llama", "LlamaForCausalLM", TENSORS(t), { .norm = NORM_RMS }, { LLAMA_SIZES } }
#define QWEN(word, class, t, head) { word, class, TENSORS(t), { .windows = WINDOWS_SWITCHED }, \
    { .kv_heads = 32, .head_dim = head, .context = 32768, .window = 4096, .window_layers = 28, \
      .no_ids = true, SIZES(151936, 4096, 22016, 32, 32) } }
#define SMOLLM3(t) { "smollm3", "SmolLM3ForCausalLM", TENSORS(t), \
    { .windows = WINDOWS_UNTURNED, .no_rope = true }, \
    { .theta = 2e6, .kv_heads = 4, .context = 32768, .tied = true, .no_ids = true, SIZES(128256, 2048, 11008, 36, 16) } }
#define OLMO2(t) { "olmo2", "Olmo2ForCausalLM", TENSORS(t), \
    { .kinds4 = 1u << ROPE_LINEAR | 1u << ROPE_DYNAMIC }, { .eps = 1e-5, .no_ids = true, SIZES(50304, 4096, 11008, 32, 32) } }
#define GRANITE(t) { "granite", "GraniteForCausalLM", TENSORS(t), { .multipliers = true }, \
    { LLAMA_SIZES } }
#define HIDDEN_ACTIVATION .field = { NULL, NULL, NULL, "hidden_activation" }
#define NEOX_ENTRY(t) { "gpt_neox", "GPTNeoXForCausalLM", TENSORS(t), \
    { NORM_LAYER, ACT_GELU, .parallel = true, .by_head = true, .rotary = 0.25, \
      .field = { "layer_norm_eps", "rotary_emb_base", "rotary_pct", NULL }, \
      .head_also = "lm_head.weight" /* in 5 */ }, \
    { .eps = 1e-5, .no_ids = true } }

const struct arch arch_family[] = {
    LLAMA(llama_tensors),
    { "mistral", "MistralForCausalLM", TENSORS(llama_tensors), { .windows = WINDOWS_ALL },
      { .kv_heads = 8, .context = 131072, .window = 4096, SIZES(32000, 4096, 14336, 32, 32) } },
    QWEN("qwen2", "Qwen2ForCausalLM", qwen2_tensors, 0),
    QWEN("qwen3", "Qwen3ForCausalLM", qwen3_tensors, 128),
    SMOLLM3(llama_tensors),
    { "phi3", "Phi3ForCausalLM", TENSORS(phi3_tensors),
      { .windows = WINDOWS_ALL, .rotary = 1, .three_fields = true, .kinds4 = 1u << ROPE_LONGROPE },
      { .eps = 1e-5, .context = 4096, SIZES(32064, 3072, 8192, 32, 32) } },
    OLMO2(olmo2_tensors),
    GRANITE(llama_tensors),
    NEOX_ENTRY(neox_tensors),
    { "gemma", "GemmaForCausalLM", TENSORS(llama_tensors),
      { .activation = ACT_GELU_TANH, .one_more = true, .root_embed = true, .gelu_tanh = true },
      { .kv_heads = 16, .head_dim = 256, .context = 8192, .tied = true, .ids_2_1 = true,
        SIZES(256000, 3072, 24576, 28, 16) } },
    { "gemma2", "Gemma2ForCausalLM", TENSORS(gemma2_tensors),
      { .activation = ACT_GELU_TANH, .windows = WINDOWS_OTHER, .one_more = true, .root_embed = true,
        .query_scalar = true, .cap_scores = true, .cap_logits = true, HIDDEN_ACTIVATION },
      { .kv_heads = 4, .head_dim = 256, .context = 8192, .window = 4096, .tied = true, .ids_2_1 = true,
        .cap_scores = 50, .cap_logits = 30, SIZES(256000, 2304, 9216, 26, 8) } },
    { "gemma3_text", "Gemma3ForCausalLM", TENSORS(gemma3_tensors),
      { .activation = ACT_GELU_TANH, .windows = WINDOWS_PATTERN, .one_more = true, .root_embed = true,
        .query_scalar = true, .cap_logits = true, .local_rope = true, HIDDEN_ACTIVATION },
      { .theta = 1e6, .kv_heads = 4, .head_dim = 256, .context = 131072, .window = 4096, .tied = true,
        .ids_2_1 = true, SIZES(262208, 2304, 9216, 26, 8) } },
    /* the same with biases */
    LLAMA(llama_attention_biases), LLAMA(llama_mlp_biases), LLAMA(llama_biases),
    QWEN("qwen3", "Qwen3ForCausalLM", qwen3_biases, 128),
    SMOLLM3(llama_attention_biases), SMOLLM3(llama_mlp_biases), SMOLLM3(llama_biases),
    OLMO2(olmo2_biases),
    GRANITE(llama_attention_biases), GRANITE(llama_mlp_biases), GRANITE(llama_biases),
    NEOX_ENTRY(neox_no_attention_biases),
};
const int arch_families = sizeof arch_family / sizeof *arch_family;
