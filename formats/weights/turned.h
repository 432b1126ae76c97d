/* formats/weights/turned.h - values in llama.cpp's order, and more by one, and back. */
#ifndef FORMATS_WEIGHTS_TURNED_H
#define FORMATS_WEIGHTS_TURNED_H
#include "formats/weights/tensor.h"
C_BEGIN

/*
 * Hugging Face's RoPE turns channel i of a head together with i + head / 2. llama.cpp's, of families
 * such as llama, turns 2 i with 2 i + 1, and its files have the rows of q and k in that order. A
 * turned tensor is a view with the rows in the other order: no values are copied, tensor_to_f32
 * gathers them. So it is where one tensor has q, k and v of the first head, then of the next:
 * llama.cpp has all of q, then of k, then of v, and the channels as they are. Norms that multiply by 1 +
 * their weight have that sum there.
 */
struct row_order {
    int64_t head;  /* rows of a head; 0: the order is the same */
    int64_t heads; /* of q, k and v in one tensor: how many heads; 0: a tensor of q or of k */
    float more;    /* what is added to every value there */
};
static inline bool row_order_any(struct row_order o) { return o.head > 0 || o.more != 0; }
struct turn {
    const struct tensor_type *of; /* the values as they are stored */
    struct row_order rows;
    int64_t cols;
    bool back;                    /* from llama.cpp's order to Hugging Face's */
};

/* t, whose rows are whole heads, in the other order. how lives as long as it does. Of a vector
 * (a bias) each value is a row. */
struct tensor tensor_turned(const struct tensor *t, struct turn *how, struct row_order rows,
                            bool back);
/* A type for the values of t as they are: of a turned one that of the view. */
const struct tensor_type *tensor_stored(const struct tensor *t);

C_END
#endif
