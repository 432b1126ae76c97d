/* formats/weights/gguf_config.h - the configuration of a GGUF model, and the keys of one. */
#ifndef FORMATS_WEIGHTS_GGUF_CONFIG_H
#define FORMATS_WEIGHTS_GGUF_CONFIG_H
#include "formats/weights/gguf_arch.h"
C_BEGIN

/* c from the keys of g: E_DATA (a key is missing, mistyped, out of range), E_CONFIG (a family or a key
 * that changes what is computed and is not known). *a is the family's entry. */
int gguf_config_read(struct llama_config *c, const struct gguf_arch **a, const struct gguf *g,
                     struct err *e);
/* The keys that say what c computes, of general.architecture on; and RoPE's lists, which are tensors.
 * E_CONFIG for what llama.cpp would compute in another way. */
int gguf_config_write(struct gguf_head *h, const struct llama_config *c, struct gguf_rope *rope,
                      struct err *e);

C_END
#endif
