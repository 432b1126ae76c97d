/* kernels/cpu/cpu.h - what the files of the CPU device share; nobody else includes it. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H
#include "base/pool.h"
#include "kernels/cpu/blas.h"
#include "kernels/kernels.h"
C_BEGIN

/* One a thread, each on its own cache lines. */
struct cpu_thread {
    _Alignas(128) double gemm_s; /* seconds in matrix products since the last cpu_account */
};

/* cos and sin of first + 64 i (coarse) and of 0..63 (fine) times each frequency: any
 * position's angle is one of each, so the table grows with rows / 64. See cpu_rope.c. */
struct cpu_rope_table {
    int64_t first, rows, half;
    float *inv_freq;
    double *trig;
    int64_t cap_freq, cap_trig;
};

struct cpu {
    struct pool *pool;
    int threads;
    struct blas blas;
    struct cpu_thread *t;
    unsigned char *scratch, *shared;
    size_t scratch_cap, shared_cap;
    struct cpu_rope_table rope;
    struct err fault; /* the first since the last sync that has words; code 0: none */
};

static inline struct cpu *cpu_of(const struct device *d) { return (struct cpu *)d->state; }
static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Room for each thread (cpu_scratch_of) or for the whole op; kept and grown, never shrunk.
 * Both return 0 or E_SYS. Contents are undefined, addresses 64-byte aligned. */
int cpu_scratch(struct cpu *c, size_t bytes_per_thread);
void *cpu_scratch_of(const struct cpu *c, int thread);
int cpu_shared(struct cpu *c, size_t nbytes);

/* Calls fn for [0, n) cut into pieces of 'grain' (the last one shorter). The cuts do not
 * depend on the number of threads, so neither do the bits of what is summed in a piece. */
typedef void cpu_range_fn(const void *op, int64_t lo, int64_t hi);
void cpu_ranges(struct cpu *c, int64_t n, int64_t grain, cpu_range_fn *fn, const void *op);

/* One single-threaded product of row-major tiles on the calling thread, timed into it.
 * All sizes and strides are below 2^31: the caller checked. */
void cpu_sgemm(struct cpu *c, int thread, bool trans_a, bool trans_b, int64_t m, int64_t n,
               int64_t k, float alpha, const float *a, int64_t lda, const float *b,
               int64_t ldb, float beta, float *out, int64_t ldc);
/* Adds what the threads measured to d->gemm_s, as if they had worked evenly: the sum of their
 * seconds over their number. flop are the op's floating-point operations in products. */
void cpu_account(struct device *d, double flop);

/* cpu_few.c: few rows times a matrix of float32 or bfloat16 that is read once, which memory bounds; and
 * matrices of bfloat16 with any number of rows. */
bool cpu_few_takes(const struct op_gemm *g);
int cpu_few(struct device *d, const struct op_gemm *g); /* E_SYS */
extern const struct mat_product cpu_bf16;

#define CPU_OP(name, matrix, words) int cpu_##name(struct device *d, const struct op_##name *a);
OPS(CPU_OP)
size_t cpu_attention_scratch_bytes(const struct device *d, int64_t rows, int64_t heads,
                                   int64_t kv_heads, int64_t dim);
size_t cpu_loss_scratch_bytes(const struct device *d, int64_t chunk, int64_t vocab);

C_END
#endif
