/* model/model_tokenizer.c - see model_tokenizer.h. */
#include "model/model_tokenizer.h"

#include "base/file.h"
#include "base/json.h"
#include "formats/tokenizer/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The error of data made with another tokenizer; m->remedy says what to do about it. */
static int another(struct model_tokenizer *m, const struct token_info *info, const char *data,
                   const char *path, struct err *e)
{
    size_t n = strlen(path);
    bool json = n >= 5 && strcmp(path + n - 5, ".json") == 0;

    snprintf(m->remedy, sizeof m->remedy, json ? "prepare it with that model's tokenizer.model"
                                               : "prepare it with 'lprep -t %.300s'", path);
    return err_set(e, E_CONFIG, "'%.300s' was made with another tokenizer (%.150s) than '%.300s'",
                   data, *info->tokenizer ? info->tokenizer : info->fingerprint, path);
}

/* Compares with a tokenizer.model. One that was named has to be readable; one that only lies
 * in the model's folder may be of a kind unknown here, which leaves a doubt. */
static int compare_model(struct model_tokenizer *m, const struct token_info *info,
                         const char *data, const char *path, struct err *e)
{
    struct tokenizer *t;
    struct err why = { 0 };
    int rc = tokenizer_open(&t, path, m->given ? e : &why);

    if (rc < 0 && m->given)
        return rc;
    if (rc < 0) {
        snprintf(m->doubt, sizeof m->doubt, "cannot check whether '%.150s' was made with this "
                                            "model's tokenizer: %.*s", data,
                                            (int)strcspn(why.msg, "\n"), why.msg);
        return 0;
    }
    rc = tokenizer_made(t, info->fingerprint, info->tokenizer)
             ? 0 : another(m, info, data, path, e);
    tokenizer_close(t);
    return rc;
}

/* The pieces of a tokenizer.json by their ids: an object, or an array of [piece, score]. */
static json_t *pieces_of(const struct js *o)
{
    return json_object_get(json_object_get(o->obj, "model"), "vocab");
}

/* Pieces that t has under the same id; *n of them are in the file. */
static int64_t count_same(json_t *vocab, const struct tokenizer *t, int64_t *n)
{
    int64_t same = 0;
    const char *piece;
    json_t *v;
    size_t i;

    *n = (int64_t)(json_is_object(vocab) ? json_object_size(vocab) : json_array_size(vocab));
    /* only one of the two loops runs: an object has no elements, an array no members */
    json_object_foreach(vocab, piece, v)
        same += json_is_integer(v) && json_integer_value(v) <= INT32_MAX &&
                strcmp(piece, tokenizer_piece(t, (int32_t)json_integer_value(v))) == 0;
    json_array_foreach(vocab, i, v) {
        piece = json_string_value(json_array_get(v, 0));
        same += piece && strcmp(piece, tokenizer_piece(t, (int32_t)i)) == 0;
    }
    return same;
}

/* Compares with a tokenizer.json, by its pieces. For that the tokenizer that made the data
 * is wanted; where it is not found or is no longer the same, a doubt remains. */
static int compare_json(struct model_tokenizer *m, const struct token_info *info,
                        const char *data, const char *path, struct err *e)
{
    struct tokenizer *t = NULL;
    struct err why = { 0 };
    struct js o = { 0 };
    int64_t n = 0;
    int rc = js_load(&o, path, JS_MAX_BYTES, &why);

    if (rc == 0 && tokenizer_open(&t, info->tokenizer, &why) == 0 &&
        strcmp(tokenizer_fingerprint(t), info->fingerprint) == 0) {
        int64_t same = count_same(pieces_of(&o), t, &n);
        /* the same pieces under the same ids, and none more on either side */
        rc = same == n && n == tokenizer_vocab(t) ? 0 : another(m, info, data, path, e);
    } else if (rc == E_SYS) {
        rc = err_set(e, rc, "%s", why.msg);
    } else {
        snprintf(m->doubt, sizeof m->doubt, "cannot check whether '%.150s' was made with "
                                            "'%.150s': its tokenizer '%.150s' was not found",
                                            data, path,
                 info->tokenizer);
        rc = 0;
    }
    tokenizer_close(t);
    js_free(&o);
    return rc;
}

/* The named tokenizer, else the folder's tokenizer.model, else its tokenizer.json. Data
 * without a fingerprint cannot be compared. */
int model_tokenizer_check(struct model_tokenizer *m, const struct token_info *info,
                          const char *data, struct err *e)
{
    char *model = m->given ? strdup(m->given) : path_join(m->folder, "tokenizer.model"),
         *json = path_join(m->given ? "." : m->folder, "tokenizer.json");
    int rc = 0;

    m->doubt[0] = m->remedy[0] = '\0';
    if (!model)
        rc = err_set(e, E_SYS, "out of memory");
    else if (*info->fingerprint && (m->given || path_exists(model)))
        rc = compare_model(m, info, data, model, e);
    else if (*info->fingerprint && path_exists(json))
        rc = compare_json(m, info, data, json, e);
    free(model);
    free(json);
    return rc;
}
