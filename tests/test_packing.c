/* tests/test_packing.c - best-fit packing: nothing lost, nothing that fits cut. */
#include "base/file.h"
#include "base/perm.h"
#include "formats/tokens/shard.h"
#include "train/order.h"
#include "train/rows.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 20000 };
static int64_t begin[MOST + 1], docs;
static char dir[] = "/tmp/packing.XXXXXX";

static int doc(void *from, int64_t i, int64_t *start, int64_t *n_ids, struct err *e)
{
    (void)from, (void)e;
    assert_in_range(i, 0, docs - 1);
    *start = begin[i];
    *n_ids = begin[i + 1] - begin[i];
    return 0;
}

static void add(int64_t n_ids)
{
    begin[docs + 1] = begin[docs] + n_ids;
    docs++;
}

static struct pack_rows packed_as(enum pack_order order, int64_t ctx, uint64_t seed)
{
    struct pack_rows p;
    struct err e = { 0 };

    if (pack_rows_open(&p, docs, doc, NULL, ctx, seed, order, "d", &e) < 0)
        fail_msg("%s", e.msg);
    return p;
}

static struct pack_rows packed(int64_t ctx, uint64_t seed)
{
    return packed_as(PACK_NEW, ctx, seed);
}

/* The last document that begins at or before token 'start'. */
static int64_t find(int64_t start)
{
    int64_t lo = 0, hi = docs;

    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (begin[mid] <= start)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Every token once; pieces whole, or cut at multiples of ctx; rows not too long. Returns a hash
 * of the plan. */
static uint64_t check(struct pack_rows *p)
{
    unsigned char *seen = calloc((size_t)begin[docs] + 1, 1);
    struct err e = { 0 };
    uint64_t hash = 0;

    assert_int_equal(p->tokens, begin[docs]);
    for (int64_t row = 0; row < p->rows; row++) {
        int64_t at = 0, start, n, sum = 0, pieces = 0;
        while (pack_rows_next(p, row, &at, &start, &n, &e) > 0) {
            int64_t d = find(start), into = start - begin[d];
            assert_true(n > 0);
            assert_int_equal(into % p->ctx, 0);
            assert_true(n == p->ctx || start + n == begin[d + 1]);
            for (int64_t i = start; i < start + n; i++)
                assert_int_equal(seen[i]++, 0);
            hash = mix64(hash ^ mix64((uint64_t)(row << 32) ^ (uint64_t)start));
            sum += n, pieces++;
        }
        assert_in_range(sum, 1, p->ctx);
        assert_true(row >= p->full || (pieces == 1 && sum == p->ctx));
    }
    for (int64_t i = 0; i < begin[docs]; i++)
        assert_int_equal(seen[i], 1);
    free(seen);
    return hash;
}

/* ---- against the plain algorithm ---- */

static int longer_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x < y) - (x > y);
}

/* Best-fit decreasing as the book has it; left[row] sorted, longest room first. */
static int64_t brute(int64_t ctx, int64_t *left)
{
    int64_t item[64], n = 0, rows = 0;

    for (int64_t i = 0; i < docs; i++)
        if ((begin[i + 1] - begin[i]) % ctx)
            item[n++] = (begin[i + 1] - begin[i]) % ctx;
    qsort(item, (size_t)n, sizeof *item, longer_first);
    for (int64_t i = 0; i < n; i++) {
        int64_t best = -1;
        for (int64_t r = 0; r < rows; r++)
            if (left[r] >= item[i] && (best < 0 || left[r] < left[best]))
                best = r;
        if (best < 0)
            left[best = rows++] = ctx;
        left[best] -= item[i];
    }
    qsort(left, (size_t)rows, sizeof *left, longer_first);
    return rows;
}

