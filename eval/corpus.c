/* eval/corpus.c - see corpus.h. */
#include "eval/corpus.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/magic.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/shard.h"
#include "formats/tokenizer/tokenizer.h"
#include "model/model_tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* How much of a file is looked at to tell its form. */
enum { HEAD_BYTES = 64 << 10 };
#define TEXT_MAX_BYTES ((size_t)256 << 20)

struct corpus {
    struct dataset *data; /* or, for text, what follows */
    int32_t *ids;
    struct corpus_doc text;
    uint64_t text_hash;
    int64_t use, docs; /* tokens and documents in use */
    bool all_tokens;
    char split[64];
    char warning[1024];
};

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);

    return n > k && strcasecmp(name + n - k, suffix) == 0;
}

/* True when the bytes could be the start of a text: UTF-8 without NUL. Where only the head
 * of a file was read, a character of up to 4 bytes may be cut at its end. */
static bool looks_text(const char *p, size_t n)
{
    size_t at;

    if (memchr(p, '\0', n))
        return false;
    return utf8_valid(p, n, &at) || (n >= HEAD_BYTES && n - at < 4);
}

/* The name of a form that is refused, or NULL. JSON is text, but its syntax would be scored
 * with it. Shards are read here, UTF-16 without a mark looks like raw ids, and a file of
 * llm.c is looked at when the data set is opened: these three are let pass. */
static const char *other_form(const char *name, const char *p, size_t n,
                              const struct magic_form **m)
{
    const char *text = magic_text(p, n);

    *m = magic_of(p, n, n < HEAD_BYTES);
    if (*m && (*m)->form != MAGIC_SHARD && (*m)->form != MAGIC_LLMC &&
        (*m)->form != MAGIC_UTF16_BARE)
        return (*m)->name;
    return has_suffix(name, ".json") || has_suffix(name, ".jsonl") ||
                   has_suffix(name, ".ndjson") || (text && strcmp(text, "JSON") == 0)
               ? "JSON" : NULL;
}

/* Tells the form from the first bytes and the name: an error, or a corpus_form. Signs in the
 * bytes come first, then the name's ending, then whether it looks like text. */
int corpus_sniff(const char *name, const void *head, size_t nbytes, struct err *e)
{
    const struct magic_form *m;
    const char *p = head, *why = other_form(name, p, nbytes, &m);

    if (m && m->form == MAGIC_STREAM) {
        err_set(e, E_DATA, "'%s' is a token stream, which cannot be read twice", name);
        return err_hint(e, "pack it: lpack < %s > packed.shard", name);
    }
    if (why) {
        err_set(e, E_DATA, "'%s' is %s, not text, token ids or shards", name, why);
        if (m && m->form == MAGIC_MEGATRON)
            return err_hint(e, "import it: lpack --import megatron %s > packed.shard", name);
        if (m && m->form > MAGIC_TAR)
            return err_hint(e, "%s", m->remedy);
        return err_hint(e, "prepare it: lprep %s -t TOKENIZER | lpack > packed.shard",
                        name);
    }
    if (shard_is(p, nbytes))
        return FORM_SHARDS;
    if (strcmp(name, "-") == 0 || has_suffix(name, ".txt") || has_suffix(name, ".text") ||
        has_suffix(name, ".md"))
        return FORM_TEXT;
    if (has_suffix(name, ".shard"))
        return FORM_SHARDS;
    if (has_suffix(name, ".bin"))
        return FORM_RAW;
    return looks_text(p, nbytes) ? FORM_TEXT : FORM_RAW;
}

/* The first bytes of a file; 0 or an error. */
static int read_head(const char *path, char *head, size_t *n, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t k = 0;
    int rc = 0;

    *n = 0;
    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    /* A read may return less than was asked for. */
    while (*n < HEAD_BYTES && ((k = read(fd, head + *n, HEAD_BYTES - *n)) > 0 ||
                               (k < 0 && errno == EINTR)))
        *n += k > 0 ? (size_t)k : 0;
    if (k < 0)
        rc = err_sys(e, errno == EISDIR ? E_NOINPUT : E_IO, "cannot read '%s'", path);
    close(fd);
    return rc;
}

