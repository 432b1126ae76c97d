/* tests/test_gguf.c - GGUF's container: each field spoilt, what is written is read, ggml's types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/gguf.h"
#include "formats/weights/gguf_config.h"
#include "formats/weights/gguf_types.h"
#include "formats/weights/turned.h"
#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file of every kind of value, and of three tensors: 8 bytes of F32, 34 of Q8_0, 4 of F16. */
static const int64_t sizes[3][2] = { { 2, 1 }, { 32, 1 }, { 2, 1 } };

static void small_head(struct gguf_head *h)
{
    static const uint32_t numbers[3] = { 1, 2, 3 };

    gguf_put_string(h, "general.architecture", "llama", 5);
    gguf_put_u32(h, "general.alignment", 32);
    gguf_put_bool(h, "a.bool", true);
    gguf_put_f32(h, "a.float", 1.5);
    gguf_put_array(h, "a.numbers", GGUF_U32, 3);
    gguf_add_raw(h, numbers, sizeof numbers);
    gguf_put_array(h, "a.strings", GGUF_STRING, 2);
    gguf_add_string(h, "one", 3);
    gguf_add_string(h, "", 0);
    gguf_put_tensor(h, "tensor.one", GGML_F32, 1, sizes[0], 8);
    gguf_put_tensor(h, "tensor.two", GGML_Q8_0, 2, sizes[1], 34);
    gguf_put_tensor(h, "tensor.xyz", GGML_F16, 1, sizes[2], 4);
}

/* Its bytes, malloc'ed. */
static char *small_file(size_t *n)
{
    char path[] = "/tmp/gguf-XXXXXX", *p;
    struct gguf_head h = { 0 };
    struct gguf_out o;
    struct err e = { 0 };

    close(mkstemp(path));
    small_head(&h);
    assert_int_equal(gguf_create(&o, path, &h, &e), 0);
    assert_int_equal(gguf_write_at(&o, 64 + 32, "\1\2\3\4", 4, &e), 0);
    assert_int_equal(gguf_write_at(&o, 0, "\0\0\x80\x3F\0\0\0\x40", 8, &e), 0);
    assert_int_equal(gguf_publish(&o, &e), 0);
    gguf_head_free(&h);
    assert_int_equal(file_read(path, 1 << 20, &p, n, &e), 0);
    unlink(path);
    return p;
}

/* In a block of exactly n bytes, so that a sanitizer sees one byte too many. */
static int parse(const char *p, size_t n, struct err *e)
{
    char *copy = malloc(n ? n : 1);
    struct gguf *g = NULL;
    int rc;

    memcpy(copy, p, n);
    *e = (struct err){ 0 };
    rc = gguf_parse(&g, copy, n, "x.gguf", e);
    gguf_close(g);
    free(copy);
    return rc;
}

