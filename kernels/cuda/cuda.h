/* kernels/cuda/cuda.h - what the files of the CUDA device share; nobody else includes it. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H
#include "kernels/attention.h"

#include <cuda_runtime.h>
C_BEGIN

/*
 * The ops are queued on one stream, copies beside them on two more (cuda_queue.c); sync waits for
 * all, to_host and sum_squares for the ops. A failure is described once in c->fault, the op
 * returns E_DEVICE, and sync hands the description out.
 *
 * Environment: LONGLORA_DETERMINISTIC=1 gives equal bits run after run (attention's backward
 * then adds in a fixed order, products take the first algorithm offered, untimed);
 * LONGLORA_CUDNN=FILE names cuDNN's library, "none" does without it; LONGLORA_NCCL=FILE NCCL's;
 * LONGLORA_SMALL_TILES=1 takes the tiles of cards with little shared memory, to test them on another;
 * LONGLORA_OVERLAP=0 lets no kernel begin before the one in front has ended (chain.cuh);
 * LONGLORA_FEW=N leaves products of more than N rows to cuBLASLt; our own kernels take those of 1 to 16 (gemm_few).
 */

/* What is timed apart: the ops, by their numbers, and these. */
enum cuda_kind {
    CUDA_COPY = OP_COUNT,
    CUDA_WAIT, CUDA_WAIT_LINK, /* the ops, for a copy; for other ranks */
    CUDA_SEND, CUDA_FETCH, CUDA_LINK, CUDA_KINDS /* beside the ops */
};

/* Blocks of device memory that an op grows and keeps. */
enum cuda_scratch_kind {
    SCRATCH_PARTIAL, /* partial sums of a reduction */
    SCRATCH_SORT,    /* embed_back's order of rows */
    SCRATCH_SDPA,    /* what cuDNN's forward asks for: 256 bytes on sm_90 */
    SCRATCH_CUTS,    /* segment lists */
    SCRATCH_KEYS,    /* keys and values of 8 bits, unpacked for many queries */
    SCRATCH_KINDS
};

struct cuda_attention; /* cuda_attention.c */
struct cuda_gemms;     /* cuda_gemm.c */
struct cuda_clock;     /* cuda_clock.c */
struct cuda_links;     /* cuda_links.c */

struct cuda {
    cudaStream_t stream;  /* QUEUE_OPS */
    cudaStream_t queue[QUEUES]; /* the others, where they are in use */
    cudaEvent_t fence[FENCES];
    enum queue fence_on[FENCES]; /* the queue that each was marked on last */
    int index;            /* of the GPU, as CUDA counts */
    int sm;               /* compute capability, 10 * major + minor */
    int sms;              /* multiprocessors */
    int64_t smem_bytes;   /* shared memory one block may have */
    bool deterministic;
    bool overlap;         /* kernels of the chain may */
    int few_product;      /* most rows of the products that gemm_few computes */
    bool few;             /* the op under way is of few rows */
    bool chained, behind; /* the last thing on the stream is a kernel of the chain; it was before this op */
    struct cuda_gemms *gemms;
    struct cuda_attention *attention;
    struct cuda_clock *clock;
    struct cuda_links *links; /* NULL: of one rank */
    struct group *group;  /* the device's */
    size_t used_before;   /* of the card, before this process opened it */
    struct { void *p; size_t cap; } scratch[SCRATCH_KINDS];
    struct err fault;     /* the first failure since the last sync; code 0: none */
    char notes[4096], new_notes[4096]; /* all so far; those not told before */
    size_t told;
};

static inline struct cuda *cuda_of(const struct device *d) { return (struct cuda *)d->state; }
static inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* Blocks for n pieces of work that a kernel strides over: enough to fill the card. */
static inline unsigned cuda_blocks(const struct cuda *c, int64_t n, int64_t each)
{
    return (unsigned)lesser(ceil_div(n, each), (int64_t)c->sms * 32);
}

/* Whether the kernel of the chain (chain.cuh) that is launched next may begin before the one in front has ended. The
 * ops of few rows are made of such kernels; anything else on the stream, an event too, parts them. */
static inline bool chain_link(struct cuda *c)
{
    bool link = c->overlap && c->few && c->behind;

    c->chained = c->behind = c->few;
    return link;
}

