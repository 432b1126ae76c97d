/* train/rows.c - see rows.h. */
#include "train/rows.h"

#include "base/processor.h"
#include "base/bytes.h"
#include "formats/tokens/document.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Ids and targets of all rows, and the mask of one. */
size_t rows_bytes(int64_t ctx, int64_t cap)
{
    return (size_t)ctx * (size_t)cap * 2 * sizeof(int32_t) + (size_t)ctx;
}

int rows_open(struct rows *r, int64_t ctx, int64_t cap, int64_t vocab, bool mask_documents,
              struct err *e)
{
    size_t n, nbytes;

    memset(r, 0, sizeof *r);
    r->ctx = ctx, r->cap = cap, r->vocab = vocab, r->mask_documents = mask_documents;
    if (ctx < 1 || cap < 1 || !mul_ok((size_t)ctx, (size_t)cap, &n) ||
        !mul_ok(n, sizeof(int32_t), &nbytes) || nbytes > PTRDIFF_MAX / 4)
        return err_set(e, E_CONFIG, "%" PRId64 " rows of %" PRId64 " tokens are too many", cap,
                       ctx);
    r->ids = malloc(nbytes);
    r->targets = malloc(nbytes);
    r->mask = malloc((size_t)ctx);
    if (r->ids && r->targets && r->mask)
        return 0;
    rows_close(r);
    return err_set(e, E_SYS, "out of memory for %" PRId64 " rows of %" PRId64 " tokens", cap,
                   ctx);
}

void rows_close(struct rows *r)
{
    free(r->ids);
    free(r->targets);
    free(r->mask);
    free(r->starts);
    memset(r, 0, sizeof *r);
}

/* Notes that a document begins at token 'row' of the batch, so attention is cut before it. */
static int add_start(struct rows *r, int64_t row, struct err *e)
{
    int rc = array_grow(&r->starts, &r->cap_starts, (size_t)r->n_starts, sizeof *r->starts, 64, "documents", e);

    if (rc == 0)
        r->starts[r->n_starts++] = row;
    return rc;
}

/* Notes the documents that begin inside the row, but not one at its first token, where the
 * row begins anyway. Empty documents share their start with the next one and count once. */
static int find_starts(struct rows *r, int64_t at, struct dataset *d, int64_t first,
                       struct err *e)
{
    struct dataset_doc doc;
    int64_t last = first;
    int rc;

    for (int64_t i = dataset_doc_at(d, first) + 1; i < dataset_docs(d); i++) {
        if ((rc = dataset_doc(d, i, &doc, e)) < 0)
            return rc;
        if (doc.start >= first + r->ctx)
            break;
        if (doc.n_ids == 0 || doc.start <= last)
            continue;
        last = doc.start;
        if ((rc = add_start(r, at * r->ctx + (last - first), e)) < 0)
            return rc;
    }
    return 0;
}

/* What a pass over ids found: the sign of an id that is not below vocab, and masked ids. */
struct seen {
    uint32_t signs, masked;
};

/* targets[i] = ids[i + 1], or -1 where that is masked (mask NULL: nowhere), for i < n: reads
 * n + 1 ids. A plain loop over arrays that do not overlap, which compilers turn into
 * vectors. */
static inline __attribute__((always_inline)) struct seen
fill(int32_t *restrict targets, const int32_t *restrict ids, const uint8_t *restrict mask,
     int64_t n, uint32_t vocab)
{
    uint32_t signs = 0, masked = 0;

    for (int64_t i = 0; i < n; i++) {
        /* A mask byte is 0 or 1, so hide is 0 or all ones, and id | hide is the id or -1. */
        uint32_t id = (uint32_t)ids[i + 1], hide = mask ? -(uint32_t)mask[i + 1] : 0;
        /* The sign bit is set by id itself if it is negative, and by the subtraction if id
         * is not below vocab. One test after the loop then does for all ids. */
        signs |= id | (vocab - 1 - id);
        /* hide is 0 or, as a number, -1: this counts the masked ids. */
        masked -= hide;
        targets[i] = (int32_t)(id | hide);
    }
    return (struct seen){ signs, masked };
}

