/* kernels/cuda/flash_few.cu - attention of a few queries over long caches. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

/*
 * One new token has one query a head: what takes time is reading keys and values, and a block for
 * each head would leave most of the card idle. So the keys of a query are split over several blocks
 * (Flash-Decoding, Dao et al. 2023); each leaves the largest score, the sum of the weights and the
 * weighted sum of values, and a second kernel puts them together. All query heads that share a key
 * head, up to 8, are one block's, so that keys are read once.
 *
 * LANES neighbouring lanes have a key, 16 bytes of it each: a warp has 32 / LANES keys at a time, and
 * AT_ONCE of those in flight, as they lie in memory. Each group of lanes keeps sums of its own; in the end
 * they are added by way of shared memory. Keys outside a query's are not read.
 *
 * What a key costs beside its bytes is half the time of a cache of 8 bits, whose keys have half of them: so
 * there a lane has 16 channels, the scales multiply a key's score and its weight, not each value, and an integer
 * becomes a float by its bits (few_float), not by a conversion, of which a multiprocessor does 16 a clock.
 */
enum { WARPS = 4, THREADS = 32 * WARPS, AT_ONCE = 4, QUERIES = 64, MOST_DIM = 256 };

struct few_queries {
    int32_t from[QUERIES], end[QUERIES]; /* of a query: the keys that it sees */
};

struct few {
    struct op_attention a;
    int64_t row;    /* of the first query of this launch */
    int splits, groups; /* groups: of the query heads that share a key head */
    float *parts;   /* [query][heads][splits][2 + dim]: most, sum, and sums of values */
};

/* A lane's channels of a key or value: as many as 16 bytes hold. */
template <typename T> struct few_values {
    enum { N = 16 / sizeof(T) };
};
static __device__ __forceinline__ void few_unpack(const uint4 &u, float x[8], bf16) { unpack(u, x); }
/* Byte i of u, which is 128 more than the integer: the last of the bits of 2^23 + that byte. */
static __device__ __forceinline__ float few_float(uint32_t u, int i)
{
    return __uint_as_float(__byte_perm(u, 0x4b000000u, 0x7650u | (unsigned)i)) - 8388736.0f;
}
static __device__ __forceinline__ void few_unpack(const uint4 &u, float x[16], int8_t)
{
    const uint32_t four[4] = { u.x ^ 0x80808080u, u.y ^ 0x80808080u, u.z ^ 0x80808080u, u.w ^ 0x80808080u };

#pragma unroll
    for (int i = 0; i < 16; i++)
        x[i] = few_float(four[i / 4], i % 4);
}

template <typename T> static __device__ __forceinline__ float few_scale(const float *s, int64_t at)
{
    return sizeof(T) == 1 ? s[at] : 1.0f;
}

/* The sums of one group of lanes for H query heads, C channels of a lane. */
template <int H, int C> struct few_sums {
    float most[H], sum[H], o[H][C];
};

/* AT_ONCE keys of a group, from key on, step apart, as they lie in memory; outside the query's: 0. */
template <typename T> struct few_read {
    uint4 k[AT_ONCE], v[AT_ONCE];
    float k_scale[AT_ONCE], v_scale[AT_ONCE];
};

template <typename T>
static __device__ __forceinline__ void few_load(const struct few &f, struct few_read<T> &in, int64_t key,
                                                int64_t step, int64_t end, int kv_head, int channel)
{
    const struct op_attention &a = f.a;

#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) {
        int64_t row = key + j * step, at = row * a.kv_ld + kv_head * a.dim + channel;

        in.k[j] = in.v[j] = make_uint4(0, 0, 0, 0);
        in.k_scale[j] = in.v_scale[j] = 0;
        if (row < end && channel < a.dim) {
            in.k[j] = *(const uint4 *)((const T *)a.k + at);
            in.v[j] = *(const uint4 *)((const T *)a.v + at);
            in.k_scale[j] = few_scale<T>(a.k_scale, row * a.kv_heads + kv_head);
            in.v_scale[j] = few_scale<T>(a.v_scale, row * a.kv_heads + kv_head);
        }
    }
}

