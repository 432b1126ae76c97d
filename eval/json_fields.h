/* eval/json_fields.h - what the JSON of all results is made of, and read by. */
#ifndef EVAL_JSON_FIELDS_H
#define EVAL_JSON_FIELDS_H
#include "base/bytes.h"
#include "base/json.h"
#include <stdint.h>
C_BEGIN

/* A string for JSON, at most 1023 bytes of it. File names are any bytes but JSON is UTF-8: wrong bytes become '?'. */
json_t *field_text(const char *s);
/* A hash, as hexadecimal text: JSON numbers are signed in most readers, and this has 64 bits. */
json_t *field_hash(uint64_t v);
/* An optional string, cut between characters where it does not fit; a missing one leaves out empty. E_DATA. */
int field_get_text(const struct js *o, const char *key, char *out, size_t cap, struct err *e);
/* Adds the object's text to out, and frees the object either way. E_SYS, also of NULL. */
int field_print(struct buf *out, json_t *o, struct err *e);

C_END
#endif
