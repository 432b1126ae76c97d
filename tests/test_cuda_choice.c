/* tests/test_cuda_choice.c - which kernels attention takes on the CUDA device, and what they
 * allocate: cuda_attention.c with a cuDNN that takes everything, asks for the workspace that the
 * real one was seen to ask for (make check-plans holds that), and counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/perm.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runs.h"
#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/sizes.h"
#include "kernels/planned.h"

/* What the mocks saw. */
static struct {
    int own, cudnn, grown, noted, few, unpacked;
    size_t scratch[SCRATCH_KINDS], least, asked, more;
    const char *from, *to; /* the backward's scratch: nothing of cuDNN's may lie outside it */
    bool refuse, fail;
    int64_t cleared, pairs; /* pairs: of a head's scores, in all calls */
} seen;
static struct cuda cuda;
static struct device dev;
static struct sdpa_plan { struct sdpa_shape shape; size_t workspace; } plans[64];
static int n_plans;

/* What a call that failed leaves behind: the next op's cuda_end would take it for its own. */
static cudaError_t remembered;
cudaError_t cudaGetLastError(void)
{
    cudaError_t r = remembered;

    remembered = 0;
    return r;
}
cudaError_t cudaMemset2DAsync(void *p, size_t ld, int value, size_t n, size_t rows, cudaStream_t s)
{
    assert_true(p && value == 0 && n <= ld && s == cuda.stream);
    seen.cleared += (int64_t)(n * rows);
    return cudaSuccess;
}
cudaError_t cuda_wait(struct cuda *c, cudaStream_t s)
{
    assert_ptr_equal(s, c->stream);
    return cudaSuccess;
}
void *cuda_scratch(struct cuda *c, enum cuda_scratch_kind kind, size_t nbytes)
{
    if (nbytes > c->scratch[kind].cap) {
        seen.grown++;
        free(c->scratch[kind].p);
        c->scratch[kind].p = malloc(nbytes);
        c->scratch[kind].cap = nbytes;
    }
    return c->scratch[kind].p;
}
int cuda_fault(struct cuda *c, const char *fmt, ...)
{
    (void)c;
    fail_msg("%s", fmt);
    return E_DEVICE;
}
int cuda_check(struct cuda *c, cudaError_t r, const char *what)
{
    (void)c, (void)what;
    return r;
}
void cuda_note(struct cuda *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->notes, sizeof c->notes, fmt, ap);
    va_end(ap);
    seen.noted++;
}
void cuda_begin(struct cuda *c, int kind) { (void)c, (void)kind; }
void cuda_begin_rows(struct cuda *c, int kind, int64_t rows) { (void)rows, cuda_begin(c, kind); }
int cuda_end(struct device *d, int rc, int kind, double flop)
{
    (void)d, (void)kind, (void)flop;
    return rc ? rc : cudaGetLastError() ? E_DEVICE : 0;
}
int flash_forward(struct cuda *c, const struct op_attention *a, const struct attention_bounds b[2])
{
    (void)c, (void)a, (void)b;
    seen.own++;
    return 0;
}
int flash_backward(struct cuda *c, const struct op_attention_back *a,
                   const struct attention_bounds b[2])
{
    return flash_forward(c, &a->fwd, b);
}
bool flash_few_takes(const struct op_attention *a) { return a->q_rows == 1; }
int flash_few(struct cuda *c, const struct op_attention *a)
{
    (void)c, (void)a;
    seen.few++;
    return 0;
}
void store_unpack(struct cuda *c, int64_t rows, int64_t heads, int64_t dim, const void *x,
                  const float *scale, void *y)
{
    (void)c, (void)rows, (void)heads, (void)dim, (void)x, (void)scale, (void)y;
    seen.unpacked++;
}

int sdpa_open(struct sdpa **s, const char *path, void *stream, const char *json, struct err *e)
{
    (void)path, (void)stream, (void)json, (void)e;
    *s = (struct sdpa *)(uintptr_t)&plans;
    return 0;
}
void sdpa_close(struct sdpa *s) { (void)s; }
int64_t sdpa_version(const struct sdpa *s) { return s ? 91900 : 0; }
size_t sdpa_workspace(const struct sdpa_plan *p) { return p->workspace; }
int sdpa_plan(struct sdpa *s, const struct sdpa_shape *shape, const struct sdpa_plan **p,
              struct err *e)
{
    struct sdpa_plan *x = &plans[n_plans++ % 64];

