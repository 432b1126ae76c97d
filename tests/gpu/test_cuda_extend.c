/* tests/gpu/test_cuda_extend.c - texts that grow, on CUDA against the CPU: the ops of a cache, and models. */
#include "tests/gpu/gputest.h"

#include "model/extend.h"
#include "model/model.h"

#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, err.msg); } while (0)
static struct err err;

/* Products of few rows: what the kernel for them takes, and what is next to it. */
static void one_gemm(struct device *d, int64_t m, int64_t n, int64_t k, int form)
{
    int64_t lda = k + (form & 1 ? 8 : 0), ldb = k + (form & 2 ? 16 : 0), ldc = n + 3;
    float *a = normal(m * lda, 1, 1), *b = normal(n * ldb, 2, 1), *c = normal(m * ldc, 3, 1), *got;
    enum dtype t = form & 4 ? DT_F32 : DT_BF16;
    struct op_gemm g = { .trans_b = true, .m = m, .n = n, .k = k, .alpha = form & 8 ? -0.5f : 1,
                         .beta = form & 16 ? 0.25f : 0, .a = a, .b = mat_plain(DT_F32, b), .c = c,
                         .lda = lda, .ldb = ldb, .ldc = ldc, .c_type = DT_F32 }, h = g;

    h.a = up(d, a, m * lda, DT_BF16), h.b = mat_plain(DT_BF16, up(d, b, n * ldb, DT_BF16));
    h.c = up(d, c, m * ldc, t), h.c_type = t;
    RUN(cpu.gemm(&cpu, &g));
    RUN(d->gemm(d, &h));
    d->release(d, (void *)(uintptr_t)h.a), d->release(d, (void *)(uintptr_t)h.b.data);
    got = down(d, h.c, m * ldc, t);
    near("few rows", got, c, m * ldc, t == DT_F32 ? 1e-4 : 6e-3);
    free(a), free(b), free(c), free(got);
}

/* Products of one input, which go along with each other: three in a launch, of five rows and more by tensor cores. */
static void test_gemms_of_one_input(void **state)
{
    static const int64_t n[] = { 4096, 1024, 1000, 11008 };
    enum { K = 4096, N = 4 };

    NEED_GPU();
    for (int64_t m = 1; m <= 17; m += m < 5 ? 1 : 6)
        for (int count = m > 5 ? N : 2; count <= N; count++) {
            float *a = normal(m * K, 1, 1), *b[N], *c[N];
            struct op_gemm g[N], h[N];
            struct device *d = &gpu[DEFAULT];
            void *x = up(d, a, m * K, DT_BF16);

            for (int i = 0; i < count; i++) {
                b[i] = normal(n[i] * K, 2 + (uint64_t)i, 1), c[i] = normal(m * n[i], 9, 1);
                g[i] = (struct op_gemm){ .trans_b = true, .m = m, .n = n[i], .k = K, .alpha = 1, .beta = i == 1, .a = a,
                    .b = mat_plain(DT_F32, b[i]), .c = c[i], .lda = K, .ldb = K, .ldc = n[i], .c_type = DT_F32,
                    .also = i + 1 < count ? &g[i + 1] : NULL };
                h[i] = g[i];
                h[i].also = i + 1 < count ? &h[i + 1] : NULL;
                h[i].a = x, h[i].b = mat_plain(DT_BF16, up(d, b[i], n[i] * K, DT_BF16));
                h[i].c = up(d, c[i], m * n[i], DT_BF16), h[i].c_type = DT_BF16;
            }
            RUN(cpu.gemm(&cpu, g));
            RUN(d->gemm(d, h));
            for (int i = 0; i < count; i++) {
                float *got = down(d, h[i].c, m * n[i], DT_BF16);

                near("one of several", got, c[i], m * n[i], 6e-3);
                d->release(d, (void *)(uintptr_t)h[i].b.data);
                free(b[i]), free(c[i]), free(got);
            }
            d->release(d, x);
            free(a);
        }
}

static void test_gemm_few(void **state)
{
    static const int64_t v[][2] = { { 16, 64 }, { 17, 72 }, { 33, 1000 }, { 300, 1024 }, { 1001, 2056 },
                                    { 4096, 4096 }, { 513, 11008 }, { 40, 1288 }, { 24, 60 } };
    static const int64_t m[] = { 1, 2, 3, 4, 5, 8, 9, 16, 17 };

    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        for (size_t j = 0; j < sizeof m / sizeof *m; j++)
            for (int form = 0; form < 32; form += small() || m[j] > 5 ? 11 : 3)
                one_gemm(&gpu[DEFAULT], m[j], v[i][0], v[i][1], form);
}