/* Scores of the keys, and cap, in powers of 2. */
template <int LANES, int H, typename T>
static __device__ __forceinline__ void few_scores(const struct few_read<T> &in,
                                                  const float q[H][few_values<T>::N], int64_t key,
                                                  int64_t step, int64_t end, float cap,
                                                  float s[H][AT_ONCE])
{
    float k[few_values<T>::N];

#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) {
        few_unpack(in.k[j], k, T());
#pragma unroll
        for (int h = 0; h < H; h++) {
            float x = 0;
#pragma unroll
            for (int i = 0; i < few_values<T>::N; i++)
                x += q[h][i] * k[i];
            x *= in.k_scale[j];
#pragma unroll
            for (int o = LANES / 2; o; o >>= 1)
                x += __shfl_xor_sync(0xffffffffu, x, o);
            if (cap > 0)
                x = cap * tanhf(x / cap);
            s[h][j] = key + j * step < end ? x : -INFINITY;
        }
    }
}

template <int LANES, int H, typename T>
static __device__ __forceinline__ void few_keys(const struct few &f, struct few_sums<H, few_values<T>::N> &r,
                                                const float q[H][few_values<T>::N], int64_t key, int64_t step,
                                                int64_t end, int kv_head, int channel)
{
    enum { N = few_values<T>::N };
    struct few_read<T> in;
    float s[H][AT_ONCE], v[N];

    few_load<T>(f, in, key, step, end, kv_head, channel);
    few_scores<LANES, H, T>(in, q, key, step, end, f.a.cap * 1.44269504f, s);
#pragma unroll
    for (int h = 0; h < H; h++) {
        float most = r.most[h], less, keep;

#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            most = fmaxf(most, s[h][j]);
        less = most == -INFINITY ? 0.0f : most;
        keep = exp2f(r.most[h] - less);
        r.most[h] = most;
        r.sum[h] *= keep;
#pragma unroll
        for (int i = 0; i < N; i++)
            r.o[h][i] *= keep;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            s[h][j] = exp2f(s[h][j] - less);
            r.sum[h] += s[h][j];
        }
    }
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) {
        few_unpack(in.v[j], v, T());
#pragma unroll
        for (int h = 0; h < H; h++) {
            float w = s[h][j] * in.v_scale[j];
#pragma unroll
            for (int i = 0; i < N; i++)
                r.o[h][i] += w * v[i];
        }
    }
}

/* Writes what parts of one query head came to: a part, or where it is all, the result. */
static __device__ __forceinline__ void few_write(const struct few &f, int64_t row, int head, int split,
                                                 int i, float most, float sum, float o)
{
    const struct op_attention &a = f.a;

    if (f.splits > 1) {
        float *p = f.parts + (((row - f.row) * a.heads + head) * f.splits + split) * (2 + a.dim);
        if (i == 0)
            p[0] = most, p[1] = sum;
        p[2 + i] = o;
        return;
    }
    ((bf16 *)a.o)[row * a.q_ld + head * a.dim + i] = narrow(sum > 0 ? o / sum : 0.0f);
    if (i == 0)
        a.lse[head * a.q_rows + row] =
            sum > 0 ? (most + log2f(sum)) * 0.6931471805599453f : -INFINITY;
}

/* Sums of nothing, and the lane's channels of query heads first on of those that share a key head. */
template <int H, int N>
static __device__ __forceinline__ void few_begin(const struct op_attention &a, int64_t row, int kv_head, int first,
                                                 int channel, struct few_sums<H, N> &r, float q[H][N])
{
    int share = (int)(a.heads / a.kv_heads);

#pragma unroll
    for (int h = 0; h < H; h++) {
        r.most[h] = -INFINITY, r.sum[h] = 0;
#pragma unroll
        for (int i = 0; i < N; i++)
            r.o[h][i] = q[h][i] = 0;
#pragma unroll
        for (int i = 0; i < N; i += 8)
            if (first + h < share && channel + i < a.dim)
                load8((const bf16 *)a.q + row * a.q_ld + (kv_head * share + first + h) * a.dim + channel + i,
                      &q[h][i]);
#pragma unroll
        for (int i = 0; i < N; i++)
            q[h][i] *= a.scale * 1.44269504f; /* weights are powers of 2 */
    }
}

