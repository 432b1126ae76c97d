/* tests/test_types.c - a weight type that no product file knows: a reader and a product are all
 * that it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/weights/reader.h"
#include "kernels/product.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DATA "tests/data/model/"
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, err.msg); } while (0)
enum { SEQS = 2, LEN = 13, ROWS = SEQS * LEN };

static struct err err;

/* The type: int8, and a float32 scale a row. */
static size_t scales(int64_t rows, int64_t cols) { return (void)cols, (size_t)rows * 4; }

static void to_f32(const void *data, const void *scale, int64_t cols, int64_t first, int64_t n,
                   float *out)
{
    for (int64_t i = first; i < first + n; i++) {
        float s;

        memcpy(&s, (const char *)scale + i / cols * 4, 4);
        out[i - first] = s * (float)((const signed char *)data)[i];
    }
}

static const struct tensor_type int8_rows = { .name = "TEST_I8_ROWS", .plain = DT_OTHER, .block = 1,
                                              .block_bytes = 1, .scale_bytes = scales,
                                              .to_f32 = to_f32 };

/* The reader: a folder of safetensors, its matrices made int8 on the way. */
struct quantised {
    void *under;
    void **made;
    int64_t n;
};

static void quantise(struct tensor *t, void *to)
{
    int64_t rows = t->shape[0], cols = t->shape[1];
    float *x = malloc((size_t)t->count * 4), *s = to;
    signed char *q = (signed char *)to + rows * 4;

    tensor_to_f32(t, 0, t->count, x, NULL);
    for (int64_t r = 0; r < rows; r++) {
        float most = 1e-12f;

        for (int64_t c = 0; c < cols; c++)
            most = fmaxf(most, fabsf(x[r * cols + c]));
        s[r] = most / 127;
        for (int64_t c = 0; c < cols; c++)
            q[r * cols + c] = (signed char)lrintf(x[r * cols + c] / s[r]);
    }
    free(x);
    t->type = &int8_rows;
    t->data = q, t->nbytes = (size_t)t->count;
    t->scale = s;
}

static int read_int8(struct weights_files *f, const char *folder, struct err *e)
{
    struct quantised *z = calloc(1, sizeof *z);
    int rc = safetensors_reader.open(f, folder, e);

    z->under = f->state;
    f->state = z;
    z->made = calloc((size_t)f->n + 1, sizeof *z->made);
    for (int64_t i = 0; i < f->n && rc == 0; i++)
        if (f->all[i].dims == 2) {
            z->made[z->n] = malloc((size_t)(f->all[i].count + f->all[i].shape[0] * 4));
            quantise(&f->all[i], z->made[z->n++]);
        }
    return rc;
}

static void close_int8(void *state)
{
    struct quantised *z = state;

    for (int64_t i = 0; i < z->n; i++)
        free(z->made[i]);
    free(z->made);
    safetensors_reader.close(z->under);
    free(z);
}

static const struct weights_reader int8_reader = { .name = "int8", .open = read_int8,
                                                  .close = close_int8 };

/* The product: what the device does with float32, of the values that the matrix stands for. */
static int products, look_ups;

static int int8_gemm(struct device *d, const struct op_gemm *a)
{
    int64_t rows = a->trans_b ? a->n : a->k, cols = a->trans_b ? a->k : a->n;
    float *b = malloc((size_t)(rows * cols) * 4 + 1);
    struct op_gemm plain = *a;
    int rc;

    products++;
    to_f32(a->b.data, a->b.scale, cols, 0, rows * cols, b);
    plain.b = mat_plain(DT_F32, b);
    rc = d->gemm(d, &plain);
    free(b);
    return rc;
}

static int int8_embed(struct device *d, const struct op_embed *a)
{
    (void)d;
    look_ups++;
    for (int64_t r = 0; r < a->rows; r++)
        to_f32(a->table.data, a->table.scale, a->dim, a->ids[r] * a->dim, a->dim,
               (float *)a->y + r * a->dim);
    return 0;
}

static const struct mat_product int8_product = { "TEST_I8_ROWS", int8_gemm, int8_embed },
                                int8_no_embed = { "TEST_I8_ROWS", int8_gemm, NULL };

/* What a model makes of a batch. */
struct outcome {
    float nll[ROWS];
    float *grad; /* [n] */
    int64_t n;
    size_t frozen;
};

