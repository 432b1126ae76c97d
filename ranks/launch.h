/* ranks/launch.h - a tool that starts its own ranks on one host, and looks after them. */
#ifndef RANKS_LAUNCH_H
#define RANKS_LAUNCH_H
#include "base/err.h"
#include "ranks/open.h"
#include <stdbool.h>
C_BEGIN

/*
 * With --gpus or --processes this process makes copies of itself, before it has opened a device or
 * started a thread, and tells each by the environment who it is (base/ranks.h, place.h). In a copy,
 * and where neither option is given, *parent is false and the tool goes on.
 *
 * The parent passes SIGTERM, SIGINT, SIGUSR1, SIGHUP and SIGXCPU on to all, but for what a
 * terminal has sent to all by itself. When a rank fails or is killed the others have LAUNCH_GRACE_S
 * to end by themselves, as they do when they hear of it; who has not is killed. When the parent is
 * killed the system kills them.
 *
 * Returns how the run ended: 0, E_AGAIN when all stopped on request, else the failure of the first
 * that failed, E_DEVICE where it was killed. Of a signal that was passed on and that ranks do not catch
 * it does not return: the parent ends by it, as one process does. E_USAGE: both options, or ranks of ranks.
 */
enum { LAUNCH_GRACE_S = 3 };
int ranks_launch(const struct ranks_options *o, bool *parent, struct err *e);

/* How many ranks the options ask to start; 0: none. E_USAGE; E_DEVICE: all, and there is no GPU. */
int ranks_asked(const struct ranks_options *o, struct err *e);

C_END
#endif
