/* tests/gpu/gputest.h - the CPU device as oracle beside CUDA devices, arrays on both. */
#ifndef TESTS_GPU_GPUTEST_H
#define TESTS_GPU_GPUTEST_H
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

#include <math.h>

#ifndef GPU_NAME
#define GPU_NAME "cuda"
#endif
/* As opened by default; with attention of our own; deterministic. */
enum { DEFAULT, OWN, DET, GPUS };
static struct device cpu, gpu[GPUS];
static bool have_gpu;

/* Under a sanitizer: the fewest and smallest shapes that touch every kernel. */
static inline bool small(void) { return getenv("LONGLORA_GPU_SMALL") != NULL; }

static inline int open_all(void **state)
{
    struct err e = { 0 };

    (void)state;
    if (device_open(&cpu, &(struct device_options){ .name = "cpu" }, &e) < 0) {
        setenv("LONGLORA_BLAS", "builtin", 1);
        if (device_open(&cpu, &(struct device_options){ .name = "cpu" }, &e) < 0)
            return fprintf(stderr, "# %s\n", e.msg), -1;
    }
    for (int i = 0; i < GPUS; i++) {
        const char *was = getenv("LONGLORA_CUDNN");
        char *keep = was ? strdup(was) : NULL;
        int rc;
        if (i == OWN)
            setenv("LONGLORA_CUDNN", "none", 1);
        if (i == DET)
            setenv("LONGLORA_DETERMINISTIC", "1", 1);
        rc = device_open(&gpu[i], &(struct device_options){ .name = GPU_NAME }, &e);
        if (i == OWN && keep)
            setenv("LONGLORA_CUDNN", keep, 1);
        else if (i == OWN)
            unsetenv("LONGLORA_CUDNN");
        unsetenv("LONGLORA_DETERMINISTIC");
        free(keep);
        if (rc < 0) {
            fprintf(stderr, "# no GPU, skipped: %s\n", e.msg);
            return 0;
        }
        printf("# device %d: %s\n", i, gpu[i].detail);
    }
    have_gpu = true;
    return 0;
}

static inline int close_all(void **state)
{
    (void)state;
    for (int i = 0; have_gpu && i < GPUS; i++)
        gpu[i].close(&gpu[i]);
    cpu.close(&cpu);
    return 0;
}

#define NEED_GPU() do { (void)state; if (!have_gpu) skip(); } while (0)
#define RUN(x) assert_int_equal(x, 0)

/* n normal numbers times scale that bfloat16 holds exactly, so that both devices read the same. */
static inline float *normal(int64_t n, uint64_t seed, double scale)
{
    float *x = malloc((size_t)n * sizeof *x);
    uint16_t *h = malloc((size_t)n * sizeof *h);

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(scale * normal_at(seed, (uint64_t)i));
    cpu.cast(&cpu, &(struct op_cast){ n, x, DT_F32, h, DT_BF16 });
    cpu.cast(&cpu, &(struct op_cast){ n, h, DT_BF16, x, DT_F32 });
    free(h);
    return x;
}

static inline float *copy_of(const float *x, int64_t n)
{
    float *y = malloc((size_t)n * sizeof *y);

    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

/* A new array on the device with x's values; x NULL: all NaN, to be overwritten. */
static inline void *up(struct device *d, const float *x, int64_t n, enum dtype t)
{
    struct err e = { 0 };
    size_t bytes = (size_t)n * dtype_bytes(t);
    void *p, *h = malloc(bytes);

    if (d->alloc(d, bytes, &p, &e) < 0)
        fail_msg("%s", e.msg);
    if (x)
        cpu.cast(&cpu, &(struct op_cast){ n, x, DT_F32, h, t });
    else
        memset(h, 0xff, bytes);
    RUN(d->to_device(d, p, h, bytes));
    free(h);
    return p;
}

static inline void *up_ids(struct device *d, const int32_t *x, int64_t n)
{
    struct err e = { 0 };
    void *p;

    RUN(d->alloc(d, (size_t)n * 4, &p, &e));
    RUN(d->to_device(d, p, x, (size_t)n * 4));
    return p;
}

/* The array's values on the host; releases it. */
static inline float *down(struct device *d, void *p, int64_t n, enum dtype t)
{
    struct err e = { 0 };
    float *x = malloc((size_t)n * sizeof *x);
    void *h = malloc((size_t)n * dtype_bytes(t));
    int rc = d->to_host(d, h, p, (size_t)n * dtype_bytes(t));

    if (rc < 0 || d->sync(d, &e) < 0)
        fail_msg("%s", e.msg);
    cpu.cast(&cpu, &(struct op_cast){ n, h, t, x, DT_F32 });
    d->release(d, p);
    free(h);
    return x;
}

/* ||got - want|| <= tol ||want||, and no element off by more than 8 tol of the largest; both
 * sides of numbers about 1, so that what ought to be zero may be a hundredth of tol. */
static inline void near(const char *what, const float *got, const float *want, int64_t n, double tol)
{
    double off = 0, norm = 1e-4 * (double)n, worst = 0, most = 0.01;
    int64_t at = 0;

    for (int64_t i = 0; i < n; i++) {
        bool same = got[i] == want[i]; /* two infinities too */
        double x = same ? 0 : fabs((double)got[i] - (double)want[i]);
        double w = isinf(want[i]) ? 0 : fabs((double)want[i]);
        if (!(x <= worst)) {
            worst = isnan(x) ? INFINITY : x;
            at = i;
        }
        off += x * x;
        norm += w * w;
        most = w > most ? w : most;
    }
    if (!(sqrt(off) <= tol * sqrt(norm)) || !(worst <= 8 * tol * most))
        fail_msg("%s: off by %.3g of the norm (bound %.3g); worst at %lld of %lld: %.9g, should be "
                 "%.9g, largest %.3g", what, sqrt(off / norm), tol, (long long)at,
                 (long long)n, (double)got[at], (double)want[at], most);
}

static inline void same_bits(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: number %lld of %lld is %.9g and %.9g", what, (long long)i, (long long)n,
                     (double)a[i], (double)b[i]);
}
#endif
