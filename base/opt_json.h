/* base/opt_json.h - what options were given, or resolved to, as JSON: the record of a run. */
#ifndef BASE_OPT_JSON_H
#define BASE_OPT_JSON_H
#include "base/opt.h"
#include <jansson.h>
C_BEGIN

/* An object with a key for each row: its name, '-' as '_'. Enums are the word, not its number; of
 * a list of counts that has one, that number. No key for a string that is NULL, an empty list, an
 * enum below 0. flags OPT_RESULT: of rows with that flag alone; 0: of all. NULL when out of
 * memory. */
json_t *opt_record(const struct opt *rows, int flags);

C_END
#endif
