/* eval/identity.c - see identity.h. */
#include "eval/identity.h"

#include "base/file.h"
#include "formats/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEEK = 4096 }; /* bytes at either end of a tensor */

static uint64_t hash_weights(const struct weights *w)
{
    uint64_t all = 0;

    for (int64_t i = 0; i < weights_count(w); i++) {
        const struct tensor *t = weights_at(w, i);
        size_t n = t->nbytes < PEEK ? t->nbytes : PEEK;
        uint64_t part[5] = { all, hash64_of(t->name, strlen(t->name)),
                             hash64_of(t->shape, (size_t)t->dims * sizeof *t->shape),
                             n ? hash64_of(t->data, n) : 0,
                             n ? hash64_of((const char *)t->data + t->nbytes - n, n) : 0 };

        all = hash64_of(part, sizeof part);
    }
    return all;
}

static int hash_file(uint64_t *all, const char *folder, const char *name, struct err *e)
{
    char *path = path_join(folder, name);
    const void *p;
    size_t n;
    int rc = 0;

    if (path_is_file(path) && (rc = file_map(path, &p, &n, e)) == 0) {
        uint64_t part[3] = { *all, hash64_of(name, strlen(name)), hash64_of(p, n) };

        *all = hash64_of(part, sizeof part);
        file_unmap(p, n);
    }
    free(path);
    return rc;
}

int identity_of(uint64_t *out, const struct eval *v, const struct tokenizer *t, struct err *e)
{
    static const char *const files[] = { "adapter_config.json", "adapter_model.safetensors",
                                         "adapter_model.bin" };
    uint64_t part[3] = { hash_weights(v->s.weights), 0, 0 };
    int rc = 0;

    for (int i = 0; i < 3 && v->o->adapter && rc == 0; i++)
        rc = hash_file(&part[1], v->o->adapter, files[i], e);
    if (t)
        part[2] = hash64_of(tokenizer_fingerprint(t), FINGERPRINT_HEX);
    *out = hash64_of(part, sizeof part);
    return rc;
}

void eval_label(const struct eval *v, const char *given, char *out, size_t cap)
{
    const char *path = v->o->adapter ? v->o->adapter : v->o->model;
    size_t n = strlen(path), from;

    while (n > 1 && path[n - 1] == '/')
        n--;
    for (from = n; from > 0 && path[from - 1] != '/';)
        from--;
    if (given)
        snprintf(out, cap, "%s", given);
    else
        snprintf(out, cap, "%.*s", (int)(n - from), path + from);
}

void eval_rope(const struct eval *v, char *out, size_t cap)
{
    size_t n = 0;

    *out = '\0';
    for (int64_t i = 0; i < v->n && n < cap; i++) {
        const struct rope_config *p = &v->config[i].rope, *was = &v->config[i ? i - 1 : 0].rope;
        char words[48];

        if (i && config_rope_same(p, was))
            continue;
        rope_words(p, v->theta, words, sizeof words);
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i ? ", " : "", words);
    }
}
