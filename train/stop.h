/* train/stop.h - signals that ask a run to publish and leave. */
#ifndef TRAIN_STOP_H
#define TRAIN_STOP_H
#include "base/err.h"
C_BEGIN

/* SIGTERM, SIGINT, SIGUSR1, SIGHUP (unless ignored, as under nohup) and SIGXCPU ask a run to
 * stop. From stop_install on they end the process at once, with 75 (E_AGAIN): nothing is lost
 * while files are opened and weights loaded. From stop_after_step on the first sets a flag; what
 * comes within STOP_AGAIN_S after it is taken for the same; a later one has its default action,
 * which ends the process by that signal. */
#define STOP_AGAIN_S 1.0
void stop_install(void);
void stop_after_step(void);
/* The signal that asked, or 0. */
int stop_asked(void);
/* All is saved: no more of them counts, as when a starter ends all ranks once the first has left. */
void stop_over(void);

C_END
#endif