/* The form that is asked for, or the one that the path shows. A pipe or device is refused,
 * because reading its head would use it up. */
static int form_of(const struct corpus_options *o, enum corpus_form *form, struct err *e)
{
    struct stat st;
    char *head;
    size_t n;
    int rc;

    *form = o->form;
    if (o->form != FORM_AUTO)
        return 0;
    if (strcmp(o->path, "-") == 0 || path_is_dir(o->path)) {
        *form = *o->path == '-' && !o->path[1] ? FORM_TEXT : FORM_SHARDS;
        return 0;
    }
    if (stat(o->path, &st) == 0 && !S_ISREG(st.st_mode)) {
        err_set(e, E_DATA, "'%s' is not a file or folder", o->path);
        return err_hint(e, "to pipe text in, use - for standard input");
    }
    if (!(head = malloc(HEAD_BYTES)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = read_head(o->path, head, &n, e)) == 0 &&
        (rc = corpus_sniff(o->path, head, n, e)) >= 0) {
        *form = (enum corpus_form)rc;
        rc = 0;
    }
    free(head);
    return rc;
}

/* Standard input into b, to its end. */
static int read_stdin(struct buf *b, struct err *e)
{
    ssize_t k;
    int rc;

    /* At most 1 MiB at a time; a read that a signal interrupted is repeated. */
    do {
        if ((rc = buf_reserve(b, 1 << 20, e)) < 0)
            return rc;
        k = read(STDIN_FILENO, b->p + b->len, 1 << 20);
        if (k < 0 && errno != EINTR)
            return err_sys(e, E_IO, "cannot read standard input");
        b->len += k > 0 ? (size_t)k : 0;
        if (b->len > TEXT_MAX_BYTES)
            return err_set(e, E_DATA, "standard input is longer than 256 MiB");
    } while (k != 0);
    return 0;
}

/* Turns text into ids, after a BOS if one was asked for. The corpus is then one document. */
static int encode(struct corpus *c, const struct corpus_options *o, const char *text, size_t n,
                  struct err *e)
{
    struct tokenizer *t = NULL;
    int32_t *ids = NULL, bos;
    int64_t count;
    int rc = tokenizer_open(&t, o->tokenizer, e);

    if (rc == 0 && tokenizer_vocab(t) > o->vocab)
        rc = err_set(e, E_CONFIG, "tokenizer '%s' has %" PRId64 " pieces, the model a "
                     "vocabulary of %" PRId64, o->tokenizer, tokenizer_vocab(t), o->vocab);
    if (rc == 0 && o->add_bos && tokenizer_bos(t) < 0)
        rc = err_set(e, E_CONFIG, "tokenizer '%s' has no BOS to add", o->tokenizer);
    if (rc == 0)
        rc = tokenizer_encode(t, text, n, &ids, &count, e);
    if (rc == 0) {
        bos = o->add_bos ? 1 : 0;
        c->text = (struct corpus_doc){ 0, count + bos, count + bos, (int64_t)n,
                                       text_words(text, n), bos, 0 };
        c->text_hash = XXH3_64bits(text, n);
        /* One more than needed, so that malloc is never asked for 0 bytes. */
        if (!(c->ids = malloc((size_t)(count + bos + 1) * sizeof *ids))) {
            rc = err_set(e, E_SYS, "out of memory for %" PRId64 " tokens", count);
        } else {
            if (count)
                memcpy(c->ids + bos, ids, (size_t)count * sizeof *ids);
            if (bos)
                c->ids[0] = tokenizer_bos(t);
        }
    }
    free(ids);
    tokenizer_close(t);
    return rc;
}

/* All of standard input, which must not be one of the forms that files are refused for. */
static int take_stdin(const struct corpus_options *o, struct buf *in, struct err *e)
{
    int rc = read_stdin(in, e);

    if (rc < 0 || o->form != FORM_AUTO)
        return rc;
    rc = corpus_sniff("-", in->p, in->len < HEAD_BYTES ? in->len : HEAD_BYTES, e);
    if (rc != FORM_SHARDS)
        return rc < 0 ? rc : 0;
    err_set(e, E_DATA, "standard input is a shard, which cannot be read from a pipe");
    return err_hint(e, "give the name of its file");
}

