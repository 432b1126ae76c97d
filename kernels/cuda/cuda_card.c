/* kernels/cuda/cuda_card.c - what the card can do, and what this process holds of its memory. */
#include "kernels/cuda/cuda.h"

#include "kernels/cards.h"
#include "kernels/cuda/sizes.h"

#include <dlfcn.h>
#include <string.h>

/* Of a card that the table does not name, by what the driver says of it: operations a clock of a
 * multiprocessor are its architecture's. */
struct rates cuda_rates(const struct cudaDeviceProp *p, int index)
{
    const struct card *known = card_named(p->name);
    struct card c = { .link_gb = 25 };
    int khz = 0, memory_khz = 0, bits = 0, sm = 10 * p->major + p->minor;
    double each = sm == 80 ? 2048 : sm < 90 ? (strstr(p->name, "GeForce") ? 512 : 1024)
                  : sm < 120 ? 4096 : 1024;

    if (known)
        return card_rates(known);
    cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, index);
    cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, index);
    cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, index);
    (void)cudaGetLastError();
    c.tflops = 1e-9 * khz * p->multiProcessorCount * each;
    c.memory_tb = 1e-9 * memory_khz * 2 * bits / 8;
    return card_rates(&c);
}

static void *symbol(void *lib, const char *name) { return lib ? dlsym(lib, name) : NULL; }

/* By the driver's management library, which wants no context: as nvidia-smi counts. */
size_t cuda_card_used(int index)
{
    struct { unsigned long long total, free, used; } mem = { 0, 0, 0 };
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL), *card = NULL;
    void *init = symbol(lib, "nvmlInit_v2"), *end = symbol(lib, "nvmlShutdown");
    void *find = symbol(lib, "nvmlDeviceGetHandleByPciBusId_v2");
    void *info = symbol(lib, "nvmlDeviceGetMemoryInfo");
    int (*init_fn)(void), (*end_fn)(void), (*find_fn)(const char *, void **);
    int (*info_fn)(void *, void *);
    char bus[32];
    bool ok = init && end && find && info;

    if (ok) {
        memcpy(&init_fn, &init, sizeof init);
        memcpy(&end_fn, &end, sizeof end);
        memcpy(&find_fn, &find, sizeof find);
        memcpy(&info_fn, &info, sizeof info);
        ok = cudaDeviceGetPCIBusId(bus, sizeof bus, index) == cudaSuccess && init_fn() == 0;
        (void)cudaGetLastError();
        if (ok) {
            ok = find_fn(bus, &card) == 0 && info_fn(card, &mem) == 0;
            end_fn();
        }
    }
    if (lib)
        dlclose(lib);
    return ok ? (size_t)mem.used : 0;
}

size_t cuda_held(size_t used_before, int index)
{
    size_t now = used_before ? cuda_card_used(index) : 0, left = 0, all = 0;

    if (now < used_before || now == 0) /* not told: as if nobody else had any */
        now = cudaMemGetInfo(&left, &all) == cudaSuccess ? all - left : CUDA_OPEN_BYTES;
    else
        now -= used_before;
    return now + CUDA_LATER_BYTES;
}
