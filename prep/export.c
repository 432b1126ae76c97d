/* prep/export.c - see export.h.
 *
 * Documents of a data set lie end to end. For u16, llm.c and Megatron's .bin their tokens are
 * copied by position, whatever documents they are of; JSON lines and Megatron's index are made
 * document by document.
 */
#include "prep/export.h"
#include "base/file.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/document.h"
#include "formats/tokens/interop.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokens/tokenlines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tokens that are read from the data set at once;
 * bytes that are gathered before they are written. */
enum { STEP = 1 << 16, FLUSH = 1 << 20 };

struct export {
    const struct export_options *o;
    struct dataset *d;
    const struct token_info *info;
    struct tokenizer *tok;
    struct export_sums sums;
    int32_t *ids;  /* STEP of them */
    uint8_t *mask;
    struct buf b;  /* what is to be written */
    int fd;        /* to */
    char name[4096];
};

/* What is gathered goes to the open file. It is dropped also where writing fails. */
static int flush(struct export *x, struct err *e)
{
    size_t n = x->b.len;

    x->b.len = 0;
    return file_write_all(x->fd, x->b.p, n, x->name, e);
}

/* Gathers n bytes, and writes them once there are FLUSH. */
static int put(struct export *x, const void *p, size_t n, struct err *e)
{
    int rc = buf_add(&x->b, p, n, e);

    return rc == 0 && x->b.len >= FLUSH ? flush(x, e) : rc;
}

/* Counts what was written since the last call, and shows the progress. */
static void tell(struct export *x, int64_t docs, int64_t tokens)
{
    x->sums.docs += docs;
    x->sums.tokens += tokens;
    if (x->o->progress)
        x->o->progress(x->o->progress_ctx, true, x->sums.docs, x->sums.tokens, 0);
}

/* Tokens [first, first + n) as ids of so many bytes. */
static int put_tokens(struct export *x, int64_t first, int64_t n, uint32_t width, struct err *e)
{
    int rc = 0;

    for (int64_t k; n > 0 && rc == 0; first += k, n -= k) {
        k = n < STEP ? n : STEP;
        if ((rc = dataset_read(x->d, first, k, x->ids, NULL, e)) < 0 ||
            (rc = buf_reserve(&x->b, (size_t)k * width, e)) < 0)
            return rc;
        ids_store(x->b.p + x->b.len, (const uint32_t *)x->ids, width, k);
        x->b.len += (size_t)k * width;
        tell(x, 0, k);
        if (x->b.len >= FLUSH)
            rc = flush(x, e);
    }
    return rc;
}

/* Adds the mask's runs in n more tokens, of which the first is token 'at' of the document. */
static int add_runs(struct buf *runs, const uint8_t *mask, int64_t at, int64_t n, struct err *e)
{
    struct mask_run *last;
    int rc = 0;

    for (int64_t i = 0; i < n && rc == 0; i++) {
        struct mask_run r = { at + i, 1 };
        if (!mask[i])
            continue;
        /* A run may go on from the piece of the document before this one. */
        last = runs->len ? (struct mask_run *)(runs->p + runs->len) - 1 : NULL;
        if (last && last->start + last->count == at + i)
            last->count++;
        else
            rc = buf_add(runs, &r, sizeof r, e);
    }
    return rc;
}

/* The document's text, without BOS and EOS that lprep added; all holds its ids. */
static int decode(struct export *x, const struct buf *all, char **text, size_t *n,
                  struct err *e)
{
    const int32_t *ids = (const int32_t *)all->p;
    int64_t k = (int64_t)(all->len / sizeof *ids);

    if (x->info->adds_bos && k > 0 && ids[0] == x->info->bos)
        ids++, k--;
    if (x->info->adds_eos && k > 0 && ids[k - 1] == x->info->eos)
        k--;
    return tokenizer_decode(x->tok, ids, k, text, n, e);
}

/* One document as a line of JSON, STEP tokens at a time. The ids are written as they come;
 * the mask's runs, and the text with -t, are known only at the end and stand behind them. */
