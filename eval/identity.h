/* eval/identity.h - which model an evaluation is of, for results that are kept. */
#ifndef EVAL_IDENTITY_H
#define EVAL_IDENTITY_H
#include "eval/task.h"
#include "formats/tokenizer/tokenizer.h"
C_BEGIN

/* Names weights, adapter and tokenizer (NULL: none), wherever their files lie: of every tensor its name,
 * shape and the bytes of its beginning and end, so that it is cheap and another training is another
 * name; of an adapter's files every byte. s has its files open. E_NOINPUT, E_DATA. */
int identity_of(uint64_t *out, const struct eval *v, const struct tokenizer *t, struct err *e);

/* What was given, or else the last name of adapter or model, without slashes at its end. */
void eval_label(const struct eval *v, const char *given, char *out, size_t cap);
/* Every kind of RoPE that is computed with: "default, linear 2, linear 4". */
void eval_rope(const struct eval *v, char *out, size_t cap);

C_END
#endif
