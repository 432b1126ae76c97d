/* kernels/cpu/cpu.c - the CPU device: opening, memory, scratch, sharing out work. */
#include "kernels/cpu/cpu.h"

#include "base/bytes.h"
#include "base/memory.h"
#include "kernels/group.h"
#include "kernels/product.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN_BYTES = 256, HUGE_BYTES = 4 << 20 };

/* calloc rather than mmap: pages stay untouched until used all the same, and ASan sees the
 * ends of blocks. The address calloc gave stands just below the one handed out. */
static int cpu_alloc(struct device *d, size_t nbytes, void **p, struct err *e)
{
    unsigned char *raw = NULL, *at;
    size_t total;

    (void)d;
    *p = NULL;
    if (add_ok(nbytes, ALIGN_BYTES + sizeof raw, &total))
        raw = calloc(1, total);
    if (!raw) {
        err_set(e, E_SYS, "out of memory: cannot allocate %zu bytes (%.1f GiB)", nbytes,
                (double)nbytes / (double)(1 << 30));
        return E_SYS;
    }
    /* room below for calloc's address, then up to the next multiple of ALIGN_BYTES */
    at = raw + sizeof raw;
    at += (ALIGN_BYTES - (uintptr_t)at % ALIGN_BYTES) % ALIGN_BYTES;
    memcpy(at - sizeof raw, &raw, sizeof raw);
    if (nbytes >= HUGE_BYTES) { /* fewer page faults and misses; only advice */
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        uintptr_t lo = ((uintptr_t)at + page - 1) / page * page;
        madvise((void *)lo, ((uintptr_t)at + nbytes - lo) / page * page, MADV_HUGEPAGE);
    }
    *p = at;
    return 0;
}

static void cpu_release(struct device *d, void *p)
{
    void *raw;

    (void)d;
    if (!p)
        return;
    memcpy(&raw, (unsigned char *)p - sizeof raw, sizeof raw);
    free(raw);
}

static int cpu_copy(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    if (nbytes)
        memmove(dst, src, nbytes);
    return 0;
}

static int cpu_zero(struct device *d, void *dst, size_t nbytes)
{
    (void)d;
    if (nbytes)
        memset(dst, 0, nbytes);
    return 0;
}

/* Everything is done when its call returns; what is left to tell is a failure. */
static int cpu_sync(struct device *d, struct err *e)
{
    struct err fault = cpu_of(d)->fault;

    cpu_of(d)->fault.code = 0;
    if (fault.code && e)
        *e = fault;
    return fault.code;
}

/* The device's memory is the host's, and a copy is done when its call returns. */
static void cpu_host_release(struct device *d, void *p, size_t nbytes)
{
    (void)nbytes;
    cpu_release(d, p);
}

/* Nothing to mark or wait for: copies are done when their calls return. */
static int cpu_fence(struct device *d, enum queue q, int fence)
{
    (void)d;
    return q < QUEUES && fence >= 0 && fence < FENCES ? 0 : E_BUG;
}

/* A buffer of at least nbytes; what was in it is lost. */
static int grow(unsigned char **p, size_t *cap, size_t nbytes)
{
    if (nbytes <= *cap)
        return 0;
    free(*p);
    *cap = 0;
    *p = aligned_alloc(64, (nbytes + 63) / 64 * 64);
    if (!*p)
        return E_SYS;
    *cap = nbytes;
    return 0;
}

/* The same number of bytes for each thread, in one block. The odd 64 bytes keep the threads'
 * parts from all beginning at the same place of a page. */
int cpu_scratch(struct cpu *c, size_t bytes_per_thread)
{
    size_t each = (bytes_per_thread + 4095) / 4096 * 4096 + 64, total;

    if (each <= c->scratch_cap)
        return 0;
    if (!mul_ok(each, (size_t)c->threads, &total))
        return E_SYS;
    free(c->scratch);
    c->scratch_cap = 0;
    if (!(c->scratch = aligned_alloc(64, total)))
        return E_SYS;
    c->scratch_cap = each;
    return 0;
}

void *cpu_scratch_of(const struct cpu *c, int thread)
{
    return c->scratch + (size_t)thread * c->scratch_cap;
}

