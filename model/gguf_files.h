/* model/gguf_files.h - what a model's folder has beside its weights, out of a GGUF file. */
#ifndef MODEL_GGUF_FILES_H
#define MODEL_GGUF_FILES_H
#include "formats/weights/beside.h"
C_BEGIN

/* Writes the tokenizer of a GGUF into a folder, as tokenizer.model or tokenizer.json, with what
 * transformers needs to know beside it, and the chat template; adds what it wrote to files. Nothing,
 * where the file has none. E_DATA, E_CONFIG, E_CREATE, E_IO, E_SYS. */
int gguf_files(const char *gguf, const char *folder, struct beside *files, struct err *e);

C_END
#endif
