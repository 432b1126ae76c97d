/* tests/wire.h - made-up links: what device_links.move does, between threads that are ranks (rankstest.h). */
#ifndef TESTS_WIRE_H
#define TESTS_WIRE_H
#include "kernels/kernels.h"

#include "tests/rankstest.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t came;
    struct { const void *x; size_t n; bool full; } box[RANKS_MAX][RANKS_MAX]; /* from, to */
    int64_t moves, bytes;
    char kinds[64];           /* of the first calls of rank 0: 'w'eights, which it sends itself too, 'h'alo */
    bool wrong;               /* another size, or nobody for 20 s */
} wire = { .lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER };

struct wire_moves {
    int me, n;
    struct device_move m[RANKS_MAX];
};

static inline bool await_box(int from, int to, bool full, const struct timespec *until)
{
    while (wire.box[from][to].full != full && !wire.wrong)
        if (pthread_cond_timedwait(&wire.came, &wire.lock, until) != 0)
            wire.wrong = true;
    return !wire.wrong;
}

/* As NCCL's group of sends and receives: each way in the order of calls, all of a call at once; over
 * when all of it is. */
static inline int wire_run(const void *arg)
{
    const struct wire_moves *w = arg;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&wire.lock);
    for (int step = 0; step < 3; step++)
        for (int i = 0; i < w->n; i++) {
            const struct device_move *m = &w->m[i];
            bool own = m->rank == w->me;

            if (own && step == 0 && m->n_out) {
                memcpy(m->in, m->out, m->n_out);
            } else if (step == 0 && m->n_out && await_box(w->me, m->rank, false, &until)) {
                wire.box[w->me][m->rank].x = m->out, wire.box[w->me][m->rank].n = m->n_out;
                wire.box[w->me][m->rank].full = true;
                wire.bytes += (int64_t)m->n_out;
            } else if (!own && step == 1 && m->n_in && await_box(m->rank, w->me, true, &until)) {
                wire.wrong |= wire.box[m->rank][w->me].n != m->n_in;
                if (!wire.wrong)
                    memcpy(m->in, wire.box[m->rank][w->me].x, m->n_in);
                wire.box[m->rank][w->me].full = false;
            } else if (!own && step == 2 && m->n_out) {
                await_box(w->me, m->rank, false, &until);
            }
            pthread_cond_broadcast(&wire.came);
        }
    wire.moves++;
    pthread_mutex_unlock(&wire.lock);
    return 0;
}
#endif