static void test_fill_is_best_fit_decreasing(void **state)
{
    (void)state;
    for (uint64_t t = 0; t < 3000; t++) {
        static const int64_t ctxs[] = { 2, 3, 7, 63, 64, 65, 100, 5000 };
        int64_t ctx = ctxs[t % 8], want[64], got[64], rows, n = 1 + (int64_t)(mix64(t) % 60);
        struct pack_rows p;
        struct err e = { 0 };

        docs = 0;
        for (int64_t i = 0; i < n; i++) {
            uint64_t r = mix64(t * 1000 + (uint64_t)i);
            add(r % 11 == 0 ? 0 : r % 13 == 0 ? 3 * ctx + (int64_t)(r % 7)
                                              : (int64_t)(r % (uint64_t)ctx) + 1);
        }
        add(1); /* never empty */
        p = packed(ctx, t); /* another order, and no more rows for it */
        rows = brute(ctx, want);
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            assert_int_equal(pack_rows_plan(&p, epoch, &e), 0);
            assert_int_equal(p.rows - p.full, rows);
            check(&p);
        }
        pack_rows_close(&p);
        p = packed_as(PACK_OLD, ctx, t);
        assert_int_equal(p.rows - p.full, rows);
        for (int64_t row = 0; row < rows; row++) {
            int64_t at = 0, start, k;
            got[row] = ctx;
            while (pack_rows_next(&p, p.full + row, &at, &start, &k, &e) > 0)
                got[row] -= k;
        }
        qsort(got, (size_t)rows, sizeof *got, longer_first);
        assert_memory_equal(got, want, (size_t)rows * sizeof *got);
        check(&p);
        pack_rows_close(&p);
    }
}

/* Runs begun with the old order go on with it: hashes of its plans, as it was before there was
 * another. */
static void test_the_old_order_is_as_it_was(void **state)
{
    static const uint64_t want[] = { 0xa2f545fda84c6444, 0xb76babf32ff55e1e, 0x3288b1f63aebec4f };
    struct pack_rows p;
    struct err e = { 0 };

    (void)state;
    docs = 0;
    for (uint64_t i = 0; i < 3000; i++)
        add((int64_t)(mix64(i) % 5 ? mix64(i + 9) % 90 : mix64(i + 9) % 1200));
    p = packed_as(PACK_OLD, 512, 42);
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(pack_rows_plan(&p, i * i * 3, &e), 0);
        assert_true(check(&p) == want[i]);
    }
    pack_rows_close(&p);
}

/* ---- properties ---- */

static void lognormal(int64_t n)
{
    docs = 0;
    for (int64_t i = 0; i < n; i++)
        add((int64_t)exp(4 + 1.2 * normal_at(7, (uint64_t)i)));
}

static void test_every_token_once_an_epoch(void **state)
{
    struct err e = { 0 };
    uint64_t first;
    struct pack_rows p;

    (void)state;
    lognormal(MOST);
    for (int64_t ctx = 64; ctx <= 65536; ctx *= 32) {
        p = packed(ctx, 42);
        int64_t rows = p.rows;
        first = check(&p);
        assert_int_equal(pack_rows_plan(&p, 1, &e), 0);
        assert_int_equal(p.rows, rows); /* as long, however it is drawn */
        assert_true(check(&p) != first);
        assert_int_equal(pack_rows_plan(&p, 0, &e), 0);
        assert_true(check(&p) == first);
        pack_rows_close(&p);
    }
}

static void test_the_plan_is_a_pure_function(void **state)
{
    struct err e = { 0 };
    uint64_t ninth;
    struct pack_rows p, q;

    (void)state;
    lognormal(3000);
    p = packed(512, 42);
    for (int64_t epoch = 0; epoch < 10; epoch++)
        assert_int_equal(pack_rows_plan(&p, epoch, &e), 0);
    ninth = check(&p);
    q = packed(512, 42); /* resumed there: no epoch before it */
    assert_int_equal(pack_rows_plan(&q, 9, &e), 0);
    assert_true(check(&q) == ninth);
    pack_rows_close(&q);
    q = packed(512, 43);
    assert_int_equal(pack_rows_plan(&q, 9, &e), 0);
    assert_true(check(&q) != ninth);
    pack_rows_close(&q);
    pack_rows_close(&p);
}

/* Of 300 documents of hardly two of a length, rows of one epoch seldom come again in the next:
 * by exact lengths most of them did. */
static void test_epochs_share_few_rows(void **state)
{
    int64_t same, shared, old_same;
    struct err e = { 0 };
    struct pack_rows p;

    (void)state;
    lognormal(300);
    for (int64_t ctx = 256; ctx <= 4096; ctx *= 4) {
        p = packed_as(PACK_OLD, ctx, 42);
        assert_int_equal(pack_rows_recur(&p, 0, 1, &old_same, &shared, &e), 0);
        pack_rows_close(&p);
        p = packed(ctx, 42);
        assert_int_equal(pack_rows_recur(&p, 3, 3, &same, &shared, &e), 0);
        assert_int_equal(same, shared); /* an epoch with itself */
        assert_true(shared > 0 && shared <= p.rows - p.full);
        assert_int_equal(pack_rows_recur(&p, 0, 1, &same, &shared, &e), 0);
        assert_int_equal(p.epoch, 1);
        assert_true(same * 4 < shared);
        assert_true(ctx > 256 || old_same * 3 > shared);
        pack_rows_close(&p);
    }
}

