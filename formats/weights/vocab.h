/* formats/weights/vocab.h - a matrix of a vocabulary with other rows (internal). */
#ifndef FORMATS_WEIGHTS_VOCAB_H
#define FORMATS_WEIGHTS_VOCAB_H
#include "formats/weights/tensor.h"

/* *out is t [vocab][dim] with so many rows, in *memory, which the caller frees in any case: the first
 * of t; rows that t has not are the mean of its rows, as trainers of a new token begin. E_CONFIG (no
 * plain floats), E_DATA (not its hash), E_SYS. */
int vocab_resize(const struct tensor *t, int64_t rows, struct tensor *out, void **memory, struct err *e);

#endif
