/* ranks/net.c - see net.h. */
#include "ranks/net.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const unsigned char v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

static bool is_v4(const struct address *a) { return memcmp(a->ip, v4_prefix, 12) == 0; }

/* False for a family that is neither. */
static bool from_system(const struct sockaddr *s, struct address *a)
{
    if (s->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, s, sizeof in);
        memcpy(a->ip, v4_prefix, 12);
        memcpy(a->ip + 12, &in.sin_addr, 4);
        a->port = ntohs(in.sin_port);
        return true;
    }
    if (s->sa_family == AF_INET6) {
        struct sockaddr_in6 in;

        memcpy(&in, s, sizeof in);
        memcpy(a->ip, &in.sin6_addr, 16);
        a->port = ntohs(in.sin6_port);
        return true;
    }
    return false;
}

static socklen_t to_system(const struct address *a, struct sockaddr_storage *s)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(a->port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };

    memset(s, 0, sizeof *s);
    if (is_v4(a)) {
        memcpy(&v4.sin_addr, a->ip + 12, 4);
        memcpy(s, &v4, sizeof v4);
        return sizeof v4;
    }
    memcpy(&v6.sin6_addr, a->ip, 16);
    memcpy(s, &v6, sizeof v6);
    return sizeof v6;
}

bool net_is_loopback(const struct address *a)
{
    static const unsigned char one[16] = { [15] = 1 };

    return is_v4(a) ? a->ip[12] == 127 : memcmp(a->ip, one, 16) == 0;
}

const char *net_name(const struct address *a, char *text, size_t cap)
{
    char ip[INET6_ADDRSTRLEN] = "?";

    if (is_v4(a))
        inet_ntop(AF_INET, a->ip + 12, ip, sizeof ip);
    else
        inet_ntop(AF_INET6, a->ip, ip, sizeof ip);
    snprintf(text, cap, "%s port %d", ip, a->port);
    return text;
}

void net_peer(int fd, struct address *a)
{
    struct sockaddr_storage s;
    socklen_t n = sizeof s;

    memset(a, 0, sizeof *a);
    if (getpeername(fd, (struct sockaddr *)&s, &n) == 0)
        from_system((struct sockaddr *)&s, a);
}

int net_port(int fd)
{
    struct sockaddr_storage s;
    struct address a;
    socklen_t n = sizeof s;

    return getsockname(fd, (struct sockaddr *)&s, &n) == 0 &&
           from_system((struct sockaddr *)&s, &a) ? a.port : -1;
}

/* One family's attempt. IPv6 takes IPv4 with it, where a host has both. */
static int listen_on(int family, int port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, zero = 0;
    bool six = family == AF_INET6;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if ((six && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero) < 0) ||
        bind(fd, six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4,
             six ? sizeof v6 : sizeof v4) < 0 || listen(fd, 1024) < 0) {
        int why = errno;

        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

int net_listen(int *fd, int port, struct err *e)
{
    if ((*fd = listen_on(AF_INET6, port)) < 0 && errno != EADDRINUSE)
        *fd = listen_on(AF_INET, port);
    return *fd < 0 ? err_sys(e, E_SYS, "cannot listen on port %d", port) : 0;
}

int net_resolve(const char *host, int port, struct address *at, int most, struct err *e)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    struct address a;
    int rc = getaddrinfo(host, NULL, &hints, &list), n = 0;

    if (rc != 0)
        return err_set(e, E_CONFIG, "there is no host '%s': %s", host, gai_strerror(rc));
    for (int own = 0; own < 2; own++)
        for (const struct addrinfo *i = list; i; i = i->ai_next)
            if (n < most && from_system(i->ai_addr, &a) && net_is_loopback(&a) == own) {
                at[n] = a;
                at[n++].port = (uint16_t)port;
            }
    freeaddrinfo(list);
    return n > 0 ? n : err_set(e, E_CONFIG, "host '%s' has no address", host);
}

