/* model/segments.h - which rows attend together: dense, S2-Attn, and documents kept apart. */
#ifndef MODEL_SEGMENTS_H
#define MODEL_SEGMENTS_H
#include "base/err.h"
#include "kernels/kernels.h"
#include <stdint.h>
C_BEGIN

enum attention_kind { ATTN_DENSE, ATTN_S2 };

/*
 * Segments for n_seqs sequences of ctx tokens laid end to end. Causality is inside segments,
 * so no token ever sees a later one.
 *   dense  one segment a sequence, both halves of the heads
 *   S2     group G: first half of the heads [0,G), [G,2G), ...; second half [0,G/2),
 *          [G/2, 3G/2), ... : shifted by half a group, nothing wraps round (paper, section
 *          3.2, without the roll). The last segment of each half takes what is left, so any
 *          ctx works; G odd shifts by G/2 rounded down. G >= ctx is dense for the first half.
 *   documents: every segment is also cut where a new document starts.
 */
struct segments {
    struct op_segments half[2];
    int64_t *cu[2], cap[2]; /* owned */
};

/* doc_starts: ascending row numbers in (0, n_seqs * ctx) where a document begins, or NULL.
 * Reuses what s holds; zero it before the first use. E_SYS, E_CONFIG (group < 2). */
int segments_build(struct segments *s, enum attention_kind kind, int64_t n_seqs, int64_t ctx,
                   int64_t group, const int64_t *doc_starts, int64_t n_docs, struct err *e);
void segments_free(struct segments *s);

C_END
#endif