struct cache_case {
    int64_t texts, rows, heads, kv_heads, dim, queries, window, cap;
};

/* Keys and values into a cache of a type, then queries over it; o and lse of all, as float32. */
static float *over_cache(struct device *d, const struct cache_case *c, enum kv_type type, float **lse)
{
    int64_t width = c->kv_heads * c->dim, all = c->texts * c->rows, n = c->texts * c->queries;
    int64_t q_width = c->heads * c->dim, cu[64], kv[64], first[64], to[32], ends[33];
    float *q = normal(n * q_width, 1, 1), *k = normal(all * width, 2, 1), *v = normal(all * width, 3, 1);
    float *zero = calloc((size_t)(n * q_width), 4), *o;
    size_t each = type == KV_INT8 ? 1 : type == KV_BF16 ? 2 : dtype_bytes(d->act);
    struct op_store s = { .rows = all, .heads = c->kv_heads, .dim = c->dim, .ld = width, .type = type,
                          .n = c->texts, .cu = ends, .to = to };
    struct op_attention a = { .q_rows = n, .kv_rows = all, .heads = c->heads, .kv_heads = c->kv_heads,
                              .dim = c->dim, .q_ld = q_width, .kv_ld = width, .window = c->window,
                              .scale = 1 / sqrtf((float)c->dim), .cap = (float)c->cap,
                              .cached = true, .kv_type = type };

    s.k = up(d, k, all * width, d->act), s.v = up(d, v, all * width, d->act);
    RUN(d->alloc(d, (size_t)(all * width) * each, &s.k_to, NULL));
    RUN(d->alloc(d, (size_t)(all * width) * each, &s.v_to, NULL));
    RUN(d->alloc(d, (size_t)(all * c->kv_heads) * 4, (void **)&s.k_scale, NULL));
    RUN(d->alloc(d, (size_t)(all * c->kv_heads) * 4, (void **)&s.v_scale, NULL));
    for (int64_t t = 0; t <= c->texts; t++) { /* of every text the first rows are seen */
        ends[t] = t * c->rows;
        cu[t] = t * c->queries, kv[t] = t * c->rows;
        if (t < c->texts) /* and texts change places */
            to[t] = (c->texts - 1 - t) * c->rows, first[t] = c->rows - c->queries - 7 * t;
    }
    RUN(d->store(d, &s));
    a.seg[0] = a.seg[1] = (struct op_segments){ c->texts, cu, kv, first };
    a.q = up(d, q, n * q_width, d->act), a.o = up(d, zero, n * q_width, d->act);
    a.lse = up(d, NULL, n * c->heads, DT_F32);
    a.k = s.k_to, a.v = s.v_to, a.k_scale = s.k_scale, a.v_scale = s.v_scale;
    RUN(d->attention(d, &a));
    o = down(d, a.o, n * q_width, d->act);
    *lse = down(d, a.lse, n * c->heads, DT_F32);
    d->release(d, (void *)(uintptr_t)s.k), d->release(d, (void *)(uintptr_t)s.v);
    d->release(d, (void *)(uintptr_t)a.q);
    d->release(d, s.k_to), d->release(d, s.v_to), d->release(d, s.k_scale), d->release(d, s.v_scale);
    free(q), free(k), free(v), free(zero);
    return o;
}

static void test_attention_over_caches(void **state)
{
    static const struct cache_case v[] = {
        { 1, 1, 1, 1, 64, 1, 0, 0 },     { 1, 40, 4, 4, 128, 1, 0, 0 },   { 3, 300, 8, 2, 128, 1, 0, 0 },
        { 1, 5000, 4, 4, 128, 1, 0, 0 }, { 2, 3000, 8, 8, 64, 1, 0, 0 },  { 1, 4001, 32, 4, 128, 1, 0, 0 },
        { 4, 77, 6, 3, 80, 1, 0, 0 },    { 1, 2000, 4, 1, 96, 3, 0, 0 },  { 2, 1500, 2, 1, 256, 1, 0, 0 },
        { 1, 900, 4, 2, 128, 1, 100, 0 }, { 1, 700, 4, 2, 128, 200, 0, 0 }, { 1, 257, 4, 4, 64, 130, 0, 0 },
        { 1, 300, 2, 1, 40, 50, 0, 0 },  { 20, 64, 5, 5, 16, 1, 0, 0 },
        { 2, 1500, 8, 4, 256, 1, 700, 3 }, { 1, 300, 4, 2, 128, 200, 0, 3 } };

    NEED_GPU();
    for (size_t i = 0; i < (small() ? 8 : sizeof v / sizeof *v); i++)
        for (enum kv_type type = KV_ACT; type < KV_TYPES; type++) {
            int64_t n = v[i].texts * v[i].queries * v[i].heads;
            float *want_lse, *lse, *want = over_cache(&cpu, &v[i], type == KV_ACT ? KV_BF16 : type,
                                                      &want_lse);
            float *got = over_cache(&gpu[OWN], &v[i], type, &lse);
            char what[80];

            snprintf(what, sizeof what, "case %zu, type %d", i, (int)type);
            near(what, got, want, n * v[i].dim, 8e-3);
            near(what, lse, want_lse, n, type == KV_INT8 && v[i].queries > 4 ? 3e-3 : 1e-4);
            free(want), free(got), free(lse), free(want_lse);
        }
}

