/* base/must.h - memory that is there, or the end of the process: for libraries that do not look. */
#ifndef BASE_MUST_H
#define BASE_MUST_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
C_BEGIN

/*
 * Some libraries go on after a failed malloc: JSON loses a key, a file that is good looks
 * damaged. Where such a library takes an allocator it gets this one. Without memory the process
 * says "out of memory" and ends with 71 (E_SYS) at that place, as if it had been killed: what
 * was not published yet never is. Small things of our own that nobody could do without come
 * from here too; whatever grows with the input is asked of malloc, and its failure passed up.
 */
void *must_malloc(size_t nbytes);
void *must_calloc(size_t n, size_t each);
char *must_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* free it */
/* The end that these come to; for libraries that take a function instead of an allocator. */
void must_fail(void) __attribute__((noreturn));
/* Prints "program: abc" and a line end (a NULL: nothing), removes what is temporary, and ends with
 * -code. Allocates nothing itself: a signal handler may call it. */
void must_end(int code, const char *a, const char *b, const char *c) __attribute__((noreturn));

/* For a tool's beginning: its name, and jansson asks must_malloc from here on. opt_parse calls
 * it. From here on, too, a library that ends the process itself, as libarchive and libgfortran
 * do without memory, ends it with 71; cmd_exit calls must_leave before main returns. */
void must_begin(const char *program);
void must_leave(void);
/* fn removes what is temporary before the end; may run in any thread. NULL: nothing to do. */
void must_end_with(void (*fn)(void));
/* fn is told first how the process ends (must_end's arguments), and says whether it is to be
 * printed here. It must do with what a signal handler may do. NULL: nobody is told. */
void must_tell_with(bool (*fn)(int code, const char *a, const char *b, const char *c));

C_END
#endif
