/* kernels/kernels.h - the op table: what a device can do. The model is written against this. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H
#include "base/err.h"
#include "kernels/group.h"
#include "kernels/mat.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * A device is a table of functions. Every op takes one struct by const pointer, whose fields
 * are shapes, strides in elements, and addresses in the device's memory; the struct itself
 * and the small arrays it names as "host" live on the host and are read before the call
 * returns. Ops may be queued: only sync, to_host and sum_squares' result are points where
 * the host may look. Ops that cannot fail by contract still return 0 or a negative E_* code
 * (E_DEVICE, E_BUG), because on a GPU a launch can.
 *
 * Element types. "act" is the device's activation type, dev->act: float32 on the CPU, bf16 on
 * CUDA. So are the compute copies of trained weights. A frozen matrix has its own type (struct mat,
 * mat.h): act, or one that the device has a product for. RMSNorm weights, softmax statistics,
 * losses, master weights, gradients of weights and AdamW moments are float32 everywhere. Sums run
 * in float32 or wider.
 *
 * Matrices are row-major; ld is the distance of rows in elements. Rows are tokens. All counts
 * are int64_t: rows * channels passes 2^31 at 100k tokens.
 *
 * Determinism: for equal inputs the CPU device gives equal bits for any number of threads;
 * others do when told to (be_deterministic).
 */

/* C[m][n] = alpha * op(A) op(B) + beta * D, op(A) [m][k], op(B) [k][n]. D is C, or another matrix
 * of its layout where addend names one, which must not overlap C; beta == 0 ignores what it
 * holds, NaN included. a is act, b act or any type that the device has a product for (else
 * E_DEVICE, and sync names the type); then ldb is the length of its rows. c is c_type: act (DT of
 * the device), or DT_F32 for the gradients of weights. Transposed means stored as [k][m] (A),
 * [n][k] (B). varies: m is one of many (windows of any length): what a device finds out about a
 * product it may find out once for all m from a power of two to the next. also: NULL, or another
 * product with the same A (a, lda, m, k, trans_a), which is computed too, maybe in one with this; none reads
 * what another writes. They are the caller's and need not outlive the call. */
struct op_gemm {
    bool trans_a, trans_b;
    int64_t m, n, k;
    float alpha, beta;
    const void *a;
    struct mat b;
    void *c;
    int64_t lda, ldb, ldc;
    enum dtype c_type;
    const void *addend; /* NULL: C itself */
    bool varies;
    const struct op_gemm *also;
};

/* y = (w + shift) * x * rstd (+ add), rstd[row] = 1 / sqrt(mean(x^2) + eps); Zhang and Sennrich
 * 2019, arXiv:1910.07467. x, y, add act [rows][dim] packed; w, rstd float32. rstd and add may be
 * NULL, y may be x or add. A norm of each head is rows * heads rows of a head's channels. */
struct op_rmsnorm {
    int64_t rows, dim;
    float eps;
    const void *x;
    const float *w;
    void *y;
    float *rstd;
    const void *add;
    float shift;
};

/* dx += the gradient of x, or = where overwrite is set; dw, unless NULL, += that of w.
 * x, dy, dx act [rows][dim]. */
struct op_rmsnorm_back {
    int64_t rows, dim;
    const void *x, *dy;
    const float *w, *rstd;
    void *dx;
    float *dw;
    bool overwrite;
    float shift;
};

/* y = w * (x - mean) * rstd + b, rstd[row] = 1 / sqrt(mean((x - mean)^2) + eps), means over the row; Ba,
 * Kiros and Hinton 2016, arXiv:1607.06450. x, y act [rows][dim] packed; w, b, rstd float32. b and rstd
 * may be NULL, y may be x. */
struct op_layernorm {
    int64_t rows, dim;
    float eps;
    const void *x;
    const float *w, *b;
    void *y;
    float *rstd;
};

