/* kernels/cuda/cuda_device.c - the CUDA device: opening, memory, failures, scratch. */
#include "kernels/cuda/cuda.h"

#include "kernels/cuda/sizes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Notes the first failure alone: those after it are usually its consequences. cuda_sync
 * reports it and forgets it. */
int cuda_fault(struct cuda *c, const char *fmt, ...)
{
    char msg[512];
    va_list ap;

    if (c->fault.code)
        return E_DEVICE;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return err_set(&c->fault, E_DEVICE, "%s", msg);
}

int cuda_check(struct cuda *c, cudaError_t r, const char *what)
{
    if (r == cudaSuccess)
        return 0;
    /* CUDA remembers a failed call, and the next op's cuda_end would take it for its own */
    (void)cudaGetLastError();
    return cuda_fault(c, "%s failed on the GPU: %s", what, cudaGetErrorString(r));
}

/* A line for a person, each one once. Where the buffer is full, further lines are dropped. */
void cuda_note(struct cuda *c, const char *fmt, ...)
{
    size_t n = strlen(c->notes), len;
    char line[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    len = strlen(line);
    if (strstr(c->notes, line) || n + len + 2 > sizeof c->notes)
        return;
    snprintf(c->notes + n, sizeof c->notes - n, "%s\n", line);
}

/* Lines that were told stay, so that none comes twice. */
static const char *cuda_notes(struct device *d)
{
    struct cuda *c = cuda_of(d);
    size_t n = strlen(c->notes);
    const char *from = c->notes + c->told;

    if (c->told == n)
        return NULL;
    c->told = n;
    /* without the newline at the end */
    snprintf(c->new_notes, sizeof c->new_notes, "%.*s", (int)strlen(from) - 1, from);
    return c->new_notes;
}

static double gib(size_t n) { return (double)n / 0x1p30; }

/* Memory is handed out cleared. */
static int cuda_alloc(struct device *d, size_t nbytes, void **p, struct err *e)
{
    size_t left = 0, all = 0;
    cudaError_t r;

    *p = NULL;
    cuda_of(d)->chained = false;
    r = cudaMalloc(p, nbytes ? nbytes : 1);
    if (r == cudaSuccess)
        r = cudaMemsetAsync(*p, 0, nbytes ? nbytes : 1, cuda_of(d)->stream);
    if (r == cudaSuccess)
        return 0;
    cudaFree(*p);
    *p = NULL;
    /* a failure that CUDA still remembers would be reported by the next op */
    (void)cudaGetLastError();
    if (r != cudaErrorMemoryAllocation)
        return err_set(e, E_DEVICE, "cannot allocate GPU memory: %s", cudaGetErrorString(r));
    cudaMemGetInfo(&left, &all);
    return err_set(e, E_DEVICE, "out of GPU memory: cannot allocate %zu bytes (%.1f GiB), %.1f "
                                "of %.1f GiB are free", nbytes, gib(nbytes), gib(left),
                                gib(all));
}

static void cuda_release(struct device *d, void *p)
{
    if (!p)
        return;
    cuda_wait_all(cuda_of(d)); /* what is queued may still use it */
    if (!links_stuck(cuda_of(d))) /* freeing would wait for the GPU */
        cudaFree(p);
}

static size_t cuda_free_bytes(struct device *d)
{
    size_t left = 0, all = 0;

    (void)d;
    return cudaMemGetInfo(&left, &all) == cudaSuccess ? left : 0;
}

/* The host's memory is pageable: it may be reused as soon as the call returns. */
static int transfer(struct device *d, void *dst, const void *src, size_t nbytes)
{
    struct cuda *c = cuda_of(d);
    int rc = 0;

    if (!nbytes)
        return 0;
    clock_rest(c->clock);
    c->chained = false;
    rc = cuda_check(c, cuda_copy_async(dst, src, nbytes, c->stream), "a copy");
    return rc ? rc : cuda_check(c, cuda_wait(c, c->stream), "work queued before a copy");
}

static int cuda_to_device(struct device *d, void *dst, const void *src, size_t nbytes)
{
    return transfer(d, dst, src, nbytes);
}

static int cuda_to_host(struct device *d, void *dst, const void *src, size_t nbytes)
{
    return transfer(d, dst, src, nbytes);
}

static int cuda_copy(struct device *d, void *dst, const void *src, size_t nbytes)
{
    struct cuda *c = cuda_of(d);
    int rc = 0;

    cuda_begin(c, CUDA_COPY);
    if (nbytes && dst != src)
        rc = cuda_check(c, cuda_copy_async(dst, src, nbytes, c->stream), "a copy");
    return cuda_end(d, rc, CUDA_COPY, 0);
}

static int cuda_zero(struct device *d, void *dst, size_t nbytes)
{
    struct cuda *c = cuda_of(d);
    int rc = 0;

    cuda_begin(c, CUDA_COPY);
    if (nbytes)
        rc = cuda_check(c, cudaMemsetAsync(dst, 0, nbytes, c->stream), "clearing");
    return cuda_end(d, rc, CUDA_COPY, 0);
}

/* Waits for all queued work, then tells the first failure since the last call, if any. */
static int cuda_sync(struct device *d, struct err *e)
{
    struct cuda *c = cuda_of(d);
    int code;

    clock_rest(c->clock);
    c->chained = false;
    cuda_wait_own(c);
    d->gemm_s += clock_collect(c->clock, &d->link_s, &d->link_wait_s);
    code = c->fault.code;
    if (code && e)
        *e = c->fault;
    c->fault.code = 0;
    return code;
}

/* Scratch that grows when it must and is never given back before the end. The work queued so
 * far may still use the old one, so it is waited for. */
void *cuda_scratch(struct cuda *c, enum cuda_scratch_kind kind, size_t nbytes)
{
    void *p = NULL;

    if (nbytes <= c->scratch[kind].cap && c->scratch[kind].p)
        return c->scratch[kind].p;
    cuda_wait_all(c); /* freeing waits for all streams, for other ranks too, and does not look for them */
    if (c->fault.code)
        return NULL;
    cudaFree(c->scratch[kind].p);
    c->scratch[kind].p = NULL;
    c->scratch[kind].cap = 0;
    nbytes = nbytes < 256 ? 256 : nbytes;
    if (cudaMalloc(&p, nbytes) != cudaSuccess) {
        (void)cudaGetLastError();
        cuda_fault(c, "out of GPU memory: no %.2f GiB for an operation's scratch\nlower --ctx, "
                   "--micro, --keep-layers or --memory", gib(nbytes));
        return NULL;
    }
    c->scratch[kind].p = p;
    c->scratch[kind].cap = nbytes;
    return p;
}

/* What every op does around its work: cuda_begin starts its time, cuda_end stops it, counts
 * its operations and finds a launch that failed. kind: the op, or one of the copies. */
void cuda_begin(struct cuda *c, int kind)
{
    c->few = c->chained = c->behind = false;
    clock_start(c->clock, kind, c->stream);
}

void cuda_begin_rows(struct cuda *c, int kind, int64_t rows)
{
    bool behind = c->chained;

    if (rows > FEW_ROWS) {
        cuda_begin(c, kind);
        return;
    }
    c->behind = !clock_skip(c->clock, kind, c->stream) && behind;
    c->few = true;
    c->chained = false; /* until this op launches one */
}

int cuda_end(struct device *d, int rc, int kind, double flop)
{
/* the words for each op in a message, from the list of all ops */
#define WORDS(name, matrix, words) words,
    static const char *const what[CUDA_KINDS] = {
        OPS(WORDS) "a copy", "waiting for a copy", "waiting for other ranks", "a copy to the host", "a copy from the host",
        "an exchange between GPUs"
    };
    struct cuda *c = cuda_of(d);

    clock_stop(c->clock, kind, flop, c->stream);
    d->gemm_flop += flop;
    if (rc == 0)
        rc = cuda_check(c, cudaGetLastError(), what[kind]);
    return rc;
}

static int cuda_profile(struct device *d, bool all, struct op_time *t, int max)
{
    return clock_report(cuda_of(d)->clock, all, t, max);
}

/* Queued work comes first, since it may use anything that is freed after it. */
static void cuda_close(struct device *d)
{
    struct cuda *c = cuda_of(d);

    if (!c)
        return;
    if (c->stream)
        cuda_wait_all(c);
    if (links_stuck(c)) /* freeing would wait for the GPU; the process is about to end */
        return;
    links_close(c);
    queues_close(c);
    attention_close(c);
    gemms_close(c);
    clock_close(c->clock);
    for (int i = 0; i < SCRATCH_KINDS; i++)
        cudaFree(c->scratch[i].p);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
    d->state = NULL;
}

/* Said once in the device's description, however often it is asked for. */
static void cuda_be_deterministic(struct device *d)
{
    struct cuda *c = cuda_of(d);
    size_t n = strlen(d->detail);

    if (!c->deterministic)
        snprintf(d->detail + n, sizeof d->detail - n, ", deterministic");
    c->deterministic = true;
}

static void fill_table(struct device *d)
{
    d->name = "cuda";
    d->act = DT_BF16;
    d->own_memory = true;
    d->most_head_dim = CUDA_MOST_HEAD_DIM;
    d->alloc = cuda_alloc;
    d->release = cuda_release;
    d->free_bytes = cuda_free_bytes;
    d->to_device = cuda_to_device;
    d->to_host = cuda_to_host;
    d->copy = cuda_copy;
    d->zero = cuda_zero;
    d->host_alloc = cuda_host_alloc;
    d->host_release = cuda_host_release;
    d->send = cuda_send;
    d->fetch = cuda_fetch;
    d->mark = cuda_mark;
    d->await = cuda_await;
    d->sync = cuda_sync;
    d->close = cuda_close;
    d->profile = cuda_profile;
    d->notes = cuda_notes;
    d->link = cuda_link;
    d->be_deterministic = cuda_be_deterministic;
    d->attention_scratch_bytes = cuda_attention_scratch_bytes;
    d->loss_scratch_bytes = cuda_loss_scratch_bytes;
#define FILL(name, matrix, words) d->name = cuda_##name;
    OPS(FILL)
}

/* Whether a variable of the environment is set to anything but nothing or 0. */
static bool wish(const char *name)
{
    const char *v = getenv(name);

    return v && *v && strcmp(v, "0") != 0;
}

/* Whether kernels may overlap. Machine code of sm_80, or PTX of it that the driver compiled, has no waiting. */
static bool overlap_wished(const struct cuda *c)
{
    const char *v = getenv("LONGLORA_OVERLAP");

    return c->sm >= 90 && gemm_few_waits() && !(v && strcmp(v, "0") == 0);
}

/* Of a product that our own kernels compute, the most rows. */
static int few_wished(void)
{
    const char *v = getenv("LONGLORA_FEW");
    char *end = NULL;
    long n = v ? strtol(v, &end, 10) : FEW_PRODUCT;

    return v && (end == v || *end || n < 0 || n > FEW_PRODUCT) ? FEW_PRODUCT : (int)n;
}

/* Is there a driver, a GPU, one that this build has code for? */
static int find_gpu(struct cuda *c, struct cudaDeviceProp *p, struct err *e)
{
    int n = 0, driver = 0, runtime = 0;
    cudaError_t r = cudaGetDeviceCount(&n);

    if (r == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        err_set(e, E_DEVICE, "the NVIDIA driver is too old: it supports CUDA %d.%d, this needs "
                             "%d.%d", driver / 1000, driver % 1000 / 10, runtime / 1000,
                             runtime % 1000 / 10);
        return err_hint(e, "update the driver, or use the CPU (device cpu)");
    }
    if (r != cudaSuccess || n == 0) {
        err_set(e, E_DEVICE, "no GPU can be used: %s",
                r == cudaSuccess ? "none was found" : cudaGetErrorString(r));
        return err_hint(e, "nvidia-smi shows what the driver sees; or use the CPU (device cpu)");
    }
    if (c->index < 0 || c->index >= n) {
        err_set(e, E_CONFIG, "there is no GPU %d: this process sees %d, counted from 0", c->index,
                n);
        return err_hint(e, "CUDA_VISIBLE_DEVICES says which GPUs it sees");
    }
    /* cudaFree(NULL) does nothing but start the GPU's context, which can fail */
    if ((r = cudaSetDevice(c->index)) != cudaSuccess ||
        (r = cudaGetDeviceProperties(p, c->index)) != cudaSuccess ||
        (r = cudaFree(NULL)) != cudaSuccess)
        return err_set(e, E_DEVICE, "cannot use GPU %d: %s", c->index, cudaGetErrorString(r));
    if (p->major < 8) {
        err_set(e, E_DEVICE, "'%s' has compute capability %d.%d, this needs 8.0 (bfloat16)",
                p->name, p->major, p->minor);
        return err_hint(e, "use the CPU (device cpu)");
    }
    /* sm: 90 for compute capability 9.0 */
    c->sm = 10 * p->major + p->minor;
    c->sms = p->multiProcessorCount;
    c->smem_bytes = wish("LONGLORA_SMALL_TILES") ? CUDA_LEAST_SHARED
                                                : (int64_t)p->sharedMemPerBlockOptin;
    return 0;
}

/* A kernel of this module has to run here: an architecture it was not built for shows now. */
static int try_kernel(struct device *d, const struct cudaDeviceProp *p, struct err *e)
{
    struct cuda *c = cuda_of(d);
    struct err why = { 0 };
    void *x = cuda_scratch(c, SCRATCH_PARTIAL, 1 << 16);
    int rc = x ? cuda_check(c, cudaMemsetAsync(x, 0, 4, c->stream), "clearing memory") : E_DEVICE;

    if (rc == 0)
        /* one value, from the scratch's start to 256 bytes on */
        rc = cuda_cast(d, &(struct op_cast){ 1, x, DT_F32, (char *)x + 256, DT_BF16 });
    if (cuda_sync(d, &why) == 0 && rc == 0)
        return 0;
    err_set(e, E_DEVICE, "this build does not run on '%s' (compute capability %d.%d): %s", p->name,
            p->major, p->minor, why.code ? why.msg : "no code for it");
    return err_hint(e, "build with CUDA_ARCHS=%d%d, or use the CPU (device cpu)", p->major, p->minor);
}

#define EXPORT __attribute__((visibility("default")))
EXPORT extern const struct device_abi device_abi;
const struct device_abi device_abi = { DEVICE_ABI, sizeof(struct device) };

EXPORT device_opener device_open_cuda;
int device_open_cuda(struct device *d, const struct device_options *o, struct err *e)
{
    struct cuda *c = calloc(1, sizeof *c);
    struct cudaDeviceProp p;
    /* read before this process takes memory of its own on the GPU */
    size_t used = cuda_card_used(o->index);
    char with[96] = "";
    int rc = c ? 0 : err_set(e, E_SYS, "out of memory");

    memset(d, 0, sizeof *d);
    d->state = c;
    d->group = o->group; /* device_open put one there */
    fill_table(d);
    if (rc == 0) {
        c->group = o->group;
        c->index = o->index;
        c->used_before = used;
        rc = find_gpu(c, &p, e);
    }
    if (rc == 0) {
        if (clock_open(&c->clock) < 0)
            rc = err_set(e, E_SYS, "out of memory");
        else if (cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking) != cudaSuccess)
            rc = err_set(e, E_DEVICE, "cannot create a CUDA stream");
    }
    if (rc == 0)
        rc = try_kernel(d, &p, e);
    if (rc == 0)
        rc = gemms_open(c, e);
    if (rc == 0)
        rc = attention_open(c, with, sizeof with, e);
    if (rc < 0) {
        /* without a clock nothing else was opened yet, and cuda_close needs one */
        if (c && !c->clock)
            free(c), d->state = NULL;
        else
            cuda_close(d);
        return rc;
    }
    c->overlap = overlap_wished(c);
    c->few_product = few_wished();
    d->rates = cuda_rates(&p, c->index);
    d->held_bytes = cuda_held(used, c->index);
    d->later_bytes = CUDA_LATER_BYTES;
    snprintf(d->detail, sizeof d->detail, "%.100s, %.0f GiB, %s%s", p.name, gib(p.totalGlobalMem), with,
             c->sm >= 90 && !c->overlap ? ", no overlap" : "");
    if (wish("LONGLORA_DETERMINISTIC"))
        cuda_be_deterministic(d);
    return 0;
}
