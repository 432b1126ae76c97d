/* kernels/subgroup.h - a group in parts of neighbouring ranks, each a group of its own. */
#ifndef KERNELS_SUBGROUP_H
#define KERNELS_SUBGROUP_H
#include "kernels/group.h"
C_BEGIN

/*
 * Ranks [0, size), [size, 2 size), ... of the whole each become a group; *part is this rank's. It
 * has gather, sum (in rank order), broadcast, pass and check, all made of the whole's pass, which
 * it needs: parts do not wait for each other. group_meet works in it as in the whole; a failure that
 * was met there ends the part, not the whole. Its 'first' says where it lies. Only ranks that lie
 * side by side exchange anything: what goes further is passed on.
 *
 * size divides the whole's. *part is close()d before the whole; of size 1 it is group_alone, and
 * of the whole's size it is a group of its own all the same. E_SYS; E_CONFIG where the whole has no
 * pass.
 */
int group_split(struct group *whole, int size, struct group **part, struct err *e);

C_END
#endif
