/* tests/imitate/ops.c - the CUDA device with the CPU's ops: what kernels/cuda does on the host is the real
 * thing, memory, streams, events and links are imitated (streams.c, nccl.c), and an op is the CPU's, queued
 * on the stream of the ops. Of float32, so that results are the CPU's. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sizes.h"

#include <stdlib.h>
#include <string.h>

static struct device cpu; /* computes; touched by the ops' stream alone once it is open */
static bool opened;

/* ---- arrays of the host that an op names are its own for the call only ---- */

static const void *kept(const void *x, size_t nbytes)
{
    void *copy = x ? malloc(nbytes + 1) : NULL;

    if (copy)
        memcpy(copy, x, nbytes);
    return copy;
}

static const int64_t *kept_rows(const int64_t *x, int64_t n) { return kept(x, (size_t)n * sizeof *x); }

static void drop(const void *x) { free((void *)(uintptr_t)x); }

static void keep_lists(struct op_attention *a, bool keep)
{
    for (int h = 0; h < 2; h++) {
        struct op_segments *s = &a->seg[h];

        if (keep) {
            s->cu = kept_rows(s->cu, s->n + 1), s->kv = kept_rows(s->kv, s->n + 1);
            s->first = kept_rows(s->first, s->n);
        } else {
            drop(s->cu), drop(s->kv), drop(s->first);
        }
    }
}

static void keep_attention(struct op_attention *a, bool keep) { keep_lists(a, keep); }
static void keep_attention_back(struct op_attention_back *a, bool keep) { keep_lists(&a->fwd, keep); }

static void keep_rope(struct op_rope *a, bool keep)
{
    if (keep) {
        a->inv_freq = kept(a->inv_freq, (size_t)(a->dim / 2) * sizeof *a->inv_freq);
        a->firsts = kept_rows(a->firsts, a->firsts ? (a->rows + a->period - 1) / a->period : 0);
    } else {
        drop(a->inv_freq), drop(a->firsts);
    }
}

static void keep_store(struct op_store *a, bool keep)
{
    if (keep)
        a->cu = kept_rows(a->cu, a->n + 1), a->to = kept_rows(a->to, a->n);
    else
        drop(a->cu), drop(a->to);
}

#define AS_IT_IS(name) \
    static void keep_##name(struct op_##name *a, bool keep) { (void)a, (void)keep; }
AS_IT_IS(gemm) AS_IT_IS(loss) AS_IT_IS(rmsnorm) AS_IT_IS(rmsnorm_back) AS_IT_IS(layernorm)
AS_IT_IS(layernorm_back) AS_IT_IS(heads) AS_IT_IS(swiglu) AS_IT_IS(swiglu_back) AS_IT_IS(embed)
AS_IT_IS(embed_back) AS_IT_IS(adamw) AS_IT_IS(add) AS_IT_IS(scale) AS_IT_IS(softcap) AS_IT_IS(strip)
AS_IT_IS(dropout) AS_IT_IS(cast) AS_IT_IS(sum_squares)

/* ---- ops ---- */

#define QUEUE(name, matrix, words)                                                             \
    static void run_##name(void *arg)                                                          \
    {                                                                                          \
        struct op_##name *a = arg;                                                             \
                                                                                               \
        if (cpu.name(&cpu, a) < 0)                                                             \
            imitated_die("the CPU cannot do " words);                                          \
        keep_##name(a, false);                                                                 \
    }                                                                                          \
    static int queue_##name(struct device *d, const struct op_##name *a)                       \
    {                                                                                          \
        struct op_##name *own = malloc(sizeof *own);                                           \
                                                                                               \
        *own = *a;                                                                             \
        keep_##name(own, true);                                                                \
        cuda_begin(cuda_of(d), OP_##name);                                                     \
        imitated_launch(cuda_of(d)->stream, run_##name, own);                                  \
        return cuda_end(d, 0, OP_##name, 0);                                                   \
    }
OPS(QUEUE)

/* Products that go along are queued by themselves; a sum is there when the call returns. */
int cuda_gemm(struct device *d, const struct op_gemm *a)
{
    int rc = 0;

    for (; a && rc == 0; a = a->also) {
        struct op_gemm one = *a;

        one.also = NULL;
        rc = queue_gemm(d, &one);
    }
    return rc;
}

int cuda_sum_squares(struct device *d, const struct op_sum_squares *a)
{
    int rc = queue_sum_squares(d, a);

    return rc < 0 ? rc : cuda_check(cuda_of(d), cuda_wait(cuda_of(d), cuda_of(d)->stream), "a sum");
}

#define PLAIN(name) \
    int cuda_##name(struct device *d, const struct op_##name *a) { return queue_##name(d, a); }
PLAIN(attention) PLAIN(attention_back) PLAIN(loss) PLAIN(rmsnorm) PLAIN(rmsnorm_back) PLAIN(layernorm)
PLAIN(layernorm_back) PLAIN(heads) PLAIN(rope) PLAIN(store) PLAIN(swiglu) PLAIN(swiglu_back) PLAIN(embed)
PLAIN(embed_back) PLAIN(adamw) PLAIN(add) PLAIN(scale) PLAIN(softcap) PLAIN(strip) PLAIN(dropout) PLAIN(cast)

/* ---- what the device opens besides ---- */

bool gemm_few_waits(void) { return false; }
int gemms_open(struct cuda *c, struct err *e) { return (void)c, (void)e, 0; }
void gemms_close(struct cuda *c) { (void)c; }
void attention_close(struct cuda *c) { (void)c; }
int attention_open(struct cuda *c, char *detail, size_t cap, struct err *e)
{
    (void)c, (void)e;
    strncpy(detail, "imitated", cap);
    return 0;
}
size_t cuda_attention_scratch_bytes(const struct device *d, int64_t rows, int64_t heads, int64_t kv_heads,
                                    int64_t dim)
{
    (void)d;
    return cpu.attention_scratch_bytes(&cpu, rows, heads, kv_heads, dim);
}
size_t cuda_loss_scratch_bytes(const struct device *d, int64_t chunk, int64_t vocab)
{
    (void)d;
    return cpu.loss_scratch_bytes(&cpu, chunk, vocab);
}

/* kernels/cuda/cuda_device.c's device_open_cuda, by another name. */
device_opener real_open_cuda;

__attribute__((visibility("default"))) device_opener device_open_cuda;
int device_open_cuda(struct device *d, const struct device_options *o, struct err *e)
{
    int rc = opened ? 0 : device_open_cpu(&cpu, &(struct device_options){ .threads = 1 }, e);

    opened = opened || rc == 0;
    if (rc == 0 && (rc = real_open_cuda(d, o, e)) == 0)
        d->act = DT_F32, d->most_head_dim = 0;
    return rc;
}
