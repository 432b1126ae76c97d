/* formats/weights/safetensors.h - one safetensors file: a strict reader over mapped bytes, a writer. */
#ifndef FORMATS_WEIGHTS_SAFETENSORS_H
#define FORMATS_WEIGHTS_SAFETENSORS_H
#include "base/tensor_type.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

#define ST_MAX_DIMS 8

enum st_dtype { ST_F32, ST_F16, ST_BF16, ST_F64, ST_I64, ST_I32, ST_I16, ST_I8, ST_U8, ST_BOOL,
                ST_OTHER /* known to the format, of no use to us: sizes are still checked */ };

struct st_tensor {
    const char *name;
    enum st_dtype dtype;
    int dims;
    int64_t shape[ST_MAX_DIMS];
    int64_t count; /* product of shape */
    const void *data; /* in the mapping; aligned only as the file aligns it */
    size_t nbytes;
};

struct st_file; /* tensors sorted by name */

/* Rules, checked before anything is allocated by their numbers (safetensors 0.4 tensor.rs):
 * header length <= 100,000,000 and inside the file; JSON object, UTF-8, no duplicate keys,
 * "__metadata__" strings only; known dtypes; data_offsets contiguous from 0 to the end of
 * the file, without hole, overlap or trailing bytes; product of shape times size equal to
 * the span. E_NOINPUT, E_DATA naming the tensor. */
int st_open(struct st_file **f, const char *path, struct err *e);
int st_parse(struct st_file **f, const void *bytes, size_t nbytes, const char *name,
             struct err *e); /* bytes stay the caller's and must outlive f */
void st_close(struct st_file *f);
int64_t st_count(const struct st_file *f);
const struct st_tensor *st_at(const struct st_file *f, int64_t i);
const struct st_tensor *st_find(const struct st_file *f, const char *name); /* NULL: absent */
/* Value of a __metadata__ key, or NULL. */
const char *st_metadata(const struct st_file *f, const char *key);

/* Writing: declare all tensors, then stream their bytes in the declared order. The header is
 * padded so that tensor data starts on a 4096-byte boundary. The file appears at path by
 * fsync and rename when st_finish succeeds, and not at all otherwise. Readers view tensors in
 * place, so one that would not start at a multiple of its element size is E_BUG: declare wide
 * types before narrow ones. */
struct st_writer;
struct st_decl {
    const char *name;
    enum st_dtype dtype; /* any but ST_OTHER */
    int dims;
    int64_t shape[ST_MAX_DIMS];
};
int st_create(struct st_writer **w, const char *path, const struct st_decl *decl, int64_t n,
              struct err *e);
/* The next count values of the current tensor (F32, F16, BF16), converted from float32 (round
 * to nearest even). Either call may give a tensor in pieces, a piece never spans two. */
int st_write_f32(struct st_writer *w, const float *values, int64_t count, struct err *e);
/* The next nbytes of the current tensor, as they are. */
int st_write_raw(struct st_writer *w, const void *bytes, size_t nbytes, struct err *e);
int st_finish(struct st_writer *w, struct err *e); /* frees w either way */
void st_abandon(struct st_writer *w);              /* removes the temporary, frees */

size_t st_dtype_bytes(enum st_dtype t);      /* 0 for ST_OTHER */
const char *st_dtype_name(enum st_dtype t);  /* "F32"; "other" for ST_OTHER */
bool st_dtype_real(enum st_dtype t);         /* F32, F16, BF16: what the engine computes with */
/* count values of type t at src (any alignment) to float32; E_DATA for types but F32, F16 and
 * BF16. */
int st_to_f32(enum st_dtype t, const void *src, int64_t count, float *dst, struct err *e);
/* The way back: count float32 values to type t at dst, rounded to nearest even. */
int st_from_f32(enum st_dtype t, const float *src, int64_t count, void *dst, struct err *e);

C_END
#endif
