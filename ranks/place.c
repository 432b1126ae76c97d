/* ranks/place.c - see place.h. */
#include "ranks/place.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/opt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* Ports derived from a job: below those that systems give out by themselves (from 32768). */
enum { PORT_FIRST = 15000, PORTS = 15000 };

static const char *set(const char *name)
{
    const char *v = getenv(name);

    return v && *v ? v : NULL;
}

/* Whatever tells this job from another: the same in all of its processes. */
static XXH128_hash_t job(const struct ranks *r, int64_t parent)
{
    static const char *const names[] = { "LONGLORA_TOKEN", "MASTER_ADDR", "MASTER_PORT",
                                         "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID",
                                         "SLURM_STEP_ID", "SLURM_RESTART_COUNT" };
    char text[2048];
    int n = snprintf(text, sizeof text, "%s %d %lld", r->by, r->size, (long long)parent);

    for (size_t i = 0; i < sizeof names / sizeof *names && n < (int)sizeof text; i++) {
        const char *v = set(names[i]);

        n += snprintf(text + n, sizeof text - (size_t)n, "\n%s", v ? v : "");
    }
    return XXH3_128bits(text, strlen(text));
}

static void put_token(unsigned char token[TOKEN_BYTES], XXH128_hash_t h)
{
    put_le(token, h.low64, 8);
    put_le(token + 8, h.high64, 8);
}

int place_token(unsigned char token[TOKEN_BYTES], struct err *e)
{
    return getrandom(token, TOKEN_BYTES, 0) == TOKEN_BYTES
               ? 0 : err_sys(e, E_SYS, "cannot get random bytes");
}

bool place_first_host(const char *list, char *host, size_t cap)
{
    size_t n = 0;

    for (; *list && *list != ','; list++) {
        if (*list == '[') { /* the first of the numbers, then what follows the bracket */
            size_t digits = strspn(++list, "0123456789");
            const char *end = strchr(list, ']');

            if (digits == 0 || !end || n + digits >= cap)
                return false;
            memcpy(host + n, list, digits);
            n += digits;
            list = end;
        } else if (n + 1 < cap) {
            host[n++] = *list;
        } else {
            return false;
        }
    }
    host[n] = '\0';
    return n > 0;
}

/* The parent has bound a socket and started the ranks: ltrain --gpus 8. */
static int from_starter(struct place *p, const struct ranks *r, struct err *e)
{
    const struct address loopback = { .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };
    const char *token = set("LONGLORA_TOKEN");
    int64_t port = 0, fd = -1;

    if (ranks_env("LONGLORA_PORT", &port, e) < 0 || ranks_env("LONGLORA_DOOR", &fd, e) < 0)
        return e->code;
    if (!token || port < 1 || port > 65535 || (r->rank == 0 && fd < 0))
        return err_set(e, E_CONFIG, "LONGLORA_SIZE is set, but not by --gpus or --processes");
    p->listener = r->rank == 0 ? (int)fd : -1;
    p->at[0] = loopback;
    p->at[0].port = (uint16_t)port;
    p->n = 1;
    put_token(p->token, XXH3_128bits(token, strlen(token)));
    return 0;
}

static int from_master(struct place *p, struct err *e)
{
    const char *agent = set("TORCHELASTIC_USE_AGENT_STORE");
    int64_t port;
    int rc = ranks_env("MASTER_PORT", &port, e);

    if (rc <= 0)
        return rc; /* not set: that of the job */
    port += agent && strcmp(agent, "True") == 0;
    if (port < 1 || port > 65535)
        return err_set(e, E_CONFIG, "MASTER_PORT is '%.20s', which is no port",
                       set("MASTER_PORT"));
    p->port = (int)port;
    return 0;
}

int place_find(struct place *p, const struct ranks *r, struct err *e)
{
    const char *list = set("SLURM_STEP_NODELIST"), *master = set("MASTER_ADDR");
    bool here = r->local_size == r->size, own = strcmp(r->by, RANKS_OWN) == 0;
    bool slurm = strcmp(r->by, "Slurm") == 0 && list;
    char host[256] = "localhost";
    XXH128_hash_t h;
    int rc;

    *p = (struct place){ .listener = -1 };
    if (own)
        return from_starter(p, r, e);
    h = job(r, here && !slurm && !master ? (int64_t)getppid() : 0);
    put_token(p->token, h);
    p->port = PORT_FIRST + (int)(h.low64 % PORTS);
    if (master) {
        snprintf(host, sizeof host, "%s", master);
        if ((rc = from_master(p, e)) < 0)
            return rc;
    } else if (slurm && !here && !place_first_host(list, host, sizeof host)) {
        return err_set(e, E_CONFIG, "SLURM_STEP_NODELIST is '%.200s', which is no list of hosts",
                       list);
    } else if (!slurm && !here) {
        err_set(e, E_CONFIG, "started by %s, but where rank 0 runs is not said", r->by);
        return err_hint(e, "set MASTER_ADDR to its host and MASTER_PORT to a free port");
    }
    if (r->rank == 0)
        return 0; /* it listens on all its addresses */
    if ((rc = net_resolve(host, p->port, p->at, PLACE_MOST, e)) < 0)
        return err_hint(e, "MASTER_ADDR and MASTER_PORT say where rank 0 can be reached");
    p->n = rc;
    return 0;
}

int place_make(struct place *p, struct err *e)
{
    int rc;

    *p = (struct place){ .listener = -1 };
    if ((rc = place_token(p->token, e)) == 0 && (rc = net_listen(&p->listener, 0, e)) == 0)
        p->n = net_own(net_port(p->listener), p->at, PLACE_MOST);
    return rc;
}

void place_write(const struct place *p, unsigned char b[PLACE_BYTES])
{
    memset(b, 0, PLACE_BYTES);
    memcpy(b, p->token, TOKEN_BYTES);
    put_le(b + TOKEN_BYTES, (uint64_t)p->n, 4);
    for (int i = 0; i < p->n; i++) {
        unsigned char *at = b + TOKEN_BYTES + 4 + 18 * i;

        memcpy(at, p->at[i].ip, 16);
        put_le(at + 16, p->at[i].port, 2);
    }
}

void place_read(struct place *p, const unsigned char b[PLACE_BYTES])
{
    uint64_t n = get_le(b + TOKEN_BYTES, 4);

    *p = (struct place){ .listener = -1 };
    memcpy(p->token, b, TOKEN_BYTES);
    p->n = n < PLACE_MOST ? (int)n : PLACE_MOST;
    for (int i = 0; i < p->n; i++) {
        const unsigned char *at = b + TOKEN_BYTES + 4 + 18 * i;

        memcpy(p->at[i].ip, at, 16);
        p->at[i].port = (uint16_t)get_le(at + 16, 2);
    }
}
