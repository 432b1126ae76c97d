/* train/stop.c - see stop.h. */
#include "train/stop.h"

#include "base/must.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

/* 'steps' becomes 1 when the loop begins. Until then nothing was trained that could be lost. */
static volatile sig_atomic_t asked, steps;
static const int asks[] = { SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGXCPU };
enum { ASKS = sizeof asks / sizeof *asks };

/* Ends the process at once before the first step. Later it notes the signal, and gives all
 * signals their default effect, so that a second one ends the process. SIGXCPU is left out,
 * as it comes again every second once the CPU time is used up. */
static void on_signal(int sig)
{
    if (!steps)
        must_end(E_AGAIN, "stopped before the first step", ": run the same command to start again", "");
    if (sig == SIGXCPU && asked)
        return;
    asked = sig;
    for (int i = 0; i < ASKS; i++)
        if (asks[i] != SIGXCPU)
            signal(asks[i], SIG_DFL);
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