/* blockIdx: a split; a key head's group of query heads; a query. */
template <int LANES, int H, typename T>
static __global__ void __launch_bounds__(THREADS) few_forward(const struct few f,
                                                              const struct few_queries m)
{
    enum { EACH = 32 / LANES, ALL = WARPS * EACH, N = few_values<T>::N };
    __shared__ float most[ALL][H], sum[ALL][H], o[ALL][H][LANES * N];
    const struct op_attention &a = f.a;
    int lane = threadIdx.x & 31, mine = (int)(threadIdx.x >> 5) * EACH + lane / LANES;
    int channel = lane % LANES * N, split = blockIdx.x, kv_head = blockIdx.y / f.groups;
    int share = (int)(a.heads / a.kv_heads), first = blockIdx.y % f.groups * H;
    int64_t row = f.row + blockIdx.z, from = m.from[blockIdx.z], end = m.end[blockIdx.z];
    int64_t each = ((end - from + f.splits - 1) / f.splits + 31) / 32 * 32;
    struct few_sums<H, N> r;
    float q[H][N];

    from += split * each;
    end = min((long long)end, (long long)(from + each));
    chain_next();
    chain_wait();
    few_begin<H, N>(a, row, kv_head, first, channel, r, q);
    for (int64_t key = from; key < end; key += ALL * AT_ONCE)
        few_keys<LANES, H, T>(f, r, q, key + mine, ALL, end, kv_head, channel);
#pragma unroll
    for (int h = 0; h < H; h++) {
        if (channel == 0)
            most[mine][h] = r.most[h], sum[mine][h] = r.sum[h];
#pragma unroll
        for (int i = 0; i < N; i++)
            o[mine][h][channel + i] = r.o[h][i];
    }
    __syncthreads();
    for (int n = threadIdx.x; n < H * LANES * N; n += THREADS) {
        int h = n / (LANES * N), i = n % (LANES * N);
        float top = -INFINITY, s = 0, x = 0;

        if (first + h >= share || i >= a.dim)
            continue;
        for (int g = 0; g < ALL; g++)
            top = fmaxf(top, most[g][h]);
        for (int g = 0; g < ALL; g++) {
            float w = most[g][h] == -INFINITY ? 0.0f : exp2f(most[g][h] - top);
            s += w * sum[g][h];
            x += w * o[g][h][i];
        }
        few_write(f, row, kv_head * share + first + h, split, i, top, s, x);
    }
}

/* The splits of one head of one query. */
static __global__ void __launch_bounds__(MOST_DIM) few_together(const struct few f)
{
    const struct op_attention &a = f.a;
    int head = blockIdx.x, i = threadIdx.x;
    const float *p = f.parts + ((int64_t)blockIdx.y * a.heads + head) * f.splits * (2 + a.dim);
    float top = -INFINITY, s = 0, x = 0;
    struct few one = f;

    chain_next();
    chain_wait();
    if (i >= a.dim)
        return;
#pragma unroll 4
    for (int n = 0; n < f.splits; n++)
        top = fmaxf(top, p[n * (2 + a.dim)]);
#pragma unroll 4
    for (int n = 0; n < f.splits; n++) {
        const float *part = p + n * (2 + a.dim);
        float w = part[0] == -INFINITY ? 0.0f : exp2f(part[0] - top);
        s += w * part[1];
        x += w * part[2 + i];
    }
    one.splits = 1;
    few_write(one, f.row + blockIdx.y, head, 0, i, top, s, x);
}

/* How long so many equal blocks take, of which places are at work at a time, in the time that one takes. The memory
 * serves WANTED of a multiprocessor as fast as one alone, and more of them as much slower as they are more. */
enum { WANTED = 4 };
static double few_time(int64_t blocks, double places, double wanted)
{
    double full = floor((double)blocks / places), rest = (double)blocks - full * places;

    return full * fmax(1, places / wanted) + (rest > 0 ? fmax(1, rest / wanted) : 0);
}

/* Into how many parts the keys of each query go: blocks is their number where nothing is split, resident how many a
 * multiprocessor holds. A part is worth its start from 128 keys on, and as many are what putting parts together
 * costs. So 2000 keys of one text of a 7B are 15 parts a head, those of 16 texts one: two would be 1024 blocks where 792
 * have places, and the last 232 would have the memory to themselves. */
static int splits_for(const struct cuda *c, int64_t blocks, int resident, int64_t longest)
{
    int64_t most = lesser(longest / 128, 128);
    double places = (double)c->sms * resident, wanted = (double)c->sms * WANTED, least = INFINITY;
    int best = 1;

    for (int s = 1; s <= (most > 1 ? most : 1); s++) {
        double t = few_time(blocks * s, places, wanted) / s * (double)longest + (s > 1 ? 128 : 0);

        if (t < 0.99 * least)
            best = s, least = t;
    }
    return best;
}

