/* kernels/cuda/cuda_card.c - what the card can do, and what this process holds of its memory. */
#include "kernels/cuda/cuda.h"

#include "kernels/cards.h"
#include "kernels/cuda/sizes.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

/* Speeds of the card, from its name and the clocks that the driver tells. */
struct rates cuda_rates(const struct cudaDeviceProp *p, int index)
{
    struct card_facts f = { .name = p->name, .arch = 10 * p->major + p->minor,
                            .sms = p->multiProcessorCount };

    cudaDeviceGetAttribute(&f.khz, cudaDevAttrClockRate, index);
    cudaDeviceGetAttribute(&f.memory_khz, cudaDevAttrMemoryClockRate, index);
    cudaDeviceGetAttribute(&f.bus_bits, cudaDevAttrGlobalMemoryBusWidth, index);
    (void)cudaGetLastError();
    return card_rates_of(&f);
}

/* NULL where there is no library, or no function of that name in it. */
static void *symbol(void *lib, const char *name) { return lib ? dlsym(lib, name) : NULL; }

/* What the driver's management library says of a card. */
struct card_use {
    size_t all;  /* bytes in use, as nvidia-smi counts */
    size_t mine; /* by this process; 0: it does not say, as where process ids are a container's */
};
struct process { /* nvmlProcessInfo_t */
    unsigned pid;
    unsigned long long used;
    unsigned gpu, compute;
};
enum { MOST_PROCESSES = 128 };

/* The functions of the library that are wanted, by NVML's names. */
struct nvml {
    int (*init)(void), (*end)(void), (*find)(const char *, void **);
    int (*memory)(void *, void *), (*processes)(void *, unsigned *, struct process *);
};

/* False: a function is missing. Only what processes take may be unknown. */
static bool load(struct nvml *l, void *lib)
{
    const struct { const char *name; void *to; } want[] = {
        { "nvmlInit_v2", &l->init }, { "nvmlShutdown", &l->end },
        { "nvmlDeviceGetHandleByPciBusId_v2", &l->find },
        { "nvmlDeviceGetMemoryInfo", &l->memory },
        { "nvmlDeviceGetComputeRunningProcesses_v3", &l->processes } };

    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        void *f = symbol(lib, want[i].name);
        memcpy(want[i].to, &f, sizeof f);
    }
    return l->init && l->end && l->find && l->memory;
}

/* Of the card at a bus address; the library is open. */
static struct card_use use_of(const struct nvml *l, const char *bus)
{
    struct { unsigned long long total, free, used; } mem = { 0, 0, 0 };
    struct process p[MOST_PROCESSES];
    struct card_use u = { 0, 0 };
    unsigned n = MOST_PROCESSES;
    void *card = NULL;

    if (l->find(bus, &card) != 0 || l->memory(card, &mem) != 0)
        return u;
    u.all = (size_t)mem.used;
    if (!l->processes || l->processes(card, &n, p) != 0)
        return u;
    for (unsigned i = 0; i < n && i < MOST_PROCESSES; i++)
        if (p[i].pid == (unsigned)getpid() && p[i].used <= mem.total) /* ~0: not told */
            u.mine = (size_t)p[i].used;
    return u;
}

/* Wants no context; a card is found by its bus, as CUDA's numbers are not NVML's. */
static struct card_use card_use(int index)
{
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
    struct card_use u = { 0, 0 };
    struct nvml l;
    char bus[32];

    if (load(&l, lib) && cudaDeviceGetPCIBusId(bus, sizeof bus, index) == cudaSuccess &&
        l.init() == 0) {
        u = use_of(&l, bus);
        l.end();
    }
    (void)cudaGetLastError();
    if (lib)
        dlclose(lib);
    return u;
}

size_t cuda_card_used(int index) { return card_use(index).all; }

/* What this process holds of the card now: what it is said to, or the difference to what was used
 * before it began, if that is less. */
size_t cuda_held(size_t used_before, int index)
{
    struct card_use now = card_use(index);
    size_t held = now.all > used_before ? now.all - used_before : 0, left = 0, all = 0;

    if (used_before == 0 || held == 0) /* not told: as if nobody else had any */
        held = cudaMemGetInfo(&left, &all) == cudaSuccess ? all - left : CUDA_OPEN_BYTES;
    if (now.mine > 0 && now.mine < held)
        held = now.mine;
    return held + CUDA_LATER_BYTES;
}
