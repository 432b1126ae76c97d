/* tools/merge.h - base model and adapter to one model folder. */
#ifndef TOOLS_MERGE_H
#define TOOLS_MERGE_H
#include "base/err.h"
#include "formats/weights/safetensors.h"
#include "model/rope.h"
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

struct merge_options {
    const char *base, *adapter, *out; /* folders, or of base and out a GGUF file; adapter NULL: none */
    bool keep_dtype;                  /* each tensor in its own type; else in dtype */
    const struct tensor_type *type;
    bool to_gguf;                     /* out is a GGUF file, */
    const struct tensor_type *gguf;   /* with matrices of this type; NULL: the base's, F16 of packed ones */
    bool adapter_only;                /* and that has the adapter's pairs alone */
    int64_t shard_bytes;              /* tensor bytes a file, more only for one larger tensor */
    struct rope_ask rope;             /* of an adapter that has no config.json to say it; no kind
                                         and a factor of 0: the base's RoPE */
    bool force;                       /* replace an out that is there */
    int threads;                      /* 0: all */
    volatile sig_atomic_t *stop;      /* set by a signal: give up cleanly; may be NULL */
};

struct merge_report {
    int64_t merged, replaced, copied; /* tensors: with a pair, saved whole, the base's */
    int64_t beside;        /* of the copied: of what a multimodal model has beside its language model */
    int64_t files, params;
    int64_t bytes;         /* of tensors */
    double max_delta;      /* largest |scale B A| */
    int64_t delta_entries; /* entries of merged tensors ... */
    int64_t unchanged;     /* ... that rounding to the output type leaves as they were */
    bool untied;           /* a tied base came apart: see formats/weights/adapter.h */
    int64_t context;
    char advice[256];      /* rope_advice */
    const char *dtype;     /* what config.json says: the type most bytes have */
};

/*
 * W' = round(f32(W) + scale * (B A)) for tensors with a pair, sums over the rank in order and
 * in float32; wholly saved tensors take the adapter's values; all others are copied, bit for
 * bit where the type stays. Same inputs, same bytes, whatever the number of threads. Memory
 * is bounded by a tensor's pair and a piece for each thread. Every byte of base and adapter is held
 * to its hash, where the files have one.
 *
 * out gets model.safetensors, or numbered files and an index; config.json of the extended
 * model in both RoPE forms; of the base the files that weights_copy_side_files copies.
 * It is built beside and renamed at the end: on any failure nothing is at out, or what was.
 * With force only a folder that is a model (config.json and no folders inside) is replaced.
 *
 * E_NOINPUT, E_DATA (also values that are not finite after merging), E_CONFIG (another base's
 * adapter), E_CREATE (out is there), E_IO; E_NO, with the message "stopped", after *stop.
 */
/* A folder is being built or removed: *stop is looked at. For a signal handler. */
bool merge_building(void);
int merge_run(const struct merge_options *o, struct merge_report *r, struct err *e);

/* The parts, for tests. One piece: rows of w (float32, in place) += scale * B A. b is the
 * rows' part of B [rows][rank], a [rank][stride], of which the first cols. Returns the largest
 * |delta|. */
float merge_rows(float *w, const float *b, const float *a, int64_t rows, int64_t cols,
                 int64_t stride, int64_t rank, float scale);
/* Of n values of a plain type: how many are not finite; how many are equal as numbers (a, b). */
int64_t merge_not_finite(enum dtype t, const void *values, int64_t n);
int64_t merge_same(enum dtype t, const void *a, const void *b, int64_t n);

C_END
#endif
