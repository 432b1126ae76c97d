/* train/pack_rows.c - see pack_rows.h. */
#include "train/pack_rows.h"

#include "base/perm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * Rows of ctx tokens are boxes, documents are put into them whole: the longest first, each into
 * the box with the least space that still holds it. With ctx 10 and documents of 23, 7, 6, 4, 3
 * and 2:
 *
 *     23 is cut: rows 0 and 1 are full pieces of 10, and 3 remain
 *     7 -> new row [7]        6 -> new row [6]        4 -> [6 4], full
 *     3 -> [7 3], full        3 -> new row [3]        2 -> [3 2], 5 of padding
 *
 * Documents come sorted by length (a counting sort: sort), those of one group of lengths shuffled
 * by seed and epoch, so epochs differ in content. All have the same number of rows (wanted): if a
 * shuffle needs more, it is made again in finer groups, at last of one length, which need the
 * fewest; if it needs less, rows are split. Rows with the same number of tokens left are a linked
 * list (room[left], then spare[row]). To find the smallest 'left' that is enough, a set of numbers
 * is kept as bits: 64 of them have a bit one level up, which says whether any of them is set, so
 * that a search looks at a few words.
 */
enum { EVERY = 64, LEVELS = 6 }; /* 64^6 is more than any ctx */
/* How many groups of lengths there are between a power of two and the next: tried in turn. Of the
 * last, each length is a group. */
static const int64_t groups[] = { 2, 8, 32, (int64_t)1 << 32 };
/* Items of a group: where so many have one length, others of other lengths would add little to the
 * shuffle, and rows would be filled less well. */
enum { ENOUGH = 64 };
enum { GROUPS = sizeof groups / sizeof *groups };

/* ---- a set of numbers below ctx: the smallest one that is not below n ---- */

/* Adds n. Each level gets the bit of its word below: for n = 700 that is bit 60 of word 10
 * in level 0, then bit 10 of word 0 in level 1. If the word had bits already, the levels
 * above are set. */
static void set_add(uint64_t **bits, int64_t n)
{
    for (int k = 0; k < LEVELS && bits[k]; k++, n >>= 6) {
        uint64_t was = bits[k][n >> 6];
        bits[k][n >> 6] = was | 1ull << (n & 63);
        if (was)
            return;
    }
}

/* Takes n out. A level is changed only when the word below has become empty. */
static void set_remove(uint64_t **bits, int64_t n)
{
    for (int k = 0; k < LEVELS && bits[k]; k++, n >>= 6)
        if (bits[k][n >> 6] &= ~(1ull << (n & 63)))
            return;
}

/* The smallest number in the set that is at least n, or -1 where there is none. It goes up
 * until a word has a bit at or after n, then down by the lowest bit of each word. Going up,
 * the word just looked at is done with, so the next level starts at the word after it. size:
 * numbers that the lowest level has words for. */
static int64_t set_find(uint64_t **bits, int64_t n, int64_t size)
{
    uint64_t w = 0;
    int k = 0;

    for (; k < LEVELS && bits[k] && n < size; k++, n = (n >> 6) + 1, size = (size + 63) >> 6)
        if ((w = bits[k][n >> 6] & ~0ull << (n & 63)))
            break;
    if (!w)
        return -1;
    n = (n & ~63ll) + __builtin_ctzll(w);
    while (k-- > 0)
        n = n * 64 + __builtin_ctzll(bits[k][n]);
    return n;
}

/* ---- documents ---- */

int pack_rows_dataset(void *from, int64_t i, int64_t *start, int64_t *n_ids, struct err *e)
{
    struct dataset_doc doc;
    int rc = dataset_doc(from, i, &doc, e);

    if (rc == 0)
        *start = doc.start, *n_ids = doc.n_ids;
    return rc;
}

/* No row has any room yet. */
static void clear(struct pack_rows *p)
{
    int64_t words = p->ctx;

    memset(p->room, 0, (size_t)p->ctx * sizeof *p->room);
    for (int k = 0; k < LEVELS && p->bits[k]; k++) {
        words = (words + 63) / 64;
        memset(p->bits[k], 0, (size_t)words * sizeof **p->bits);
    }
}

/* Counts the rows and the items (documents, or what remains of a cut one). In the end
 * begin[n] is the place of the first item of n tokens. */
