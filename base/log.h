/* base/log.h - messages on standard error, and a progress line where that is a terminal. */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* What log_* print has no control characters (text_clean), and line ends only where the format
 * ends in "%s": that is a message with its remedy.
 * level: -1 quiet (warnings only), 0 normal, 1 verbose. Called once, by main. */
void log_init(const char *prog, int level);
/* This process is not the one of its run that speaks: nothing is printed, unless details are;
 * then each line says whose it is, "ltrain[3]: ". */
void log_rank(int rank);
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Replaces the progress line, at most every 100 ms, cut to the terminal's width. Nothing when stderr is not a terminal or
 * the level is quiet. log_* clear it first. log_progress_end leaves the last text standing. */
void log_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_progress_end(void);
/* The next log_progress would be shown: worth formatting. */
bool log_progress_due(void);

/* True when fd is a terminal that takes colours: NO_COLOR and TERM=dumb are heeded. */
bool log_colour(int fd);

/* Seconds on a clock that only goes forward. */
double now_s(void);
/* "1h02m", "3m20s", "12s" into buf (16 bytes are enough); returns buf. */
const char *fmt_duration(double s, char *buf, int cap);
/* "1.50 GiB", "312 MiB", "12 B" into buf (16 bytes are enough); returns buf. */
const char *fmt_bytes(double n, char *buf, int cap);

C_END
#endif
