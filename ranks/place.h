/* ranks/place.h - where the ranks of a job find rank 0, and by what they know each other. */
#ifndef RANKS_PLACE_H
#define RANKS_PLACE_H
#include "base/err.h"
#include "base/ranks.h"
#include "ranks/hello.h"
#include "ranks/net.h"
C_BEGIN

enum { PLACE_MOST = 16, PLACE_BYTES = TOKEN_BYTES + 4 + PLACE_MOST * 18 };
struct place {
    int listener;                 /* rank 0's, -1: it has to open one */
    int port;                     /* that one's; 0: any */
    struct address at[PLACE_MOST]; /* tried in turn by the others */
    int n;
    unsigned char token[TOKEN_BYTES];
};

/*
 * From the environment, the first of these that is there:
 *
 *     LONGLORA_DOOR, _PORT, _TOKEN   our own starter (launch.h): a socket handed down to rank 0
 *     MASTER_ADDR, MASTER_PORT       torchrun, or whoever sets them. Where torchrun's agent has
 *                                    that port itself (TORCHELASTIC_USE_AGENT_STORE), the next;
 *                                    where none is set, one from the job
 *     SLURM_STEP_NODELIST            its first host; the port from job and step
 *     none, all ranks on this host   a port from the parent process, which is the same for all
 *
 * Where LONGLORA_TOKEN is set, whoever does not know it is a stranger. E_CONFIG: none of them.
 */
int place_find(struct place *p, const struct ranks *r, struct err *e);
/* Rank 0 opens one, to tell the others by another way: as PLACE_BYTES. E_SYS. */
int place_make(struct place *p, struct err *e);
void place_write(const struct place *p, unsigned char b[PLACE_BYTES]);
void place_read(struct place *p, const unsigned char b[PLACE_BYTES]);

/* A token nobody can guess. E_SYS. */
int place_token(unsigned char token[TOKEN_BYTES], struct err *e);
/* "a[1-3,7]x,b2" is "a1x". False: no such list, or a name too long. */
bool place_first_host(const char *list, char *host, size_t cap);

C_END
#endif
