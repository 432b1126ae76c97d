/* kernels/cuda/vec.cu - adding, multiplying, converting and measuring flat arrays; the AdamW step. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

#include <math.h>
#include <stdlib.h>

enum { THREADS = 256, PIECE = 1 << 16 }; /* elements whose squares one block sums */

template <int V> static __global__ void add_kernel(int64_t n, const bf16 *x, bf16 *y)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        float a[V], b[V];
        load_v<V>(x + i, a);
        load_v<V>(y + i, b);
#pragma unroll
        for (int j = 0; j < V; j++)
            b[j] += a[j];
        store_v<V>(y + i, b);
    }
}

extern "C" int cuda_add(struct device *d, const struct op_add *a)
{
    struct cuda *c = cuda_of(d);
    const bf16 *x = (const bf16 *)a->x;
    bf16 *y = (bf16 *)a->y;
    int64_t n = a->n, main = aligned16(x) && aligned16(y) ? n / 8 * 8 : 0;

    if (n <= 0)
        return n < 0 ? E_BUG : 0;
    cuda_begin(c, OP_add);
    if (main)
        add_kernel<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(main, x, y);
    if (main < n)
        add_kernel<1><<<cuda_blocks(c, n - main, THREADS), THREADS, 0, c->stream>>>(
            n - main, x + main, y + main);
    return cuda_end(d, 0, OP_add, 0);
}

template <int V> static __global__ void scale_kernel(int64_t n, float by, bf16 *x)
{
    int64_t step = (int64_t)gridDim.x * THREADS * V;

    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        float a[V];
        load_v<V>(x + i, a);
#pragma unroll
        for (int j = 0; j < V; j++)
            a[j] *= by;
        store_v<V>(x + i, a);
    }
}

extern "C" int cuda_scale(struct device *d, const struct op_scale *a)
{
    struct cuda *c = cuda_of(d);
    bf16 *x = (bf16 *)a->x;
    int64_t n = a->n, main = aligned16(x) ? n / 8 * 8 : 0;

    if (n <= 0)
        return n < 0 ? E_BUG : 0;
    cuda_begin(c, OP_scale);
    if (main)
        scale_kernel<8><<<cuda_blocks(c, main, THREADS * 8), THREADS, 0, c->stream>>>(main, a->by, x);
    if (main < n)
        scale_kernel<1><<<cuda_blocks(c, n - main, THREADS), THREADS, 0, c->stream>>>(n - main, a->by,
                                                                                    x + main);
    return cuda_end(d, 0, OP_scale, 0);
}

static __global__ void softcap_kernel(int64_t n, float cap, float *x)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step)
        x[i] = cap * tanhf(x[i] / cap);
}

extern "C" int cuda_softcap(struct device *d, const struct op_softcap *a)
{
    struct cuda *c = cuda_of(d);

    if (a->n <= 0 || !(a->cap > 0))
        return a->n < 0 || !(a->cap > 0) ? E_BUG : 0;
    cuda_begin(c, OP_softcap);
    softcap_kernel<<<cuda_blocks(c, a->n, THREADS), THREADS, 0, c->stream>>>(a->n, a->cap, a->x);
    return cuda_end(d, 0, OP_softcap, 0);
}

/* V channels at a time of a strip's rows. */
template <int V>
static __global__ void strip_kernel(int64_t rows, int64_t cols, const bf16 *x, int64_t x_ld, bf16 *y,
                                    int64_t y_ld, bool add)
{
    int64_t n = rows * cols, step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        int64_t r = i / cols, c = i % cols * V;
        float a[V], b[V];

        load_v<V>(x + r * x_ld + c, a);
        if (add) {
            load_v<V>(y + r * y_ld + c, b);
#pragma unroll
            for (int j = 0; j < V; j++)
                a[j] += b[j];
        }
        store_v<V>(y + r * y_ld + c, a);
    }
}

extern "C" int cuda_strip(struct device *d, const struct op_strip *a)
{
    struct cuda *c = cuda_of(d);
    const bf16 *x = (const bf16 *)a->x;
    bf16 *y = (bf16 *)a->y;
    bool wide = aligned16(x) && aligned16(y) && (a->cols | a->x_ld | a->y_ld) % 8 == 0;
    int64_t cols = wide ? a->cols / 8 : a->cols, n = a->rows * cols;

    if (a->rows < 0 || a->cols < 0 || a->x_ld < a->cols || a->y_ld < a->cols)
        return E_BUG;
    if (n == 0)
        return 0;
    cuda_begin(c, OP_strip);
    if (wide)
        strip_kernel<8><<<cuda_blocks(c, n, THREADS), THREADS, 0, c->stream>>>(
            a->rows, cols, x, a->x_ld, y, a->y_ld, a->add);
    else
        strip_kernel<1><<<cuda_blocks(c, n, THREADS), THREADS, 0, c->stream>>>(
            a->rows, cols, x, a->x_ld, y, a->y_ld, a->add);
    return cuda_end(d, 0, OP_strip, 0);
}

static __device__ __forceinline__ float to_f32(float x) { return x; }
static __device__ __forceinline__ float to_f32(__half x) { return __half2float(x); }
static __device__ __forceinline__ float to_f32(bf16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ void put(float *p, float x) { *p = x; }
static __device__ __forceinline__ void put(__half *p, float x) { *p = __float2half_rn(x); }
static __device__ __forceinline__ void put(bf16 *p, float x) { *p = __float2bfloat16_rn(x); }

template <typename F, typename T> static __global__ void cast_kernel(int64_t n, const F *x, T *y)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step)
        put(y + i, to_f32(x[i]));
}

