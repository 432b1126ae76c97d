/* eval/json_fields.c - see json_fields.h. */
#include "eval/json_fields.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *field_text(const char *s)
{
    char clean[1024];
    size_t n = strlen(s), at;

    if (n >= sizeof clean)
        n = sizeof clean - 1;
    memcpy(clean, s, n);
    while (!utf8_valid(clean, n, &at))
        clean[at] = '?';
    return json_stringn(clean, n);
}

json_t *field_hash(uint64_t v)
{
    char s[24];

    snprintf(s, sizeof s, "%016" PRIx64, v);
    return json_string(s);
}

int field_get_text(const struct js *o, const char *key, char *out, size_t cap, struct err *e)
{
    const char *s = "";
    int rc = js_str(o, key, JS_MAY, &s, e);
    size_t n = strlen(s), at;

    if (n >= cap) {
        n = cap - 1;
        if (!utf8_valid(s, n, &at))
            n = at;
    }
    memcpy(out, s, n);
    out[n] = '\0';
    return rc;
}

int field_print(struct buf *out, json_t *o, struct err *e)
{
    char *s = o ? js_text(o) : NULL;
    int rc = s ? buf_add(out, s, strlen(s), e) : err_set(e, E_SYS, "out of memory");

    free(s);
    json_decref(o);
    return rc;
}
