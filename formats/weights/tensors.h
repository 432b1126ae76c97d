/* formats/weights/tensors.h - the tensors of a configuration, after its family's description. */
#ifndef FORMATS_WEIGHTS_TENSORS_H
#define FORMATS_WEIGHTS_TENSORS_H
#include "base/err.h"
#include "formats/weights/arch.h"
#include "formats/weights/config.h"
C_BEGIN

/* c->arch, or llama's where a configuration was made without one. */
const struct arch *config_arch(const struct llama_config *c);
int64_t config_size(const struct llama_config *c, enum size s);

/* The name and shape of every tensor that a model of configuration c has, in the order of the
 * table (the layers' rows again for each layer; no head where tied): the one list that loading,
 * training, merging and writing walk. n: config_tensors(c). */
struct tensor_spec {
    char name[96];
    enum role role;
    int64_t layer; /* -1 outside layers */
    int dims;
    int64_t shape[2];
    int64_t count;
};
int64_t config_tensors(const struct llama_config *c);
void config_tensor(const struct llama_config *c, int64_t i, struct tensor_spec *s);
/* The same for one tensor of the model by role and layer (-1 outside layers); it must have it. */
void tensor_spec_of(const struct llama_config *c, enum role role, int64_t layer,
                    struct tensor_spec *s);
/* The tensor of a base that s of the same sizes begins as: the embedding, where s is the head and
 * the base is tied; else s. */
void tensor_source(const struct llama_config *base, const struct tensor_spec *s,
                   struct tensor_spec *from);

/* Things that tensors have n(def, ctx) of each, counted in the same order: how many in all, and
 * to which tensor thing i belongs, its layer, and which of the tensor's it is. */
typedef int tensor_things(const struct tensor_def *d, const void *ctx);
int64_t tensors_count(const struct llama_config *c, tensor_things *n, const void *ctx);
const struct tensor_def *tensors_at(const struct llama_config *c, int64_t i, tensor_things *n,
                                    const void *ctx, int64_t *layer, int *which);

/* Parameters of the model; what a tied head shares counts once. */
int64_t config_params(const struct llama_config *c);
/* Elements of the biases of one layer; 0: none. */
int64_t config_biases(const struct llama_config *c);
/* Channels of a head that RoPE turns. */
int64_t config_rotary(const struct llama_config *c);
/* Elements of the matrices of one layer that read r's input. */
int64_t config_readers(const struct llama_config *c, enum role r);
/* Elements of all matrices that a token is multiplied by: one layer's; the model's, head and all,
 * but without the embedding, where it is only looked up. */
int64_t config_layer_products(const struct llama_config *c);
int64_t config_products(const struct llama_config *c);

C_END
#endif
