/* formats/weights/weights.h - the tensors of a model folder, over one or many safetensors files. */
#ifndef FORMATS_WEIGHTS_WEIGHTS_H
#define FORMATS_WEIGHTS_WEIGHTS_H
#include "base/err.h"
#include "formats/weights/config.h"
#include "formats/weights/safetensors.h"
C_BEGIN

/*
 * A model folder: config.json and model.safetensors, or model.safetensors.index.json and the
 * files it names (file names without '/' only). Tensor names are Hugging Face's:
 *   model.embed_tokens.weight [vocab][dim]      model.norm.weight [dim]
 *   model.layers.{i}.input_layernorm.weight, .post_attention_layernorm.weight [dim]
 *   model.layers.{i}.self_attn.{q,k,v,o}_proj.weight, .mlp.{gate,up,down}_proj.weight [out][in]
 *   lm_head.weight [vocab][dim], absent where tied
 */
struct weights;

/* Opens and checks: every tensor of config_tensors is there in its shape, as F32, F16 or BF16;
 * the files agree with the index, and no tensor is in two of them. Others are let through
 * (rotary_emb.inv_freq, a head beside a tied embedding). E_NOINPUT (no such folder or file:
 * says which files a model folder needs), E_DATA naming the first missing tensor and how many
 * there are, E_CONFIG. */
int weights_open(struct weights **w, const char *folder, struct err *e);
void weights_close(struct weights *w);
const struct llama_config *weights_config(const struct weights *w);
/* All tensors of the files, sorted by name. */
int64_t weights_count(const struct weights *w);
const struct st_tensor *weights_at(const struct weights *w, int64_t i);
/* The file that tensor i came from, for messages. */
const char *weights_file(const struct weights *w, int64_t i);

/* A tensor by name that must be there in this shape (dims, shape as declared); E_DATA naming
 * it, what was found and what was expected. */
int weights_get(const struct weights *w, const char *name, int dims, const int64_t *shape,
                const struct st_tensor **t, struct err *e);

/* The name and shape of every tensor that a model of config c has, in a fixed order
 * (embedding, layers 0.., norm, head unless tied): the one list that loading, training,
 * merging and writing walk. n: config_tensors(c). */
enum tensor_kind { TK_EMBED, TK_NORM1, TK_Q, TK_K, TK_V, TK_O, TK_NORM2, TK_GATE, TK_UP,
                   TK_DOWN, TK_NORM, TK_HEAD };
struct tensor_spec {
    char name[96];
    enum tensor_kind kind;
    int64_t layer; /* -1 outside layers */
    int dims;
    int64_t shape[2];
    int64_t count;
};
int64_t config_tensors(const struct llama_config *c);
void config_tensor(const struct llama_config *c, int64_t i, struct tensor_spec *s);
/* The same for one tensor of the model by kind and layer (-1 outside layers). */
void tensor_spec_of(const struct llama_config *c, enum tensor_kind kind, int64_t layer,
                    struct tensor_spec *s);

/* Copies the tokenizer's and generation files that are in folder 'from' to 'to'. */
int weights_copy_side_files(const char *from, const char *to, struct err *e);
/* The tokenizer.model of a model folder as a malloc'ed path, or NULL where there is none. */
char *weights_tokenizer_path(const char *folder);

C_END
#endif
