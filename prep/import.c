/* prep/import.c - see import.h. */
#include "prep/import.h"
#include "prep/prep.h"
#include "formats/tokens/document.h"
#include "formats/tokens/interop.h"
#include "formats/text/records.h"
#include "formats/text/source.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokens/tokenlines.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { STEP = 1 << 16 }; /* ids that are read at once */
#define DOC_IDS_MAX ((int64_t)(DOC_BYTES_MAX / 4)) /* what a document may have, about */

struct import {
    const struct import_options *o;
    struct tokenizer *tok;
    struct token_info info; /* vocab 0: unknown */
    struct buf ids;         /* the document's, as uint32 */
    int64_t docs;           /* of the file */
};

static const char *const format_name[] = { "u16", "llmc", "megatron", "ndjson" };

int import_open(struct import **out, const struct import_options *o, struct err *e)
{
    struct import *x = calloc(1, sizeof *x);
    int rc = 0;

    *out = NULL;
    if (!x)
        return err_set(e, E_SYS, "out of memory");
    x->o = o;
    x->info = (struct token_info){ .vocab = (uint32_t)o->vocab, .bos = (int32_t)o->bos,
                                   .eos = (int32_t)o->eos };
    if (o->tokenizer && (rc = tokenizer_open(&x->tok, o->tokenizer, e)) == 0) {
        x->info.vocab = (uint32_t)tokenizer_vocab(x->tok);
        x->info.bos = o->bos >= 0 ? (int32_t)o->bos : tokenizer_bos(x->tok);
        x->info.eos = o->eos >= 0 ? (int32_t)o->eos : tokenizer_eos(x->tok);
        memcpy(x->info.fingerprint, tokenizer_fingerprint(x->tok), FINGERPRINT_HEX + 1);
        prep_tokenizer_name(tokenizer_path(x->tok), x->info.tokenizer, sizeof x->info.tokenizer);
    }
    /* Documents are cut at these ids, so that they have them: as if lprep had added them. */
    x->info.adds_bos = o->bos >= 0;
    x->info.adds_eos = o->eos >= 0;
    if (rc < 0) {
        import_close(x);
        return rc;
    }
    *out = x;
    return 0;
}

void import_close(struct import *x)
{
    if (!x)
        return;
    tokenizer_close(x->tok);
    buf_free(&x->ids);
    free(x);
}

/* The token information of a file, as far as width (of an id in it) allows. */
static int start(struct import *x, struct pack *p, const char *path, uint32_t width,
                 struct err *e)
{
    struct token_info info = x->info;
    int rc;

    if (info.vocab == 0 && width > 2) {
        err_set(e, E_USAGE, "'%s' does not say how large the vocabulary is", path);
        return err_hint(e, "give the tokenizer with -t, or the size with --vocab");
    }
    /* Ids of 16 bits or less: a vocabulary that holds all of them. */
    if (info.vocab == 0)
        info.vocab = 65536;
    info.width = token_width(info.vocab);
    if ((rc = info_check(&info, e)) < 0)
        /* The options are at fault, not a file. */
        return e ? (e->code = E_CONFIG) : E_CONFIG;
    x->info.vocab = info.vocab;
    x->docs = 0;
    return pack_input(p, &info, path, e);
}

/* What is in x->ids becomes a document. */
static int add_doc(struct import *x, struct pack *p, const char *path, struct err *e)
{
    char name[DOC_NAME_MAX + 1];
    struct token_doc d = { .ids = (uint32_t *)x->ids.p, .name = name,
                           .n_ids = (int64_t)(x->ids.len / 4),
                           .source = format_name[x->o->format] };

    snprintf(name, sizeof name, "%.900s:%" PRId64, path, x->docs++);
    /* There is no text: the ids' hash takes its place where splits are drawn. */
    d.text_hash = XXH3_64bits(x->ids.p ? x->ids.p : "", x->ids.len);
    x->ids.len = 0;
    return pack_doc(p, &d, e);
}

/* More ids of the document that is being gathered. E_DATA where it becomes too long. */
static int add_ids(struct import *x, const uint32_t *ids, int64_t n, const char *path,
                   struct err *e)
{
    if (n <= DOC_IDS_MAX - (int64_t)(x->ids.len / 4))
        return buf_add(&x->ids, ids, (size_t)n * 4, e);
    err_set(e, E_DATA, "'%s': a document of more than %" PRId64 " tokens", path, DOC_IDS_MAX);
    return err_hint(e, "--eos ID or --bos ID splits it into documents at that id");
}

