/* tests/emulate/mma.h - CUDA's 16 x 16 x 16 products of a warp, on the CPU: lane 0 holds the whole
 * tile and works alone, when the whole warp is there. */
#ifndef TESTS_EMULATE_MMA_H
#define TESTS_EMULATE_MMA_H
#include <cuda_bf16.h>

namespace nvcuda {
namespace wmma {
enum use { accumulator, matrix_a, matrix_b };
enum layout_t { mem_row_major, mem_col_major };
struct row_major {};
struct col_major {};

template <use U, int M, int N, int K, typename T, typename L = row_major> struct fragment {
    float x[16][16];
};
static inline bool leads(void) { return (threadIdx.x & 31) == 0; }
static inline bool turned(row_major) { return false; }
static inline bool turned(col_major) { return true; }
static inline float wide_of(float x) { return x; }
static inline float wide_of(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename F> static inline void fill_fragment(F &f, float x)
{
    for (int i = 0; i < 256; i++)
        f.x[i / 16][i % 16] = x;
}
template <use U, typename T, typename L>
static inline void load_matrix_sync(fragment<U, 16, 16, 16, T, L> &f, const T *p, unsigned ld)
{
    __syncwarp();
    for (int i = 0; i < 256 && leads(); i++) {
        int r = i / 16, c = i % 16;
        f.x[r][c] = wide_of(turned(L()) ? p[c * ld + r] : p[r * ld + c]);
    }
}
template <typename F>
static inline void load_matrix_sync(F &f, const float *p, unsigned ld, layout_t)
{
    __syncwarp();
    for (int i = 0; i < 256 && leads(); i++)
        f.x[i / 16][i % 16] = p[i / 16 * ld + i % 16];
}
template <typename D, typename A, typename B>
static inline void mma_sync(D &d, const A &a, const B &b, const D &c)
{
    for (int i = 0; i < 256 && leads(); i++) {
        float s = c.x[i / 16][i % 16];
        for (int k = 0; k < 16; k++)
            s += a.x[i / 16][k] * b.x[k][i % 16];
        d.x[i / 16][i % 16] = s;
    }
}
template <typename F>
static inline void store_matrix_sync(float *p, const F &f, unsigned ld, layout_t)
{
    for (int i = 0; i < 256 && leads(); i++)
        p[i / 16 * ld + i % 16] = f.x[i / 16][i % 16];
    __syncwarp();
}
} // namespace wmma
} // namespace nvcuda
#endif