/* Notes a failure; returns E_DEVICE. cuda_check returns 0 where r is cudaSuccess. */
int cuda_fault(struct cuda *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cuda_check(struct cuda *c, cudaError_t r, const char *what);
/* A line of device.notes, unless it was one before. */
void cuda_note(struct cuda *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* At least nbytes of a kind, or NULL with the fault noted. Waits when it must grow. */
void *cuda_scratch(struct cuda *c, enum cuda_scratch_kind kind, size_t nbytes);

/* An op stands between cuda_begin and cuda_end, where kind is its number (OP_gemm). cuda_end gives
 * the op's return value from what happened so far (rc) and from its launches. flop: of its matrix
 * products, else 0. */
void cuda_begin(struct cuda *c, int kind);
/* The same of so many rows: of few, which take as long as an event does, the time is not taken unless all is. Where an
 * op has no rows, or many short ones, as norms of heads do, ROW_MOST elements count for one. */
enum { FEW_ROWS = 64, ROW_MOST = 1 << 14 };
void cuda_begin_rows(struct cuda *c, int kind, int64_t rows);
int cuda_end(struct device *d, int rc, int kind, double flop);

/* cuda_card.c, of GPU 'index': rates of the card; bytes of it in use by all, 0 where the driver
 * does not say; device.held_bytes, by what was in use before the first context was made. */
struct rates cuda_rates(const struct cudaDeviceProp *p, int index);
size_t cuda_card_used(int index);
size_t cuda_held(size_t used_before, int index);

/* cuda_clock.c: event pairs round the ops, read when the stream has been waited for. */
int clock_open(struct cuda_clock **k);
void clock_close(struct cuda_clock *k);
void clock_start(struct cuda_clock *k, int kind, cudaStream_t s);
bool clock_skip(struct cuda_clock *k, int kind, cudaStream_t s); /* as start, but timed only while profiling; whether
                                                                   an event was put on the stream */
void clock_stop(struct cuda_clock *k, int kind, double flop, cudaStream_t s);
void clock_rest(struct cuda_clock *k); /* before the host waits */
/* Seconds of matrix ops since the last call; those of exchanges are added to *link_s, those that the
 * ops waited for them to *wait_s. */
double clock_collect(struct cuda_clock *k, double *link_s, double *wait_s);
int clock_report(struct cuda_clock *k, bool all, struct op_time *t, int max); /* device.profile */

/* cuda_queue.c: device.host_alloc and what follows it. cuda_copy_async takes any addresses;
 * cuda_wait_all notes a failure; cuda_wait_own leaves out QUEUE_LINK, which waits for others. */
int cuda_host_alloc(struct device *d, size_t nbytes, void **p, struct err *e);
void cuda_host_release(struct device *d, void *p, size_t nbytes);
int cuda_send(struct device *d, void *host, const void *src, size_t nbytes);
int cuda_fetch(struct device *d, void *dst, const void *host, size_t nbytes);
int cuda_mark(struct device *d, enum queue q, int fence);
int cuda_await(struct device *d, enum queue q, int fence);
cudaError_t cuda_copy_async(void *dst, const void *src, size_t nbytes, cudaStream_t s);
cudaStream_t cuda_stream(struct cuda *c, enum queue q); /* NULL: with the fault noted */
void cuda_wait_all(struct cuda *c);
void cuda_wait_own(struct cuda *c);
void queues_close(struct cuda *c);

/* cuda_links.c. cuda_wait: whoever waits for a stream, as no wait may outlast the other ranks.
 * links_waited: every stream has been waited for. links_stuck: a wait was given up, so that
 * nothing can be freed that the GPU may still use. */
int cuda_link(struct device *d, struct err *e);
cudaError_t cuda_wait(struct cuda *c, cudaStream_t s);
void links_waited(struct cuda *c);
bool links_stuck(const struct cuda *c);
void links_close(struct cuda *c);

/* cuda_gemm.c */
int gemms_open(struct cuda *c, struct err *e);
void gemms_close(struct cuda *c);
int gemm_run(struct device *d, const struct op_gemm *a);
/* naive.cu: the product for shapes that cuBLASLt refuses. */
int gemm_naive(struct cuda *c, const struct op_gemm *a);
/* gemm_few.cu: of few rows, which reading the matrix bounds; all that go along with a, which it has to take. Those of
 * two or more by gemm_mma.cu. */
enum { FEW_PRODUCT = 16 };
bool gemm_few_takes(const struct op_gemm *a);
int gemm_few(struct cuda *c, const struct op_gemm *a);
int gemm_mma(struct cuda *c, const struct op_gemm *a);
/* Whether this build has, for the card that is in use, kernels that wait (chain.cuh). */
bool gemm_few_waits(void);

/* cuda_attention.c */
int attention_open(struct cuda *c, char *detail, size_t cap, struct err *e);
void attention_close(struct cuda *c);
/* flash.cu: our own kernels, for all that op_attention allows but head dimensions above 256 and
 * rows past 2^31. bounds: by half, device memory. */
int flash_forward(struct cuda *c, const struct op_attention *a,
                  const struct attention_bounds bounds[2]);
int flash_backward(struct cuda *c, const struct op_attention_back *a,
                   const struct attention_bounds bounds[2]);

/* flash_few.cu: few queries a segment over a cache of any type, both halves of the heads by one list. */
bool flash_few_takes(const struct op_attention *a);
int flash_few(struct cuda *c, const struct op_attention *a);
/* store.cu: rows of KV_INT8 to bfloat16. */
void store_unpack(struct cuda *c, int64_t rows, int64_t heads, int64_t dim, const void *x,
                  const float *scale, void *y);

#define CUDA_OP(name, matrix, words) \
    int cuda_##name(struct device *d, const struct op_##name *a);
OPS(CUDA_OP)
size_t cuda_attention_scratch_bytes(const struct device *d, int64_t rows, int64_t heads,
                                    int64_t kv_heads, int64_t dim);
size_t cuda_loss_scratch_bytes(const struct device *d, int64_t chunk, int64_t vocab);

C_END
#endif