static int count(struct pack_rows *p, struct err *e)
{
    int64_t start, n;
    int rc;

    for (int64_t i = 0; i < p->n_docs; i++) {
        /* full_row starts its search here, and so need not read all documents from the
         * first. */
        if (i % EVERY == 0)
            p->full_before[i / EVERY] = p->full;
        if ((rc = p->doc(p->from, i, &start, &n, e)) < 0)
            return rc;
        p->tokens += n;
        if (n >= p->ctx) {
            p->cut += n > p->ctx;
            p->full += n / p->ctx;
            n %= p->ctx;
        }
        p->begin[n]++;
        p->n_items += n > 0;
    }
    /* Nothing remains of these: they are in no packed row. Then sums turn counts into
     * places. */
    p->begin[0] = 0;
    for (int64_t i = 1, sum = 0, k; i <= p->ctx; i++) {
        k = p->begin[i];
        p->begin[i] = (uint32_t)sum;
        sum += k;
    }
    return 0;
}

/* The fewest rows for the items, those that best-fit decreasing makes: as many counts of rooms as
 * there are lengths do, as items of one length are alike. */
static int64_t fewest(struct pack_rows *p)
{
    int64_t rows = 0;

    clear(p);
    for (int64_t n = p->ctx - 1; n > 0; n--)
        for (int64_t items = p->begin[n + 1] - (int64_t)p->begin[n], fill, k; items > 0;) {
            int64_t left = set_find(p->bits, n, p->ctx), have = left < 0 ? items : p->room[left];

            /* A row takes as many as it holds, because after each it is the one with the least
             * room. */
            left = left < 0 ? p->ctx : left;
            fill = left / n < items ? left / n : items;
            k = items / fill < have ? items / fill : have;
            items -= k * fill;
            if (left == p->ctx)
                rows += k;
            else if ((p->room[left] -= (uint32_t)k) == 0)
                set_remove(p->bits, left);
            if ((left -= fill * n) == 0)
                continue;
            p->room[left] += (uint32_t)k;
            set_add(p->bits, left);
        }
    return rows;
}

/* Sorts items by length, those of one length in the order of their documents, and notes the
 * lengths: they are read again, as the plan stores none of them. */
static int sort(struct pack_rows *p, struct err *e)
{
    int64_t start, n;
    int rc;

    for (int64_t i = 0; i < p->n_docs; i++) {
        if ((rc = p->doc(p->from, i, &start, &n, e)) < 0)
            return rc;
        if (n >= p->ctx)
            n %= p->ctx;
        if (n > 0)
            p->item[p->begin[n]++] = (struct pack_item){ (uint32_t)i, (uint32_t)n };
    }
    /* Every begin[n] has moved to the start of n + 1: a shift by one puts them back. */
    memmove(p->begin + 1, p->begin, (size_t)p->ctx * sizeof *p->begin);
    p->begin[0] = 0;
    return 0;
}

/* Below 'most', drawn by key and i. Both are below 2^32, so nothing overflows. */
static uint32_t draw(uint64_t key, uint32_t i, uint64_t most)
{
    return (uint32_t)((mix64(key + i) >> 32) * most >> 32);
}

/* Shuffles items from .. to - 1, all of one group (Fisher and Yates). The numbers depend only on
 * seed, epoch and place. 'to > from' is for an empty range at 0, where to - 1 wraps around. */
static void shuffle(struct pack_rows *p, uint32_t from, uint32_t to, uint64_t key)
{
    for (uint32_t i = to - 1; i > from && to > from; i--) {
        uint32_t j = from + draw(key, i, i - from + 1ull);
        struct pack_item t = p->item[i];
        p->item[i] = p->item[j];
        p->item[j] = t;
    }
}

/* Puts item k into the row with the least space that holds it, or a new row. The row leaves the
 * list of its old space and joins that of its new one. Numbers in the lists are 1 + index, so
 * that 0 ends a list. */
static void place(struct pack_rows *p, uint32_t k, int64_t *rows)
{
    int64_t n = p->item[k].next, left = set_find(p->bits, n, p->ctx), row;

    if (left < 0) {
        row = (*rows)++;
        p->head[row] = 0;
        left = p->ctx;
    } else {
        row = (int64_t)p->room[left] - 1;
        if ((p->room[left] = p->spare[row]) == 0)
            set_remove(p->bits, left);
    }
    /* The newest item comes first. */
    p->item[k].next = p->head[row];
    p->head[row] = k + 1;
    if ((left -= n) == 0)
        return;
    p->spare[row] = p->room[left];
    p->room[left] = (uint32_t)row + 1;
    set_add(p->bits, left);
}

/* The shortest length of the group that n is in, of so many an octave, or one of each length. */
static int64_t group_of(int64_t n, int64_t an_octave)
{
    int64_t width = ((int64_t)1 << (63 - __builtin_clzll((uint64_t)n))) / an_octave;

    return width > 1 ? n - n % width : n;
}

