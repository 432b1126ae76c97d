/* eval/result_json.c - results as JSON, written and read back; see result.h. */
#include "eval/json_fields.h"
#include "eval/result.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A result has some KiB: a file larger than this is something else. */
#define FILE_MAX_BYTES ((size_t)4 << 20)

/* A number, or null where JSON has none for it. */
static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }
/* The same for figures where 0 stands for "unknown". */
static json_t *known(double v) { return v > 0 ? number(v) : json_null(); }

/* Losses by position; positions without predictions are left out. */
static json_t *bucket_json(const struct score *s)
{
    json_t *all = json_array();

    for (int b = 0; b < SCORE_BUCKETS; b++)
        if (s->bucket[b].n)
            json_array_append_new(all, json_pack("{s:I, s:I, s:o}",
                "tokens_before", (json_int_t)1 << b, "tokens", (json_int_t)s->bucket[b].n,
                "loss", number(s->bucket[b].nll / (double)s->bucket[b].n)));
    return all;
}

/* The sums of each document, exact to 17 digits, so that sets of them can be added. */
static json_t *docs_json(const struct score_docs *d)
{
    json_t *all = json_array();

    for (int64_t i = 0; i < d->n; i++)
        json_array_append_new(all, json_pack("{s:I, s:I, s:f, s:I, s:f}",
            "document", (json_int_t)d->v[i].doc, "tokens", (json_int_t)d->v[i].all.n, "nll",
            d->v[i].all.nll, "far_tokens", (json_int_t)d->v[i].far.n, "far_nll",
            d->v[i].far.nll));
    return all;
}

/* One row of "results": the scores at one context. */
static json_t *score_json(const struct score *s)
{
    json_t *o = json_object();
    char hex[64];

    /* "%a" is the exact double in hexadecimal, for comparing results bit by bit. */
    snprintf(hex, sizeof hex, "%a", s->loss);
    json_object_set_new(o, "ctx", json_integer(s->ctx));
    json_object_set_new(o, "ppl", number(score_ppl(s)));
    json_object_set_new(o, "loss", number(s->loss));
    json_object_set_new(o, "loss_hex", json_string(hex));
    json_object_set_new(o, "step", json_integer(s->step));
    json_object_set_new(o, "tokens", json_integer(s->tokens));
    json_object_set_new(o, "masked", json_integer(s->masked));
    json_object_set_new(o, "tokens_read", json_integer(s->read));
    json_object_set_new(o, "windows", json_integer(s->windows));
    json_object_set_new(o, "windows_all", json_integer(s->windows_all));
    json_object_set_new(o, "documents", json_integer(s->docs));
    json_object_set_new(o, "word_ppl", known(score_word_ppl(s)));
    json_object_set_new(o, "byte_ppl", known(score_byte_ppl(s)));
    json_object_set_new(o, "bits_per_byte", known(score_bits_per_byte(s)));
    json_object_set_new(o, "words", known(s->words));
    json_object_set_new(o, "bytes", known(s->bytes));
    json_object_set_new(o, "text_exact", json_boolean(s->text_exact));
    json_object_set_new(o, "seconds", number(s->seconds));
    json_object_set_new(o, "tokens_per_s",
                        number(s->seconds > 0 ? (double)s->read / s->seconds : 0));
    if (s->all_tokens) {
        json_object_set_new(o, "all_tokens", json_integer(s->all_tokens));
        json_object_set_new(o, "all_ppl", number(exp(s->all_nll / (double)s->all_tokens)));
    }
    json_object_set_new(o, "by_position", bucket_json(s));
    if (s->by_doc)
        json_object_set_new(o, "by_document", docs_json(s->by_doc));
    return o;
}

int result_json(struct buf *out, const struct result *r, struct err *e)
{
    json_t *o = measured_json(&r->of, NULL), *d = json_object(), *rows = json_array();

    json_object_set_new(d, "path", field_text(r->data));
    json_object_set_new(d, "form", field_text(r->form));
    json_object_set_new(d, "split", r->split[0] ? field_text(r->split) : json_null());
    json_object_set_new(d, "tokens", json_integer(r->data_tokens));
    json_object_set_new(d, "documents", json_integer(r->data_docs));
    json_object_set_new(d, "hash", field_hash(r->data_hash));
    json_object_set_new(o, "data", d);
    json_object_set_new(o, "protocol", field_text(r->protocol));
    json_object_set_new(o, "joined", json_boolean(r->joined));
    json_object_set_new(o, "masks", r->masks[0] ? field_text(r->masks) : json_null());
    json_object_set_new(o, "mean_of", json_integer(r->mean_of));
    if (r->keys[0])
        json_object_set_new(o, "key_tokens", field_text(r->keys));
    for (int64_t i = 0; i < r->n; i++)
        json_array_append_new(rows, score_json(&r->row[i]));
    json_object_set_new(o, "results", rows);
    return field_print(out, o, e);
}

