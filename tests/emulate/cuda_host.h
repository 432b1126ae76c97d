/* tests/emulate/cuda_host.h - what files of kernels/cuda that have no kernels need of CUDA, without a
 * GPU; what has no body here the test gives one. */
#ifndef TESTS_EMULATE_CUDA_HOST_H
#define TESTS_EMULATE_CUDA_HOST_H
#include <stddef.h>
#include <string.h>

typedef int cudaError_t;
typedef void *cudaStream_t, *cudaEvent_t;
struct cudaDeviceProp { char name[256], uuid[16]; int major, minor, multiProcessorCount; };
enum cudaDeviceAttr { cudaDevAttrClockRate, cudaDevAttrMemoryClockRate,
                      cudaDevAttrGlobalMemoryBusWidth };
enum { cudaMemcpyHostToDevice = 1 };
enum { cudaSuccess = 0, cudaErrorNotReady = 600, cudaErrorLaunchTimeout = 702 };
/* cuda_links.c: the test's own. */
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
cudaError_t cudaMemset(void *p, int value, size_t n);
cudaError_t cudaMemset2DAsync(void *p, size_t ld, int value, size_t n, size_t rows, cudaStream_t s);
cudaError_t cudaDeviceSynchronize(void);
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, int kind,
                                          cudaStream_t s)
{
    (void)kind, (void)s;
    memcpy(to, from, n);
    return 0;
}
cudaError_t cudaGetLastError(void);
static inline cudaError_t cudaStreamSynchronize(cudaStream_t s) { return s ? 1 : 0; }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int index);
cudaError_t cudaDeviceGetPCIBusId(char *bus, int cap, int index);
cudaError_t cudaMemGetInfo(size_t *left, size_t *all);
cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
#endif