/* Shuffles group by group and places the longest first; items of ctx tokens are full rows and are
 * not placed. The number of rows, or < 0. */
static int64_t place_all(struct pack_rows *p, int64_t an_octave, uint64_t key, struct err *e)
{
    int64_t rows = 0, from;
    int rc = sort(p, e);

    if (rc < 0)
        return rc;
    clear(p);
    for (int64_t n = p->ctx - 1; n > 0; n = from - 1) {
        int64_t shortest = group_of(n, an_octave);

        for (from = n; from > shortest && p->begin[n + 1] - p->begin[from] < ENOUGH;)
            from--;
        shuffle(p, p->begin[from], p->begin[n + 1], key);
        for (uint32_t k = p->begin[from]; k < p->begin[n + 1]; k++)
            place(p, k, &rows);
    }
    return rows;
}

/* Gives an item of each row that has several to a row of its own, until there are as many rows as
 * in every epoch. */
static void split(struct pack_rows *p, int64_t rows)
{
    for (int64_t row = 0; rows < p->rows - p->full; row = row + 1 < rows ? row + 1 : 0) {
        struct pack_item *first = &p->item[p->head[row] - 1];
        uint32_t second = first->next;

        if (second == 0)
            continue;
        first->next = p->item[second - 1].next;
        p->item[second - 1].next = 0;
        p->head[rows++] = second;
    }
}

/* Makes the plan of one epoch. It always starts from the order of 'sort', so that epoch 5
 * comes out the same whether or not epochs 0 to 4 were planned before. */
static int plan(struct pack_rows *p, int64_t epoch, struct err *e)
{
    uint64_t key = mix64(mix64(p->seed) + (uint64_t)epoch);
    int64_t want = p->rows - p->full, rows = want + 1;

    p->epoch = p->shown = -1; /* of none, where it fails */
    for (size_t i = p->order == PACK_OLD ? GROUPS - 1 : 0; rows > want && i < GROUPS; i++)
        if ((rows = place_all(p, groups[i], key, e)) < 0)
            return (int)rows;
    if (rows > want)
        return err_set(e, E_BUG, "%" PRId64 " packed rows, not %" PRId64, rows, want);
    split(p, rows);
    p->epoch = epoch;
    return 0;
}

/* ---- the plan ---- */

static int out_of_memory(struct err *e)
{
    return err_set(e, E_SYS, "out of memory for the packing");
}

/* Each level of bits is 64 times smaller than the one below; the last has one word. */
static int allocate(struct pack_rows *p, struct err *e)
{
    const size_t n = (size_t)p->n_items + 1, ctx = (size_t)p->ctx; /* below 2^32 each */

    p->item = malloc(n * sizeof *p->item);
    p->head = malloc(n * sizeof *p->head); /* as many rows at most; untouched pages are free */
    p->spare = malloc(n * sizeof *p->spare);
    p->room = malloc(ctx * sizeof *p->room);
    for (size_t k = 0, words = ctx; k == 0 || words > 1; k++) {
        words = (words + 63) / 64;
        if (!(p->bits[k] = malloc(words * sizeof **p->bits)))
            return out_of_memory(e);
    }
    return p->item && p->head && p->spare && p->room ? 0 : out_of_memory(e);
}

int pack_rows_open(struct pack_rows *p, int64_t n_docs, pack_doc_fn *doc, void *from,
                   int64_t ctx, uint64_t seed, enum pack_order order, const char *name,
                   struct err *e)
{
    int rc;

    *p = (struct pack_rows){ .ctx = ctx, .seed = seed, .order = order, .n_docs = n_docs,
                             .doc = doc, .from = from };
    if (ctx < 2 || ctx > 1 << 30)
        return err_set(e, E_CONFIG, "a context of %" PRId64 " tokens cannot be packed", ctx);
    if (n_docs >= UINT32_MAX) {
        err_set(e, E_CONFIG, "'%s' has %" PRId64 " documents, more than can be packed", name,
                n_docs);
        return err_hint(e, "train with --packing concat");
    }
    p->begin = calloc((size_t)ctx + 1, sizeof *p->begin);
    p->full_before = malloc(((size_t)n_docs / EVERY + 1) * sizeof *p->full_before);
    if (!p->begin || !p->full_before)
        return out_of_memory(e);
    if ((rc = count(p, e)) < 0)
        return rc;
    if (p->tokens == 0)
        return err_set(e, E_CONFIG, "'%s' has no tokens", name);
    /* Only now are the number of items and so the sizes of the arrays known. */
    if ((rc = allocate(p, e)) < 0)
        return rc;
    p->rows = p->full + fewest(p);
    return plan(p, 0, e);
}

