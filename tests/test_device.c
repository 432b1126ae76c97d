/* tests/test_device.c - opening devices, their memory, element types, the fast exponential. */
#include "tests/optest.h"

#include "kernels/cpu/simd.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Every 16-bit value to float32 and back; halves against ldexp, bfloats against their bits. */
static void test_cast_every_16_bit_value(void **state)
{
    static uint16_t all[65536], again[65536];
    static float f[65536];

    (void)state;
    for (int i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    for (int t = DT_F16; t <= DT_BF16; t++) {
        dev[1].cast(&dev[1], &(struct op_cast){ 65536, all, (enum dtype)t, f, DT_F32 });
        dev[1].cast(&dev[1], &(struct op_cast){ 65536, f, DT_F32, again, (enum dtype)t });
        for (int i = 0; i < 65536; i++) {
            int e = i >> 10 & 31, m = i & 1023;
            double half = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
            if (isnan(f[i])) {
                assert_true((t == DT_F16 ? (i & 0x7fff) > 0x7c00 : (i & 0x7fff) > 0x7f80));
                continue;
            }
            assert_int_equal(again[i], i);
            if (t == DT_F16)
                assert_true(fabs((double)f[i]) == (e == 31 ? INFINITY : half));
            else
                assert_true(f[i] == bits_float((uint32_t)i << 16));
        }
    }
}

/* Ties go to the even neighbour, and what is too large to infinity. */
static void test_cast_rounds(void **state)
{
    static const struct { float in; uint16_t f16, bf16; } v[] = {
        { 0x1.002p0f, 0x3c00, 0x3f80 },  { 0x1.006p0f, 0x3c02, 0x3f80 },
        { 0x1.01p0f, 0x3c04, 0x3f80 },   { 0x1.03p0f, 0x3c0c, 0x3f82 },
        { 65519.0f, 0x7bff, 0x4780 },    { 65520.0f, 0x7c00, 0x4780 },
        { -1e30f, 0xfc00, 0xf14a },      { 0x1p-25f, 0x0000, 0x3300 },
        { 0x1.8p-25f, 0x0001, 0x3340 },  { 0x1.ff8p-15f, 0x03ff, 0x3880 },
        { 0x1.ffcp-15f, 0x0400, 0x3880 }, { INFINITY, 0x7c00, 0x7f80 },
        { 0x1.ffp127f, 0x7c00, 0x7f80 }, { -0.0f, 0x8000, 0x8000 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        uint16_t h;
        dev[0].cast(&dev[0], &(struct op_cast){ 1, &v[i].in, DT_F32, &h, DT_F16 });
        assert_int_equal(h, v[i].f16);
        dev[0].cast(&dev[0], &(struct op_cast){ 1, &v[i].in, DT_F32, &h, DT_BF16 });
        assert_int_equal(h, v[i].bf16);
    }
}

static void test_memory(void **state)
{
    struct device *d = &dev[0];
    struct err e = { 0 };
    unsigned char *p;
    void *q;

    (void)state;
    assert_int_equal(d->alloc(d, 10 << 20, &q, &e), 0);
    p = q;
    assert_int_equal((uintptr_t)p % 256, 0);
    for (int i = 0; i < 10 << 20; i += 4093)
        assert_int_equal(p[i], 0);
    d->release(d, p);
    d->release(d, NULL);
    assert_int_equal(d->alloc(d, SIZE_MAX - 10, &q, &e), E_SYS);
    assert_null(q);
    assert_non_null(strstr(e.msg, "18446744073709551605 bytes"));
    assert_int_equal(d->alloc(d, (size_t)1 << 60, &q, &e), E_SYS);
}

static void test_devices_by_name(void **state)
{
    struct device d;
    struct err e = { 0 };

    (void)state;
    setenv("LONGLORA_CUDA", "/nonexistent/cuda.so", 1);
    assert_int_equal(device_open(&d,
                                 &(struct device_options){ .name = "cuda", .threads = 1 },
                                 &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "no CUDA device"));
    assert_int_equal(device_open(&d,
                                 &(struct device_options){ .name = "tpu", .threads = 1 },
                                 &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "'tpu'"));
    assert_int_equal(device_open(&d,
                                 &(struct device_options){ .name = "auto", .threads = 1 },
                                 &e), 0);
    assert_string_equal(d.name, "cpu");
    d.close(&d);
    unsetenv("LONGLORA_CUDA");
    setenv("LONGLORA_BLAS", "/nonexistent/blas.so", 1);
    assert_int_equal(device_open(&d,
                                 &(struct device_options){ .name = "cpu", .threads = 1 },
                                 &e), E_SYS);
    assert_non_null(strstr(e.msg, "'/nonexistent/blas.so'"));
    assert_non_null(strstr(e.msg, "libopenblas0"));
    setenv("LONGLORA_BLAS", "libm.so.6", 1);
    assert_int_equal(device_open(&d,
                                 &(struct device_options){ .name = "cpu", .threads = 1 },
                                 &e), E_SYS);
    assert_non_null(strstr(e.msg, "no cblas_sgemm"));
    unsetenv("LONGLORA_BLAS");
    assert_null(getenv("OPENBLAS_NUM_THREADS")); /* the environment is left as it was */
}

/* The environment is read by whoever runs: a library that is loaded leaves it alone, so devices may be opened by
 * many threads at once. */
static void *open_one(void *ok)
{
    struct device d;

    for (int i = 0; i < 20; i++) {
        if (device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1 }, NULL) < 0)
            return NULL;
        d.close(&d);
    }
    *(bool *)ok = true;
    return NULL;
}

