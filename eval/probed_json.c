/* eval/probed_json.c - scores of probes as JSON, written and read back; see formats/probes.md. */
#include "base/file.h"
#include "eval/json_fields.h"
#include "eval/probed.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES ((size_t)64 << 20)
enum { LENGTHS = 64, TASKS = 64 };

static void put_interval(json_t *o, const struct interval *i)
{
    json_object_set_new(o, "score", json_real(i->mean));
    json_object_set_new(o, "low", json_real(i->low));
    json_object_set_new(o, "high", json_real(i->high));
}

static int cell_json(json_t **out, const struct probed_cell *c, struct err *e)
{
    struct stratum all = { c->score, c->n };
    json_t *o = json_object(), *scores = json_array();
    struct interval i;
    int rc = bootstrap(&i, &all, 1, e);

    for (int64_t k = 0; k < c->n; k++)
        json_array_append_new(scores, json_real(c->score[k]));
    json_object_set_new(o, "task", field_text(c->task));
    json_object_set_new(o, "length", json_integer(c->length));
    json_object_set_new(o, "depth", c->depth < 0 ? json_null() : json_real(c->depth));
    json_object_set_new(o, "past_context", json_boolean(c->past));
    json_object_set_new(o, "prompts", json_integer(c->n));
    json_object_set_new(o, "prompts_hash", field_hash(c->prompts));
    json_object_set_new(o, "tokens", json_real(c->n ? c->tokens / (double)c->n : 0));
    put_interval(o, &i);
    json_object_set_new(o, "scores", scores);
    *out = o;
    return rc;
}

/* Of every task, all depths, and of all tasks: of c less r where there is a c. */
static int summary_json(json_t *to, const struct probed *r, const struct probed *c, struct err *e)
{
    const char *task[TASKS + 1];
    int64_t length[LENGTHS], n = probed_columns(r, length, LENGTHS), tasks = probed_tasks(r, task, TASKS);
    int rc = 0;

    task[tasks] = NULL;
    for (int64_t i = 0; i <= tasks && rc == 0; i++)
        for (int64_t k = 0; k < n && rc == 0; k++) {
            struct interval s;
            bool any;
            json_t *o;

            rc = probed_score(r, c, task[i], length[k], &s, &any, e);
            if (rc < 0 || !any)
                continue;
            o = json_object();
            json_object_set_new(o, "task", task[i] ? field_text(task[i]) : json_null());
            json_object_set_new(o, "length", length[k] ? json_integer(length[k]) : json_null());
            put_interval(o, &s);
            json_array_append_new(to, o);
        }
    return rc;
}

static json_t *how_json(void)
{
    return json_pack("{s:i, s:i, s:f}", "resamples", (int)BOOTSTRAP_RESAMPLES, "seed", (int)BOOTSTRAP_SEED,
                     "confidence", BOOTSTRAP_CONFIDENCE);
}

int probed_json(struct buf *out, const struct probed *r, struct err *e)
{
    json_t *o = measured_json(&r->of, "probes"), *rows = json_array(), *all = json_array(), *h, *cell;
    int rc = 0;

    json_object_set_new(o, "tokenizer", field_text(r->tokenizer));
    json_object_set_new(o, "seed", r->seed < 0 ? json_null() : json_integer(r->seed));
    if (r->haystack[0]) {
        h = json_object();
        json_object_set_new(h, "path", field_text(r->haystack));
        json_object_set_new(h, "bytes", json_integer(r->haystack_bytes));
        json_object_set_new(h, "hash", field_hash(r->haystack_hash));
    } else {
        h = json_null();
    }
    json_object_set_new(o, "haystack", h);
    json_object_set_new(o, "bootstrap", how_json());
    for (int64_t i = 0; i < r->n && rc == 0; i++) {
        rc = cell_json(&cell, &r->cell[i], e);
        json_array_append_new(rows, cell);
    }
    if (rc == 0)
        rc = summary_json(all, r, NULL, e);
    json_object_set_new(o, "results", rows);
    json_object_set_new(o, "summary", all);
    if (rc == 0)
        return field_print(out, o, e);
    json_decref(o);
    return rc;
}

int probed_compare_json(struct buf *out, const struct probed *r, int64_t n, struct err *e)
{
    json_t *o = json_object(), *rows = json_array();
    int rc = 0;

    for (int64_t k = 0; k < n && rc == 0; k++) {
        json_t *row = json_object(), *scores = json_array(), *above = json_array();

        json_object_set_new(row, "label", field_text(r[k].of.label));
        json_object_set_new(row, "summary", scores);
        json_object_set_new(row, "above_first", above);
        json_array_append_new(rows, row);
        if ((rc = summary_json(scores, &r[k], NULL, e)) == 0 && k > 0)
            rc = summary_json(above, &r[0], &r[k], e);
    }
    json_object_set_new(o, "kind", json_string("probes"));
    json_object_set_new(o, "bootstrap", how_json());
    json_object_set_new(o, "rows", rows);
    if (rc == 0)
        return field_print(out, o, e);
    json_decref(o);
    return rc;
}