static int put_line(struct export *x, const struct dataset_doc *d, struct buf *runs,
                    struct buf *all, struct err *e)
{
    struct token_doc t = { .source = d->source, .name = d->name, .text_bytes = d->text_bytes,
                           .text_words = d->text_words, .text_hash = d->text_hash };
    char *text = NULL;
    size_t n = 0;
    int rc = tokenline_begin(&x->b, &t, e);

    runs->len = all->len = 0;
    for (int64_t i = 0, k; i < d->n_ids && rc == 0; i += k) {
        k = d->n_ids - i < STEP ? d->n_ids - i : STEP;
        if ((rc = dataset_read(x->d, d->start + i, k, x->ids, x->mask, e)) == 0 &&
            (rc = add_runs(runs, x->mask, i, k, e)) == 0)
            rc = tokenline_ids(&x->b, x->ids, k, i == 0, e);
        if (rc == 0 && x->tok)
            rc = buf_add(all, x->ids, (size_t)k * sizeof *x->ids, e);
        if (rc == 0 && x->b.len >= FLUSH)
            rc = flush(x, e);
    }
    if (rc == 0 && x->tok)
        rc = decode(x, all, &text, &n, e);
    if (rc == 0)
        rc = tokenline_finish(&x->b, (struct mask_run *)runs->p,
                              (int64_t)(runs->len / sizeof(struct mask_run)), text, n, e);
    free(text);
    if (rc == 0)
        tell(x, 1, d->n_ids);
    return rc == 0 && x->b.len >= FLUSH ? flush(x, e) : rc;
}

/* JSON lines of documents [first, last): a head that names the tokenizer, a line each, and
 * an end that counts them, without which a reader refuses the file. */
static int put_lines(struct export *x, int64_t first, int64_t last, struct err *e)
{
    struct buf runs = { 0 }, all = { 0 };
    struct dataset_doc d;
    int rc = tokenline_head(&x->b, x->info, e);

    for (int64_t i = first; i < last && rc == 0; i++)
        if ((rc = dataset_doc(x->d, i, &d, e)) == 0)
            rc = put_line(x, &d, &runs, &all, e);
    if (rc == 0)
        rc = tokenline_end(&x->b, x->sums.docs, x->sums.tokens, e);
    buf_free(&runs);
    buf_free(&all);
    return rc;
}

/* A file of llm.c's: its header with the number of tokens, then tokens [first, first + n). */
static int put_llmc(struct export *x, int64_t first, int64_t n, struct err *e)
{
    unsigned char h[LLMC_HEADER_BYTES];
    int rc;

    llmc_header(h, x->info->vocab, n);
    rc = put(x, h, sizeof h, e);
    return rc == 0 ? put_tokens(x, first, n, llmc_width(x->info->vocab), e) : rc;
}

/* Sequences of a document: one, or more where it is too long, or none where it is empty. */
static int64_t sequences(int64_t n_ids)
{
    return n_ids / MEGATRON_MAX_SEQUENCE + (n_ids % MEGATRON_MAX_SEQUENCE > 0);
}

/* The index's lengths or pointers: a number for every sequence. */
static int put_sequences(struct export *x, bool pointers, uint32_t width, struct err *e)
{
    unsigned char b[8];
    struct dataset_doc d;
    int rc = 0;

    for (int64_t i = 0; i < dataset_docs(x->d) && rc == 0; i++) {
        rc = dataset_doc(x->d, i, &d, e);
        for (int64_t k = 0, n; rc == 0 && k < d.n_ids; k += n) {
            n = d.n_ids - k < MEGATRON_MAX_SEQUENCE ? d.n_ids - k : MEGATRON_MAX_SEQUENCE;
            /* Pointers are 8 bytes: where in the .bin it
             * begins. Lengths are the low 4 bytes of n. */
            put_le(b, (uint64_t)(pointers ? (d.start + k) * width : n), 8);
            rc = put(x, b, pointers ? 8 : 4, e);
        }
    }
    return rc;
}

/* The sequence that each document begins at, and behind the last their number; *seqs is that.
 * With write false it is only counted. */
static int put_bounds(struct export *x, bool write, int64_t *seqs, struct err *e)
{
    unsigned char b[8];
    struct dataset_doc d;
    int64_t docs = dataset_docs(x->d);
    int rc = 0;

    *seqs = 0;
    for (int64_t i = 0; i <= docs && rc == 0; i++) {
        put_le(b, (uint64_t)*seqs, 8);
        if (write)
            rc = put(x, b, 8, e);
        if (rc == 0 && i < docs && (rc = dataset_doc(x->d, i, &d, e)) == 0)
            *seqs += sequences(d.n_ids);
    }
    return rc;
}

