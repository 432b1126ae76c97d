/* formats/weights/safetensors.h - one safetensors file: a strict reader over mapped bytes, a writer. */
#ifndef FORMATS_WEIGHTS_SAFETENSORS_H
#define FORMATS_WEIGHTS_SAFETENSORS_H
#include "formats/weights/tensor.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

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
const struct tensor *st_at(const struct st_file *f, int64_t i);
const struct tensor *st_find(const struct st_file *f, const char *name); /* NULL: absent */
/* Where the file has hashes, as what st_finish has written does: st_parse holds the header to its own
 * (E_DATA), and each tensor has its own for tensor_check. */
bool st_hashed(const struct st_file *f);
/* Value of a __metadata__ key, or NULL. */
const char *st_metadata(const struct st_file *f, const char *key);

/* Writing: declare all tensors, then stream their bytes in the declared order. The header is
 * padded so that tensor data starts on a 4096-byte boundary, and holds a hash of itself and of each
 * tensor (safetensors.md). The file appears at path by
 * fsync and rename when st_finish succeeds, and not at all otherwise. Readers view tensors in
 * place, so one that would not start at a multiple of its element size is E_BUG: declare wide
 * types before narrow ones. */
struct st_writer;
struct st_decl {
    const char *name;
    const struct tensor_type *type; /* the format's own (st_type), of whole bytes a value */
    int dims;
    int64_t shape[TENSOR_DIMS];
};
int st_create(struct st_writer **w, const char *path, const struct st_decl *decl, int64_t n,
              struct err *e);
/* The same with more keys in __metadata__, up to one that is NULL. No control characters. */
struct st_note {
    const char *key, *value;
};
int st_create_noted(struct st_writer **w, const char *path, const struct st_decl *decl, int64_t n,
                    const struct st_note *notes, struct err *e);
/* The next count values of the current tensor (F32, F16, BF16), converted from float32 (round
 * to nearest even). Either call may give a tensor in pieces, a piece never spans two. E_DATA naming
 * the tensor: a finite value that would be infinite in its type. */
int st_write_f32(struct st_writer *w, const float *values, int64_t count, struct err *e);
/* The next nbytes of the current tensor, as they are. */
int st_write_raw(struct st_writer *w, const void *bytes, size_t nbytes, struct err *e);
/* A whole tensor by several threads: begin steps to the next, which must have so many bytes (E_BUG);
 * then st_write_at takes them in any order, from any thread, each once; end says their block_hash. */
int st_begin(struct st_writer *w, size_t nbytes, struct err *e);
int st_write_at(struct st_writer *w, size_t at, const void *bytes, size_t nbytes, struct err *e);
int st_end(struct st_writer *w, uint64_t hash, struct err *e);
int st_finish(struct st_writer *w, struct err *e); /* frees w either way */
void st_abandon(struct st_writer *w);              /* removes the temporary, frees */

/* The type that the format calls so ("F32", "I8", "F8_E4M3", ...), or NULL. */
const struct tensor_type *st_type(const char *name);

C_END
#endif
