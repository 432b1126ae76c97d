/* formats/weights/config_layers.h - the part of config.json by which layers differ. */
#ifndef FORMATS_WEIGHTS_CONFIG_LAYERS_H
#define FORMATS_WEIGHTS_CONFIG_LAYERS_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

enum { CONFIG_MAX_LAYERS = 4096 };
struct layer_set {
    uint64_t bits[CONFIG_MAX_LAYERS / 64];
};
static inline bool layer_in(const struct layer_set *s, int64_t layer)
{
    return s->bits[layer / 64] >> (layer % 64) & 1;
}

/* The window of those layers that have one, 0: none has; the layers that have none, where others do; the
 * layers without RoPE. */
struct layers_config {
    int64_t window;
    struct layer_set full, no_rope;
};

struct arch;
struct js;
struct json_t;
/* Fills in l from o, the top of config.json, of a model of the family with so many layers. E_DATA, E_CONFIG
 * naming the field: also where one asks for what the family has not. */
int config_read_layers(struct layers_config *l, const struct arch *a, int64_t layers, const struct js *o,
                       struct err *e);
/* The same fields, for a file that is not made after another. False: out of memory. */
bool config_write_layers(const struct layers_config *l, const struct arch *a, int64_t layers, struct json_t *o);

C_END
#endif
