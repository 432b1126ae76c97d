/* base/memory.h - how much of the machine's memory this process could still take. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

/* Bytes that the machine has left (MemAvailable), or the groups of processes that this one is in
 * (a container's, a job's), whichever is least. */
size_t memory_free_bytes(void);

/* The second of these: the least that any control group, version 2 or 1, from the process's own
 * up to the root of the tree, has left of its limit; file pages not read lately do not count as
 * taken. SIZE_MAX: no limit. tree is /sys/fs/cgroup, lines /proc/self/cgroup. */
size_t memory_left_in_groups(const char *tree, const char *lines);

C_END
#endif
