/* train/record.c - what a run keeps of its settings, and compares when it is continued; see
 * settings.h. */
#include "train/settings.h"

#include "base/file.h"
#include "base/json.h"
#include "base/opt_json.h"
#include "formats/weights/checkpoint.h"
#include "train/pack_rows.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(json_t *o, const char *key, json_t *value)
{
    json_object_set_new(o, key, value);
}

static void put_text(json_t *o, const char *key, const char *text)
{
    if (text)
        put(o, key, json_string(text));
}

/* The options as JSON, with the context that the run has, which may be the model's default.
 * flags: as in opt_record. */
static json_t *rows_record(const struct settings *s, int flags)
{
    struct settings copy = *s;
    struct opt_table t = { .n = 0 };

    if (copy.ctx > 0)
        copy.contexts = (struct opt_counts){ { copy.ctx }, 1 };
    settings_rows(&t, &copy);
    return opt_record(t.row, flags);
}

/* An option that changes nothing in this run is no reason to refuse to continue it. */
static bool in_use(const struct settings *s, const char *key)
{
    static const char *const lora[] = { "rank", "alpha", "targets", "rank_pattern",
        "alpha_pattern", "rslora", "dropout", "trainable" };

    for (size_t i = 0; i < sizeof lora / sizeof *lora; i++)
        if (strcmp(key, lora[i]) == 0)
            return s->mode > 0;
    if (strcmp(key, "min_lr") == 0)
        return s->schedule == SCHEDULE_COSINE;
    return strcmp(key, "steps") != 0 || settings_has_end(s);
}

/* What decides the numbers of a run: the base, the options marked OPT_RESULT that are in
 * use, and the RoPE. "auto" is replaced by what was found, so that it compares. */
json_t *settings_run(const struct settings *s, const struct llama_config *c,
                     const char *model_id, const char *device)
{
    struct settings now = *s;
    json_t *o = json_object(), *rows, *value;
    const char *key;

    now.machine.device = device;
    now.rope.factor = c->rope.factor;
    rows = rows_record(&now, OPT_RESULT);
    put(o, s->init ? "fresh" : "base", json_string(model_id));
    json_object_foreach(rows, key, value)
        if (in_use(s, key))
            json_object_set(o, key, value);
    put(o, "rope_type", json_string(config_rope_name(c->rope.type)));
    /* else the type and the factor say it all, as they did in older records */
    if (s->rope_new || c->rope.type > ROPE_LLAMA3)
        put(o, "rope", config_rope_json(&c->rope));
    if (s->packing == PACKING_BESTFIT)
        put(o, "pack_order", json_integer(s->pack_order));
    json_decref(rows);
    return o;
}

/* Records of older versions have the kind of RoPE as a number: turns it into the word. */
static void read_old_form(json_t *run)
{
    const json_t *v = json_object_get(run, "rope_type");
    json_int_t n = json_integer_value(v);

    if (json_is_integer(v) && n >= ROPE_DEFAULT && n <= ROPE_LLAMA3)
        put(run, "rope_type", json_string(config_rope_name((enum rope_type)n)));
}

int settings_before(const struct settings *s, json_t **run, struct err *e)
{
    char *root = s->out && !s->force ? path_join(s->out, "checkpoints") : NULL;
    struct checkpoint c = { 0 };
    int rc = root ? checkpoint_newest(root, &c, e) : 0;

    *run = rc > 0 ? json_loads(c.run, 0, NULL) : NULL;
    checkpoint_free(&c);
    free(root);
    return rc < 0 ? rc : 0;
}

static bool was(const json_t *before, const char *key, const char *word)
{
    const char *had = json_string_value(json_object_get(before, key));

    return had && strcmp(had, word) == 0;
}

void settings_packing(struct settings *s, bool masked, const json_t *before)
{
    if (s->packing < 0 && masked) {
        bool whole = !before || was(before, "packing", "bestfit");

        s->packing = whole ? PACKING_BESTFIT : PACKING_CONCAT;
        s->mask_documents |= whole &&
                             !json_is_false(json_object_get(before, "mask_documents"));
    }
    if (s->packing < 0)
        s->packing = PACKING_CONCAT;
    if (before && s->packing == PACKING_BESTFIT && !json_object_get(before, "pack_order"))
        s->pack_order = PACK_OLD;
}