/* The same loop compiled for AVX2, without asking for it in the rest of the file. The two
 * calls let the compiler drop the test for a mask from the loop. */
#ifdef __x86_64__
__attribute__((target("avx2"))) static struct seen
fill_avx2(int32_t *targets, const int32_t *ids, const uint8_t *mask, int64_t n, uint32_t vocab)
{
    return mask ? fill(targets, ids, mask, n, vocab) : fill(targets, ids, NULL, n, vocab);
}
#endif

static struct seen fill_targets(int32_t *targets, const int32_t *ids, const uint8_t *mask,
                                int64_t n, uint32_t vocab)
{
#ifdef __x86_64__
    if (simd_level() >= SIMD_AVX2)
        return fill_avx2(targets, ids, mask, n, vocab);
#endif
    return fill(targets, ids, mask, n, vocab);
}

/* Tokens [first, first + n) of the data as rows to .. to + n - 1; the last predicts nothing.
 * *scored grows by the targets that count. */
static int load_tokens(struct rows *r, int64_t to, struct dataset *d, int64_t first, int64_t n,
                       int64_t *scored, struct err *e)
{
    int32_t *ids = r->ids + to;
    uint8_t *mask = dataset_masked(d) ? r->mask : NULL;
    struct seen s;
    int64_t bad;
    int rc = dataset_read(d, first, n, ids, mask, e);

    if (rc < 0)
        return rc;
    s = fill_targets(r->targets + to, ids, mask, n - 1, (uint32_t)r->vocab);
    r->targets[to + n - 1] = -1;
    *scored += n - 1 - s.masked;
    /* fill has looked at ids 1 to n - 1; the first is left. Only a failure searches for the
     * place. */
    if ((s.signs | (uint32_t)ids[0]) >> 31 == 0 && ids[0] < r->vocab)
        return 0;
    bad = ids_bad((const uint32_t *)ids, n, (uint32_t)r->vocab);
    return err_set(e, E_DATA,
                   "token %" PRId64 " of the data is %" PRId32 ", the model has %" PRId64 " ids",
                   first + bad, ids[bad], r->vocab);
}

/* Row number 'row' of the sequences predicts nothing. */
static void hide(struct rows *r, int64_t row, int64_t *scored)
{
    *scored -= r->targets[row] >= 0;
    r->targets[row] = -1;
}

int rows_load(struct rows *r, int64_t at, struct dataset *d, int64_t row, int64_t *scored,
              struct err *e)
{
    int64_t first = row * r->ctx, before;
    int rc = load_tokens(r, at * r->ctx, d, first, r->ctx, scored, e);

    if (rc < 0)
        return rc;
    /* The first row of a new batch. */
    if (at == 0)
        r->n_starts = 0;
    before = r->n_starts;
    if (r->mask_documents && (rc = find_starts(r, at, d, first, e)) < 0)
        return rc;
    /* The token before a document's start would have to predict the first one of another
     * text. */
    for (int64_t i = before; i < r->n_starts; i++)
        hide(r, r->starts[i] - 1, scored);
    return 0;
}

int rows_load_packed(struct rows *r, int64_t at, struct dataset *d, struct pack_rows *p,
                     int64_t row, int64_t *scored, struct err *e)
{
    int64_t to = at * r->ctx, end = to + r->ctx, cursor = 0, start, n;
    int rc;

    if (at == 0)
        r->n_starts = 0;
    /* Each piece is loaded by itself, so its last token predicts nothing. */
    while ((rc = pack_rows_next(p, row, &cursor, &start, &n, e)) > 0) {
        if (n < 1 || n > end - to)
            return err_set(e, E_BUG, "row %" PRId64 " of the packing is too long", row);
        if (r->mask_documents && to > at * r->ctx && (rc = add_start(r, to, e)) < 0)
            return rc;
        if ((rc = load_tokens(r, to, d, start, n, scored, e)) < 0)
            return rc;
        to += n;
    }
    /* The padding is a segment of its own: no document sees it. */
    if (rc == 0 && r->mask_documents && to < end)
        rc = add_start(r, to, e);
    for (; to < end; to++)
        r->ids[to] = 0, r->targets[to] = -1;
    return rc;
}
