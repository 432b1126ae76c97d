/* ranks/launch.c - see launch.h. */
#include "ranks/launch.h"

#include "base/log.h"
#include "base/ranks.h"
#include "ranks/net.h"
#include "ranks/place.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_on[] = { SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGXCPU };
enum { PASSED_ON = sizeof passed_on / sizeof *passed_on };

struct family {
    pid_t *pids;      /* [n]; 0: has ended */
    int n, alive;
    int code;         /* of the first that failed, 0: none */
    bool failed_unasked; /* it did so before any signal was passed on */
    double failed_s;  /* when */
    bool kills;       /* the rest, by now */
    sigset_t asked;   /* signals that were passed on, or that a terminal sent to all */
    int ends_by;      /* the one of them that a rank has ended by: so does the run; 0: none */
    sigset_t was;
    int listener;
    struct err *e;
};

/* The driver is asked in a process that ends with the question: CUDA cannot be used on both
 * sides of a fork. -1: there is no driver. */
static int count_gpus(void)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
        int (*init)(unsigned) = NULL, (*count)(int *) = NULL, n = 0;

        if (cuda) {
            *(void **)&init = dlsym(cuda, "cuInit");
            *(void **)&count = dlsym(cuda, "cuDeviceGetCount");
        }
        _exit(init && count && init(0) == 0 && count(&n) == 0 && n < 255 ? n : 255);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) < 255 ? WEXITSTATUS(status) : -1;
}

int ranks_asked(const struct ranks_options *o, struct err *e)
{
    int64_t n = o->processes;

    if (!o->gpus)
        return (int)n;
    if (n)
        return err_set(e, E_USAGE, "--gpus and --processes: give one of them");
    if (strcmp(o->gpus, "all") == 0)
        return (n = count_gpus()) > 0 ? (int)n
               : err_set(e, E_DEVICE, n < 0 ? "--gpus all: there is no GPU driver here (libcuda.so.1)"
                                            : "--gpus all: no GPU can be seen");
    if (!num_i64(o->gpus, &n) || n < 1 || n > 1024)
        return err_set(e, E_USAGE, "--gpus '%.40s': must be a number or all", o->gpus);
    return (int)n;
}

/* In the copy: who it is. PDEATHSIG comes when the parent ends, but not if it ended before. */
static int be_rank(int rank, const struct family *f, const char *token, pid_t parent,
                   struct err *e)
{
    const struct { const char *name; int value; } number[] = {
        { "LONGLORA_SIZE", f->n }, { "LONGLORA_RANK", rank }, { "LONGLORA_LOCAL_RANK", rank },
        { "LONGLORA_LOCAL_SIZE", f->n }, { "LONGLORA_PORT", net_port(f->listener) },
        { "LONGLORA_DOOR", f->listener } };
    char text[16];
    int rc = setenv("LONGLORA_TOKEN", token, 1);

    for (size_t i = 0; i < sizeof number / sizeof *number && rc == 0; i++) {
        snprintf(text, sizeof text, "%d", number[i].value);
        rc = setenv(number[i].name, text, 1);
    }
    if (rc != 0)
        return err_sys(e, E_SYS, "cannot set the environment of rank %d", rank);
    if (rank > 0)
        close(f->listener);
    free(f->pids);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(-E_DEVICE);
    sigprocmask(SIG_SETMASK, &f->was, NULL);
    return 0;
}

static void tell_all(const struct family *f, int sig)
{
    for (int r = 0; r < f->n; r++)
        if (f->pids[r] > 0)
            kill(f->pids[r], sig);
}

/* How a rank has ended. What it said itself, or rank 0 of it, is not said again. A signal is the
 * cause of what the others found, though they may have ended before this is noticed. One that all were
 * sent, and that a rank has ended by, is no failure of the rank. */
static void note_end(struct family *f, int rank, int status)
{
    int sig = WIFSIGNALED(status) && !f->kills ? WTERMSIG(status) : 0;
    int code = WIFSIGNALED(status) ? E_DEVICE : -WEXITSTATUS(status);

    if (sig && !f->failed_unasked && sigismember(&f->asked, sig) == 1)
        f->ends_by = sig;
    if (f->ends_by)
        sig = 0;
    if (code < 0 && f->code == 0) {
        f->code = code;
        f->failed_unasked = sigisemptyset(&f->asked);
        f->failed_s = now_s();
        f->e->told = true;
    }
    if (sig && f->e->told) {
        f->e->told = false;
        err_set(f->e, code, "rank %d (process %d) was killed by SIG%s%s", rank,
                (int)f->pids[rank], sigabbrev_np(sig) ? sigabbrev_np(sig) : "?",
                sig == SIGKILL ? ", as the system does when memory runs out" : "");
    }
    f->pids[rank] = 0;
    f->alive--;
}

