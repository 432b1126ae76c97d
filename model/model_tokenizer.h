/* model/model_tokenizer.h - whether data was made with the tokenizer of a model. */
#ifndef MODEL_MODEL_TOKENIZER_H
#define MODEL_MODEL_TOKENIZER_H
#include "base/err.h"
#include "formats/tokens/document.h"
C_BEGIN

/* What to compare: a tokenizer that was named, or NULL for the one in the model's folder. */
struct model_tokenizer {
    const char *folder, *given;
    char doubt[700];  /* out: why it could not be told, for a warning; "" where it could, where
                         there is no tokenizer to compare with, or the data names none */
    char remedy[400]; /* out, with E_CONFIG: what to do */
};

/* data: what messages call the data. 0: the same, or doubt says why nobody knows. E_CONFIG:
 * another, without a remedy in *e. E_NOINPUT, E_DATA of a given file; E_SYS. */
int model_tokenizer_check(struct model_tokenizer *m, const struct token_info *info,
                          const char *data, struct err *e);

C_END
#endif
