/* tests/emulate/emulate.cc - runs a grid of fibers, and what a warp does together. */
#include "tests/emulate/emulate.h"

#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/flash.cuh"

#include <ucontext.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

enum { STACK_BYTES = 64 << 10, ROOM_BYTES = 227 << 10, MOST_THREADS = 512 };
enum state { RUNS, IN_WARP, IN_BLOCK, IN_CHAIN, DONE };

struct copy {
    uint32_t to;
    const void *from;
    unsigned bytes;
    bool there;
    unsigned group;
};
struct fiber {
    ucontext_t context;
    enum state state;
    struct emulate_call *call;
    std::vector<copy> copies; /* under way */
    unsigned group;           /* that the next copy is of */
    bool let_next;            /* the kernel behind begin */
};
/* An array that other kernels write or read, and what is in it while a block may not touch it. */
struct kept {
    unsigned char *p;
    std::vector<unsigned char> held;
};

dim3 threadIdx, blockIdx, blockDim, gridDim;
alignas(1024) unsigned char room[ROOM_BYTES];
static fiber fibers[MOST_THREADS];
static unsigned char stacks[MOST_THREADS][STACK_BYTES];
static ucontext_t engine;
static unsigned now, room_bytes;
static size_t most_bytes; /* that a block may have */
static const std::function<void()> *body_of;
static char fault[200];
static bool backwards;
static std::vector<kept> arrays;
static bool hidden;
static int64_t most_shared = CUDA_LEAST_SHARED; /* memory of a block */
static int launches; /* of the chain's kernels, by the last op */

/* The first fault is kept; what follows runs on. */
static void wrong(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (!fault[0])
        vsnprintf(fault, sizeof fault, fmt, ap);
    va_end(ap);
}

static void wait_as(enum state s)
{
    fibers[now].state = s;
    swapcontext(&fibers[now].context, &engine);
}
void emulate(struct emulate_call *c)
{
    fibers[now].call = c;
    wait_as(IN_WARP);
}
void __syncthreads(void) { wait_as(IN_BLOCK); }

/* All of the array's bytes, of which others may be known already. */
static void array_of(const void *p, int64_t bytes)
{
    unsigned char *from = (unsigned char *)(uintptr_t)p;

    for (const kept &k : arrays)
        if (k.p == from)
            return;
    if (p)
        arrays.push_back(kept{ from, std::vector<unsigned char>((size_t)bytes) });
}

/* Rows of act in an array. */
static void rows_of(const void *p, int64_t rows, int64_t ld, int64_t n, int64_t each)
{
    array_of(p, ((rows - 1) * ld + n) * each);
}

static void hide(void)
{
    for (kept &k : arrays) {
        memcpy(k.held.data(), k.p, k.held.size());
        memset(k.p, 0xff, k.held.size());
    }
    hidden = true;
}

static void show(void)
{
    for (kept &k : arrays) {
        for (size_t i = 0; i < k.held.size(); i++)
            if (k.p[i] != 0xff)
                wrong("an array is written before the kernel in front is through");
        memcpy(k.p, k.held.data(), k.held.size());
    }
    hidden = false;
}

static bool is_known(const void *from, int64_t bytes)
{
    const unsigned char *p = (const unsigned char *)from;

    for (const kept &k : arrays)
        if (p >= k.p && p + bytes <= k.p + k.held.size())
            return true;
    return arrays.empty(); /* then none were named */
}

void chain_next(void) { fibers[now].let_next = true; }
void chain_wait(void)
{
    if (hidden)
        wait_as(IN_CHAIN);
}

/* A copy lands when it is waited for; until then there is a NaN where it will be. */
void emulate_copy(uint32_t to, const void *from, unsigned bytes, bool there)
{
    if (to % bytes || to + bytes > room_bytes)
        return wrong("a copy of %u bytes to %u of %u", bytes, to, room_bytes);
    if (there && hidden)
        return wrong("a copy begins before the kernel in front is through");
    if (there && !is_known(from, bytes))
        return wrong("a copy from outside the arrays");
    if (there && (uintptr_t)from % bytes)
        return wrong("a copy of %u bytes from an address that is no multiple", bytes);
    memset(room + to, 0xff, bytes);
    fibers[now].copies.push_back(copy{ to, from, bytes, there, fibers[now].group });
}
void emulate_copies_commit(void) { fibers[now].group++; }
void emulate_copies_wait(unsigned but)
{
    fiber *f = &fibers[now];
    size_t n = 0;

    for (; n < f->copies.size() && f->copies[n].group + but <= f->group; n++) {
        const copy &c = f->copies[n];
        if (c.there)
            memcpy(room + c.to, c.from, c.bytes);
        else
            memset(room + c.to, 0, c.bytes);
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)n);
}