void settings_tied(struct settings *s, bool tied, const json_t *before)
{
    if (!tied || s->mode == 0 || !lora_trains_ends(&s->lora, s->mode == 2))
        s->tied = -1;
    else if (s->tied < 0)
        s->tied = before && !was(before, "tied", "keep") ? TIED_SPLIT : TIED_KEEP;
}

static char *shown(const json_t *v)
{
    return v ? json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6)) : strdup("absent");
}

/* 2 and 2.0 are the same value, though JSON keeps integers and reals apart. */
static bool same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

/* The runs differ in 'key'. then: all of the first one's record, which tells why its number of
 * steps, which most runs may raise, is a part of it. */
static int differ(const char *folder, const char *key, const json_t *was, const json_t *now,
                  const json_t *then, struct err *e)
{
    char *a = shown(was), *b = shown(now);
    bool steps = strcmp(key, "steps") == 0 && json_object_get(then, key);

    err_set(e, E_CONFIG, "'%s' was made with '%s' %s, this run has %s", folder, key, a ? a : "?",
            b ? b : "?");
    if (steps && json_number_value(json_object_get(then, "dense_last")) > 0)
        err_hint(e, "the last of its steps are dense, so their number stays: give --steps %s, or another "
                    "folder (-o); a run to be lengthened begins with --dense-last 0", a ? a : "");
    else if (steps)
        err_hint(e, "its learning rate falls to the last step, so their number stays: give --steps %s, or "
                    "another folder (-o); a run to be lengthened has --schedule constant", a ? a : "");
    else
        err_hint(e, "repeat the command that began it, start over with -f, or give another "
                    "folder (-o)");
    free(a);
    free(b);
    return E_CONFIG;
}

/* What a key that an old record lacks was: the default, as the option did not exist then. */
static json_t *missing_keys(void)
{
    struct settings none;
    json_t *o;

    settings_defaults(&none);
    none.packing = PACKING_CONCAT;
    none.tied = TIED_SPLIT;
    if ((o = rows_record(&none, OPT_RESULT)))
        put(o, "pack_order", json_integer(PACK_OLD));
    return o;
}

/* Looks at the keys of both records, so that an option in only one of them is found too. */
int settings_compare(const json_t *was, const json_t *now, const char *folder, struct err *e)
{
    json_t *then = json_deep_copy(was), *both[2] = { (json_t *)(uintptr_t)now, then };
    json_t *defaults = missing_keys();
    json_t *unused;
    const char *key;
    int rc = 0;

    read_old_form(then);
    for (int i = 0; i < 2 && rc == 0; i++)
        json_object_foreach(both[i], key, unused) {
            const json_t *a = json_object_get(then, key), *b = json_object_get(now, key);

            if (!a)
                a = json_object_get(defaults, key);
            if (!same(a, b) && (rc = differ(folder, key, a, b, then, e)) < 0)
                break;
        }
    json_decref(defaults);
    json_decref(then);
    return rc;
}

/* Writes OUT/options.json for people and tools: the command line, where it was given, and
 * all options with their resolved values. */
int settings_save(const struct settings *s, const struct llama_config *c, const json_t *run,
                  int argc, char **argv, const char *path, struct err *e)
{
    json_t *o = json_object(), *args = json_array(), *all = json_object();
    json_t *rows = rows_record(s, 0);
    char folder[PATH_MAX];
    int rc;

    put(o, "format", json_string("longlora-options"));
    put(o, "version", json_integer(1));
    put(o, "longlora", json_string(LONGLORA_VERSION));
    for (int i = 0; i < argc; i++)
        json_array_append_new(args, json_string(argv[i]));
    put(o, "command", args);
    if (getcwd(folder, sizeof folder))
        put_text(o, "folder", folder);
    put_text(all, "data", s->data);
    json_object_update(all, rows);
    json_object_update(all, (json_t *)(uintptr_t)run);
    put(o, "options", all);
    put(o, "context", json_integer(c->context));
    put(o, "params", json_integer(config_params(c)));
    rc = js_save(o, path, e);
    json_decref(rows);
    json_decref(o);
    return rc;
}
