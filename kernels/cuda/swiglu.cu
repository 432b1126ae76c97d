/* kernels/cuda/swiglu.cu - the gate of the MLP, forward and backward. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

template <int V>
static __global__ void forward(int64_t n, const bf16 *gate, const bf16 *up, bf16 *y)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        float g[V], u[V];
        load_v<V>(gate + i, g);
        load_v<V>(up + i, u);
#pragma unroll
        for (int j = 0; j < V; j++)
            g[j] = g[j] / (1.0f + __expf(-g[j])) * u[j];
        store_v<V>(y + i, g);
    }
}

template <int V>
static __global__ void backward(int64_t n, const bf16 *gate, const bf16 *up, const bf16 *dy,
                                bf16 *d_gate, bf16 *d_up, bf16 *y)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        float g[V], u[V], e[V], v[V];
        load_v<V>(gate + i, g);
        load_v<V>(up + i, u);
        load_v<V>(dy + i, e);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float s = 1.0f / (1.0f + __expf(-g[j]));
            float dg = e[j] * u[j] * (s + g[j] * s * (1.0f - s));
            v[j] = g[j] * s * u[j];
            u[j] = e[j] * g[j] * s;
            g[j] = dg;
        }
        if (y)
            store_v<V>(y + i, v);
        store_v<V>(d_gate + i, g);
        store_v<V>(d_up + i, u);
    }
}

extern "C" int cuda_swiglu(struct device *d, const struct op_swiglu *a)
{
    struct cuda *c = cuda_of(d);
    const bf16 *g = (const bf16 *)a->gate, *u = (const bf16 *)a->up;
    bf16 *y = (bf16 *)a->y;
    int64_t main = aligned16(g) && aligned16(u) && aligned16(y) ? a->n / 8 * 8 : 0;

    if (a->n <= 0)
        return a->n < 0 ? E_BUG : 0;
    cuda_begin(c, OP_swiglu);
    if (main)
        forward<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(main, g, u, y);
    if (main < a->n)
        forward<1><<<cuda_blocks(c, a->n - main, THREADS), THREADS, 0, c->stream>>>(
            a->n - main, g + main, u + main, y + main);
    return cuda_end(d, 0, OP_swiglu, 0);
}

extern "C" int cuda_swiglu_back(struct device *d, const struct op_swiglu_back *a)
{
    struct cuda *c = cuda_of(d);
    const bf16 *g = (const bf16 *)a->gate, *u = (const bf16 *)a->up, *dy = (const bf16 *)a->dy;
    bf16 *dg = (bf16 *)a->d_gate, *du = (bf16 *)a->d_up, *y = (bf16 *)a->y;
    bool aligned = aligned16(g) && aligned16(u) && aligned16(dy) && aligned16(dg) &&
                   aligned16(du) && aligned16(y);
    int64_t main = aligned ? a->n / 8 * 8 : 0;

    if (a->n <= 0)
        return a->n < 0 ? E_BUG : 0;
    cuda_begin(c, OP_swiglu_back);
    if (main)
        backward<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(main, g, u, dy,
                                                                                  dg, du, y);
    if (main < a->n)
        backward<1><<<cuda_blocks(c, a->n - main, THREADS), THREADS, 0, c->stream>>>(
            a->n - main, g + main, u + main, dy + main, dg + main, du + main,
            y ? y + main : NULL);
    return cuda_end(d, 0, OP_swiglu_back, 0);
}
