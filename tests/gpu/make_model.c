/* tests/gpu/make_model.c - writes a model folder of random weights, soon, for measuring.
 * usage: make_model config.json FOLDER [FILES]
 * bfloat16 values like those of a trained model in size; they repeat every 32 MiB. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/perm.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/config.h"
#include "formats/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>

enum { NOISE = 1 << 24, MOST_TENSORS = 4096 };

static uint16_t noise[NOISE], one[1 << 16];
static struct tensor_spec spec[MOST_TENSORS];
static struct st_decl decl[MOST_TENSORS];

/* Uniform, as wide as a normal of 0.02. */
static void make_noise(void)
{
    for (int64_t i = 0; i < NOISE; i++)
        noise[i] = f32_to_bf16(0.07f * ((float)(mix64((uint64_t)i) >> 40) * 0x1p-24f - 0.5f));
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        one[i] = f32_to_bf16(1);
}

static int write_values(struct st_writer *w, const struct tensor_spec *t, struct err *e)
{
    bool norm = role_form(t->role) == FORM_NORM;
    int64_t block = norm ? (int64_t)(sizeof one / sizeof *one) : NOISE;
    int rc = 0;

    for (int64_t at = 0; at < t->count && rc == 0; at += block)
        rc = st_write_raw(w, norm ? one : noise,
                          2 * (size_t)(t->count - at < block ? t->count - at : block), e);
    return rc;
}

static int write_file(const char *folder, const char *name, int64_t from, int64_t to,
                      struct err *e)
{
    char *path = path_join(folder, name);
    struct st_writer *w;
    int rc = st_create(&w, path, decl + from, to - from, e);

    free(path);
    if (rc < 0)
        return rc;
    for (int64_t i = from; i < to && rc == 0; i++)
        rc = write_values(w, &spec[i], e);
    if (rc == 0)
        return st_finish(w, e);
    st_abandon(w);
    return rc;
}

/* n tensors over 'files' files, and the index that names them. */
static int write_all(const char *folder, int64_t n, int files, struct err *e)
{
    struct buf index = { 0 };
    char name[64], *path = path_join(folder, "model.safetensors.index.json");
    int rc = buf_printf(&index, e, "{\"metadata\":{},\"weight_map\":{");

    for (int f = 0; f < files && rc == 0; f++) {
        int64_t from = n * f / files, to = n * (f + 1) / files;

        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", f + 1, files);
        rc = write_file(folder, name, from, to, e);
        for (int64_t i = from; i < to && rc == 0; i++)
            rc = buf_printf(&index, e, "%s\"%s\":\"%s\"", i ? "," : "", spec[i].name, name);
    }
    if (rc == 0 && (rc = buf_printf(&index, e, "}}\n")) == 0)
        rc = file_replace(path, index.p, index.len, e);
    buf_free(&index);
    free(path);
    return rc;
}

int main(int argc, char **argv)
{
    struct llama_config c;
    struct err e = { 0 };
    int64_t n = 0;
    int files = argc > 3 ? atoi(argv[3]) : 3, rc;
    char *path;

    if (argc < 3 || files < 1 || files > 1000) {
        fprintf(stderr, "usage: make_model config.json FOLDER [FILES]\n");
        return 64;
    }
    rc = config_read(&c, argv[1], &e);
    if (rc == 0 && (n = config_tensors(&c)) > MOST_TENSORS)
        rc = err_set(&e, E_CONFIG, "'%s' has %lld tensors, too many", argv[1], (long long)n);
    if (rc == 0 && (rc = dir_make(argv[2], &e)) == 0) {
        make_noise();
        for (int64_t i = 0; i < n; i++) {
            config_tensor(&c, i, &spec[i]);
            decl[i] = (struct st_decl){ spec[i].name, &type_bf16, spec[i].dims,
                                        { spec[i].shape[0], spec[i].shape[1] } };
        }
        path = path_join(argv[2], "config.json");
        if ((rc = config_write(&c, NULL, "bfloat16", path, &e)) == 0)
            rc = write_all(argv[2], n, files, &e);
        free(path);
    }
    if (rc < 0)
        fprintf(stderr, "make_model: %s\n", e.msg);
    return rc < 0 ? -rc : 0;
}