/* The table of several results: only what the table shows. */
int results_json(struct buf *out, const struct result *r, int64_t n, struct err *e)
{
    json_t *o = json_object(), *rows = json_array();

    for (int64_t k = 0; k < n; k++) {
        json_t *cells = json_array();

        for (int64_t i = 0; i < r[k].n; i++)
            json_array_append_new(cells, json_pack("{s:I, s:o, s:o}",
                "ctx", (json_int_t)r[k].row[i].ctx, "ppl", number(score_ppl(&r[k].row[i])),
                "loss", number(r[k].row[i].loss)));
        json_array_append_new(rows, json_pack("{s:o, s:o}", "label", field_text(r[k].of.label),
                                              "results", cells));
    }
    json_object_set_new(o, "protocol", n ? field_text(r[0].protocol) : json_null());
    json_object_set_new(o, "rows", rows);
    return field_print(out, o, e);
}

/* Only what tables and comparisons need is read back. Limits keep a damaged file from
 * causing overflow later: 2^52 is exact in a double. */
static int get_row(const struct js *o, struct score *s, struct err *e)
{
    int64_t big = (int64_t)1 << 52;
    int rc = js_i64(o, "ctx", JS_MUST, 2, (int64_t)1 << 40, &s->ctx, e);

    s->loss = NAN; /* of no tokens, as LongPPL may find */
    if (rc == 0)
        rc = js_i64(o, "tokens", JS_MAY, 0, big, &s->tokens, e);
    if (rc == 0)
        rc = js_f64(o, "loss", js_has(o, "tokens") && s->tokens == 0 ? JS_MAY : JS_MUST, -1e6, 1e6, &s->loss, e);
    if (rc == 0)
        rc = js_i64(o, "windows", JS_MAY, 0, big, &s->windows, e);
    return rc < 0 ? rc : js_i64(o, "step", JS_MAY, 0, big, &s->step, e);
}

/* Data that is missing, as in a result that was edited, leaves its fields 0. */
static int get_data(struct result *r, const struct js *o, struct err *e)
{
    struct js d;
    char hash[24] = "";
    int rc = js_object(o, "data", JS_MAY, &d, e);

    if (rc < 0 || !d.obj)
        return rc;
    if ((rc = field_get_text(&d, "path", r->data, sizeof r->data, e)) == 0 &&
        (rc = field_get_text(&d, "hash", hash, sizeof hash, e)) == 0)
        rc = js_i64(&d, "tokens", JS_MAY, 0, INT64_MAX, &r->data_tokens, e);
    r->data_hash = strtoull(hash, NULL, 16);
    return rc;
}

/* Files of other programs are told by the keys that every result has. */
static int read_fields(struct result *r, const struct js *o, struct err *e)
{
    json_t *rows;
    int rc;

    if (!js_has(o, "leval") || !js_has(o, "results")) {
        err_set(e, E_DATA, "'%s' is not a result of leval", o->file);
        return err_hint(e, "make one: leval --ppl FILE --model DIR --json > %s", o->file);
    }
    if ((rc = measured_read(&r->of, o, e)) < 0 ||
        (rc = field_get_text(o, "protocol", r->protocol, sizeof r->protocol, e)) < 0 ||
        (rc = js_bool(o, "joined", JS_MAY, &r->joined, e)) < 0 ||
        (rc = field_get_text(o, "masks", r->masks, sizeof r->masks, e)) < 0 ||
        (rc = field_get_text(o, "key_tokens", r->keys, sizeof r->keys, e)) < 0 ||
        (rc = js_i64(o, "mean_of", JS_MAY, 0, (int64_t)1 << 31, &r->mean_of, e)) < 0 ||
        (rc = get_data(r, o, e)) < 0 || (rc = js_array(o, "results", JS_MUST, &rows, e)) < 0)
        return rc;
    /* r->row has RESULT_ROWS places. */
    if (json_array_size(rows) < 1 || json_array_size(rows) > RESULT_ROWS)
        return err_set(e, E_DATA, "'%s': %zu results, must be 1 to %d", o->file,
                       json_array_size(rows), RESULT_ROWS);
    for (size_t i = 0; i < json_array_size(rows) && rc == 0; i++) {
        struct js row;

        if ((rc = js_item(o, "results", rows, i, &row, e)) == 0)
            rc = get_row(&row, &r->row[r->n++], e);
    }
    return rc;
}

/* Reads one result from memory; name is for messages. */
int result_parse(struct result *r, const char *json, size_t nbytes, const char *name,
                 struct err *e)
{
    struct js o;
    int rc;

    memset(r, 0, sizeof *r);
    if ((rc = js_parse(&o, json, nbytes, name, e)) < 0)
        return rc;
    rc = read_fields(r, &o, e);
    js_free(&o);
    return rc;
}

int result_read(struct result *r, const char *path, struct err *e)
{
    struct js o;
    int rc;

    memset(r, 0, sizeof *r);
    if ((rc = js_load(&o, path, FILE_MAX_BYTES, e)) < 0)
        return rc == E_DATA ? err_hint(e, "make results with: leval --ppl ... --json")
                            : rc;
    rc = read_fields(r, &o, e);
    js_free(&o);
    return rc;
}
