/* formats/tokens/tokenlines.c - see tokenlines.h; the keys stand in tokenlines.md.
 *
 * A line of a document may have millions of ids, so it is written and read by hand: a tree of
 * JSON values would take many times its memory. The head is small and goes through jansson. */
#include "formats/tokens/tokenlines.h"
#include "formats/tokens/document.h"
#include "formats/tokens/info_json.h"
#include "base/jsonscan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FORMAT "longlora-tokens"

/* The first line of a file, as compact JSON. */
int tokenline_head(struct buf *out, const struct token_info *info, struct err *e)
{
    json_t *o = json_pack("{sssiso}", "format", FORMAT, "version", 1, "tokenizer",
                          info_to_json(info));
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    int rc = text ? buf_printf(out, e, "%s\n", text) : err_set(e, E_SYS, "out of memory");

    free(text);
    json_decref(o);
    return rc;
}

static int put(struct buf *out, const char *text, struct err *e)
{
    return buf_add(out, text, strlen(text), e);
}

/* A key as it is written, then a string in quotes with what JSON must escape. */
static int put_string(struct buf *out, const char *key, const char *p, size_t n, struct err *e)
{
    int rc = put(out, key, e);

    return rc == 0 ? json_quote(out, p, n, e) : rc;
}

/* Opens the line and leaves the array of tokens open, so that ids can come in pieces. */
int tokenline_begin(struct buf *out, const struct token_doc *d, struct err *e)
{
    int rc = put_string(out, "{\"meta\":{\"source\":", d->source, strlen(d->source), e);

    if (rc == 0)
        rc = put_string(out, ",\"name\":", d->name, strlen(d->name), e);
    return rc < 0 ? rc
                  : buf_printf(out, e, "},\"text_bytes\":%" PRId64 ",\"text_words\":%" PRId64
                               ",\"text_hash\":\"%016" PRIx64 "\",\"tokens\":[",
                               d->text_bytes, d->text_words, d->text_hash);
}

int tokenline_ids(struct buf *out, const int32_t *ids, int64_t n, bool first, struct err *e)
{
    char digits[16], *p;
    /* An id has at most 10 digits and a comma. */
    int rc = buf_reserve(out, (size_t)n * 12, e);

    for (int64_t i = 0; i < n && rc == 0; i++) {
        uint32_t v = (uint32_t)ids[i];
        /* Digits are made from the last to the first, so they fill the buffer from its end. */
        p = digits + sizeof digits;
        do
            *--p = (char)('0' + v % 10);
        /* At least one digit, so that 0 is written as "0". */
        while (v /= 10);
        if (i > 0 || !first)
            *--p = ',';
        rc = buf_add(out, p, (size_t)(digits + sizeof digits - p), e);
    }
    return rc;
}

/* Closes the array of tokens and the line. The mask and the text are left out where there are
 * none. */
int tokenline_finish(struct buf *out, const struct mask_run *runs, int64_t n_runs,
                     const char *text, size_t text_bytes, struct err *e)
{
    int rc = put(out, "]", e);

    for (int64_t i = 0; i < n_runs && rc == 0; i++)
        rc = buf_printf(out, e, "%s[%" PRId64 ",%" PRId64 "]", i ? "," : ",\"mask\":[",
                        runs[i].start, runs[i].count);
    if (rc == 0 && n_runs > 0)
        rc = put(out, "]", e);
    if (rc == 0 && text)
        rc = utf8_valid(text, text_bytes, NULL)
                 ? put_string(out, ",\"text\":", text, text_bytes, e)
                 : err_set(e, E_DATA, "a document decodes to what is not UTF-8");
    return rc == 0 ? put(out, "}\n", e) : rc;
}

int tokenline_end(struct buf *out, int64_t docs, int64_t tokens, struct err *e)
{
    return buf_printf(out, e, "{\"end\":{\"documents\":%" PRId64 ",\"tokens\":%" PRId64 "}}\n",
                      docs, tokens);
}

/* Arrays are slices whose grammar json_next has checked: what is left is what they hold. */
struct cursor {
    const char *p, *end;
};

static void skip_space(struct cursor *c)
{
    while (c->p < c->end && memchr(" \t\r\n", *c->p, 4))
        c->p++;
}

static bool take(struct cursor *c, char what)
{
    skip_space(c);
    if (c->p == c->end || *c->p != what)
        return false;
    c->p++;
    return true;
}

/* A whole number of at most 18 digits, so below 2^60. */
static bool take_number(struct cursor *c, int64_t *v)
{
    const char *from;

    skip_space(c);
    from = c->p;
    for (*v = 0; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        /* A 19th digit is refused before it could overflow. */
        if (c->p - from == 18)
            return false;
        *v = 10 * *v + (*c->p - '0');
    }
    return c->p > from;
}

