/* ranks/rendezvous.h - all ranks of a job meet once, and learn who the others are. */
#ifndef RANKS_RENDEZVOUS_H
#define RANKS_RENDEZVOUS_H
#include "base/err.h"
#include "base/ranks.h"
#include "ranks/hello.h"
#include "ranks/net.h"
#include "ranks/place.h"
C_BEGIN

/* What each rank tells of itself, and where its door is. */
struct seat {
    char host[HOST_BYTES];
    struct address door;
    int processors;
    uint64_t processor_set, gpu_set;
};

/* A table of the ranks. Every rank has a connection to rank 0, which has one to each. */
struct rendezvous {
    int rank, size;
    unsigned char token[TOKEN_BYTES];
    struct seat *seats;   /* [size] */
    int *fds;             /* [size]; -1: none */
    int listener;         /* this rank's door for data */
    bool apart;           /* what ranks of several hosts print is not seen at one place */
};

/* All come within wait_s, or none goes on: E_DEVICE, naming the first who did not. E_CONFIG:
 * another version, another number of ranks, two of the same number. *m is to be closed in any
 * case; the sockets that are to live on are taken out by setting them to -1. */
int rendezvous_meet(struct rendezvous *m, const struct ranks *r, struct place *p, double wait_s,
                    struct err *e);
void rendezvous_close(struct rendezvous *m);

/* Where rank 0 has died this rank tells it: the first of the others, and the first that is elsewhere
 * than rank 0, which may have died with its host; apart: the first of each host. */
bool rendezvous_speaks(const struct rendezvous *m);

/* Of those on this rank's host: how many there are, and this one's place among them. */
void rendezvous_local(const struct rendezvous *m, int *local_rank, int *local_size);
/* The same of those on its host that see the same GPUs; and how many processors are this one's,
 * where several share them. */
int rendezvous_gpu(const struct rendezvous *m);
int rendezvous_processors(const struct rendezvous *m);

C_END
#endif
