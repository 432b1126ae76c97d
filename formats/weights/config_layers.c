/* formats/weights/config_layers.c - windows and RoPE by layer; see config_layers.h. */
#include "formats/weights/config_layers.h"

#include "base/json.h"
#include "formats/weights/arch.h"
#include "formats/weights/config_rope.h"

#include <string.h>

static void put(struct layer_set *s, int64_t layer) { s->bits[layer / 64] |= (uint64_t)1 << (layer % 64); }

/* A list with an element for each layer; NULL: it is not there. */
static int read_list(const struct js *o, const char *key, int64_t layers, json_t **list,
                     struct err *e)
{
    int rc = js_array(o, key, JS_MAY, list, e);

    if (rc == 0 && *list && (int64_t)json_array_size(*list) != layers)
        return err_set(e, E_DATA, "'%s': field '%s%s' has %zu elements, the model has %lld layers",
                       o->file, o->path, key, json_array_size(*list), (long long)layers);
    return rc;
}

/* layer_types: the layers that it calls full; *windows: whether it names others. *there: it is
 * there. */
static int read_types(const struct js *o, int64_t layers, struct layer_set *full, bool *there,
                      bool *windows, struct err *e)
{
    json_t *list;
    int rc = read_list(o, "layer_types", layers, &list, e);

    *there = rc == 0 && list;
    *windows = false;
    for (int64_t i = 0; rc == 0 && list && i < layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));

        if (type && strcmp(type, "full_attention") == 0)
            put(full, i);
        else if (type && strcmp(type, "sliding_attention") == 0)
            *windows = true;
        else
            rc = err_set(e, type ? E_CONFIG : E_DATA, "'%s': %slayer_types[%lld] '%.60s' is not "
                         "supported, only full_attention and sliding_attention", o->file, o->path,
                         (long long)i, type ? type : "");
    }
    return rc;
}

/* no_rope_layers: a 0 stands for a layer without RoPE. Left out, or empty: every fourth layer, or
 * every no_rope_layer_interval-th. */
static int read_no_rope(struct layers_config *l, int64_t layers, const struct js *o, struct err *e)
{
    int64_t every = 4;
    json_t *list;
    int rc;

    if ((rc = js_i64(o, "no_rope_layer_interval", JS_MAY, 1, CONFIG_MAX_LAYERS, &every, e)) < 0 ||
        (rc = js_array(o, "no_rope_layers", JS_MAY, &list, e)) < 0)
        return rc;
    if (json_array_size(list) > 0 && (rc = read_list(o, "no_rope_layers", layers, &list, e)) < 0)
        return rc;
    for (int64_t i = 0; i < layers; i++) {
        const json_t *v = json_array_size(list) ? json_array_get(list, (size_t)i) : NULL;
        bool turns = v ? json_integer_value(v) != 0 || json_is_true(v) : (i + 1) % every != 0;

        if (v && !json_is_integer(v) && !json_is_boolean(v))
            return err_set(e, E_DATA, "'%s': field '%sno_rope_layers[%lld]' is not 0 or 1", o->file, o->path,
                           (long long)i);
        if (!turns)
            put(&l->no_rope, i);
    }
    return 0;
}

/* Of a family whose layers all turn: a list that says otherwise is refused. */
static int check_no_rope(const struct js *o, struct err *e)
{
    json_t *list;
    size_t i;
    const json_t *v;
    int rc = js_array(o, "no_rope_layers", JS_MAY, &list, e);

    if (rc < 0)
        return rc;
    json_array_foreach(list, i, v)
        if (json_is_false(v) || (json_is_integer(v) && json_integer_value(v) == 0))
            return err_set(e, E_CONFIG, "'%s': %sno_rope_layers is not supported in this model family",
                           o->file, o->path);
    return 0;
}

