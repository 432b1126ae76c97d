/* formats/tokens/manifest.c - see manifest.h; keys and rules stand in manifest.md.
 *
 * The manifest names every shard of a data set by split, with its size, counts and hashes. It
 * is written last, so that a folder with a manifest is complete. Counts stand there more than
 * once (by shard, by source, by split, in all), and a reader checks that they agree. */
#include "formats/tokens/manifest.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/sealed.h"
#include "formats/tokens/document.h"
#include "formats/tokens/info_json.h"
#include "base/json.h"
#include "formats/tokens/left_out.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names of splits become part of file names, so only these, '.', '_' and '-' are allowed. */
#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

bool split_name_ok(const char *s)
{
    size_t n = strlen(s);

    return n >= 1 && n <= 63 && strchr(ALNUM, s[0]) && strspn(s, ALNUM "._-") == n;
}

struct manifest *manifest_new(void)
{
    return calloc(1, sizeof(struct manifest));
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_splits; i++) {
        source_free(&m->splits[i].sources);
        free(m->splits[i].shards);
    }
    for (int i = 0; i < m->n_command; i++)
        free(m->command[i]);
    tally_free(&m->left_out);
    free(m->command);
    free(m);
}

const struct manifest_split *manifest_find(const struct manifest *m, const char *name)
{
    for (int i = 0; i < m->n_splits; i++)
        if (strcmp(m->splits[i].name, name) == 0)
            return &m->splits[i];
    return NULL;
}

/* The split of that name, made if need be; NULL when there are too many. */
struct manifest_split *manifest_add_split(struct manifest *m, const char *name)
{
    struct manifest_split *s;

    for (int i = 0; i < m->n_splits; i++)
        if (strcmp(m->splits[i].name, name) == 0)
            return &m->splits[i];
    if (m->n_splits == MANIFEST_MAX_SPLITS)
        return NULL;
    s = &m->splits[m->n_splits++];
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

/* The quick comparison, without reading the tokens: the footer's hash covers the checksums of
 * all other parts, so another file of the same size is found too. */
int manifest_check_shard(const struct manifest_shard *h, const struct shard *s, const char *path,
                         struct err *e)
{
    if (s->nbytes != (uint64_t)h->bytes)
        return err_set(e, E_DATA, "'%s' has %zu bytes, the manifest says %lld", path, s->nbytes,
                       (long long)h->bytes);
    if (s->n_docs != h->docs || s->n_tokens != h->tokens)
        return err_set(e, E_DATA, "'%s' has %lld documents and %lld tokens, the manifest says "
                       "%lld and %lld", path, (long long)s->n_docs, (long long)s->n_tokens,
                       (long long)h->docs, (long long)h->tokens);
    if (s->footer_hash != h->footer_hash)
        return err_set(e, E_DATA, "'%s' is not the file that the manifest lists: another hash",
                       path);
    return 0;
}

/* The slow comparison, which reads every byte of the file. */
int manifest_verify_shard(const struct manifest_shard *h, const char *path, struct err *e)
{
    struct shard s;
    const void *map;
    size_t n;
    int rc = file_map(path, &map, &n, e);

    if (rc < 0)
        return rc;
    if ((rc = shard_parse(&s, map, n, e)) < 0)
        err_within(e, "'%s'", path);
    else if ((rc = manifest_check_shard(h, &s, path, e)) == 0 &&
             (rc = shard_verify(&s, h->hash, e)) < 0)
        err_within(e, "'%s'", path);
    file_unmap(map, n);
    return rc;
}

int manifest_add_shard(struct manifest_split *s, const struct manifest_shard *shard,
                       struct err *e)
{
    int rc = array_grow(&s->shards, &s->cap_shards, (size_t)s->n_shards, sizeof *shard, 8, "shards", e);