/* The refreshing of compute copies: 32 bytes in, 16 out. */
static __global__ void narrow_eights(int64_t eights, const float4 *x, uint4 *y)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < eights; i += step) {
        float4 lo = x[2 * i], hi = x[2 * i + 1];
        float v[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w };
        y[i] = pack(v);
    }
}

template <typename F> static void cast_from(struct cuda *c, int64_t n, const void *src, void *dst,
                                            enum dtype to)
{
    unsigned blocks = cuda_blocks(c, n, THREADS * 4);
    const F *x = (const F *)src;

    if (to == DT_F32)
        cast_kernel<F, float><<<blocks, THREADS, 0, c->stream>>>(n, x, (float *)dst);
    else if (to == DT_F16)
        cast_kernel<F, __half><<<blocks, THREADS, 0, c->stream>>>(n, x, (__half *)dst);
    else
        cast_kernel<F, bf16><<<blocks, THREADS, 0, c->stream>>>(n, x, (bf16 *)dst);
}

extern "C" int cuda_cast(struct device *d, const struct op_cast *a)
{
    struct cuda *c = cuda_of(d);
    const void *src = a->src;
    void *dst = a->dst;
    enum dtype from = a->from, to = a->to;
    int64_t n = a->n;
    int rc = 0;

    if (n <= 0)
        return n < 0 ? E_BUG : 0;
    cuda_begin(c, OP_cast);
    if (from == to)
        rc = cuda_check(c, cudaMemcpyAsync(dst, src, (size_t)n * dtype_bytes(to),
                                           cudaMemcpyDeviceToDevice, c->stream), "a copy");
    else if (from == DT_F32 && to == DT_BF16 && n % 8 == 0 && aligned16(src) && aligned16(dst))
        narrow_eights<<<cuda_blocks(c, n / 8, THREADS), THREADS, 0, c->stream>>>(
            n / 8, (const float4 *)src, (uint4 *)dst);
    else if (from == DT_F32)
        cast_from<float>(c, n, src, dst, to);
    else if (from == DT_F16)
        cast_from<__half>(c, n, src, dst, to);
    else
        cast_from<bf16>(c, n, src, dst, to);
    return cuda_end(d, rc, OP_cast, 0);
}

/* The block's sum of float64, in an order that the number of threads fixes. */
static __device__ double block_sum64(double x)
{
    __shared__ double part[THREADS];

    part[threadIdx.x] = x;
    __syncthreads();
    for (int s = THREADS / 2; s; s >>= 1) {
        if (threadIdx.x < (unsigned)s)
            part[threadIdx.x] += part[threadIdx.x + s];
        __syncthreads();
    }
    return part[0];
}

static __global__ void squares(int64_t n, const float *x, double *partial)
{
    int64_t from = (int64_t)blockIdx.x * PIECE, to = from + PIECE < n ? from + PIECE : n;
    double s = 0;

    for (int64_t i = from + threadIdx.x; i < to; i += THREADS)
        s += (double)x[i] * (double)x[i];
    s = block_sum64(s);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = s;
}

static __global__ void total(int64_t parts, const double *partial, double *sum)
{
    double s = 0;

    for (int64_t i = threadIdx.x; i < parts; i += THREADS)
        s += partial[i];
    s = block_sum64(s);
    if (threadIdx.x == 0)
        *sum = s;
}

extern "C" int cuda_sum_squares(struct device *d, const struct op_sum_squares *a)
{
    struct cuda *c = cuda_of(d);
    int64_t n = a->n, parts = ceil_div(n, PIECE);
    double *partial;
    int rc;

    *a->sum = 0;
    if (n <= 0)
        return n < 0 ? E_BUG : 0;
    if (!(partial = (double *)cuda_scratch(c, SCRATCH_PARTIAL, (size_t)(parts + 1) * sizeof(double))))
        return E_DEVICE;
    cuda_begin(c, OP_sum_squares);
    squares<<<(unsigned)parts, THREADS, 0, c->stream>>>(n, a->x, partial + 1);
    total<<<1, THREADS, 0, c->stream>>>(parts, partial + 1, partial);
    rc = cuda_end(d, 0, OP_sum_squares, 0);
    return rc ? rc : d->to_host(d, a->sum, partial, sizeof *a->sum);
}

struct adam {
    float lr, beta1, beta2, eps, decay, scale, fix1, fix2; /* fix: 1 / (1 - beta^step) */
};

static __global__ void adamw_kernel(int64_t n, struct adam r, float *w, float *m, float *v,
                                    const float *grad)
{
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        float g = grad[i] * r.scale;
        float m1 = r.beta1 * m[i] + (1.0f - r.beta1) * g;
        float v1 = r.beta2 * v[i] + (1.0f - r.beta2) * g * g;

        m[i] = m1;
        v[i] = v1;
        w[i] -= r.lr * (m1 * r.fix1 / (sqrtf(v1 * r.fix2) + r.eps) + r.decay * w[i]);
    }
}

extern "C" int cuda_adamw(struct device *d, const struct op_adamw *a)
{
    struct cuda *c = cuda_of(d);
    struct adam r;

    if (a->n <= 0 || a->step < 1)
        return a->n < 0 || a->step < 1 ? E_BUG : 0;
    r.lr = a->lr, r.beta1 = a->beta1, r.beta2 = a->beta2, r.eps = a->eps, r.decay = a->decay;
    r.scale = a->grad_scale;
    r.fix1 = (float)(1.0 / (1.0 - pow((double)a->beta1, (double)a->step)));
    r.fix2 = (float)(1.0 / (1.0 - pow((double)a->beta2, (double)a->step)));
    cuda_begin(c, OP_adamw);
    adamw_kernel<<<cuda_blocks(c, a->n, THREADS * 4), THREADS, 0, c->stream>>>(a->n, r, a->w, a->m,
                                                                               a->v, a->grad);
    return cuda_end(d, 0, OP_adamw, 0);
}
