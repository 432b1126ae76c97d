/* base/json.h - small JSON files over jansson: loading with limits, fields with checks. */
#ifndef BASE_JSON_H
#define BASE_JSON_H
#include "base/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

#define JS_MAX_BYTES ((size_t)64 << 20) /* larger than any index or manifest in use */

/* An object inside a file, and how to call it in a message: "'dir/config.json': field
 * 'rope_scaling.factor' ...". file must outlive it; obj is borrowed. */
struct js {
    const char *file;
    json_t *obj;
    char path[128]; /* "" at the top, "rope_scaling." below */
};

/* Parses text that must be one JSON object without duplicate keys; nesting is at most 64
 * deep. Integers of more than 64 bits become reals. The caller gives it back with js_free. js_load reads the
 * file first, at most max_bytes.
 * E_NOINPUT, E_DATA with line and column. */
int js_parse(struct js *o, const char *text, size_t nbytes, const char *file, struct err *e);
int js_load(struct js *o, const char *path, size_t max_bytes, struct err *e);
void js_free(struct js *o);

/* A field. Absent or null: E_DATA with JS_MUST; with JS_MAY 0, and *v stays as it was.
 * Of another type, or a number outside [lo, hi]: E_DATA. js_f64 takes integers too, js_i64
 * nothing but integers. Strings are borrowed. */
enum js_need { JS_MAY, JS_MUST };
int js_i64(const struct js *o, const char *key, enum js_need need, int64_t lo, int64_t hi,
           int64_t *v, struct err *e);
int js_f64(const struct js *o, const char *key, enum js_need need, double lo, double hi,
           double *v, struct err *e);
int js_bool(const struct js *o, const char *key, enum js_need need, bool *v, struct err *e);
int js_str(const struct js *o, const char *key, enum js_need need, const char **v,
           struct err *e);
/* *sub is the field's object, *array the field's array: borrowed, so no js_free. With JS_MAY
 * and no field sub->obj is NULL and *array is NULL. */
int js_object(const struct js *o, const char *key, enum js_need need, struct js *sub,
              struct err *e);
int js_array(const struct js *o, const char *key, enum js_need need, json_t **array,
             struct err *e);
/* Element i of an array field as an object; key names the array in messages. E_DATA. */
int js_item(const struct js *o, const char *key, json_t *array, size_t i, struct js *sub,
            struct err *e);
/* The field is there and is not null. */
bool js_has(const struct js *o, const char *key);

/* Text of root, indented by two, with a newline at the end, numbers in the fewest digits (15
 * to 17) that give the same values back; malloc'ed, NULL when memory is short. */
char *js_text(const json_t *root);
/* The same to a file, by file_replace. E_CREATE, E_IO, E_SYS. */
int js_save(const json_t *root, const char *path, struct err *e);

C_END
#endif
