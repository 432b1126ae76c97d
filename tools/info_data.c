/* tools/info_data.c - shards, token streams and raw ids, described and verified; see info.h. */
#include "tools/info.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/left_out.h"
#include "formats/tokens/manifest.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void set(json_t *o, const char *key, json_t *v) { json_object_set_new(o, key, v); }
static void set_int(json_t *o, const char *key, int64_t v) { set(o, key, json_integer(v)); }
static void set_text(json_t *o, const char *key, const char *v) { set(o, key, json_string(v)); }

/* What a reader must know of the tokens to use them. */
static void show_token_info(const struct token_info *t, json_t *out)
{
    set_text(out, "tokenizer", t->tokenizer);
    set_text(out, "fingerprint", t->fingerprint);
    set_int(out, "vocab", t->vocab);
    set_int(out, "token_bytes", t->width);
    set_int(out, "bos", t->bos);
    set_int(out, "eos", t->eos);
    set(out, "adds_bos", json_boolean(t->adds_bos));
    set(out, "adds_eos", json_boolean(t->adds_eos));
}

/* One source with its counts, as a row of a list. */
static json_t *source_row(const char *name, int64_t docs, int64_t tokens, int64_t text_bytes)
{
    return json_pack("{ss sI sI sI}", "name", name, "documents", (json_int_t)docs, "tokens",
                     (json_int_t)tokens, "text_bytes", (json_int_t)text_bytes);
}

static json_t *source_rows(const struct source_table *t)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < t->n; i++)
        json_array_append_new(list, source_row(t->v[i].name, t->v[i].docs, t->v[i].tokens,
                                               t->v[i].text_bytes));
    return list;
}

/* What was left out, source by source; nothing where nothing was. */
static void show_left_out(const struct tally *t, json_t *out)
{
    json_t *all = left_out_json(t), *list = json_array(), *one;
    const char *name;

    json_object_foreach(all, name, one) {
        /* The empty name stands for what has no source: what could not be read. */
        json_t *row = json_pack("{ss}", "name", *name ? name : "(unread)");
        json_object_update(row, one);
        json_array_append_new(list, row);
    }
    if (json_array_size(list) > 0)
        set(out, "left_out", json_incref(list));
    json_decref(list);
    json_decref(all);
    if ((one = false_copies_json(t)))
        set(out, "false_duplicates", one);
    /* The expected number of such documents is kept as a whole number of parts, TALLY_CHANCE of
     * which are one document. */
    if (t->false_copies >= TALLY_MANY_FALSE)
        log_warn("about %.3g documents were left out as copies by mistake: lprep's "
                 "--dedup-memory was too small", (double)t->false_copies / TALLY_CHANCE);
}

/* One split: totals, its sources and, where all was asked for, its files. */
static json_t *split_row(const struct manifest_split *s, bool verbose)
{
    json_t *o = json_pack("{ss sI sI sI sI sI so}", "name", s->name, "documents",
                          (json_int_t)s->docs, "tokens", (json_int_t)s->tokens, "text_bytes",
                          (json_int_t)s->text_bytes, "text_words", (json_int_t)s->text_words,
                          "shards", (json_int_t)s->n_shards, "sources",
                          source_rows(&s->sources));
    json_t *files = verbose ? json_array() : NULL;

    for (int64_t i = 0; files && i < s->n_shards; i++)
        json_array_append_new(files, json_pack("{ss sI sI sI}", "file", s->shards[i].file,
                              "bytes", (json_int_t)s->shards[i].bytes, "documents",
                              (json_int_t)s->shards[i].docs, "tokens",
                              (json_int_t)s->shards[i].tokens));
    if (files)
        set(o, "files", files);
    return o;
}

/* Opening a split checks sizes, headers and footers against the manifest; verifying reads all,
 * a file a thread. */
static int open_splits(const char *folder, const struct manifest *m, bool verify, struct err *e)
{
    struct pool *team = verify ? pool_open(0, e) : NULL;
    struct dataset *d;
    /* Without --verify no team is wanted, and its absence is no error. */
    int rc = verify && !team ? e->code : 0;

    for (int i = 0; i < m->n_splits && rc == 0; i++)
        if ((rc = dataset_open(&d, folder, m->splits[i].name, 0, e)) == 0) {
            rc = verify ? dataset_verify(d, team, e) : 0;
            dataset_close(d);
        }
    pool_close(team);
    return rc;
}

/* The files of a split together. */
static int64_t split_bytes(const struct manifest_split *s)
{
    int64_t bytes = 0;

    for (int64_t i = 0; i < s->n_shards; i++)
        bytes += s->shards[i].bytes;
    return bytes;
}