/* More texts than an argument has room for. */
static void test_rope_of_texts(void **state)
{
    enum { ROWS = 150, HEADS = 3, DIM = 64 };
    float inv_freq[DIM / 2], *x, *got[2];
    int64_t firsts[ROWS];

    NEED_GPU();
    for (int i = 0; i < DIM / 2; i++)
        inv_freq[i] = (float)pow(10000, -2.0 * i / DIM);
    for (int i = 0; i < ROWS; i++)
        firsts[i] = (int64_t)(mix64((uint64_t)i) % 200000);
    x = normal(ROWS * HEADS * DIM, 1, 1);
    for (int64_t period = 1; period <= 2; period++) {
        for (int g = 0; g < 2; g++) {
            struct device *d = g ? &gpu[DEFAULT] : &cpu;
            void *p = up(d, x, ROWS * HEADS * DIM, d->act);
            RUN(d->rope(d, &(struct op_rope){ .rows = ROWS, .ld = HEADS * DIM, .heads = HEADS,
                .dim = DIM, .period = period, .scale = 1, .inv_freq = inv_freq, .x = p,
                .firsts = firsts }));
            got[g] = down(d, p, ROWS * HEADS * DIM, d->act);
        }
        near("rope", got[1], got[0], ROWS * HEADS * DIM, 6e-3);
        free(got[0]), free(got[1]);
    }
    free(x);
}

/* Logits of two texts: read in runs, then single tokens side by side, [2 + steps] rows. */
enum { TEXTS = 2, STEPS = 6, LEN = 150, VOCAB = 300 };
static const struct llama_config little = { .vocab = VOCAB, .dim = 256, .ffn_dim = 320, .layers = 3, .heads = 4,
    .kv_heads = 2, .head_dim = 64, .context = 1024, .norm_eps = 1e-5, .init_range = 0.05, .rope = { .theta = 1e4 } };
static float *grow(struct device *d, const struct llama_config *c, struct cache_options o, int steps)
{
    float *logits = malloc((size_t)((TEXTS + steps * TEXTS) * VOCAB) * sizeof *logits);
    int64_t texts = o.window ? 1 : TEXTS;
    struct piece p[TEXTS];
    struct model_options mo;
    struct model *m;
    int32_t *ids = malloc((size_t)(LEN + steps + TEXTS) * sizeof *ids);

    for (int i = 0; i < LEN + steps + TEXTS; i++)
        ids[i] = (int32_t)(mix64((uint64_t)i) % VOCAB);
    o.seqs = texts;
    model_defaults(&mo);
    mo.mode = TRAIN_NONE, mo.ctx = 64, mo.seqs = 1, mo.cache = o;
    OK(model_open(&m, d, c, &mo, &err));
    OK(c->dim > little.dim ? model_noise(m, 5, &err) : model_init(m, 5, &err));
    for (int i = 0; i < texts; i++)
        p[i] = (struct piece){ i, LEN - 60 * i, ids + i };
    OK(model_extend(m, &(struct extend){ texts, p, logits, false }, &err));
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < texts; i++)
            p[i] = (struct piece){ i, 1, ids + i + LEN - 60 * i + s };
        OK(model_extend(m, &(struct extend){ texts, p, logits + (s + 1) * texts * VOCAB, false }, &err));
    }
    model_close(m);
    free(ids);
    return logits;
}

