/* base/pool.c - see pool.h. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

/* The workers sleep until a round begins, or look for it a while before (pool_stay_awake). In a round
 * each thread, the caller among them, takes the next task's number until none is left. The last worker to finish wakes the caller. */
struct pool {
    int n_threads;
    struct worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t go, idle;
    _Atomic uint64_t round; /* grows by one a pool_run; changed under lock */
    _Atomic int busy;       /* workers still in this round; changed under lock */
    bool quit;
    _Atomic int looks; /* before going to sleep */
    pool_fn *fn;
    void *ctx;
    int64_t n_tasks;
    /* The next task's number; taken without the lock. */
    _Atomic int64_t next;
};

/* Works on tasks until there are none. The counter needs no ordering of its own: the lock
 * around a round orders what tasks read and write. */
static void drain(struct pool *p, int thread)
{
    int64_t i;

    while ((i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n_tasks)
        p->fn(p->ctx, i, thread);
}

static void pause_a_little(void)
{
#if defined __x86_64__ && defined __GNUC__
    __builtin_ia32_pause();
#endif
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    uint64_t seen = 0;
    bool quit;

    for (;;) {
        for (int i = p->looks; i > 0 && atomic_load(&p->round) == seen; i--)
            pause_a_little();
        pthread_mutex_lock(&p->lock);
        /* The round's number, not a flag: a worker that sleeps late cannot miss a round or do
         * it twice, as the next one begins only when all have finished this one. */
        while (p->round == seen && !p->quit)
            pthread_cond_wait(&p->go, &p->lock);
        seen = p->round;
        quit = p->quit;
        pthread_mutex_unlock(&p->lock);
        if (quit)
            return NULL;
        drain(p, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->idle);
        pthread_mutex_unlock(&p->lock);
    }
}

/* What the process may use, which a container or taskset can make less than the machine has. */
int pool_processors(void)
{
    cpu_set_t set; /* of 1024: a larger machine answers by sysconf */
    long n;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 4096 ? 4096 : (int)n;
}

struct pool *pool_open(int n_threads, struct err *e)
{
    struct pool *p = calloc(1, sizeof *p);
    int rc = 0;

    if (n_threads <= 0)
        n_threads = pool_processors();
    if (p)
        p->workers = calloc((size_t)n_threads, sizeof *p->workers);
    if (!p || !p->workers) {
        free(p);
        err_set(e, E_SYS, "out of memory for %d threads", n_threads);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->go, NULL);
    pthread_cond_init(&p->idle, NULL);
    /* The caller is thread 0, so one thread less is started. On failure the threads that were
     * started are ended like a whole team. */
    for (p->n_threads = 1; p->n_threads < n_threads && rc == 0; p->n_threads++) {
        struct worker *w = &p->workers[p->n_threads];
        w->pool = p;
        w->index = p->n_threads;
        rc = pthread_create(&w->thread, NULL, work, w);
    }
    if (rc != 0) {
        p->n_threads--; /* the last one was not made */
        pool_close(p);
        err_set(e, E_SYS, "cannot start %d threads: %s", n_threads, strerror(rc));
        return NULL;
    }
    return p;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->go);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->n_threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->go);
    pthread_cond_destroy(&p->idle);
    free(p->workers);
    free(p);
}

void pool_stay_awake(struct pool *p)
{
    enum { LOOKS = 1000 }; /* of 20 ns or more */

    if (p)
        p->looks = LOOKS;
}

int pool_threads(const struct pool *p) { return p ? p->n_threads : 1; }

void pool_run(struct pool *p, int64_t n_tasks, pool_fn *fn, void *ctx)
{
    /* Nothing to share out, so no thread is woken. */
    if (!p || p->n_threads == 1 || n_tasks < 2) {
        for (int64_t i = 0; i < n_tasks; i++)
            fn(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->ctx = ctx;
    p->n_tasks = n_tasks;
    atomic_store(&p->next, 0);
    /* Set before the workers wake, so that none of them can bring it to 0 too early. */
    p->busy = p->n_threads - 1;
    p->round++;
    pthread_cond_broadcast(&p->go);
    pthread_mutex_unlock(&p->lock);
    drain(p, 0);
    /* All tasks have been taken, but others may still work on theirs. */
    for (int i = p->looks; i > 0 && atomic_load(&p->busy) > 0; i--)
        pause_a_little();
    pthread_mutex_lock(&p->lock);
    while (p->busy > 0)
        pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
