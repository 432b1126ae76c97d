/* formats/weights/session_file.h - a text's keys and values on disk; session_file.md. */
#ifndef FORMATS_WEIGHTS_SESSION_FILE_H
#define FORMATS_WEIGHTS_SESSION_FILE_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

enum { SESSION_HEAD_BYTES = 96 };
enum session_type { SESSION_F32, SESSION_BF16, SESSION_INT8, SESSION_TYPES };

struct session_head {
    enum session_type type;
    int64_t layers, heads, channels, tokens;
    uint64_t model, adapter, text, positions, data;
};

/* Whether bytes begin as such a file does. */
bool session_is(const void *p, size_t n);
/* The head of a file of nbytes whose bytes are at p, and the length that follows from it. E_DATA. */
int session_parse(struct session_head *h, const void *p, size_t nbytes, struct err *e);
/* Everything: ids and the hash of the data. E_DATA. */
int session_verify(const struct session_head *h, const void *p, size_t nbytes, struct err *e);
void session_head_put(const struct session_head *h, unsigned char out[SESSION_HEAD_BYTES]);

/* Bytes of a row of a layer's part (0 keys, 1 values, 2 and 3 their scales); of the file before part
 * 'part' of a layer. */
size_t session_row_bytes(const struct session_head *h, int part);
size_t session_offset(const struct session_head *h, int64_t layer, int part);
const char *session_type_name(enum session_type t);

C_END
#endif
