/* model/extend.h - texts that grow, over a cache of their keys and values. */
#ifndef MODEL_EXTEND_H
#define MODEL_EXTEND_H
#include "model/model.h"
C_BEGIN

/* Tokens that a text gets. */
struct piece {
    int64_t seq, n;      /* of the cache's texts; at least 1 token */
    const int32_t *ids;
};

/*
 * Appends pieces to texts of a model that was opened with a cache, seq ascending, each once. What a
 * token sees of its own text is as in one pass over all of it, to rounding, however it was cut into
 * calls; of RoPE that depends on the length, as in a text that fills the cache's room. More rows than the
 * model computes at once are cut; single tokens of several texts go
 * together. logits: host float32, [pieces][vocab], each of the last token of a piece; with all, of
 * every token, [tokens][vocab]; NULL: none. After a failure texts are as before; those that keep a
 * window are empty. E_CONFIG: more tokens than a text of this cache has room for. E_DATA: an id outside the
 * vocabulary. E_DEVICE.
 */
struct extend {
    int64_t n;
    const struct piece *piece;
    float *logits;
    bool all;
};
int model_extend(struct model *m, const struct extend *x, struct err *e);
/* Of n logits the largest, of equal ones the first; -1: none is a number. */
int32_t likeliest(const float *logits, int64_t n);

/* Tokens that a text has been given. */
int64_t model_text_length(const struct model *m, int64_t seq);
/* Forgets all but the first n, of a text that keeps a window only all. */
void model_text_cut(struct model *m, int64_t seq, int64_t n);

/*
 * What a text keeps of a layer, to save it and to bring it back: n tokens, four parts (keys, values and
 * their scales, the last two 0 bytes but of KV_INT8), in the cache's own type. Not of texts that keep
 * a window. model_text_row_bytes: of a row of a part.
 */
enum { TEXT_PARTS = 4 };
size_t model_text_row_bytes(const struct model *m, int part);
/* Rows [at, at + n) to the host, or back. E_DEVICE. */
int model_text_get(struct model *m, int64_t seq, int64_t layer, int part, int64_t at, int64_t n,
                   void *to, struct err *e);
int model_text_put(struct model *m, int64_t seq, int64_t layer, int part, int64_t at, int64_t n,
                   const void *from, struct err *e);
/* A text has these n tokens now: all its rows were put. */
void model_text_set(struct model *m, int64_t seq, int64_t n);

C_END
#endif
