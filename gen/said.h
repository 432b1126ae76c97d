/* gen/said.h - what an open session has been given of one text, and the way to another. */
#ifndef GEN_SAID_H
#define GEN_SAID_H
#include "model/session.h"
C_BEGIN

/* Zero it before; free ids. */
struct said {
    int32_t *ids;
    int64_t n, cap;
};

/* The session's text becomes ids: what both begin with stays in the cache. logits float32 [vocab]: of
 * the last id; NULL: not wanted. most: ids given to the session at a time, 0: all; between them a
 * progress line. E_CONFIG (no room), E_DATA, E_DEVICE, E_SYS. */
int said_become(struct said *s, struct session *on, const int32_t *ids, int64_t n, float *logits,
                struct err *e);
/* One more. */
int said_add(struct said *s, struct session *on, int32_t id, float *logits, struct err *e);

C_END
#endif