/* Queries [f->row, + n), which see what m says. */
template <int LANES, int H, typename T>
static int few_launch(struct cuda *c, struct few *f, const struct few_queries *m, int n)
{
    static int resident; /* the same on every card of a host, or nearly */
    int64_t heads = f->a.kv_heads * f->groups, longest = 0;

    if (!resident && cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, few_forward<LANES, H, T>, THREADS, 0))
        resident = 1; /* what is wrong, the launch says */
    for (int i = 0; i < n; i++)
        longest = m->end[i] - m->from[i] > longest ? m->end[i] - m->from[i] : longest;
    f->splits = splits_for(c, heads * n, resident > 1 ? resident : 1, longest);
    if (f->splits > 1) {
        size_t bytes = (size_t)(n * f->a.heads * f->splits * (2 + f->a.dim)) * sizeof(float);
        if (!(f->parts = (float *)cuda_scratch(c, SCRATCH_PARTIAL, bytes)))
            return E_DEVICE;
    }
    chain_launch(c, few_forward<LANES, H, T>, dim3((unsigned)f->splits, (unsigned)heads, (unsigned)n), THREADS, *f, *m);
    if (f->splits > 1)
        chain_launch(c, few_together, dim3((unsigned)f->a.heads, (unsigned)n), (unsigned)ceil_div(f->a.dim, 32) * 32, *f);
    return 0;
}

template <int LANES, typename T>
static int few_by_heads(struct cuda *c, struct few *f, const struct few_queries *m, int n)
{
    int share = (int)(f->a.heads / f->a.kv_heads), h = share >= 3 ? 4 : share;

    f->groups = (int)ceil_div(share, h);
    if (h == 1)
        return few_launch<LANES, 1, T>(c, f, m, n);
    if (h == 2)
        return few_launch<LANES, 2, T>(c, f, m, n);
    return few_launch<LANES, 4, T>(c, f, m, n);
}

template <typename T> static int few_by_width(struct cuda *c, struct few *f, const struct few_queries *m, int n)
{
    int64_t lanes = ceil_div(f->a.dim, few_values<T>::N);

    if (lanes <= 4)
        return few_by_heads<4, T>(c, f, m, n);
    if (lanes <= 8)
        return few_by_heads<8, T>(c, f, m, n);
    if (lanes <= 16)
        return few_by_heads<16, T>(c, f, m, n);
    return few_by_heads<32, T>(c, f, m, n);
}

static int few_run(struct cuda *c, struct few *f, const struct few_queries *m, int n)
{
    return f->a.kv_type == KV_INT8 ? few_by_width<int8_t>(c, f, m, n) : few_by_width<bf16>(c, f, m, n);
}

/* Every query by itself: what it sees of which keys. */
extern "C" int flash_few(struct cuda *c, const struct op_attention *a)
{
    const struct op_segments *s = &a->seg[0];
    struct few f;
    struct few_queries m;
    int n = 0, rc = 0;

    memset(&f, 0, sizeof f);
    memset(&m, 0, sizeof m);
    f.a = *a;
    for (int64_t i = 0; i < s->n && rc == 0; i++) {
        struct band b = band_of(a, s, i);

        for (int64_t t = b.q.first; t < b.q.end && rc == 0; t++) {
            struct rows one = { t, t + 1 }, sees = band_seen(&b, one);
            m.from[n] = (int32_t)sees.first;
            m.end[n] = (int32_t)(sees.end > sees.first ? sees.end : sees.first);
            if (++n == QUERIES || t + 1 == a->q_rows) {
                rc = few_run(c, &f, &m, n);
                f.row += n;
                n = 0;
            }
        }
    }
    return rc;
}

extern "C" bool flash_few_takes(const struct op_attention *a)
{
    const struct op_segments *s = &a->seg[0];
    uintptr_t keys = (uintptr_t)a->k | (uintptr_t)a->v;
    int each = a->kv_type == KV_INT8 ? 16 : 8; /* channels in 16 bytes, which are read at once */

    if (a->q_rows > QUERIES * 4 || s->cu != a->seg[1].cu || s->kv != a->seg[1].kv || !s->kv ||
        s->first != a->seg[1].first || s->n != a->seg[1].n || a->dim % each || a->dim > MOST_DIM ||
        a->q_ld % 8 || a->kv_ld % each || (((uintptr_t)a->q | keys) & 15) ||
        a->kv_heads * (a->heads / a->kv_heads) > 65535)
        return false;
    for (int64_t i = 0; i < s->n; i++)
        if (s->cu[i + 1] - s->cu[i] > 4)
            return false;
    return true;
}