/* Megatron's .idx: header, lengths, pointers, bounds. The header needs the number of
 * sequences, so documents are walked once before anything is written. */
static int put_index(struct export *x, struct err *e)
{
    unsigned char h[MEGATRON_HEADER_BYTES];
    uint32_t width = megatron_width(x->info->vocab);
    int64_t seqs;
    int rc = put_bounds(x, false, &seqs, e);

    if (rc < 0)
        return rc;
    megatron_header(h, x->info->vocab, seqs, dataset_docs(x->d));
    if ((rc = put(x, h, sizeof h, e)) == 0 && (rc = put_sequences(x, false, width, e)) == 0 &&
        (rc = put_sequences(x, true, width, e)) == 0)
        rc = put_bounds(x, true, &seqs, e);
    return rc;
}

/* A part of the data set, in the open file. */
static int put_part(struct export *x, int64_t first_doc, int64_t last_doc, int64_t first,
                    int64_t n, struct err *e)
{
    int rc;

    switch (x->o->format) {
    case FORMAT_NDJSON:
        rc = put_lines(x, first_doc, last_doc, e);
        break;
    case FORMAT_LLMC:
        rc = put_llmc(x, first, n, e);
        tell(x, last_doc - first_doc, 0);
        break;
    /* u16 and Megatron's .bin are ids and nothing else. */
    default:
        rc = put_tokens(x, first, n,
                        x->o->format == FORMAT_U16 ? 2 : megatron_width(x->info->vocab), e);
        tell(x, last_doc - first_doc, 0);
    }
    return rc == 0 ? flush(x, e) : rc;
}

static int refuse(const char *path, struct err *e)
{
    err_set(e, E_CREATE, "'%s' is there already", path);
    return err_hint(e, "name another file, or replace it with -f");
}

/* The files of an export: all of them are open until the last is written. */
struct outputs {
    struct file_out *v;
    int n;
};

/* Opens one more, which is what is written to next. */
static int open_next(struct export *x, struct outputs *out, const char *path, struct err *e)
{
    struct file_out *v;
    int rc;

    if (!x->o->force && path_is_file(path))
        return refuse(path, e);
    if (!(v = realloc(out->v, ((size_t)out->n + 1) * sizeof *v)))
        return err_set(e, E_SYS, "out of memory");
    out->v = v;
    if ((rc = file_out_open(&v[out->n], path, e)) < 0)
        return rc;
    x->fd = v[out->n++].fd;
    snprintf(x->name, sizeof x->name, "%s", path);
    return 0;
}

/* Of several files all are on disk before the first gets its name, and the last, Megatron's
 * index, goes before the others are replaced: a reader never finds it with another export's. */
static int prepare(struct outputs *out, struct err *e)
{
    const struct file_out *last = &out->v[out->n - 1];

    for (int i = 0; i < out->n; i++)
        if (!out->v[i].into && fsync(out->v[i].fd) < 0) /* into: a device or a pipe */
            return err_sys(e, E_IO, "cannot sync '%s'", out->v[i].path);
    return path_is_file(last->path) && unlink(last->path) < 0
               ? err_sys(e, E_CREATE, "cannot remove '%s'", last->path)
               : 0;
}

/* All files get their names, or none where they are several. rc: of writing them. */
static int publish(struct export *x, struct outputs *out, int rc, struct err *e)
{
    int done = 0;

    x->sums.files = out->n;
    if (rc == 0 && out->n > 1)
        rc = prepare(out, e);
    for (; done < out->n && rc == 0; done++)
        rc = file_out_publish(&out->v[done], e);
    /* After a failure files that have their names
     * already are removed again, if there are others. */
    for (int i = 0; i < out->n && rc < 0; i++) {
        if (i >= done)
            file_out_abandon(&out->v[i]);
        else if (out->n > 1 && !out->v[i].into)
            unlink(out->v[i].path);
    }
    free(out->v);
    return rc;
}