/* dx += the gradient of x, or = where overwrite is set; dw and db, unless NULL, += those of w and b. x,
 * dy, dx act [rows][dim]; dx may be dy. */
struct op_layernorm_back {
    int64_t rows, dim;
    const void *x, *dy;
    const float *w, *rstd;
    void *dx;
    float *dw, *db;
    bool overwrite;
};

/* Copies columns from one layout to another: of each row and head, y's first dim channels = x's. Head h of
 * x is at column h * x_stride of rows x_ld apart; y alike. act; no overlap. */
struct op_heads {
    int64_t rows, heads, dim;
    const void *x;
    int64_t x_ld, x_stride;
    void *y;
    int64_t y_ld, y_stride;
};

/* Rotary embedding in place, half-rotation form (Hugging Face Llama): for channel i < dim/2 of
 * each head, (a, b) = (x[i], x[i + dim/2]) turns by angle position * inv_freq[i], or by its
 * negative when inverse is set (the backward). position of row r is first + r % period.
 * x act, row stride ld, head h at h * stride (0: dim): a part of each head may turn, its first dim
 * channels. inv_freq float32 [dim/2], host memory.
 * scale multiplies the result (YaRN's attention factor; 1 otherwise).
 * x2, unless NULL, is another array of as many rows, turned alike: queries and keys at once.
 * firsts, unless NULL, stands for first: one for every period rows (host memory), of texts that are
 * at different lengths. */
struct op_rope {
    int64_t rows, ld, heads, dim, first, period;
    bool inverse;
    float scale;
    const float *inv_freq;
    void *x;
    int64_t ld2, heads2;
    void *x2;
    int64_t stride;
    const int64_t *firsts;
};

/* How a cache holds keys and values: as act; as bfloat16; or as 8-bit integers, each head of a row
 * with a scale of its own, |x| / 127 of its largest: x = scale * integer, and 0 where all are 0. */
enum kv_type { KV_ACT, KV_BF16, KV_INT8, KV_TYPES };

/* Rows of keys and values into a cache. Piece s is rows [cu[s], cu[s + 1]) and goes to the cache's
 * rows from to[s] on; cu ascends from 0 to rows (host memory). k, v act [rows][ld], head h at column
 * h * dim; k_to, v_to of the type, [...][heads * dim]; k_scale, v_scale float32 [...][heads], for
 * KV_INT8. v NULL: keys alone. No two pieces meet. */
struct op_store {
    int64_t rows, heads, dim, ld;
    const void *k, *v;
    enum kv_type type;
    void *k_to, *v_to;
    float *k_scale, *v_scale;
    int64_t n;
    const int64_t *cu, *to;
};

/* Causal attention inside segments. A segment is a run of rows of queries, and a run of rows of
 * keys and values: the same rows in training, others where the keys are a cache, or begin on
 * another rank. Keys of a segment stand at positions 0, 1, ..., its queries at first, first + 1,
 * ...; the query at position p sees the keys at max(0, p - window + 1)..p that the segment has
 * (window 0: at 0..p), as Hugging Face's Mistral does.
 *     training, two documents of 3 and 5 rows   cu {0, 3, 8}
 *     2 new rows behind 4 in a cache of 10      cu {0, 2}  kv {0, 10}  first {4}: they see 5 and 6
 *     4 rows, a group's 2 first on another rank cu {0, 0, 4}  kv {0, 3, 9}  first {0, 2}: keys
 *                                               0..2 are of no use to this list's heads
 * A query that sees nothing (first < 0, or keys that end before its window) has o 0 and lse
 * -infinity. Keys that no query sees are not used, whatever they hold; their dk, dv are 0.
 * Lists are host memory, 0 = cu[0] <= cu[1] <= ... <= cu[n] = q_rows, kv alike to kv_rows, n >= 1.
 * Query heads [0, heads/2) follow seg[0], the others seg[1]; dense attention passes the same list
 * twice. Query head h reads key/value head h / (heads / kv_heads).
 * q, o act [q_rows][q_ld], head h at column h * dim; k, v act [kv_rows][kv_ld].
 * Forward alone: k and v may be a cache's (op_store), which is said (cached) and whose number of rows
 * changes from call to call; of kv_type, with their scales.
 * A score is s = scale q k, or where cap is above 0 cap * tanh(s / cap): Gemma Team 2024,
 * arXiv:2408.00118, section 2.
 * lse float32 [heads][q_rows]: natural log of the sum of exp of these scores.
 * Rows come out alike, to rounding, however queries are cut into calls.
 * Never allocates anything that grows with rows squared. */
