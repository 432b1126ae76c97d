/* base/pool.h - a team of threads that share out numbered tasks. */
#ifndef BASE_POOL_H
#define BASE_POOL_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/* Processors this process may use, at least 1. */
int pool_processors(void);

struct pool;
typedef void pool_fn(void *ctx, int64_t task, int thread); /* thread: 0 .. n_threads-1 */

/* n_threads includes the caller; 0 means the processors this process may use. NULL, with *e
 * set (E_SYS), when threads cannot be made. */
struct pool *pool_open(int n_threads, struct err *e);
void pool_close(struct pool *p);
int pool_threads(const struct pool *p);
/* Rounds will follow each other closely: who waits looks for the next one for some 20 us before it
 * sleeps, as waking takes longer than a small round. Of use where no more threads run than processors. */
void pool_stay_awake(struct pool *p);

/* Calls fn for every task in [0, n_tasks), in any order and on any thread, and returns when
 * all are done. What a task computes must not depend on the thread that runs it. p == NULL
 * runs them in order. Not to be called from inside a task, nor by two threads at once. */
void pool_run(struct pool *p, int64_t n_tasks, pool_fn *fn, void *ctx);

C_END
#endif
