/* tools/gguf_tokens.h - a model's tokenizer as the keys of a GGUF file. */
#ifndef TOOLS_GGUF_TOKENS_H
#define TOOLS_GGUF_TOKENS_H
#include "base/gguf.h"
#include "formats/weights/config.h"
C_BEGIN

/* Adds the keys of tokenizer.* of the model (a folder, or a GGUF whose keys are taken as they are) with
 * c->vocab tokens: tokenizer.model before tokenizer.json, as llama.cpp's converter has it. Without
 * either *none is set, and llama.cpp takes ids alone. E_CONFIG for what llama.cpp would cut in another
 * way, E_DATA, E_SYS. */
int gguf_put_tokenizer(struct gguf_head *h, const char *model, const struct llama_config *c,
                       bool *none, struct err *e);

C_END
#endif