/* At 'from' behind the first byte of 'find' (of the file, where that is "") n bytes become v. */
static const struct {
    const char *find;
    int from, n;
    uint64_t v;
    const char *why;
} spoilt[] = {
    { "", 0, 1, 'X', "not a GGUF" },
    { "", 4, 4, 1, "version 1 at byte 4" },
    { "", 4, 4, 4, "version 4" },
    { "", 4, 4, 0x03000000, "big-endian" },
    { "", 8, 8, UINT64_MAX, "tensors at byte 8" },
    { "", 8, 8, (uint64_t)1 << 61, "tensors at byte 8" },
    { "", 8, 8, 4, "a tensor's name at byte" }, /* then the data is read as a tensor */
    { "", 8, 8, 2, "after the last tensor" },     /* and here a tensor as data */
    { "", 16, 8, UINT64_MAX, "keys at byte 16" },
    { "", 16, 8, (uint64_t)1 << 60, "keys at byte 16" },
    { "", 16, 8, 5, "dimensions" },
    { "", 24, 8, UINT64_MAX, "length of a key at byte 24" },
    { "", 24, 8, UINT64_MAX - 31, "length of a key at byte 24" },
    { "", 24, 8, 0, "a key at byte 24 is empty" },
    { "", 24, 8, 70000, "length of a key at byte 24 is 70000" },
    { "general.architecture", 0, 1, '\n', "control character" },
    { "general.architecture", 20, 4, 13, "'general.architecture': the type" },
    { "general.architecture", 24, 8, UINT64_MAX, "length of a string" },
    { "general.architecture", 24, 8, (uint64_t)1 << 40, "length of a string" },
    { "general.alignment", 17, 4, GGUF_I32, "alignment at byte" },
    { "general.alignment", 17, 4, GGUF_F32, "is not of type u32" },
    { "general.alignment", 21, 4, 0, "is 0, must be a power of two" },
    { "general.alignment", 21, 4, 24, "is 24" },
    { "general.alignment", 21, 4, 0x80000000, "is 2147483648" },
    { "general.alignment", 21, 4, 64, "not a multiple of the alignment" },
    { "a.bool", 10, 1, 2, "must be 0 or 1" },
    { "a.numbers", 9, 4, GGUF_STRING, "length of" },
    { "a.numbers", 13, 4, GGUF_ARRAY, "array of arrays" },
    { "a.numbers", 13, 4, 99, "type of the array" },
    { "a.numbers", 17, 8, UINT64_MAX, "18446744073709551615 values" },
    { "a.numbers", 17, 8, (uint64_t)1 << 62, "values at byte" }, /* 4 times that wraps to 0 */
    { "a.strings", 17, 8, (uint64_t)1 << 61, "values at byte" },
    { "a.strings", 25, 8, UINT64_MAX - 7, "length of a string" },
    { "a.strings", 2, 7, 0x737265626D756E, "'a.numbers' appears twice" },
    { "tensor.one", -8, 8, 64, "length of a tensor's name" },
    { "tensor.one", -8, 8, 0, "name at byte" },
    { "tensor.one", 10, 4, 0, "0 dimensions" },
    { "tensor.one", 10, 4, 5, "5 dimensions" },
    { "tensor.one", 10, 4, UINT32_MAX, "4294967295 dimensions" },
    { "tensor.one", 14, 8, 0, "size 0 at byte" },
    { "tensor.one", 14, 8, (uint64_t)1 << 63, "size 0 at byte" },
    { "tensor.one", 14, 8, (uint64_t)1 << 62, "bytes overflow" },
    { "tensor.one", 14, 8, 9, "inside another" },
    { "tensor.one", 22, 4, 4, "type at byte" },   /* Q4_2, which is gone */
    { "tensor.one", 22, 4, 1000, "not known" },
    { "tensor.one", 22, 4, GGML_Q8_0, "rows of 2 values" },
    { "tensor.one", 26, 8, 1, "not a multiple" },
    { "tensor.one", 26, 8, 32, "one before ends" },
    { "tensor.one", 26, 8, UINT64_MAX - 31, "cut short" },
    { "tensor.two", 14, 8, 33, "rows of 33 values" },
    { "tensor.two", 22, 8, (uint64_t)1 << 60, "overflows" },
    { "tensor.two", 22, 8, 2, "inside another" },
    { "tensor.two", 22, 8, 100, "cut short" },
    { "tensor.xyz", 26, 8, 32, "inside another" },
    { "tensor.xyz", 26, 8, 128, "cut short" },
    { "tensor.xyz", 7, 3, 0x656E6F, "'tensor.one' appears twice" },
    { "tensor.xyz", 14, 8, 20, "cut short" },
};

static char *find(char *p, size_t n, const char *what)
{
    char *at = memmem(p, n, what, strlen(what));

    assert_non_null(at);
    return at;
}

static void test_each_spoilt_field_is_named(void **state)
{
    size_t n;
    char *p = small_file(&n);
    struct err e;
    int bad = 0;

    (void)state;
    assert_int_equal(parse(p, n, &e), 0);
    for (size_t k = 0; k < sizeof spoilt / sizeof *spoilt; k++) {
        char *b = malloc(n);
        int rc;

        memcpy(b, p, n);
        put_le(find(b, n, spoilt[k].find) + spoilt[k].from, spoilt[k].v, spoilt[k].n);
        rc = parse(b, n, &e);
        if (rc != E_DATA || !strstr(e.msg, spoilt[k].why))
            print_message("%d: case %zu, '%s': %d, %s\n", ++bad, k, spoilt[k].why, rc, e.msg);
        free(b);
    }
    assert_int_equal(bad, 0);
    free(p);
}

