/* kernels/device.c - finds the device a run was asked for. */
#include "base/log.h"
#include "kernels/kernels.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the CUDA device lives: LONGLORA_CUDA, or beside the installed tools. */
static void cuda_path(char *buf, size_t cap)
{
    const char *env = getenv("LONGLORA_CUDA");
    char exe[4096], *slash;
    ssize_t n;

    buf[0] = '\0';
    if (env && *env) {
        snprintf(buf, cap, "%s", env);
        return;
    }
    n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return;
    exe[n] = '\0';
    if ((slash = strrchr(exe, '/')))
        *slash = '\0';
    snprintf(buf, cap, "%s/../lib/longlora/liblonglora_cuda.so", exe);
}

static int open_cuda(struct device *d, int threads, struct err *e)
{
    int (*opener)(struct device *, int, struct err *);
    char path[4200];
    void *lib, *sym;

    cuda_path(path, sizeof path);
    if (!*path || access(path, F_OK) != 0) {
        err_set(e, E_DEVICE, "this build has no CUDA device: there is no '%s'", path);
        err_hint(e, "use the CPU (device cpu), or name the module in LONGLORA_CUDA");
        return E_DEVICE;
    }
    if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE)) { /* the driver's: small */
        err_set(e, E_DEVICE, "no GPU can be used: there is no NVIDIA driver (libcuda.so.1)");
        err_hint(e, "use the CPU (device cpu), or install the driver");
        return E_DEVICE;
    }
    if (!(lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))) {
        err_set(e, E_DEVICE, "cannot load the CUDA device: %s", dlerror());
        err_hint(e, "use the CPU (device cpu), or install what it needs");
        return E_DEVICE;
    }
    sym = dlsym(lib, "device_open_cuda");
    if (!sym) {
        dlclose(lib);
        return err_set(e, E_DEVICE, "'%s' is not a CUDA device of longlora", path);
    }
    memcpy(&opener, &sym, sizeof sym);
    return opener(d, threads, e);
}

int device_open(struct device *d, const char *name, int threads, struct err *e)
{
    struct err why = { 0 };

    memset(d, 0, sizeof *d);
    if (strcmp(name, "cpu") == 0)
        return device_open_cpu(d, threads, e);
    if (strcmp(name, "cuda") == 0)
        return open_cuda(d, threads, e);
    if (strcmp(name, "auto") != 0) {
        err_set(e, E_DEVICE, "no device is called '%s'", name);
        err_hint(e, "devices are cpu, cuda and auto");
        return E_DEVICE;
    }
    if (open_cuda(d, threads, &why) == 0)
        return 0;
    log_debug("using the CPU: %s", why.msg);
    return device_open_cpu(d, threads, e);
}