struct op_segments {
    int64_t n;
    const int64_t *cu;    /* [n + 1] rows of queries: segment s has [cu[s], cu[s + 1]) */
    const int64_t *kv;    /* [n + 1] rows of keys; NULL: those of cu, and kv_rows is q_rows */
    const int64_t *first; /* [n] NULL: 0 */
};
struct op_attention {
    int64_t q_rows, kv_rows, heads, kv_heads, dim, q_ld, kv_ld, window;
    float scale, cap;
    struct op_segments seg[2];
    const void *q, *k, *v;
    void *o;
    float *lse;
    bool cached;
    enum kv_type kv_type;
    const float *k_scale, *v_scale; /* [kv_rows][kv_heads], of KV_INT8 */
};

/* dq, dk, dv are overwritten; layouts as q, k, v. o and lse are the forward's.
 * scratch: attention_scratch_bytes of it, overwritten (begins with sum(do * o), float32
 * [heads][q_rows]; the rest is as the device likes). */
struct op_attention_back {
    struct op_attention fwd;
    const void *d_o;
    void *dq, *dk, *dv;
    float *scratch;
};

/* y = f(gate) * up, or f(gate) where up is NULL; act, n elements; y may be gate or up. f is
 *     GATE_SILU       z / (1 + exp(-z))
 *     GATE_GELU       z / 2 (1 + erf(z / sqrt 2)); Hendrycks and Gimpel 2016, arXiv:1606.08415
 *     GATE_GELU_TANH  z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) */
enum gate { GATE_SILU, GATE_GELU, GATE_GELU_TANH };
struct op_swiglu {
    int64_t n;
    const void *gate, *up;
    void *y;
    enum gate f;
};
/* d_gate and, unless up is NULL, d_up overwritten from dy; each may be dy, gate or up. y, unless NULL and
 * apart from all others, is the forward's result once more. */
struct op_swiglu_back {
    int64_t n;
    const void *gate, *up, *dy;
    void *d_gate, *d_up;
    void *y;
    enum gate f;
};

/* y[r] = table[ids[r]]. table [vocab][dim] of a type as op_gemm's b, ids device int32 in
 * [0, vocab), y act. */
struct op_embed {
    int64_t rows, dim, vocab;
    struct mat table;
    const int32_t *ids;
    void *y;
};
/* d_table float32 [vocab][dim] += rows of dy (act), summed in the order of the rows. */
struct op_embed_back {
    int64_t rows, dim, vocab;
    const int32_t *ids;
    const void *dy;
    float *d_table;
};

/* Linear layer and cross-entropy, in chunks of rows so that logits never exist whole.
 * h act [rows][dim] (already normed), w [vocab][dim] as op_gemm's b, targets device int32:
 * -1 = not scored. Logits x = h w^T, or where cap is above 0 cap * tanh(x / cap).
 * nll[r] = -log softmax(logits)[target] in float32, 0 where not scored.
 * With dh set: gradients of grad_scale * sum(nll): dh act is overwritten; dw, unless NULL,
 * float32 [vocab][dim] +=.
 * scratch: act or float32 as the device likes, loss_scratch_bytes(dev, chunk, vocab).
 * varies: as op_gemm's, of rows. */
