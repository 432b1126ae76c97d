/* model/stages.h - layers one after another over ranks: which are here, and what goes from rank to rank. */
#ifndef MODEL_STAGES_H
#define MODEL_STAGES_H
#include "kernels/line.h"
#include "model/inside.h"
C_BEGIN

/*
 * Rank r of options.stages has a run of layers (m->from to m->to), their part of the cache, and of the rest what
 * it computes with: the first the embedding, the last one the last norm and the head. Rows go into a rank's
 * layers as the one before has left them. A rank works on the next piece of a prompt while those behind it are
 * at the last one: they meet when logits are wanted, and no earlier.
 *
 * A rank that fails in between leaves (group_leave): the others hear of it when it closes its group.
 */
struct stages {
    struct line line;
};

/* E_CONFIG: more ranks than layers, or a model that is no text's that grows. */
int stages_layers(struct model *m, struct err *e);
static inline bool stage_is_first(const struct model *m) { return m->from == 0; }
static inline bool stage_is_last(const struct model *m) { return m->to == m->c.layers; }
/* Whether a tensor is here. */
bool stage_has(const struct model *m, enum role r, int64_t layer);

int stages_open(struct model *m, struct err *e);
void stages_close(struct model *m);
/* work.x [rows][dim] from the rank before, where there is one; to the next. */
void stages_take(struct model *m, int64_t rows);
void stages_give(struct model *m, int64_t rows);
/* After the device has done all of a pass (rc and e): what the line failed of, if it did. */
int stages_settled(struct model *m, int rc, struct err *e);
/* The last rank's n logits reach all. */
int stages_logits(struct model *m, int rc, float *logits, int64_t n, struct err *e);

/* While loading: hashes of a file's n tensors, of which this rank has made some; the others are ELSEWHERE. rc:
 * what it has failed of. */
enum { ELSEWHERE = 1 };
int stages_hashes(struct model *m, uint64_t *each, int64_t n, int rc, struct err *e);

C_END
#endif