    (void)s;
    if (seen.refuse) {
        remembered = 1;
        return err_set(e, E_DEVICE, "cuDNN does not take it");
    }
    x->shape = *shape;
    x->workspace = shape->back ? seen.more - CUDA_SDPA_SLACK / 2 +
                                     cuda_sdpa_bytes(cuda.sm, shape->det, shape->hq > shape->hkv,
                                                     shape->b, shape->hq, shape->s, shape->d)
                               : 256;
    *p = x;
    return 0;
}
int sdpa_run(struct sdpa *s, const struct sdpa_plan *p, const struct sdpa_args *a, struct err *e)
{
    const struct sdpa_shape *h = &p->shape;
    const char *acc = a->acc, *work = a->workspace;
    size_t acc_bytes = (size_t)(h->b * h->hq * h->s * h->d) * 4;

    (void)s;
    if (seen.fail) {
        remembered = 1;
        return err_set(e, E_DEVICE, "attention failed in cuDNN");
    }
    seen.cudnn++;
    seen.pairs += h->hq * h->b * ((h->keys - h->s) * h->s + h->s * (h->s + 1) / 2);
    assert_non_null(work);
    if (!h->back)
        return 0;
    assert_true(h->det ? !acc : acc >= seen.from && acc + acc_bytes <= seen.to);
    assert_true(work >= seen.from && work + p->workspace <= seen.to);
    assert_true(h->det || work >= acc + acc_bytes); /* apart */
    assert_int_equal((uintptr_t)work % 16, 0);
    return 0;
}

static int open_mock(int sm, bool deterministic)
{
    struct err e = { 0 };
    char detail[64];

    memset(&cuda, 0, sizeof cuda);
    memset(&dev, 0, sizeof dev);
    memset(&seen, 0, sizeof seen);
    cuda.sm = sm;
    cuda.deterministic = deterministic;
    dev.state = &cuda;
    return attention_open(&cuda, detail, sizeof detail, &e);
}
static void close_mock(void)
{
    attention_close(&cuda);
    for (int i = 0; i < SCRATCH_KINDS; i++)
        free(cuda.scratch[i].p);
}

enum { MOST = 64 };
struct shape {
    int64_t rows, heads, kv_heads, dim, window;
    int64_t n[2], cu[2][MOST];
};

static int64_t list(int64_t *cu, int64_t seqs, int64_t len, int64_t first, int64_t group)
{
    int64_t n = 0;

    for (int64_t s = 0; s < seqs; s++)
        for (int64_t at = 0; at < len; at += at == 0 ? first : group)
            cu[n++] = s * len + at;
    cu[n] = seqs * len;
    return n;
}
/* group 0: dense. */
static struct shape shape(int64_t seqs, int64_t len, int64_t heads, int64_t kv_heads, int64_t group)
{
    struct shape s = { .rows = seqs * len, .heads = heads, .kv_heads = kv_heads, .dim = 128 };

    group = group ? group : len;
    s.n[0] = list(s.cu[0], seqs, len, group, group);
    s.n[1] = list(s.cu[1], seqs, len, group < len ? group / 2 : len, group);
    return s;
}
/* Documents, another row every time. */
static struct shape documents(int64_t rows, uint64_t seed, int64_t n)
{
    struct shape s = { .rows = rows, .heads = 32, .kv_heads = 8, .dim = 128, .n = { n, n } };

    for (int64_t i = 1; i < n; i++)
        s.cu[0][i] = s.cu[0][i - 1] + 1 +
                     (int64_t)(mix64(seed * 100 + (uint64_t)i) % (uint64_t)(rows / n));
    s.cu[0][n] = rows;
    memcpy(s.cu[1], s.cu[0], sizeof s.cu[0]);
    return s;
}

/* Forward and backward; whether cuDNN took it: 0, 1 or, of one alone, 2. The arrays are not
 * touched, so that their addresses may be anything. */