struct op_loss {
    int64_t rows, dim, vocab, chunk;
    const void *h;
    struct mat w;
    const int32_t *targets;
    float *nll;
    float grad_scale, cap;
    void *dh;
    float *dw;
    void *scratch;
    bool varies;
};

/* One AdamW step (Loshchilov and Hutter, arXiv:1711.05101) over flat float32 arrays:
 * m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr (m/(1-b1^step) / (sqrt(v/(1-b2^step)) +
 * eps) + decay w). g is grad * grad_scale. step counts from 1. */
struct op_adamw {
    int64_t n, step;
    float lr, beta1, beta2, eps, decay, grad_scale;
    float *w, *m, *v;
    const float *grad;
};

/* y += x, act, n elements. */
struct op_add {
    int64_t n;
    const void *x;
    void *y;
};

/* x *= by, act, n elements. */
struct op_scale {
    int64_t n;
    float by;
    void *x;
};

/* x = cap * tanh(x / cap), float32 (logits), n elements; cap above 0. */
struct op_softcap {
    int64_t n;
    float cap;
    float *x;
};

/* y[r][c] = x[r][c], or += where add is set: some columns of packed or wider rows; act, cols in
 * each of the rows. x and y must not overlap. */
struct op_strip {
    int64_t rows, cols, x_ld, y_ld;
    bool add;
    const void *x;
    void *y;
};

/* y = x / (1 - p) where an element is kept, else 0; act, n elements; y may be x. p = drop / 65536, drop
 * below 65536. Element i is kept where the 16 bits numbered k % 4, from the low ones, of
 * mix64(seed ^ k / 4) (base/perm.h) are drop or more, k = first + i: so what is kept depends on numbers
 * alone, not on devices, nor on how elements are cut into calls. */
struct op_dropout {
    int64_t n, first;
    uint64_t seed;
    uint32_t drop;
    const void *x;
    void *y;
};

/* dst[i] = src[i] between element types. */
struct op_cast {
    int64_t n;
    const void *src;
    enum dtype from;
    void *dst;
    enum dtype to;
};

/* *sum (host) = sum of x[i]^2, float32 in, float64 out, in an order fixed by n. */
struct op_sum_squares {
    int64_t n;
    const float *x;
    double *sum;
};

/* Every op, once: its name, 1 where its time counts in gemm_s, and what a failure calls it. From
 * the name x follow device.x, OP_x, the declarations of cpu_x and cuda_x and the name in a table
 * of times; struct op_x stands above. */
#define OPS(OP)                                            \
    OP(gemm, 1, "a matrix product")                        \
    OP(attention, 1, "attention")                          \
    OP(attention_back, 1, "attention's backward")          \
    OP(loss, 1, "the loss")                                \
    OP(rmsnorm, 0, "rmsnorm")                              \
    OP(rmsnorm_back, 0, "rmsnorm's backward")              \
    OP(layernorm, 0, "layernorm")                          \
    OP(layernorm_back, 0, "layernorm's backward")          \
    OP(heads, 0, "a copy of heads")                        \
    OP(rope, 0, "rope")                                    \
    OP(store, 0, "writing to the cache")                   \
    OP(swiglu, 0, "swiglu")                                \
    OP(swiglu_back, 0, "swiglu's backward")                \
    OP(embed, 0, "the embedding")                          \
    OP(embed_back, 0, "the embedding's backward")          \
    OP(adamw, 0, "adamw")                                  \
    OP(add, 0, "adding arrays")                            \
    OP(scale, 0, "a multiplication")                       \
    OP(softcap, 0, "capping logits")                       \
    OP(strip, 0, "a copy of columns")                      \
    OP(dropout, 0, "dropout")                              \
    OP(cast, 0, "a conversion of types")                   \
    OP(sum_squares, 0, "a sum of squares")
#define OP_NUMBER(name, matrix, words) OP_##name,
enum op { OPS(OP_NUMBER) OP_COUNT };

