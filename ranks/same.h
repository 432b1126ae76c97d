/* ranks/same.h - what all ranks must have been started with alike. */
#ifndef RANKS_SAME_H
#define RANKS_SAME_H
#include "kernels/group.h"
C_BEGIN

/* mine: lines "name value". Every rank compares its own with rank 0's: the first that differs is
 * named. All fail or none (group_meet): E_CONFIG. */
int ranks_same(struct group *g, const char *mine, struct err *e);

C_END
#endif
