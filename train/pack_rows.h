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
 * into the row with the least room that holds it. Which of the documents of one length goes
 * where is drawn anew for every epoch. The plan is a pure function of (lengths, ctx, seed,
 * epoch): nothing is saved, every process makes the same one. The number of rows depends on
 * lengths and ctx alone. A plan takes O(documents + ctx) time.
 *
 * Memory: at most 16 1/8 bytes a document and 8 1/4 a token of ctx, all of it taken by open.
 */

/* Where document i (0 .. n_docs-1) lies. A pure function; n_ids >= 0. */
typedef int pack_doc_fn(void *from, int64_t i, int64_t *start, int64_t *n_ids, struct err *e);

struct pack_rows {
    int64_t ctx, rows;       /* rows: of an epoch */
    int64_t full;            /* rows 0 .. full-1 are pieces of ctx tokens */
    int64_t tokens;          /* in all rows; the rest of rows * ctx is padding */
    int64_t cut;             /* documents that are longer than ctx */
    int64_t epoch;           /* that the plan is of */
    uint64_t seed;
    int64_t n_docs, n_items; /* items: documents and remainders shorter than ctx */
    pack_doc_fn *doc;
    void *from;
    int64_t *full_before;    /* of every 64th document: full rows of those before it */
    uint32_t *begin;         /* [ctx + 1] where the items of a length begin in sorted */
    uint32_t *sorted, *next; /* by item, by item of sorted: 1 + the next one of its row */
    uint32_t *head, *spare;  /* by packed row: 1 + its first item; 1 + the next of its room */
    uint32_t *room;          /* [ctx] by tokens left: 1 + a row */
    uint64_t *bits[6];       /* which of room are there; a bit for 64 of the level below */
};

/* Plans epoch 0. E_CONFIG: ctx below 2, no token at all, or 2^32 - 1 documents and more; E_SYS.
 * Zero p before; pack_rows_close takes any state. name is the data's, for the message. */
int pack_rows_open(struct pack_rows *p, int64_t n_docs, pack_doc_fn *doc, void *from,
                   int64_t ctx, uint64_t seed, const char *name, struct err *e);
void pack_rows_close(struct pack_rows *p);
/* The documents of a data set: from is the struct dataset. */
pack_doc_fn pack_rows_dataset;

/* Makes the plan that of an epoch, from 0; nothing to do where it is. */
int pack_rows_plan(struct pack_rows *p, int64_t epoch, struct err *e);

/* The pieces of row 'row' (0 .. rows-1), shortest first: *at is 0 before the first call. 1: a
 * piece, tokens [*start, *start + *n_ids) of the data; 0: no more; below 0: as doc failed. */
int pack_rows_next(struct pack_rows *p, int64_t row, int64_t *at, int64_t *start,
                   int64_t *n_ids, struct err *e);

C_END
#endif
