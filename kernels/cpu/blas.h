/* kernels/cpu/blas.h - the matrix library, loaded at run time. */
#ifndef KERNELS_CPU_BLAS_H
#define KERNELS_CPU_BLAS_H
#include "base/err.h"
#include <stdbool.h>
C_BEGIN

/* CBLAS's row-major sgemm: C[m][n] = alpha op(A) op(B) + beta C; beta == 0 never reads C. */
enum { BLAS_ROW_MAJOR = 101, BLAS_PLAIN = 111, BLAS_TRANS = 112 };
typedef void blas_sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k,
                           float alpha, const float *a, int lda, const float *b, int ldb,
                           float beta, float *c, int ldc);

struct blas {
    blas_sgemm_fn *sgemm; /* single-threaded; safe to call from many threads at once */
    void *lib;            /* NULL for the built-in one */
    bool openblas;
    void *(*buffer)(int);       /* OpenBLAS's own, of a thread; NULL where the library does not show them */
    void (*give_back)(void *);
    char name[120];       /* for people: library, kernels chosen */
};

/*
 * LONGLORA_BLAS: unset = libopenblas.so.0 and its like, "builtin" = our own, else the path or
 * name of a CBLAS library. One thread a call is asked of the library: the device does the
 * sharing out. On x86-64 OpenBLAS is told which kernels to use (OPENBLAS_CORETYPE, unless the
 * user set it), because its older versions take an unknown processor for one from 2004 and
 * run at a quarter of the speed. Any threads may open at once. The environment is changed while a library
 * is loaded, so the first call comes before other threads use it; later ones only read it.
 * E_SYS when none can be loaded, with the remedies.
 * The library stays loaded for the life of the process.
 */
int blas_open(struct blas *b, struct err *e);

/* Takes what OpenBLAS needs for each thread that calls it, 128 MiB of addresses, if there is room: without
 * it asks for them again and again, for ever. E_SYS, with the remedies. */
int blas_room(const struct blas *b, int threads, struct err *e);

/* Our own: packed blocks and a register tile. Two thirds of OpenBLAS's speed with
 * AVX-512 (LONGLORA_BLAS=builtin bench_ops 1 g). */
blas_sgemm_fn sgemm_builtin;

C_END
#endif
