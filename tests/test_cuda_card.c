/* tests/test_cuda_card.c - what this process holds of a GPU's memory: cuda_card.c with a driver's
 * library that says what the test wants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sizes.h"

#include <unistd.h>

enum { CARDS = 2, MOST = 4, TOO_SMALL = 7 };
#define GB ((size_t)1000000000)
/* What there is, by bus: NVML counts the cards the other way round than this process sees them. */
static struct {
    bool library, lists;
    size_t used[CARDS];
    struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } at[CARDS][MOST];
    unsigned n[CARDS];
    int open;
} nvml;
static int cards[CARDS];

static int init(void) { return nvml.open++ > 0; }
static int end(void) { return --nvml.open != 0; }
static int find(const char *bus, void **card)
{
    if (strncmp(bus, "0000:0", 6) != 0 || bus[6] < '0' || bus[6] >= '0' + CARDS)
        return 2;
    *card = &cards[bus[6] - '0'];
    return 0;
}
static int memory(void *card, void *to)
{
    unsigned long long m[3] = { 140 * GB, 0, nvml.used[(int *)card - cards] };

    memcpy(to, m, sizeof m);
    return 0;
}
static int processes(void *card, unsigned *n, void *to)
{
    int i = (int)((int *)card - cards);

    if (*n < nvml.n[i])
        return TOO_SMALL;
    *n = nvml.n[i];
    memcpy(to, nvml.at[i], nvml.n[i] * sizeof nvml.at[i][0]);
    return 0;
}

void *nvml_open(const char *name, int flags);
void *nvml_symbol(void *lib, const char *name);
int nvml_close(void *lib);
void *nvml_open(const char *name, int flags)
{
    (void)flags;
    assert_string_equal(name, "libnvidia-ml.so.1");
    return nvml.library ? &nvml : NULL;
}
void *nvml_symbol(void *lib, const char *name)
{
    static int (*const f_init)(void) = init, (*const f_end)(void) = end;
    static int (*const f_find)(const char *, void **) = find;
    static int (*const f_memory)(void *, void *) = memory;
    static int (*const f_list)(void *, unsigned *, void *) = processes;
    const struct { const char *name; const void *f; } all[] = {
        { "nvmlInit_v2", &f_init }, { "nvmlShutdown", &f_end },
        { "nvmlDeviceGetHandleByPciBusId_v2", &f_find }, { "nvmlDeviceGetMemoryInfo", &f_memory },
        { "nvmlDeviceGetComputeRunningProcesses_v3", &f_list } };
    void *f = NULL;

    assert_ptr_equal(lib, &nvml);
    for (size_t i = 0; i < sizeof all / sizeof *all - !nvml.lists; i++)
        if (strcmp(name, all[i].name) == 0)
            memcpy(&f, all[i].f, sizeof f);
    return f;
}
int nvml_close(void *lib) { return lib != &nvml; }

cudaError_t cudaGetLastError(void) { return 0; }
cudaError_t cudaDeviceGetPCIBusId(char *bus, int cap, int index)
{
    if (index < 0 || index >= CARDS)
        return 1;
    snprintf(bus, (size_t)cap, "0000:0%d:00.0", CARDS - 1 - index);
    return 0;
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    *all = 140 * GB;
    *left = 135 * GB;
    return 0;
}
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int index)
{
    (void)a, (void)index;
    *v = 0;
    return 0;
}

static void process(int card, long pid, size_t used)
{
    nvml.at[card][nvml.n[card]].pid = (unsigned)pid;
    nvml.at[card][nvml.n[card]++].used = used;
}

/* Process ids as the driver's are: what others take of the card meanwhile does not count. */
static void test_own_share(void **state)
{
    (void)state;
    memset(&nvml, 0, sizeof nvml);
    nvml.library = nvml.lists = true;
    nvml.used[0] = 3 * GB, nvml.used[1] = 9 * GB;
    assert_int_equal(cuda_card_used(1), 3 * GB); /* by its bus */
    assert_int_equal(cuda_card_used(0), 9 * GB);
    assert_int_equal(cuda_card_used(7), 0);
    nvml.used[0] = 24 * GB; /* 20 GB are another's, who began after this one */
    process(0, getpid() + 1L, 20 * GB);
    process(0, getpid(), GB);
    process(1, getpid(), 5 * GB); /* on another card */
    assert_int_equal(cuda_held(3 * GB, 1), GB + CUDA_LATER_BYTES);
    assert_int_equal(nvml.open, 0);
}

/* A container's ids are others: the difference. Where another's id is this one's by chance, or its
 * memory is not told, no more than that. */
static void test_ids_that_say_nothing(void **state)
{
    (void)state;
    memset(&nvml, 0, sizeof nvml);
    nvml.library = nvml.lists = true;
    nvml.used[0] = 4 * GB;
    process(0, getpid() + 1L, 2 * GB);
    assert_int_equal(cuda_held(3 * GB, 1), GB + CUDA_LATER_BYTES);
    process(0, getpid(), 2 * GB);
    assert_int_equal(cuda_held(3 * GB, 1), GB + CUDA_LATER_BYTES);
    nvml.at[0][1].used = ~0ULL;
    assert_int_equal(cuda_held(3 * GB, 1), GB + CUDA_LATER_BYTES);
    nvml.lists = false; /* an old driver */
    assert_int_equal(cuda_held(3 * GB, 1), GB + CUDA_LATER_BYTES);
}

/* Nothing is told: as if the card were this process's alone. */
static void test_no_library(void **state)
{
    (void)state;
    memset(&nvml, 0, sizeof nvml);
    assert_int_equal(cuda_card_used(0), 0);
    assert_int_equal(cuda_held(0, 0), 5 * GB + CUDA_LATER_BYTES);
    nvml.library = true; /* less in use than before */
    nvml.used[1] = 2 * GB;
    assert_int_equal(cuda_held(3 * GB, 0), 5 * GB + CUDA_LATER_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_share), cmocka_unit_test(test_ids_that_say_nothing),
        cmocka_unit_test(test_no_library),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