static int run(const struct shape *s)
{
    void *p = (void *)(uintptr_t)4096;
    size_t bytes = cuda_attention_scratch_bytes(&dev, s->rows, s->heads, s->kv_heads, s->dim);
    struct op_attention_back b = {
        .fwd = { .q_rows = s->rows, .kv_rows = s->rows, .heads = s->heads,
                 .kv_heads = s->kv_heads, .dim = s->dim, .q_ld = s->heads * s->dim,
                 .kv_ld = s->kv_heads * s->dim, .scale = 1, .window = s->window,
                 .seg = { { .n = s->n[0], .cu = s->cu[0] }, { .n = s->n[1], .cu = s->cu[1] } },
                 .q = p, .k = p, .v = p, .o = p, .lse = p },
        .d_o = p, .dq = p, .dk = p, .dv = p, .scratch = (float *)((uintptr_t)1 << 40) };
    int own = seen.own, forward;

    seen.from = (const char *)b.scratch;
    seen.to = seen.from + bytes;
    assert_int_equal(cuda_attention(&dev, &b.fwd), 0);
    forward = seen.own > own;
    own = seen.own;
    assert_int_equal(cuda_attention_back(&dev, &b), 0);
    return forward != (seen.own > own) ? 2 : !forward;
}

/* Every shape that is shipped, on every architecture, deterministic or not: cuDNN's workspace is
 * in the scratch that was planned, and nothing is allocated. */
static void test_workspace_is_planned(void **state)
{
    static const int sms[] = { 80, 86, 89, 90, 100, 120 };
    static const int64_t v[][5] = { /* sequences, length, heads, key heads, group */
        { 1, 8192, 32, 32, 0 }, { 1, 8192, 32, 8, 0 }, { 1, 8192, 32, 8, 2048 },
        { 1, 3000, 32, 32, 0 }, { 1, 3000, 32, 8, 0 }, { 4, 1000, 32, 4, 0 },
        { 2, 600, 32, 8, 150 }, { 1, 102400, 32, 8, 25600 }, { 1, 102400, 32, 32, 0 },
        { 8, 100, 4, 2, 0 } };

    (void)state;
    for (size_t i = 0; i < sizeof sms / sizeof *sms; i++)
        for (int det = 0; det < 2; det++) {
            assert_int_equal(open_mock(card_at(i)->sm, det), 0);
            for (size_t k = 0; k < sizeof v / sizeof *v; k++) {
                struct shape s = shape(v[k][0], v[k][1], v[k][2], v[k][3], v[k][4]);
                int took = run(&s), want = det && v[k][1] == 102400 && !v[k][4] ? 2 : 1;
                if (took != want)
                    fail_msg("sm_%d, case %zu%s: %d, should be %d: %s", sms[i], k,
                             det ? ", deterministic" : "", took, want, cuda.notes);
            }
            close_mock();
        }
}

/* The plan of a card that is not here counts the same bytes. */
static void test_planned_counts_the_same(void **state)
{
    struct err e = { 0 };

    (void)state;
    for (int i = 0; card_at(i); i++)
        for (int det = 0; det < 2; det++) {
            struct device d;
            assert_int_equal(device_open_planned(&d, card_at(i), 0, &e), 0);
            if (det)
                d.be_deterministic(&d);
            assert_int_equal(open_mock(card_at(i)->sm, det), 0);
            for (int64_t rows = 64; rows <= 102400; rows *= 5)
                for (int64_t kv = 8; kv <= 32; kv *= 4)
                    assert_int_equal(d.attention_scratch_bytes(&d, rows, 32, kv, 128),
                                     cuda_attention_scratch_bytes(&dev, rows, 32, kv, 128));
            d.close(&d);
            close_mock();
        }
}

/* Rows of documents take our kernels at step 1 and at step 300, whole rows cuDNN's, and nothing
 * grows after the first step of each. */
static void test_choice_has_no_history(void **state)
{
    int grown;

    (void)state;
    assert_int_equal(open_mock(90, true), 0);
    for (uint64_t step = 0; step < 300; step++) {
        struct shape s = documents(8192, step, 2 + (int64_t)(step % 7)), d = shape(1, 8192, 32, 8, 0);
        assert_int_equal(run(&s), 0);
        assert_int_equal(run(&d), 1);
        d = shape(1, 8192, 32, 8, 2048);
        assert_int_equal(run(&d), 1);
        if (step == 0)
            grown = seen.grown;
        assert_int_equal(seen.grown, grown);
    }
    close_mock();
}

