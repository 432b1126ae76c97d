/* gen/stops.h - text that ends where one of some strings begins, while it still comes. */
#ifndef GEN_STOPS_H
#define GEN_STOPS_H
#include "base/bytes.h"
#include <stdbool.h>
C_BEGIN

/* text: what came so far, of which the first *given bytes were handed on. Of the rest, how many may
 * follow now: what could be the beginning of a stop string waits, unless it is the end. *stopped: one is
 * there, and text was cut before it, at the earliest. */
size_t stops_ready(const char *const *stop, int n, struct buf *text, size_t given, bool end,
                   bool *stopped);

C_END
#endif