    if (rc == 0)
        s->shards[s->n_shards++] = *shard;
    return rc;
}

/* Lower-case hex digits, exactly n. */
static bool is_hex(const char *s, size_t n)
{
    return strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

/* One entry of a split's list of shards. */
static int parse_shard(struct manifest_split *s, const struct js *o, struct err *e)
{
    struct manifest_shard sh = {0};
    const char *file, *hash, *footer;
    int rc;

    if ((rc = js_str(o, "file", JS_MUST, &file, e)) < 0 ||
        (rc = js_i64(o, "bytes", JS_MUST, 0, INT64_MAX, &sh.bytes, e)) < 0 ||
        (rc = js_str(o, "xxh3_128", JS_MUST, &hash, e)) < 0 ||
        (rc = js_str(o, "footer", JS_MUST, &footer, e)) < 0 ||
        (rc = js_i64(o, "documents", JS_MUST, 0, INT64_MAX, &sh.docs, e)) < 0 ||
        (rc = js_i64(o, "tokens", JS_MUST, 0, INT64_MAX, &sh.tokens, e)) < 0)
        return rc;
    /* A name from the manifest must not lead out of its folder, nor to a hidden file. */
    if (!*file || *file == '.' || strchr(file, '/') || strlen(file) >= sizeof sh.file)
        return err_set(e, E_DATA, "'%s': field '%sfile' is not the name of a file in its folder",
                       o->file, o->path);
    if (!is_hex(hash, 32))
        return err_set(e, E_DATA, "'%s': field '%sxxh3_128' is not 32 hex digits", o->file,
                       o->path);
    if (!is_hex(footer, 16))
        return err_set(e, E_DATA, "'%s': field '%sfooter' is not 16 hex digits", o->file, o->path);
    /* All three were checked above to fit. */
    snprintf(sh.file, sizeof sh.file, "%s", file);
    snprintf(sh.hash, sizeof sh.hash, "%s", hash);
    sh.footer_hash = strtoull(footer, NULL, 16);
    return manifest_add_shard(s, &sh, e);
}

/* What a split has of each source: documents, tokens, bytes of text. */
static int parse_sources(struct manifest_split *s, const struct js *o, struct err *e)
{
    struct js all, one;
    const char *key;
    json_t *value;
    int rc = js_object(o, "sources", JS_MUST, &all, e);

    if (rc < 0)
        return rc;
    json_object_foreach(all.obj, key, value) {
        int64_t docs, tokens, bytes, k;
        if (strlen(key) > DOC_SOURCE_MAX)
            return err_set(e, E_DATA, "'%s': field '%ssources' has a name of %zu bytes", o->file,
                           o->path, strlen(key));
        if ((rc = js_object(&all, key, JS_MUST, &one, e)) < 0 ||
            (rc = js_i64(&one, "documents", JS_MUST, 0, INT64_MAX, &docs, e)) < 0 ||
            (rc = js_i64(&one, "tokens", JS_MUST, 0, INT64_MAX, &tokens, e)) < 0 ||
            (rc = js_i64(&one, "text_bytes", JS_MUST, 0, INT64_MAX, &bytes, e)) < 0)
            return rc;
        if ((k = source_add(&s->sources, key, docs, tokens, bytes, e)) < 0)
            return (int)k;
    }
    return 0;
}

/* False when a sum of parts overflows or is not the whole. */
static bool sums_ok(const struct manifest_split *s)
{
    int64_t docs = 0, tokens = 0, sdocs = 0, stokens = 0, sbytes = 0;
    bool over = false;

    /* The shards and the sources are two ways to divide the same split, so both must add up to
     * it. */
    for (int64_t i = 0; i < s->n_shards; i++) {
        over |= __builtin_add_overflow(docs, s->shards[i].docs, &docs);
        over |= __builtin_add_overflow(tokens, s->shards[i].tokens, &tokens);
    }
    /* A file can name any counts, so even the sums may overflow. */
    for (int64_t i = 0; i < s->sources.n; i++) {
        over |= __builtin_add_overflow(sdocs, s->sources.v[i].docs, &sdocs);
        over |= __builtin_add_overflow(stokens, s->sources.v[i].tokens, &stokens);
        over |= __builtin_add_overflow(sbytes, s->sources.v[i].text_bytes, &sbytes);
    }
    return !over && docs == s->docs && tokens == s->tokens && sdocs == docs &&
           stokens == tokens && sbytes == s->text_bytes;
}

/* One split. On failure manifest_free still finds and frees what was read of it. */
static int parse_split(struct manifest *m, const char *name, const struct js *all,
                       struct err *e)
{
    struct manifest_split *s = &m->splits[m->n_splits];
    struct js o, item;
    json_t *shards;
    int rc;

    if (m->n_splits == MANIFEST_MAX_SPLITS)
        return err_set(e, E_DATA, "'%s': more than %d splits", all->file, MANIFEST_MAX_SPLITS);
    if (!split_name_ok(name))
        return err_set(e, E_DATA, "'%s': field 'splits' has a name that is none: '%.64s'",
                       all->file, name);
    m->n_splits++; /* from here on manifest_free sees it */
    snprintf(s->name, sizeof s->name, "%s", name);
    if ((rc = js_object(all, name, JS_MUST, &o, e)) < 0 ||
        (rc = js_i64(&o, "documents", JS_MUST, 0, INT64_MAX, &s->docs, e)) < 0 ||
        (rc = js_i64(&o, "tokens", JS_MUST, 0, INT64_MAX, &s->tokens, e)) < 0 ||
        (rc = js_i64(&o, "text_bytes", JS_MUST, 0, INT64_MAX, &s->text_bytes, e)) < 0 ||
        (rc = js_i64(&o, "text_words", JS_MUST, 0, INT64_MAX, &s->text_words, e)) < 0 ||
        (rc = parse_sources(s, &o, e)) < 0 ||
        (rc = js_array(&o, "shards", JS_MUST, &shards, e)) < 0)
        return rc;
    for (size_t i = 0; i < json_array_size(shards); i++)
        if ((rc = js_item(&o, "shards", shards, i, &item, e)) < 0 ||
            (rc = parse_shard(s, &item, e)) < 0)
            return rc;
    if (!sums_ok(s))
        return err_set(e, E_DATA, "'%s': split '%s': its shards or sources do not add up to its "
                       "documents, tokens and text_bytes", all->file, name);
    return 0;
}

/* The command line that made the data set, word by word. */
static int parse_command(struct manifest *m, const struct js *top, struct err *e)
{
    json_t *a;
    int rc = js_array(top, "command", JS_MUST, &a, e);
    size_t n;

    if (rc < 0)
        return rc;
    /* No command line is that long; this only bounds the memory. */
    if ((n = json_array_size(a)) > 65536)
        return err_set(e, E_DATA, "'%s': field 'command' has %zu words", top->file, n);
    if (!(m->command = calloc(n + 1, sizeof *m->command)))
        return err_set(e, E_SYS, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const char *s = json_string_value(json_array_get(a, i));
        if (!s)
            return err_set(e, E_DATA, "'%s': field 'command' is not an array of strings",
                           top->file);
        if (!(m->command[i] = strdup(s)))
            return err_set(e, E_SYS, "out of memory");
        m->n_command++;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* No file may stand for two shards, or a split could be trained and validated on. */
static int check_files(const struct manifest *m, const char *name, struct err *e)
{
    size_t n = 0, k = 0;
    const char **file;
    int rc = 0;

    for (int i = 0; i < m->n_splits; i++)
        n += (size_t)m->splits[i].n_shards;
    /* One more than needed, as a data set may have no shards and malloc(0) may give NULL. */
    if (!(file = malloc((n + 1) * sizeof *file)))
        return err_set(e, E_SYS, "out of memory");
    for (int i = 0; i < m->n_splits; i++)
        for (int64_t j = 0; j < m->splits[i].n_shards; j++)
            file[k++] = m->splits[i].shards[j].file;
    qsort(file, n, sizeof *file, by_name);
    for (k = 1; k < n && rc == 0; k++)
        if (strcmp(file[k - 1], file[k]) == 0)
            rc = err_set(e, E_DATA, "'%s': file '%s' is listed twice", name, file[k]);
    free(file);
    return rc;
}

/* All of the manifest. Format and version come first, because the other fields may mean
 * something else in another version. */
static int parse_top(struct manifest *m, const struct js *top, struct err *e)
{
    struct js splits;
    const char *format, *key;
    int64_t version, docs, tokens, sum_docs = 0, sum_tokens = 0;
    json_t *value;
    bool over = false;
    int rc;

    if ((rc = js_str(top, "format", JS_MUST, &format, e)) < 0)
        return rc;
    if (strcmp(format, "longlora-dataset") != 0)
        return err_set(e, E_DATA, "'%s': field 'format' is '%.64s', not 'longlora-dataset'",
                       top->file, format);
    if ((rc = js_i64(top, "version", JS_MUST, 0, INT64_MAX, &version, e)) < 0)
        return rc;
    if (version != 1)
        return err_set(e, E_DATA, "'%s': version %" PRId64 ", this reads 1", top->file, version);
    if ((rc = info_from_json(&m->info, top, e)) < 0 ||
        (rc = js_i64(top, "seed", JS_MUST, 0, MANIFEST_SEED_MAX, &m->seed, e)) < 0 ||
        (rc = js_bool(top, "shuffled", JS_MUST, &m->shuffled, e)) < 0 ||
        (rc = js_i64(top, "documents", JS_MUST, 0, INT64_MAX, &docs, e)) < 0 ||
        (rc = js_i64(top, "tokens", JS_MUST, 0, INT64_MAX, &tokens, e)) < 0 ||
        (rc = js_object(top, "splits", JS_MUST, &splits, e)) < 0 ||
        (rc = left_out_parse(&m->left_out, top, e)) < 0 ||
        (rc = false_copies_parse(&m->left_out, top, e)) < 0 || (rc = parse_command(m, top, e)) < 0)
        return rc;
    /* The last split that was added is the one just parsed; its counts go into the sums. */
    json_object_foreach(splits.obj, key, value) {
        if ((rc = parse_split(m, key, &splits, e)) < 0)
            return rc;
        over |= __builtin_add_overflow(sum_docs, m->splits[m->n_splits - 1].docs, &sum_docs);
        over |= __builtin_add_overflow(sum_tokens, m->splits[m->n_splits - 1].tokens,
                                       &sum_tokens);
    }
    if (m->n_splits == 0)
        return err_set(e, E_DATA, "'%s': field 'splits' is empty", top->file);
    if (over || sum_docs != docs || sum_tokens != tokens)
        return err_set(e, E_DATA, "'%s': the splits do not add up to the documents and tokens",
                       top->file);
    return check_files(m, top->file, e);
}

/* On failure *out is NULL and all memory is freed. */
int manifest_parse(struct manifest **out, const char *json, size_t nbytes, const char *name,
                   struct err *e)
{
    struct manifest *m = manifest_new();
    struct js top = {0};
    int rc;

    *out = NULL;
    if (!m)
        return err_set(e, E_SYS, "out of memory");
    /* First of all: damage is found before anything in the text is believed. */
    if ((rc = sealed_check(json, nbytes, name, e)) == 0 &&
        (rc = js_parse(&top, json, nbytes, name, e)) == 0) {
        rc = parse_top(m, &top, e);
        js_free(&top);
    }
    if (rc < 0) {
        manifest_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

/* Reads folder/manifest; what is missing decides the hint. */
int manifest_read(struct manifest **m, const char *folder, struct err *e)
{
    char *path = path_join(folder, MANIFEST_FILE), *text = NULL;
    char *journal = path_join(folder, MANIFEST_JOURNAL);
    size_t n;
    int rc;

    *m = NULL;
    /* The manifest is written last. A journal without a manifest is a run that was stopped. */
    if (path_is_dir(folder) && !path_exists(path)) {
        rc = err_set(e, E_NOINPUT, "'%s' has no " MANIFEST_FILE ", so it is not a data set", folder);
        if (path_exists(journal))
            err_hint(e, "a run into it did not finish: run the same command again to continue it");
        else
            err_hint(e, "'lprep ... | lpack -o FOLDER' makes one, and writes that file last");
    } else if ((rc = file_read(path, JS_MAX_BYTES, &text, &n, e)) == 0) {
        rc = manifest_parse(m, text, n, path, e);
    }
    free(text);
    free(path);
    free(journal);
    return rc;
}

/* The opposite of parse_split: the JSON of one split, as manifest.md has it. */
static json_t *split_json(const struct manifest_split *s)
{
    json_t *sources = json_object(), *shards = json_array();

    for (int64_t i = 0; i < s->sources.n; i++) {
        const struct source_count *c = &s->sources.v[i];
        json_object_set_new(sources, c->name,
                            json_pack("{sIsIsI}", "documents", (json_int_t)c->docs, "tokens",
                                      (json_int_t)c->tokens, "text_bytes",
                                      (json_int_t)c->text_bytes));
    }
    for (int64_t i = 0; i < s->n_shards; i++) {
        const struct manifest_shard *h = &s->shards[i];
        char footer[17];
        snprintf(footer, sizeof footer, "%016" PRIx64, h->footer_hash);
        json_array_append_new(shards,
                              json_pack("{sssIsIsIssss}", "file", h->file, "documents",
                                        (json_int_t)h->docs, "tokens", (json_int_t)h->tokens,
                                        "bytes", (json_int_t)h->bytes, "xxh3_128", h->hash,
                                        "footer", footer));
    }
    return json_pack("{sIsIsIsIsoso}", "documents", (json_int_t)s->docs, "tokens",
                     (json_int_t)s->tokens, "text_bytes", (json_int_t)s->text_bytes, "text_words",
                     (json_int_t)s->text_words, "sources", sources, "shards", shards);
}

/* The sums over the splits are made here, so that they cannot differ from them. */
char *manifest_text(const struct manifest *m)
{
    json_t *splits = json_object(), *command = json_array(), *top;
    int64_t docs = 0, tokens = 0;
    char *text;

    for (int i = 0; i < m->n_splits; i++) {
        json_object_set_new(splits, m->splits[i].name, split_json(&m->splits[i]));
        docs += m->splits[i].docs;
        tokens += m->splits[i].tokens;
    }
    for (int i = 0; i < m->n_command; i++)
        json_array_append_new(command, json_string(m->command[i]));
    /* "so*" leaves the field out where its value is NULL: no false duplicates were expected. */
    top = json_pack("{sssisosIsbsIsIsoso so* so}", "format", "longlora-dataset", "version", 1,
                    "tokenizer", info_to_json(&m->info), "seed", (json_int_t)m->seed, "shuffled",
                    (int)m->shuffled, "documents", (json_int_t)docs, "tokens",
                    (json_int_t)tokens, "splits", splits, "left_out",
                    left_out_json(&m->left_out), "false_duplicates",
                    false_copies_json(&m->left_out), "command", command);
    text = top ? sealed_text(top) : NULL;
    json_decref(top);
    return text;
}

/* Replaces the file in one step: a reader finds the old manifest or the new one. */
int manifest_put(const char *text, const char *folder, struct err *e)
{
    char *path = path_join(folder, MANIFEST_FILE);
    int rc = file_replace(path, text, strlen(text), e);

    free(path);
    return rc;
}

int manifest_write(const struct manifest *m, const char *folder, struct err *e)
{
    char *text = manifest_text(m);
    int rc = text ? manifest_put(text, folder, e) : err_set(e, E_SYS, "out of memory");

    free(text);
    return rc;
}
