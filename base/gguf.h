/* base/gguf.h - GGUF files: their keys, values and places of tensors, read strictly; and written. */
#ifndef BASE_GGUF_H
#define BASE_GGUF_H
#include "base/bytes.h"
#include "base/file.h"
#include <stdatomic.h>
C_BEGIN

/*
 * The container alone: what keys mean is for formats/weights and formats/tokenizer, which both read
 * it. formats/weights/gguf.md has the layout and all that is refused.
 */
enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPES
};

/* ggml's numbers of the ways to store values: those that are computed with here. */
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q4_0 = 2, GGML_Q4_1 = 3, GGML_Q8_0 = 8, GGML_BF16 = 30 };

/* A key's value, or of an array all of them: views of the file's bytes. */
struct gguf_value {
    const char *key;      /* ends with a NUL */
    enum gguf_type type;  /* of the value, or of each in an array: never GGUF_ARRAY */
    bool array;
    uint64_t n;           /* values in the array; else 1 */
    const unsigned char *p;
    size_t nbytes;        /* that they take from p on; strings with their lengths */
    size_t at;            /* where the key begins in the file, for messages */
};

#define GGUF_DIMS 4
struct gguf_tensor {
    const char *name;          /* ends with a NUL */
    uint32_t type;             /* ggml's number; known, so that nbytes is right */
    int dims;                  /* 1 .. GGUF_DIMS */
    int64_t size[GGUF_DIMS];   /* as in the file: a row's length first */
    const unsigned char *data;
    size_t nbytes, at;
};

struct gguf; /* values sorted by key, tensors by name */

/* bytes stay the caller's and must outlive g; name is for messages. Rules are checked before anything
 * is allocated by a number of the file. E_DATA naming the key or tensor, the field and its offset. */
int gguf_parse(struct gguf **g, const void *bytes, size_t nbytes, const char *name, struct err *e);
/* The same of a file, mapped until gguf_close. E_NOINPUT too. */
int gguf_open(struct gguf **g, const char *path, struct err *e);
void gguf_close(struct gguf *g);
const char *gguf_name(const struct gguf *g);
/* The file begins as a GGUF does. */
bool gguf_is(const char *path);

int64_t gguf_values(const struct gguf *g);
const struct gguf_value *gguf_value_at(const struct gguf *g, int64_t i);
const struct gguf_value *gguf_find(const struct gguf *g, const char *key); /* NULL: absent */
int64_t gguf_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int64_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name);
const char *gguf_type_name(uint32_t ggml_type); /* "Q8_0"; NULL: not known */

/* A value by its key, which in all of these may be a pattern with "%s" for arch. Absent: E_DATA with
 * must, else 0 and *v stays. Of another type, or outside [lo, hi]: E_DATA. gguf_i64 takes any whole
 * type, gguf_f64 F32 and F64. *s ends with a NUL only where the file happens to have one: n bytes. */
int gguf_i64(const struct gguf *g, const char *key, const char *arch, bool must, int64_t lo,
             int64_t hi, int64_t *v, struct err *e);
int gguf_f64(const struct gguf *g, const char *key, const char *arch, bool must, double lo,
             double hi, double *v, struct err *e);
int gguf_bool(const struct gguf *g, const char *key, bool must, bool *v, struct err *e);
int gguf_string(const struct gguf *g, const char *key, const char *arch, bool must, const char **s,
                size_t *n, struct err *e);
/* An array of values of a type; *v is NULL where it is absent and need not be there. */
int gguf_array(const struct gguf *g, const char *key, bool must, enum gguf_type type,
               const struct gguf_value **v, struct err *e);
/* Value i of an array of numbers, little-endian, or of any of the whole types as an integer. */
int64_t gguf_int_at(const struct gguf_value *v, uint64_t i);
double gguf_float_at(const struct gguf_value *v, uint64_t i);
/* The next string of an array, from *at on, which begins as 0: its bytes, no NUL. */
const char *gguf_next_string(const struct gguf_value *v, size_t *at, size_t *n);

/* ---- writing ---- */

#define GGUF_ALIGN 32
/* Zero it, add keys and then tensors; the first failure stays in rc and e, and the rest does nothing. */
struct gguf_head {
    struct buf keys, infos;
    uint64_t n_keys, n_tensors;
    uint64_t data_bytes; /* of all tensors so far, each padded */
    int rc;
    struct err e;
};
void gguf_put_u32(struct gguf_head *h, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_head *h, const char *key, double v);
void gguf_put_bool(struct gguf_head *h, const char *key, bool v);
void gguf_put_string(struct gguf_head *h, const char *key, const char *s, size_t n);
/* An array of n values, which follow by gguf_add_string or gguf_add_raw. */
void gguf_put_array(struct gguf_head *h, const char *key, enum gguf_type type, uint64_t n);
void gguf_add_string(struct gguf_head *h, const char *s, size_t n);
void gguf_add_raw(struct gguf_head *h, const void *p, size_t n); /* little-endian */
/* A key of another file as it stands there. */
void gguf_put_value(struct gguf_head *h, const struct gguf_value *v);
/* size as in the file, a row's length first. Returns where its data begins, from the data's start. */
uint64_t gguf_put_tensor(struct gguf_head *h, const char *name, uint32_t type, int dims,
                         const int64_t *size, size_t nbytes);
void gguf_head_free(struct gguf_head *h);

/* The file, which appears whole as file_out's do. Any thread may write tensors' bytes, in any order. */
struct gguf_out {
    struct file_out out;
    uint64_t data_at, nbytes;
    _Atomic uint64_t pending;
};
int gguf_create(struct gguf_out *o, const char *path, const struct gguf_head *h, struct err *e);
int gguf_write_at(struct gguf_out *o, uint64_t at, const void *p, size_t n, struct err *e);
int gguf_publish(struct gguf_out *o, struct err *e);
void gguf_abandon(struct gguf_out *o);

C_END
#endif
