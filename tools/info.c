/* tools/info.c - which form a path has, and printing what is known of it; see info.h. */
#include "tools/info.h"

#include "base/file.h"
#include "base/magic.h"
#include "base/utf8.h"
#include "formats/tokens/interop.h"
#include "formats/tokens/manifest.h"
#include "formats/tokens/shard.h"
#include "formats/weights/checkpoint.h"
#include "formats/weights/session_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool has_file(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    bool yes = path_exists(path);

    free(path);
    return yes;
}

/* The folder itself, or the one that a file is in; malloc'ed. */
char *info_folder(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (path_is_dir(path))
        return strdup(path);
    return slash ? strndup(path, (size_t)(slash - path) + (slash == path)) : strdup(".");
}

/* The error for what linfo does not show, with what it is where that is known. */
static int unknown(const char *path, const struct magic_form *m, struct err *e)
{
    if (m && m->form == MAGIC_LFS) {
        err_set(e, E_DATA, "'%s' is %s, not the file itself", path, m->name);
        return err_hint(e, "%s", m->remedy);
    }
    if (m)
        err_set(e, E_DATA, "'%s' is %s, which linfo does not show", path, m->name);
    else
        err_set(e, E_DATA, "'%s' is not of a known format", path);
    return err_hint(e, "known: shards, shard, token stream, model, adapter, safetensors, "
                    "tokenizer, lgen's sessions, llm.c's and Megatron's tokens; u16 ids with --raw");
}

/* The order matters: an adapter's folder has a config.json too. */
static int kind_of_folder(const char *path, enum info_kind *kind, struct err *e)
{
    if (has_file(path, MANIFEST_FILE))
        *kind = INFO_SHARDS;
    else if (has_file(path, MANIFEST_JOURNAL))
        *kind = INFO_JOURNAL;
    else if (has_file(path, "adapter_config.json"))
        *kind = INFO_ADAPTER;
    else if (has_file(path, "config.json"))
        *kind = INFO_MODEL;
    else if (has_file(path, CHECKPOINT_MANIFEST))
        *kind = INFO_CHECKPOINT;
    else if (has_file(path, "checkpoints"))
        *kind = INFO_RUN;
    else
        return unknown(path, NULL, e);
    return 0;
}

/* Does the path end so, with something before it? */
static bool is_called(const char *path, const char *ending)
{
    size_t n = strlen(path), k = strlen(ending);

    return n > k && strcmp(path + n - k, ending) == 0;
}

/* What is damaged at its start is still shown as what it is called, so that the error says how. */
static int kind_of_bytes(const char *path, const char *p, size_t n, bool whole,
                         enum info_kind *kind, struct err *e)
{
    /* 1 is added, as 0 stands for forms that are not listed. */
    static const enum info_kind of[] = {
        [MAGIC_SHARD] = INFO_SHARD + 1,           [MAGIC_STREAM] = INFO_STREAM + 1,
        [MAGIC_LLMC] = INFO_LLMC + 1,             [MAGIC_MEGATRON] = INFO_MEGATRON + 1,
        [MAGIC_SAFETENSORS] = INFO_TENSORS + 1,   [MAGIC_SENTENCEPIECE] = INFO_TOKENIZER + 1,
        [MAGIC_TIKTOKEN] = INFO_TOKENIZER + 1,    [MAGIC_TOKENIZER_JSON] = INFO_TOKENIZER + 1,
        [MAGIC_OTHER] = 0,
    };
    const struct magic_form *m = magic_of(p, n, whole);

    if (session_is(p, n))
        *kind = INFO_SESSION;
    else if (m && of[m->form])
        *kind = of[m->form] - 1;
    else if (!m && shard_is(p, n))
        *kind = INFO_SHARD;
    else if (!m && (is_called(path, ".safetensors") || (n >= 9 && p[8] == '{')))
        *kind = INFO_TENSORS;
    else if (!m && n >= 3 && p[0] == '\n' && (p[2] == '\n' || is_called(path, ".model")))
        *kind = INFO_TOKENIZER;
    else
        return unknown(path, m, e);
    return 0;
}

