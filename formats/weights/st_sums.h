/* formats/weights/st_sums.h - the hashes that we write into a safetensors header (internal). */
#ifndef FORMATS_WEIGHTS_ST_SUMS_H
#define FORMATS_WEIGHTS_ST_SUMS_H
#include "base/bytes.h"
C_BEGIN

/* Two keys of __metadata__, of which no file has one alone. The first holds a hash of all that
 * stands before the data, these 16 digits taken as zeros; the other one hash for each tensor, in
 * the order of the data, with spaces between. */
#define ST_HEADER_KEY "longlora_header"
#define ST_TENSORS_KEY "longlora_tensors"

/* Writer: room for both in the JSON, at the end of h; then, at that place, the hash of tensor i; at
 * last that of the header, whose room begins at 'at'. */
int st_sums_room(struct buf *h, int64_t n_tensors, struct err *e);
void st_sums_put(char *room, int64_t i, uint64_t hash);
void st_sums_seal(char *head, size_t nbytes, size_t at);

/* Reader: the digits that stand at digits within a header of nbytes are its hash. */
bool st_sums_sealed(const char *head, size_t nbytes, const char *digits);
/* The hash of tensor i, of n, in the value of ST_TENSORS_KEY; false where the value has not one for
 * each. */
bool st_sums_get(const char *value, int64_t i, int64_t n, uint64_t *hash);

C_END
#endif
