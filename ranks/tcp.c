/* ranks/tcp.c - the ring of ranks over TCP; see carrier.h. */
#include "base/log.h"
#include "ranks/carrier.h"
#include "ranks/hello.h"
#include "ranks/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct tcp {
    int next, before; /* sockets: one to write, one to read */
    int next_rank, before_rank;
    int *direct;      /* [size] of rank 0: sockets to those that are no neighbours, else -1 */
    int zero;         /* of such a rank: its socket to rank 0; else -1 */
    double timeout_s;
};

/* Neighbours of rank 0 have a socket to it anyway. */
static bool is_far(int rank, int size) { return rank > 1 && rank < size - 1; }

/* What is there of one direction: bytes moved, 0 none now, -1 the link is lost and errno why. */
static ssize_t send_some(int fd, const char *p, size_t n)
{
    ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

    return k >= 0 ? k : errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static ssize_t receive_some(int fd, char *p, size_t n)
{
    ssize_t k = recv(fd, p, n, 0);

    if (k == 0)
        errno = ECONNRESET;
    return k > 0 ? k : k < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* One neighbour as a way of data. */
struct way {
    int fd, rank;
};

static int both_ways(const struct tcp *t, struct way to, const char *out, size_t n_out,
                     struct way from, char *in, size_t n_in, struct err *e)
{
    int rc = 0;

    while (rc == 0 && (n_out > 0 || n_in > 0)) {
        struct pollfd p[3] = { { .fd = n_out ? to.fd : -1, .events = POLLOUT },
                               { .fd = n_in ? from.fd : -1, .events = POLLIN },
                               { .fd = watch_fd(), .events = POLLIN } };
        ssize_t k;

        if (poll(p, 3, 1000) == 0 && n_out && net_is_cut(to.fd, t->timeout_s))
            return watch_lost(to.rank, "what was sent is not acknowledged", e);
        if (p[0].revents) {
            if ((k = send_some(to.fd, out, n_out)) < 0)
                return watch_lost(to.rank, strerror(errno), e);
            out += k, n_out -= (size_t)k;
        }
        if (p[1].revents) {
            if ((k = receive_some(from.fd, in, n_in)) < 0)
                return watch_lost(from.rank, strerror(errno), e);
            in += k, n_in -= (size_t)k;
        }
        /* what can move is moved first: a rank that ends may have sent all that is wanted */
        if (!p[0].revents && !p[1].revents)
            rc = watch_check(e);
    }
    return rc;
}

static int exchange(struct carrier *c, const void *out, size_t n_out, void *in, size_t n_in,
                    struct err *e)
{
    struct tcp *t = c->state;

    return both_ways(t, (struct way){ t->next, t->next_rank }, out, n_out,
                     (struct way){ t->before, t->before_rank }, in, n_in, e);
}

/* A socket carries both ways: rank 1 writes into the one that it reads, rank 0 reads what it writes. */
static int bring(struct carrier *c, int from, void *x, size_t n, struct err *e)
{
    struct tcp *t = c->state;
    bool last = from == c->size - 1;
    struct way none = { -1, 0 }, way = { is_far(from, c->size) ? -1 : last ? t->before : t->next, from };

    if (c->rank == 0) {
        way.fd = is_far(from, c->size) ? t->direct[from] : way.fd;
        return both_ways(t, none, NULL, 0, way, x, n, e);
    }
    way = (struct way){ is_far(from, c->size) ? t->zero : last ? t->next : t->before, 0 };
    return both_ways(t, way, x, n, none, NULL, 0, e);
}

/* A socket carries both ways. */
static int back(struct carrier *c, const void *out, size_t n_out, void *in, size_t n_in,
                struct err *e)
{
    struct tcp *t = c->state;

    return both_ways(t, (struct way){ t->before, t->before_rank }, out, n_out,
                     (struct way){ t->next, t->next_rank }, in, n_in, e);
}

static void tcp_close(struct carrier *c, int code)
{
    struct tcp *t = c->state;

    (void)code;
    if (!t)
        return;
    for (int r = 0; t->direct && r < c->size; r++)
        if (t->direct[r] >= 0)
            close(t->direct[r]);
    free(t->direct);
    if (t->zero >= 0)
        close(t->zero);
    if (t->next >= 0)
        close(t->next);
    if (t->before >= 0)
        close(t->before);
    free(t);
    c->state = NULL;
}

/* The connection is there as soon as the other side's kernel has it: nobody waits for anybody's
 * next step, and so not in a circle. */
static int reach(struct tcp *t, const struct rendezvous *m, int rank, enum hello_purpose why, int *fd,
                 struct err *e)
{
    struct hello h = { .purpose = why, .version = HELLO_VERSION, .size = m->size,
                       .rank = m->rank };
    const struct seat *s = &m->seats[rank];
    unsigned char b[HELLO_BYTES];
    int rc;

    memcpy(h.token, m->token, TOKEN_BYTES);
    memcpy(h.host, m->seats[m->rank].host, HOST_BYTES);
    hello_write(&h, b);
    if ((rc = net_connect(fd, &s->door, now_s() + t->timeout_s, e)) < 0 ||
        (rc = net_send(*fd, b, sizeof b, now_s() + t->timeout_s, e)) < 0)
        return err_within(e, "no data can go to rank %d on %s", rank, s->host);
    net_keep(*fd, t->timeout_s);
    return 0;
}

/* Where the socket of a hello belongs; NULL: it is no one that is waited for. */
static int *seat_of(struct tcp *t, const struct hello *h, int size)
{
    int *to = NULL;

    if (h->purpose == HELLO_LINK && h->rank == t->before_rank)
        to = &t->before;
    else if (h->purpose == HELLO_DIRECT && t->direct && is_far(h->rank, size))
        to = &t->direct[h->rank];
    return to && *to < 0 ? to : NULL;
}

/* The first that has not connected; -1: all have. */
static int missing(const struct tcp *t, int size)
{
    for (int r = 2; t->direct && r < size - 1; r++)
        if (t->direct[r] < 0)
            return r;
    return t->before < 0 ? t->before_rank : -1;
}

static int await_all(struct tcp *t, const struct rendezvous *m, struct err *e)
{
    struct door d = { .listener = m->listener };
    double until = now_s() + t->timeout_s;
    struct hello h = { .rank = -1 };
    int fd, rc = 0;

    memcpy(d.token, m->token, TOKEN_BYTES);
    while (missing(t, m->size) >= 0 && (rc = door_wait(&d, until, watch_fd(), &fd, &h, e)) == 1) {
        int *to = seat_of(t, &h, m->size);

        if (to)
            net_keep(*to = fd, t->timeout_s);
        else
            close(fd);
    }
    door_close(&d);
    if (missing(t, m->size) >= 0)
        return rc < 0 ? rc : watch_lost(missing(t, m->size), "it has not connected", e);
    return 0;
}

int carrier_tcp(struct carrier *c, const struct rendezvous *m, double timeout_s, struct err *e)
{
    struct tcp *t = calloc(1, sizeof *t);
    int rc = 0;

    if (!t)
        return err_set(e, E_SYS, "out of memory");
    *c = (struct carrier){ m->rank, m->size, t, exchange, back, bring, tcp_close };
    *t = (struct tcp){ -1, -1, (m->rank + 1) % m->size, (m->rank + m->size - 1) % m->size, NULL, -1,
                       timeout_s };
    if (m->rank == 0 && m->size > 3) {
        if (!(t->direct = malloc((size_t)m->size * sizeof *t->direct)))
            rc = err_set(e, E_SYS, "out of memory");
        for (int r = 0; t->direct && r < m->size; r++)
            t->direct[r] = -1;
    }
    if (rc == 0)
        rc = reach(t, m, t->next_rank, HELLO_LINK, &t->next, e);
    if (rc == 0 && is_far(m->rank, m->size))
        rc = reach(t, m, 0, HELLO_DIRECT, &t->zero, e);
    if (rc == 0)
        rc = await_all(t, m, e);
    if (rc < 0)
        tcp_close(c, rc);
    return rc;
}
