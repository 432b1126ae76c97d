/* formats/weights/adapter_config.h - adapter_config.json of PEFT, read and written (internal). */
#ifndef FORMATS_WEIGHTS_ADAPTER_CONFIG_H
#define FORMATS_WEIGHTS_ADAPTER_CONFIG_H
#include "base/err.h"
#include "formats/weights/weights.h"

struct adapter_config {
    char base[1024]; /* base_model_name_or_path */
    uint64_t base_hash; /* weights_hash of it; 0: not known. Not in this file, but with the tensors */
    int64_t rank;
    double alpha;
    bool rslora;
    const struct arch *arch;  /* whose modules these are; NULL: llama's */
    uint64_t targets;         /* roles with LoRA pairs (arch.h: ROLE_BIT) */
    uint64_t saved;           /* roles stored whole: norms, embedding, head */
    bool tying;               /* ensure_weight_tying: over a tied base, embedding and head are both
                                 stored if one is named. Read only */
};
double adapter_scale(const struct adapter_config *a);

/* Modules are looked up in the family arch; NULL: in the first that has them all.
 * E_NOINPUT, E_DATA; E_CONFIG for what would change the sum W + scale B A. */
int adapter_config_load(struct adapter_config *a, const struct arch *arch, const char *path,
                        struct err *e);
int adapter_config_parse(struct adapter_config *a, const struct arch *arch, const char *json,
                         size_t nbytes, const char *name, struct err *e);
/* The file's text, malloc'ed; name is for messages. E_DATA: the base's name is not UTF-8. */
int adapter_config_text(const struct adapter_config *a, const char *name, char **text,
                        struct err *e);

#endif