static struct outcome outcome_of(const char *folder, enum train_mode mode, bool keep,
                                 const struct mat_product *p)
{
    struct outcome out = { 0 };
    struct model_options o;
    struct segments seg = { 0 };
    int32_t ids[ROWS], targets[ROWS];
    struct batch b = { .n_seqs = SEQS, .len = LEN, .ids = ids, .targets = targets, .seg = &seg,
                       .nll = out.nll };
    struct llama_config c;
    struct weights *w;
    struct device d;
    struct model *m;
    double sum;
    int64_t scored;

    OK(device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1 }, &err));
    if (p)
        assert_int_equal(device_add_product(&d, p), 0);
    OK(weights_open_by(&w, &int8_reader, folder, &err));
    model_defaults(&o);
    o.mode = mode, o.ctx = LEN, o.seqs = SEQS, o.stored = keep ? w : NULL;
    c = *weights_config(w);
    c.tied &= mode != TRAIN_LORA_PLUS;
    OK(model_open(&m, &d, &c, &o, &err));
    OK(model_load(m, w, 7, &err));
    weights_close(w);
    OK(segments_build(&seg, ATTN_DENSE, SEQS, LEN, 0, NULL, 0, &err));
    for (int i = 0; i < ROWS; i++)
        ids[i] = i * 7 % 40, targets[i] = (i + 1) * 7 % 40;
    out.frozen = model_memory(m)->frozen;
    if (mode == TRAIN_NONE) {
        OK(model_forward(m, &b, &sum, &scored, &err));
    } else {
        const struct trained *t = model_trained(m);

        for (int64_t i = 0; i < t->n; i++) /* B is not 0, so that A has a gradient */
            t->w[i] = t->w[i] == 0 ? 0.01f * (float)(i % 7 - 3) : t->w[i];
        OK(model_sync_trained(m));
        OK(model_step(m, &b, 1, &sum, &scored, &err));
        out.n = t->n;
        out.grad = malloc((size_t)t->n * 4);
        memcpy(out.grad, t->grad, (size_t)t->n * 4);
    }
    segments_free(&seg);
    model_close(m);
    d.close(&d);
    return out;
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    assert_memory_equal(a->nll, b->nll, sizeof a->nll);
    assert_int_equal(a->n, b->n);
    if (a->n)
        assert_memory_equal(a->grad, b->grad, (size_t)a->n * 4);
}

/* Kept packed a model computes what the float32 values of its matrices do. */
static void test_packed_is_what_it_stands_for(void **state)
{
    static const enum train_mode modes[] = { TRAIN_NONE, TRAIN_LORA, TRAIN_LORA_PLUS, TRAIN_FULL };
    static const char *const folders[] = { DATA "mha", DATA "gqa" };

    (void)state;
    for (int f = 0; f < 2; f++)
        for (int i = 0; i < 4; i++) {
            struct outcome want = outcome_of(folders[f], modes[i], false, NULL), got;

            products = look_ups = 0;
            got = outcome_of(folders[f], modes[i], true, &int8_product);
            check_same(&got, &want);
            if (modes[i] == TRAIN_FULL) { /* nothing is frozen */
                assert_int_equal(products, 0);
            } else {
                assert_true(products > 0 && (look_ups > 0) == (modes[i] != TRAIN_LORA_PLUS));
                assert_true(got.frozen < want.frozen * 3 / 4); /* small ones are rounded up */
            }
            free(want.grad), free(got.grad);
        }
}

/* A device that does not know the type is given float32, and so is an embedding that it cannot
 * look up. */
static void test_unknown_types_are_unpacked(void **state)
{
    struct outcome want = outcome_of(DATA "mha", TRAIN_LORA, false, NULL), got;

    (void)state;
    products = look_ups = 0;
    got = outcome_of(DATA "mha", TRAIN_LORA, true, NULL);
    check_same(&got, &want);
    assert_true(products == 0 && got.frozen == want.frozen);
    free(got.grad);
    got = outcome_of(DATA "mha", TRAIN_LORA, true, &int8_no_embed);
    check_same(&got, &want);
    assert_true(products > 0 && look_ups == 0);
    free(got.grad), free(want.grad);
}

