/* train/stop.h - signals that ask a run to publish and leave. */
#ifndef TRAIN_STOP_H
#define TRAIN_STOP_H
#include "base/err.h"
#include <stdbool.h>
C_BEGIN

/* SIGTERM, SIGINT and SIGUSR1 set a flag, once; the next of any of them has its default
 * action, which ends the process by that signal. SIGPIPE is ignored: a write then fails. */
void stop_install(void);
/* The signal that asked, or 0. */
int stop_asked(void);

C_END
#endif
