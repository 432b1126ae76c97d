/* kernels/cuda/loss.cu - linear layer and cross-entropy in chunks of rows. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sizes.h"

enum { THREADS = 512 };

/* The largest logit and the sum of exp(x - it), gathered together over the block. */
struct soft {
    float max, sum;
};

static __device__ __forceinline__ struct soft join(struct soft a, struct soft b)
{
    struct soft s;

    s.max = fmaxf(a.max, b.max);
    s.sum = s.max == -INFINITY ? 0.0f : a.sum * __expf(a.max - s.max) + b.sum * __expf(b.max - s.max);
    return s;
}

static __device__ struct soft block_soft(struct soft s)
{
    __shared__ struct soft part[THREADS / 32];
    struct soft other;

    for (int o = 16; o; o >>= 1) {
        other.max = __shfl_xor_sync(0xffffffffu, s.max, o);
        other.sum = __shfl_xor_sync(0xffffffffu, s.sum, o);
        s = join(s, other);
    }
    if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = s;
    __syncthreads();
    s = part[0];
    for (int i = 1; i < THREADS / 32; i++)
        s = join(s, part[i]);
    return s;
}

/* What one thread adds of a row whose vocabulary is a multiple of four and at most 4 * ROW_FOURS *
 * ROW_THREADS: it stays in registers from the first look to the gradient. */
enum { ROW_THREADS = 1024, ROW_FOURS = 8 };

/* The largest, or the sum, over the block, in an order of its own. */
template <bool MAX> static __device__ __forceinline__ float over_block(float x)
{
    __shared__ float part[ROW_THREADS / 32];

    for (int o = 16; o; o >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, x, o);
        x = MAX ? fmaxf(x, other) : x + other;
    }
    if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = x;
    __syncthreads();
    x = part[threadIdx.x & 31];
    for (int o = 16; o; o >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, x, o);
        x = MAX ? fmaxf(x, other) : x + other;
    }
    return x;
}

static __global__ void __launch_bounds__(ROW_THREADS)
    score_row(int vocab, int64_t ld, const float *logits, const int32_t *targets, float scale, float *nll,
              bf16 *grad)
{
    int64_t r = blockIdx.x;
    const float4 *x = (const float4 *)(logits + r * ld);
    uint2 *to = (uint2 *)(grad + r * ld);
    int32_t target = targets[r];
    bool scored = target >= 0 && target < vocab;
    float4 v[ROW_FOURS];
    float max = -INFINITY, sum = 0, by;

#pragma unroll
    for (int k = 0; k < ROW_FOURS; k++) {
        int i = k * ROW_THREADS + (int)threadIdx.x;
        v[k] = scored && i < vocab / 4 ? x[i]
                                       : make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
        max = fmaxf(fmaxf(fmaxf(v[k].x, v[k].y), fmaxf(v[k].z, v[k].w)), max);
    }
    max = scored ? over_block<true>(max) : 0.0f;
#pragma unroll
    for (int k = 0; k < ROW_FOURS; k++) {
        v[k].x = __expf(v[k].x - max), v[k].y = __expf(v[k].y - max);
        v[k].z = __expf(v[k].z - max), v[k].w = __expf(v[k].w - max);
        sum += (v[k].x + v[k].y) + (v[k].z + v[k].w);
    }
    sum = scored ? over_block<false>(sum) : 1.0f;
    if (threadIdx.x == 0)
        nll[r] = scored ? logf(sum) + max - logits[r * ld + target] : 0.0f;
    by = scale / sum;
#pragma unroll
    for (int k = 0; k < ROW_FOURS; k++) {
        int i = k * ROW_THREADS + (int)threadIdx.x, at = target - 4 * i;
        __nv_bfloat162 half[2];
        if (!grad || i >= vocab / 4)
            continue;
        half[0] = __floats2bfloat162_rn(by * v[k].x - (at == 0 ? scale : 0.0f),
                                        by * v[k].y - (at == 1 ? scale : 0.0f));
        half[1] = __floats2bfloat162_rn(by * v[k].z - (at == 2 ? scale : 0.0f),
                                        by * v[k].w - (at == 3 ? scale : 0.0f));
        to[i] = *(const uint2 *)half;
    }
}

/* Any vocabulary. A block a row: float32 logits to nll and, where grad is given, the bf16 gradient. Where
 * there is a cap, capped logits take the place of those before it. */
static __global__ void score(int64_t vocab, int64_t ld, float *logits, const int32_t *targets,
                             float scale, float cap, float *nll, bf16 *grad)
{
    int64_t r = blockIdx.x;
    float *x = logits + r * ld;
    int32_t target = targets[r];
    struct soft s = { -INFINITY, 0.0f };

    if (target < 0 || target >= vocab) {
        if (threadIdx.x == 0)
            nll[r] = 0;
        for (int64_t i = threadIdx.x; grad && i < vocab; i += THREADS)
            grad[r * ld + i] = narrow(0.0f);
        return;
    }
    for (int64_t i = threadIdx.x; i < vocab; i += THREADS) {
        float v = x[i];
        if (cap > 0)
            x[i] = v = cap * tanhf(v / cap);
        if (v > s.max) {
            s.sum = s.sum * __expf(s.max - v) + 1.0f;
            s.max = v;
        } else {
            s.sum += __expf(v - s.max);
        }
    }
    s = block_soft(s);
    if (threadIdx.x == 0)
        nll[r] = logf(s.sum) + s.max - x[target];
    if (!grad)
        return;
    for (int64_t i = threadIdx.x; i < vocab; i += THREADS) {
        float t = cap > 0 ? x[i] / cap : 0.0f; /* the cap's slope is 1 - tanh^2 */

        grad[r * ld + i] = narrow(scale * (1.0f - t * t) * (__expf(x[i] - s.max) / s.sum -
                                                            (i == target ? 1.0f : 0.0f)));
    }
}

