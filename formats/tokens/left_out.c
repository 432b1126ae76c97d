/* formats/tokens/left_out.c - see left_out.h. */
#include "formats/tokens/left_out.h"

#include <string.h>

/* A key of its own: it counts files, all other keys count documents. */
#define BAD_FILES "bad_files"

/* The reasons of one source, each with its number of documents. Bad documents and files have no
 * known source, so they may stand only under the empty name. */
static int parse_source(struct tally *t, const char *name, const struct js *o, struct err *e)
{
    struct tally_source *s;
    const char *key;
    json_t *value;
    int rc;

    json_object_foreach(o->obj, key, value) {
        enum drop d = drop_of(key);
        int64_t n, *to;
        bool bad = d == DROP_BAD || strcmp(key, BAD_FILES) == 0;
        if ((rc = js_i64(o, key, JS_MUST, 0, INT64_MAX, &n, e)) < 0)
            return rc;
        /* drop_of gives DROPS for a key that it does not know. */
        if (bad ? *name != '\0' : d == DROPS)
            return err_set(e, E_DATA, "'%s': field '%s%.64s' is not a known reason for leaving out "
                       "documents",
                           o->file, o->path, key);
        if (bad)
            to = d == DROP_BAD ? &t->bad_docs : &t->bad_files;
        else if ((rc = tally_of(t, name, &s, e)) < 0)
            return rc;
        else
            to = &s->dropped[d];
        *to = n;
    }
    return 0;
}

/* The field may be missing: then nothing is known of what was left out. */
int left_out_parse(struct tally *t, const struct js *top, struct err *e)
{
    struct js all, one;
    const char *key;
    json_t *value;
    int rc = js_object(top, "left_out", JS_MAY, &all, e);

    if (rc < 0 || !all.obj)
        return rc;
    json_object_foreach(all.obj, key, value) {
        if (strlen(key) >= sizeof t->v->name)
            return err_set(e, E_DATA, "'%s': field 'left_out' has a name of %zu bytes", top->file,
                           strlen(key));
        if ((rc = js_object(&all, key, JS_MUST, &one, e)) < 0 ||
            (rc = parse_source(t, key, &one, e)) < 0)
            return rc;
    }
    return 0;
}

/* Only counts above 0 are written. */
static void set_count(json_t *o, const char *key, int64_t n)
{
    if (n > 0)
        json_object_set_new(o, key, json_integer(n));
}

/* The counts of one source; s is NULL for the empty name when no source has it. */
static json_t *source_json(const struct tally *t, const struct tally_source *s)
{
    json_t *o = json_object();
    bool nameless = !s || !s->name[0];

    for (int d = 1; d < DROP_BAD && s; d++)
        set_count(o, drop_name((enum drop)d), s->dropped[d]);
    if (nameless)
        set_count(o, drop_name(DROP_BAD), t->bad_docs);
    if (nameless)
        set_count(o, BAD_FILES, t->bad_files);
    return o;
}

json_t *left_out_json(const struct tally *t)
{
    json_t *all = json_object();

    /* Bad documents and files need the empty name, even if no source has it. */
    if (!tally_find(t, "") && (t->bad_docs || t->bad_files))
        json_object_set_new(all, "", source_json(t, NULL));
    for (int64_t i = 0; i < t->n; i++) {
        json_t *o = source_json(t, &t->v[i]);
        /* Sources of which nothing was left out are not listed. */
        if (json_object_size(o) > 0)
            json_object_set_new(all, t->v[i].name, o);
        else
            json_decref(o);
    }
    return all;
}

int false_copies_parse(struct tally *t, const struct js *top, struct err *e)
{
    /* Counts are kept in 10^-12, so this is the largest number that an int64_t can hold. */
    double most = (double)INT64_MAX / TALLY_CHANCE, expected = 0, chance = 0;
    struct js o;
    int rc = js_object(top, "false_duplicates", JS_MAY, &o, e);

    if (rc < 0 || !o.obj)
        return rc;
    if ((rc = js_f64(&o, "expected", JS_MUST, 0, most, &expected, e)) < 0 ||
        (rc = js_f64(&o, "probability", JS_MUST, 0, 1, &chance, e)) < 0)
        return rc;
    /* "most" itself would become 2^63 when it is turned back, one more than fits. */
    t->false_copies = expected < most ? (int64_t)(expected * TALLY_CHANCE + 0.5) : INT64_MAX;
    t->false_copy_chance = (int64_t)(chance * TALLY_CHANCE + 0.5);
    return 0;
}

json_t *false_copies_json(const struct tally *t)
{
    if (t->false_copies == 0 && t->false_copy_chance == 0)
        return NULL;
    return json_pack("{sfsf}", "probability", (double)t->false_copy_chance / TALLY_CHANCE,
                     "expected", (double)t->false_copies / TALLY_CHANCE);
}
