/* kernels/cuda/cuda_card.c - what the card can do, and what this process holds of its memory. */
#include "kernels/cuda/cuda.h"

#include "kernels/cards.h"
#include "kernels/cuda/sizes.h"

#include <dlfcn.h>
#include <string.h>

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

/* What this process holds of the card now: the difference to what was used before it began. */
size_t cuda_held(size_t used_before, int index)
{
    size_t now = used_before ? cuda_card_used(index) : 0, left = 0, all = 0;

    if (now < used_before || now == 0) /* not told: as if nobody else had any */
        now = cudaMemGetInfo(&left, &all) == cudaSuccess ? all - left : CUDA_OPEN_BYTES;
    else
        now -= used_before;
    return now + CUDA_LATER_BYTES;
}
