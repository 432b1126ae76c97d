/* base/err.h - error codes and the struct that carries one failure upward. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#ifdef __cplusplus
#define C_BEGIN extern "C" {
#define C_END }
#else
#define C_BEGIN
#define C_END
#endif

#include <stdbool.h>
C_BEGIN

/* 0 is success. A failure is the negative of the exit status it ends in (sysexits.h). */
enum {
    E_NO = -1,       /* a check said no: verification failed, values differ */
    E_USAGE = -64,   /* the command line */
    E_DATA = -65,    /* bytes that are not what they should be */
    E_NOINPUT = -66, /* a file that is not there or cannot be opened */
    E_DEVICE = -69,  /* no such device, driver too old, device memory exhausted */
    E_BUG = -70,     /* our own mistake */
    E_SYS = -71,     /* the operating system: memory, threads, libraries */
    E_CREATE = -73,  /* an output that cannot be created */
    E_IO = -74,      /* reading or writing failed half-way */
    E_AGAIN = -75,   /* stopped on request, nothing of it lost: run again */
    E_CONFIG = -78   /* a model, context or combination of options that cannot work */
};

/* One failure, described once by the function that found it. Zero it before use; the caller
 * owns it. msg is lower case, without a full stop; a second line, if any, is the remedy. What
 * is formatted into either has its control characters, line ends too, made '?'. */
struct err {
    int code;
    char msg[1024];
    bool told; /* printed already, by another process: cmd_exit does not */
};

/* Fills *e (which may be NULL) and returns code, so that 'return err_set(...)' reads well. */
int err_set(struct err *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, with ": strerror(errno)" appended; the code is E_SYS where that is ENOMEM. */
int err_sys(struct err *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "context: " before the message, for what only the caller knows; returns e->code. */
int err_within(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Appends a line that names the remedy; returns e->code. */
int err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

C_END
#endif
