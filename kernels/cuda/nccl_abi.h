/* kernels/cuda/nccl_abi.h - the part of NCCL's interface that links between GPUs use. */
#ifndef KERNELS_CUDA_NCCL_ABI_H
#define KERNELS_CUDA_NCCL_ABI_H
#include <cuda_runtime.h>
#include <stddef.h>

/* The library is found at run time, so that neither its header nor it is needed to build.
 * Numbers and layout are those of its binary interface since 2.14, which brought communicators
 * that do not block. */
enum { NCCL_OK = 0, NCCL_IN_PROGRESS = 7, NCCL_BYTE = 0, NCCL_F32 = 7, NCCL_SUM = 0, NCCL_OLDEST = 21400 };

struct nccl_id { char bytes[128]; };

struct nccl_config {
    size_t size;
    unsigned magic, version; /* of this layout; a newer library fills in what it lacks */
    int blocking;
};
#define NCCL_MAGIC 0xcafebeefu

struct nccl {
    int (*version)(int *v);
    int (*unique_id)(struct nccl_id *id);
    int (*init)(void **comm, int size, struct nccl_id id, int rank, struct nccl_config *c);
    int (*async_error)(void *comm, int *status);
    int (*abort)(void *comm);
    const char *(*error_string)(int status);
    const char *(*last_error)(void *comm);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, void *comm,
                      cudaStream_t s);
    int (*reduce_scatter)(const void *from, void *to, size_t part, int type, int op, void *comm,
                          cudaStream_t s);
    int (*all_gather)(const void *from, void *to, size_t part, int type, void *comm,
                      cudaStream_t s);
    int (*send)(const void *from, size_t n, int type, int rank, void *comm, cudaStream_t s);
    int (*receive)(void *to, size_t n, int type, int rank, void *comm, cudaStream_t s);
    int (*begin)(void); /* of calls that are one: none of them waits for another */
    int (*end)(void);
};
#endif