static void test_a_file_cut_anywhere_is_refused(void **state)
{
    size_t n;
    char *p = small_file(&n);
    struct err e;

    (void)state;
    /* Without the padding of the last tensor it is whole: 28 bytes. */
    for (size_t k = 0; k < n; k++)
        assert_int_equal(parse(p, k, &e), k < n - 28 ? E_DATA : 0);
    p = realloc(p, n + 1);
    p[n] = 0;
    assert_int_equal(parse(p, n + 1, &e), E_DATA);
    assert_non_null(strstr(e.msg, "1 bytes after the last tensor"));
    free(p);
}

static void test_what_is_written_is_read(void **state)
{
    size_t n, at = 0, k;
    char *p = small_file(&n);
    const struct gguf_value *v;
    const struct gguf_tensor *t;
    struct gguf *g;
    struct err e = { 0 };
    const char *s = NULL;
    int64_t i = 0;
    double d = 0;
    bool b = false;

    (void)state;
    assert_int_equal(gguf_parse(&g, p, n, "x.gguf", &e), 0);
    assert_int_equal(gguf_values(g), 6);
    assert_int_equal(gguf_string(g, "general.architecture", "", true, &s, &k, &e), 0);
    assert_int_equal(k, 5);
    assert_memory_equal(s, "llama", 5);
    assert_int_equal(gguf_i64(g, "%s.alignment", "general", true, 0, 100, &i, &e), 0);
    assert_int_equal(i, 32);
    assert_int_equal(gguf_i64(g, "general.alignment", "", true, 0, 31, &i, &e), E_DATA);
    assert_non_null(strstr(e.msg, "must be 0 to 31"));
    assert_int_equal(gguf_i64(g, "a.float", "", true, 0, 31, &i, &e), E_DATA);
    assert_int_equal(gguf_i64(g, "absent", "", false, 0, 31, &i, &e), 0);
    assert_int_equal(gguf_i64(g, "absent", "", true, 0, 31, &i, &e), E_DATA);
    assert_non_null(strstr(e.msg, "key 'absent' is missing"));
    assert_int_equal(gguf_f64(g, "a.float", "", true, 0, 2, &d, &e), 0);
    assert_true(d == 1.5);
    assert_int_equal(gguf_bool(g, "a.bool", true, &b, &e), 0);
    assert_true(b);
    assert_int_equal(gguf_array(g, "a.numbers", true, GGUF_U32, &v, &e), 0);
    assert_int_equal(gguf_int_at(v, 2), 3);
    assert_int_equal(gguf_array(g, "a.numbers", true, GGUF_F32, &v, &e), E_DATA);
    assert_int_equal(gguf_array(g, "a.strings", true, GGUF_STRING, &v, &e), 0);
    assert_memory_equal(gguf_next_string(v, &at, &k), "one", 3);
    gguf_next_string(v, &at, &k);
    assert_int_equal(k, 0);
    assert_int_equal(at, v->nbytes);
    assert_non_null(t = gguf_tensor_find(g, "tensor.xyz"));
    assert_memory_equal(t->data, "\1\2\3\4", 4);
    assert_non_null(t = gguf_tensor_find(g, "tensor.two"));
    assert_int_equal(t->nbytes, 34);
    assert_int_equal(t->size[0], 32);
    gguf_close(g);
    free(p);
}

static void test_an_unfinished_file_does_not_appear(void **state)
{
    struct gguf_head h = { 0 };
    struct gguf_out o;
    struct err e = { 0 };
    const char *path = "/tmp/gguf-not-there.gguf";

    (void)state;
    small_head(&h);
    assert_int_equal(gguf_create(&o, path, &h, &e), 0);
    gguf_abandon(&o);
    assert_false(path_exists(path));
    assert_int_equal(gguf_create(&o, "/dev/null", &h, &e), E_CREATE);
    gguf_head_free(&h);
}