/* The tokens, then the index, which makes them a set: there are both, or no index. */
static int export_megatron(struct export *x, struct err *e)
{
    char path[4096];
    struct outputs out = { 0 };
    int rc = 0;

    if (strlen(x->o->out) > sizeof path - 5) /* ".bin" and a zero byte */
        return err_set(e, E_CREATE, "path too long: '%.200s...'", x->o->out);
    for (int index = 0; index < 2 && rc == 0; index++) {
        snprintf(path, sizeof path, "%s.%s", x->o->out, index ? "idx" : "bin");
        if ((rc = open_next(x, &out, path, e)) == 0)
            rc = index ? put_index(x, e)
                       : put_part(x, 0, dataset_docs(x->d), 0, dataset_tokens(x->d), e);
        if (rc == 0)
            rc = flush(x, e);
    }
    return publish(x, &out, rc, e);
}

/* Documents [*doc, ...) that fill a file, and their tokens [*first, ...): whole ones, but for
 * one that is longer than a file. */
static int next_part(struct export *x, int64_t *doc, int64_t first, int64_t *n, struct err *e)
{
    int64_t end = first + x->o->file_tokens, docs = dataset_docs(x->d);
    struct dataset_doc d;
    int rc = 0;

    /* What is left fits into one file. */
    if (dataset_tokens(x->d) <= end) {
        *doc = docs;
        *n = dataset_tokens(x->d) - first;
        return 0;
    }
    *n = 0;
    for (; *doc < docs && (rc = dataset_doc(x->d, *doc, &d, e)) == 0; ++*doc) {
        if (d.start + d.n_ids > end)
            break;
        *n = d.start + d.n_ids - first;
    }
    /* Not one document ends within this file: it is cut, and *doc stays for the next file. */
    if (rc == 0 && *n == 0)
        *n = x->o->file_tokens;
    return rc;
}

/* OUT as it stands, or the name of file k of many: OUT_000000.bin for OUT.bin. */
static int name_file(const struct export *x, bool many, int k, char path[4096], struct err *e)
{
    const char *out = x->o->out, *dot = strrchr(out, '.');
    /* A dot before the last slash belongs to a folder's name: a.b/OUT has no extension. */
    int stem = (int)(dot && !strchr(dot, '/') ? (size_t)(dot - out) : strlen(out)), n;

    n = many ? snprintf(path, 4096, "%.*s_%06d%s", stem, out, k, out + stem)
             : snprintf(path, 4096, "%s", out);
    return n < 4096 ? 0 : err_set(e, E_CREATE, "path too long: '%.200s...'", out);
}

/* Writes all tokens to one file, or with many to as many as they need. The files have no
 * names yet: publish gives them. */
static int write_files(struct export *x, bool many, struct outputs *out, struct err *e)
{
    int64_t doc = 0, before = 0, first = 0, all = dataset_tokens(x->d), n = all;
    char path[4096];
    int rc;

    do {
        if ((rc = name_file(x, many, out->n, path, e)) < 0 ||
            (rc = open_next(x, out, path, e)) < 0)
            return rc;
        if (many)
            rc = next_part(x, &doc, first, &n, e);
        else
            doc = dataset_docs(x->d);
        if (rc == 0)
            rc = put_part(x, before, doc, first, n, e);
        before = doc;
        first += n;
    } while (rc == 0 && first < all);
    return rc;
}

/* What an earlier export left behind our last file would be read as one more of ours. */
static int clear_behind(struct export *x, int k, bool remove, struct err *e)
{
    char path[4096];
    int rc;

    for (; (rc = name_file(x, true, k, path, e)) == 0 && path_is_file(path); k++) {
        if (!x->o->force)
            return refuse(path, e);
        if (!remove)
            return 0;
        if (unlink(path) < 0)
            return err_sys(e, E_CREATE, "cannot remove '%s'", path);
    }
    return rc;
}

/* Leftovers are looked for twice: before publishing, to refuse without -f while nothing has
 * changed, and after it, to remove them once the new files are in place. */
static int export_files(struct export *x, struct err *e)
{
    struct outputs out = { 0 };
    bool many = x->o->format == FORMAT_LLMC && dataset_tokens(x->d) > x->o->file_tokens;
    int rc = write_files(x, many, &out, e);

    if (rc == 0 && many)
        rc = clear_behind(x, out.n, false, e);
    rc = publish(x, &out, rc, e);
    return rc == 0 && many ? clear_behind(x, (int)x->sums.files, true, e) : rc;
}

