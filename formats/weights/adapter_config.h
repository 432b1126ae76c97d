/* formats/weights/adapter_config.h - adapter_config.json of PEFT, read and written (internal). */
#ifndef FORMATS_WEIGHTS_ADAPTER_CONFIG_H
#define FORMATS_WEIGHTS_ADAPTER_CONFIG_H
#include "base/err.h"
#include "formats/weights/adapter_pairs.h"
#include "formats/weights/weights.h"

struct adapter_config {
    char base[1024]; /* base_model_name_or_path */
    uint64_t base_hash; /* weights_hash of it; 0: not known. Not in this file, but with the tensors */
    int64_t rank;
    double alpha;
    bool rslora;
    const struct arch *arch;  /* whose modules these are; NULL: llama's */
    const struct multimodal *multimodal; /* and which model they are within; NULL: none */
    int64_t layers;           /* of that; needed where multimodal is set */
    uint64_t targets;         /* roles with LoRA pairs (arch.h: ROLE_BIT), in some layer at least */
    const struct adapter_pairs *pairs; /* which in which layer; NULL: in all, of rank and alpha */
    uint64_t saved;           /* roles stored whole: norms, embedding, head */
    bool dora;                /* every pair has magnitudes too */
    bool biases;              /* biases may be stored whole */
    double dropout;           /* of what pairs read, while training */
    bool tying;               /* ensure_weight_tying: over a tied base, embedding and head are both
                                 stored if one is named. Read only */
};
double adapter_scale(const struct adapter_config *a);
/* Of one module's pair, layer -1 outside layers: 0 and 0 where it has none. */
int64_t adapter_rank(const struct adapter_config *a, enum role role, int64_t layer);
double adapter_pair_scale(const struct adapter_config *a, enum role role, int64_t layer);

/* Modules are looked up in the family arch of so many layers, by their names in n (naming.h); arch NULL: in
 * the first that has them all, in any naming; 0: not known. E_NOINPUT, E_DATA; E_CONFIG for what would change the sum W + scale B A, and for any
 * field that is not known and not off. pairs is the caller's, who gives it back with
 * adapter_config_free; after an error there is none. */
int adapter_config_load(struct adapter_config *a, const struct arch *arch, const struct naming *n, int64_t layers,
                        const char *path, struct err *e);
int adapter_config_parse(struct adapter_config *a, const struct arch *arch, const struct naming *n, int64_t layers,
                         const char *json, size_t nbytes, const char *name, struct err *e);
void adapter_config_free(struct adapter_config *a);
/* The modules whose path in n, or that of one they are part of, ends in the name, as modules_to_save has
 * them. A head that versions of transformers call differently has either name. */
uint64_t adapter_roles_ending(const struct arch *arch, const struct naming *n, const char *name);
/* The file's text, malloc'ed; name is for messages. E_DATA: the base's name is not UTF-8. */
int adapter_config_text(const struct adapter_config *a, const char *name, char **text,
                        struct err *e);

#endif
