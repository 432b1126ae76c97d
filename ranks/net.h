/* ranks/net.h - TCP between ranks: addresses, and sockets whose every wait has an end. */
#ifndef RANKS_NET_H
#define RANKS_NET_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* An address as IPv6 has it (IPv4 as ::ffff:a.b.c.d), and a port. */
struct address {
    unsigned char ip[16];
    uint16_t port;
};

/* Times are now_s() (base/log.h). All sockets are non-blocking, closed on exec, and send small
 * pieces at once. */

/* Listens on every address of this host; port 0: any that is free. E_SYS. */
int net_listen(int *fd, int port, struct err *e);
int net_port(int fd); /* of a socket: this side's port; -1: none */
/* The addresses of a name or number, at most 'most', those of this host itself last; how many.
 * E_CONFIG: there is no such host. */
int net_resolve(const char *host, int port, struct address *at, int most, struct err *e);
/* Those of this host by which others may reach it, loopback last; how many. */
int net_own(int port, struct address *at, int most);
bool net_is_loopback(const struct address *a);
const char *net_name(const struct address *a, char *text, size_t cap); /* "10.0.0.1 port 5000" */
/* Who is at the other end. */
void net_peer(int fd, struct address *a);

/* E_DEVICE: nobody answers by then. */
int net_connect(int *fd, const struct address *a, double until_s, struct err *e);
/* All n bytes, or E_DEVICE: not by then, or the other side has gone. */
int net_send(int fd, const void *p, size_t n, double until_s, struct err *e);
int net_receive(int fd, void *p, size_t n, double until_s, struct err *e);
/* For a connection of the whole run: a link that is cut shows to who waits for data after about
 * timeout_s, and to who has sent some by net_is_cut. */
void net_keep(int fd, double timeout_s);
bool net_is_cut(int fd, double timeout_s);

C_END
#endif