/* To standard output, in one piece: llm.c's format cannot be split over several files there. */
static int export_stdout(struct export *x, struct err *e)
{
    x->fd = x->o->fd;
    strcpy(x->name, "standard output");
    x->sums.files = 1;
    if (x->o->format == FORMAT_LLMC && dataset_tokens(x->d) > LLMC_MAX_TOKENS)
        return err_set(e, E_CONFIG,
                       "llm.c's files hold at most %lld tokens, and '%s' has %lld: "
                       "name a file with -o",
                       (long long)LLMC_MAX_TOKENS, x->o->data, (long long)dataset_tokens(x->d));
    return put_part(x, 0, dataset_docs(x->d), 0, dataset_tokens(x->d), e);
}

/* Counts what the format has no place for. */
static int count_losses(struct export *x, struct err *e)
{
    enum token_format f = x->o->format;
    struct dataset_doc d;
    int rc = 0;

    if (f == FORMAT_NDJSON)
        return 0;
    x->sums.lost_masked = dataset_masked(x->d);
    for (int64_t i = 0; i < dataset_docs(x->d) && rc == 0; i++) {
        rc = dataset_doc(x->d, i, &d, e);
        x->sums.lost_labels += rc == 0 && (*d.source || *d.name);
    }
    /* Megatron's index keeps the bounds of documents.
     * Of n documents n - 1 run into the next. */
    if (f != FORMAT_MEGATRON && dataset_docs(x->d) > 1)
        x->sums.lost_bounds = dataset_docs(x->d) - 1;
    return rc;
}

/* What the options and the data do not allow together; opens the tokenizer of -t. */
static int check_options(struct export *x, struct err *e)
{
    const struct export_options *o = x->o;
    const char *made_by;
    int rc;

    if (o->format == FORMAT_MEGATRON && !o->out)
        return err_set(e, E_USAGE, "Megatron's format is two files: name them with -o");
    if (o->format == FORMAT_U16 && x->info->vocab > 65536) {
        err_set(e, E_CONFIG, "ids of a vocabulary of %u do not fit into 16 bits",
                x->info->vocab);
        return err_hint(e, "llmc and megatron have files of 32 bits");
    }
    if (o->format == FORMAT_LLMC && o->file_tokens > LLMC_MAX_TOKENS)
        return err_set(e, E_USAGE, "llm.c's files hold at most %lld tokens, not %lld",
                       (long long)LLMC_MAX_TOKENS, (long long)o->file_tokens);
    if (!o->tokenizer)
        return 0;
    if ((rc = tokenizer_open(&x->tok, o->tokenizer, e)) < 0)
        return rc;
    made_by = tokenizer_fingerprint(x->tok);
    /* Data whose tokenizer is not known (raw ids) is taken at the user's word. */
    if (*x->info->fingerprint &&
        !tokenizer_made(x->tok, x->info->fingerprint, x->info->tokenizer))
        return err_set(e, E_CONFIG, "'%s' was not made with the tokenizer '%s': fingerprint "
                       "%s, must be %s", o->data, o->tokenizer, made_by, x->info->fingerprint);
    return 0;
}

int export_data(const struct export_options *o, struct export_sums *sums, struct err *e)
{
    struct export x = { .o = o };
    int rc = dataset_open(&x.d, o->data, o->split, 0, e);

    if (rc < 0)
        return rc;
    x.info = dataset_info(x.d);
    x.ids = malloc(STEP * sizeof *x.ids);
    x.mask = malloc(STEP);
    if (!x.ids || !x.mask)
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0 && (rc = check_options(&x, e)) == 0 && (rc = count_losses(&x, e)) == 0)
        rc = !o->out                         ? export_stdout(&x, e)
             : o->format == FORMAT_MEGATRON ? export_megatron(&x, e)
                                             : export_files(&x, e);
    *sums = x.sums;
    tokenizer_close(x.tok);
    dataset_close(x.d);
    buf_free(&x.b);
    free(x.ids);
    free(x.mask);
    return rc;
}
