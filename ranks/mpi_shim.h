/* ranks/mpi_shim.h - the functions of a struct mpi, for handles of type HANDLE; see mpi.h.
 *
 * Included once by each shim, which defines HANDLE, REQUEST (its member of union mpi_request) and
 * IGNORE (what MPI_STATUS_IGNORE is). Constants that both have: MPI_SUCCESS 0,
 * MPI_THREAD_FUNNELED 1. */
#include "ranks/mpi.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

enum { FUNNELED = 1, TAG = 6626 };

typedef HANDLE handle;
static handle world, byte, errors_return; /* of this library */
static struct {
    int (*init_thread)(int *argc, char ***argv, int required, int *provided);
    int (*comm_rank)(handle comm, int *rank);
    int (*comm_size)(handle comm, int *size);
    int (*comm_set_errhandler)(handle comm, handle handler);
    int (*isend)(const void *p, int n, handle type, int to, int tag, handle comm, handle *r);
    int (*irecv)(void *p, int n, handle type, int from, int tag, handle comm, handle *r);
    int (*test)(handle *r, int *done, void *status);
    int (*finalize)(void);
} fn;

static int start(int *rank, int *size)
{
    int provided, rc = fn.init_thread(NULL, NULL, FUNNELED, &provided);

    if (rc == 0)
        rc = fn.comm_set_errhandler(world, errors_return);
    if (rc == 0)
        rc = fn.comm_rank(world, rank);
    return rc ? rc : fn.comm_size(world, size);
}

static int send(const void *p, int n, int to, union mpi_request *r)
{
    return fn.isend(p, n, byte, to, TAG, world, &r->REQUEST);
}

static int receive(void *p, int n, int from, union mpi_request *r)
{
    return fn.irecv(p, n, byte, from, TAG, world, &r->REQUEST);
}

static int test(union mpi_request *r, int *done)
{
    return fn.test(&r->REQUEST, done, IGNORE);
}

static int finish(void) { return fn.finalize(); }

/* POSIX lets an object pointer hold a function's address; C has no cast for it. */
static bool find(void *library, const char *name, void *to)
{
    return (*(void **)to = dlsym(library, name)) != NULL;
}

static bool use(struct mpi *m)
{
    void *l = m->library;

    m->start = start, m->send = send, m->receive = receive, m->test = test, m->finish = finish;
    return find(l, "MPI_Init_thread", &fn.init_thread) &&
           find(l, "MPI_Comm_rank", &fn.comm_rank) && find(l, "MPI_Comm_size", &fn.comm_size) &&
           find(l, "MPI_Comm_set_errhandler", &fn.comm_set_errhandler) &&
           find(l, "MPI_Isend", &fn.isend) && find(l, "MPI_Irecv", &fn.irecv) &&
           find(l, "MPI_Test", &fn.test) && find(l, "MPI_Finalize", &fn.finalize);
}
