/* ranks/rendezvous.c - see rendezvous.h. */
#include "ranks/rendezvous.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/opt.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* Rank 0's answer: WELCOME_BYTES, then a seat of SEAT_BYTES for each rank; or a refusal, with
 * the reason in place of the seats. */
enum { WELCOME_BYTES = 32, SEAT_BYTES = 104, REASON_BYTES = 512, REFUSE_S = 5 };
static const char magic[8] = "llranks\n";

static void seat_write(const struct seat *s, unsigned char *b)
{
    memset(b, 0, SEAT_BYTES);
    memcpy(b, s->door.ip, 16);
    put_le(b + 16, s->door.port, 2);
    put_le(b + 20, (uint64_t)s->processors, 4);
    put_le(b + 24, s->processor_set, 8);
    put_le(b + 32, s->gpu_set, 8);
    memcpy(b + 40, s->host, HOST_BYTES);
}

static void seat_read(struct seat *s, const unsigned char *b)
{
    memcpy(s->door.ip, b, 16);
    s->door.port = (uint16_t)get_le(b + 16, 2);
    s->processors = (int)(get_le(b + 20, 4) & 0xffff);
    s->processor_set = get_le(b + 24, 8);
    s->gpu_set = get_le(b + 32, 8);
    memcpy(s->host, b + 40, HOST_BYTES - 1);
    s->host[HOST_BYTES - 1] = '\0';
    text_clean(s->host, false);
}

/* What this process can use, so that ranks of one host may share it out. */
static void describe(struct hello *h, const struct rendezvous *m, const struct ranks *r)
{
    const char *gpus = getenv("CUDA_VISIBLE_DEVICES");
    cpu_set_t set;

    *h = (struct hello){ .version = HELLO_VERSION, .purpose = HELLO_MEET, .size = m->size,
                         .rank = m->rank, .port = net_port(m->listener) };
    memcpy(h->token, m->token, TOKEN_BYTES);
    snprintf(h->host, sizeof h->host, "%.*s", HOST_BYTES - 1, r->host);
    snprintf(h->release, sizeof h->release, "%s", LONGLORA_VERSION);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        h->processors = CPU_COUNT(&set);
        h->processor_set = XXH3_64bits(&set, sizeof set);
    }
    /* one GPU alone is number 0 to whom it was given, whatever the others call theirs */
    if (gpus)
        h->gpu_set = strchr(gpus, ',') ? XXH3_64bits(gpus, strlen(gpus))
                                       : XXH3_64bits_withSeed(&m->rank, sizeof m->rank, 1);
}

static void sit(struct seat *s, const struct hello *h, const struct address *from)
{
    memcpy(s->host, h->host, HOST_BYTES);
    s->door = *from;
    s->door.port = (uint16_t)h->port;
    s->processors = h->processors;
    s->processor_set = h->processor_set, s->gpu_set = h->gpu_set;
}

static int answer(int fd, const struct rendezvous *m, int code, const char *reason, double until_s,
                  struct err *e)
{
    size_t n = code ? REASON_BYTES : (size_t)m->size * SEAT_BYTES;
    unsigned char head[WELCOME_BYTES] = { 0 }, *b = calloc(1, n);
    int rc;

    if (!b)
        return err_set(e, E_SYS, "out of memory");
    memcpy(head, magic, sizeof magic);
    memcpy(head + 8, m->token, TOKEN_BYTES);
    put_le(head + 24, (uint64_t)-code, 4);
    if (code)
        snprintf((char *)b, n, "%s", reason);
    for (int r = 0; r < m->size && !code; r++)
        seat_write(&m->seats[r], b + (size_t)r * SEAT_BYTES);
    if ((rc = net_send(fd, head, sizeof head, until_s, e)) == 0)
        rc = net_send(fd, b, n, until_s, e);
    free(b);
    return rc;
}

/* Why a process that knows the token cannot take part; 0: it can. */
static int refuse(const struct rendezvous *m, const struct hello *h, struct err *e)
{
    if (h->version != HELLO_VERSION || strcmp(h->release, LONGLORA_VERSION) != 0)
        return err_set(e, E_CONFIG, "rank %d on %s is of version %s, rank 0 of " LONGLORA_VERSION,
                       h->rank, h->host, h->release);
    if (h->size != m->size)
        return err_set(e, E_CONFIG, "rank %d on %s is one of %d, rank 0 one of %d", h->rank,
                       h->host, h->size, m->size);
    if (h->rank < 1 || h->rank >= m->size || m->fds[h->rank] >= 0)
        return err_set(e, E_CONFIG, "two processes say that they are rank %d, one on %s", h->rank,
                       h->host);
    return 0;
}

