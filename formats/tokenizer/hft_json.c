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
    if (!(m->slot = malloc(m->n * sizeof *m->slot)))
        return err_set(e, E_SYS, "out of memory for %zu tokens", texts);
    memset(m->slot, 0xFF, m->n * sizeof *m->slot);
    return 0;
}

/* Up to HFT_SHORT bytes as a number, zeros behind them. */
static uint64_t as_word(const char *p, size_t n)
{
    uint32_t lo = 0, hi = 0;

    if (n >= 4) { /* two that may overlap */
        memcpy(&lo, p, 4);
        memcpy(&hi, p + n - 4, 4);
        return lo | (uint64_t)hi << 8 * (n - 4);
    }
    for (size_t i = 0; i < n; i++)
        lo |= (uint32_t)(unsigned char)p[i] << 8 * i;
    return lo;
}

/* Where the text is, or the free slot where it belongs, which then is as it is to be. */
static struct hft_slot *slot_of(const struct hft_map *m, const char *p, size_t n,
                                struct hft_slot *want, size_t *probes)
{
    uint64_t h;
    size_t i;

    want->n = (uint16_t)n;
    want->p = p;
    if (n <= HFT_SHORT) {
        unsigned __int128 r;

        want->word = as_word(p, n);
        r = (unsigned __int128)(want->word ^ 0x9E3779B97F4A7C15u) * (0xD6E8FEB86659FD93u + 2 * n);
        h = (uint64_t)r ^ (uint64_t)(r >> 64);
    } else {
        h = XXH3_64bits(p, n);
    }
    i = (size_t)h & (m->n - 1);
    want->tag = (uint16_t)(h >> 48);
    for (*probes = 0; m->slot[i].value >= 0; i = (i + 1) & (m->n - 1), ++*probes) {
        const struct hft_slot *s = &m->slot[i];

        if (s->tag == want->tag && s->n == n &&
            (n <= HFT_SHORT ? s->word == want->word : memcmp(s->p, p, n) == 0))
            break;
    }
    return &m->slot[i];
}

int32_t hft_map_find(const struct hft_map *m, const char *p, size_t n)
{
    struct hft_slot want;
    size_t probes;

    /* A free slot has the value -1. */
    return m->slot && n <= HFT_MAX_TEXT ? slot_of(m, p, n, &want, &probes)->value : -1;
}

int hft_map_add(struct hft_map *m, const char *p, size_t n, int32_t value, struct err *e)
{
    struct hft_slot want, *s;
    size_t probes;

    s = slot_of(m, p, n, &want, &probes);
    if (s->value >= 0)
        return E_NO;
    if (probes > MAX_PROBES || 2 * (m->used + 1) > m->n)
        return err_set(e, E_DATA, "the tokens collide: the file is malicious");
    *s = want;
    s->value = value;
    m->used++;
    return 0;
}