/* The array of ids. What does not fit into 32 bits is refused here; the vocabulary is checked
 * by the caller. */
static int read_ids(struct tokenline_read *r, const struct json_value *v, struct err *e)
{
    struct cursor c = { v->p, v->p + v->n };
    uint32_t *ids;
    int64_t n = 0, id;
    int rc;

    r->ids.len = 0;
    if ((rc = buf_reserve(&r->ids, (v->n / 2 + 1) * sizeof *ids, e)) < 0) /* "1,": one id */
        return rc;
    ids = (uint32_t *)r->ids.p;
    if (v->type != JK_ARRAY || !take(&c, '['))
        return err_set(e, E_DATA, "'tokens' is %s, not an array", json_type_name(v->type));
    /* An id, then "," and on, or "]" and out. "[]" is a document without ids. */
    for (bool more = !take(&c, ']'); more; n++) {
        bool ok = take_number(&c, &id) && id <= UINT32_MAX;
        /* A comma goes on to the next id; without one only ']' may follow. */
        more = ok && take(&c, ',');
        if (!ok || (!more && !take(&c, ']')))
            return err_set(e, E_DATA,
                           "token %lld of the document is not a whole number below 2^32",
                           (long long)n);
        ids[n] = (uint32_t)id;
    }
    r->doc.ids = ids;
    r->doc.n_ids = n;
    return 0;
}

/* An array of pairs, [[start,count],...]. Whether the runs ascend is checked by the caller. */
static int read_mask(struct tokenline_read *r, const struct json_value *v, struct err *e)
{
    struct cursor c = { v->p, v->p + v->n };
    struct mask_run run;
    int64_t n = 0;
    int rc = 0;

    r->runs.len = 0;
    if (v->type != JK_ARRAY || !take(&c, '['))
        return err_set(e, E_DATA, "'mask' is %s, not an array", json_type_name(v->type));
    for (; rc == 0 && !take(&c, ']'); n++) {
        if ((n > 0 && !take(&c, ',')) || !take(&c, '[') || !take_number(&c, &run.start) ||
            !take(&c, ',') || !take_number(&c, &run.count) || !take(&c, ']'))
            return err_set(e, E_DATA, "run %lld of 'mask' is not [start,count]", (long long)n);
        rc = buf_add(&r->runs, &run, sizeof run, e);
    }
    r->doc.runs = (struct mask_run *)r->runs.p;
    r->doc.n_runs = n;
    return rc;
}

/* The whole value must be digits: no sign, no fraction, no exponent. */
static int read_count(const char *key, const struct json_value *v, int64_t *n, struct err *e)
{
    struct cursor c = { v->p, v->p + v->n };

    return v->type == JK_NUMBER && take_number(&c, n) && c.p == c.end
               ? 0
               : err_set(e, E_DATA, "'%s' is not a whole number", key);
}

/* 16 lower-case hex digits. hex stays empty where the value is no such string. */
static int read_hash(const struct json_value *v, uint64_t *hash, struct err *e)
{
    char hex[17] = "";

    if (v->type == JK_STRING && v->n == 16 && !v->escaped)
        memcpy(hex, v->p, 16);
    if (strspn(hex, "0123456789abcdef") != 16)
        return err_set(e, E_DATA, "'text_hash' is not 16 hex digits");
    *hash = strtoull(hex, NULL, 16);
    return 0;
}

/* A label, with a NUL after it. */
static int read_label(const char *key, const struct json_value *v, size_t max, struct buf *out,
                      struct err *e)
{
    int rc;

    if (v->type != JK_STRING)
        return err_set(e, E_DATA, "'meta.%s' is %s, not a string", key,
                       json_type_name(v->type));
    out->len = 0;
    if ((rc = json_text(v, false, out, e)) < 0)
        return err_within(e, "'meta.%s'", key);
    if (!label_ok(out->p ? out->p : "", out->len, max))
        return err_set(e, E_DATA, "'meta.%s' has %zu bytes or a NUL in it, must be at most %zu",
                       key, out->len, max);
    return buf_add(out, "", 1, e);
}

static int read_meta(struct tokenline_read *r, const struct json_value *v, struct err *e)
{
    struct json_object o;
    struct json_value key, x;
    int rc;

    if (v->type != JK_OBJECT)
        return 0; /* another program's: an object is what lprep and we write */
    o = json_scan(v->p, v->n);
    while ((rc = json_next(&o, &key, &x, e)) == 1) {
        if (json_is(&key, "source"))
            rc = read_label("source", &x, DOC_SOURCE_MAX, &r->source, e);
        else if (json_is(&key, "name"))
            rc = read_label("name", &x, DOC_NAME_MAX, &r->name, e);
        else
            rc = 0;
        if (rc < 0)
            return rc;
    }
    return rc;
}

