/* ranks/hello.c - see hello.h. */
#include "ranks/hello.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/utf8.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char magic[8] = "llranks\n";

void hello_write(const struct hello *h, unsigned char b[HELLO_BYTES])
{
    memset(b, 0, HELLO_BYTES);
    memcpy(b, magic, sizeof magic);
    put_le(b + 8, h->version, 4);
    put_le(b + 12, h->purpose, 4);
    memcpy(b + 16, h->token, TOKEN_BYTES);
    put_le(b + 32, (uint64_t)h->port, 4);
    put_le(b + 36, (uint64_t)h->size, 4);
    put_le(b + 40, (uint64_t)h->rank, 4);
    put_le(b + 44, (uint64_t)h->processors, 4);
    put_le(b + 48, h->processor_set, 8);
    put_le(b + 56, h->gpu_set, 8);
    memcpy(b + 64, h->host, strnlen(h->host, HOST_BYTES - 1));
    memcpy(b + 128, h->release, strnlen(h->release, sizeof h->release - 1));
}

/* The time that a comparison takes says nothing of where the first difference is. */
static bool same(const unsigned char *a, const unsigned char *b, size_t n)
{
    unsigned char differ = 0;

    for (size_t i = 0; i < n; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

bool hello_read(struct hello *h, const unsigned char b[HELLO_BYTES],
                const unsigned char token[TOKEN_BYTES])
{
    if (memcmp(b, magic, sizeof magic) != 0 || !same(b + 16, token, TOKEN_BYTES))
        return false;
    memset(h, 0, sizeof *h);
    h->version = (uint32_t)get_le(b + 8, 4);
    h->purpose = (enum hello_purpose)get_le(b + 12, 4);
    memcpy(h->token, b + 16, TOKEN_BYTES);
    h->port = (int)(get_le(b + 32, 4) & 0xffff);
    h->size = (int)(get_le(b + 36, 4) & 0x7fffffff);
    h->rank = (int)(get_le(b + 40, 4) & 0x7fffffff);
    h->processors = (int)(get_le(b + 44, 4) & 0xffff);
    h->processor_set = get_le(b + 48, 8);
    h->gpu_set = get_le(b + 56, 8);
    memcpy(h->host, b + 64, HOST_BYTES - 1);
    memcpy(h->release, b + 128, sizeof h->release - 1);
    text_clean(h->host, false); /* they are printed */
    text_clean(h->release, false);
    return true;
}

static void drop(struct door *d, int i)
{
    close(d->waiting[i].fd);
    d->waiting[i] = d->waiting[--d->n];
}

void door_close(struct door *d)
{
    while (d->n > 0)
        drop(d, 0);
}

/* Takes in who knocks. Where too many say nothing, the one that has said nothing for longest
 * goes. */
static int let_in(struct door *d, struct err *e)
{
    for (;;) {
        int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), oldest = 0;

        if (fd < 0) /* others: the connection has ended already, or no memory for it now */
            return errno == EBADF || errno == EINVAL || errno == ENOTSOCK
                       ? err_sys(e, E_SYS, "cannot accept connections") : 0;
        if (d->n == DOOR_WAITING) {
            for (int i = 1; i < d->n; i++)
                if (d->waiting[i].until_s < d->waiting[oldest].until_s)
                    oldest = i;
            drop(d, oldest);
            d->strangers++;
        }
        d->waiting[d->n].fd = fd;
        d->waiting[d->n].have = 0;
        d->waiting[d->n++].until_s = now_s() + HELLO_S;
    }
}

/* More of what number i says: 1 it was a hello, 0 not yet all, -1 dropped. */
static int hear(struct door *d, int i, struct hello *h)
{
    unsigned char *b = d->waiting[i].b;
    int have = d->waiting[i].have;
    ssize_t k = recv(d->waiting[i].fd, b + have, (size_t)(HELLO_BYTES - have), 0);

    if (k > 0 && (have += (int)k) == HELLO_BYTES && hello_read(h, b, d->token))
        return 1;
    d->waiting[i].have = have;
    if (k > 0 && have < HELLO_BYTES && memcmp(b, magic, have < 8 ? (size_t)have : 8) == 0)
        return 0;
    if (k < 0 && (errno == EAGAIN || errno == EINTR) && now_s() < d->waiting[i].until_s)
        return 0;
    log_debug("a stranger at port %d was dropped", net_port(d->listener));
    d->strangers++;
    drop(d, i);
    return -1;
}

int door_wait(struct door *d, double until_s, int called_off, int *fd, struct hello *h,
              struct err *e)
{
    struct pollfd p[DOOR_WAITING + 2];
    double left;
    int rc;

    do {
        /* All are asked each time, as their own time may be over; who came first is first. drop
         * moves the last one to this place. */
        if ((rc = let_in(d, e)) < 0)
            return rc;
        for (int i = 0, said; i < d->n; i += said == 0)
            if ((said = hear(d, i, h)) == 1) {
                *fd = d->waiting[i].fd;
                d->waiting[i] = d->waiting[--d->n];
                return 1;
            }
        p[0] = (struct pollfd){ .fd = d->listener, .events = POLLIN };
        p[1] = (struct pollfd){ .fd = called_off, .events = POLLIN };
        for (int i = 0; i < d->n; i++)
            p[2 + i] = (struct pollfd){ .fd = d->waiting[i].fd, .events = POLLIN };
        left = until_s - now_s();
        left = left < 0 ? 0 : left > 0.5 ? 0.5 : left; /* those in waiting have their time too */
        poll(p, (nfds_t)d->n + 2, (int)(left * 1e3));
    } while (now_s() < until_s && !(p[1].revents & POLLIN));
    return 0;
}
