/* formats/weights/beside.h - small files beside the tensors: are they as they were written? */
#ifndef FORMATS_WEIGHTS_BESIDE_H
#define FORMATS_WEIGHTS_BESIDE_H
#include "base/bytes.h"
C_BEGIN

/* A key of __metadata__ (safetensors.md): "name:hash name:hash", by name; a hash is the file's
 * block_hash. People may edit such files, so what differs is told and not refused. */
#define BESIDE_KEY "longlora_files"

/* For writers: zero it, add each file. Names with a space, ':' or other than ASCII and files above
 * BESIDE_MAX bytes are passed over. E_SYS; of a file also file_read's. */
#define BESIDE_MAX ((size_t)64 << 20)
struct beside {
    char **v; /* "name:hash" */
    size_t n, cap;
};
int beside_add(struct beside *b, const char *name, const void *text, size_t nbytes, struct err *e);
int beside_add_file(struct beside *b, const char *folder, const char *name, struct err *e);
/* The value, with a NUL that counts in out->len. */
int beside_value(struct beside *b, struct buf *out, struct err *e);
void beside_free(struct beside *b);

/* Adds to names, with ", " between, those of the value's files that folder has in another form or
 * not at all. value may be NULL. E_SYS. */
int beside_changed(const char *value, const char *folder, struct buf *names, struct err *e);

C_END
#endif