/* Ids that know no bounds, cut before each bos and after each eos; where both are one id, which
 * llm.c's files begin documents with, before. */
static int cut(struct import *x, struct pack *p, const struct interop *f, const char *path,
               struct err *e)
{
    int64_t bos = x->o->bos, eos = x->o->eos != bos ? x->o->eos : -1;
    uint32_t *ids = malloc(STEP * sizeof *ids);
    int rc = ids ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t at = 0, k; at < f->n_ids && rc == 0; at += k) {
        /* The ids [from, i) of this piece, and those
         * in x->ids before it, are the open document. */
        int64_t from = 0;
        k = f->n_ids - at < STEP ? f->n_ids - at : STEP;
        if ((rc = interop_load(f, at, k, x->info.vocab, ids, e)) < 0)
            err_within(e, "'%s'", path);
        for (int64_t i = 0; i < k && rc == 0 && (bos >= 0 || eos >= 0); i++) {
            /* A bos at the beginning of a document ends none,
             * or there would be an empty one before it. */
            bool before = ids[i] == bos && (i > from || x->ids.len > 0), after = ids[i] == eos;
            if (before && (rc = add_ids(x, ids + from, i - from, path, e)) == 0)
                rc = add_doc(x, p, path, e);
            from = before ? i : from;
            if (rc == 0 && after && (rc = add_ids(x, ids + from, i + 1 - from, path, e)) == 0)
                rc = add_doc(x, p, path, e);
            from = after ? i + 1 : from;
        }
        if (rc == 0)
            rc = add_ids(x, ids + from, k - from, path, e);
    }
    if (rc == 0 && x->ids.len > 0)
        rc = add_doc(x, p, path, e);
    free(ids);
    return rc;
}

/* The documents of an index. */
static int take_docs(struct import *x, struct pack *p, const struct interop *f,
                     const char *path, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < f->n_docs && rc == 0; i++) {
        int64_t at, n;
        interop_doc(f, i, &at, &n);
        x->ids.len = 0;
        if (n > DOC_IDS_MAX)
            return err_set(e, E_DATA, "'%s': document %" PRId64 " has %" PRId64 " tokens, more "
                           "than %" PRId64, path, i, n, DOC_IDS_MAX);
        if ((rc = buf_reserve(&x->ids, (size_t)n * 4, e)) < 0)
            return rc;
        if ((rc = interop_load(f, at, n, x->info.vocab, (uint32_t *)x->ids.p, e)) < 0)
            return err_within(e, "'%s'", path);
        x->ids.len = (size_t)n * 4;
        rc = add_doc(x, p, path, e);
    }
    return rc;
}

static int import_interop(struct import *x, struct pack *p, const char *path, struct err *e)
{
    static const enum interop_kind kind[] = { [FORMAT_U16] = INTEROP_RAW,
                                              [FORMAT_LLMC] = INTEROP_LLMC,
                                              [FORMAT_MEGATRON] = INTEROP_MEGATRON };
    struct interop_file in;
    int rc = interop_open(&in, kind[x->o->format], path, e);

    /* Raw ids have no mark of their own, so other forms are to be refused by their looks. */
    if (rc == 0 && x->o->format == FORMAT_U16 && llmc_is(in.map[0], in.nbytes[0])) {
        rc = err_set(e, E_DATA, "'%s' begins with llm.c's header, not with ids", path);
        err_hint(e, "--import llmc reads it");
    }
    if (rc == 0 && x->o->format == FORMAT_U16 && !x->o->surely_raw)
        rc = raw_refuse(path, in.map[0], in.nbytes[0], e);
    if (rc == 0 && (rc = start(x, p, in.ids, in.f.width, e)) == 0)
        rc = in.f.docs ? take_docs(x, p, &in.f, in.ids, e) : cut(x, p, &in.f, in.ids, e);
    interop_close(&in);
    return rc;
}

/* JSON lines of one file. */
struct lines {
    struct import *x;
    struct pack *p;
    const char *name;
    bool head, end, begun;
    int64_t docs, tokens;
    struct tokenline_read r;
};

