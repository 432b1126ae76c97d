/* base/ranks.h - who am I among the processes that a starter started: from the environment. */
#ifndef BASE_RANKS_H
#define BASE_RANKS_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/*
 * mpirun, srun and torchrun tell each process its number in the environment, so that no library
 * of any of them is needed to learn it. A starter is recognised by the variable with the number
 * of processes; the first of these that is set counts, as the others may be what it was started
 * by:
 *
 *     starter       size                    rank                  on this host
 *     ours          LONGLORA_SIZE           LONGLORA_RANK         LONGLORA_LOCAL_RANK,
 *                                                                 LONGLORA_LOCAL_SIZE
 *     torchrun      WORLD_SIZE              RANK                  LOCAL_RANK, LOCAL_WORLD_SIZE
 *     Open MPI      OMPI_COMM_WORLD_SIZE    OMPI_COMM_WORLD_RANK  OMPI_COMM_WORLD_LOCAL_RANK,
 *                                                                 OMPI_COMM_WORLD_LOCAL_SIZE
 *     MPICH, Intel  PMI_SIZE                PMI_RANK              MPI_LOCALRANKID,
 *                                                                 MPI_LOCALNRANKS
 *     Slurm         SLURM_STEP_NUM_TASKS    SLURM_PROCID          SLURM_LOCALID,
 *                                                                 SLURM_STEP_TASKS_PER_NODE
 *
 * A batch script of Slurm's is no step: one process, whatever SLURM_NTASKS says.
 */
#define RANKS_OWN "--gpus or --processes" /* our own starter, ranks/launch.h */
struct ranks {
    const char *by;  /* the starter; NULL: none, and this is the only process */
    int rank, size;  /* 0 <= rank < size */
    int local_rank, local_size; /* of those on this host; -1 and 0: not told */
    char host[256];
};

/* E_USAGE, naming the variable: no number, or numbers that contradict each other (a rank that
 * is not below its size, more processes on the host than in all). */
int ranks_find(struct ranks *r, struct err *e);

/* A variable with a count: 1 and its number, 0 where it is not set or empty, E_USAGE where it
 * holds something else than 0 to RANKS_MOST. */
#define RANKS_MOST ((int64_t)1 << 30)
int ranks_env(const char *name, int64_t *v, struct err *e);

C_END
#endif