static uint32_t shared16(uint32_t at)
{
    uint16_t h;

    if (at + 2 > room_bytes) {
        wrong("shared memory is read at %u of %u", at, room_bytes);
        return 0;
    }
    memcpy(&h, room + at, 2);
    return h;
}

/* PTX ISA, ldmatrix: lane 8 m + r names row r of matrix m. */
static void load_matrices(struct emulate_call *const c[32])
{
    bool turned = c[0]->kind == EMULATE_TURNED;

    for (int m = 0; m < 4; m++) {
        unsigned banks = 0;
        for (int r = 0; r < 8; r++)
            banks |= 1u << c[8 * m + r]->at / 16 % 8;
        if (banks != 0xff)
            wrong("eight rows of ldmatrix do not lie in all banks");
        for (int l = 0; l < 32; l++) {
            int g = l / 4, p = l % 4;
            uint32_t low = turned ? c[8 * m + 2 * p]->at + 2 * g : c[8 * m + g]->at + 4 * p;
            uint32_t high = turned ? c[8 * m + 2 * p + 1]->at + 2 * g : low + 2;
            c[l]->out[m] = shared16(low) | shared16(high) << 16;
        }
    }
}

static float half_of_pair(uint32_t x, int high)
{
    return __bfloat162float(__nv_bfloat16{ (uint16_t)(high ? x >> 16 : x) });
}

/* PTX ISA, mma.m16n8k16 with .bf16: element i of a lane's left factor, of eight, is at row g, for
 * i of 2, 3, 6, 7 g + 8, column 2p + i % 2, from i = 4 on 8 further; of its right factor, of four,
 * at row 2p + i % 2, from i = 2 on 8 further, column g. */
static void multiply(struct emulate_call *const c[32])
{
    float a[16][16], b[16][8];

    for (int l = 0; l < 32; l++) {
        int g = l / 4, p = l % 4;
        for (int i = 0; i < 8; i++)
            a[g + (i & 2 ? 8 : 0)][2 * p + i % 2 + (i & 4 ? 8 : 0)] =
                half_of_pair(c[l]->left[i / 2], i % 2);
        for (int i = 0; i < 4; i++)
            b[2 * p + i % 2 + (i & 2 ? 8 : 0)][g] = half_of_pair(c[l]->right[i / 2], i % 2);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + (i & 2 ? 8 : 0), col = 2 * (l % 4) + i % 2;
            float s = c[l]->sum[i];
            for (int k = 0; k < 16; k++)
                s += a[row][k] * b[k][col];
            c[l]->sum[i] = s;
        }
}

static void together(unsigned warp)
{
    struct emulate_call *c[32];
    float x[32];

    for (unsigned l = 0; l < 32; l++) {
        c[l] = fibers[warp * 32 + l].call;
        x[l] = c[l]->value;
        fibers[warp * 32 + l].state = RUNS;
        if (c[l]->kind != c[0]->kind)
            wrong("lanes of a warp do different things");
    }
    switch (c[0]->kind) {
    case EMULATE_WARP:
        break;
    case EMULATE_SHUFFLE:
        for (int l = 0; l < 32; l++)
            c[l]->value = x[c[l]->lane & 31];
        break;
    case EMULATE_LDMATRIX:
    case EMULATE_TURNED:
        load_matrices(c);
        break;
    case EMULATE_MMA:
        multiply(c);
        break;
    }
}

static void fiber_main(void)
{
    (*body_of)();
    wait_as(DONE);
}

/* Until the whole warp waits for the block, or is done. */
static void run_warp(unsigned warp)
{
    for (;;) {
        int in_warp = 0;
        for (unsigned l = 0; l < 32; l++) {
            fiber *f = &fibers[warp * 32 + l];
            now = warp * 32 + l;
            threadIdx.x = now;
            if (f->state == RUNS)
                swapcontext(&engine, &f->context);
            in_warp += f->state == IN_WARP;
        }
        if (in_warp == 0)
            return;
        if (in_warp < 32) {
            wrong("%d lanes of a warp wait for the others", in_warp);
            return;
        }
        together(warp);
    }
}

static void begin(fiber *f, unsigned char *stack)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
    f->state = RUNS;
    f->copies.clear();
    f->group = 0;
    f->let_next = false;
}

static unsigned threads_in(unsigned threads, enum state s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < threads; i++)
        n += fibers[i].state == s;
    return n;
}

static void go_on(unsigned threads, enum state s)
{
    for (unsigned i = 0; i < threads; i++)
        if (fibers[i].state == s)
            fibers[i].state = RUNS;
}

