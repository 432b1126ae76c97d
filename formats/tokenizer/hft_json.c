/* formats/tokenizer/hft_json.c - fields of a tokenizer.json, and texts by their bytes. */
#include "formats/tokenizer/hft_impl.h"

#include "base/hash.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PROBES 4096 /* more is no vocabulary but an attack */

int hft_bad(const char *start, const char *at, struct err *e, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_set(e, E_DATA, "%s (at byte %zu)", text, (size_t)(at - start));
}

int hft_find_members(const struct hft_value *o, struct hft_members *m, struct err *e)
{
    struct json_object scan = json_scan(o->v.p, o->v.n);
    struct json_value k, v;
    int rc;

    m->n = 0;
    if (o->v.type != JK_OBJECT)
        return hft_bad(o->start, o->v.p, e, "field '%s' is %s, must be an object", o->path,
                       json_type_name(o->v.type));
    while ((rc = json_next(&scan, &k, &v, e)) == 1) {
        if (m->n == HFT_MAX_MEMBERS)
            return hft_bad(o->start, k.p, e, "field '%s' has more than %d fields", o->path,
                           HFT_MAX_MEMBERS);
        m->key[m->n] = k;
        m->v[m->n++] = v;
    }
    return rc;
}

/* The next member, by a scan or as it was found before. */
static int next_member(const struct hft_value *o, struct json_object *scan, int i,
                       struct json_value *k, struct json_value *v, struct err *e)
{
    if (!o->members)
        return json_next(scan, k, v, e);
    if (i == o->members->n)
        return 0;
    *k = o->members->key[i];
    *v = o->members->v[i];
    return 1;
}

int hft_field(const struct hft_value *o, const char *key, struct hft_value *v, struct err *e)
{
    struct json_object scan = json_scan(o->v.p, o->v.n);
    struct json_value k, value;
    bool found = false;
    int rc, i = 0;

    *v = (struct hft_value){ .start = o->start, .path = key };
    if (o->v.type != JK_OBJECT)
        return hft_bad(o->start, o->v.p, e, "field '%s' is %s, must be an object", o->path,
                       json_type_name(o->v.type));
    while ((rc = next_member(o, &scan, i++, &k, &value, e)) == 1)
        if (json_is(&k, key)) {
            if (found)
                return hft_bad(o->start, k.p, e, "field '%s' is there twice", key);
            found = true;
            v->v = value;
        }
    return rc < 0 ? rc : found && v->v.type != JK_NULL;
}

int hft_bool(const struct hft_value *o, const char *key, bool missing, bool *v, struct err *e)
{
    struct hft_value f;
    int rc = hft_field(o, key, &f, e);

    *v = rc == 1 ? f.v.type == JK_TRUE : missing;
    if (rc == 1 && f.v.type != JK_TRUE && f.v.type != JK_FALSE)
        return hft_bad(f.start, f.v.p, e, "field '%s' is %s, must be true or false", key,
                       json_type_name(f.v.type));
    return rc < 0 ? rc : 0;
}

int hft_string(const struct hft_value *o, const char *key, char **text, size_t *n, struct err *e)
{
    struct buf b = { 0 };
    struct hft_value f;
    int rc = hft_field(o, key, &f, e);

    *text = NULL;
    *n = 0;
    if (rc <= 0)
        return rc;
    if (f.v.type != JK_STRING)
        return hft_bad(f.start, f.v.p, e, "field '%s' is %s, must be a string", key,
                       json_type_name(f.v.type));
    if ((rc = json_text(&f.v, false, &b, e)) == 0)
        rc = buf_add(&b, "", 1, e);
    if (rc < 0) {
        buf_free(&b);
        return err_within(e, "field '%s' (at byte %zu)", key, (size_t)(f.v.p - f.start));
    }
    *text = b.p;
    *n = b.len - 1;
    return 0;
}

int hft_map_make(struct hft_map *m, size_t texts, struct err *e)
{
    m->n = 64;
    while (m->n < 2 * texts + 2)
        m->n *= 2;
    m->used = 0;
    m->slot = calloc(m->n, sizeof *m->slot);
    return m->slot ? 0 : err_set(e, E_SYS, "out of memory for %zu tokens", texts);
}

/* Where the text is, or the free slot where it belongs. */
static struct hft_slot *slot_of(const struct hft_map *m, const char *p, size_t n, uint16_t *tag,
                                size_t *probes)
{
    uint64_t h = XXH3_64bits(p, n);
    size_t i = (size_t)h & (m->n - 1);

    *tag = (uint16_t)(h >> 48);
    for (*probes = 0; m->slot[i].p; i = (i + 1) & (m->n - 1), ++*probes)
        if (m->slot[i].tag == *tag && m->slot[i].n == n && memcmp(m->slot[i].p, p, n) == 0)
            break;
    return &m->slot[i];
}

int32_t hft_map_find(const struct hft_map *m, const char *p, size_t n)
{
    const struct hft_slot *s;
    uint16_t tag;
    size_t probes;

    if (!m->slot)
        return -1;
    s = slot_of(m, p, n, &tag, &probes);
    return s->p ? s->value : -1;
}

int hft_map_add(struct hft_map *m, const char *p, size_t n, int32_t value, struct err *e)
{
    uint16_t tag;
    size_t probes;
    struct hft_slot *s = slot_of(m, p, n, &tag, &probes);

    if (s->p)
        return E_NO;
    if (probes > MAX_PROBES || 2 * (m->used + 1) > m->n)
        return err_set(e, E_DATA, "the tokens collide: the file is malicious");
    *s = (struct hft_slot){ p, (uint16_t)n, tag, value };
    m->used++;
    return 0;
}