/* Those who have not come yet would look for rank 0 for long: they get the reason for some
 * seconds more. */
static void turn_away(const struct rendezvous *m, struct door *d, int here, const struct err *why)
{
    double until = now_s() + REFUSE_S;
    struct hello h;
    int fd;

    for (int r = 1; r < m->size; r++)
        if (m->fds[r] >= 0)
            answer(m->fds[r], m, why->code, why->msg, now_s() + 1, NULL);
    while (here < m->size && door_wait(d, until, -1, &fd, &h, NULL) == 1) {
        answer(fd, m, why->code, why->msg, now_s() + 1, NULL);
        close(fd);
        here++;
    }
}

static int first_missing(const struct rendezvous *m)
{
    int r = 1;

    while (r < m->size && m->fds[r] >= 0)
        r++;
    return r;
}

/* Rank 0: takes in the others. What is wrong with one is told to all. */
static int host_all(struct rendezvous *m, double wait_s, struct err *e)
{
    double until = now_s() + wait_s;
    struct door d = { .listener = m->listener };
    struct hello h;
    int rc = 0, fd, here = 1;

    memcpy(d.token, m->token, TOKEN_BYTES);
    while (here < m->size && rc == 0) {
        struct address from;

        if ((rc = door_wait(&d, until, -1, &fd, &h, e)) == 0)
            rc = err_set(e, E_DEVICE, "rank %d has not come within %.0f s; %d of %d are here",
                         first_missing(m), wait_s, here, m->size);
        if (rc < 0)
            break;
        if ((rc = refuse(m, &h, e)) < 0) {
            answer(fd, m, rc, e->msg, now_s() + 1, NULL);
            close(fd);
            break;
        }
        here++;
        net_peer(fd, &from);
        sit(&m->seats[h.rank], &h, &from);
        m->fds[h.rank] = fd;
    }
    if (rc < 0)
        turn_away(m, &d, here, e);
    door_close(&d);
    for (int r = 1; r < m->size && rc == 0; r++)
        if ((rc = answer(m->fds[r], m, 0, "", now_s() + 5, e)) < 0)
            err_within(e, "rank %d on %s", r, m->seats[r].host);
    return rc;
}

/* What rank 0 answers: 0 all are here, 1 it is not rank 0 or has gone, < 0 it refuses. */
static int welcomed(struct rendezvous *m, int fd, double until_s, struct err *e)
{
    unsigned char head[WELCOME_BYTES], seat[SEAT_BYTES];
    char reason[REASON_BYTES];
    int code, rc = 0;

    if (net_receive(fd, head, sizeof head, until_s, e) < 0)
        return 1;
    if (memcmp(head, magic, sizeof magic) != 0 || memcmp(head + 8, m->token, TOKEN_BYTES) != 0) {
        err_set(e, E_DEVICE, "another program answers");
        return 1;
    }
    if ((code = -(int)(get_le(head + 24, 4) & 0xff)) < 0) {
        if (net_receive(fd, reason, sizeof reason, now_s() + 5, e) < 0)
            return 1;
        reason[sizeof reason - 1] = '\0';
        return err_set(e, code, "%s", reason);
    }
    for (int r = 0; r < m->size && rc == 0; r++)
        if ((rc = net_receive(fd, seat, sizeof seat, now_s() + 5, e)) == 0)
            seat_read(&m->seats[r], seat);
    return rc;
}

/* A rank on rank 0's host is known to it by an address that is of no use elsewhere: it is where
 * rank 0 is. */
static void put_in_reach(struct rendezvous *m, const struct address *zero)
{
    for (int r = 0; r < m->size; r++)
        if (r == 0 || net_is_loopback(&m->seats[r].door))
            memcpy(m->seats[r].door.ip, zero->ip, sizeof zero->ip);
}