/* The head names the tokenizer; it is compared with that of -t, where there is one. */
static int take_head(struct lines *l, struct err *e)
{
    const struct import *x = l->x;
    int rc;

    if (l->begun)
        return err_set(e, E_DATA, "'%s': a header that is not on the first line", l->name);
    if (x->tok && !tokenizer_made(x->tok, l->r.info.fingerprint, l->r.info.tokenizer))
        return err_set(e, E_CONFIG, "'%s' was made with the tokenizer '%s' (%s), not '%s' (%s)",
                       l->name, l->r.info.tokenizer, l->r.info.fingerprint, x->info.tokenizer,
                       x->info.fingerprint);
    if ((rc = pack_input(l->p, &l->r.info, l->name, e)) < 0)
        return rc;
    l->head = l->begun = true;
    return 0;
}

/* A line is a head (only the first), a document, or the end (only the last), which must
 * count what there was. */
static int take_line(struct lines *l, const struct record *rec, struct err *e)
{
    int rc, kind = tokenline_read(&l->r, rec->p, rec->n, l->name, e);

    if (kind < 0)
        return kind;
    if (l->end)
        return err_set(e, E_DATA, "'%s': a line after the end line", l->name);
    if (kind == TOKENLINE_HEAD)
        return take_head(l, e);
    if (kind == TOKENLINE_END) {
        l->end = true;
        if (l->r.docs == l->docs && l->r.tokens == l->tokens)
            return 0;
        return err_set(e, E_DATA, "'%s': the end counts %" PRId64 " documents and %" PRId64
                       " tokens, there were %" PRId64 " and %" PRId64, l->name, l->r.docs,
                       l->r.tokens, l->docs, l->tokens);
    }
    /* No head: the vocabulary must come from -t or
     * --vocab. Ids here have no width; 4 asks for that. */
    if (!l->begun && (rc = start(l->x, l->p, l->name, 4, e)) < 0)
        return rc;
    l->begun = true;
    l->docs++;
    l->tokens += l->r.doc.n_ids;
    rc = pack_doc(l->p, &l->r.doc, e);
    return rc == E_DATA ? err_within(e, "'%s'", l->name) : rc;
}

static int64_t read_source(void *ctx, void *buf, size_t cap, struct err *e)
{
    return source_read(ctx, buf, cap, e);
}

/* All lines of one file or member. With a head there must be an end, else it was cut. */
static int import_member(struct lines *l, struct records *rec, struct source *s, struct err *e)
{
    struct record line;
    int rc;

    records_start(rec, RECORDS_LINES, (size_t)DOC_BYTES_MAX * 4, read_source, s);
    while ((rc = records_next(rec, &line, e)) == 1)
        if ((rc = take_line(l, &line, e)) < 0) {
            if (rc == E_DATA)
                err_within(e, "line %" PRId64, line.line);
            break;
        }
    if (rc == 0 && l->head && !l->end) {
        err_set(e, E_DATA, "'%s' ends before its end line", l->name);
        return err_hint(e, "the program that wrote it did not finish; 'jq -c select(.tokens)' "
                           "leaves out head and end, and -t or --vocab replaces them");
    }
    return rc;
}

/* JSON lines may be compressed or in archives, as
 * lprep's inputs may: each member is an input. */
static int import_lines(struct import *x, struct pack *p, const char *path, struct err *e)
{
    struct lines l = { .x = x, .p = p };
    struct records rec = { 0 };
    struct source_member m;
    struct source *s;
    int rc = source_open(&s, &path, 1, NULL, 0, NULL, e);

    if (rc < 0)
        return rc;
    while (rc == 0 && (rc = source_next(s, &m, e)) == 1) {
        l.name = m.name;
        l.head = l.end = l.begun = false;
        l.docs = l.tokens = 0;
        rc = import_member(&l, &rec, s, e);
    }
    tokenline_free(&l.r);
    records_free(&rec);
    source_close(s);
    return rc;
}

int import_file(struct import *x, struct pack *p, const char *path, struct err *e)
{
    return x->o->format == FORMAT_NDJSON ? import_lines(x, p, path, e)
                                         : import_interop(x, p, path, e);
}