/* Of a chunk: float32 logits, then their bf16 gradients. */
extern "C" size_t cuda_loss_scratch_bytes(const struct device *d, int64_t chunk, int64_t vocab)
{
    (void)d;
    return cuda_loss_bytes(chunk, vocab);
}

static int product(struct device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float beta,
                   const void *a, int64_t lda, struct mat b, int64_t ldb, void *out, int64_t ldc,
                   enum dtype type, bool varies)
{
    struct op_gemm g = { ta, tb, m, n, k, 1.0f, beta, a, b, out, lda, ldb, ldc, type,
                         NULL, varies, NULL };

    return gemm_run(d, &g);
}

/* cuBLASLt is six times slower where a side of the product is no multiple of 8, so the vocabulary
 * is cut: [0, whole) and the rest, which may be all of it or nothing. */
struct part {
    int64_t at, n;
};

static struct mat rows_of(const struct op_loss *a, struct part p)
{
    struct mat m = a->w;

    m.data = (const bf16 *)a->w.data + p.at * a->dim;
    return m;
}

/* Logits of a chunk; with grad instead, dh and dw from it. The rest comes first in dh, so that what
 * is rounded before the sum is the smaller. */
static int products(struct device *d, const struct op_loss *a, int64_t n, const bf16 *h,
                    float *logits, const bf16 *grad, bf16 *dh)
{
    int64_t ld = cuda_loss_ld(a->vocab);
    int64_t whole = a->w.type->plain == DT_BF16 ? a->vocab / 8 * 8 : 0;
    struct part part[2] = { { whole, a->vocab - whole }, { 0, whole } };
    int rc = 0;

    for (int i = 0; i < 2 && rc == 0; i++) {
        struct part p = part[i];
        bool more = i == 1 && part[0].n > 0;

        if (p.n == 0)
            continue;
        if (!grad)
            rc = product(d, false, true, n, p.n, a->dim, 0, h, a->dim,
                         p.at ? rows_of(a, p) : a->w, a->dim, logits + p.at, ld, DT_F32,
                         a->varies);
        else
            rc = product(d, false, false, n, a->dim, p.n, more, grad + p.at, ld,
                         p.at ? rows_of(a, p) : a->w, a->dim, dh, a->dim, DT_BF16, a->varies);
        if (rc == 0 && grad && a->dw)
            rc = product(d, true, false, p.n, a->dim, n, 1, grad + p.at, ld,
                         mat_plain(DT_BF16, h), a->dim, a->dw + p.at * a->dim, a->dim, DT_F32,
                         false); /* here the rows are k */
    }
    return rc;
}

static int chunk(struct device *d, const struct op_loss *a, int64_t first, int64_t n)
{
    struct cuda *c = cuda_of(d);
    const bf16 *h = (const bf16 *)a->h + first * a->dim;
    bf16 *dh = a->dh ? (bf16 *)a->dh + first * a->dim : NULL;
    int64_t ld = cuda_loss_ld(a->vocab);
    size_t bytes = ((size_t)a->chunk * (size_t)ld * sizeof(float) + 255) / 256 * 256;
    float *logits = (float *)a->scratch;
    bf16 *grad = (bf16 *)((char *)a->scratch + bytes);
    int rc = products(d, a, n, h, logits, NULL, NULL);

    if (rc)
        return rc;
    if (a->cap == 0 && a->vocab % 4 == 0 && a->vocab <= 4 * ROW_FOURS * ROW_THREADS && aligned16(logits))
        score_row<<<(unsigned)n, ROW_THREADS, 0, c->stream>>>(
            (int)a->vocab, ld, logits, a->targets + first, a->grad_scale, a->nll + first,
            dh ? grad : NULL);
    else
        score<<<(unsigned)n, THREADS, 0, c->stream>>>(a->vocab, ld, logits, a->targets + first,
                                                      a->grad_scale, a->cap, a->nll + first,
                                                      dh ? grad : NULL);
    if (dh)
        rc = products(d, a, n, h, NULL, grad, dh);
    return rc;
}

extern "C" int cuda_loss(struct device *d, const struct op_loss *a)
{
    struct cuda *c = cuda_of(d);
    double passes = a->dh ? a->dw ? 3 : 2 : 1;
    int rc = 0;

    if (a->rows < 0 || a->chunk < 1 || a->chunk > INT32_MAX || a->vocab < 1 || a->dim < 1 ||
        !(a->cap >= 0))
        return E_BUG;
    cuda_begin(c, OP_loss);
    for (int64_t r = 0; r < a->rows && rc == 0; r += a->chunk)
        rc = chunk(d, a, r, lesser(a->chunk, a->rows - r));
    return cuda_end(d, rc, OP_loss,
                    2.0 * passes * (double)a->rows * (double)a->vocab * (double)a->dim);
}
