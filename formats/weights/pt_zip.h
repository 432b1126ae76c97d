/* formats/weights/pt_zip.h - the members of a file that torch.save made: a zip of stored members. */
#ifndef FORMATS_WEIGHTS_PT_ZIP_H
#define FORMATS_WEIGHTS_PT_ZIP_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

struct pt_member {
    const char *name; /* in the archive's directory, not terminated */
    size_t name_bytes;
    const unsigned char *data;
    size_t nbytes;
};
/* Sorted by name; all that it names lies in the caller's bytes. */
struct pt_zip {
    struct pt_member *at;
    size_t n;
};
/* Every member is stored as it is, lies inside the file and apart from the others and the directory,
 * and its own header has the name that the directory gives it. Only then is anything allocated by
 * their number. E_DATA. */
int pt_zip_parse(struct pt_zip *z, const void *bytes, size_t nbytes, const char *file, struct err *e);
void pt_zip_free(struct pt_zip *z);
/* The member of that name, or NULL. */
const struct pt_member *pt_zip_find(const struct pt_zip *z, const char *name);

C_END
#endif
