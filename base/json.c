/* base/json.c - see json.h. */
#include "base/json.h"

#include "base/bytes.h"
#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far more than any configuration has. */
enum { MAX_DEPTH = 64 };

/* jansson recurses, so depth is bounded before it sees the text. Brackets inside strings are
 * passed over; what is not JSON at all is left for jansson to name. */
static int depth_of(const char *s, size_t n)
{
    int depth = 0, most = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            /* The character behind a backslash is passed over: a quote there
             * does not end the string. */
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = false;
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > most)
                most = depth;
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        }
    }
    return most;
}

/* Whether an integer of JSON that begins at s has more than 64 bits; n: its bytes. */
static bool too_big(const char *s, size_t n)
{
    size_t sign = *s == '-', digits = n - sign;

    return digits > 19 ||
           (digits == 19 && memcmp(s + sign, sign ? "9223372036854775808" : "9223372036854775807", 19) > 0);
}

/* Hugging Face's files have such integers: a model_max_length of 1000000000000000019884624838656. jansson refuses
 * them, so that they are given a fraction, which makes them reals. */
static int widen(const char *s, size_t nbytes, struct buf *out, struct err *e)
{
    bool in_string = false;
    size_t from = 0, n;
    int rc = 0;

    for (size_t i = 0; i < nbytes && rc == 0; i += n) {
        n = 1;
        if (in_string && s[i] == '\\') {
            n = 2;
        } else if (s[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && (s[i] == '-' || (s[i] >= '0' && s[i] <= '9'))) {
            bool whole = true;

            for (; i + n < nbytes && s[i + n] && strchr("0123456789.eE+-", s[i + n]); n++)
                whole = whole && s[i + n] >= '0' && s[i + n] <= '9';
            if (!whole || !too_big(s + i, n))
                continue;
            if ((rc = buf_add(out, s + from, i + n - from, e)) == 0)
                rc = buf_add(out, ".0", 2, e);
            from = i + n;
        }
    }
    return rc < 0 || from == 0 ? rc : buf_add(out, s + from, nbytes - from, e);
}

/* file only names the text in messages, and must live as long as o. */
int js_parse(struct js *o, const char *text, size_t nbytes, const char *file, struct err *e)
{
    struct buf wide = { 0 };
    json_error_t bad;
    int rc;

    *o = (struct js){ .file = file };
    if (depth_of(text, nbytes) > MAX_DEPTH)
        return err_set(e, E_DATA, "'%s' is nested more than %d deep", file, MAX_DEPTH);
    /* A key that is there twice could mean either value, so such a text is refused. */
    if ((rc = widen(text, nbytes, &wide, e)) == 0 &&
        !(o->obj = json_loadb(wide.p ? wide.p : text, wide.p ? wide.len : nbytes, JSON_REJECT_DUPLICATES, &bad)))
        rc = err_set(e, E_DATA, "'%s': not valid JSON: %s at line %d, column %d", file,
                       bad.text, bad.line, bad.column);
    buf_free(&wide);
    if (rc < 0 || json_is_object(o->obj))
        return rc;
    js_free(o);
    return err_set(e, E_DATA, "'%s' is not a JSON object", file);
}

int js_load(struct js *o, const char *path, size_t max_bytes, struct err *e)
{
    char *text;
    size_t n;
    int rc;

    *o = (struct js){ .file = path };
    if ((rc = file_read(path, max_bytes, &text, &n, e)) < 0)
        return rc;
    rc = js_parse(o, text, n, path, e);
    free(text);
    return rc;
}

void js_free(struct js *o)
{
    json_decref(o->obj);
    o->obj = NULL;
}

/* What a value is, in words for messages. */
static const char *kind(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

/* 1 and *v when the field is there; 0 when it may be and is absent; or E_DATA. */
static int field(const struct js *o, const char *key, enum js_need need, json_t **v,
                 struct err *e)
{
    *v = json_object_get(o->obj, key);
    if (*v && !json_is_null(*v))
        return 1;
    /* JS_MAY treats null as absent: Hugging Face's files have null where a default holds. */
    if (need == JS_MAY)
        return 0;
    return err_set(e, E_DATA, "'%s': field '%s%s' is %s", o->file, o->path, key,
                   *v ? "null" : "missing");
}

static int mistyped(const struct js *o, const char *key, const char *want, const json_t *v,
                    struct err *e)
{
    return err_set(e, E_DATA, "'%s': field '%s%s' is %s, must be %s", o->file, o->path, key,
                   kind(v), want);
}

/* This and the next three leave *v alone where the field is absent, so a
 * default set before stays. */
int js_i64(const struct js *o, const char *key, enum js_need need, int64_t lo, int64_t hi,
           int64_t *v, struct err *e)
{
    json_t *j;
    int rc = field(o, key, need, &j, e);

    if (rc <= 0)
        return rc;
    if (json_is_real(j) && fabs(json_real_value(j)) >= 0x1p63)
        return err_set(e, E_DATA, "'%s': field '%s%s' is %g, too big", o->file, o->path, key, json_real_value(j));
    if (!json_is_integer(j))
        return mistyped(o, key, "an integer", j, e);
    if (json_integer_value(j) < lo || json_integer_value(j) > hi)
        return err_set(e, E_DATA, "'%s': field '%s%s' is %lld, must be %lld to %lld", o->file,
                       o->path, key, (long long)json_integer_value(j), (long long)lo,
                       (long long)hi);
    *v = json_integer_value(j);
    return 0;
}

int js_f64(const struct js *o, const char *key, enum js_need need, double lo, double hi,
           double *v, struct err *e)
{
    json_t *j;
    int rc = field(o, key, need, &j, e);

    if (rc <= 0)
        return rc;
    if (!json_is_number(j))
        return mistyped(o, key, "a number", j, e);
    /* Written so that NaN fails too. */
    if (!(json_number_value(j) >= lo && json_number_value(j) <= hi))
        return err_set(e, E_DATA, "'%s': field '%s%s' is %g, must be %g to %g", o->file,
                       o->path, key, json_number_value(j), lo, hi);
    *v = json_number_value(j);
    return 0;
}

int js_bool(const struct js *o, const char *key, enum js_need need, bool *v, struct err *e)
{
    json_t *j;
    int rc = field(o, key, need, &j, e);

    if (rc <= 0)
        return rc;
    if (!json_is_boolean(j))
        return mistyped(o, key, "true or false", j, e);
    *v = json_is_true(j);
    return 0;
}

int js_str(const struct js *o, const char *key, enum js_need need, const char **v,
           struct err *e)
{
    json_t *j;
    int rc = field(o, key, need, &j, e);

    if (rc <= 0)
        return rc;
    if (!json_is_string(j))
        return mistyped(o, key, "a string", j, e);
    *v = json_string_value(j);
    return 0;
}

/* sub borrows from o: it is not freed, and gone with it. An absent field leaves
 * it without an object. */
int js_object(const struct js *o, const char *key, enum js_need need, struct js *sub,
              struct err *e)
{
    json_t *j;
    int rc = field(o, key, need, &j, e);

    *sub = (struct js){ .file = o->file };
    if (rc <= 0)
        return rc;
    if (!json_is_object(j))
        return mistyped(o, key, "an object", j, e);
    sub->obj = j;
    /* The path of the outer object goes before each key in messages: "rope_scaling.factor".
     * Long ones are cut. */
    snprintf(sub->path, sizeof sub->path, "%.60s%.60s.", o->path, key);
    return 0;
}

int js_array(const struct js *o, const char *key, enum js_need need, json_t **array,
             struct err *e)
{
    json_t *j;
    int rc = field(o, key, need, &j, e);

    *array = NULL;
    if (rc <= 0)
        return rc;
    if (!json_is_array(j))
        return mistyped(o, key, "an array", j, e);
    *array = j;
    return 0;
}

/* As js_object, for item i of an array; the place is part of the path: "shards[3].". */
int js_item(const struct js *o, const char *key, json_t *array, size_t i, struct js *sub,
            struct err *e)
{
    json_t *j = json_array_get(array, i);

    *sub = (struct js){ .file = o->file };
    if (!json_is_object(j))
        return err_set(e, E_DATA, "'%s': field '%s%s[%zu]' is %s, must be an object", o->file,
                       o->path, key, i, j ? kind(j) : "missing");
    sub->obj = j;
    snprintf(sub->path, sizeof sub->path, "%.40s%.40s[%zu].", o->path, key, i);
    return 0;
}

bool js_has(const struct js *o, const char *key)
{
    const json_t *j = json_object_get(o->obj, key);

    return j && !json_is_null(j);
}

/* The text with as few digits as give back the same values. */
char *js_text(const json_t *root)
{
    char *text = NULL, *line;
    json_t *back;
    bool same;

    /* 15 digits print 0.1 as 0.1; where they do not read back as the same
     * number, 16 or 17 do. */
    for (int digits = 15; digits <= 17; digits++) {
        free(text);
        text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        back = text ? json_loads(text, 0, NULL) : NULL;
        same = back && json_equal(root, back);
        json_decref(back);
        if (same)
            break;
    }
    /* The line end that text files have and jansson does not write. */
    if (!text || asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    return line;
}

int js_save(const json_t *root, const char *path, struct err *e)
{
    char *text = root ? js_text(root) : NULL;
    int rc = text ? file_replace(path, text, strlen(text), e)
                  : err_set(e, E_SYS, "out of memory for '%s'", path);

    free(text);
    return rc;
}
