/* formats/weights/turned.h - rows of q and k in the order that turns neighbours, and back. */
#ifndef FORMATS_WEIGHTS_TURNED_H
#define FORMATS_WEIGHTS_TURNED_H
#include "formats/weights/tensor.h"
C_BEGIN

/*
 * Hugging Face's RoPE turns channel i of a head together with i + head / 2. llama.cpp's, of families
 * such as llama, turns 2 i with 2 i + 1, and its files have the rows of q and k in that order. A
 * turned tensor is a view with the rows in the other order: no values are copied, tensor_to_f32
 * gathers them.
 */
struct turn {
    const struct tensor_type *of; /* the values as they are stored */
    int64_t head, cols;
    bool back;                    /* from llama.cpp's order to Hugging Face's */
};

/* t, whose rows are whole heads, in the other order. how lives as long as it does. Of a vector
 * (a bias) each value is a row. */
struct tensor tensor_turned(const struct tensor *t, struct turn *how, int64_t head, bool back);
/* A type for the values of t as they are: of a turned one that of the view. */
const struct tensor_type *tensor_stored(const struct tensor *t);

C_END
#endif
