/* train/rows.h - rows of the data set as the ids and targets of a step. */
#ifndef TRAIN_ROWS_H
#define TRAIN_ROWS_H
#include "base/err.h"
#include "formats/tokens/dataset.h"
#include "train/pack_rows.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * Up to cap sequences of ctx tokens, laid end to end. targets[i] is ids[i + 1] inside the row;
 * -1 (not scored) at the row's last token, where the next token is masked (a prompt), and,
 * with mask_documents, where the next token opens another document.
 */
struct rows {
    int64_t ctx, cap, vocab;
    bool mask_documents;         /* attention does not cross them: fill starts */
    int32_t *ids, *targets;
    uint8_t *mask;      /* scratch of one row */
    int64_t *starts;    /* ascending: row numbers where a document begins inside a sequence */
    int64_t n_starts;
    size_t cap_starts;
};

/* Bytes that rows_open allocates. */
size_t rows_bytes(int64_t ctx, int64_t cap);
int rows_open(struct rows *r, int64_t ctx, int64_t cap, int64_t vocab, bool mask_documents,
              struct err *e);
void rows_close(struct rows *r);

/* Sequence number at (0 .. cap-1, in ascending order: at 0 forgets the starts) becomes row
 * 'row' of d. *scored += targets that count. E_DATA: damage, or an id not below vocab. */
int rows_load(struct rows *r, int64_t at, struct dataset *d, int64_t row, int64_t *scored,
              struct err *e);

/* The same with row 'row' of a packing of d: its pieces one after the other, then padding (id
 * 0, not scored). The last token of a piece is not scored, as it says nothing of the next one;
 * with mask_documents, each piece and the padding open a document in starts. */
int rows_load_packed(struct rows *r, int64_t at, struct dataset *d, struct pack_rows *p,
                     int64_t row, int64_t *scored, struct err *e);

C_END
#endif