static void run_block(unsigned threads, bool chained)
{
    unsigned warps = threads / 32, in_block = threads, in_chain = 0;

    memset(room, 0xff, room_bytes);
    for (unsigned i = 0; i < threads; i++)
        begin(&fibers[i], stacks[i]);
    if (chained)
        hide();
    while ((in_block == threads || in_chain == threads) && !fault[0]) {
        if (in_chain == threads)
            show();
        for (unsigned w = 0; w < warps; w++)
            run_warp(backwards ? warps - 1 - w : w);
        in_block = threads_in(threads, IN_BLOCK);
        in_chain = threads_in(threads, IN_CHAIN);
        go_on(threads, IN_BLOCK);
        go_on(threads, IN_CHAIN);
    }
    if (in_block)
        wrong("%u threads of %u wait for the block", in_block, threads);
    if (in_chain)
        wrong("%u threads of %u wait for the kernel in front", in_chain, threads);
    if (hidden) {
        wrong("a block does not wait for the kernel in front");
        show();
    }
    for (unsigned i = 0; i < threads; i++) {
        if (!fibers[i].copies.empty())
            wrong("a thread ends before its copies");
        if (chained && !fibers[i].let_next)
            wrong("a thread does not let the kernel behind begin");
    }
}

static void run_grid(dim3 blocks, unsigned threads, const std::function<void()> &body, bool chained)
{
    body_of = &body;
    gridDim = blocks;
    blockDim = dim3(threads);
    if (threads > MOST_THREADS)
        wrong("a block of %u threads", threads);
    for (blockIdx.z = 0; blockIdx.z < blocks.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < blocks.y && !fault[0]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < blocks.x && !fault[0]; blockIdx.x++)
                run_block(threads, chained);
    blockIdx = dim3(0, 0, 0);
    body_of = NULL;
}

void emulate_grid(dim3 blocks, dim3 threads, const std::function<void()> &body)
{
    if (threads.y > 1 || threads.z > 1)
        return wrong("threads of a block in rows");
    run_grid(blocks, threads.x, body, false);
}

void emulate_chain(dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()> &body)
{
    if ((int64_t)shared_bytes > most_shared)
        wrong("a block wants %zu bytes of shared memory", shared_bytes);
    room_bytes = (unsigned)shared_bytes;
    launches++;
    run_grid(blocks, threads, body, true);
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 blocks, dim3 threads, void **args,
                             size_t bytes, cudaStream_t)
{
    void (*run)(struct flash) = (void (*)(struct flash))(uintptr_t)kernel;
    struct flash arg = *(const struct flash *)args[0];

    room_bytes = (unsigned)bytes;
    if (bytes > most_bytes)
        wrong("a block wants %zu bytes of shared memory", bytes);
    emulate_grid(blocks, threads.x, [&] { run(arg); });
    return 0;
}

extern "C" int cuda_check(struct cuda *, cudaError_t r, const char *) { return r; }

extern "C" int cuda_fault(struct cuda *, const char *fmt, ...)
{
    wrong("%s", fmt);
    return E_DEVICE;
}

extern "C" const char *emulate_attention(const struct op_attention_back *b,
                                         const struct attention_bounds bounds[2], int64_t any,
                                         bool from_last)
{
    struct flash f = flash_of(b, bounds);
    struct cuda c = {};

    f.together = 2;
    c.sms = 2;
    c.smem_bytes = any ? any : CUDA_LEAST_SHARED;
    most_bytes = (size_t)c.smem_bytes;
    fault[0] = '\0';
    backwards = from_last;
    any ? flash_forward_any(&c, &f) : flash_forward_tiles(&c, &f);
    if (b->d_o)
        any ? flash_backward_any(&c, &f) : flash_backward_tiles(&c, &f);
    return fault[0] ? fault : NULL;
}

/* Each kind grows and stays; the kernels of an op hand it on. */
extern "C" void *cuda_scratch(struct cuda *, enum cuda_scratch_kind kind, size_t nbytes)
{
    static std::vector<float> of[SCRATCH_KINDS];

    of[kind].assign(nbytes / sizeof(float) + 1, NAN);
    array_of(of[kind].data(), (int64_t)nbytes);
    return of[kind].data();
}

extern "C" void cuda_begin(struct cuda *c, int)
{
    c->few = c->chained = c->behind = false;
}

/* What is in front is of the chain always. */
extern "C" void cuda_begin_rows(struct cuda *c, int, int64_t rows)
{
    c->few = c->behind = rows <= FEW_ROWS;
    c->chained = false;
}

extern "C" int cuda_end(struct device *d, int rc, int, double)
{
    const struct cuda *c = cuda_of(d);

    if (rc == 0 && !c->chained)
        wrong("an op of few rows is not of the chain");
    return rc;
}

static const char *emulate_with(bool from_last, const std::function<int(struct device *)> &run)
{
    struct cuda c = {};
    struct device d = {};

    c.sms = 4;
    c.overlap = true;
    c.smem_bytes = most_shared;
    d.state = &c;
    room_bytes = 0;
    launches = 0;
    fault[0] = '\0';
    backwards = from_last;
    cuda_begin_rows(&c, 0, 1);
    if (run(&d) < 0)
        wrong("the op fails");
    arrays.clear();
    return fault[0] ? fault : NULL;
}

