/* base/memory.h - how much of the machine's memory this process could still take. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

/* Bytes that the machine has left (MemAvailable), or the container (its cgroup's limit less
 * its use, version 2, then 1; file pages not read lately do not count), whichever is less. */
size_t memory_free_bytes(void);

C_END
#endif