struct op_time {
    const char *name;
    int64_t calls;
    double s, flop; /* flop of matrix products only */
    bool beside;    /* on a queue of its own: s is no part of the ops' time */
};

/* What a device does stands in queues. All but send and fetch is done on QUEUE_OPS. A queue
 * keeps its order; between queues nothing is ordered but by fences: what comes after
 * await(q, f) on queue q waits for all that stood before the last mark(p, f) on queue p. A fence
 * is a number below FENCES, used again as one likes. sync waits for every queue but QUEUE_LINK,
 * where others may be waited for: for that the ops await a fence on it. release and close wait for
 * all. */
enum queue { QUEUE_OPS, QUEUE_OUT, QUEUE_IN, QUEUE_LINK, QUEUES };
enum { FENCES = 64, FENCE_LINK = 30, /* two, for what is queued on QUEUE_LINK */
       FENCE_LINE = 32, FENCES_LINE = 32 }; /* for what ranks of one sequence have under way (line.h) */

/* What a device does in a second at long rows, to foretell a step's time; 0: not known. */
struct rates {
    double matrix;                    /* operations of matrix products */
    double attention, attention_back; /* the same of attention */
    double memory;                    /* bytes that elementwise ops move */
    double out, in;                   /* bytes to and from the host's memory, one way alone */
};

struct device;
struct mat_product;
enum { MAT_PRODUCTS = 32 };

/* Links between the devices of a group, that need no host (NCCL). Each is queued on QUEUE_LINK,
 * by every rank in the same order, and does what group.h says of its namesake; n of the parts is
 * a multiple of the group's size. A wait for it (sync, a copy) ends with E_DEVICE when a rank is
 * gone (group.check), the group is over or the links fail, and they are of no use from then on. */
struct device_move { /* what one rank of the run is sent, and what it sends; nothing where n is 0 */
    int rank;
    const void *out;
    void *in;
    size_t n_out, n_in;
};
struct device_links {
    int (*sum)(struct device *d, float *x, int64_t n);
    int (*sum_parts)(struct device *d, float *x, int64_t n);
    int (*share_parts)(struct device *d, float *x, int64_t n);
    /* Between these ranks and this one alone, all at once: who is sent something waits for it. To
     * itself a rank copies. */
    int (*move)(struct device *d, const struct device_move *m, int n);
};

struct device {
    const char *name;  /* "cpu", "cuda" */
    char detail[256];  /* processor and matrix library, for people */
    enum dtype act;
    bool own_memory; /* its memory is not the host's */
    size_t host_bytes; /* free in the host that it is taken to stand in; 0: it stands in this one */
    size_t held_bytes; /* of its own memory, that this process took by opening it, and what ops
                          come to need beside the memory they are given */
    size_t later_bytes; /* the latter part of them: not taken yet */
    int64_t most_head_dim; /* channels of a head that its attention takes; 0: any number */
    struct rates rates;
    struct group *group; /* of processes, that it was opened in (group.h) */
    const struct device_links *links; /* NULL: none are open */
    const struct mat_product *products[MAT_PRODUCTS]; /* of types besides act (product.h) */
    int n_products;
    void *state; /* the device's own */

