/* base/sealed.c - see sealed.h. */
#include "base/sealed.h"

#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include "base/hash.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

/* As js_text indents them. */
#define MARK "\n  \"sealed\": true,"
#define HASH "\n  \"xxh3_128\": \""
enum { DIGITS = 32 };

static const char zeros[] = "00000000000000000000000000000000";

/* digits: where the hash's own stand in the text. */
static void hash_around(const char *text, size_t n, const char *digits, char hex[DIGITS + 1])
{
    XXH3_state_t h;
    size_t at = (size_t)(digits - text);

    XXH3_128bits_reset(&h);
    hash128_add(&h, text, at);
    hash128_add(&h, zeros, DIGITS);
    hash128_add(&h, digits + DIGITS, n - at - DIGITS);
    hash_hex(XXH3_128bits_digest(&h), hex);
}

char *sealed_text(const json_t *root)
{
    char *plain = js_text(root), *text = NULL, *digits, hex[DIGITS + 1];

    /* Behind the brace that begins it. */
    if (plain && asprintf(&text, "{" MARK HASH "%s\",%s", zeros, plain + 1) < 0)
        text = NULL;
    free(plain);
    if (!text)
        return NULL;
    digits = strstr(text, HASH) + strlen(HASH);
    hash_around(text, strlen(text), digits, hex);
    memcpy(digits, hex, DIGITS);
    return text;
}

int sealed_check(const char *text, size_t n, const char *name, struct err *e)
{
    /* A line end is escaped within a string, so these are keys of the object itself. */
    const char *mark = memmem(text, n, MARK, strlen(MARK)), *hash = memmem(text, n, HASH, strlen(HASH));
    char hex[DIGITS + 1];

    if (!mark && !hash)
        return 0;
    if (mark && hash) {
        hash += strlen(HASH);
        if ((size_t)(text + n - hash) > DIGITS) {
            hash_around(text, n, hash, hex);
            if (memcmp(hash, hex, DIGITS) == 0)
                return 0;
        }
    }
    err_set(e, E_DATA, "'%s' was changed after it was written: its own hash does not match", name);
    return err_hint(e, "it is damaged: copy it again; or it was edited: then remove its lines "
                    "\"sealed\" and \"xxh3_128\"");
}
