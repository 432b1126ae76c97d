/* formats/weights/adapter.h - a PEFT adapter folder: LoRA pairs and wholly trained modules. */
#ifndef FORMATS_WEIGHTS_ADAPTER_H
#define FORMATS_WEIGHTS_ADAPTER_H
#include "base/err.h"
#include "formats/weights/adapter_config.h"
C_BEGIN

/*
 * adapter_config.json (PEFT's), adapter_model.safetensors or .bin (adapter_files.h), and config.json of
 * the model as extended (PEFT has no place for RoPE scaling). Keys, with P = "base_model.model.":
 *   P model.layers.{i}.self_attn.q_proj.lora_A.weight [r][in], .lora_B.weight [out][r]
 *   P model.layers.{i}.self_attn.q_proj.lora_magnitude_vector [out]           with DoRA
 *   P model.embed_tokens.weight, P model.norm.weight, P model.layers.{i}.input_layernorm.weight
 * Of a language model within a multimodal one the names are those of its modules in memory, "P model.language_model.
 * layers..."; read are also those of older versions, and of the language model alone (naming.h).
 * A delta is (alpha / r) B A, or alpha / sqrt(r) with use_rslora; with DoRA row i of W + delta becomes
 * as long as magnitude i.
 */

struct adapter;
/* Opens and checks: every pair the config promises is there in the shape that c gives, no
 * unknown tensor, nothing that is not supported (E_CONFIG naming it). c: the base model's
 * configuration; its vocabulary may be another one, which the adapter's embedding and head, or its
 * config.json, tell: adapter_model_config has it, and weights_resize gives the base as many. A tied
 * base whose embedding (or head) the adapter saves comes apart, as in peft: the embedding changes, and
 * lm_head stays what the base had, frozen. If the adapter saves both and they are the same, or was
 * trained without peft's wrappers (a whole embedding that modules_to_save does not name), the model
 * stays tied. */
int adapter_open(struct adapter **a, const char *folder, const struct llama_config *c,
                 struct err *e);
void adapter_close(struct adapter *a);
const struct adapter_config *adapter_config(const struct adapter *a);
/* The configuration of the extended model: the folder's config.json where there is one (its
 * sizes must equal c's), else a copy of c; tied as c is, unless it comes apart. */
const struct llama_config *adapter_model_config(const struct adapter *a);
/* The folder has that config.json: the adapter says what context and RoPE it was trained with. */
bool adapter_has_model(const struct adapter *a);
/* Files of the folder, configurations, that are not as they were written: edited or damaged. NULL:
 * none, or nothing is known. */
const char *adapter_changed(const struct adapter *a);
/* What the adapter has for one model tensor: NULLs where nothing. whole replaces the base's
 * values; then a and b add scale * b a; then magnitude, if any, is what the rows' lengths become. */
struct adapter_change {
    const struct tensor *whole, *a, *b, *magnitude;
    double scale;
};
void adapter_change(const struct adapter *a, const struct tensor_spec *s, struct adapter_change *x);
/* Whole tensors that modules_to_save does not name: of a resized vocabulary, or of a trainer beside
 * peft. A tied base stays tied with these. */
uint64_t adapter_loose(const struct adapter *a);
/* Tensors of pairs of what a multimodal base has beside its language model: with B of zeros, as training on
 * text leaves them, else the adapter is refused. */
int64_t adapter_idle(const struct adapter *a);

/* The tensors an adapter of this configuration has, in file order: names with prefix, shapes.
 * role and layer tell the model tensor; part: 0 whole, 1 lora_A, 2 lora_B, 3 magnitude. */
struct adapter_tensor {
    char name[160];
    enum role role;
    int64_t layer;
    int part, dims;
    int64_t shape[2], count;
};
int64_t adapter_tensors(const struct adapter_config *a, const struct llama_config *c);
void adapter_tensor(const struct adapter_config *a, const struct llama_config *c, int64_t i,
                    struct adapter_tensor *t);
/* Writes folder/adapter_config.json, adapter_model.safetensors (float32) and config.json of
 * the extended model c; the tensors' file holds hashes of all three and, where a has it, of the
 * base. values(ctx, i) gives the float32 values of tensor i. like: the base
 * model's config.json or NULL. The folder exists; each file is written by rename. */
int adapter_write(const char *folder, const struct adapter_config *a,
                  const struct llama_config *c, const char *like,
                  const float *(*values)(void *ctx, int64_t i), void *ctx, struct err *e);

C_END
#endif