static int get_hash(const struct js *o, const char *key, uint64_t *v, struct err *e)
{
    char s[24];
    int rc = field_get_text(o, key, s, sizeof s, e);

    *v = strtoull(s, NULL, 16);
    return rc;
}

static int get_scores(struct probed_cell *c, const struct js *row, json_t *scores, struct err *e)
{
    for (int64_t i = 0; i < c->n; i++) {
        const json_t *v = json_array_get(scores, (size_t)i);

        if (!json_is_number(v) || !(json_number_value(v) >= 0 && json_number_value(v) <= 1))
            return err_set(e, E_DATA, "'%s': field '%sscores' has more than numbers from 0 to 1", row->file,
                           row->path);
        c->score[i] = json_number_value(v);
    }
    return 0;
}

static int get_cell(struct probed *r, const struct js *row, struct err *e)
{
    struct probed_cell *c;
    json_t *scores;
    const char *task;
    int64_t n = 0;
    int rc;

    if ((rc = js_i64(row, "prompts", JS_MUST, 1, 1000000, &n, e)) < 0 ||
        (rc = js_array(row, "scores", JS_MUST, &scores, e)) < 0 ||
        (rc = js_str(row, "task", JS_MUST, &task, e)) < 0)
        return rc;
    if ((int64_t)json_array_size(scores) != n || strlen(task) >= sizeof c->task)
        return err_set(e, E_DATA, "'%s': field '%sscores' has %zu scores of %" PRId64 " prompts", row->file,
                       row->path, json_array_size(scores), n);
    if ((rc = probed_add(r, n, &c, e)) < 0)
        return rc;
    snprintf(c->task, sizeof c->task, "%s", task);
    if ((rc = js_i64(row, "length", JS_MUST, 1, (int64_t)1 << 40, &c->length, e)) == 0 &&
        (rc = js_f64(row, "depth", JS_MAY, 0, 1, &c->depth, e)) == 0 &&
        (rc = js_bool(row, "past_context", JS_MAY, &c->past, e)) == 0 &&
        (rc = js_f64(row, "tokens", JS_MAY, 0, 0x1p52, &c->tokens, e)) == 0 &&
        (rc = get_hash(row, "prompts_hash", &c->prompts, e)) == 0)
        rc = get_scores(c, row, scores, e);
    c->tokens *= (double)n;
    return rc;
}

static int read_fields(struct probed *r, const struct js *o, struct err *e)
{
    const char *kind = "";
    json_t *rows;
    int rc = js_str(o, "kind", JS_MAY, &kind, e);

    if (rc == 0 && strcmp(kind, "probes") != 0) {
        err_set(e, E_DATA, "'%s' is not a result of leval --tasks", o->file);
        return err_hint(e, "make one: leval --tasks LIST --model DIR --json > %s", o->file);
    }
    r->seed = -1;
    if (rc < 0 || (rc = measured_read(&r->of, o, e)) < 0 ||
        (rc = js_i64(o, "seed", JS_MAY, 0, INT64_MAX, &r->seed, e)) < 0 ||
        (rc = js_array(o, "results", JS_MUST, &rows, e)) < 0)
        return rc;
    if (json_array_size(rows) < 1 || json_array_size(rows) > PROBED_MOST)
        return err_set(e, E_DATA, "'%s': %zu results, must be 1 to %d", o->file, json_array_size(rows),
                       PROBED_MOST);
    for (size_t i = 0; i < json_array_size(rows) && rc == 0; i++) {
        struct js row;

        if ((rc = js_item(o, "results", rows, i, &row, e)) == 0)
            rc = get_cell(r, &row, e);
    }
    return rc;
}

int probed_parse(struct probed *r, const char *json, size_t nbytes, const char *name, struct err *e)
{
    struct js o;
    int rc;

    *r = (struct probed){ 0 };
    if ((rc = js_parse(&o, json, nbytes, name, e)) < 0)
        return rc;
    rc = read_fields(r, &o, e);
    js_free(&o);
    if (rc < 0)
        probed_free(r);
    return rc;
}

int probed_read(struct probed *r, const char *path, struct err *e)
{
    char *text;
    size_t n;
    int rc;

    *r = (struct probed){ 0 };
    if ((rc = file_read(path, FILE_MAX_BYTES, &text, &n, e)) < 0)
        return rc;
    rc = probed_parse(r, text, n, path, e);
    free(text);
    return rc;
}

/* js_text puts the kind on the third line. */
bool probed_is(const char *path)
{
    char head[257] = "";
    FILE *f = path_is_file(path) ? fopen(path, "re") : NULL;

    if (!f)
        return false;
    head[fread(head, 1, sizeof head - 1, f)] = '\0';
    fclose(f);
    return strstr(head, "\"kind\": \"probes\"") != NULL;
}
