/* kernels/cpu/sgemm.c - the built-in matrix product, for where no BLAS can be loaded. */
#include "kernels/cpu/blas.h"
#include "kernels/cpu/simd.h"

/* Blocks of A (MC x KC) and of B (KC x NC) are copied so that the innermost loop reads both
 * in order: A in strips of MR rows, B in strips of NR columns, short strips filled with zeros
 * (Goto and van de Geijn 2008). 56 and 128 KiB, on the stack. */
enum { MR = 6, NR = 16, MC = 72, KC = 192, NC = 160 };
typedef float strip_row __attribute__((vector_size(NR * 4), aligned(64), may_alias));

/* dst[p * width + i] = src(first + i, p), i < width; src is stored by rows or by columns. */
static void pack(float *dst, const float *src, int64_t row_step, int64_t col_step, int count,
                 int depth, int width)
{
    for (int i0 = 0; i0 < count; i0 += width)
        for (int p = 0; p < depth; p++)
            for (int i = 0; i < width; i++)
                *dst++ = i0 + i < count ? src[(i0 + i) * row_step + p * col_step] : 0.0f;
}

/* acc = the MR x NR product of one strip of each. */
SIMD_FN(void, tile,
        (int depth, const float *restrict a, const float *restrict b, float *restrict acc),
        (depth, a, b, acc))
{
    strip_row c0 = { 0 }, c1 = { 0 }, c2 = { 0 }, c3 = { 0 }, c4 = { 0 }, c5 = { 0 };
    strip_row *out = (strip_row *)acc;

    for (int p = 0; p < depth; p++, a += MR, b += NR) {
        strip_row r = *(const strip_row *)b;
        c0 += a[0] * r;
        c1 += a[1] * r;
        c2 += a[2] * r;
        c3 += a[3] * r;
        c4 += a[4] * r;
        c5 += a[5] * r;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3, out[4] = c4, out[5] = c5;
}

/* C times beta. With beta 0 C is not read at all, because it may hold anything, NaN
 * included. */
static void scale(int m, int n, float beta, float *c, int64_t ldc)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}

/* C += alpha * (packed A) (packed B), mc x nc. */
static void block(int mc, int nc, int kc, float alpha, const float *pa, const float *pb,
                  float *c, int64_t ldc)
{
    _Alignas(64) float acc[MR * NR];

    for (int j = 0; j < nc; j += NR)
        for (int i = 0; i < mc; i += MR) {
            /* strips at the edges are computed whole, and what lies outside C is dropped */
            int rows = mc - i < MR ? mc - i : MR, cols = nc - j < NR ? nc - j : NR;
            tile(kc, pa + (int64_t)i * kc, pb + (int64_t)j * kc, acc);
            for (int r = 0; r < rows; r++)
                for (int s = 0; s < cols; s++)
                    c[(i + r) * ldc + j + s] += alpha * acc[r * NR + s];
        }
}

void sgemm_builtin(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                   const float *a, int lda, const float *b, int ldb, float beta, float *c,
                   int ldc)
{
    _Alignas(64) float pa[MC * KC], pb[KC * NC];
    int64_t a_row = trans_a == BLAS_TRANS ? 1 : lda, a_col = trans_a == BLAS_TRANS ? lda : 1;
    int64_t b_row = trans_b == BLAS_TRANS ? 1 : ldb, b_col = trans_b == BLAS_TRANS ? ldb : 1;

    (void)order; /* always row-major */
    if (beta != 1.0f)
        scale(m, n, beta, c, ldc);
    if (alpha == 0.0f)
        return;
    for (int j = 0; j < n; j += NC)
        for (int p = 0; p < k; p += KC) {
            int nc = n - j < NC ? n - j : NC, kc = k - p < KC ? k - p : KC;
            /* a block of B is packed once, and every block of A meets it */
            pack(pb, b + p * b_row + j * b_col, b_col, b_row, nc, kc, NR);
            for (int i = 0; i < m; i += MC) {
                int mc = m - i < MC ? m - i : MC;
                pack(pa, a + i * a_row + p * a_col, a_row, a_col, mc, kc, MR);
                block(mc, nc, kc, alpha, pa, pb, c + i * (int64_t)ldc + j, ldc);
            }
        }
}