/* Queries [from, to) of S2's groups with the keys of groups that begin before; cut: a document. */
enum { GROUP = 1024 };
struct part {
    int64_t n, cu[16], kv[16], first[16], pairs;
};

static int64_t group_start(int64_t row, int half)
{
    int64_t shift = half * GROUP / 2;

    return row < shift ? 0 : (row - shift) / GROUP * GROUP + shift;
}

static struct part part_of(int64_t from, int64_t to, int64_t front, int half, int64_t cut)
{
    struct part p = { .n = 0 };
    int64_t at = group_start(from, half), end;

    if (at > front)
        p.kv[++p.n] = at - front;
    for (; at < to; at = end) {
        int64_t q = at > from ? at : from, next = group_start(at, half) + GROUP;

        next = at < half * GROUP / 2 ? GROUP / 2 : next;
        end = at < cut && cut < next ? cut : next;
        end = end < to ? end : to;
        if (end <= from)
            continue;
        p.first[p.n] = q - at;
        p.cu[++p.n] = end - from, p.kv[p.n] = end - front;
        p.pairs += 4 * ((end - q) * (q - at) + (end - q) * (end - q + 1) / 2);
    }
    return p;
}

/* A rank's part of a sequence, whatever the border: cuDNN scores every pair that is seen, and what one
 * half does not see has no gradient. With documents it does not. */
static void test_parts_of_sequences(void **state)
{
    static const int64_t froms[] = { 0, 1024, 1536, 2048, 2200, 3000 };

    (void)state;
    assert_int_equal(open_mock(90, false), 0);
    for (size_t i = 0; i < 2 * sizeof froms / sizeof *froms; i++) {
        int64_t from = froms[i / 2], to = from + 1000, cut = i % 2 ? from + 500 : 0;
        int64_t a = group_start(from, 0), b = group_start(from, 1), front = a < b ? a : b;
        struct part h[2] = { part_of(from, to, front, 0, cut), part_of(from, to, front, 1, cut) };
        void *p = (void *)(uintptr_t)4096;
        struct op_attention_back op = {
            .fwd = { .q_rows = 1000, .kv_rows = to - front, .heads = 8, .kv_heads = 4, .dim = 64,
                     .q_ld = 512, .kv_ld = 256, .scale = 1, .q = p, .k = p, .v = p, .o = p,
                     .lse = p, .seg = { { h[0].n, h[0].cu, h[0].kv, h[0].first },
                                        { h[1].n, h[1].cu, h[1].kv, h[1].first } } },
            .d_o = p, .dq = p, .dk = p, .dv = p, .scratch = (float *)((uintptr_t)1 << 40) };
        int64_t pairs = h[0].pairs + h[1].pairs, unseen = a - front + b - front;

        seen.from = (const char *)op.scratch, seen.to = seen.from + ((size_t)1 << 32);
        seen.own = 0, seen.pairs = seen.cleared = 0;
        assert_int_equal(cuda_attention(&dev, &op.fwd), 0);
        assert_int_equal(seen.own, i % 2);
        if (i % 2)
            continue;
        assert_int_equal(seen.pairs, pairs);
        assert_int_equal(cuda_attention_back(&dev, &op), 0);
        assert_int_equal(seen.own, 0);
        assert_int_equal(seen.pairs, 2 * pairs);
        assert_int_equal(seen.cleared, unseen * 2 * 2 * 64 * 2); /* k and v of two heads, 2 bytes */
    }
    close_mock();
}

