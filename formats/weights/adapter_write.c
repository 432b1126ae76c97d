/* formats/weights/adapter_write.c - an adapter's folder as peft reads it; see adapter.h. */
#include "formats/weights/adapter.h"

#include "base/block_hash.h"
#include "base/file.h"
#include "formats/weights/adapter_config.h"
#include "formats/weights/adapter_files.h"
#include "formats/weights/beside.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_FILE "adapter_model.safetensors"
#define CONFIG_FILE "adapter_config.json"
#define MODEL_FILE "config.json"
#define BASE_KEY "longlora_base" /* weights_hash of the base, 16 digits */

/* As peft calls it, which knows the modules by their names in memory; other: by another version's. */
static void rename_tensor(struct adapter_tensor *t, const struct llama_config *c, const struct naming *other)
{
    const size_t prefix = strlen(ADAPTER_PREFIX);
    const struct naming *n = other ? other : c->multimodal ? c->multimodal->names : NULL;
    char own[sizeof t->name];

    memcpy(own, t->name, sizeof own);
    naming_put(config_arch(c), n, own + prefix, t->name + prefix, sizeof t->name - prefix);
}

/* Tensor i of the file. The last may be the head again, where it is trained whole and versions of transformers
 * call it differently: each takes the one and passes over the other. *i: of those that adapter_tensor has. */
static void file_tensor(const struct adapter_config *a, const struct llama_config *c, int64_t *i,
                        struct adapter_tensor *t)
{
    const struct arch *arch = config_arch(c);
    bool again = *i == adapter_tensors(a, c);

    while (again && (adapter_tensor(a, c, --*i, t), t->role != ROLE_HEAD))
        continue;
    adapter_tensor(a, c, *i, t);
    rename_tensor(t, c, again ? namings_of(arch, NULL) : NULL);
}

/* Writes all tensors of an adapter in float32. values gives those of tensor i. */
static int write_tensors(const char *path, const struct adapter_config *a,
                         const struct llama_config *c, const struct st_note *notes,
                         const float *(*values)(void *ctx, int64_t i), void *ctx, struct err *e)
{
    bool again = (a->saved & ROLE_BIT(ROLE_HEAD)) && config_arch(c)->block.head_also;
    int64_t n = adapter_tensors(a, c) + again;
    struct adapter_tensor *t = calloc((size_t)n + 1, sizeof *t);
    struct st_decl *d = calloc((size_t)n + 1, sizeof *d);
    int64_t *from = calloc((size_t)n + 1, sizeof *from);
    struct st_writer *w = NULL;
    int rc = t && d && from ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; i < n && rc == 0; i++) {
        from[i] = i;
        file_tensor(a, c, &from[i], &t[i]);
        d[i] = (struct st_decl){ .name = t[i].name, .type = &type_f32, .dims = t[i].dims,
                                 .shape = { t[i].shape[0], t[i].shape[1] } };
    }
    if (rc == 0)
        rc = st_create_noted(&w, path, d, n, notes, e);
    /* st_writer takes the data in the order of the declarations. */
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = st_write_f32(w, values(ctx, from[i]), t[i].count, e);
    if (rc == 0)
        rc = st_finish(w, e);
    else
        st_abandon(w);
    free(t);
    free(d);
    free(from);
    return rc;
}

static int put_text(const char *folder, const char *name, const char *text, struct err *e)
{
    char *path = path_join(folder, name);
    int rc = file_replace(path, text, strlen(text), e);

    free(path);
    return rc;
}

/* adapter_config.json comes last: adapter_open takes a folder without it for unfinished. The tensors
 * come first, and hold the hashes of both. */
int adapter_write(const char *folder, const struct adapter_config *a,
                  const struct llama_config *c, const char *like,
                  const float *(*values)(void *ctx, int64_t i), void *ctx, struct err *e)
{
    char *tensors = path_join(folder, TENSORS_FILE), *config = NULL, *model = NULL;
    char base[HASH_HEX + 1];
    struct beside files = { 0 };
    struct buf list = { 0 };
    struct adapter_config within = *a;
    int rc;

    within.multimodal = c->multimodal, within.layers = c->layers;
    rc = adapter_config_text(&within, CONFIG_FILE, &config, e);

    snprintf(base, sizeof base, "%016" PRIx64, a->base_hash);
    if (rc == 0 && (rc = config_text(c, like, "float32", MODEL_FILE, &model, e)) == 0 &&
        (rc = beside_add(&files, CONFIG_FILE, config, strlen(config), e)) == 0 &&
        (rc = beside_add(&files, MODEL_FILE, model, strlen(model), e)) == 0 &&
        (rc = beside_value(&files, &list, e)) == 0) {
        /* The base's comes last: where it is not known, the list ends before it. */
        const struct st_note notes[] = { { BESIDE_KEY, list.p },
                                         { a->base_hash ? BASE_KEY : NULL, base }, { NULL, NULL } };
        rc = write_tensors(tensors, a, c, notes, values, ctx, e);
    }
    if (rc == 0 && (rc = put_text(folder, MODEL_FILE, model, e)) == 0)
        rc = put_text(folder, CONFIG_FILE, config, e);
    beside_free(&files);
    buf_free(&list);
    free(config);
    free(tensors);
    free(model);
    return rc;
}
