/* tools/info_docs.c - documents of data sets and streams: listed, as ids, as text. */
#include "tools/info.h"

#include "base/file.h"
#include "base/bytes.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokens/dataset.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One document, whichever form it comes from; ids are read in pieces from a data set. */
struct doc {
    int64_t index, n_ids, text_bytes, text_words;
    const char *source, *name;
    const uint32_t *ids; /* of a stream */
    struct dataset *set; /* else */
    int64_t start;
};

/* What is asked for and what is needed to show it, for all documents of one path. */
struct lister {
    const struct info_options *o;
    const struct token_info *info;
    const char *path;
    struct tokenizer *tok;
    int32_t *ids; /* STEP of them */
    FILE *f;
    bool found;
};
/* Ids read at once: a document may be longer than memory should hold. */
enum { STEP = 65536 };

/* Ids [at, at + n) of the document, from wherever it is. */
static int read_ids(const struct doc *d, int64_t at, int64_t n, int32_t *ids, struct err *e)
{
    if (d->set)
        return dataset_read(d->set, d->start + at, n, ids, NULL, e);
    memcpy(ids, d->ids + at, (size_t)n * sizeof *ids);
    return 0;
}

static void print_json_string(const char *s, FILE *f)
{
    json_t *j = json_string(s);
    /* ENSURE_ASCII, where it is among the flags, keeps a terminal from odd characters. */
    char *text = json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT | info_json_flags());

    fputs(text ? text : "\"\"", f);
    free(text);
    json_decref(j);
}

/* One line with its fields between tabs, or a JSON object. */
static void list_doc(const struct lister *l, const struct doc *d)
{
    if (l->o->json) {
        fprintf(l->f, "{\"doc\":%lld,\"tokens\":%lld,\"text_bytes\":%lld,\"text_words\":%lld,"
                "\"source\":", (long long)d->index, (long long)d->n_ids,
                (long long)d->text_bytes, (long long)d->text_words);
        print_json_string(d->source, l->f);
        fputs(",\"name\":", l->f);
        print_json_string(d->name, l->f);
        fputs("}\n", l->f);
        return;
    }
    fprintf(l->f, "%lld\t%lld\t%lld\t%lld\t", (long long)d->index, (long long)d->n_ids,
            (long long)d->text_bytes, (long long)d->text_words);
    info_print_text(d->source, l->f);
    fputc('\t', l->f);
    info_print_text(d->name, l->f);
    fputc('\n', l->f);
}

/* Digits of v before end; returns where they begin. */
static char *digits(int64_t v, char *end)
{
    do
        *--end = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    return end;
}

/* There may be millions of ids, so they are formatted here and not by printf. The separator
 * goes in front of the digits in the same buffer. */
static int print_ids(struct lister *l, const struct doc *d, struct err *e)
{
    const char sep = l->o->json ? ',' : ' ';
    char buf[24], *p;
    int rc = 0;

    if (l->o->json)
        fputc('[', l->f);
    for (int64_t i = 0, k; i < d->n_ids && rc == 0; i += k) {
        k = d->n_ids - i < STEP ? d->n_ids - i : STEP;
        rc = read_ids(d, i, k, l->ids, e);
        for (int64_t j = 0; j < k && rc == 0; j++) {
            p = digits(l->ids[j], buf + sizeof buf);
            if (i + j > 0)
                *--p = sep;
            fwrite(p, 1, (size_t)(buf + sizeof buf - p), l->f);
        }
    }
    fputs(l->o->json ? "]\n" : "\n", l->f);
    return rc;
}

/* folder/name where that exists, malloc'ed. */
static char *in_folder(const char *folder, const char *name)
{
    char *path = path_join(folder, name);

    if (path_exists(path))
        return path;
    free(path);
    return NULL;
}

/* The tokenizer that the data names: as it was given, or its file name in the data's folder or
 * beside the data. */
