/* kernels/cuda/swiglu.cu - the gate of the MLP, forward and backward. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

enum { THREADS = 256 };

template <int V>
static __global__ void forward(int64_t n, const bf16 *gate, const bf16 *up, bf16 *y)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    chain_next();
    chain_wait();
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

/* f(z) and its slope, of any f; see kernels.h. */
static __device__ __forceinline__ float value(enum gate f, float z, float *slope)
{
    const float a = 0.79788456080286536f; /* sqrt(2 / pi) */
    float p, t;

    if (f == GATE_GELU) {
        p = 0.5f * (1.0f + erff(0.70710678118654752f * z));
        *slope = p + z * 0.39894228040143268f * expf(-0.5f * z * z);
        return z * p;
    }
    if (f == GATE_GELU_TANH) {
        t = tanhf(a * (z + 0.044715f * z * z * z));
        *slope = 0.5f * (1.0f + t) + 0.5f * z * (1.0f - t * t) * a * (1.0f + 3.0f * 0.044715f * z * z);
        return 0.5f * z * (1.0f + t);
    }
    p = 1.0f / (1.0f + __expf(-z));
    *slope = p * (1.0f + z * (1.0f - p));
    return z * p;
}

/* Any f, gated or not (up NULL). */
template <int V> static __global__ void forward_any(struct op_swiglu a, int64_t from)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    chain_next();
    chain_wait();
    for (int64_t i = from + ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < a.n; i += step) {
        float g[V], u[V], unused;
        load_v<V>((const bf16 *)a.gate + i, g);
        if (a.up)
            load_v<V>((const bf16 *)a.up + i, u);
#pragma unroll
        for (int j = 0; j < V; j++)
            g[j] = value(a.f, g[j], &unused) * (a.up ? u[j] : 1.0f);
        store_v<V>((bf16 *)a.y + i, g);
    }
}

template <int V> static __global__ void backward_any(struct op_swiglu_back a, int64_t from)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    for (int64_t i = from + ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < a.n; i += step) {
        float g[V], u[V], e[V], v[V];
        load_v<V>((const bf16 *)a.gate + i, g);
        load_v<V>((const bf16 *)a.dy + i, e);
        if (a.up)
            load_v<V>((const bf16 *)a.up + i, u);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float slope, f = value(a.f, g[j], &slope), by = a.up ? u[j] : 1.0f;
            v[j] = f * by;
            g[j] = e[j] * by * slope;
            u[j] = e[j] * f;
        }
        if (a.y)
            store_v<V>((bf16 *)a.y + i, v);
        store_v<V>((bf16 *)a.d_gate + i, g);
        if (a.up)
            store_v<V>((bf16 *)a.d_up + i, u);
    }
}

/* In eights, and what is left over singly. */
static void run_forward(struct cuda *c, struct op_swiglu a)
{
    int64_t n = a.n, main = aligned16(a.gate) && aligned16(a.up) && aligned16(a.y) ? n / 8 * 8 : 0;

    a.n = main;
    if (main)
        chain_launch(c, forward_any<8>, cuda_blocks(c, main, THREADS * 8), THREADS, a, (int64_t)0);
    a.n = n;
    if (main < n)
        chain_launch(c, forward_any<1>, cuda_blocks(c, n - main, THREADS), THREADS, a, main);
}

static void run_backward(struct cuda *c, struct op_swiglu_back a)
{
    bool aligned = aligned16(a.gate) && aligned16(a.up) && aligned16(a.dy) && aligned16(a.d_gate) &&
                   aligned16(a.d_up) && aligned16(a.y);
    int64_t n = a.n, main = aligned ? n / 8 * 8 : 0;

    a.n = main;
    if (main)
        backward_any<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(a, 0);
    a.n = n;
    if (main < n)
        backward_any<1><<<cuda_blocks(c, n - main, THREADS), THREADS, 0, c->stream>>>(a, main);
}

extern "C" int cuda_swiglu(struct device *d, const struct op_swiglu *a)
{
    struct cuda *c = cuda_of(d);
    const bf16 *g = (const bf16 *)a->gate, *u = (const bf16 *)a->up;
    bf16 *y = (bf16 *)a->y;
    int64_t main = aligned16(g) && aligned16(u) && aligned16(y) ? a->n / 8 * 8 : 0;

    if (a->n <= 0)
        return a->n < 0 ? E_BUG : 0;
    cuda_begin_rows(c, OP_swiglu, ceil_div(a->n, ROW_MOST));
    if (a->f != GATE_SILU || !u) {
        run_forward(c, *a);
        return cuda_end(d, 0, OP_swiglu, 0);
    }
    if (main)
        chain_launch(c, forward<8>, cuda_blocks(c, main, THREADS * 8), THREADS, main, g, u, y);
    if (main < a->n)
        chain_launch(c, forward<1>, cuda_blocks(c, a->n - main, THREADS), THREADS, a->n - main, g + main, u + main,
                     y + main);
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
    if (a->f != GATE_SILU || !u) {
        run_backward(c, *a);
        return cuda_end(d, 0, OP_swiglu_back, 0);
    }
    if (main)
        backward<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(main, g, u, dy,
                                                                                  dg, du, y);
    if (main < a->n)
        backward<1><<<cuda_blocks(c, a->n - main, THREADS), THREADS, 0, c->stream>>>(
            a->n - main, g + main, u + main, dy + main, dg + main, du + main,
            y ? y + main : NULL);
    return cuda_end(d, 0, OP_swiglu_back, 0);
}
