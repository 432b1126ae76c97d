/* train/pack_rows.h - best-fit packing: rows of whole documents, made anew every epoch. */
#ifndef TRAIN_PACK_ROWS_H
#define TRAIN_PACK_ROWS_H
#include "base/err.h"
#include "formats/tokens/dataset.h"
#include <stdint.h>
C_BEGIN

/*
 * Rows of ctx tokens in which no document that fits is cut. A document of more than ctx tokens
 * is cut into pieces of ctx, each a row of its own; what remains of it is packed like a
 * document. Empty documents are in no row. Every other token is in one row of every epoch.
 *
 * Packing is best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): the longest first, each
 * into the row with the least room that holds it. In which order those of similar lengths come
 * is drawn anew for every epoch (in groups of lengths that are as fine as it takes to need no more
 * rows than the exact order does), and so is the order of the pieces in a row. The plan is a pure
 * function of (lengths, ctx, seed, epoch): nothing is saved, every process makes the same one. The
 * number of rows depends on lengths and ctx alone. A plan takes O(documents + ctx) time.
 *
 * PACK_OLD is the order of runs begun before 2026-11-30, for those that go on: only documents of
 * exactly one length change places, and in a row the shortest comes first.
 *
 * Memory: at most 16 1/8 bytes a document and 8 1/4 a token of ctx, all of it taken by open.
 */
enum pack_order { PACK_OLD = 1, PACK_NEW = 2 };

/* Where document i (0 .. n_docs-1) lies. A pure function; n_ids >= 0. */
typedef int pack_doc_fn(void *from, int64_t i, int64_t *start, int64_t *n_ids, struct err *e);

/* An item: its document; its tokens, and once it is placed 1 + the next item of its row. */
struct pack_item {
    uint32_t doc, next;
};

struct pack_rows {
    int64_t ctx, rows;       /* rows: of an epoch */
    int64_t full;            /* rows 0 .. full-1 are pieces of ctx tokens */
    int64_t tokens;          /* in all rows; the rest of rows * ctx is padding */
    int64_t cut;             /* documents that are longer than ctx */
    int64_t epoch;           /* that the plan is of */
    enum pack_order order;
    uint64_t seed;
    int64_t n_docs, n_items; /* items: documents and remainders shorter than ctx */
    pack_doc_fn *doc;
    void *from;
    int64_t *full_before;    /* of every 64th document: full rows of those before it */
    uint32_t *begin;         /* [ctx + 1] where the items of a length begin */
    struct pack_item *item;  /* from the shortest group of lengths to the longest */
    uint32_t *head, *spare;  /* by packed row: 1 + its first item; 1 + the next of its room */
    uint32_t *room;          /* [ctx] by tokens left: 1 + a row. After planning: see shown */
    int64_t shown, n_shown;  /* the packed row whose pieces, in their order, stand in room */
    uint64_t *bits[6];       /* which of room are there; a bit for 64 of the level below */
};

/* Plans epoch 0. E_CONFIG: ctx below 2, no token at all, or 2^32 - 1 documents and more; E_SYS.
 * Zero p before; pack_rows_close takes any state. name is the data's, for the message. */
int pack_rows_open(struct pack_rows *p, int64_t n_docs, pack_doc_fn *doc, void *from,
                   int64_t ctx, uint64_t seed, enum pack_order order, const char *name,
                   struct err *e);
void pack_rows_close(struct pack_rows *p);
/* The documents of a data set: from is the struct dataset. */
pack_doc_fn pack_rows_dataset;

/* Makes the plan that of an epoch, from 0; nothing to do where it is. */
int pack_rows_plan(struct pack_rows *p, int64_t epoch, struct err *e);

/* Of the rows that several pieces share in epoch b (*shared), how many are rows of epoch a too,
 * with the same pieces (*same). The plan is then that of b. Takes 8 bytes a row. E_SYS. */
int pack_rows_recur(struct pack_rows *p, int64_t a, int64_t b, int64_t *same, int64_t *shared,
                    struct err *e);

/* The pieces of row 'row' (0 .. rows-1), one after the other: *at is 0 before the first call. 1: a
 * piece, tokens [*start, *start + *n_ids) of the data; 0: no more; below 0: as doc failed. */
int pack_rows_next(struct pack_rows *p, int64_t row, int64_t *at, int64_t *start,
                   int64_t *n_ids, struct err *e);

C_END
#endif