static int no_tokenizer(const struct corpus_options *o, struct err *e)
{
    err_set(e, E_CONFIG, "'%s' is text, and the model's folder has no tokenizer", o->path);
    return err_hint(e, "give one with --tokenizer");
}

/* Reads and encodes a text. Standard input and files share all checks but those of their
 * size. */
static int open_text(struct corpus *c, const struct corpus_options *o, struct err *e)
{
    bool from_stdin = strcmp(o->path, "-") == 0;
    struct buf in = { 0 };
    char *text = NULL;
    size_t n = 0, at, mark;
    int rc = 0;

    if (from_stdin)
        rc = take_stdin(o, &in, e);
    if (rc == 0 && !o->tokenizer)
        rc = no_tokenizer(o, e);
    if (rc == 0 && !from_stdin &&
        (rc = file_read(o->path, TEXT_MAX_BYTES, &in.p, &in.len, e)) == E_DATA &&
        e && !strchr(e->msg, '\n')) /* too large */
        err_hint(e, "prepare large text: lprep %s -t TOKENIZER | lpack > packed.shard",
                 o->path);
    text = in.p;
    n = in.len;
    if (rc == 0 && n == 0)
        rc = err_set(e, E_DATA, "'%s' is empty", o->path);
    if (rc == 0 && !utf8_valid(text, n, &at)) {
        rc = err_set(e, E_DATA, "'%s' is not UTF-8: wrong at byte %zu", o->path, at);
        err_hint(e, "convert it (iconv -t utf-8), or name another form with --form");
    }
    if (rc == 0) {
        /* A byte order mark is no part of the text. */
        mark = n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        rc = encode(c, o, text + mark, n - mark, e);
    }
    free(text);
    return rc;
}

/* The data's tokenizer must be the model's: other ids would be scored as nonsense. */
static int check_tokenizer(struct corpus *c, const struct corpus_options *o, struct err *e)
{
    const struct token_info *info = dataset_info(c->data);
    struct model_tokenizer t = { .folder = o->model, .given = o->tokenizer };
    int rc;

    if (info->vocab > o->vocab) {
        err_set(e, E_CONFIG, "'%s' was made for a vocabulary of %u ids; the model has %" PRId64,
                o->path, info->vocab, o->vocab);
        return err_hint(e, "prepare the text again with the model's own tokenizer");
    }
    if (!o->tokenizer && !o->model)
        return 0;
    /* With -f the mismatch becomes a warning, and the error is cleared. */
    if ((rc = model_tokenizer_check(&t, info, o->path, e)) == E_CONFIG && o->force) {
        snprintf(c->warning, sizeof c->warning, "%s", e->msg);
        *e = (struct err){ 0 };
        return 0;
    }
    if (rc == E_CONFIG)
        return err_hint(e, "%s, or score it anyway with -f", t.remedy);
    snprintf(c->warning, sizeof c->warning, "%s", rc == 0 ? t.doubt : "");
    return rc;
}

/* Opens a shard, a folder of them or raw ids. raw: the form found or asked for is raw ids.
 * For a folder without --split, the split 'validation' is used where it exists, else
 * 'train'. */
static int open_data(struct corpus *c, const struct corpus_options *o, bool raw, struct err *e)
{
    const char *split = o->split;
    int rc;

    if (!split && path_is_dir(o->path)) {
        struct err none = { 0 };

        /* E_CONFIG: the manifest has no such split. */
        split = "validation";
        rc = dataset_open(&c->data, o->path, split, 0, &none);
        if (rc == E_CONFIG)
            rc = dataset_open(&c->data, o->path, split = "train", 0, e);
        else if (rc < 0 && e)
            *e = none;
    } else {
        rc = (o->form == FORM_RAW ? dataset_open_raw : dataset_open)(&c->data, o->path, split,
                                                                     o->vocab, e);
    }
    if (rc < 0)
        return rc;
    snprintf(c->split, sizeof c->split, "%s", path_is_dir(o->path) && split ? split : "");
    if (raw && strncmp(dataset_form(c->data), "raw", 3) != 0) {
        err_set(e, E_DATA, "'%s' is %s, not raw token ids", o->path, dataset_form(c->data));
        return err_hint(e, "leave --form out");
    }
    return check_tokenizer(c, o, e);
}