/* ---- ggml's types ---- */

/* Values of ggml's own functions: tests/make_gguf_golden.py. */
#include "tests/data/gguf_blocks.h"

static void test_types_as_ggml_has_them(void **state)
{
    static const struct { const struct tensor_type *t; const unsigned char *in; const float *out; } v[] = {
        { &type_q8_0, golden_q8_0, golden_q8_0_values }, { &type_q4_0, golden_q4_0, golden_q4_0_values },
        { &type_q4_1, golden_q4_1, golden_q4_1_values },
    };
    float f[GOLDEN_VALUES];
    unsigned char b[sizeof golden_q8_0];

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        v[i].t->to_f32(v[i].in, NULL, GOLDEN_VALUES, 0, GOLDEN_VALUES, f);
        assert_memory_equal(f, v[i].out, sizeof f);
        v[i].t->to_f32(v[i].in, NULL, GOLDEN_VALUES, 64, 32, f);
        assert_memory_equal(f, v[i].out + 64, 32 * sizeof *f);
    }
    gguf_narrow(&type_q8_0, golden_values, GOLDEN_VALUES, b);
    assert_memory_equal(b, golden_q8_0, sizeof golden_q8_0);
    gguf_narrow(&type_q4_0, golden_values, GOLDEN_VALUES, b);
    assert_memory_equal(b, golden_q4_0, sizeof golden_q4_0);
}

static void test_turned_rows_come_back(void **state)
{
    enum { ROWS = 16, COLS = 32, HEAD = 8 };
    static float a[ROWS * COLS], one[ROWS * COLS], two[ROWS * COLS];
    struct tensor t = { .name = "q", .type = &type_f32, .dims = 2, .shape = { ROWS, COLS },
                        .count = ROWS * COLS, .data = a, .nbytes = sizeof a };
    struct turn how, again;
    const struct row_order order = { .head = HEAD };
    struct tensor v, w;

    (void)state;
    for (int i = 0; i < ROWS * COLS; i++)
        a[i] = (float)i;
    v = tensor_turned(&t, &how, order, false);
    assert_int_equal(tensor_to_f32(&v, 0, t.count, one, NULL), 0);
    for (int r = 0; r < ROWS; r++) /* row 2 i is row i of the head, 2 i + 1 is row i + 4 */
        assert_true(one[r * COLS] == (float)((r / 8 * 8 + r % 2 * 4 + r % 8 / 2) * COLS));
    w = t;
    w.data = one;
    w = tensor_turned(&w, &again, order, true);
    assert_int_equal(tensor_to_f32(&w, 0, t.count, two, NULL), 0);
    assert_memory_equal(two, a, sizeof a);
    /* from the middle of a row to the middle of another */
    assert_int_equal(tensor_to_f32(&w, 37, 90, two, NULL), 0);
    assert_memory_equal(two, a + 37, 90 * sizeof *a);
    assert_ptr_equal(tensor_stored(&w), &type_f32);
}

/* q, k and v of the first head, then of the next; llama.cpp has all of q first. */
static void test_rows_by_head_come_back(void **state)
{
    enum { HEADS = 3, HEAD = 2, ROWS = 3 * HEADS * HEAD };
    static float a[ROWS], one[ROWS], two[ROWS];
    struct tensor t = { .name = "qkv", .type = &type_f32, .dims = 1, .shape = { ROWS }, .count = ROWS,
                        .data = a, .nbytes = sizeof a };
    const struct row_order order = { .head = HEAD, .heads = HEADS };
    struct turn how;
    struct tensor v;

    (void)state;
    for (int h = 0; h < HEADS; h++)
        for (int part = 0; part < 3; part++)
            for (int i = 0; i < HEAD; i++)
                a[(h * 3 + part) * HEAD + i] = (float)(100 * part + 10 * h + i);
    v = tensor_turned(&t, &how, order, false);
    assert_int_equal(tensor_to_f32(&v, 0, ROWS, one, NULL), 0);
    for (int r = 0; r < ROWS; r++)
        assert_true(one[r] == (float)(100 * (r / (HEADS * HEAD)) + 10 * (r / HEAD % HEADS) + r % HEAD));
    t.data = one;
    v = tensor_turned(&t, &how, order, true);
    assert_int_equal(tensor_to_f32(&v, 0, ROWS, two, NULL), 0);
    assert_memory_equal(two, a, sizeof a);
}

