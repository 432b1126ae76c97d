/* formats/weights/gguf_arch.h - what llama.cpp calls a family, its tensors and its fields. */
#ifndef FORMATS_WEIGHTS_GGUF_ARCH_H
#define FORMATS_WEIGHTS_GGUF_ARCH_H
#include "base/gguf.h"
#include "base/json.h"
#include "formats/weights/config.h"
#include "formats/weights/tensors.h"
#include "formats/weights/turned.h"
C_BEGIN

/* One family: Hugging Face's model_type and general.architecture. */
struct gguf_arch {
    const char *model_type, *name;
    bool turned;     /* rows of q and k are in the order that turns neighbours (turned.h) */
    uint64_t lacks;  /* roles that a model may have here, and llama.cpp does not compute with */
    uint64_t needs;  /* roles that it must have, and need not here */
    int lists;       /* bits: it reads 1 rope_freqs, 2 rope_factors_long and _short */
    bool square;     /* its heads have hidden_size channels in all */
    int64_t unturned; /* each so many layers one is without RoPE; 0: none */
    bool gelu;        /* it computes gelu's tanh form, and no silu */
    bool embed_head;  /* the head is the embedding */
    int64_t full;     /* it has windows: each so many layers one is without; 0: none has */
    int64_t whole_layers; /* of a model with so many the scores are divided by the root of hidden_size / heads,
                             of another by that of head_dim; 0: of none */
};
/* By a configuration; NULL: llama.cpp has no such, or none that is written here. */
const struct gguf_arch *gguf_arch_of(const struct llama_config *c);
/* By general.architecture, the first of that name; NULL: not known here. */
const struct gguf_arch *gguf_arch_named(const char *name, size_t n);
/* The names of all, for messages: "llama, qwen2"; returns buf. */
const char *gguf_arch_names(char *buf, size_t cap);

/* "blk.3.attn_q.weight" for a tensor of the model; false where llama.cpp has none of that role. */
bool gguf_tensor_name(const struct tensor_spec *s, char *name, size_t cap);
/* What llama.cpp cannot compute of c as it is meant, by name, with what to do: E_CONFIG. */
int gguf_check(const struct llama_config *c, struct err *e);
/* The order of the rows of q, k and v, or of values of their biases, and what norms have more. */
struct row_order gguf_row_order(const struct gguf_arch *a, const struct llama_config *c, enum role role);

/* Whole numbers of config.json that are keys of the file, one row each. key: behind "ARCH.". */
struct gguf_field {
    const char *key, *field;
    bool must; /* a file has to have it */
};
extern const struct gguf_field gguf_fields[];
extern const int gguf_n_fields;

/* How RoPE is scaled, in llama.cpp's terms. */
struct gguf_rope {
    const char *type;     /* "none", "linear", "yarn", "longrope" */
    double factor, scale; /* 0: not written; scale is rope.scaling.attn_factor, 1: not written */
    int64_t original;     /* 0: not written */
    int lists;            /* 1: rope_freqs, 2: rope_factors_long and _short; 0: none */
    int64_t pairs;
    float list[2][ROPE_PAIRS]; /* of 2: the long one first */
};
/* E_CONFIG for what llama.cpp cannot compute, with what to do. dim: the channels of a head that turn. */
int gguf_rope_of(struct gguf_rope *g, const struct rope_config *r, int64_t dim, struct err *e);
/* The other way. lists as a file has them, NULL where it has not: rope_freqs, long, short. */
int gguf_rope_read(struct rope_config *r, const struct gguf *g, const char *arch, int64_t dim,
                   int64_t context, const struct gguf_tensor *const lists[3], struct err *e);
extern const char *const gguf_rope_tensors[3];
/* The shortest decimal of a float, which is what config.json had: 0.3, not 0.300000012. */
double gguf_decimal(double v);

C_END
#endif