int corpus_open(struct corpus **out, const struct corpus_options *o, struct err *e)
{
    struct corpus *c = calloc(1, sizeof *c);
    enum corpus_form form;
    int rc;

    *out = NULL;
    if (!c)
        return err_set(e, E_SYS, "out of memory");
    if ((rc = form_of(o, &form, e)) == 0)
        rc = form == FORM_TEXT ? open_text(c, o, e) : open_data(c, o, form == FORM_RAW, e);
    if (rc < 0) {
        corpus_close(c);
        return rc;
    }
    c->use = c->data ? dataset_tokens(c->data) : c->text.n;
    c->docs = c->data ? dataset_docs(c->data) : 1;
    c->all_tokens = o->all_tokens;
    /* --max-tokens cuts the data; the last document in use may then be a part of one. */
    if (o->max_tokens > 0 && o->max_tokens < c->use) {
        c->use = o->max_tokens;
        c->docs = c->data ? dataset_doc_at(c->data, c->use - 1) + 1 : 1;
    }
    *out = c;
    return 0;
}

void corpus_close(struct corpus *c)
{
    if (!c)
        return;
    dataset_close(c->data);
    free(c->ids);
    free(c);
}

const char *corpus_form(const struct corpus *c)
{
    return c->data ? dataset_form(c->data) : "text";
}

const char *corpus_split(const struct corpus *c) { return c->split; }
const char *corpus_warning(const struct corpus *c) { return c->warning; }
int64_t corpus_tokens(const struct corpus *c) { return c->use; }
int64_t corpus_docs(const struct corpus *c) { return c->docs; }
int64_t corpus_masked(const struct corpus *c) { return c->data ? dataset_masked(c->data) : 0; }
bool corpus_masks(const struct corpus *c) { return !c->all_tokens && corpus_masked(c) > 0; }
uint64_t corpus_hash(const struct corpus *c)
{
    return c->data ? dataset_hash(c->data) : c->text_hash;
}

int corpus_doc(struct corpus *c, int64_t i, struct corpus_doc *d, struct err *e)
{
    struct dataset_doc in;
    int rc;

    if (!c->data) {
        *d = c->text;
    } else {
        const struct token_info *info = dataset_info(c->data);

        if ((rc = dataset_doc(c->data, i, &in, e)) < 0)
            return rc;
        *d = (struct corpus_doc){ in.start, in.n_ids, in.n_ids, in.text_bytes, in.text_words,
                                  info->adds_bos && in.n_ids > 0,
                                  info->adds_eos && in.n_ids > info->adds_bos };
    }
    /* The last document ends where the tokens in use end. */
    if (d->start + d->n > c->use)
        d->n = c->use > d->start ? c->use - d->start : 0;
    return 0;
}

int64_t corpus_doc_at(const struct corpus *c, int64_t token)
{
    return c->data ? dataset_doc_at(c->data, token) : 0;
}

int corpus_read(struct corpus *c, int64_t start, int64_t n, int32_t *ids, uint8_t *mask,
                struct err *e)
{
    if (start < 0 || n < 0 || n > c->use - start)
        return err_set(e, E_BUG, "tokens %" PRId64 " + %" PRId64 " of %" PRId64, start, n,
                       c->use);
    if (c->data) /* checks ids: those of files below info.vocab, raw ones below the model's */
        return dataset_read(c->data, start, n, ids, mask, e);
    if (mask)
        memset(mask, 0, (size_t)n);
    memcpy(ids, c->ids + start, (size_t)n * sizeof *ids);
    return 0;
}
