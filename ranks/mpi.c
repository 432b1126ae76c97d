/* ranks/mpi.c - finds the MPI that started us, and moves bytes by it; see mpi.h. */
#include "ranks/mpi.h"

#include "base/log.h"
#include "ranks/watch.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Who starts by which library; the first file that can be loaded. */
static const struct {
    const char *by, *package;
    const char *files[3];
    bool (*use)(struct mpi *m);
} kinds[] = {
    { "Open MPI", "libopenmpi3", { "libmpi.so.40", "libmpi.so.80" }, mpi_use_openmpi },
    { "MPICH", "libmpich12", { "libmpich.so.12", "libmpi.so.12", "libmpi.so.0" }, mpi_use_mpich },
};

/* srun speaks PMIx to Open MPI; its own variables are found first then. */
static const char *library_of(const struct ranks *r)
{
    return strcmp(r->by, "Slurm") == 0 && getenv("PMIX_RANK") ? "Open MPI" : r->by;
}

static int load(struct mpi *m, size_t k, struct err *e)
{
    char why[256] = "";

    for (size_t i = 0; i < 3 && kinds[k].files[i]; i++) {
        /* GLOBAL: Open MPI's own plug-ins look for its symbols there. */
        if ((m->library = dlopen(kinds[k].files[i], RTLD_NOW | RTLD_GLOBAL)) && kinds[k].use(m))
            return 0;
        if (!m->library && !*why)
            snprintf(why, sizeof why, "%.200s", dlerror());
    }
    m->library = NULL;
    err_set(e, E_SYS, "started by %s, whose library cannot be loaded: %s", kinds[k].by,
            *why ? why : "it is another MPI's");
    return err_hint(e, "install it (Debian: %s), or do without: --transport tcp",
                    kinds[k].package);
}

int mpi_open(struct mpi *m, const struct ranks *r, struct err *e)
{
    const char *by = library_of(r);
    int rank = -1, size = -1, rc = 0;

    *m = (struct mpi){ .library = NULL };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds && rc == 0; k++)
        if (strcmp(by, kinds[k].by) == 0)
            rc = load(m, k, e);
    if (rc < 0 || !m->library)
        return rc;
    if (m->start(&rank, &size) != 0)
        return err_set(e, E_SYS, "MPI_Init of %s failed", by);
    if (rank == r->rank && size == r->size)
        return 0;
    err_set(e, E_CONFIG, "%s says rank %d of %d, the environment %d of %d", by, rank, size,
            r->rank, r->size);
    return err_hint(e, "start all ranks by the mpirun of the library that is installed, or give "
                       "--transport tcp");
}

/* Asks for it until it is through: at first often, as a neighbour is usually near; then less, as
 * processors are better used by those who compute. */
static int wait_for(const struct mpi *m, union mpi_request *request, double until_s,
                    struct err *e)
{
    struct timespec nap = { 0, 0 };
    double begun = 0;

    for (int64_t i = 0;; i++) {
        int done = 0, rc;

        if (m->test(request, &done) != 0)
            return err_set(e, E_DEVICE, "MPI cannot move a message");
        if (done)
            return 0;
        if ((rc = watch_check(e)) < 0)
            return rc;
        if (i < 100)
            continue;
        begun = begun > 0 ? begun : now_s();
        if (until_s > 0 && now_s() > until_s)
            return err_set(e, E_DEVICE, "MPI has not brought a message in time");
        if (now_s() - begun < 2e-3) { /* a large message moves while it is asked for */
            sched_yield();
            continue;
        }
        nap.tv_nsec = nap.tv_nsec < 200000 ? nap.tv_nsec + 10000 : nap.tv_nsec;
        nanosleep(&nap, NULL);
    }
}

int mpi_tell(const struct mpi *m, const struct ranks *r, void *x, int n, double wait_s,
             struct err *e)
{
    double until = now_s() + wait_s;
    union mpi_request q;
    int rc = 0;

    for (int to = 1; to < r->size && rc == 0; to++) {
        if (r->rank != 0 && r->rank != to)
            continue;
        if ((r->rank == 0 ? m->send(x, n, to, &q) : m->receive(x, n, 0, &q)) != 0)
            rc = err_set(e, E_DEVICE, "MPI cannot begin a message");
        else
            rc = wait_for(m, &q, until, e);
    }
    return rc;
}

void mpi_close(const struct mpi *m, int code)
{
    if (m->library && code == 0 && watch_check(NULL) == 0)
        m->finish();
}

struct state {
    struct mpi m;
    int next, before;
};

static int both_ways(const struct mpi *m, int to, const char *p, size_t n_out, int before, char *q,
                     size_t n_in, struct err *e)
{
    enum { MOST = 1 << 30 }; /* MPI counts in int */
    int rc = 0;

    while (rc == 0 && (n_out > 0 || n_in > 0)) {
        int k_out = n_out < MOST ? (int)n_out : MOST, k_in = n_in < MOST ? (int)n_in : MOST;
        union mpi_request in, out;

        if ((k_in && m->receive(q, k_in, before, &in) != 0) ||
            (k_out && m->send(p, k_out, to, &out) != 0))
            return err_set(e, E_DEVICE, "MPI cannot begin a message");
        if (k_in)
            rc = wait_for(m, &in, 0, e);
        if (k_out && rc == 0)
            rc = wait_for(m, &out, 0, e);
        p += k_out, q += k_in, n_out -= (size_t)k_out, n_in -= (size_t)k_in;
    }
    return rc;
}

static int exchange(struct carrier *c, const void *out, size_t n_out, void *in, size_t n_in,
                    struct err *e)
{
    struct state *s = c->state;

    return both_ways(&s->m, s->next, out, n_out, s->before, in, n_in, e);
}

static int bring(struct carrier *c, int from, void *x, size_t n, struct err *e)
{
    struct state *s = c->state;

    return both_ways(&s->m, 0, x, c->rank == from ? n : 0, from, x, c->rank == from ? 0 : n, e);
}

/* Between two ranks messages of both directions keep their order: all ranks go one way at a time. */
static int back(struct carrier *c, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e)
{
    struct state *s = c->state;

    return both_ways(&s->m, s->before, out, n_out, s->next, in, n_in, e);
}

static void close_mpi(struct carrier *c, int code)
{
    struct state *s = c->state;

    mpi_close(&s->m, code);
    free(s);
    c->state = NULL;
}

int carrier_mpi(struct carrier *c, const struct mpi *m, const struct ranks *r, struct err *e)
{
    struct state *s = malloc(sizeof *s);

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *s = (struct state){ *m, (r->rank + 1) % r->size, (r->rank + r->size - 1) % r->size };
    *c = (struct carrier){ r->rank, r->size, s, exchange, back, bring, close_mpi };
    return 0;
}
