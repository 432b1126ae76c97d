/* tests/benchrow.h - the table of 'make bench-data': each benchmark prints its own lines of it. */
#ifndef TESTS_BENCHROW_H
#define TESTS_BENCHROW_H
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* With BENCH_TABLE set a benchmark prints lines of the table and nothing else. */
static inline bool bench_table(void) { return getenv("BENCH_TABLE") != NULL; }

/* The folder of real data, or NULL. */
static inline const char *bench_data(void)
{
    const char *data = getenv("LONGLORA_DATA");

    return data && *data ? data : NULL;
}

/* Processor time of this thread: what others take of the core does not count. */
static inline double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One line: what was measured here and beside it, in words of their own ("279 MB/s"), and the
 * figure that must reach 'must' and aims at 'aim' (0: at nothing), both in unit ("x", " MB/s").
 * at_most: the figure must not be above them instead. */
static inline void bench_row(const char *what, const char *ours, const char *peer, double got,
                             double must, double aim, const char *unit, bool at_most)
{
    double sign = at_most ? -1 : 1;
    bool met = sign * got >= sign * must, aimed = aim > 0 && sign * got >= sign * aim;
    char word[3][32];

    for (int i = 0; i < 3; i++) {
        double v = i == 0 ? got : i == 1 ? must : aim;
        snprintf(word[i], sizeof word[i], "%.*f%s", v == 0 || v >= 10 ? 0 : v < 0.1 ? 4 : 2, v, unit);
    }
    if (aim == 0)
        strcpy(word[2], "-");
    printf("%-44s %-14s %-16s %11s %10s %10s  %s\n", what, ours, peer, word[0], word[1], word[2],
           !met ? "NOT MET" : aimed ? "ok, and the aim" : "ok");
    fflush(stdout);
}
/* A line for what cannot be measured on this machine. */
static inline void bench_absent(const char *what, const char *why)
{
    printf("%-44s not here: %s\n", what, why);
}
#endif
