/* train/stop.c - see stop.h. */
#include "train/stop.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t asked;
static const int asks[] = { SIGTERM, SIGINT, SIGUSR1 };

static void on_signal(int sig)
{
    asked = sig;
    for (unsigned i = 0; i < sizeof asks / sizeof *asks; i++)
        signal(asks[i], SIG_DFL);
}

void stop_install(void)
{
    struct sigaction a;

    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESTART;
    sigemptyset(&a.sa_mask);
    for (unsigned i = 0; i < sizeof asks / sizeof *asks; i++)
        sigaction(asks[i], &a, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int stop_asked(void) { return asked; }
