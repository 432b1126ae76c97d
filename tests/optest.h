/* tests/optest.h - devices, random arrays and comparisons for the tests of ops. */
#ifndef TESTS_OPTEST_H
#define TESTS_OPTEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/perm.h"
#include "kernels/kernels.h"
#include "tests/refops.h"

/* 1, 2 and 3 threads, whose bits must agree, and the built-in matrix product. Where no BLAS
 * can be loaded all four are built-in. */
enum { DEVICES = 4, BUILTIN = 3 };
static struct device dev[DEVICES];

static inline int open_devices(void **state)
{
    struct err e = { 0 };

    (void)state;
    for (int i = 0; i < DEVICES; i++) {
        if (i == BUILTIN)
            setenv("LONGLORA_BLAS", "builtin", 1);
        if (device_open(&dev[i],
                &(struct device_options){ .name = "cpu", .threads = i == BUILTIN ? 2 : i + 1 },
                &e) < 0) {
            fprintf(stderr, "# %s\n", e.msg);
            return -1;
        }
    }
    unsetenv("LONGLORA_BLAS");
    return 0;
}

static inline int close_devices(void **state)
{
    (void)state;
    for (int i = 0; i < DEVICES; i++)
        dev[i].close(&dev[i]);
    return 0;
}

/* n standard normal numbers in a block of exactly that size, so that ASan sees its end. */
static inline float *normal(int64_t n, uint64_t seed)
{
    float *x = n < 0 ? NULL : malloc((size_t)n * sizeof *x);

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)normal_at(seed, (uint64_t)i);
    return x;
}

static inline float *copy_of(const float *x, int64_t n)
{
    float *y = malloc((size_t)n * sizeof *y);

    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

static inline double *wide(const float *x, int64_t n)
{
    double *y = malloc((size_t)n * sizeof *y);

    for (int64_t i = 0; i < n; i++)
        y[i] = (double)x[i];
    return y;
}

static inline double *zeros(int64_t n)
{
    return n > 0 ? calloc((size_t)n, sizeof(double)) : NULL;
}

/* Every difference is at most tol times the largest value wanted, or 0.1 where all are less. */
static inline void assert_near(const char *what, const float *got, const double *want,
                               int64_t n, double tol)
{
    double most = 0.1;

    for (int64_t i = 0; i < n; i++)
        most = fabs(want[i]) > most && isfinite(want[i]) ? fabs(want[i]) : most;
    for (int64_t i = 0; i < n; i++)
        if (!((double)got[i] == want[i] || fabs((double)got[i] - want[i]) <= tol * most))
            fail_msg("%s[%lld] is %.9g, should be %.9g (largest %.3g)", what, (long long)i,
                     (double)got[i], want[i], most);
}

static inline void assert_same_bits(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: number %lld is %.9g and %.9g", what, (long long)i, (double)a[i],
                     (double)b[i]);
}

/* Computes one case on a device; out is filled with 7s before, and holds all results. */
typedef void case_fn(struct device *d, const void *ctx, float *out);

/* The case on every device: equal bits for 1, 2, 3 threads, near for the built-in product.
 * Returns the results (the caller frees). */
static inline float *on_all_devices(const char *what, case_fn *fn, const void *ctx, int64_t n)
{
    float *out[DEVICES];

    for (int i = 0; i < DEVICES; i++) {
        out[i] = malloc((size_t)n * sizeof(float));
        for (int64_t j = 0; j < n; j++)
            out[i][j] = 7;
        fn(&dev[i], ctx, out[i]);
    }
    assert_same_bits(what, out[0], out[1], n);
    assert_same_bits(what, out[0], out[2], n);
    double *want = wide(out[0], n);
    assert_near(what, out[BUILTIN], want, n, 1e-5);
    free(want);
    for (int i = 1; i < DEVICES; i++)
        free(out[i]);
    return out[0];
}

/* The gradient that a reference gives against central differences of its own forward. */
typedef double scalar_fn(void *ctx);
static inline void assert_gradient(const char *what, scalar_fn *f, void *ctx, double *x,
                                   const double *grad, int64_t n)
{
    double most = 1e-30;

    for (int64_t i = 0; i < n; i++)
        most = fabs(grad[i]) > most ? fabs(grad[i]) : most;
    for (int64_t i = 0; i < n; i++) {
        double old = x[i], h = 1e-5, up, down;
        x[i] = old + h;
        up = f(ctx);
        x[i] = old - h;
        down = f(ctx);
        x[i] = old;
        if (!(fabs((up - down) / (2 * h) - grad[i]) <= 1e-7 * most))
            fail_msg("%s: derivative %lld is %.12g, differences give %.12g", what, (long long)i,
                     grad[i], (up - down) / (2 * h));
    }
}
#endif