static void look_after(struct family *f)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int r = 0; r < f->n; r++)
            if (f->pids[r] == pid)
                note_end(f, r, status);
}

/* As nohup leaves it. */
static bool hangs_on(void)
{
    struct sigaction a;

    return sigaction(SIGHUP, NULL, &a) == 0 && a.sa_handler == SIG_IGN;
}

/* Until the last has ended. */
static void wait_for_all(struct family *f, const sigset_t *signals)
{
    while (f->alive > 0) {
        struct timespec pause = { 0, 200000000 };
        siginfo_t i;
        int sig = sigtimedwait(signals, &i, &pause);
        bool asks = sig > 0 && sig != SIGCHLD && !(sig == SIGHUP && hangs_on());

        if (asks) /* before a rank is found to have ended by it */
            sigaddset(&f->asked, sig);
        look_after(f);
        /* SI_KERNEL: a terminal's, which has gone to all that it is the terminal of */
        if (asks && i.si_code != SI_KERNEL)
            tell_all(f, sig);
        if (f->code < 0 && f->code != E_AGAIN && now_s() - f->failed_s > LAUNCH_GRACE_S) {
            f->kills = true;
            tell_all(f, SIGKILL);
        }
    }
}

/* Forks them all; *parent says on which side of a fork this returns. */
static int give_birth(struct family *f, const char *token, bool *parent, struct err *e)
{
    pid_t self = getpid();

    for (int r = 0; r < f->n; r++) {
        pid_t pid = fork();

        if (pid == 0) {
            *parent = false;
            return be_rank(r, f, token, self, e);
        }
        if (pid < 0) {
            f->code = err_sys(e, E_SYS, "cannot start rank %d", r);
            tell_all(f, SIGKILL);
            return f->code;
        }
        f->pids[r] = pid;
        f->alive++;
    }
    return 0;
}

static int begin(struct family *f, char token[33], sigset_t *signals, struct err *e)
{
    unsigned char secret[TOKEN_BYTES];
    struct ranks r;
    int rc = ranks_find(&r, e);

    if (rc == 0 && r.size > 1)
        return err_set(e, E_USAGE, "%s has started %d processes: they cannot start more by --gpus or "
                       "--processes", r.by, r.size);
    if (rc < 0 || (rc = place_token(secret, e)) < 0 ||
        (rc = net_listen(&f->listener, 0, e)) < 0)
        return rc;
    for (int i = 0; i < TOKEN_BYTES; i++)
        snprintf(token + 2 * i, 3, "%02x", secret[i]);
    if (!(f->pids = calloc((size_t)f->n, sizeof *f->pids))) {
        close(f->listener);
        return err_set(e, E_SYS, "out of memory");
    }
    sigemptyset(&f->asked);
    sigemptyset(signals);
    sigaddset(signals, SIGCHLD);
    for (int i = 0; i < PASSED_ON; i++)
        sigaddset(signals, passed_on[i]);
    sigprocmask(SIG_BLOCK, signals, &f->was);
    return 0;
}

/* As one process would have ended. */
static void end_by(int sig)
{
    sigset_t it;

    sigemptyset(&it);
    sigaddset(&it, sig);
    signal(sig, SIG_DFL);
    raise(sig);
    sigprocmask(SIG_UNBLOCK, &it, NULL);
}

int ranks_launch(const struct ranks_options *o, bool *parent, struct err *e)
{
    struct family f = { .n = ranks_asked(o, e), .listener = -1, .e = e };
    const char *own = getenv("LONGLORA_SIZE");
    char token[33];
    sigset_t signals;
    int rc;

    *parent = false;
    if (f.n <= 0 || (own && *own)) /* a copy has the same options */
        return f.n < 0 ? f.n : 0;
    *parent = true;
    if (f.n == 1) {
        *parent = false;
        return 0;
    }
    if ((rc = begin(&f, token, &signals, e)) < 0)
        return rc;
    rc = give_birth(&f, token, parent, e);
    if (!*parent)
        return rc;
    close(f.listener);
    wait_for_all(&f, &signals);
    free(f.pids);
    if (f.ends_by)
        end_by(f.ends_by);
    return rc < 0 ? rc : f.code;
}
