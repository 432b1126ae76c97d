/* kernels/cuda/dropout.cu - elements left out by their numbers. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

/* base/perm.h, of which no header is meant for kernels */
static __device__ __forceinline__ uint64_t mixed(uint64_t z)
{
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

/* V elements whose first has a number that V divides: a hash is for four of them. */
template <int V>
static __global__ void dropout(int64_t n, int64_t first, uint64_t seed, uint32_t drop, const bf16 *x,
                               bf16 *y)
{
    const float scale = 65536.0f / (float)(65536 - drop);
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        uint64_t k = (uint64_t)(first + i), bits = 0;
        float f[V];
        load_v<V>(x + i, f);
#pragma unroll
        for (int j = 0; j < V; j++) {
            if (j % 4 == 0)
                bits = mixed(seed ^ (k + j) / 4);
            f[j] = (uint32_t)(bits >> (16 * ((k + j) % 4)) & 0xFFFF) >= drop ? f[j] * scale : 0.0f;
        }
        store_v<V>(y + i, f);
    }
}

extern "C" int cuda_dropout(struct device *d, const struct op_dropout *a)
{
    struct cuda *c = cuda_of(d);
    const bf16 *x = (const bf16 *)a->x;
    bf16 *y = (bf16 *)a->y;
    int64_t main = aligned16(x) && aligned16(y) && a->first % 8 == 0 ? a->n / 8 * 8 : 0;

    if (a->n <= 0)
        return a->n < 0 ? E_BUG : 0;
    cuda_begin(c, OP_dropout);
    if (main)
        dropout<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(
            main, a->first, a->seed, a->drop, x, y);
    if (main < a->n)
        dropout<1><<<cuda_blocks(c, a->n - main, THREADS), THREADS, 0, c->stream>>>(
            a->n - main, a->first + main, a->seed, a->drop, x + main, y + main);
    return cuda_end(d, 0, OP_dropout, 0);
}
