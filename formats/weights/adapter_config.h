/* formats/weights/adapter_config.h - adapter_config.json of PEFT, read and written (internal). */
#ifndef FORMATS_WEIGHTS_ADAPTER_CONFIG_H
#define FORMATS_WEIGHTS_ADAPTER_CONFIG_H
#include "base/err.h"
#include "formats/weights/weights.h"

struct adapter_config {
    char base[1024]; /* base_model_name_or_path */
    int64_t rank;
    double alpha;
    bool rslora;
    bool target[TK_HEAD + 1]; /* by kind: TK_Q..TK_O, TK_GATE..TK_DOWN have LoRA pairs */
    bool saved[TK_HEAD + 1];  /* stored whole: TK_EMBED, TK_NORM1, TK_NORM2, TK_NORM, TK_HEAD */
};
double adapter_scale(const struct adapter_config *a);

/* The last part of the module's path: "q_proj", "embed_tokens". */
const char *adapter_module(enum tensor_kind kind);
/* LoRA pairs go on this kind; else it can only be saved whole. */
bool adapter_kind_paired(enum tensor_kind kind);

/* E_NOINPUT, E_DATA; E_CONFIG for what would change the sum W + scale B A. */
int adapter_config_load(struct adapter_config *a, const char *path, struct err *e);
int adapter_config_parse(struct adapter_config *a, const char *json, size_t nbytes,
                         const char *name, struct err *e);
int adapter_config_save(const struct adapter_config *a, const char *path, struct err *e);

#endif
