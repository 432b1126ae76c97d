/* formats/weights/arch.h - families of models, each described in one entry: tensors and block. */
#ifndef FORMATS_WEIGHTS_ARCH_H
#define FORMATS_WEIGHTS_ARCH_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
C_BEGIN

/*
 * A family ("llama", "mistral") is a table of tensors and a block. All that is said about a
 * model's tensors follows from the table: how many there are, their names in files, their sizes,
 * parameters, operations, LoRA pairs, what an adapter stores. A row reads
 *
 *   { "model.layers.#.self_attn.q_proj.weight", ROLE_Q, SIZE_Q, SIZE_DIM, false }
 *
 * name in files (# is the number of the layer), what the model does with it, rows, columns, whether
 * LoRA+ trains it. model/layer.c is written by hand and knows tensors by role: where a family
 * has a bias or a q/k norm in its table, it is computed with; where it has none, it is not there.
 */

/* What the model computes with a tensor. Matrices that read one input are neighbours. */
enum role {
    ROLE_EMBED, ROLE_HEAD, ROLE_LAST_NORM,                  /* the top; the rest are a layer's */
    ROLE_ATTN_NORM, ROLE_Q, ROLE_K, ROLE_V, ROLE_O,
    ROLE_MLP_NORM, ROLE_GATE, ROLE_UP, ROLE_DOWN,
    ROLE_Q_NORM, ROLE_K_NORM,                               /* of each head, before RoPE */
    ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS, ROLE_O_BIAS,
    ROLE_GATE_BIAS, ROLE_UP_BIAS, ROLE_DOWN_BIAS,
    ROLE_POST_ATTN_NORM, ROLE_POST_MLP_NORM,                /* of what is added to x */
    ROLE_QKV, ROLE_GATE_UP, /* q, k and v, gate and up in one tensor, one below the other; one pair */
    ROLE_QKV_BIAS,
    ROLE_ATTN_NORM_BIAS, ROLE_MLP_NORM_BIAS, ROLE_LAST_NORM_BIAS, /* LayerNorm's */
    ROLES
};
#define ROLE_BIT(r) ((uint64_t)1 << (r)) /* sets of roles are uint64_t */

enum form { FORM_MATRIX, FORM_NORM, FORM_BIAS, FORM_SHIFT }; /* SHIFT: the bias of a norm */
enum form role_form(enum role r);
/* A matrix that may have a LoRA pair: its word on the command line, "q" or "gate"; else NULL. */
const char *role_word(enum role r);
/* The role of a word of n bytes, ROLES where there is none. */
enum role role_of_word(const char *word, size_t n);
/* All those words, "q, k, v, o, gate, up, down", for messages; returns buf. */
const char *role_words(char *buf, size_t cap);
/* The bias that is added to a matrix's product, or to what a norm gives; ROLES: no family has one. */
enum role role_bias(enum role r);
/* The matrices of a layer that read the same input as r: how many, from *first on. */
int role_readers(enum role r, enum role *first);

/* SIZE_Q: heads * head_dim, SIZE_KV: kv_heads * head_dim, SIZE_QKV: one of those and two of these. */
enum size { SIZE_NONE, SIZE_VOCAB, SIZE_DIM, SIZE_Q, SIZE_KV, SIZE_FFN, SIZE_HEAD_DIM, SIZE_QKV,
            SIZE_GATE_UP };

/* A matrix that is rows of another tensor, where a family has these in one: ROLE_QKV of ROLE_K.
 * ROLES: none. */
enum role role_whole(enum role r);

struct tensor_def {
    const char *name;     /* Hugging Face's, "#" for the layer; ends in .weight or .bias */
    enum role role;       /* each at most once */
    enum size rows, cols; /* matrix [rows][cols] = [out][in]; norm or bias [rows], SIZE_NONE */
    bool plus;            /* LoRA+ trains it whole */
};
static inline bool tensor_of_layer(const struct tensor_def *d) { return strchr(d->name, '#'); }

enum norm_kind { NORM_RMS, NORM_LAYER }; /* of layers and behind the last; those of heads are NORM_RMS */
/* down(f(gate(x)) * up(x)), or of a family without a gate down(f(up(x))). In the order of enum gate
 * (kernels.h). */
enum activation { ACT_SILU, ACT_GELU, ACT_GELU_TANH };

/* Which layers see through a window (sliding_window of config.json). */
enum windows {
    WINDOWS_NONE,     /* the field means nothing */
    WINDOWS_ALL,      /* where it is a number: all layers */
    WINDOWS_SWITCHED, /* where use_sliding_window is true: those that layer_types says, else all
                         from max_window_layers on */
    WINDOWS_UNTURNED, /* the same, else those that have no RoPE */
    WINDOWS_OTHER,    /* those that layer_types says, else every other one from the first on; there must be a
                         window, of any length */
    WINDOWS_PATTERN   /* the same, else all but each sliding_window_pattern-th */
};