    /* Memory. alloc gives 256-byte aligned, zeroed memory, or E_SYS / E_DEVICE. */
    int (*alloc)(struct device *d, size_t nbytes, void **p, struct err *e);
    void (*release)(struct device *d, void *p);
    size_t (*free_bytes)(struct device *d); /* memory that could be allocated now */
    int (*to_device)(struct device *d, void *dst, const void *src, size_t nbytes);
    int (*to_host)(struct device *d, void *dst, const void *src, size_t nbytes);
    int (*copy)(struct device *d, void *dst, const void *src, size_t nbytes);
    int (*zero)(struct device *d, void *dst, size_t nbytes);
    /* The host's memory, zeroed, 256-byte aligned, that copies run to and from beside the
     * ops: to_device, to_host and copy take its addresses on either side, ops do not. send goes
     * from the device into it, on QUEUE_OUT; fetch back, on QUEUE_IN. */
    int (*host_alloc)(struct device *d, size_t nbytes, void **p, struct err *e);
    void (*host_release)(struct device *d, void *p, size_t nbytes);
    int (*send)(struct device *d, void *host, const void *src, size_t nbytes);
    int (*fetch)(struct device *d, void *dst, const void *host, size_t nbytes);
    int (*mark)(struct device *d, enum queue q, int fence);
    int (*await)(struct device *d, enum queue q, int fence);
    int (*sync)(struct device *d, struct err *e); /* waits; the first error since the last */
    void (*close)(struct device *d);
    /* Opens links: all ranks call it together, and all get the same. 0 too where there can be
     * none: a note says why. Itself NULL: it has none. After be_deterministic, before free_bytes
     * and held_bytes are read: links take memory. */
    int (*link)(struct device *d, struct err *e);
    /* From now on equal inputs give equal bits, at what cost that takes. Before the first op
     * and before anything is sized by the device. */
    void (*be_deterministic)(struct device *d);

    /* Ops. */
#define OP_ENTRY(name, matrix, words) int (*name)(struct device *d, const struct op_##name *a);
    OPS(OP_ENTRY)
    /* What attention_back and loss want as scratch. */
    size_t (*attention_scratch_bytes)(const struct device *d, int64_t q_rows, int64_t heads,
                                      int64_t kv_heads, int64_t dim);
    size_t (*loss_scratch_bytes)(const struct device *d, int64_t chunk, int64_t vocab);

    /* Time by kind of op since opening, after a sync: fills at most max, returns how many kinds
     * there are, 0 where the device does not measure. all: from now on every kind is timed, not
     * the matrix ones alone. */
    int (*profile)(struct device *d, bool all, struct op_time *t, int max);
    /* What a person should be told of how ops run, a line each: what they fall back to, and why.
     * Each once; NULL: nothing new. May itself be NULL (device_notes looks). */
    const char *(*notes)(struct device *d);

    /* Seconds spent inside matrix products (gemm, attention's and loss's included) since
     * opening, and floating-point operations done there; for --bench and the metrics. */
    double gemm_s, gemm_flop;
    double link_s; /* spent in exchanges over its links, waits for other ranks among them */
    double link_wait_s; /* that ops waited for them, with nothing else to do */
};

struct device_options {
    const char *name;    /* "cpu", "cuda", or "auto": cuda where there is one, else cpu */
    int index;           /* of the GPUs that this process sees, from 0 */
    int threads;         /* 0: all */
    struct group *group; /* NULL: of one process */
};

/* E_DEVICE when there is none of that name, or the module that has it was built for other tools
 * (device_abi); E_CONFIG where there are GPUs but none of that index, for auto too: of the processes
 * of one run some would compute otherwise than the others; E_SYS when the matrix library cannot be loaded (environment:
 * LONGLORA_BLAS=builtin or a path to a CBLAS library). d is the caller's struct; close it with
 * d->close(d). */
int device_open(struct device *d, const struct device_options *o, struct err *e);

static inline const char *device_notes(struct device *d) { return d->notes ? d->notes(d) : NULL; }

/* Where device_open finds one: each opener fills d, or says why it cannot (E_DEVICE). */
typedef int device_opener(struct device *d, const struct device_options *o, struct err *e);
device_opener device_open_cpu;

/* What tools and a module must have alike before one writes into the other's struct device. The
 * build makes 'headers' of the text of this file and of all that it includes (Makefile,
 * DEVICE_ABI), so nothing has to be counted up by hand. A module exports one by the name
 * "device_abi", which is read before any of its functions is called. */
struct device_abi {
    uint64_t headers, device_bytes;
};

C_END
#endif