/* Addresses that hold on one link only (fe80:) need its name, and are left out. */
int net_own(int port, struct address *at, int most)
{
    struct ifaddrs *list = NULL;
    struct address a;
    int n = 0;

    if (getifaddrs(&list) < 0)
        return 0;
    for (int own = 0; own < 2; own++)
        for (const struct ifaddrs *i = list; i; i = i->ifa_next)
            if (n < most && i->ifa_addr && (i->ifa_flags & IFF_UP) &&
                from_system(i->ifa_addr, &a) && net_is_loopback(&a) == own &&
                !(a.ip[0] == 0xfe && (a.ip[1] & 0xc0) == 0x80)) {
                at[n] = a;
                at[n++].port = (uint16_t)port;
            }
    freeifaddrs(list);
    return n;
}

/* Waits for events on fd. False: not by then. */
static bool ready(int fd, short events, double until_s)
{
    struct pollfd p = { .fd = fd, .events = events };
    double left;
    int rc;

    do {
        left = until_s - now_s();
        rc = poll(&p, 1, left > 0 ? (int)(left * 1e3) + 1 : 0);
    } while (rc < 0 && errno == EINTR);
    return rc > 0;
}

int net_connect(int *fd, const struct address *a, double until_s, struct err *e)
{
    struct sockaddr_storage s;
    socklen_t n = to_system(a, &s), len = sizeof(int);
    int one = 1, why = 0;
    char name[80];

    *fd = socket(s.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return err_sys(e, E_SYS, "cannot open a socket");
    if (connect(*fd, (struct sockaddr *)&s, n) < 0) {
        if (errno != EINPROGRESS)
            why = errno;
        else if (!ready(*fd, POLLOUT, until_s))
            why = ETIMEDOUT;
        else
            getsockopt(*fd, SOL_SOCKET, SO_ERROR, &why, &len);
    }
    if (why == 0) {
        setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return 0;
    }
    close(*fd);
    *fd = -1;
    errno = why;
    return err_sys(e, E_DEVICE, "cannot reach %s", net_name(a, name, sizeof name));
}

int net_send(int fd, const void *p, size_t n, double until_s, struct err *e)
{
    const char *from = p;

    while (n > 0) {
        ssize_t k = send(fd, from, n, MSG_NOSIGNAL);

        if (k > 0)
            from += k, n -= (size_t)k;
        else if (k < 0 && errno != EAGAIN && errno != EINTR)
            return err_sys(e, E_DEVICE, "cannot send");
        else if (!ready(fd, POLLOUT, until_s))
            return err_set(e, E_DEVICE, "cannot send: nobody reads");
    }
    return 0;
}

int net_receive(int fd, void *p, size_t n, double until_s, struct err *e)
{
    char *to = p;

    while (n > 0) {
        ssize_t k = recv(fd, to, n, 0);

        if (k > 0)
            to += k, n -= (size_t)k;
        else if (k == 0)
            return err_set(e, E_DEVICE, "the other side has closed the connection");
        else if (errno != EAGAIN && errno != EINTR)
            return err_sys(e, E_DEVICE, "cannot receive");
        else if (!ready(fd, POLLIN, until_s))
            return err_set(e, E_DEVICE, "nothing was received");
    }
    return 0;
}

/* Without data the kernel asks the other side from half of the time on, six times. */
void net_keep(int fd, double timeout_s)
{
    int on = 1, idle = (int)(timeout_s / 2), every, times = 6;

    idle = idle < 1 ? 1 : idle;
    every = idle / times < 1 ? 1 : idle / times;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
}

/* A reader that is busy for long still acknowledges that it has no room: not TCP_USER_TIMEOUT,
 * which takes that for a cut link too. */
bool net_is_cut(int fd, double timeout_s)
{
    struct tcp_info i = { 0 };
    socklen_t n = sizeof i;

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n) == 0 && i.tcpi_unacked > 0 &&
           i.tcpi_last_ack_recv > timeout_s * 1e3;
}
