/* kernels/device.c - finds the device a run was asked for. */
#include "base/log.h"
#include "kernels/group.h"
#include "kernels/kernels.h"

#include <dlfcn.h>
#include <inttypes.h>
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
    /* the module is in lib/ beside the bin/ that the program lies in */
    n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return;
    exe[n] = '\0';
    if ((slash = strrchr(exe, '/')))
        *slash = '\0';
    snprintf(buf, cap, "%s/../lib/longlora/liblonglora_cuda.so", exe);
}

/* Were the module and these tools made from the same headers? No function of the module has been
 * called yet. */
static int check_abi(const char *path, void *lib, struct err *e)
{
    static const struct device_abi own = { DEVICE_ABI, sizeof(struct device) };
    const struct device_abi *its = dlsym(lib, "device_abi");

    if (its && its->headers == own.headers && its->device_bytes == own.device_bytes)
        return 0;
    err_set(e, E_DEVICE, "'%s' was built for another version of longlora (interface %" PRIx64
            ", these tools have %" PRIx64 ")", path, its ? its->headers : 0, own.headers);
    return err_hint(e, "build and install both together, or use the CPU (device cpu)");
}

/* Loads the module and finds the function that opens its device. */
static int load_cuda(const char *path, device_opener **opener, bool *stale, struct err *e)
{
    void *lib, *sym;
    int rc = E_DEVICE;

    if (!(lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))) {
        err_set(e, E_DEVICE, "cannot load the CUDA device: %s", dlerror());
        return err_hint(e, "use the CPU (device cpu), or install what it needs");
    }
    if (!(sym = dlsym(lib, "device_open_cuda")))
        err_set(e, E_DEVICE, "'%s' is not a CUDA device of longlora", path);
    else
        *stale = (rc = check_abi(path, lib, e)) < 0;
    if (rc < 0)
        dlclose(lib);
    else
        memcpy(opener, &sym, sizeof sym);
    return rc;
}

/* *stale: there is a module, but of another version. */
static int open_cuda(struct device *d, const struct device_options *o, bool *stale,
                     struct err *e)
{
    device_opener *opener = NULL;
    char path[4200];
    int rc;

    cuda_path(path, sizeof path);
    if (!*path || access(path, F_OK) != 0) {
        err_set(e, E_DEVICE, "this build has no CUDA device: there is no '%s'", path);
        return err_hint(e, "use the CPU (device cpu), or give the path of the module in "
                           "LONGLORA_CUDA");
    }
    if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE)) { /* the driver's: small */
        err_set(e, E_DEVICE, "no GPU can be used: there is no NVIDIA driver (libcuda.so.1)");
        return err_hint(e, "use the CPU (device cpu), or install the driver");
    }
    rc = load_cuda(path, &opener, stale, e);
    return rc < 0 ? rc : opener(d, o, e);
}

int device_open(struct device *d, const struct device_options *options, struct err *e)
{
    struct device_options o = *options;
    struct err why = { 0 };
    bool stale = false;
    int rc;

    memset(d, 0, sizeof *d);
    if (!o.group)
        o.group = group_alone();
    if (strcmp(o.name, "cpu") == 0)
        return device_open_cpu(d, &o, e);
    if (strcmp(o.name, "cuda") == 0)
        return open_cuda(d, &o, &stale, e);
    if (strcmp(o.name, "auto") != 0) {
        err_set(e, E_DEVICE, "no device is called '%s'", o.name);
        err_hint(e, "devices are cpu, cuda and auto");
        return E_DEVICE;
    }
    rc = open_cuda(d, &o, &stale, &why);
    if (rc == E_CONFIG) /* there are GPUs, so the CPU is not what was meant */
        *e = why;
    if (rc == 0 || rc == E_CONFIG)
        return rc;
    if (stale) /* somebody meant to use a GPU */
        log_warn("using the CPU: %.*s", (int)strcspn(why.msg, "\n"), why.msg);
    else
        log_debug("using the CPU: %s", why.msg);
    return device_open_cpu(d, &o, e);
}
