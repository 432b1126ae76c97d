/* ranks/watch.c - see watch.h. */
#include "ranks/watch.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/must.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* What goes over a connection: a letter, then
 *     BEAT      8 bytes: how many calls of the group the rank has come to
 *     GOODBYE   4 bytes: 0 or an exit status, TEXT bytes: the message
 *     VERDICT   the same, from rank 0: how the run ends, and by whom */
enum { BEAT = 'b', GOODBYE = 'q', VERDICT = 'v' };
enum { LATE_S = 3,    /* nobody is late before that */
       PEACE_S = 10 }; /* so long a rank that has nothing to complain of waits for rank 0's end */
enum { TEXT = 512, LONG_FRAME = 1 + 4 + TEXT, SHORT_FRAME = 1 + 8 };

struct peer {
    atomic_int fd;       /* -1: is no more, or was never one of ours */
    bool left;           /* has said goodbye in peace; its connection ends with it */
    int rank;
    char host[HOST_BYTES];
    double heard_s;
    uint64_t calls;
    int have;
    unsigned char b[LONG_FRAME];
};

static struct {
    int rank, size, wake;        /* wake: eventfd, readable from the verdict on */
    double timeout_s, begun_s;
    struct peer *peers;          /* of rank 0 [size - 1], else one: rank 0 */
    int n;
    char (*hosts)[HOST_BYTES];
    pthread_t thread;
    pthread_mutex_t lock;        /* for the verdict */
    struct err verdict;
    atomic_int code;             /* its code, 0: none */
    atomic_bool zero_speaks;     /* rank 0 will print it */
    bool speaks;                 /* else this rank will, and not another one for it */
    atomic_bool leaving;         /* watch_close has begun */
    atomic_int farewell;         /* eventfd of the thread's own: it is called */
    _Atomic uint64_t calls;
    _Atomic double step_s, step_begun_s; /* expected length and beginning of the step under way */
} w = { .wake = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .farewell = -1 };

static size_t frame(unsigned char b[LONG_FRAME], int letter, int code, const char *text)
{
    memset(b, 0, LONG_FRAME);
    b[0] = (unsigned char)letter;
    put_le(b + 1, (uint64_t)-code, 4);
    memcpy(b + 5, text, strnlen(text, TEXT - 1));
    return LONG_FRAME;
}

/* What does not fit now is of no use later: a beat that is missing is a beat that is missing, and
 * a connection that is full has a reader that hangs. */