/* ---- a configuration there and back ---- */

/* A file of these keys and of what else a model must have to be asked for its configuration. */
static struct gguf *config_file(const struct llama_config *c, const char *path)
{
    const int64_t embed[2] = { c->dim, c->vocab };
    struct gguf_head h = { 0 };
    struct gguf_rope rope;
    struct gguf_out o;
    struct gguf *g = NULL;
    struct err e = { 0 };
    uint64_t at[2] = { 0 };

    assert_int_equal(gguf_config_write(&h, c, &rope, &e), 0);
    for (int i = 0; i < rope.lists; i++)
        at[i] = gguf_put_tensor(&h, gguf_rope_tensors[rope.lists == 1 ? 0 : 1 + i], GGML_F32, 1, &rope.pairs,
                                (size_t)rope.pairs * 4);
    gguf_put_tensor(&h, "token_embd.weight", GGML_F32, 2, embed, (size_t)(c->dim * c->vocab) * 4);
    if (!c->tied)
        gguf_put_tensor(&h, "output.weight", GGML_F32, 2, embed, (size_t)(c->dim * c->vocab) * 4);
    assert_int_equal(gguf_create(&o, path, &h, &e), 0);
    for (int i = 0; i < rope.lists; i++)
        assert_int_equal(gguf_write_at(&o, at[i], rope.list[i], (size_t)rope.pairs * 4, &e), 0);
    assert_int_equal(gguf_publish(&o, &e), 0);
    gguf_head_free(&h);
    assert_int_equal(gguf_open(&g, path, &e), 0);
    return g;
}

enum { HEAD_DIM = 64 };
static const struct {
    struct rope_config r;
    enum rope_type back;
} kinds[] = {
    { { .type = ROPE_DEFAULT, .theta = 5e5, .factor = 1 }, ROPE_DEFAULT },
    { { .type = ROPE_LINEAR, .theta = 1e4, .factor = 8 }, ROPE_LINEAR },
    { { .type = ROPE_LLAMA3, .theta = 5e5, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4,
        .original_context = 8192 }, ROPE_LLAMA3 },
    { { .type = ROPE_LLAMA3, .theta = 1e4, .factor = 4, .low_freq_factor = 2, .high_freq_factor = 9,
        .original_context = 4096 }, ROPE_LONGROPE },
    { { .type = ROPE_YARN, .theta = 1e4, .factor = 16, .original_context = 4096, .beta_fast = 32,
        .beta_slow = 1 }, ROPE_YARN },
    { { .type = ROPE_YARN, .theta = 1e4, .factor = 16, .original_context = 4096, .beta_fast = 32,
        .beta_slow = 1, .attention_factor = 1.5 }, ROPE_YARN },
    { { .type = ROPE_YARN, .theta = 1e4, .factor = 16, .original_context = 4096, .beta_fast = 16,
        .beta_slow = 2 }, ROPE_LONGROPE },
    { { .type = ROPE_YARN, .theta = 1e4, .factor = 16, .original_context = 4096, .beta_fast = 32,
        .beta_slow = 1, .smooth = true, .attention_factor = 1 }, ROPE_LONGROPE },
    { { .type = ROPE_LONGROPE, .theta = 1e4, .factor = 16, .original_context = 4096,
        .attention_factor = 1.2, .pairs = HEAD_DIM / 2 }, ROPE_LONGROPE },
};