void pack_rows_close(struct pack_rows *p)
{
    for (int k = 0; k < LEVELS; k++)
        free(p->bits[k]);
    free(p->full_before);
    free(p->begin);
    free(p->item);
    free(p->head);
    free(p->spare);
    free(p->room);
    memset(p, 0, sizeof *p);
}

int pack_rows_plan(struct pack_rows *p, int64_t epoch, struct err *e)
{
    return epoch == p->epoch ? 0 : plan(p, epoch, e);
}

/* Finds where full row 'row' starts in the data. A binary search finds the group of 64
 * documents that it lies in, then the documents of that group are read one by one. */
static int full_row(struct pack_rows *p, int64_t row, int64_t *start, struct err *e)
{
    int64_t lo = 0, hi = (p->n_docs + EVERY - 1) / EVERY, n;
    int rc;

    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (p->full_before[mid] <= row)
            lo = mid;
        else
            hi = mid;
    }
    row -= p->full_before[lo];
    for (int64_t i = lo * EVERY;; i++, row -= n / p->ctx) {
        if ((rc = p->doc(p->from, i, start, &n, e)) < 0)
            return rc;
        if (row < n / p->ctx)
            break;
    }
    *start += row * p->ctx;
    return 1;
}

/* The items of a packed row to room, which is not needed once all are placed, in an order drawn
 * for it. A row is read more than once, and each time alike. */
static void show(struct pack_rows *p, int64_t row)
{
    uint64_t key = mix64(mix64(mix64(p->seed) + (uint64_t)p->epoch) + (uint64_t)row);
    uint32_t n = 0;

    for (uint32_t k = p->head[row]; k; k = p->item[k - 1].next)
        p->room[n++] = k - 1;
    for (uint32_t i = n - 1; i > 0 && p->order != PACK_OLD; i--) {
        uint32_t j = draw(key, i, i + 1ull), t = p->room[i];
        p->room[i] = p->room[j];
        p->room[j] = t;
    }
    p->shown = row;
    p->n_shown = n;
}

int pack_rows_next(struct pack_rows *p, int64_t row, int64_t *at, int64_t *start,
                   int64_t *n_ids, struct err *e)
{
    int64_t whole;
    int rc;

    /* *at: the pieces that were returned, -1 when the row is done. */
    if (*at < 0)
        return 0;
    if (row < p->full) {
        *at = -1;
        *n_ids = p->ctx;
        return full_row(p, row, start, e);
    }
    if (p->shown != row - p->full)
        show(p, row - p->full);
    if ((rc = p->doc(p->from, p->item[p->room[*at]].doc, start, n_ids, e)) < 0)
        return rc;
    /* Of a cut document only the end is packed: the full pieces before it are rows of their
     * own. */
    whole = *n_ids / p->ctx * p->ctx;
    *start += whole;
    *n_ids -= whole;
    *at = *at + 1 < p->n_shown ? *at + 1 : -1;
    return 1;
}

/* ---- rows that come again ---- */

/* Names the items of a packed row, in whatever order; 0: it has only one. */
static uint64_t row_name(const struct pack_rows *p, int64_t row)
{
    uint64_t sum = 0;
    uint32_t k = p->head[row] - 1;

    if (p->item[k].next == 0)
        return 0;
    for (k++; k; k = p->item[k - 1].next)
        sum += mix64(p->item[k - 1].doc);
    return sum ? sum : 1;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int pack_rows_recur(struct pack_rows *p, int64_t a, int64_t b, int64_t *same, int64_t *shared,
                    struct err *e)
{
    int64_t rows = p->rows - p->full;
    uint64_t *name = malloc(((size_t)rows + 1) * sizeof *name), one;
    int rc = name ? pack_rows_plan(p, a, e) : out_of_memory(e);

    *same = *shared = 0;
    for (int64_t i = 0; rc == 0 && i < rows; i++)
        name[i] = row_name(p, i);
    if (rc == 0) {
        qsort(name, (size_t)rows, sizeof *name, ascending);
        rc = pack_rows_plan(p, b, e);
    }
    for (int64_t i = 0; rc == 0 && i < rows; i++)
        if ((one = row_name(p, i)) != 0) {
            ++*shared;
            *same += bsearch(&one, name, (size_t)rows, sizeof *name, ascending) != NULL;
        }
    free(name);
    return rc;
}
