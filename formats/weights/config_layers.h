/* formats/weights/config_layers.h - the part of config.json by which layers differ. */
#ifndef FORMATS_WEIGHTS_CONFIG_LAYERS_H
#define FORMATS_WEIGHTS_CONFIG_LAYERS_H
#include "base/json.h"
#include "formats/weights/config.h"
C_BEGIN

/* Fills in window, full and no_rope from o, the top of config.json, for c's family and number of
 * layers. E_DATA, E_CONFIG naming the field: also where one asks for what the family has not. */
int config_read_layers(struct llama_config *c, const struct js *o, struct err *e);
/* The same fields, for a file that is not made after another. False: out of memory. */
bool config_write_layers(const struct llama_config *c, json_t *o);

C_END
#endif