/* The frequencies and the scale, which is all that RoPE does, at lengths on both sides of the original. */
static void test_rope_comes_back(void **state)
{
    char path[] = "/tmp/gguf-XXXXXX";

    (void)state;
    close(mkstemp(path));
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct llama_config c = { .vocab = 3, .dim = 128, .ffn_dim = 64, .layers = 1, .heads = 2,
                                  .kv_heads = 1, .head_dim = HEAD_DIM, .tied = true, .context = 65536, .norm_eps = 1e-5,
                                  .bos = -1, .eos = -1, .rope = kinds[k].r }, back;
        const struct gguf_arch *a;
        struct gguf *g;
        struct err e = { 0 };

        for (int i = 0; i < c.rope.pairs; i++) {
            c.rope.short_factor[i] = 1 + 0.01 * i;
            c.rope.long_factor[i] = 1 + 0.5 * i;
        }
        g = config_file(&c, path);
        assert_int_equal(gguf_config_read(&back, &a, g, &e), 0);
        assert_int_equal(back.rope.type, kinds[k].back);
        assert_int_equal(config_reach(&back), config_reach(&c));
        assert_int_equal(back.kv_heads, 1);
        assert_true(back.tied);
        for (int64_t len = 512; len <= 65536; len *= 2) {
            float f[HEAD_DIM / 2], was[HEAD_DIM / 2];
            float scale = rope_inv_freq(&back.rope, HEAD_DIM, len, f);

            assert_float_equal(scale, rope_inv_freq(&c.rope, HEAD_DIM, len, was), 1e-6);
            for (int i = 0; i < HEAD_DIM / 2; i++)
                assert_true(fabsf(f[i] - was[i]) <= 2e-6F * was[i]);
        }
        gguf_close(g);
    }
    unlink(path);
}

static void test_what_llama_cpp_has_not_is_refused(void **state)
{
    struct rope_config dynamic = { .type = ROPE_DYNAMIC, .theta = 1e4, .factor = 2, .original_context = 64 };
    struct llama_config c = { .vocab = 3, .dim = 128, .ffn_dim = 64, .layers = 1, .heads = 2, .kv_heads = 1,
                              .head_dim = 64, .context = 128, .norm_eps = 1e-5, .bos = -1, .eos = -1,
                              .rope = dynamic, .arch = arch_find("mistral") };
    struct gguf_head h = { 0 };
    struct gguf_rope rope;
    struct err e = { 0 };

    (void)state;
    assert_int_equal(gguf_config_write(&h, &c, &rope, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "type dynamic"));
    c.rope.type = ROPE_DEFAULT;
    c.window = 64;
    assert_int_equal(gguf_config_write(&h, &c, &rope, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "window of 64 tokens"));
    c.window = 128; /* as long as the context: no difference */
    assert_int_equal(gguf_config_write(&h, &c, &rope, &e), 0);
    gguf_head_free(&h);
}

static void golden(struct llama_config *c, const char *name)
{
    char path[96];
    struct err e = { 0 };

    snprintf(path, sizeof path, "tests/data/arch/%s/config.json", name);
    assert_int_equal(config_read(c, path, &e), 0);
}

/* What one family alone has: scales, two kinds of block and of gelu, a share of a head, lists. */
static void test_families_come_back(void **state)
{
    static const char *const names[] = { "granite", "neox", "neox_serial", "phi4mini", "olmo2", "qwen2", "gemma",
                                         "gemma2", "gemma3" };
    char path[] = "/tmp/gguf-XXXXXX";

    (void)state;
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct llama_config c, back;
        const struct gguf_arch *a;
        struct err e = { 0 };
        struct gguf *g;

        golden(&c, names[i]);
        g = config_file(&c, path);
        assert_int_equal(gguf_config_read(&back, &a, g, &e), 0);
        assert_ptr_equal(back.arch, c.arch);
        assert_int_equal(back.tied, c.tied);
        assert_int_equal(back.parallel, c.parallel);
        assert_int_equal(back.activation, c.activation);
        assert_int_equal(config_rotary(&back), config_rotary(&c));
        assert_int_equal(back.rope.type, c.rope.type);
        assert_float_equal(config_rope_scale(&back.rope), config_rope_scale(&c.rope), 1e-6);
        assert_true(back.norm_eps == c.norm_eps);
        assert_memory_equal(&back.times, &c.times, sizeof c.times);
        assert_memory_equal(&back.cap, &c.cap, sizeof c.cap);
        assert_true(back.local_theta == c.local_theta);
        for (int64_t l = 0; l < c.layers; l++)
            assert_int_equal(config_window(&back, l), config_window(&c, l));
        gguf_close(g);
    }
    unlink(path);
}