extern "C" void emulate_shared(int64_t bytes) { most_shared = bytes; }
extern "C" int emulate_launches(void) { return launches; }

extern "C" const char *emulate_few(const struct op_attention *a, bool from_last)
{
    int64_t each = a->kv_type == KV_INT8 ? 1 : 2, n = a->kv_heads * a->dim;

    if (!flash_few_takes(a))
        return "refused";
    rows_of(a->q, a->q_rows, a->q_ld, a->heads * a->dim, 2);
    rows_of(a->o, a->q_rows, a->q_ld, a->heads * a->dim, 2);
    rows_of(a->k, a->kv_rows, a->kv_ld, n, each);
    rows_of(a->v, a->kv_rows, a->kv_ld, n, each);
    array_of(a->k_scale, a->kv_rows * a->kv_heads * 4);
    array_of(a->v_scale, a->kv_rows * a->kv_heads * 4);
    array_of(a->lse, a->heads * a->q_rows * 4);
    return emulate_with(from_last, [&](struct device *d) { return flash_few(cuda_of(d), a); });
}

extern "C" const char *emulate_gemm(const struct op_gemm *a, bool from_last)
{
    if (!gemm_few_takes(a))
        return "refused";
    rows_of(a->a, a->m, a->lda, a->k, 2);
    for (const struct op_gemm *g = a; g; g = g->also) {
        int64_t each = g->c_type == DT_F32 ? 4 : 2;

        rows_of(g->b.data, g->n, g->ldb, g->k, 2); /* which may be what an op has made */
        rows_of(g->c, g->m, g->ldc, g->n, each);
        rows_of(g->addend, g->m, g->ldc, g->n, each);
    }
    return emulate_with(from_last, [&](struct device *d) { return gemm_few(cuda_of(d), a); });
}

extern "C" const char *emulate_rmsnorm(const struct op_rmsnorm *a, bool from_last)
{
    const void *acts[] = { a->x, a->y, a->add };

    for (const void *p : acts)
        array_of(p, a->rows * a->dim * 2);
    array_of(a->rstd, a->rows * 4);
    array_of(a->w, a->dim * 4);
    return emulate_with(from_last, [&](struct device *d) { return cuda_rmsnorm(d, a); });
}

extern "C" const char *emulate_rope(const struct op_rope *a, bool from_last)
{
    int64_t stride = a->stride ? a->stride : a->dim;

    rows_of(a->x, a->rows, a->ld, (a->heads - 1) * stride + a->dim, 2);
    rows_of(a->x2, a->rows, a->ld2, (a->heads2 - 1) * stride + a->dim, 2);
    return emulate_with(from_last, [&](struct device *d) { return cuda_rope(d, a); });
}

extern "C" const char *emulate_store(const struct op_store *a, int64_t cache_rows, bool from_last)
{
    int64_t n = a->heads * a->dim, each = a->type == KV_INT8 ? 1 : 2;

    rows_of(a->k, a->rows, a->ld, n, 2);
    rows_of(a->v, a->rows, a->ld, n, 2);
    array_of(a->k_to, cache_rows * n * each);
    array_of(a->v_to, cache_rows * n * each);
    array_of(a->k_scale, cache_rows * a->heads * 4);
    array_of(a->v_scale, cache_rows * a->heads * 4);
    return emulate_with(from_last, [&](struct device *d) { return cuda_store(d, a); });
}

extern "C" const char *emulate_swiglu(const struct op_swiglu *a, bool from_last)
{
    const void *acts[] = { a->gate, a->up, a->y };

    for (const void *p : acts)
        array_of(p, a->n * 2);
    return emulate_with(from_last, [&](struct device *d) { return cuda_swiglu(d, a); });
}

static void unruly(int how, float *x)
{
    float v = 0;

    if (how != UNRULY_NO_NEXT)
        chain_next();
    if (how == UNRULY_READS)
        v = x[threadIdx.x];
    if (how == UNRULY_WRITES && threadIdx.x == 7)
        x[7] = 1;
    if (how != UNRULY_NO_WAIT && (how != UNRULY_SOME_WAIT || threadIdx.x < 20))
        chain_wait();
    if (how != UNRULY_READS)
        v = x[threadIdx.x];
    x[threadIdx.x] = v + 1;
}

extern "C" const char *emulate_unruly(int how, float *x)
{
    array_of(x, 32 * 4);
    return emulate_with(false, [&](struct device *d) {
        chain_launch(cuda_of(d), unruly, dim3(1), 32, how, x);
        return 0;
    });
}