int info_kind_of(const char *path, bool raw, enum info_kind *kind, struct err *e)
{
    const char *base = strrchr(path, '/');
    char first[MAGIC_LOOK_BYTES];
    struct stat st;
    size_t n = 0;
    ssize_t k;
    int fd;

    /* Standard input can only be read on, so only a stream fits. */
    *kind = INFO_STREAM;
    if (strcmp(path, "-") == 0)
        return 0;
    if (stat(path, &st) < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    if (S_ISDIR(st.st_mode))
        return kind_of_folder(path, kind, e);
    if (!S_ISREG(st.st_mode)) /* nothing to look ahead in: only a stream goes through */
        return 0;
    base = base ? base + 1 : path;
    if (strcmp(base, MANIFEST_FILE) == 0 || strcmp(base, MANIFEST_JOURNAL) == 0) {
        *kind = strcmp(base, MANIFEST_FILE) == 0 ? INFO_SHARDS : INFO_JOURNAL;
        return 0;
    }
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    /* Reads may be short, so until there is enough to look at or the file ends. */
    while (n < sizeof first && ((k = read(fd, first + n, sizeof first - n)) > 0 ||
                                (k < 0 && errno == EINTR)))
        n += k > 0 ? (size_t)k : 0;
    if (n < sizeof first && k < 0)
        /* The error is set before close, which may change errno. */
        err_sys(e, E_IO, "cannot read '%s'", path);
    close(fd);
    if (n < sizeof first && k < 0)
        return E_IO;
    /* Such ids look like nothing in particular, so the user has to say it. */
    if (raw) {
        *kind = INFO_RAW;
        return 0;
    }
    return kind_of_bytes(path, first, n, n < sizeof first, kind, e);
}

int info_describe(const char *path, enum info_kind kind, const struct info_options *o,
                  json_t **out, struct err *e)
{
    json_t *j = json_object();
    int rc = j ? 0 : err_set(e, E_SYS, "out of memory");

    *out = NULL;
    if (rc == 0) {
        json_object_set_new(j, "path", json_string(path));
        /* The kinds are numbered by group: data first, then models, then files of
         * other programs. */
        rc = kind <= INFO_RAW        ? info_data(path, kind, o, j, e)
             : kind >= INFO_LLMC     ? info_interop(path, kind, j, e)
             : kind == INFO_JOURNAL  ? info_journal(path, o, j, e)
             : kind == INFO_SESSION  ? info_session(path, o, j, e)
                                     : info_model(path, kind, o, j, e);
    }
    if (rc < 0)
        json_decref(j);
    else
        *out = j;
    return rc;
}

/* What comes from a file may hold codes that a terminal would obey. */
void info_print_text(const char *s, FILE *f)
{
    char *clean = strdup(s);

    if (clean)
        text_clean(clean, false);
    fputs(clean ? clean : "?", f);
    free(clean);
}

/* To a terminal no raw bytes go out; a pipe gets UTF-8. */
size_t info_json_flags(void) { return isatty(STDOUT_FILENO) ? JSON_ENSURE_ASCII : 0; }

static void print_scalar(const json_t *v, FILE *f)
{
    if (json_is_string(v))
        info_print_text(json_string_value(v), f);
    else if (json_is_integer(v))
        fprintf(f, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        fprintf(f, "%.10g", json_real_value(v));
    else
        fputs(json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "none", f);
}

static bool is_scalar(const json_t *v) { return !json_is_object(v) && !json_is_array(v); }

/* It stands on one line: a scalar, an array of them, or an object of these two. */
static bool is_flat(const json_t *v)
{
    bool flat = true;
    const char *key;
    json_t *x;
    size_t i;

    /* Both loops pass over values that are neither: jansson's macros do
     * nothing for another type. */
    json_array_foreach(v, i, x)
        flat &= is_scalar(x);
    json_object_foreach((json_t *)(uintptr_t)v, key, x)
        flat &= !json_is_object(x) && is_flat(x);
    return flat;
}

/* The value, indented by depth where it takes lines. item: after the "- " of an array, where
 * an object's first field stays on that line. Depth ends at what info_describe builds. */
static void print_value(const json_t *v, int depth, bool item, FILE *f)
{
    bool flat = is_flat(v), first = true;
    const char *key;
    json_t *x;
    size_t i;

    if (is_scalar(v))
        print_scalar(v, f);
    json_array_foreach(v, i, x) {
        if (!flat)
            fprintf(f, "\n%*s- ", depth, "");
        else if (i)
            fputc(' ', f);
        print_value(x, depth + 2, true, f);
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, x) {
        if (!flat && !(first && item))
            fprintf(f, "\n%*s", depth, "");
        else if (!first)
            /* Text where it is flat goes on the same line, after two spaces. */
            fputs("  ", f);
        info_print_text(key, f);
        fputs(is_flat(x) ? " " : "", f);
        print_value(x, depth + 2, false, f);
        first = false;
    }
}

void info_print(const json_t *o, FILE *f)
{
    const json_t *path = json_object_get(o, "path");
    const char *key;
    json_t *v;

    print_scalar(path, f);
    fputc('\n', f);
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        /* The path is the first line already. */
        if (v == path)
            continue;
        fprintf(f, is_flat(v) ? "  %-14s " : "  %s", key);
        print_value(v, 4, false, f);
        fputc('\n', f);
    }
}
