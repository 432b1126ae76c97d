/* tests/emulate/cuda_host.h - what kernels/cuda/cuda_attention.c needs of CUDA, without a GPU. */
#ifndef TESTS_EMULATE_CUDA_HOST_H
#define TESTS_EMULATE_CUDA_HOST_H
#include <stddef.h>
#include <string.h>

typedef int cudaError_t;
typedef void *cudaStream_t, *cudaEvent_t;
struct cudaDeviceProp { char name[256]; };
enum { cudaMemcpyHostToDevice = 1 };
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, int kind,
                                          cudaStream_t s)
{
    (void)kind, (void)s;
    memcpy(to, from, n);
    return 0;
}
static inline cudaError_t cudaGetLastError(void) { return 0; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t s) { return s ? 1 : 0; }
#endif
