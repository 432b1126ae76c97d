/* formats/weights/st_sums.c - see st_sums.h. */
#include "formats/weights/st_sums.h"

#include "base/block_hash.h"
#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* What stands around the digits. */
#define BEFORE_HEADER "\"" ST_HEADER_KEY "\":\""
#define BEFORE_TENSORS "\",\"" ST_TENSORS_KEY "\":\""
enum { HEADER_AT = sizeof BEFORE_HEADER - 1,
       TENSORS_AT = HEADER_AT + HASH_HEX + sizeof BEFORE_TENSORS - 1,
       EACH = HASH_HEX + 1 }; /* digits and a space */

static const char zeros[] = "0000000000000000";

int st_sums_room(struct buf *h, int64_t n, struct err *e)
{
    int rc = buf_printf(h, e, BEFORE_HEADER "%s" BEFORE_TENSORS, zeros);

    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = buf_printf(h, e, "%s%s", i ? " " : "", zeros);
    return rc < 0 ? rc : buf_add(h, "\"", 1, e);
}

static void put_hex(char *to, uint64_t hash)
{
    char hex[HASH_HEX + 1];

    snprintf(hex, sizeof hex, "%016" PRIx64, hash);
    memcpy(to, hex, HASH_HEX);
}

void st_sums_put(char *room, int64_t i, uint64_t hash)
{
    put_hex(room + TENSORS_AT + i * EACH, hash);
}

/* The hash of a header whose own digits stand at so many bytes from its beginning. */
static uint64_t hash_around(const char *head, size_t nbytes, size_t at)
{
    XXH3_state_t h;

    XXH3_64bits_reset(&h);
    hash64_add(&h, head, at);
    hash64_add(&h, zeros, HASH_HEX);
    hash64_add(&h, head + at + HASH_HEX, nbytes - at - HASH_HEX);
    return XXH3_64bits_digest(&h);
}

void st_sums_seal(char *head, size_t nbytes, size_t at)
{
    at += HEADER_AT;
    put_hex(head + at, hash_around(head, nbytes, at));
}

bool st_sums_sealed(const char *head, size_t nbytes, const char *digits)
{
    size_t at = (size_t)(digits - head);
    char hex[HASH_HEX + 1];

    if (at > nbytes || nbytes - at < HASH_HEX + 1 || digits[HASH_HEX] != '"')
        return false;
    snprintf(hex, sizeof hex, "%016" PRIx64, hash_around(head, nbytes, at));
    return memcmp(digits, hex, HASH_HEX) == 0;
}

bool st_sums_get(const char *value, int64_t i, int64_t n, uint64_t *hash)
{
    const char *digits = value + i * EACH;

    /* Where each but the last is followed by a space, there is one for each. */
    if (i == 0 && strlen(value) != (n ? (size_t)n * EACH - 1 : 0))
        return false;
    if (strspn(digits, "0123456789abcdef") != HASH_HEX || (i + 1 < n && digits[HASH_HEX] != ' '))
        return false;
    *hash = strtoull(digits, NULL, 16);
    return true;
}
