/* kernels/cpu/blas.c - see blas.h. */
#include "kernels/cpu/blas.h"

#include "base/processor.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* the first that can be loaded is taken */
static const char *const candidates[] = { "libopenblas.so.0", "libopenblas.so", "libcblas.so.3",
                                          "libblas.so.3" };

/* The kernels of OpenBLAS that this processor can run, or NULL to let it choose. */
static const char *coretype(void)
{
#if defined __x86_64__ && defined __GNUC__
    if (simd_level() >= SIMD_AVX512)
        return "SkylakeX";
    if (simd_level() == SIMD_AVX2)
        return __builtin_cpu_is("amd") ? "Zen" : "Haswell";
    if (simd_hidden(SIMD_AVX2))
        return "Nehalem";
#endif
    return NULL;
}

/* Variables that libraries read when they are loaded. */
static const char *const thread_vars[] = { "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                           "BLIS_NUM_THREADS" };
#define N_VARS (int)(sizeof thread_vars / sizeof *thread_vars)

/* Loads a library with variables that keep it to one thread: the products are called by
 * threads of our own. Afterwards the variables are what they were. One that is loaded has read them,
 * and the environment is left alone: other threads may be reading it. */
static void *load(const char *path)
{
    /* a person's own choice stands */
    const char *core = getenv("OPENBLAS_CORETYPE") ? NULL : coretype();
    char *old[N_VARS];
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | RTLD_NOLOAD);

    if (lib)
        return lib;
    for (int i = 0; i < N_VARS; i++) {
        old[i] = getenv(thread_vars[i]) ? strdup(getenv(thread_vars[i])) : NULL;
        setenv(thread_vars[i], "1", 1);
    }
    if (core)
        setenv("OPENBLAS_CORETYPE", core, 1);
    lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (core)
        unsetenv("OPENBLAS_CORETYPE");
    for (int i = 0; i < N_VARS; i++) {
        if (old[i])
            setenv(thread_vars[i], old[i], 1);
        else
            unsetenv(thread_vars[i]);
        free(old[i]);
    }
    return lib;
}

/* dlsym gives a data pointer; POSIX promises that this conversion works. */
static void symbol(void *lib, const char *name, void *fn_pointer)
{
    void *p = dlsym(lib, name);

    memcpy(fn_pointer, &p, sizeof p);
}

/* dlopen failed for want of memory, not of a file: the loader says it in words only. */
static bool no_room(const char *path)
{
    const char *why;

    dlerror();
    if (dlopen(path, RTLD_NOW | RTLD_LOCAL))
        return false;
    why = dlerror();
    return why && (strstr(why, "emory") || strstr(why, "map segment"));
}

/* LONGLORA_BLAS names a library, or 'builtin' for our own product; else the usual ones are
 * tried, from the one that was found before. */
static int open_library(struct blas *b, struct err *e)
{
    static size_t found;
    const char *want = getenv("LONGLORA_BLAS"), *path = want;
    void (*set_threads)(int);
    char *(*corename)(void);

    memset(b, 0, sizeof *b);
    if (want && strcmp(want, "builtin") == 0) {
        b->sgemm = sgemm_builtin;
        snprintf(b->name, sizeof b->name, "built-in matrix product");
        return 0;
    }
    if (want && *want)
        b->lib = load(want);
    else
        for (size_t i = found; i < sizeof candidates / sizeof *candidates && !b->lib; i++)
            if ((b->lib = load(path = candidates[i])))
                found = i;
    if (!b->lib && no_room(want && *want ? want : candidates[0]))
        return err_set(e, E_SYS, "out of memory for the matrix library '%s'",
                       want && *want ? want : candidates[0]);
    if (!b->lib) {
        if (want && *want)
            err_set(e, E_SYS, "cannot load the matrix library '%s' (LONGLORA_BLAS)", want);
        else
            err_set(e, E_SYS, "cannot find a matrix library ('libopenblas.so.0')");
        err_hint(e, "install libopenblas0, or set LONGLORA_BLAS=builtin (slower)");
        return E_SYS;
    }
    symbol(b->lib, "cblas_sgemm", &b->sgemm);
    if (!b->sgemm) {
        dlclose(b->lib);
        b->lib = NULL;
        err_set(e, E_SYS, "'%s' has no cblas_sgemm", path);
        err_hint(e, "install libopenblas0, or set LONGLORA_BLAS=builtin (slower)");
        return E_SYS;
    }
    /* once more by the library's own function, where it has one */
    symbol(b->lib, "openblas_set_num_threads", &set_threads);
    if (set_threads)
        set_threads(1);
    symbol(b->lib, "openblas_get_corename", &corename);
    /* only OpenBLAS has this function */
    b->openblas = corename != NULL;
    if (b->openblas) {
        symbol(b->lib, "blas_memory_alloc", &b->buffer);
        symbol(b->lib, "blas_memory_free", &b->give_back);
    }
    snprintf(b->name, sizeof b->name, "%s%s%.40s", path, corename ? ", kernels " : "",
             corename ? corename() : "");
    return 0;
}

/* One thread at a time: the environment is the whole process's. */
int blas_open(struct blas *b, struct err *e)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int rc;

    pthread_mutex_lock(&lock);
    rc = open_library(b, e);
    pthread_mutex_unlock(&lock);
    return rc;
}

#define THREAD_BYTES (((size_t)128 << 20) + 65536) /* OpenBLAS's buffer, and malloc's share */
enum { MOST_BUFFERS = 64 }; /* it has 128 or more; further threads take theirs when they come */

/* OpenBLAS keeps a buffer that it has once given out, and gives it to whichever thread calls next. So each is made
 * now, while there is room: at a thread's first product weights and caches may have taken it. */
static void make_buffers(const struct blas *b, void **held, int threads)
{
    int n = threads < MOST_BUFFERS ? threads : MOST_BUFFERS;

    if (!b->buffer || !b->give_back)
        return;
    for (int i = 0; i < n; i++)
        held[i] = b->buffer(0);
    for (int i = 0; i < n; i++)
        b->give_back(held[i]);
}

/* Whether the buffers for all threads fit is tried first, as OpenBLAS would ask for ever. */
int blas_room(const struct blas *b, int threads, struct err *e)
{
    void **held = b->openblas ? calloc((size_t)threads, sizeof *held) : NULL;
    int n = 0;

    if (!b->openblas)
        return 0;
    if (!held)
        return err_set(e, E_SYS, "out of memory");
    while (n < threads && (held[n] = mmap(NULL, THREAD_BYTES, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED)
        n++;
    for (int i = 0; i < n; i++)
        munmap(held[i], THREAD_BYTES);
    if (n == threads)
        make_buffers(b, held, threads);
    free(held);
    if (n == threads)
        return 0;
    err_set(e, E_SYS, "out of memory for OpenBLAS, which takes 128 MiB for each of %d threads",
            threads);
    return err_hint(e, "raise the limit (ulimit -v), give fewer --threads, or set "
                    "LONGLORA_BLAS=builtin");
}
