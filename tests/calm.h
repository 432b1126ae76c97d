/* tests/calm.h - how long something takes, less what other programs take of a busy machine. */
#ifndef TESTS_CALM_H
#define TESTS_CALM_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

/*
 * Seconds, counted by a thread that naps for 10 ms at a time. It is kept from the processor like
 * what it measures, so that an upper bound of time holds under load: on a machine with nothing else
 * to do they are seconds of the clock. For lower bounds take the clock. Starts with the first call
 * of a process, also after a fork.
 */
static _Atomic int64_t calm_naps;

static inline void *calm_count(void *unused)
{
    const struct timespec nap = { 0, 10000000 };

    for (;; atomic_fetch_add(&calm_naps, 1))
        nanosleep(&nap, NULL);
    return unused;
}

static inline double calm_s(void)
{
    static pid_t owner;
    pthread_t t;

    if (owner != getpid() && pthread_create(&t, NULL, calm_count, NULL) == 0) {
        pthread_detach(t);
        owner = getpid();
    }
    return 0.01 * (double)atomic_load(&calm_naps);
}

#endif
