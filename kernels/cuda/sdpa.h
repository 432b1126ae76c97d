/* kernels/cuda/sdpa.h - causal attention of equal segments through cuDNN, by plans. */
#ifndef KERNELS_CUDA_SDPA_H
#define KERNELS_CUDA_SDPA_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * b segments of s rows of queries and as many of keys, or (keys, at least s; 0: s) more, of which the
 * last query sees all; hq query and hkv key/value heads of d channels; strides in elements,
 * {segment, head, row}; q, o, d_o, dq share one set, k, v, dk, dv another. lse float32 with its
 * own. Any strides: nothing is copied. The backward wants scratch: sum, float32 b * hq * s, and
 * (unless det) acc, float32 b * hq * s * d. A det backward gives equal bits run after run, for a
 * workspace of b * hq * s * s * 2 bytes.
 */
struct sdpa_shape {
    bool back, det;
    int64_t b, hq, hkv, s, d;
    int64_t q[3], kv[3], lse[3];
    float scale;
    int64_t keys;
};
struct sdpa_args {
    const void *q, *k, *v, *d_o;
    void *o, *lse, *dq, *dk, *dv, *acc, *sum, *workspace;
};

struct sdpa;
struct sdpa_plan;

/* Finds the library: path, or libcudnn.so.9 where path is NULL. E_DEVICE says why there is none:
 * absent, older than 9.11, 9.14.0 (whose results are wrong), no GPU. device_json NULL: for the
 * current GPU, work goes to stream; else for the GPU described, only to plan. */
int sdpa_open(struct sdpa **s, const char *path, void *stream, const char *device_json,
              struct err *e);
void sdpa_close(struct sdpa *s);
int64_t sdpa_version(const struct sdpa *s); /* 91900 is 9.19.0 */

/* The plan of a shape, built the first time (0.5 to 3 s) and kept until SDPA_PLANS others were used
 * since. E_DEVICE: cuDNN does not take it; that too is remembered. */
enum { SDPA_PLANS = 256 };
int sdpa_plan(struct sdpa *s, const struct sdpa_shape *shape, const struct sdpa_plan **p,
              struct err *e);
size_t sdpa_workspace(const struct sdpa_plan *p);
int sdpa_run(struct sdpa *s, const struct sdpa_plan *p, const struct sdpa_args *a, struct err *e);

C_END
#endif