/* The pieces of a row stand in no order of length; read again, they stand as before. */
static void test_pieces_are_in_any_order(void **state)
{
    int64_t rising = 0, rows = 0;
    struct err e = { 0 };
    struct pack_rows p;

    (void)state;
    lognormal(3000);
    p = packed(512, 42);
    for (int64_t row = p.full; row < p.rows; row++) {
        int64_t at = 0, start, n, last = 0, pieces = 0;
        bool up = true;

        for (; pack_rows_next(&p, row, &at, &start, &n, &e) > 0; last = n, pieces++)
            up &= n >= last;
        rising += pieces > 3 && up;
        rows += pieces > 3;
    }
    assert_true(rows > 100 && rising * 5 < rows);
    pack_rows_close(&p);
}

/* A hash of the pieces of one row. */
static uint64_t row_hash(struct pack_rows *p, int64_t row)
{
    struct err e = { 0 };
    int64_t at = 0, start, n;
    uint64_t hash = 0;

    while (pack_rows_next(p, row, &at, &start, &n, &e) > 0)
        hash = mix64(hash ^ mix64((uint64_t)start) ^ (uint64_t)n);
    return hash;
}

/* Row k of epoch e, without the rows and the epochs before it: workers that each plan for
 * themselves and read their share of the rows, last first, find those of one. */
static void test_any_row_without_the_others(void **state)
{
    const int64_t epoch = 1000000000;
    struct err e = { 0 };
    struct pack_rows one, own;
    uint64_t *want;

    (void)state;
    lognormal(3000);
    one = packed(512, 42);
    assert_int_equal(pack_rows_plan(&one, epoch, &e), 0);
    want = calloc((size_t)one.rows, sizeof *want);
    for (int64_t row = 0; row < one.rows; row++)
        want[row] = row_hash(&one, row);
    for (int64_t world = 1; world <= 8; world *= 2)
        for (int64_t rank = 0; rank < world; rank++) {
            own = packed(512, 42);
            assert_int_equal(pack_rows_plan(&own, epoch, &e), 0);
            assert_int_equal(own.rows, one.rows);
            for (int64_t row = one.rows - 1; row >= 0; row--)
                if (row % world == rank)
                    assert_true(row_hash(&own, row) == want[row]);
            pack_rows_close(&own);
        }
    free(want);
    pack_rows_close(&one);
}

static void test_padding_is_small(void **state)
{
    struct pack_rows p;

    (void)state;
    lognormal(MOST);
    p = packed(2048, 42);
    assert_true(p.rows * p.ctx - p.tokens < p.rows * p.ctx / 1000);
    assert_true(p.rows * p.ctx - p.tokens >= 0);
    pack_rows_close(&p);
}

static void test_extremes(void **state)
{
    struct pack_rows p;
    struct err e = { 0 };

    (void)state;
    docs = 0; /* single tokens fill rows */
    for (int i = 0; i < 130; i++)
        add(1);
    p = packed(64, 1);
    assert_int_equal(p.rows, 3);
    check(&p);
    pack_rows_close(&p);
    docs = 0; /* one of many rows between empty ones */
    for (int i = 0; i < 200; i++)
        add(0);
    add(1000003);
    add(0);
    add(64);
    p = packed(64, 1);
    assert_int_equal(p.full, 1000003 / 64 + 1);
    assert_int_equal(p.rows, p.full + 1);
    assert_int_equal(p.cut, 1);
    check(&p);
    pack_rows_close(&p);
    docs = 0; /* nothing at all */
    assert_int_equal(pack_rows_open(&p, 0, doc, NULL, 64, 1, PACK_NEW, "d", &e), E_CONFIG);
    pack_rows_close(&p);
    add(0);
    assert_int_equal(pack_rows_open(&p, 1, doc, NULL, 64, 1, PACK_NEW, "d", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "'d' has no tokens"));
    pack_rows_close(&p);
    assert_int_equal(pack_rows_open(&p, 1, doc, NULL, 1, 1, PACK_NEW, "d", &e), E_CONFIG);
    pack_rows_close(&p);
    assert_int_equal(pack_rows_open(&p, 1ll << 32, doc, NULL, 64, 1, PACK_NEW, "d", &e), E_CONFIG);
    pack_rows_close(&p);
}

