/* formats/weights/config_rope.h - the part of config.json that says how RoPE is scaled. */
#ifndef FORMATS_WEIGHTS_CONFIG_ROPE_H
#define FORMATS_WEIGHTS_CONFIG_ROPE_H
#include "base/json.h"
#include "formats/weights/config.h"
C_BEGIN

#define CONFIG_MAX_CONTEXT ((int64_t)1 << 31)

/* Fills in c->rope and c->rotary_dim from o, the top of config.json; the family, the sizes and the
 * context are in c already. E_DATA, E_CONFIG naming the field. */
int config_read_rope(struct llama_config *c, const struct js *o, struct err *e);

/* "short_factor" and "long_factor" of s, and where they are there "attention_factor" and "factor"
 * (else 0): the lists have as many numbers as there are pairs. E_DATA, E_CONFIG. */
int config_read_lists(struct rope_config *r, const struct js *s, int64_t pairs, struct err *e);

C_END
#endif
