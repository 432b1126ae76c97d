/* formats/weights/config.h - config.json of a Hugging Face model, read and written. */
#ifndef FORMATS_WEIGHTS_CONFIG_H
#define FORMATS_WEIGHTS_CONFIG_H
#include "base/tensor_type.h"
#include "formats/weights/config_layers.h"
#include "formats/weights/config_rope.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

struct arch;
struct multimodal;
struct llama_config {
    int64_t vocab, dim, ffn_dim, layers, heads, kv_heads, head_dim;
    int64_t context; /* max_position_embeddings; the model may reach further: config_reach */
    double norm_eps;
    bool tied; /* tie_word_embeddings: lm_head is the embedding */
    int64_t bos, eos; /* -1: none; the first where the file has a list */
    double init_range; /* initializer_range, 0.02 */
    struct rope_config rope;
    const struct arch *arch; /* the family, arch.h; NULL: llama */
    int64_t rotary_dim; /* channels of a head that RoPE turns; 0: all */
    int64_t window;     /* tokens that a token attends to, itself the last; 0: all up to it */
    struct layer_set full;    /* layers that have no window, where others do */
    struct layer_set no_rope; /* layers without RoPE */
    /* What values are multiplied by: the embedding's; attention's scores, before softmax; what a layer
     * adds to x, twice; the logits. 0: 1, and of the scores 1 / sqrt(head_dim). */
    struct { double embed, scores, branch, logits; } times;
    /* Scores and logits s become cap * tanh(s / cap). 0: they stay. */
    struct { double scores, logits; } cap;
    double local_theta; /* layers with a window turn by RoPE of this base, which nothing scales; 0: as others */
    int activation; /* enum activation (arch.h) */
    bool parallel;  /* attention and MLP read the same x */
    const struct multimodal *multimodal; /* it is the language model within one of these (multimodal.h); NULL: alone */
    bool tied_headless; /* such a one is tied, though not tied, where the files have no head */
};
static inline double config_times(double x) { return x != 0 ? x : 1; }
/* The window of one layer; 0: none. */
static inline int64_t config_window(const struct llama_config *c, int64_t layer)
{
    return layer_in(&c->full, layer) ? 0 : c->window;
}
/* The layer turns by local_theta. */
static inline bool config_local(const struct llama_config *c, int64_t layer)
{
    return c->local_theta > 0 && config_window(c, layer) > 0;
}
/* What the embedding is multiplied by, where values are computed in the type act. */
double config_embed_times(const struct llama_config *c, enum dtype act);

/* Reads config.json in the 4.x (rope_theta, rope_scaling) and 5.x (rope_parameters) forms.
 * model_type names the family (arch.h). Refuses what this engine would compute wrongly: a family
 * that is not known, any field that asks for what its description does not say (biases, another activation, a part of RoPE), unknown RoPE types, sizes that are absurd (each
 * bounded, products checked, dim == heads * head_dim not required). E_NOINPUT; E_DATA (not JSON,
 * missing or mistyped field); E_CONFIG (a model we do not compute). Messages name the field. Of a model
 * that has more than text (multimodal.h) the language model is read, from text_config. */
int config_read(struct llama_config *c, const char *path, struct err *e);
int config_parse(struct llama_config *c, const char *json, size_t nbytes, const char *name,
                 struct err *e);
/* Writes a config.json that transformers 4.31 to 5.x, vLLM and llama.cpp read the same way: RoPE
 * as rope_scaling (linear, dynamic: "type" and "factor", no more; a factor of 1: null) and as
 * rope_parameters. like: the source model's config.json, whose other fields are kept, or NULL (then a
 * multimodal model's language model is written as one of its own). dtype: "float32", "float16", "bfloat16". */
int config_write(const struct llama_config *c, const char *like, const char *dtype,
                 const char *path, struct err *e);
/* The same as text, malloc'ed; name is for messages. */
int config_text(const struct llama_config *c, const char *like, const char *dtype, const char *name,
                char **text, struct err *e);
/* The object rope_parameters as config_write makes it; NULL when out of memory. */
struct json_t *config_rope_json(const struct rope_config *r);
/* The tokens that the model is made for, which may be more than its context: config_rope_reach. */
static inline int64_t config_reach(const struct llama_config *c)
{
    return config_rope_reach(&c->rope, c->context);
}

C_END
#endif
