/* base/opt_json.c - see opt_json.h. */
#include "base/opt_json.h"

#include <string.h>

/* Word number i of "a|b|c". */
static json_t *word_at(const char *words, int i)
{
    for (; i > 0 && words; i--)
        words = strchr(words, '|') ? strchr(words, '|') + 1 : NULL;
    return words && i == 0 ? json_stringn(words, strcspn(words, "|")) : NULL;
}

static json_t *list_value(const struct opt_list *l)
{
    json_t *all = l->n ? json_array() : NULL;

    for (int i = 0; i < l->n; i++)
        json_array_append_new(all, json_string(l->v[i]));
    return all;
}

/* One count is a number, several are an array, and none leaves the key out. */
static json_t *counts_value(const struct opt_counts *c)
{
    json_t *all = c->n > 1 ? json_array() : NULL;

    for (int i = 0; i < c->n && all; i++)
        json_array_append_new(all, json_integer(c->v[i]));
    return c->n == 1 ? json_integer(c->v[0]) : all;
}

/* What the option holds now, by its type; NULL where it was not given. */
static json_t *value(const struct opt *o)
{
    const char *text;

    switch (opt_type(o)) {
    case OPT_FLAG:
        return json_boolean(*(const bool *)o->dst);
    case OPT_STR:
        text = *(const char *const *)o->dst;
        return text ? json_string(text) : NULL;
    case OPT_LIST:
        return list_value(o->dst);
    case OPT_COUNTS:
        return counts_value(o->dst);
    case OPT_F64:
        return json_real(*(const double *)o->dst);
    case OPT_ENUM:
        return word_at(o->arg, *(const int *)o->dst);
    default:
        return json_integer(*(const int64_t *)o->dst);
    }
}

json_t *opt_record(const struct opt *rows, int flags)
{
    json_t *all = json_object();
    char key[64];

    for (const struct opt *o = rows; all && (o->name || o->help); o++) {
        size_t n = 0;
        json_t *v;

        if (!o->name || (o->type & flags) != flags || !(v = value(o)))
            continue;
        for (; o->name[n] && n < sizeof key - 1; n++)
            key[n] = (char)(o->name[n] == '-' ? '_' : o->name[n]);
        key[n] = '\0';
        json_object_set_new(all, key, v);
    }
    return all;
}