/* Names of fields of config.json where they are not Llama's; NULL: they are. */
struct field_names {
    const char *eps, *theta, *rotary, *activation; /* rms_norm_eps, rope_theta,
                                                      partial_rotary_factor, hidden_act */
};
static inline const char *field_or(const char *name, const char *llamas)
{
    return name ? name : llamas;
}

/* What the tensors do not show. */
struct block {
    enum norm_kind norm;
    enum activation activation; /* where config.json does not say */
    bool parallel;          /* attention and MLP read the same x, unless use_parallel_residual is false */
    bool by_head;           /* ROLE_QKV's rows: q, k and v of the first head, then of the next */
    double rotary;          /* share of head_dim that RoPE turns where config.json has no
                               partial_rotary_factor; 0: all, and another share is refused */
    enum windows windows;
    bool no_rope;           /* no_rope_layers counts: layers without RoPE */
    bool multipliers;       /* embedding_multiplier, attention_multiplier, residual_multiplier and
                               logits_scaling count */
    bool one_more;          /* norms multiply by 1 + their weight */
    bool root_embed;        /* the embedding is multiplied by the root of hidden_size, as a number of the
                               type that is computed in */
    bool gelu_tanh;         /* by gelu its tanh form is meant */
    bool query_scalar;      /* query_pre_attn_scalar counts: scores are divided by its root */
    bool cap_scores, cap_logits; /* attn_logit_softcapping, final_logit_softcapping count */
    bool local_rope;        /* layers with a window turn by rope_local_base_freq, or what rope_parameters has
                               for sliding_attention */
    struct field_names field;
    const char *head_also;  /* what other versions of transformers call the head's tensor; NULL: as this */
    bool three_fields;      /* its longrope is written with the lists alone: transformers refuse more */
    uint32_t kinds4;        /* bits of enum rope_type that transformers 4 take of the family; 0: all */
};

/* What a field that config.json does not have means to transformers; 0: as Llama's. */
struct missing {
    double theta, eps;                          /* 10000, 1e-6 */
    int64_t kv_heads, head_dim, context;        /* heads, dim / heads, 2048 */
    int64_t window, window_layers;              /* none; all */
    bool tied;
    bool no_ids;                                /* bos and eos: none, else 1 and 2, */
    bool ids_2_1;                               /* or these */
    double cap_scores, cap_logits;              /* none */
    int64_t vocab, dim, ffn, layers, heads;     /* of a text_config (multimodal.h); elsewhere they must be there */
};

struct arch {
    const char *model_type; /* of config.json */
    const char *class_name; /* its "architectures", where we write the file anew */
    const struct tensor_def *tensors; /* in the order of files: top, all of a layer's, top */
    int n_tensors;
    struct block block;
    struct missing missing;
};

/* Those of families.c; all that are known, registered ones too, come by these functions. */
extern const struct arch arch_family[];
extern const int arch_families;
/* The family of a model_type; NULL: not known. A family whose biases config.json switches
 * (attention_bias, mlp_bias) has an entry for each set of them, first the one that is meant where neither is said. */
const struct arch *arch_find(const char *model_type);
/* The entry of a's model_type that has these biases; NULL: none. */
const struct arch *arch_with_biases(const struct arch *a, bool attention, bool mlp);
/* Family i, NULL past the last. 0 is llama. */
const struct arch *arch_nth(int i);
/* Makes a family known that is not in arch.c, after checking that layer.c can compute it: E_CONFIG
 * says what not. a stays the caller's and must live on. Before there are threads. */
int arch_register(const struct arch *a, struct err *e);
int arch_check(const struct arch *a, struct err *e);

uint64_t arch_roles(const struct arch *a); /* all that it has */
uint64_t arch_pairs(const struct arch *a); /* that may have LoRA pairs */
uint64_t arch_plus(const struct arch *a);  /* that LoRA+ trains whole */
/* Roles that are to have pairs, as this family has them: its one tensor of q, k and v for these. It takes
 * all of them or none: E_CONFIG, also where it has no matrix of a role. */
int arch_targets(const struct arch *a, uint64_t *targets, struct err *e);
/* r may have a pair, and stands last in the table of the matrices that read its input. */
bool arch_last_reader(const struct arch *a, enum role r);

/* The module that a tensor is the weight of, as peft names it. false: a bias, which is none. */
struct module {
    char path[96];    /* less "model.layers.N.": "self_attn.q_proj", "model.embed_tokens" */
    const char *last; /* its last part: "q_proj" */
};
bool tensor_module(const struct tensor_def *d, struct module *m);

C_END
#endif