/* Files of others: keys that are not written here, and a head's channels where no key says them. */
static void test_gemmas_of_others(void **state)
{
    (void)state;
    for (int three = 0; three < 2; three++) {
        const struct gguf_arch *a;
        struct llama_config c;
        struct err e = { 0 };
        struct gguf *g;

        assert_int_equal(gguf_open(&g, three ? "tests/fuzz/seeds/gguf/gemma3" : "tests/fuzz/seeds/gguf/gemma2", &e), 0);
        assert_int_equal(gguf_config_read(&c, &a, g, &e), 0);
        assert_int_equal(c.head_dim, 8);
        assert_int_equal(config_window(&c, 0), 16);
        assert_true(fabs(c.times.scores * sqrt(8) - 1) < 1e-9 && c.tied);
        assert_true(c.cap.scores == (three ? 0 : 50) && c.cap.logits == (three ? 0 : 30));
        assert_true(c.local_theta == (three ? 5000 : 0) && c.rope.theta == (three ? 1e6 : 1e4));
        gguf_close(g);
    }
}

/* Each of the golden models, changed, and what llama.cpp has not for it. */
static void test_each_family_says_what_it_lacks(void **state)
{
    enum { N = 16 };
    struct llama_config c[N];
    static const char *const names[N] = { "phi3", "qwen2", "qwen3_bias", "olmo2", "neox", "smollm3", "llama_bias",
                                          "phi4mini", "qwen2", "gemma2", "gemma2", "gemma2", "gemma2", "gemma3",
                                          "gemma3", "gemma" };
    static const char *const why[N] = { "window of 7 tokens, which llama.cpp reads and then leaves out", "head_dim",
                                         "self_attn.o_proj.bias",
                                        "tie_word_embeddings", "no attention_bias", "layer 1 is without RoPE",
                                        "hidden_act", "a list of factors", "a list of factors", "layer_types",
                                        "query_pre_attn_scalar is not 6", "softcapping is null",
                                        "no tie_word_embeddings", "final_logit_softcapping", "layers with a window",
                                        "hidden_act" };
    struct rope_config llama3 = { .type = ROPE_LLAMA3, .theta = 1e4, .factor = 8, .low_freq_factor = 1,
                                  .high_freq_factor = 4, .original_context = 64 };
    struct err e;

    (void)state;
    for (int i = 0; i < N; i++)
        golden(&c[i], names[i]);
    c[1].head_dim = 8;
    c[2].window = 0;
    c[3].tied = true;
    c[4].arch = arch_with_biases(c[4].arch, false, true);
    c[6].activation = ACT_GELU;
    c[7].rope = c[8].rope = llama3;
    c[9].full.bits[0] ^= 1;
    c[10].times.scores = 0.1;
    c[11].cap.logits = 0;
    c[12].tied = false;
    c[13].cap.logits = 3;
    c[14].rope = (struct rope_config){ .type = ROPE_YARN, .theta = 1e4, .factor = 4, .beta_fast = 32,
                                       .beta_slow = 1, .original_context = 64 };
    c[15].activation = ACT_SILU;
    for (int i = 0; i < N; i++) {
        e = (struct err){ 0 };
        assert_int_equal(gguf_check(&c[i], &e), E_CONFIG);
        if (!strstr(e.msg, why[i]))
            fail_msg("%s: %s", names[i], e.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_spoilt_field_is_named),
        cmocka_unit_test(test_a_file_cut_anywhere_is_refused),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_an_unfinished_file_does_not_appear),
        cmocka_unit_test(test_types_as_ggml_has_them),
        cmocka_unit_test(test_turned_rows_come_back),
        cmocka_unit_test(test_rows_by_head_come_back),
        cmocka_unit_test(test_rope_comes_back),
        cmocka_unit_test(test_families_come_back),
        cmocka_unit_test(test_each_family_says_what_it_lacks), cmocka_unit_test(test_gemmas_of_others),
        cmocka_unit_test(test_what_llama_cpp_has_not_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
