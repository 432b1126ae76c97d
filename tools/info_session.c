/* tools/info_session.c - what lgen keeps of a text, described; see info.h. */
#include "tools/info.h"

#include "base/file.h"
#include "formats/weights/session_file.h"

#include <inttypes.h>

static void put_hash(json_t *out, const char *key, uint64_t hash)
{
    char hex[17];

    snprintf(hex, sizeof hex, "%016" PRIx64, hash);
    json_object_set_new(out, key, json_string(hex));
}

int info_session(const char *path, const struct info_options *o, json_t *out, struct err *e)
{
    struct session_head h;
    const void *p;
    size_t n;
    int rc = file_map(path, &p, &n, e);

    if (rc < 0)
        return rc;
    rc = session_parse(&h, p, n, e);
    if (rc == 0 && o->verify)
        rc = session_verify(&h, p, n, e);
    if (rc < 0) {
        err_within(e, "'%s'", path);
        file_unmap(p, n);
        return rc;
    }
    json_object_set_new(out, "form", json_string("session"));
    json_object_set_new(out, "tokens", json_integer(h.tokens));
    json_object_set_new(out, "cache", json_string(session_type_name(h.type)));
    json_object_set_new(out, "layers", json_integer(h.layers));
    json_object_set_new(out, "key_heads", json_integer(h.heads));
    json_object_set_new(out, "head_channels", json_integer(h.channels));
    json_object_set_new(out, "bytes", json_integer((json_int_t)n));
    put_hash(out, "model_xxh3", h.model);
    if (h.adapter)
        put_hash(out, "adapter_xxh3", h.adapter);
    put_hash(out, "text_xxh3", h.text);
    if (o->verify)
        json_object_set_new(out, "verified", json_integer((json_int_t)n));
    file_unmap(p, n);
    return 0;
}