/* The others: to rank 0, at each of its addresses in turn, until it is there. */
static int go_to_zero(struct rendezvous *m, const struct hello *h, const struct place *p,
                      double wait_s, struct err *e)
{
    double until = now_s() + wait_s;
    unsigned char b[HELLO_BYTES];
    struct err why = { 0 };
    char name[80];
    int fd, rc;

    hello_write(h, b);
    for (int i = 0; now_s() < until; i = (i + 1) % p->n) {
        double soon = now_s() + 2;

        if (net_connect(&fd, &p->at[i], soon < until ? soon : until, &why) == 0) {
            rc = net_send(fd, b, sizeof b, until, &why) < 0 ? 1 : welcomed(m, fd, until, &why);
            if (rc == 0) {
                m->fds[0] = fd;
                put_in_reach(m, &p->at[i]);
                return 0;
            }
            close(fd);
            if (rc < 0) {
                *e = why;
                return rc;
            }
        }
        usleep(i + 1 < p->n ? 1000 : 50000);
    }
    return err_set(e, E_DEVICE, "rank 0 was not found at %s within %.0f s: %.400s",
                   net_name(&p->at[0], name, sizeof name), wait_s, why.msg);
}

int rendezvous_meet(struct rendezvous *m, const struct ranks *r, struct place *p, double wait_s,
                    struct err *e)
{
    struct hello h;
    int rc = 0;

    *m = (struct rendezvous){ .rank = r->rank, .size = r->size, .listener = -1 };
    memcpy(m->token, p->token, TOKEN_BYTES);
    m->seats = calloc((size_t)m->size, sizeof *m->seats);
    m->fds = calloc((size_t)m->size, sizeof *m->fds);
    if (!m->seats || !m->fds)
        return err_set(e, E_SYS, "out of memory");
    memset(m->fds, 0xff, (size_t)m->size * sizeof *m->fds);
    m->listener = m->rank == 0 ? p->listener : -1;
    p->listener = -1;
    if (m->listener < 0 &&
        (rc = net_listen(&m->listener, m->rank == 0 ? p->port : 0, e)) < 0)
        return m->rank == 0 ? err_hint(e, "MASTER_PORT chooses another port") : rc;
    describe(&h, m, r);
    if (m->rank > 0)
        return go_to_zero(m, &h, p, wait_s, e);
    sit(&m->seats[0], &h, &(struct address){ .port = 0 });
    return host_all(m, wait_s, e);
}

void rendezvous_close(struct rendezvous *m)
{
    for (int r = 0; r < m->size && m->fds; r++)
        if (m->fds[r] >= 0)
            close(m->fds[r]);
    if (m->size > 0 && m->listener >= 0)
        close(m->listener);
    free(m->fds);
    free(m->seats);
    *m = (struct rendezvous){ 0 };
}

/* Two network namespaces of one host have its name both, but addresses of their own. */
static bool same_place(const struct seat *a, const struct seat *b)
{
    return strcmp(a->host, b->host) == 0 && memcmp(a->door.ip, b->door.ip, sizeof a->door.ip) == 0;
}

bool rendezvous_speaks(const struct rendezvous *m)
{
    const struct seat *mine = &m->seats[m->rank], *zero = &m->seats[0];

    if (m->rank < 2)
        return true;
    for (int r = 1; r < m->rank; r++)
        if (m->apart ? same_place(&m->seats[r], mine) : !same_place(&m->seats[r], zero))
            return false;
    return m->apart || !same_place(mine, zero);
}

void rendezvous_local(const struct rendezvous *m, int *local_rank, int *local_size)
{
    *local_rank = *local_size = 0;
    for (int r = 0; r < m->size; r++)
        if (strcmp(m->seats[r].host, m->seats[m->rank].host) == 0)
            *local_rank += r < m->rank, ++*local_size;
}

int rendezvous_gpu(const struct rendezvous *m)
{
    const struct seat *me = &m->seats[m->rank];
    int before = 0;

    for (int r = 0; r < m->rank; r++)
        before += strcmp(m->seats[r].host, me->host) == 0 && m->seats[r].gpu_set == me->gpu_set;
    return before;
}

int rendezvous_processors(const struct rendezvous *m)
{
    const struct seat *me = &m->seats[m->rank];
    int sharing = 0;

    for (int r = 0; r < m->size; r++)
        sharing += strcmp(m->seats[r].host, me->host) == 0 &&
                   m->seats[r].processor_set == me->processor_set;
    return me->processors > sharing ? me->processors / sharing : 1;
}