static void post(const struct peer *p, const void *b, size_t n)
{
    if (p->fd >= 0 && send(p->fd, b, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) { /* poll tells */ }
}

/* The first counts. Rank 0 passes it on. */
static void judge(int code, bool zero_speaks, const char *text)
{
    unsigned char b[LONG_FRAME];
    uint64_t one = 1;

    if (atomic_load(&w.code))
        return;
    pthread_mutex_lock(&w.lock);
    err_set(&w.verdict, code, "%s", text);
    /* err_set makes line ends '?': a remedy has its own line */
    snprintf(w.verdict.msg, sizeof w.verdict.msg, "%s", text);
    text_clean(w.verdict.msg, true);
    pthread_mutex_unlock(&w.lock);
    atomic_store(&w.zero_speaks, zero_speaks);
    atomic_store(&w.code, code);
    if (w.rank == 0) {
        size_t n = frame(b, VERDICT, code, text);

        for (int i = 0; i < w.n; i++)
            post(&w.peers[i], b, n);
    }
    if (write(w.wake, &one, sizeof one) < 0) { /* it is full: readable */ }
}

/* last_words may be at it in another thread: it is to find none, not one that was closed. */
static void gone(struct peer *p)
{
    int fd = atomic_exchange(&p->fd, -1);

    close(fd);
}

static void died(struct peer *p, const char *how)
{
    char text[TEXT];

    snprintf(text, sizeof text, "rank %d on %s %s", p->rank, p->host, how);
    judge(E_DEVICE, p->rank != 0, text);
    gone(p);
}

/* One whole frame. */
static void obey(struct peer *p)
{
    int code = -(int)(get_le(p->b + 1, 4) & 0xff);
    char text[TEXT + 128];

    p->b[LONG_FRAME - 1] = '\0';
    if (p->b[0] == BEAT) {
        p->calls = get_le(p->b + 1, 8);
        return;
    }
    if (p->b[0] == VERDICT) {
        judge(code, true, (const char *)p->b + 5);
        return;
    }
    snprintf(text, sizeof text, "rank %d on %s: %s", p->rank, p->host, (const char *)p->b + 5);
    text[TEXT - 1] = '\0';
    p->left = code == 0;
    if (code < 0) {
        judge(code, true, text);
        gone(p);
    }
}

/* Rank 0 keeps the connection: its own end is what the other waits for (see_off). */
static void ended(struct peer *p)
{
    if (w.rank == 0)
        p->fd = -1;
    else
        gone(p);
}

/* All that a peer has sent. */
static void listen_to(struct peer *p)
{
    while (p->fd >= 0) {
        int want = p->have == 0 ? 1 : p->b[0] == BEAT ? SHORT_FRAME : LONG_FRAME;
        ssize_t k = recv(p->fd, p->b + p->have, (size_t)(want - p->have), MSG_DONTWAIT);

        if (k < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (k <= 0 && p->left) {
            ended(p);
            return;
        }
        if (k <= 0) {
            died(p, "has died: it was killed, or crashed");
            return;
        }
        p->heard_s = now_s();
        p->have += (int)k;
        if (p->b[0] != BEAT && p->b[0] != GOODBYE && p->b[0] != VERDICT) {
            died(p, "says what no rank says");
            return;
        }
        if (p->have > 1 && p->have == (p->b[0] == BEAT ? SHORT_FRAME : LONG_FRAME)) {
            p->have = 0;
            obey(p);
        }
    }
}

/* Who has not been heard of. Where it is this process that has not run, as after SIGSTOP, it must
 * not accuse the others. */
static void look_for_silence(double slept_s)
{
    char how[96];
    double now = now_s();

    for (int i = 0; i < w.n; i++) {
        struct peer *p = &w.peers[i];

        if (slept_s > w.timeout_s / 2)
            p->heard_s = now;
        if (p->fd < 0 || p->left || now - p->heard_s < w.timeout_s)
            continue;
        snprintf(how, sizeof how, "was not heard of for %.3g s: it hangs, or the link to it is cut",
                 w.timeout_s);
        died(p, how);
    }
}

/* Rank 0: a step takes long. Those who have come to fewer calls keep the others waiting. */
static void look_for_the_late(double *said_s)
{
    double expected = atomic_load(&w.step_s), begun = atomic_load(&w.step_begun_s);
    double now = now_s(), most = expected * WATCH_LATE > LATE_S ? expected * WATCH_LATE : LATE_S;
    uint64_t first = atomic_load(&w.calls);
    char who[128] = "all are at it";
    int late = 0;

    if (w.rank != 0 || expected <= 0 || *said_s == begun || now - begun < most)
        return;
    *said_s = begun;
    for (int i = 0; i < w.n; i++)
        first = w.peers[i].calls > first ? w.peers[i].calls : first;
    for (int i = w.n - 1; i >= 0; i--)
        if (w.peers[i].calls < first) {
            late++;
            snprintf(who, sizeof who, "they wait for rank %d on %s", w.peers[i].rank,
                     w.peers[i].host);
        }
    if (atomic_load(&w.calls) < first) {
        late++;
        snprintf(who, sizeof who, "they wait for rank 0 on %s", w.hosts[0]);
    }
    if (late > 1)
        snprintf(who + strlen(who), sizeof who - strlen(who), " and %d more", late - 1);
    log_warn("a step takes %.3g s so far, %.3g s were expected: %s", now - begun, expected, who);
}

static void beat(void)
{
    unsigned char b[SHORT_FRAME] = { BEAT };

    put_le(b + 1, atomic_load(&w.calls), 8);
    for (int i = 0; i < w.n; i++)
        post(&w.peers[i], b, sizeof b);
}

/* The main thread has not left by itself. */
static void end_all(void)
{
    bool say = w.rank == 0 || (!atomic_load(&w.zero_speaks) && w.speaks);

    must_tell_with(NULL);
    pthread_mutex_lock(&w.lock); /* for good */
    must_end(w.verdict.code, say ? w.verdict.msg : NULL, "", "");
}

/* After the goodbye: until the others have read it, which they show by closing too. Data that
 * nobody has read would break the connection off, and what was sent with it. Rank 0's connections
 * stay open until its process ends, for which the others wait: what there is to say it has then
 * printed, though the starter may end all that are left as soon as one has failed. */
static void see_off(double wait_s)
{
    double until = now_s() + wait_s;
    bool open = true;

    for (int i = 0; i < w.n && w.rank > 0; i++)
        if (w.peers[i].fd >= 0)
            shutdown(w.peers[i].fd, SHUT_WR);
    while (open && now_s() < until) {
        open = false;
        for (int i = 0; i < w.n && now_s() < until; i++) {
            struct pollfd p = { .fd = w.peers[i].fd, .events = POLLIN };
            char b[1024];
            ssize_t k;

            if (p.fd < 0)
                continue;
            open = true;
            poll(&p, 1, 5);
            if ((k = recv(p.fd, b, sizeof b, MSG_DONTWAIT)) == 0 || (k < 0 && errno != EAGAIN))
                ended(&w.peers[i]);
        }
    }
}

static void *watch(void *arg)
{
    double pause = w.timeout_s / 8 < 1 ? w.timeout_s / 8 : 1, last = now_s(), judged = 0;
    double beaten = 0, said = -1;
    struct pollfd *p = arg; /* [n + 1] */

    while (!atomic_load(&w.leaving)) {
        double now;

        for (int i = 0; i < w.n; i++)
            p[i] = (struct pollfd){ .fd = w.peers[i].fd, .events = POLLIN };
        p[w.n] = (struct pollfd){ .fd = atomic_load(&w.farewell), .events = POLLIN };
        poll(p, (nfds_t)w.n + 1, (int)(pause * 1e3) + 1);
        for (int i = 0; i < w.n; i++)
            if (w.peers[i].fd >= 0)
                listen_to(&w.peers[i]);
        now = now_s();
        look_for_silence(now - last);
        last = now;
        look_for_the_late(&said);
        if (now - beaten >= pause) {
            beat();
            beaten = now;
        }
        if (atomic_load(&w.code)) {
            judged = judged > 0 ? judged : now;
            if (now - judged > WATCH_GRACE_S && !atomic_load(&w.leaving))
                end_all();
        }
    }
    return NULL;
}

/* must_end's: this process ends now, for a reason of its own. It may be in a signal handler, so
 * nothing is locked and nothing allocated. */
static bool last_words(int code, const char *a, const char *b, const char *c)
{
    const char *const part[] = { w.rank == 0 ? "rank 0 on " : "", w.rank == 0 ? w.hosts[0] : "",
                                 w.rank == 0 ? ": " : "", a ? a : "", b, c };
    unsigned char f[LONG_FRAME] = { (unsigned char)(w.rank == 0 ? VERDICT : GOODBYE) };
    size_t n = 5;

    put_le(f + 1, (uint64_t)-code, 4);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        for (const char *s = part[i]; *s && n < LONG_FRAME - 1; s++)
            f[n++] = (unsigned char)*s;
    for (int i = 0; i < w.n; i++)
        post(&w.peers[i], f, sizeof f);
    return w.rank == 0 || w.peers[0].fd < 0;
}

static int begin(struct rendezvous *m, struct err *e)
{
    w.n = m->rank == 0 ? m->size - 1 : 1;
    w.peers = calloc((size_t)w.n, sizeof *w.peers);
    w.hosts = calloc((size_t)m->size, sizeof *w.hosts);
    if (!w.peers || !w.hosts)
        return err_set(e, E_SYS, "out of memory");
    if ((w.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return err_sys(e, E_SYS, "cannot make an event");
    atomic_store(&w.farewell, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (atomic_load(&w.farewell) < 0)
        return err_sys(e, E_SYS, "cannot make an event");
    for (int r = 0; r < m->size; r++)
        memcpy(w.hosts[r], m->seats[r].host, HOST_BYTES);
    for (int i = 0; i < w.n; i++) {
        struct peer *p = &w.peers[i];

        p->rank = m->rank == 0 ? i + 1 : 0;
        p->fd = m->fds[p->rank];
        m->fds[p->rank] = -1;
        memcpy(p->host, m->seats[p->rank].host, HOST_BYTES);
        p->heard_s = now_s();
    }
    return 0;
}

static void release(void)
{
    int f = atomic_exchange(&w.farewell, -1);

    for (int i = 0; i < w.n && w.peers; i++)
        if (w.peers[i].fd >= 0)
            close(w.peers[i].fd);
    if (w.wake >= 0)
        close(w.wake);
    if (f >= 0)
        close(f);
    free(w.peers);
    free(w.hosts);
    w.peers = NULL, w.hosts = NULL, w.n = 0, w.wake = -1;
}

int watch_open(struct rendezvous *m, double timeout_s, struct err *e)
{
    static struct pollfd *polled;
    sigset_t all, was;
    int rc;

    w.rank = m->rank, w.size = m->size, w.timeout_s = timeout_s;
    atomic_store(&w.code, 0), atomic_store(&w.leaving, false), atomic_store(&w.calls, 0);
    atomic_store(&w.step_s, 0);
    w.verdict = (struct err){ 0 };
    w.speaks = rendezvous_speaks(m);
    if ((rc = begin(m, e)) < 0) {
        release();
        return rc;
    }
    free(polled);
    if (!(polled = calloc((size_t)w.n + 1, sizeof *polled))) {
        release();
        return err_set(e, E_SYS, "out of memory");
    }
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &was);
    rc = pthread_create(&w.thread, NULL, watch, polled);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (rc != 0) {
        release();
        return err_set(e, E_SYS, "cannot start a thread: %s", strerror(rc));
    }
    must_tell_with(last_words);
    return 0;
}

bool watch_close(int code, const char *msg, bool agreed)
{
    unsigned char b[LONG_FRAME];
    uint64_t one = 1;
    char text[TEXT];
    bool say;

    if (!w.peers)
        return true;
    must_tell_with(NULL);
    atomic_store(&w.leaving, true);
    if (write(atomic_load(&w.farewell), &one, sizeof one) < 0) { /* it wakes up by itself */ }
    pthread_join(w.thread, NULL);
    /* A rank's failure is rank 0's to print, if rank 0 is still there to hear of it. */
    say = w.rank == 0 || code == 0 ||
          (atomic_load(&w.code) ? !atomic_load(&w.zero_speaks) && w.speaks
                                : !agreed && w.peers[0].fd < 0);
    code = agreed ? 0 : code;
    if (w.rank == 0 && code < 0)
        snprintf(text, sizeof text, "rank 0 on %s: %.400s", w.hosts[0], msg);
    else
        snprintf(text, sizeof text, "%.*s", TEXT - 1, msg);
    frame(b, w.rank == 0 && code < 0 ? VERDICT : GOODBYE, code, text);
    for (int i = 0; i < w.n; i++)
        post(&w.peers[i], b, sizeof b);
    /* where all leave in peace there is time for rank 0 to see off the slowest, too */
    see_off(agreed && w.rank > 0 ? PEACE_S : 1);
    release();
    return say;
}

int watch_check(struct err *e)
{
    int code = atomic_load(&w.code);

    if (code == 0)
        return 0;
    pthread_mutex_lock(&w.lock);
    if (e)
        *e = w.verdict;
    pthread_mutex_unlock(&w.lock);
    return code;
}

int watch_fd(void) { return w.wake; }

int watch_lost(int rank, const char *why, struct err *e)
{
    struct pollfd p = { .fd = w.wake, .events = POLLIN };
    int code;

    poll(&p, 1, (int)(WATCH_GRACE_S * 1e3) - 500);
    if ((code = watch_check(e)) < 0)
        return code;
    return err_set(e, E_DEVICE, "the link to rank %d on %s is lost: %s", rank,
                   w.hosts ? w.hosts[rank] : "?", why);
}

void watch_call(void) { atomic_fetch_add(&w.calls, 1); }

void watch_step(double expected_s)
{
    atomic_store(&w.step_s, 0);
    atomic_store(&w.step_begun_s, now_s());
    atomic_store(&w.step_s, expected_s);
}