int cpu_shared(struct cpu *c, size_t nbytes)
{
    return grow(&c->shared, &c->shared_cap, nbytes);
}

/* n rows or values, grain of them a task. */
struct ranges {
    cpu_range_fn *fn;
    const void *op;
    int64_t n, grain;
};

static void range_task(void *ctx, int64_t task, int thread)
{
    const struct ranges *r = ctx;

    (void)thread;
    r->fn(r->op, task * r->grain, min_i64((task + 1) * r->grain, r->n));
}

void cpu_ranges(struct cpu *c, int64_t n, int64_t grain, cpu_range_fn *fn, const void *op)
{
    struct ranges r = { fn, op, n, max_i64(grain, 1) };

    if (n > 0)
        pool_run(c->pool, ceil_div(n, r.grain), range_task, &r);
}

static void cpu_close(struct device *d)
{
    struct cpu *c = cpu_of(d);

    if (!c)
        return;
    pool_close(c->pool);
    free(c->t);
    free(c->scratch);
    free(c->shared);
    free(c->rope.inv_freq);
    free(c->rope.trig);
    free(c);
    d->state = NULL;
}

/* "model name" of /proc/cpuinfo; empty where there is none. */
static void processor(char *buf, size_t cap)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256], *at;

    buf[0] = '\0';
    while (f && !buf[0] && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && (at = strstr(line, ": "))) {
            at[strcspn(at, "\n")] = '\0';
            snprintf(buf, cap, "%s", at + 2);
        }
    if (f)
        fclose(f);
}

static size_t cpu_free_bytes(struct device *d)
{
    (void)d;
    return memory_free_bytes();
}

static void cpu_be_deterministic(struct device *d) { (void)d; } /* always so */

static int cpu_profile(struct device *d, bool all, struct op_time *t, int max)
{
    (void)d, (void)all, (void)t, (void)max;
    return 0;
}

static void fill_table(struct device *d)
{
    d->name = "cpu";
    d->act = DT_F32;
    d->alloc = cpu_alloc;
    d->release = cpu_release;
    d->free_bytes = cpu_free_bytes;
    d->to_device = d->to_host = d->copy = d->send = d->fetch = cpu_copy;
    d->host_alloc = cpu_alloc;
    d->host_release = cpu_host_release;
    d->mark = d->await = cpu_fence;
    d->zero = cpu_zero;
    d->sync = cpu_sync;
    d->close = cpu_close;
    d->profile = cpu_profile;
    d->be_deterministic = cpu_be_deterministic;
    d->attention_scratch_bytes = cpu_attention_scratch_bytes;
    d->loss_scratch_bytes = cpu_loss_scratch_bytes;
#define CPU_FILL(name, matrix, words) d->name = cpu_##name;
    OPS(CPU_FILL)
}

int device_open_cpu(struct device *d, const struct device_options *o, struct err *e)
{
    struct cpu *c = calloc(1, sizeof *c);
    char model[80];
    int rc = c ? 0 : err_set(e, E_SYS, "out of memory");

    memset(d, 0, sizeof *d);
    d->state = c;
    d->group = o->group ? o->group : group_alone();
    fill_table(d);
    device_add_product(d, &cpu_bf16);
    /* whatever fails, cpu_close frees what there is */
    if (rc == 0)
        rc = blas_open(&c->blas, e);
    if (rc == 0 && !(c->pool = pool_open(o->threads, e)))
        rc = E_SYS;
    if (rc == 0) {
        c->threads = pool_threads(c->pool);
        if (c->threads <= pool_processors())
            pool_stay_awake(c->pool);
        rc = blas_room(&c->blas, c->threads, e);
    }
    if (rc == 0) {
        c->t = aligned_alloc(128, (size_t)c->threads * sizeof *c->t);
        if (!c->t)
            rc = err_set(e, E_SYS, "out of memory for %d threads", c->threads);
        else
            memset(c->t, 0, (size_t)c->threads * sizeof *c->t);
    }
    if (rc < 0) {
        cpu_close(d);
        return rc;
    }
    processor(model, sizeof model);
    snprintf(d->detail, sizeof d->detail, "%s%s%d thread%s, %s", model, *model ? ", " : "",
             c->threads, c->threads == 1 ? "" : "s", c->blas.name);
    return 0;
}
