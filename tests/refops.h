/* tests/refops.h - every op in float64, as its formula reads: the oracle of the op tests. */
#ifndef TESTS_REFOPS_H
#define TESTS_REFOPS_H
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Plain and slow; arrays are packed unless a stride is named. Gradients are tested against
 * central differences of the forwards by test_gradients.c: so both sides are held. */

static inline void ref_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha,
                            const double *a, int64_t lda, const double *b, int64_t ldb,
                            double beta, double *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t p = 0; p < k; p++)
                s += (ta ? a[p * lda + i] : a[i * lda + p]) *
                     (tb ? b[j * ldb + p] : b[p * ldb + j]);
            c[i * ldc + j] = alpha * s + (beta == 0 ? 0 : beta * c[i * ldc + j]);
        }
}

static inline void ref_rmsnorm(int64_t rows, int64_t dim, double eps, const double *x,
                               const double *w, double *y, double *rstd)
{
    for (int64_t r = 0; r < rows; r++) {
        double s = 0;
        for (int64_t i = 0; i < dim; i++)
            s += x[r * dim + i] * x[r * dim + i];
        rstd[r] = 1 / sqrt(s / (double)dim + eps);
        for (int64_t i = 0; i < dim; i++)
            y[r * dim + i] = w[i] * x[r * dim + i] * rstd[r];
    }
}

static inline void ref_rmsnorm_back(int64_t rows, int64_t dim, const double *x,
                                     const double *dy, const double *w, const double *rstd,
                                     double *dx, double *dw)
{
    for (int64_t r = 0; r < rows; r++) {
        double s = 0;
        for (int64_t i = 0; i < dim; i++)
            s += w[i] * dy[r * dim + i] * x[r * dim + i];
        for (int64_t i = 0; i < dim; i++) {
            int64_t at = r * dim + i;
            dx[at] += rstd[r] * w[i] * dy[at] - x[at] * s * pow(rstd[r], 3) / (double)dim;
            dw[i] += dy[at] * x[at] * rstd[r];
        }
    }
}

static inline void ref_rope(int64_t rows, int64_t ld, int64_t heads, int64_t dim, int64_t first,
                            int64_t period, bool inverse, double scale, const double *inv_freq,
                            double *x)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < dim / 2; i++) {
                double t = (double)(first + r % period) * inv_freq[i] * (inverse ? -1 : 1);
                double *p = x + r * ld + h * dim + i, a = p[0], b = p[dim / 2];
                p[0] = scale * (a * cos(t) - b * sin(t));
                p[dim / 2] = scale * (b * cos(t) + a * sin(t));
            }
}

static inline double ref_silu(double z) { return z / (1 + exp(-z)); }

static inline void ref_swiglu_back(double g, double u, double dy, double *dg, double *du)
{
    double s = 1 / (1 + exp(-g));
    *dg = dy * u * (s + g * s * (1 - s));
    *du = dy * g * s;
}

/* f of op_swiglu (0 SiLU, 1 GELU, 2 its form with tanh) and its slope. */
static inline double ref_gate(int f, double z, double *slope)
{
    double p, u, t, a = sqrt(2 / M_PI);

    if (f == 0) {
        p = 1 / (1 + exp(-z));
        *slope = p + z * p * (1 - p);
        return z * p;
    }
    if (f == 1) {
        p = (1 + erf(z / sqrt(2))) / 2;
        *slope = p + z * exp(-z * z / 2) / sqrt(2 * M_PI);
        return z * p;
    }
    u = a * (z + 0.044715 * z * z * z), t = tanh(u);
    *slope = (1 + t) / 2 + z / 2 * (1 - t * t) * a * (1 + 3 * 0.044715 * z * z);
    return z / 2 * (1 + t);
}

static inline void ref_layernorm(int64_t rows, int64_t dim, double eps, const double *x,
                                 const double *w, const double *b, double *y, double *rstd)
{
    for (int64_t r = 0; r < rows; r++) {
        double m = 0, s = 0;
        for (int64_t i = 0; i < dim; i++)
            m += x[r * dim + i] / (double)dim;
        for (int64_t i = 0; i < dim; i++)
            s += (x[r * dim + i] - m) * (x[r * dim + i] - m);
        rstd[r] = 1 / sqrt(s / (double)dim + eps);
        for (int64_t i = 0; i < dim; i++)
            y[r * dim + i] = w[i] * (x[r * dim + i] - m) * rstd[r] + b[i];
    }
}

static inline void ref_layernorm_back(int64_t rows, int64_t dim, const double *x, const double *dy,
                                      const double *w, const double *rstd, double *dx, double *dw, double *db)
{
    for (int64_t r = 0; r < rows; r++) {
        double m = 0, one = 0, two = 0;
        for (int64_t i = 0; i < dim; i++)
            m += x[r * dim + i] / (double)dim;
        for (int64_t i = 0; i < dim; i++) {
            one += w[i] * dy[r * dim + i] / (double)dim;
            two += w[i] * dy[r * dim + i] * (x[r * dim + i] - m) * rstd[r] / (double)dim;
        }
        for (int64_t i = 0; i < dim; i++) {
            int64_t at = r * dim + i;
            double z = (x[at] - m) * rstd[r];
            dx[at] += rstd[r] * (w[i] * dy[at] - one - z * two);
            dw[i] += dy[at] * z;
            db[i] += dy[at];
        }
    }
}

/* Attention with the whole q_rows x kv_rows mask, from the definition: query row t, i-th of its
 * segment, is at position first + i, and sees the segment's j-th key when
 * first + i - window < j <= first + i. kv NULL: as cu; first NULL: 0; window 0: none. */
