/* ranks/mpi.h - an MPI that is loaded at run time: Open MPI or MPICH, without their headers. */
#ifndef RANKS_MPI_H
#define RANKS_MPI_H
#include "base/err.h"
#include "base/ranks.h"
#include "ranks/carrier.h"
#include <stdbool.h>
C_BEGIN

/*
 * The two do not share a binary interface: Open MPI's handles are pointers to objects that the
 * library exports, MPICH's (and Intel MPI's, MVAPICH's, Cray's) are numbers that its ABI
 * agreement fixes. Each has its shim (mpi_shim.h); who started the process says which is meant.
 *
 * Only the main thread calls MPI, and nothing that waits: a message is begun, and asked for until
 * it is through or the watch has a verdict.
 */
union mpi_request {
    void *p;
    int i;
};
struct mpi {
    void *library;
    int (*start)(int *rank, int *size); /* MPI_Init_thread, errors returned */
    int (*send)(const void *p, int n, int to, union mpi_request *r);
    int (*receive)(void *p, int n, int from, union mpi_request *r);
    int (*test)(union mpi_request *r, int *done);
    int (*finish)(void);
};
bool mpi_use_openmpi(struct mpi *m); /* m->library is one; false: it is not */
bool mpi_use_mpich(struct mpi *m);

/* MPI of the starter of r, as it is here; *m has no library where r was not started by one. E_SYS: it
 * was, and the library is not here, with the package that has it. E_CONFIG: MPI counts otherwise
 * than the environment does. */
int mpi_open(struct mpi *m, const struct ranks *r, struct err *e);
/* Rank 0's n bytes at x to all, before there is a watch. E_DEVICE. */
int mpi_tell(const struct mpi *m, const struct ranks *r, void *x, int n, double wait_s,
             struct err *e);
/* MPI_Finalize, if code is 0 and there is no verdict: all come to it then. Else other ranks may
 * be gone, and the process ends without. */
void mpi_close(const struct mpi *m, int code);

/* The ring over MPI, after watch_open. m is closed with it. E_SYS. */
int carrier_mpi(struct carrier *c, const struct mpi *m, const struct ranks *r, struct err *e);

C_END
#endif