/* The window of those layers that have one. null: none. */
static int read_window(struct layers_config *l, const struct arch *a, const struct js *o, struct err *e)
{
    bool always = a->block.windows == WINDOWS_OTHER || a->block.windows == WINDOWS_PATTERN;
    bool use = a->block.windows == WINDOWS_ALL || always;
    int64_t n;
    int rc;

    if (a->block.windows == WINDOWS_NONE)
        return 0;
    /* A field with null is there and means no window; js_i64 then leaves the 0 as it is. */
    n = json_object_get(o->obj, "sliding_window") ? 0 : a->missing.window;
    if ((rc = js_i64(o, "sliding_window", JS_MAY, 1, CONFIG_MAX_CONTEXT, &n, e)) < 0 ||
        (!use && (rc = js_bool(o, "use_sliding_window", JS_MAY, &use, e)) < 0))
        return rc;
    l->window = use ? n : 0;
    if (always && n == 0)
        return err_set(e, E_CONFIG, "'%s': %ssliding_window null is not supported in this model family", o->file,
                       o->path);
    return 0;
}

/* Which layers have it, where the file has no list of them. */
static int window_layers(struct layers_config *l, const struct arch *a, int64_t layers, const struct js *o,
                         struct err *e)
{
    enum windows kind = a->block.windows;
    int64_t from = a->missing.window_layers, every = kind == WINDOWS_PATTERN ? 6 : 2;
    int rc = kind == WINDOWS_SWITCHED ? js_i64(o, "max_window_layers", JS_MAY, 0, INT64_MAX, &from, e)
           : kind == WINDOWS_PATTERN
               ? js_i64(o, "sliding_window_pattern", JS_MAY, 1, CONFIG_MAX_LAYERS, &every, e) : 0;

    for (int64_t i = 0; rc == 0 && i < layers; i++) {
        bool full[] = { [WINDOWS_UNTURNED] = !layer_in(&l->no_rope, i), [WINDOWS_SWITCHED] = i < from,
                        [WINDOWS_OTHER] = (i + 1) % every == 0, [WINDOWS_PATTERN] = (i + 1) % every == 0 };

        if (full[kind])
            put(&l->full, i);
    }
    return rc;
}

int config_read_layers(struct layers_config *l, const struct arch *a, int64_t layers, const struct js *o,
                       struct err *e)
{
    struct layer_set full = { { 0 } };
    bool there, windows;
    int rc;

    *l = (struct layers_config){ 0 };
    if ((rc = read_window(l, a, o, e)) < 0 ||
        (rc = a->block.no_rope ? read_no_rope(l, layers, o, e) : check_no_rope(o, e)) < 0 ||
        (rc = read_types(o, layers, &full, &there, &windows, e)) < 0)
        return rc;
    if (windows && l->window == 0)
        return err_set(e, E_CONFIG, "'%s': %slayer_types has sliding_attention, and the other fields "
                       "say that there is no sliding_window", o->file, o->path);
    if (l->window == 0)
        return 0;
    if (!there)
        return window_layers(l, a, layers, o, e);
    /* transformers does not read the list of a family whose layers are alike */
    for (int64_t i = 0; i < layers && a->block.windows == WINDOWS_ALL; i++)
        if (layer_in(&full, i))
            return err_set(e, E_CONFIG, "'%s': %slayer_types[%lld] full_attention is not supported in "
                           "this model family, whose layers all have the sliding_window", o->file, o->path,
                           (long long)i);
    l->full = full;
    return 0;
}

bool config_write_layers(const struct layers_config *l, const struct arch *a, int64_t layers, json_t *o)
{
    const struct block *b = &a->block;
    json_t *types = json_array(), *turned = json_array();
    bool ok = true;

    for (int64_t i = 0; i < layers; i++) {
        bool sees = l->window > 0 && !layer_in(&l->full, i);

        ok &= json_array_append_new(types, json_string(sees ? "sliding_attention" : "full_attention")) == 0;
        ok &= json_array_append_new(turned, json_integer(!layer_in(&l->no_rope, i))) == 0;
    }
    if (b->windows != WINDOWS_NONE)
        ok &= json_object_set_new(o, "sliding_window", l->window ? json_integer(l->window)
                                                                  : json_null()) == 0;
    if (b->windows == WINDOWS_SWITCHED || b->windows == WINDOWS_UNTURNED)
        ok &= json_object_set_new(o, "use_sliding_window", json_boolean(l->window > 0)) == 0;
    if (b->windows > WINDOWS_ALL)
        ok &= json_object_set(o, "layer_types", types) == 0;
    if (b->no_rope)
        ok &= json_object_set(o, "no_rope_layers", turned) == 0;
    json_decref(types);
    json_decref(turned);
    return ok;
}
