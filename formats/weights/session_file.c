/* formats/weights/session_file.c - see session_file.h. */
#include "formats/weights/session_file.h"

#include "base/block_hash.h"
#include "base/bytes.h"
#include "base/hash.h"

#include <inttypes.h>
#include <string.h>

enum { VERSION = 1, MOST = 65536, HASHED = 80 };
static const char magic[8] = "LLKV\r\n\x1a\n";
/* of parts in a row */
enum { PARTS = 4 };

bool session_is(const void *p, size_t n)
{
    return n >= sizeof magic && memcmp(p, magic, sizeof magic) == 0;
}

const char *session_type_name(enum session_type t)
{
    static const char *const names[] = { "float32", "bfloat16", "int8" };

    return names[t];
}

size_t session_row_bytes(const struct session_head *h, int part)
{
    size_t width = (size_t)h->heads * (size_t)h->channels;

    if (part < 2)
        return width * (h->type == SESSION_F32 ? 4 : h->type == SESSION_BF16 ? 2 : 1);
    return h->type == SESSION_INT8 ? (size_t)h->heads * 4 : 0;
}

/* At most 65536^2 * 4 a row and part, 2^31 rows, 65536 layers: the product may be more than 2^64, so
 * session_parse compares by division before this is asked. */
size_t session_offset(const struct session_head *h, int64_t layer, int part)
{
    size_t row = 0, before = 0;

    for (int p = 0; p < PARTS; p++) {
        row += session_row_bytes(h, p);
        before += p < part ? session_row_bytes(h, p) : 0;
    }
    return SESSION_HEAD_BYTES + (size_t)h->tokens * (4 + (size_t)layer * row + before);
}

static int check_ranges(const struct session_head *h, const unsigned char *p, struct err *e)
{
    if (get_le(p + 12, 4) >= SESSION_TYPES)
        return err_set(e, E_DATA, "type %" PRIu64 " of keys and values is not known",
                       get_le(p + 12, 4));
    if (h->layers < 1 || h->layers > MOST || h->heads < 1 || h->heads > MOST || h->channels < 1 ||
        h->channels > MOST || h->tokens < 1 || get_le(p + 32, 8) > (uint64_t)1 << 31)
        return err_set(e, E_DATA, "%" PRId64 " layers, %" PRId64 " heads of %" PRId64 " channels, %"
                       PRIu64 " tokens cannot be", h->layers, h->heads, h->channels,
                       get_le(p + 32, 8));
    if (get_le(p + 28, 4) || get_le(p + 88, 8))
        return err_set(e, E_DATA, "reserved bytes of the head are not 0");
    return 0;
}

int session_parse(struct session_head *h, const void *bytes, size_t nbytes, struct err *e)
{
    const unsigned char *p = bytes;
    size_t row = 4, each;

    if (nbytes < SESSION_HEAD_BYTES || !session_is(p, nbytes))
        return err_set(e, E_DATA, "not a session file (%zu bytes)", nbytes);
    if (get_le(p + 8, 4) != VERSION)
        return err_set(e, E_DATA, "session file of version %" PRIu64 ", this reads %d",
                       get_le(p + 8, 4), VERSION);
    if (hash64_of(p, HASHED) != get_le(p + 80, 8))
        return err_set(e, E_DATA, "the head of the session file is damaged");
    *h = (struct session_head){ (enum session_type)get_le(p + 12, 4), (int64_t)get_le(p + 16, 4),
        (int64_t)get_le(p + 20, 4), (int64_t)get_le(p + 24, 4), (int64_t)get_le(p + 32, 8),
        get_le(p + 40, 8), get_le(p + 48, 8), get_le(p + 56, 8), get_le(p + 64, 8),
        get_le(p + 72, 8) };
    if (check_ranges(h, p, e) < 0)
        return E_DATA;
    for (int i = 0; i < PARTS; i++) /* below 2^53 with the layers */
        row += (size_t)h->layers * session_row_bytes(h, i);
    each = (nbytes - SESSION_HEAD_BYTES) / row; /* divide: no overflow */
    if (each != (size_t)h->tokens || (nbytes - SESSION_HEAD_BYTES) % row)
        return err_set(e, E_DATA, "the session file has %zu bytes: not those of %" PRId64 " tokens",
                       nbytes, h->tokens);
    return 0;
}

int session_verify(const struct session_head *h, const void *bytes, size_t nbytes, struct err *e)
{
    const unsigned char *p = (const unsigned char *)bytes + SESSION_HEAD_BYTES;

    if (block_hash(p, nbytes - SESSION_HEAD_BYTES) != h->data)
        return err_set(e, E_DATA, "the session file is damaged: its hash is not that of its data");
    for (int64_t i = 0; i < h->tokens; i++)
        if (get_le(p + 4 * i, 4) > INT32_MAX)
            return err_set(e, E_DATA, "token %" PRId64 " of the session file is below 0", i);
    return 0;
}

void session_head_put(const struct session_head *h, unsigned char out[SESSION_HEAD_BYTES])
{
    memset(out, 0, SESSION_HEAD_BYTES);
    memcpy(out, magic, sizeof magic);
    put_le(out + 8, VERSION, 4);
    put_le(out + 12, (uint64_t)h->type, 4);
    put_le(out + 16, (uint64_t)h->layers, 4);
    put_le(out + 20, (uint64_t)h->heads, 4);
    put_le(out + 24, (uint64_t)h->channels, 4);
    put_le(out + 32, (uint64_t)h->tokens, 8);
    put_le(out + 40, h->model, 8);
    put_le(out + 48, h->adapter, 8);
    put_le(out + 56, h->text, 8);
    put_le(out + 64, h->positions, 8);
    put_le(out + 72, h->data, 8);
    put_le(out + 80, hash64_of(out, HASHED), 8);
}