/* ---- rows ---- */

/* Documents of 5, 0, 10 (its 3rd and 4th id masked) and 37 ids; id 100 * document + place. */
static struct dataset *open_docs(void)
{
    struct token_info info = { .width = 2, .vocab = 512, .bos = -1, .eos = 2 };
    static const int64_t sizes[] = { 5, 0, 10, 37 };
    char *path = path_join(dir, "docs.shard");
    struct mask_run run = { 2, 2 };
    struct shard_writer *w;
    struct dataset *d;
    struct err e = { 0 };
    uint32_t ids[37];
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(shard_create(&w, fd, path, &info, dir, &e), 0);
    for (int i = 0; i < 4; i++) {
        struct token_doc t = { .ids = ids, .n_ids = sizes[i], .runs = &run, .n_runs = i == 2,
                               .source = "s", .name = "n" };
        for (int64_t k = 0; k < sizes[i]; k++)
            ids[k] = (uint32_t)(100 * i + k);
        assert_int_equal(shard_write(w, &t, &e), 0);
    }
    assert_int_equal(shard_finish(w, NULL, &e), 0);
    close(fd);
    if (dataset_open(&d, path, NULL, 0, &e) < 0)
        fail_msg("%s", e.msg);
    free(path);
    return d;
}

static void test_rows_mask_padding_and_boundaries(void **state)
{
    static const int32_t ids[] = { 332, 333, 334, 335, 336, 0, 1, 2, 3, 4, 200, 201, 202 };
    struct dataset *d = open_docs();
    struct pack_rows p;
    struct rows r;
    struct err e = { 0 };
    int64_t scored = 0;

    (void)state;
    assert_int_equal(pack_rows_open(&p, 4, pack_rows_dataset, d, 32, 42, PACK_NEW, "d", &e), 0);
    assert_int_equal(p.rows, 2); /* 32 of the last; then 5 + 5 + 10 and 12 of padding */
    for (int apart = 0; apart < 2; apart++) {
        assert_int_equal(rows_open(&r, 32, 2, 512, apart, &e), 0);
        memset(r.ids, 0x55, 2 * 32 * sizeof *r.ids);
        memset(r.targets, 0x55, 2 * 32 * sizeof *r.targets);
        scored = 0;
        assert_int_equal(rows_load_packed(&r, 0, d, &p, 0, &scored, &e), 0);
        assert_int_equal(scored, 31);
        assert_int_equal(r.ids[31], 331);
        assert_int_equal(r.n_starts, 0);
        assert_int_equal(rows_load_packed(&r, 1, d, &p, 1, &scored, &e), 0);
        assert_int_equal(scored, 31 + 4 + 4 + 9 - 2);
        if (r.ids[32] == 0) /* the two of 5 tokens come in either order */
            assert_int_equal(r.ids[37], 332);
        else
            assert_memory_equal(r.ids + 32, ids, sizeof ids);
        for (int64_t i = 32; i < 52; i++)
            assert_int_equal(r.targets[i], i == 36 || i == 41 || i == 51 || i == 43 || i == 44
                                               ? -1 : r.ids[i + 1]);
        for (int64_t i = 52; i < 64; i++)
            assert_true(r.ids[i] == 0 && r.targets[i] == -1);
        assert_int_equal(r.n_starts, apart ? 3 : 0);
        if (apart)
            assert_true(r.starts[0] == 37 && r.starts[1] == 42 && r.starts[2] == 52);
        rows_close(&r);
    }
    assert_int_equal(rows_open(&r, 32, 1, 336, false, &e), 0); /* ids reach beyond */
    assert_int_equal(rows_load_packed(&r, 0, d, &p, 1, &scored, &e), E_DATA);
    rows_close(&r);
    pack_rows_close(&p);
    dataset_close(d);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill_is_best_fit_decreasing),
        cmocka_unit_test(test_the_old_order_is_as_it_was),
        cmocka_unit_test(test_epochs_share_few_rows),
        cmocka_unit_test(test_pieces_are_in_any_order),
        cmocka_unit_test(test_every_token_once_an_epoch),
        cmocka_unit_test(test_the_plan_is_a_pure_function),
        cmocka_unit_test(test_any_row_without_the_others),
        cmocka_unit_test(test_padding_is_small),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_rows_mask_padding_and_boundaries),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
