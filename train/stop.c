/* train/stop.c - see stop.h. */
#include "train/stop.h"

#include "base/must.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

/* 'steps' becomes 1 when the loop begins. Until then nothing was trained that could be lost. */
static volatile sig_atomic_t asked, steps;
static struct timespec when; /* the first came */
static const int asks[] = { SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGXCPU };
enum { ASKS = sizeof asks / sizeof *asks };

/* What was sent once may come twice: by the terminal or timeout(1) to a whole group of
 * processes, and once more by mpirun or srun. */
static bool comes_again(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - when.tv_sec + 1e-9 * (double)(now.tv_nsec - when.tv_nsec) < STOP_AGAIN_S;
}

/* Ends the process at once before the first step. Later it notes the signal, and the next one has
 * its default effect. SIGXCPU is left out, as it comes every second once the CPU time is used
 * up. */
static void on_signal(int sig)
{
    if (!steps)
        must_end(E_AGAIN, "stopped before the first step", ": run the same command to start again", "");
    if (!asked) {
        clock_gettime(CLOCK_MONOTONIC, &when);
        asked = sig;
    } else if (sig != SIGXCPU && !comes_again()) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

static bool ignored(int sig)
{
    struct sigaction was;

    return sigaction(sig, NULL, &was) == 0 && was.sa_handler == SIG_IGN;
}

void stop_install(void)
{
    struct sigaction a;

    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    /* A read or write that was interrupted goes on. */
    a.sa_flags = SA_RESTART;
    sigemptyset(&a.sa_mask);
    for (int i = 0; i < ASKS; i++)
        if (asks[i] != SIGHUP || !ignored(SIGHUP)) /* as nohup leaves it */
            sigaction(asks[i], &a, NULL);
}

void stop_after_step(void) { steps = 1; }

int stop_asked(void) { return asked; }

void stop_over(void)
{
    for (int i = 0; i < ASKS; i++)
        signal(asks[i], SIG_IGN);
}