static void test_models(void **state)
{
    static const struct cache_options v[] = {
        { .rows = 160 }, { .rows = 160, .type = KV_BF16 }, { .rows = 160, .type = KV_INT8 },
        { .rows = 100, .sinks = 4, .window = 60 } };

    NEED_GPU();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        int64_t texts = v[i].window ? 1 : TEXTS, n = texts * (1 + STEPS) * VOCAB;
        struct cache_options o = v[i];
        float *want = grow(&cpu, &little, o, STEPS), *got = grow(&gpu[DEFAULT], &little, o, STEPS), *host;

        near("a text that grows", got, want, n, 3e-2);
        if (!o.window) { /* the same cache in the host's memory */
            o.in_host = true;
            host = grow(&gpu[DEFAULT], &little, o, STEPS);
            same_bits("a cache in the host's memory", host, got, n);
            free(host);
        }
        free(want), free(got);
    }
}

/* The deterministic device once more, whose kernels do not overlap. */
static void open_apart(struct device *d)
{
    int rc;

    setenv("LONGLORA_OVERLAP", "0", 1), setenv("LONGLORA_DETERMINISTIC", "1", 1);
    rc = device_open(d, &(struct device_options){ .name = GPU_NAME }, &err);
    unsetenv("LONGLORA_OVERLAP"), unsetenv("LONGLORA_DETERMINISTIC");
    OK(rc);
    print_message("# apart: %s\n", d->detail);
}

/* A matrix that the four products in front have just made, read by one that begins before they have ended; again and
 * again, with other numbers each time. [rounds][m][columns] of what came out. */
enum { MADE_N = 16, MADE_K = 4096, FROM_K = 64 };
static float *of_made(struct device *d, int rounds, int m)
{
    float *a = normal((rounds + MADE_N) * FROM_K, 1, 1), *b = normal(MADE_K * FROM_K, 2, 0.1);
    float *x = normal(m * MADE_K, 3, 1), *got;
    char *da = up(d, a, (rounds + MADE_N) * FROM_K, DT_BF16), *made = up(d, NULL, MADE_N * MADE_K, DT_BF16);
    void *db = up(d, b, MADE_K * FROM_K, DT_BF16), *dx = up(d, x, m * MADE_K, DT_BF16);
    float *y = up(d, NULL, rounds * m * MADE_N, DT_F32);

    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < MADE_N; i += 4)
            RUN(d->gemm(d, &(struct op_gemm){ .trans_b = true, .m = 4, .n = MADE_K, .k = FROM_K, .alpha = 1,
                .a = da + (r + i) * FROM_K * 2, .lda = FROM_K, .b = mat_plain(DT_BF16, db), .ldb = FROM_K,
                .c = made + i * MADE_K * 2, .ldc = MADE_K, .c_type = DT_BF16 }));
        RUN(d->gemm(d, &(struct op_gemm){ .trans_b = true, .m = m, .n = MADE_N, .k = MADE_K, .alpha = 1, .a = dx,
            .lda = MADE_K, .b = mat_plain(DT_BF16, made), .ldb = MADE_K, .c = y + r * m * MADE_N, .ldc = MADE_N,
            .c_type = DT_F32 }));
    }
    got = down(d, y, rounds * m * MADE_N, DT_F32);
    d->release(d, da), d->release(d, made), d->release(d, db), d->release(d, dx);
    free(a), free(b), free(x);
    return got;
}

/* Kernels that begin before the one in front has ended make the bits of those that do not. */
static void test_overlap(void **state)
{
    static const struct cache_options v[] = { { .rows = 400 }, { .rows = 400, .type = KV_INT8 },
                                              { .rows = 100, .sinks = 4, .window = 60 } };
    struct llama_config wide = little;
    struct device d;
    int rounds = small() ? 3 : 300, steps = small() ? STEPS : 100;

    NEED_GPU();
    wide.dim = 4096, wide.ffn_dim = 11008, wide.heads = wide.kv_heads = 32, wide.head_dim = 128, wide.layers = 2;
    open_apart(&d);
    for (int m = 1; m <= 16; m += 15) {
        float *want = of_made(&d, rounds, m), *got = of_made(&gpu[DET], rounds, m);

        same_bits("a matrix made in front", got, want, rounds * m * MADE_N);
        free(want), free(got);
    }
    for (size_t k = 0; k < sizeof v / sizeof *v; k++)
        for (int big = 0; big < (small() ? 1 : 2); big++) {
            const struct llama_config *c = big ? &wide : &little;
            float *want = grow(&d, c, v[k], steps), *got = grow(&gpu[DET], c, v[k], steps);

            same_bits("a text by kernels that overlap", got, want, (v[k].window ? 1 : TEXTS) * (1 + steps) * VOCAB);
            free(want), free(got);
        }
    d.close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_few), cmocka_unit_test(test_gemms_of_one_input),
        cmocka_unit_test(test_attention_over_caches),
        cmocka_unit_test(test_rope_of_texts), cmocka_unit_test(test_models), cmocka_unit_test(test_overlap),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