static char *find_tokenizer(const char *data, const char *name)
{
    const char *slash = strrchr(name, '/');
    char *path = NULL, *beside = strdup(data), *end;
    size_t n = strlen(data);

    /* An empty name: the data does not say which tokenizer made it. */
    if (!*name || path_exists(name)) {
        free(beside);
        return *name ? strdup(name) : NULL;
    }
    name = slash ? slash + 1 : name;
    if (path_is_dir(data))
        path = in_folder(data, name);
    /* Beside the data means in the folder that holds it, so a '/' at the end must go. */
    while (beside && n > 1 && beside[n - 1] == '/')
        beside[--n] = '\0';
    if (!path && beside && (end = strrchr(beside, '/'))) {
        /* Cuts the last name off; of "/data" the '/' itself stays. */
        end[end == beside] = '\0';
        path = in_folder(beside, name);
    } else if (!path) {
        path = in_folder(".", name);
    }
    free(beside);
    return path;
}

int info_tokenizer(struct tokenizer **t, const char *data, const struct token_info *info,
                   const char *given, struct err *e)
{
    char *path = given ? strdup(given) : find_tokenizer(data, info->tokenizer);
    int rc;

    if (!path) {
        err_set(e, E_NOINPUT, "no tokenizer to decode '%s' with: '%s' is not found", data,
                *info->tokenizer ? info->tokenizer : "(none named)");
        return err_hint(e, "name it: -t FILE");
    }
    rc = tokenizer_open(t, path, e);
    /* The wrong tokenizer would decode into nonsense without any error; the
     * fingerprint in the data shows it. */
    if (rc == 0 && *info->fingerprint &&
        !tokenizer_made(*t, info->fingerprint, info->tokenizer)) {
        rc = err_set(e, E_CONFIG, "'%s' was not made with the tokenizer '%s': fingerprint %s, "
                     "must be %s", data, path, tokenizer_fingerprint(*t), info->fingerprint);
        err_hint(e, "name the right one: -t FILE%s%s",
                 *info->tokenizer ? ", it was called " : "", info->tokenizer);
    }
    free(path);
    return rc;
}

/* The text as a JSON string on one line. */
static int print_quoted(const struct lister *l, const char *text, size_t n, struct err *e)
{
    json_t *j = json_stringn(text, n);
    char *line = j ? json_dumps(j, JSON_ENCODE_ANY | info_json_flags()) : NULL;

    if (line)
        fprintf(l->f, "%s\n", line);
    free(line);
    json_decref(j);
    return line ? 0 : err_set(e, E_DATA, "'%s': a document that is not UTF-8 cannot be JSON",
                              l->path);
}

/* Decodes a whole document at once, as pieces of it may not be whole characters. */
static int print_text(struct lister *l, const struct doc *d, struct err *e)
{
    const struct token_info *t = l->info;
    int64_t first = 0, n = d->n_ids;
    int32_t *ids = malloc((size_t)n * sizeof *ids + 1);
    char *text = NULL;
    size_t nbytes;
    int rc = ids ? 0 : err_set(e, E_SYS, "out of memory for a document of %lld tokens",
                               (long long)n);

    if (rc == 0 && (rc = read_ids(d, 0, n, ids, e)) == 0) {
        /* The marks that the tokenizer put around the text are no part of it. */
        if (t->adds_bos && n > 0 && ids[0] == t->bos)
            first = 1;
        if (t->adds_eos && n > first && ids[n - 1] == t->eos)
            n--;
        rc = tokenizer_decode(l->tok, ids + first, n - first, &text, &nbytes, e);
    }
    if (rc == 0 && l->o->json)
        rc = print_quoted(l, text, nbytes, e);
    else if (rc == 0)
        fwrite(text, 1, nbytes, l->f);
    free(text);
    free(ids);
    return rc;
}

/* A document is shown if it is the one, or if all are wanted. Text is what is left to print
 * when neither a list nor ids are asked for. */