/* A whole data set, by its manifest; --verify reads every shard of it, too. */
static int shards_info(const char *path, const struct info_options *o, json_t *out,
                       struct err *e)
{
    char *folder = info_folder(path);
    int64_t docs = 0, tokens = 0, bytes = 0;
    /* json_incref below: both lists are freed at the end, whether or not they were used. */
    json_t *splits = json_array(), *command = json_array();
    struct manifest *m = NULL;
    int rc = folder ? manifest_read(&m, folder, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0)
        rc = open_splits(folder, m, o->verify, e);
    for (int i = 0; rc == 0 && i < m->n_splits; i++) {
        docs += m->splits[i].docs;
        tokens += m->splits[i].tokens;
        json_array_append_new(splits, split_row(&m->splits[i], o->verbose));
        bytes += split_bytes(&m->splits[i]);
    }
    for (int i = 0; rc == 0 && i < m->n_command; i++)
        json_array_append_new(command, json_string(m->command[i]));
    if (rc == 0) {
        set_text(out, "form", "shards");
        set_int(out, "documents", docs);
        set_int(out, "tokens", tokens);
        show_token_info(&m->info, out);
        set_int(out, "seed", m->seed);
        set(out, "shuffled", json_boolean(m->shuffled));
        set(out, "splits", json_incref(splits));
        show_left_out(&m->left_out, out);
        set(out, "command", json_incref(command));
        if (o->verify)
            set_int(out, "verified", bytes);
    }
    json_decref(splits);
    json_decref(command);
    manifest_free(m);
    free(folder);
    return rc;
}

/* One shard by itself, without the data set's manifest. A footer that does not fit is an error
 * of the parser's, and the path is put before it. */
static int shard_info(const char *path, const struct info_options *o, json_t *out,
                      struct err *e)
{
    json_t *sources = json_array();
    struct shard s;
    const void *map = NULL;
    size_t n = 0;
    int rc = file_map(path, &map, &n, e);

    /* The parser knows no path, so it is put before the message here. */
    if (rc == 0 && ((rc = shard_parse(&s, map, n, e)) < 0 ||
                    (o->verify && (rc = shard_verify(&s, NULL, e)) < 0)))
        err_within(e, "'%s'", path);
    if (rc == 0) {
        for (int64_t i = 0; i < s.n_sources; i++) {
            int64_t docs, tokens, bytes;
            const char *name = shard_source(&s, i, &docs, &tokens, &bytes);
            json_array_append_new(sources, source_row(name, docs, tokens, bytes));
        }
        set_text(out, "form", "shard");
        set_int(out, "documents", s.n_docs);
        set_int(out, "tokens", s.n_tokens);
        set_int(out, "masked", s.masked);
        set_int(out, "text_bytes", s.text_bytes);
        set_int(out, "text_words", s.text_words);
        show_token_info(&s.info, out);
        set(out, "sources", json_incref(sources));
        set_int(out, "bytes", (int64_t)n);
        if (o->verify)
            set_int(out, "verified", (int64_t)n);
    }
    json_decref(sources);
    file_unmap(map, n);
    return rc;
}

/* A stream has no counts but at its end: it is read, and thereby verified, whole. */
static int stream_info_of(const char *path, json_t *out, struct err *e)
{
    bool from_stdin = strcmp(path, "-") == 0;
    int64_t docs = 0, tokens = 0, masked = 0, bytes = 0, words = 0;
    struct source_table t = {0};
    struct stream_reader *r = NULL;
    struct token_doc d;
    int fd = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    rc = stream_open(&r, fd, from_stdin ? "standard input" : path, e);
    while (rc == 0 && (rc = stream_read(r, &d, e)) == 1) {
        int64_t at = source_add(&t, d.source, 1, d.n_ids, d.text_bytes, e);
        rc = at < 0 ? (int)at : 0;
        docs++;
        tokens += d.n_ids;
        bytes += d.text_bytes;
        words += d.text_words;
        /* Masked tokens are kept as runs, so the counts are added up. */
        for (int64_t i = 0; i < d.n_runs; i++)
            masked += d.runs[i].count;
    }
    if (rc == 0) {
        set_text(out, "form", "token stream");
        set_int(out, "documents", docs);
        set_int(out, "tokens", tokens);
        set_int(out, "masked", masked);
        set_int(out, "text_bytes", bytes);
        set_int(out, "text_words", words);
        show_token_info(stream_info(r), out);
        set(out, "sources", source_rows(&t));
        show_left_out(stream_tally(r), out);
    }
    source_free(&t);
    stream_close(r);
    if (!from_stdin)
        close(fd);
    return rc;
}

/* There is no header, so all that can be told is how many ids there are and how large. */
static int raw_info(const char *path, json_t *out, struct err *e)
{
    enum { STEP = 65536 };
    /* -1: of no ids at all, the largest. */
    int32_t *ids = malloc(STEP * sizeof *ids), max = -1;
    struct dataset *d = NULL;
    int64_t n = 0;
    int rc = ids ? dataset_open_raw(&d, path, NULL, 0, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0)
        n = dataset_tokens(d);
    for (int64_t i = 0, k; i < n && rc == 0; i += k) {
        k = n - i < STEP ? n - i : STEP;
        rc = dataset_read(d, i, k, ids, NULL, e);
        for (int64_t j = 0; rc == 0 && j < k; j++)
            max = ids[j] > max ? ids[j] : max;
    }
    if (rc == 0) {
        set_text(out, "form", dataset_form(d));
        set_int(out, "tokens", n);
        set_int(out, "largest_id", max);
    }
    dataset_close(d);
    free(ids);
    return rc;
}

int info_data(const char *path, enum info_kind kind, const struct info_options *o, json_t *out,
              struct err *e)
{
    switch (kind) {
    case INFO_SHARDS: return shards_info(path, o, out, e);
    case INFO_SHARD: return shard_info(path, o, out, e);
    case INFO_STREAM: return stream_info_of(path, out, e);
    default: return raw_info(path, out, e);
    }
}
