/* gen/told.h - what one rank reads reaches all of them. */
#ifndef GEN_TOLD_H
#define GEN_TOLD_H
#include "base/bytes.h"
#include "kernels/group.h"
#include <stdint.h>
C_BEGIN

/* Every rank calls them, with what it has failed of. b: rank 0's bytes from at on come behind the others' first at;
 * n: rank 0's. All fail of it, or none. */
int told_bytes(struct group *g, int rc, struct buf *b, size_t at, struct err *e);
int told_number(struct group *g, int rc, int64_t *n, struct err *e);

C_END
#endif