static void test_many_open_at_once(void **state)
{
    static char three[] = "OPENBLAS_NUM_THREADS=3";
    pthread_t thread[8];
    bool ok[8] = { false };

    (void)state;
    assert_int_equal(putenv(three), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, open_one, &ok[i]), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_true(ok[i]);
    assert_ptr_equal(getenv("OPENBLAS_NUM_THREADS"), strchr(three, '=') + 1); /* not once replaced */
    unsetenv("OPENBLAS_NUM_THREADS");
}

/* A product by more threads than any before, where no memory is left: in a process of its own, which ends at once,
 * by 0, or by SIGALRM where the matrix library waits for memory. */
static void test_products_need_no_more_memory(void **state)
{
    enum { THREADS = 12, M = 2048, N = 1024, K = 2048 };
    float *a, *b, *c;
    struct err e = { 0 };
    struct device d;
    int status;
    pid_t pid;

    (void)state;
    if (getenv("SAN") && *getenv("SAN")) /* which take address space as they go */
        skip();
    a = calloc((size_t)M * K, 4);
    b = calloc((size_t)N * K, 4);
    c = calloc((size_t)M * N, 4);
    assert_true(a && b && c);
    fflush(NULL);
    if ((pid = fork()) == 0) {
        struct op_gemm g = { .trans_b = true, .m = M, .n = N, .k = K, .alpha = 1, .a = a, .lda = K,
            .b = mat_plain(DT_F32, b), .ldb = K, .c = c, .ldc = N, .c_type = DT_F32 };
        int rc = device_open(&d, &(struct device_options){ .name = "cpu", .threads = THREADS }, &e);

        alarm(60);
        if (rc == 0)
            setrlimit(RLIMIT_AS, &(struct rlimit){ 1 << 20, 1 << 20 }); /* less than there is: no more comes */
        _exit(rc < 0 || d.gemm(&d, &g) < 0);
    }
    waitpid(pid, &status, 0);
    free(a);
    free(b);
    free(c);
    assert_int_equal(status, 0);
}

/* simd_exp against libm, in units in the last place, and its ends. */
static void test_exp(void **state)
{
    double worst = 0;

    (void)state;
    for (double x = -87.3; x < 88.3; x += 1.7e-5) {
        double want = exp((double)(float)x), ulp = ldexp(1, ilogb(want) - 23);
        double off = fabs((double)simd_exp((float)x) - want) / ulp;
        worst = off > worst ? off : worst;
    }
    assert_true(worst < 2);
    assert_true(simd_exp(0) == 1 && simd_exp(-88) == 0 && simd_exp(-INFINITY) == 0);
    assert_true(isnan(simd_exp(NAN)) && simd_exp(INFINITY) > 1e38f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cast_every_16_bit_value), cmocka_unit_test(test_cast_rounds),
        cmocka_unit_test(test_memory),                  cmocka_unit_test(test_devices_by_name),
        cmocka_unit_test(test_many_open_at_once),       cmocka_unit_test(test_products_need_no_more_memory),
        cmocka_unit_test(test_exp),
    };
    (void)assert_near, (void)on_all_devices, (void)assert_gradient;
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
