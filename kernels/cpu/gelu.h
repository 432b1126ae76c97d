/* kernels/cpu/gelu.h - ranges of op_swiglu with any f, gated or not, for cpu_swiglu.c. */
#ifndef KERNELS_CPU_GELU_H
#define KERNELS_CPU_GELU_H
#include <stdint.h>

void gelu_forward(const void *op, int64_t lo, int64_t hi);
void gelu_back(const void *op, int64_t lo, int64_t hi);

#endif