static int show(struct lister *l, const struct doc *d, struct err *e)
{
    int rc = 0;

    if (l->o->doc >= 0 && d->index != l->o->doc)
        return 0;
    l->found = true;
    if (l->o->docs)
        list_doc(l, d);
    if (l->o->ids)
        rc = print_ids(l, d, e);
    else if (!l->o->docs)
        rc = print_text(l, d, e);
    if (rc == 0 && ferror(l->f))
        rc = err_sys(e, E_IO, "cannot write the documents");
    return rc;
}

/* The tokenizer is only opened where text is printed. */
static int begin(struct lister *l, const struct token_info *info, struct err *e)
{
    l->info = info;
    return l->o->docs || l->o->ids
               ? 0 : info_tokenizer(&l->tok, l->path, info, l->o->tokenizer, e);
}

static int no_document(const struct lister *l, int64_t n, struct err *e)
{
    if (n == 0)
        return err_set(e, E_USAGE, "'%s' holds no documents at all", l->path);
    return err_set(e, E_USAGE, "'%s' has no document %lld, only 0 to %lld", l->path,
                   (long long)l->o->doc, (long long)n - 1);
}

static int from_dataset(struct lister *l, struct err *e)
{
    struct dataset *set;
    struct dataset_doc dd;
    int64_t first = l->o->doc >= 0 ? l->o->doc : 0, end;
    int rc = dataset_open_raw(&set, l->path, l->o->split, 0, e);

    if (rc < 0)
        return rc;
    /* One number asks for one document; behind the end the loop must not run at all. */
    end = l->o->doc < 0 || first >= dataset_docs(set) ? dataset_docs(set) : first + 1;
    rc = begin(l, dataset_info(set), e);
    for (int64_t i = first; i < end && rc == 0; i++)
        if ((rc = dataset_doc(set, i, &dd, e)) == 0) {
            const struct doc d = { i, dd.n_ids, dd.text_bytes, dd.text_words, dd.source,
                                   dd.name, NULL, set, dd.start };
            rc = show(l, &d, e);
        }
    if (rc == 0 && l->o->doc >= 0 && !l->found)
        rc = no_document(l, dataset_docs(set), e);
    dataset_close(set);
    return rc;
}

/* To the end, even when the one document was found: a stream without END is an error. */
static int from_stream(struct lister *l, struct err *e)
{
    bool from_stdin = strcmp(l->path, "-") == 0;
    int fd = from_stdin ? STDIN_FILENO : open(l->path, O_RDONLY | O_CLOEXEC), rc;
    struct stream_reader *r = NULL;
    struct token_doc td;
    int64_t n = 0;

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", l->path);
    rc = stream_open(&r, fd, from_stdin ? "standard input" : l->path, e);
    if (rc == 0)
        rc = begin(l, stream_info(r), e);
    while (rc == 0 && (rc = stream_read(r, &td, e)) == 1) {
        const struct doc d = { n++, td.n_ids, td.text_bytes, td.text_words, td.source, td.name,
                               td.ids, NULL, 0 };
        rc = show(l, &d, e);
    }
    if (rc == 0 && l->o->doc >= 0 && !l->found)
        rc = no_document(l, n, e);
    stream_close(r);
    if (!from_stdin)
        close(fd);
    return rc;
}

int info_documents(const char *path, enum info_kind kind, const struct info_options *o, FILE *f,
                   struct err *e)
{
    struct lister l = { .o = o, .path = path, .f = f };
    char *folder = NULL;
    int rc;

    if (kind > INFO_RAW) {
        err_set(e, E_USAGE, "'%s' holds no documents", path);
        return err_hint(e, "--docs, --ids and --doc are for shards and token streams");
    }
    if (kind == INFO_SHARDS && !(l.path = folder = info_folder(path)))
        return err_set(e, E_SYS, "out of memory");
    if (!(l.ids = malloc(STEP * sizeof *l.ids)))
        rc = err_set(e, E_SYS, "out of memory");
    else
        rc = kind == INFO_STREAM ? from_stream(&l, e) : from_dataset(&l, e);
    tokenizer_close(l.tok);
    free(l.ids);
    free(folder);
    return rc;
}
