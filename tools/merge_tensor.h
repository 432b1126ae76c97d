/* tools/merge_tensor.h - one tensor of a merged model, computed, hashed and written (internal). */
#ifndef TOOLS_MERGE_TENSOR_H
#define TOOLS_MERGE_TENSOR_H
#include "base/pool.h"
#include "tools/merge_plan.h"

/* Threads, and what they need again for every tensor. Zero it, open it, close it always. */
struct merger {
    struct pool *pool;
    volatile sig_atomic_t *stop; /* may be NULL */
    double scale;                /* of B A */
    struct merge_thread *threads;
    float *a, *b;                /* the pair in hand, as float32 */
    int64_t a_cap, b_cap;
    unsigned char *in_sums, *out_sums; /* of the blocks of what is read and written */
    size_t in_cap, out_cap;
    float max_delta;             /* largest |scale B A| so far; */
    int64_t unchanged;           /* merged entries that rounding left as they were */
};
int merger_open(struct merger *g, int threads, double scale, volatile sig_atomic_t *stop,
                struct err *e);
void merger_close(struct merger *g);

/* Where a tensor's bytes go: begin says how many, then any thread writes, in any order; end says their
 * block_hash, 0 where the type has none here. */
struct merge_sink {
    void *to;
    int (*begin)(void *to, size_t nbytes, struct err *e);
    int (*write_at)(void *to, size_t at, const void *p, size_t n, struct err *e);
    int (*end)(void *to, uint64_t hash, struct err *e);
};

/* The whole of m as w's next tensor. What is read agrees with its hash, where it has one; *base_hash
 * becomes that of the base's tensor, or stays where m has other values. E_DATA, E_IO, E_SYS; E_NO
 * "stopped" after *stop. */
int merger_write(struct merger *g, const struct merge_sink *w, const struct merge_item *m,
                 uint64_t *base_hash, struct err *e);
/* The block_hash of what is not written, by all threads; E_DATA where it is not t's own. */
int merger_hash(struct merger *g, const struct tensor *t, uint64_t *hash, struct err *e);

#endif
