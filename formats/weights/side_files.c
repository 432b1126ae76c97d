/* formats/weights/side_files.c - what a model folder has beside weights and config.json; see
 * weights.h. */
#include "formats/weights/weights.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/jsonscan.h"
#include "formats/weights/beside.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Some tokenizer_config.json are large, as they list every added token. */
enum { MAX_CONFIG = 64 << 20 };

/* Tokenizers of every kind, what pictures and sounds go through, what text is generated with, and the terms that go with a model. */
static const char *const carried[] = {
    "generation_config.json", "tokenizer.*", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "chat_template.*", "tekken.json", "*.tiktoken",
    "*processor_config.json", "spiece.model", "sentencepiece.*", "tokenization_*.py", "*LICENSE*", "*LICENCE*", "NOTICE*",
    "COPYING*", "*USE_POLICY*",
};

/* FNM_PERIOD: a pattern with '*' in front does not take hidden files. */
static bool is_carried(const char *name)
{
    for (size_t i = 0; i < sizeof carried / sizeof *carried; i++)
        if (fnmatch(carried[i], name, FNM_CASEFOLD | FNM_PERIOD) == 0)
            return true;
    return false;
}

/* The number that the object has for key, as it is written there. */
static bool find_number(const char *text, size_t n, const char *key, struct json_value *v)
{
    struct json_object o = json_scan(text, n);
    struct json_value k, each;
    bool found = false;
    struct err e = { 0 };
    int rc;

    /* A key that comes twice: the last one counts. */
    while ((rc = json_next(&o, &k, &each, &e)) > 0)
        if (json_is(&k, key) && each.type == JK_NUMBER) {
            *v = each;
            found = true;
        }
    return rc == 0 && found;
}

/* model_max_length at which transformers warns or cuts, never below the context. All other bytes
 * stay: some folders have 1000000000000000019884624838656 there, which is no int64. */
static int copy_tokenizer_config(const char *from, const char *to, int64_t context, struct err *e)
{
    struct buf out = { 0 };
    struct json_value v;
    char *text;
    size_t n, before;
    int rc = file_read(from, MAX_CONFIG, &text, &n, e);

    if (rc < 0)
        return rc;
    /* Nothing to change where the field is missing or is not below the context. Read as a
     * double, since it may be larger than any integer type. */
    if (!find_number(text, n, "model_max_length", &v) || !(strtod(v.p, NULL) < (double)context)) {
        free(text);
        return file_copy(from, to, e);
    }
    /* The text before the number, the new number, the text after it. */
    before = (size_t)(v.p - text);
    if ((rc = buf_add(&out, text, before, e)) == 0 &&
        (rc = buf_printf(&out, e, "%" PRId64, context)) == 0 &&
        (rc = buf_add(&out, v.p + v.n, n - before - v.n, e)) == 0)
        rc = file_replace(to, out.p, out.len, e);
    buf_free(&out);
    free(text);
    return rc;
}

/* Copies what is in the list above from one model folder to another. context: the new model's,
 * in tokens. */
int weights_copy_side_files(const char *from, const char *to, int64_t context, struct beside *files,
                            struct err *e)
{
    DIR *d = opendir(from);
    const struct dirent *f;
    int rc = 0;

    if (!d)
        return err_sys(e, E_NOINPUT, "cannot list '%s'", from);
    while (rc == 0 && (f = readdir(d))) {
        char *a, *b;

        if (!is_carried(f->d_name))
            continue;
        a = path_join(from, f->d_name), b = path_join(to, f->d_name);
        if (path_is_file(a) && !path_exists(b)) { /* a pipe would wait for its writer */
            rc = strcmp(f->d_name, "tokenizer_config.json") == 0
                     ? copy_tokenizer_config(a, b, context, e)
                     : file_copy(a, b, e);
            if (rc == 0)
                rc = beside_add_file(files, to, f->d_name, e);
        }
        free(a);
        free(b);
    }
    closedir(d);
    return rc;
}