/* What is not cuDNN's is said, with the reason. */
static void test_reasons(void **state)
{
    struct shape s = shape(1, 4096, 32, 8, 0);

    (void)state;
    assert_int_equal(open_mock(80, false), 0);
    s.window = 1000;
    assert_int_equal(run(&s), 0);
    assert_non_null(strstr(cuda.notes, "a sliding window"));
    s.window = 4096; /* hides nothing */
    assert_int_equal(run(&s), 1);
    s = shape(1, 4096, 4, 1, 1024);
    assert_int_equal(run(&s), 0);
    assert_non_null(strstr(cuda.notes, "halves share keys"));
    s = shape(1, 4096, 32, 8, 0);
    s.dim = 100;
    assert_int_equal(run(&s), 0);
    assert_non_null(strstr(cuda.notes, "channels"));
    s = documents(4096, 1, 5);
    assert_int_equal(run(&s), 0);
    assert_non_null(strstr(cuda.notes, "documents"));
    s = shape(1, 4096, 32, 8, 0);
    seen.more = CUDA_SDPA_SLACK; /* a cuDNN that wants more than was planned */
    assert_int_equal(run(&s), 2);
    assert_non_null(strstr(cuda.notes, "workspace"));
    seen.more = 0;
    seen.refuse = true;
    assert_int_equal(run(&s), 0);
    assert_non_null(strstr(cuda.notes, "does not take"));
    seen.refuse = false;
    seen.fail = true; /* at the run itself */
    assert_int_equal(run(&s), 0);
    assert_non_null(strstr(cuda.notes, "failed in cuDNN"));
    close_mock();
}

/* Over a cache: few queries, or many, for which 8 bits are unpacked. */
static void test_caches(void **state)
{
    static const int64_t one[] = { 0, 1 }, many[] = { 0, 32 }, keys[] = { 0, 100 }, first[] = { 68 };
    void *p = (void *)((uintptr_t)1 << 32);
    struct op_attention a = { .q_rows = 1, .kv_rows = 100, .heads = 8, .kv_heads = 2, .dim = 64,
                              .q_ld = 512, .kv_ld = 128, .scale = 1, .q = p, .k = p, .v = p, .o = p,
                              .lse = p, .cached = true, .k_scale = p, .v_scale = p };

    (void)state;
    assert_int_equal(open_mock(90, false), 0);
    for (enum kv_type t = KV_ACT; t < KV_TYPES; t++)
        for (int n = 0; n < 2; n++) {
            int few = seen.few, own = seen.own, unpacked = seen.unpacked;

            a.kv_type = t;
            a.q_rows = n ? 32 : 1;
            a.seg[0] = a.seg[1] = (struct op_segments){ 1, n ? many : one, keys, first };
            assert_int_equal(cuda_attention(&dev, &a), 0);
            assert_int_equal(seen.few - few, !n);
            assert_int_equal(seen.own - own, n);
            assert_int_equal(seen.unpacked - unpacked, n && t == KV_INT8 ? 2 : 0);
        }
    /* the first chunk of a text: its own keys are all there is, and have 8 bits for all that */
    a.q_rows = a.kv_rows = 32, a.kv_type = KV_INT8;
    a.seg[0] = a.seg[1] = (struct op_segments){ 1, many, many, NULL };
    seen.unpacked = 0;
    assert_int_equal(cuda_attention(&dev, &a), 0);
    assert_int_equal(seen.unpacked, 2);
    close_mock();
}

static void steady(bool want, int64_t n0, const int64_t *cu0, int64_t n1, const int64_t *cu1)
{
    struct op_segments s[2] = { { .n = n0, .cu = cu0 }, { .n = n1, .cu = cu1 } };

    assert_int_equal(runs_steady(s), want);
}

static void test_steady(void **state)
{
    static const int64_t whole[] = { 0, 16 }, twice[] = { 0, 16, 32 }, cut[] = { 0, 5, 16 };
    static const int64_t groups[] = { 0, 4, 8, 12, 16 }, shifted[] = { 0, 2, 6, 10, 14, 16 };
    static const int64_t rest[] = { 0, 6, 12, 16 }, rest2[] = { 0, 3, 9, 15, 16 };
    static const int64_t half[] = { 0, 8, 16 }, docs[] = { 0, 4, 7, 8, 12, 16 };
    static const int64_t docs2[] = { 0, 2, 6, 7, 10, 14, 16 };

    (void)state;
    steady(true, 1, whole, 1, whole);
    steady(true, 2, twice, 2, twice);
    steady(false, 2, cut, 2, cut);
    steady(true, 4, groups, 5, shifted);
    steady(true, 3, rest, 4, rest2);
    steady(true, 1, whole, 2, half);
    steady(false, 5, docs, 6, docs2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workspace_is_planned), cmocka_unit_test(test_planned_counts_the_same),
        cmocka_unit_test(test_choice_has_no_history), cmocka_unit_test(test_reasons), cmocka_unit_test(test_caches),
        cmocka_unit_test(test_steady),
        cmocka_unit_test(test_parts_of_sequences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