struct ref_list {
    int64_t n;
    const int64_t *cu, *kv, *first;
};
struct ref_attention {
    int64_t q_rows, kv_rows, heads, kv_heads, dim, q_ld, kv_ld, window;
    double scale, cap;
    struct ref_list list[2];
    const double *q, *k, *v;
    double *o, *lse;
};

static inline bool ref_sees(const struct ref_attention *a, int64_t h, int64_t t, int64_t s)
{
    const struct ref_list *l = &a->list[h < a->heads / 2 ? 0 : 1];
    const int64_t *kv = l->kv ? l->kv : l->cu;

    for (int64_t i = 0; i < l->n; i++)
        if (l->cu[i] <= t && t < l->cu[i + 1] && kv[i] <= s && s < kv[i + 1]) {
            int64_t p = (l->first ? l->first[i] : 0) + t - l->cu[i], j = s - kv[i];
            return j <= p && (a->window == 0 || j > p - a->window);
        }
    return false;
}

static inline double ref_dot(const double *a, const double *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* cap * tanh(x / cap); a cap of 0 is none. */
static inline double ref_cap(double x, double cap) { return cap > 0 ? cap * tanh(x / cap) : x; }

static inline void ref_attention(const struct ref_attention *a)
{
    double *w = malloc((size_t)(a->kv_rows + 1) * sizeof *w);

    for (int64_t h = 0; h < a->heads; h++)
        for (int64_t t = 0; t < a->q_rows; t++) {
            int64_t kv = h / (a->heads / a->kv_heads) * a->dim;
            double max = -INFINITY, sum = 0, *o = a->o + t * a->q_ld + h * a->dim;
            for (int64_t s = 0; s < a->kv_rows; s++) {
                w[s] = ref_sees(a, h, t, s)
                           ? ref_cap(a->scale * ref_dot(a->q + t * a->q_ld + h * a->dim,
                                                        a->k + s * a->kv_ld + kv, a->dim), a->cap)
                           : -INFINITY;
                max = w[s] > max ? w[s] : max;
            }
            for (int64_t s = 0; s < a->kv_rows; s++)
                sum += w[s] = w[s] > -INFINITY ? exp(w[s] - max) : 0;
            a->lse[h * a->q_rows + t] = max + log(sum);
            for (int64_t i = 0; i < a->dim; i++)
                o[i] = 0;
            for (int64_t s = 0; s < a->kv_rows; s++)
                for (int64_t i = 0; i < a->dim && w[s] > 0; i++)
                    o[i] += w[s] / sum * a->v[s * a->kv_ld + kv + i];
        }
    free(w);
}

/* dq, dk, dv start at zero. */
static inline void ref_attention_back(const struct ref_attention *a, const double *d_o,
                                      double *dq, double *dk, double *dv)
{
    for (int64_t h = 0; h < a->heads; h++)
        for (int64_t t = 0; t < a->q_rows; t++) {
            int64_t at_q = t * a->q_ld + h * a->dim;
            double sum = ref_dot(d_o + at_q, a->o + at_q, a->dim);
            for (int64_t s = 0; s < a->kv_rows; s++) {
                int64_t at_k = s * a->kv_ld + h / (a->heads / a->kv_heads) * a->dim;
                double p, ds, x;
                if (!ref_sees(a, h, t, s))
                    continue;
                x = ref_cap(a->scale * ref_dot(a->q + at_q, a->k + at_k, a->dim), a->cap);
                p = exp(x - a->lse[h * a->q_rows + t]);
                ds = p * (ref_dot(d_o + at_q, a->v + at_k, a->dim) - sum) * a->scale;
                ds *= a->cap > 0 ? 1 - x / a->cap * (x / a->cap) : 1;
                for (int64_t i = 0; i < a->dim; i++) {
                    dq[at_q + i] += ds * a->k[at_k + i];
                    dk[at_k + i] += ds * a->q[at_q + i];
                    dv[at_k + i] += p * d_o[at_q + i];
                }
            }
        }
}

/* nll[r] and, with dh and dw (both or neither; dh zeroed), gradients of scale * sum(nll). */
static inline double ref_loss(int64_t rows, int64_t dim, int64_t vocab, const double *h,
                              const double *w, const int32_t *targets, double *nll,
                              double scale, double cap, double *dh, double *dw)
{
    double *z = malloc((size_t)vocab * sizeof *z), total = 0;

    for (int64_t r = 0; r < rows; r++) {
        double sum = 0, max = -INFINITY;
        nll[r] = 0;
        if (targets[r] < 0)
            continue;
        for (int64_t j = 0; j < vocab; j++) {
            z[j] = ref_cap(ref_dot(h + r * dim, w + j * dim, dim), cap);
            max = z[j] > max ? z[j] : max;
        }
        for (int64_t j = 0; j < vocab; j++)
            sum += exp(z[j] - max);
        nll[r] = max + log(sum) - z[targets[r]];
        total += nll[r];
        for (int64_t j = 0; dh && j < vocab; j++) {
            double g = scale * (exp(z[j] - max) / sum - (j == targets[r]));
            g *= cap > 0 ? 1 - z[j] / cap * (z[j] / cap) : 1;
            for (int64_t i = 0; i < dim; i++) {
                dh[r * dim + i] += g * w[j * dim + i];
                dw[j * dim + i] += g * h[r * dim + i];
            }
        }
    }
    free(z);
    return scale * total;
}
#endif