/* The CPU's products with bfloat16 are those with the same numbers as float32: few rows and many. */
static void test_bf16_products_of_the_cpu(void **state)
{
    enum { MOST = 1100 };
    static const int64_t ks[] = { 1, 32, 37, 530, MOST }, ns[] = { 1, 5, 70, 600 };
    float *a = malloc(600 * MOST * sizeof *a), *b = malloc(600 * MOST * sizeof *b);
    float *want = malloc(600 * 600 * sizeof *want), *got = malloc(600 * 600 * sizeof *got);
    uint16_t *h = malloc(600 * MOST * sizeof *h);
    struct device d;

    (void)state;
    for (int64_t i = 0; i < 600 * MOST; i++) {
        a[i] = (float)((i * 37 % 101) - 50) / 50;
        h[i] = f32_to_bf16((float)((i * 53 % 97) - 48) / 48);
        b[i] = bf16_to_f32(h[i]);
    }
    OK(device_open(&d, &(struct device_options){ .name = "cpu", .threads = 2 }, &err));
    for (size_t n = 0; n < 4; n++)
        for (size_t k = 0; k < 5; k++)
            for (int64_t m = 1; m < 600; m = m < 10 ? m + 1 : m * 23)
                for (int turned = 0; turned < 2; turned++) {
                    struct op_gemm g = { .trans_b = turned, .m = m, .n = ns[n], .k = ks[k], .alpha = 0.5f,
                        .beta = m % 2 ? 0 : 1, .a = a, .b = mat_plain(DT_F32, b), .c = want, .lda = ks[k],
                        .ldb = turned ? ks[k] : ns[n], .ldc = ns[n], .c_type = DT_F32 };

                    for (int64_t i = 0; i < m * ns[n]; i++)
                        want[i] = got[i] = (float)i / 1e4f;
                    OK(d.gemm(&d, &g));
                    g.b = mat_plain(DT_BF16, h), g.c = got;
                    OK(d.gemm(&d, &g));
                    for (int64_t i = 0; i < m * ns[n]; i++)
                        if (!(fabs((double)want[i] - (double)got[i]) < 1e-3))
                            fail_msg("%d x %d x %d, value %d: %g, not %g", (int)m, (int)ns[n], (int)ks[k],
                                     (int)i, (double)got[i], (double)want[i]);
                }
    d.close(&d);
    free(a), free(b), free(want), free(got), free(h);
}

static void test_products_refuse_by_name(void **state)
{
    float x[4] = { 0 }, scale[2] = { 0 };
    int32_t id = 0;
    struct mat packed = { &int8_rows, x, scale };
    struct op_gemm g = { .m = 2, .n = 2, .k = 2, .alpha = 1, .a = x, .b = packed, .c = x, .lda = 2,
                         .ldb = 2, .ldc = 2, .c_type = DT_F32 };
    struct op_embed t = { .rows = 1, .dim = 2, .vocab = 2, .table = packed, .ids = &id, .y = x };
    struct device d;

    (void)state;
    OK(device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1 }, &err));
    assert_int_equal(d.gemm(&d, &g), E_DEVICE);
    assert_int_equal(d.sync(&d, &err), E_DEVICE);
    assert_string_equal(err.msg, "device 'cpu' cannot compute with matrices of type TEST_I8_ROWS");
    assert_int_equal(d.sync(&d, &err), 0);
    assert_int_equal(d.embed(&d, &t), E_DEVICE);
    assert_int_equal(d.sync(&d, &err), E_DEVICE);
    g.b = mat_plain(DT_F16, x); /* nor types that others have as their own */
    assert_int_equal(d.gemm(&d, &g), E_DEVICE);
    assert_int_equal(d.sync(&d, &err), E_DEVICE);
    assert_non_null(strstr(err.msg, "F16"));
    for (int i = d.n_products; i < MAT_PRODUCTS; i++)
        assert_int_equal(device_add_product(&d, &int8_product), 0);
    assert_int_equal(device_add_product(&d, &int8_product), E_BUG);
    d.close(&d);
}

static void test_bytes(void **state)
{
    static const struct tensor_type q = { .name = "Q", .plain = DT_OTHER, .block = 32,
                                          .block_bytes = 34 };
    static char p[1024];

    (void)state;
    assert_int_equal(mat_bytes(&type_f32, 3, 5), 60);
    assert_int_equal(mat_bytes(&type_bf16, 3, 5), 30);
    assert_int_equal(mat_bytes(&q, 3, 64), 3 * 2 * 34);
    assert_int_equal(mat_bytes(&int8_rows, 3, 100), 512 + 12);
    assert_ptr_equal(mat_at(&int8_rows, p, 3, 100).scale, p + 512);
    assert_null(mat_at(&type_f32, p, 3, 100).scale);
    assert_null(mat_at(&int8_rows, NULL, 3, 100).scale);
    assert_true(mat_bytes(&type_f32, INT64_MAX / 2, 3) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed_is_what_it_stands_for),
        cmocka_unit_test(test_unknown_types_are_unpacked),
        cmocka_unit_test(test_bf16_products_of_the_cpu),
        cmocka_unit_test(test_products_refuse_by_name),
        cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
