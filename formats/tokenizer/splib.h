/* formats/tokenizer/splib.h - libsentencepiece, which has no C interface, behind one. */
#ifndef FORMATS_TOKENIZER_SPLIB_H
#define FORMATS_TOKENIZER_SPLIB_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* Read-only once loaded: any number of threads may use it. No exception leaves it. */
struct splib;

/* A model from the bytes of its file (copied), which spmodel_check must have passed, as the
 * library trusts what it loads. E_DATA, E_SYS. */
int splib_parse(struct splib **l, const void *bytes, size_t n, struct err *e);
void splib_free(struct splib *l);
int64_t splib_vocab(const struct splib *l);
int32_t splib_bos(const struct splib *l); /* -1 for none */
int32_t splib_eos(const struct splib *l);

/* What Encode and Decode give, malloc'ed; the caller frees. Decode: a NUL after the end. */
int splib_encode(const struct splib *l, const char *text, size_t n, int32_t **ids,
                 int64_t *n_ids, struct err *e);
int splib_decode(const struct splib *l, const int32_t *ids, int64_t n_ids, char **text,
                 size_t *n, struct err *e);

C_END
#endif
