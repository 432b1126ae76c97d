/* formats/weights/adapter_pairs.h - which modules have a LoRA pair, and which: PEFT's rules. */
#ifndef FORMATS_WEIGHTS_ADAPTER_PAIRS_H
#define FORMATS_WEIGHTS_ADAPTER_PAIRS_H
#include "base/json.h"
#include "formats/weights/arch.h"
C_BEGIN

/* For an adapter whose pairs are not alike in all layers: of each layer and role the rank (0: no
 * pair) and the alpha. What is no layer's, embedding and head, stands in layer 0. */
struct adapter_pair {
    int64_t rank;
    double alpha;
};
struct adapter_pairs {
    int64_t layers;
    struct adapter_pair at[][ROLES];
};

/* An adapter_config.json, r and lora_alpha read, as PEFT 0.21 applies it to the modules of a model of
 * family arch with so many layers (0: not known): target_modules, exclude_modules,
 * layers_to_transform, layers_pattern, rank_pattern, alpha_pattern, and modules_to_save, which take
 * a module out. Names are compared as PEFT does; regular expressions are run by PCRE2, with a limit. */
struct naming;
struct adapter_rules {
    const struct js *o;
    const struct arch *arch;
    const struct naming *naming; /* how the modules are called; NULL: as the family's own */
    int64_t layers, rank;
    double alpha;
};
/* *targets: the roles with a pair in any layer. *pairs: malloc'ed; NULL where each of these has one of
 * rank and alpha in every layer. *unknown: names of target_modules that no module has. E_DATA,
 * E_CONFIG (no module has a pair; a pattern that is none, or takes too long). */
int adapter_pairs_read(const struct adapter_rules *r, uint64_t *targets, struct adapter_pairs **pairs,
                       int *unknown, struct err *e);
/* "model.layers.3.self_attn.q_proj" of the tensor in a layer, into a buffer; returns it. */
const char *adapter_module_path(const struct arch *a, const struct naming *n, const struct tensor_def *d,
                                int64_t layer, char *path, size_t cap);

C_END
#endif
