/* kernels/cuda/rope.cu - rotary position embedding, in place. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

#include <limits.h>
#include <string.h>

enum { THREADS = 256, MOST = 512, AT_ONCE = 4, /* heads a thread has in flight */
       FIRSTS = 64 };

/* The frequencies go along as an argument: the caller's array may change once it has returned. */
struct turns {
    float inv_freq[MOST];
    int64_t firsts[FIRSTS]; /* where the op has some */
};

/* Whole turns are dropped in float64: at position 100,000 a float32 angle is off by 0.006. */
static __device__ __forceinline__ void angle(const struct op_rope &a, const struct turns &t,
                                             int64_t row, float inv_freq, float *cosine, float *sine)
{
    int64_t first = a.firsts ? t.firsts[row / a.period] : a.first;
    double x = (double)(first + row % a.period) * (double)inv_freq * 0.15915494309189535;
    float s, k;

    x -= rint(x);
    sincospif((float)(2 * x), &s, &k);
    *cosine = a.scale * k;
    *sine = a.scale * (a.inverse ? -s : s);
}

/* Turns the block's rows of one array. A thread keeps to one place of the half head, V channels
 * (T of memory) wide, and goes down the heads with that place's cosines and sines. */
template <int V, typename T>
static __device__ void turn(bf16 *x, int64_t ld, int heads, int stride, int half, int rows,
                            const float *cosine, const float *sine)
{
    int each = half / V, places = rows * each, lanes = places < THREADS ? places : THREADS;
    int group = (int)threadIdx.x / lanes, groups = THREADS / lanes;

    if (group >= groups)
        return;
    for (int p = (int)threadIdx.x - group * lanes; p < places; p += lanes) {
        int row = p / each, i = (p - row * each) * V;
        float k[V], s[V];
        int step = stride * groups;
        bf16 *at = x + row * ld + stride * group + i;
#pragma unroll
        for (int j = 0; j < V; j++) {
            k[j] = cosine[row * half + i + j];
            s[j] = sine[row * half + i + j];
        }
        for (int left = heads - group; left > 0; left -= groups * AT_ONCE, at += step * AT_ONCE) {
            T lo[AT_ONCE], hi[AT_ONCE];
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++)
                if (n * groups < left) {
                    lo[n] = *(const T *)(at + n * step);
                    hi[n] = *(const T *)(at + n * step + half);
                }
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++)
                if (n * groups < left) {
                    float u[V], v[V];
                    unpack(lo[n], u);
                    unpack(hi[n], v);
#pragma unroll
                    for (int j = 0; j < V; j++) {
                        float w = u[j] * k[j] - v[j] * s[j];
                        v[j] = v[j] * k[j] + u[j] * s[j];
                        u[j] = w;
                    }
                    pack_to((T *)(at + n * step), u);
                    pack_to((T *)(at + n * step + half), v);
                }
        }
    }
}

/* A block takes `each` rows at a time: their angles first, then all heads of both arrays. */
template <int V, typename T>
static __global__ void __launch_bounds__(THREADS, 3)
    rotate(struct op_rope a, struct turns t, int each)
{
    __shared__ float cosine[MOST], sine[MOST];
    int half = (int)a.dim / 2, stride = (int)(a.stride ? a.stride : a.dim);

    chain_next();
    for (int64_t r = (int64_t)blockIdx.x * each; r < a.rows; r += (int64_t)gridDim.x * each) {
        int rows = a.rows - r < each ? (int)(a.rows - r) : each;

        __syncthreads();
        for (int n = (int)threadIdx.x; n < rows * half; n += THREADS)
            angle(a, t, r + n / half, t.inv_freq[n % half], cosine + n, sine + n);
        chain_wait(); /* every block has a row */
        __syncthreads();
        turn<V, T>((bf16 *)a.x + r * a.ld, a.ld, (int)a.heads, stride, half, rows,
                   cosine, sine);
        if (a.x2)
            turn<V, T>((bf16 *)a.x2 + r * a.ld2, a.ld2, (int)a.heads2, stride, half,
                       rows, cosine, sine);
    }
}

static void launch(struct cuda *c, const struct op_rope *a, const struct turns *t)
{
    int64_t half = a->dim / 2, each = half < THREADS ? THREADS / half : 1;
    unsigned blocks = (unsigned)lesser(ceil_div(a->rows, each), INT_MAX);

    if (half % 8 == 0 && a->stride % 8 == 0 && a->ld % 8 == 0 && aligned16(a->x) &&
        (!a->x2 || (a->ld2 % 8 == 0 && aligned16(a->x2))))
        chain_launch(c, rotate<8, uint4>, blocks, THREADS, *a, *t, (int)each);
    else
        chain_launch(c, rotate<1, bf16>, blocks, THREADS, *a, *t, (int)each);
}

/* Places of their own go along as an argument too, FIRSTS of them in a launch. */
static void launch_firsts(struct cuda *c, const struct op_rope *a, struct turns *t)
{
    for (int64_t at = 0; at < a->rows; at += FIRSTS * a->period) {
        struct op_rope part = *a;

        part.rows = lesser(a->rows - at, FIRSTS * a->period);
        part.x = (bf16 *)a->x + at * a->ld;
        part.x2 = a->x2 ? (bf16 *)a->x2 + at * a->ld2 : NULL;
        for (int64_t i = 0; i < ceil_div(part.rows, a->period); i++)
            t->firsts[i] = a->firsts[at / a->period + i];
        launch(c, &part, t);
    }
}

extern "C" int cuda_rope(struct device *d, const struct op_rope *a)
{
    struct cuda *c = cuda_of(d);
    struct turns t;

    if (a->dim < 2 || a->dim > 2 * MOST || a->dim % 2 || a->period < 1 || a->rows < 0 ||
        a->heads > INT_MAX / 2 || a->heads2 > INT_MAX / 2 || a->stride > INT_MAX / 2 ||
        (a->stride && a->stride < a->dim))
        return E_BUG;
    if (a->rows == 0)
        return 0;
    memset(&t, 0, sizeof t);
    memcpy(t.inv_freq, a->inv_freq, (size_t)(a->dim / 2) * sizeof *t.inv_freq);
    cuda_begin_rows(c, OP_rope, a->rows);
    if (a->firsts)
        launch_firsts(c, a, &t);
    else
        launch(c, a, &t);
    return cuda_end(d, 0, OP_rope, 0);
}
