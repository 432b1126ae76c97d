/* ranks/open.h - the group of processes that a tool is one of, however they were started. */
#ifndef RANKS_OPEN_H
#define RANKS_OPEN_H
#include "base/err.h"
#include "base/opt.h"
#include "kernels/group.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* Zero is a default for each. */
struct ranks_options {
    const char *gpus;   /* --gpus: as many as this host has processes to start, or "all" */
    int64_t processes;  /* --processes: the same for processes on the CPU */
    int64_t timeout_s;  /* --timeout; 0: RANKS_TIMEOUT_S */
    int transport;      /* enum ranks_transport */
};
enum ranks_transport { TRANSPORT_AUTO, TRANSPORT_TCP, TRANSPORT_MPI };
enum { RANKS_TIMEOUT_S = 30, RANKS_WAIT_S = 120 /* for all to come */ };

/* Their rows in a tool's table. */
#define ROWS_RANKS(o) \
    { 0, "gpus", "N|all", OPT_STR, &(o)->gpus, 0, 0, \
      "start so many processes on this host, with a GPU each" }, \
    { 0, "processes", "N", OPT_I64, &(o)->processes, 1, 1024, \
      "start so many processes on this host, on the CPU" }, \
    { 0, "timeout", "SECONDS", OPT_I64, &(o)->timeout_s, 1, 86400, \
      "of many processes: one that is silent for so long is given up [30]" }, \
    { 0, "transport", "auto|tcp|mpi", OPT_ENUM, &(o)->transport, 0, 0, \
      "of many processes: what carries their data between hosts [auto]" }

/* What of this host is this rank's. */
struct ranks_share {
    int gpu;     /* index */
    int threads; /* 0: all processors */
};

/*
 * All ranks call it before they open anything. *g is the group, group_alone() where this is the
 * only process; *share is then all. auto: MPI if mpirun started them (or srun with its help), else
 * TCP. From here on a thread watches the others (watch.h), and on all ranks but 0 only errors are
 * logged, unless all is (log_rank).
 *
 * E_USAGE: variables of the starter, E_CONFIG: ranks of another version or number, E_SYS: the MPI
 * library is not here, E_DEVICE: one has not come.
 */
int ranks_open(struct group **g, const struct ranks_options *o, struct ranks_share *share,
               struct err *e);
/* The device that these options mean, where the user names none (auto). */
const char *ranks_device(const struct ranks_options *o, const char *asked);
/* How this rank ends: rc and e, which the others then know. Returns rc; where another rank
 * prints e it is marked as told. g may be NULL. */
int ranks_close(struct group *g, int rc, struct err *e);

C_END
#endif