/* The last line's counts. -1 stands for a count that has not come. */
static int read_end(struct tokenline_read *r, const struct json_value *v, struct err *e)
{
    struct json_object o;
    struct json_value key, x;
    int rc;

    r->docs = r->tokens = -1;
    if (v->type != JK_OBJECT)
        return err_set(e, E_DATA, "'end' is %s, not an object", json_type_name(v->type));
    o = json_scan(v->p, v->n);
    while ((rc = json_next(&o, &key, &x, e)) == 1) {
        rc = json_is(&key, "documents") ? read_count("end.documents", &x, &r->docs, e)
             : json_is(&key, "tokens")  ? read_count("end.tokens", &x, &r->tokens, e)
                                        : 0;
        if (rc < 0)
            return rc;
    }
    if (rc == 0 && (r->docs < 0 || r->tokens < 0))
        return err_set(e, E_DATA, "'end' lacks 'documents' or 'tokens'");
    return rc;
}

/* The head is small, so a JSON library parses it as a whole, unlike the lines of documents. */
static int read_head(struct tokenline_read *r, const char *line, size_t n, const char *name,
                     struct err *e)
{
    struct js o;
    const char *format;
    int64_t version;
    int rc;

    /* The limit keeps a line of another kind from being parsed into a large tree. */
    if (n > 65536)
        return err_set(e, E_DATA, "'%s': a head of %zu bytes", name, n);
    if ((rc = js_parse(&o, line, n, name, e)) < 0)
        return rc;
    if ((rc = js_str(&o, "format", JS_MUST, &format, e)) == 0 &&
        (rc = js_i64(&o, "version", JS_MUST, 0, INT64_MAX, &version, e)) == 0 &&
        (strcmp(format, FORMAT) != 0 || version != 1))
        rc = err_set(e, E_DATA, "'%s': format '%.64s', version %" PRId64 ", this reads '" FORMAT
                     "', version 1", name, format, version);
    if (rc == 0)
        rc = info_from_json(&r->info, &o, e);
    js_free(&o);
    return rc;
}

/* One member of a line; *kind is what it makes of it. */
static int read_member(struct tokenline_read *r, const struct json_value *key,
                       const struct json_value *v, enum tokenline *kind, bool *hashed,
                       struct err *e)
{
    if (json_is(key, "tokens")) {
        *kind = TOKENLINE_DOC;
        return read_ids(r, v, e);
    }
    if (json_is(key, "end")) {
        *kind = TOKENLINE_END;
        return read_end(r, v, e);
    }
    if (json_is(key, "format"))
        *kind = TOKENLINE_HEAD;
    if (json_is(key, "mask"))
        return read_mask(r, v, e);
    if (json_is(key, "meta"))
        return read_meta(r, v, e);
    if (json_is(key, "text_bytes"))
        return read_count("text_bytes", v, &r->doc.text_bytes, e);
    if (json_is(key, "text_words"))
        return read_count("text_words", v, &r->doc.text_words, e);
    if (!json_is(key, "text_hash"))
        return 0;
    *hashed = true;
    return read_hash(v, &r->doc.text_hash, e);
}

/* One line: kind says whether it is a document, the head or the end. */
int tokenline_read(struct tokenline_read *r, const char *line, size_t n, const char *name,
                   struct err *e)
{
    struct json_object o = json_scan(line, n);
    struct json_value key, v;
    enum tokenline kind = 0;
    bool hashed = false;
    int rc;

    r->doc = (struct token_doc){ .source = "", .name = "" };
    r->source.len = r->name.len = 0;
    while ((rc = json_next(&o, &key, &v, e)) == 1)
        if ((rc = read_member(r, &key, &v, &kind, &hashed, e)) < 0)
            break;
    if (rc < 0)
        return err_within(e, "'%s'", name);
    if (!kind)
        return err_set(e, E_DATA, "'%s': no key 'tokens'", name);
    if (kind == TOKENLINE_HEAD)
        return (rc = read_head(r, line, n, name, e)) < 0 ? rc : TOKENLINE_HEAD;
    /* The strings end with a NUL, so their length is at least 1 if the line had them. */
    if (r->source.len)
        r->doc.source = r->source.p;
    if (r->name.len)
        r->doc.name = r->name.p;
    if (!hashed &&
        kind == TOKENLINE_DOC) /* so that splits by fraction have something to go by */
        r->doc.text_hash = XXH3_64bits(r->doc.ids, (size_t)r->doc.n_ids * sizeof *r->doc.ids);
    return kind;
}

void tokenline_free(struct tokenline_read *r)
{
    buf_free(&r->ids);
    buf_free(&r->runs);
    buf_free(&r->source);
    buf_free(&r->name);
}
