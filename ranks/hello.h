/* ranks/hello.h - the first bytes between two ranks, and the door that strangers do not pass. */
#ifndef RANKS_HELLO_H
#define RANKS_HELLO_H
#include "base/err.h"
#include "ranks/net.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * Who opens a connection speaks first: HELLO_BYTES, little-endian:
 *
 *     0  8  "llranks\n"           40  4  rank, from 0
 *     8  4  HELLO_VERSION         44  4  processors that it may use
 *    12  4  purpose               48  8  hash of which processors those are
 *    16 16  token of the job      56  8  hash of which GPUs it sees
 *    32  4  port of its door      64 64  its host's name, with zeros behind
 *    36  4  ranks in all         128 32  LONGLORA_VERSION, with zeros behind
 *
 * The token is what the processes of one job have in common (place.h). Whoever brings another one,
 * or something else than this, is cut off without an answer: a scan of ports, a rank of another
 * job. It is sent as it is, so whoever can read the network can speak, too.
 */
enum { HELLO_BYTES = 160, HELLO_VERSION = 1, TOKEN_BYTES = 16, HOST_BYTES = 64 };
enum hello_purpose { HELLO_MEET = 1, HELLO_LINK, HELLO_DIRECT }; /* rendezvous and heartbeat; data to
                                     the next rank; to rank 0 */

struct hello {
    enum hello_purpose purpose;
    unsigned char token[TOKEN_BYTES];
    uint32_t version;
    int port, size, rank, processors;
    uint64_t processor_set, gpu_set;
    char host[HOST_BYTES], release[32];
};
void hello_write(const struct hello *h, unsigned char b[HELLO_BYTES]);
/* False: a stranger, by magic or token. Of an equal token and another version only version,
 * rank, host and release are to be looked at. */
bool hello_read(struct hello *h, const unsigned char b[HELLO_BYTES],
                const unsigned char token[TOKEN_BYTES]);

/*
 * A listening socket at which others say hello, each within HELLO_S. Strangers and those who say
 * nothing are dropped and counted.
 */
enum { DOOR_WAITING = 64, HELLO_S = 5 };
struct door {
    int listener;                /* not the door's to close */
    unsigned char token[TOKEN_BYTES];
    int64_t strangers;
    int n;                       /* connections that have not said all */
    struct { int fd, have; double until_s; unsigned char b[HELLO_BYTES]; } waiting[DOOR_WAITING];
};
/* The next that knows the token: 1 and its socket, which is the caller's; 0: nobody until then.
 * E_SYS: the listener fails. called_off (a file descriptor, -1: none) becoming readable ends the
 * wait too. */
int door_wait(struct door *d, double until_s, int called_off, int *fd, struct hello *h,
              struct err *e);
void door_close(struct door *d);

C_END
#endif
