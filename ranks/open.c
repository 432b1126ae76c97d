/* ranks/open.c - see open.h. */
#include "ranks/open.h"

#include "base/log.h"
#include "base/ranks.h"
#include "ranks/carrier.h"
#include "ranks/mpi.h"
#include "ranks/place.h"
#include "ranks/rendezvous.h"
#include "ranks/ring.h"
#include "ranks/watch.h"

#include <stdio.h>
#include <string.h>

static char here[HOST_BYTES]; /* the group's host */

/* Where rank 0 is: by MPI, which knows already, or from the environment. */
static int find_place(struct place *p, const struct mpi *m, const struct ranks *r, struct err *e)
{
    unsigned char b[PLACE_BYTES];
    int rc;

    if (!m->library)
        return place_find(p, r, e);
    if (r->rank == 0) {
        if ((rc = place_make(p, e)) < 0)
            return rc;
        place_write(p, b);
        return mpi_tell(m, r, b, sizeof b, RANKS_WAIT_S, e);
    }
    if ((rc = mpi_tell(m, r, b, sizeof b, RANKS_WAIT_S, e)) == 0)
        place_read(p, b);
    return rc;
}

static int open_mpi(struct mpi *m, const struct ranks *r, int transport, struct err *e)
{
    int rc = transport == TRANSPORT_TCP ? 0 : mpi_open(m, r, e);

    if (rc == 0 && transport == TRANSPORT_MPI && !m->library)
        rc = err_set(e, E_USAGE, "--transport mpi: these processes were not started by an MPI, but "
                     "by %s", r->by);
    return rc;
}

static void share_out(struct ranks_share *share, const struct rendezvous *m)
{
    share->gpu = rendezvous_gpu(m);
    share->threads = rendezvous_processors(m);
}

/* From the watch on, what fails is told to the others. */
static int connect_data(struct group **g, struct rendezvous *v, const struct mpi *m,
                        const struct ranks *r, double timeout_s, struct err *e)
{
    struct carrier c;
    int rc = m->library ? carrier_mpi(&c, m, r, e) : carrier_tcp(&c, v, timeout_s, e);

    if (rc == 0 && (rc = ring_open(g, &c, here, e)) < 0)
        c.close(&c, rc);
    if (rc < 0 && !watch_close(rc, e->msg, false))
        e->told = true;
    return rc;
}

int ranks_open(struct group **g, const struct ranks_options *o, struct ranks_share *share,
               struct err *e)
{
    double timeout = o->timeout_s ? (double)o->timeout_s : RANKS_TIMEOUT_S;
    struct mpi m = { .library = NULL };
    struct rendezvous v = { 0 };
    struct place p;
    struct ranks r;
    int rc = ranks_find(&r, e);

    *g = group_alone();
    *share = (struct ranks_share){ 0 };
    if (rc < 0 || r.size == 1)
        return rc;
    snprintf(here, sizeof here, "%.*s", HOST_BYTES - 1, r.host);
    if ((rc = open_mpi(&m, &r, o->transport, e)) == 0 &&
        (rc = find_place(&p, &m, &r, e)) == 0 &&
        (rc = rendezvous_meet(&v, &r, &p, RANKS_WAIT_S, e)) == 0 &&
        (v.apart = strcmp(r.by, "torchrun") == 0,
         rc = watch_open(&v, timeout, e)) == 0 &&
        (rc = connect_data(g, &v, &m, &r, timeout, e)) == 0)
        share_out(share, &v);
    if (rc == 0) {
        if (r.rank > 0)
            log_rank(r.rank);
        log_info("%d ranks, started by %s; what the hosts send goes by %s", r.size, r.by,
                 m.library ? "MPI" : "TCP");
        log_debug("rank %d of %d on %s: GPU %d, %d threads", r.rank, r.size, here, share->gpu,
                  share->threads);
    }
    rendezvous_close(&v);
    return rc;
}

const char *ranks_device(const struct ranks_options *o, const char *asked)
{
    if (asked && strcmp(asked, "auto") != 0)
        return asked;
    return o->gpus ? "cuda" : o->processes > 1 ? "cpu" : asked;
}

int ranks_close(struct group *g, int rc, struct err *e)
{
    bool agreed;

    if (!g || g->size == 1)
        return rc;
    agreed = rc == 0 || rc == E_AGAIN || (g->over == rc && !g->untold);
    ring_close(g, agreed ? 0 : rc);
    if (!watch_close(rc, rc < 0 ? e->msg : "", agreed))
        e->told = true;
    return rc;
}
