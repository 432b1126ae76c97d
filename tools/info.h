/* tools/info.h - what a file or folder of ours holds: shown, verified, decoded. */
#ifndef TOOLS_INFO_H
#define TOOLS_INFO_H
#include "base/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
C_BEGIN

enum info_kind {
    INFO_SHARDS,    /* a folder with manifest.json, or that file */
    INFO_SHARD,     /* one shard file */
    INFO_STREAM,    /* a token stream: a file, a pipe, "-" */
    INFO_RAW,       /* headerless u16 ids, only when the caller says so */
    INFO_MODEL,     /* a folder with config.json */
    INFO_ADAPTER,   /* a folder with adapter_config.json */
    INFO_TENSORS,   /* one safetensors file */
    INFO_TOKENIZER, /* whatever formats/tokenizer reads */
    INFO_CHECKPOINT, /* a folder with MANIFEST.json */
    INFO_JOURNAL,    /* what an lpack that has not ended has done so far */
    INFO_SESSION,    /* what a model keeps of a text, by lgen --session */
    INFO_RUN,        /* a folder whose training has not ended: checkpoints/, and no results */
    INFO_LLMC,      /* token files of other programs: a data file of llm.c, */
    INFO_MEGATRON   /* an index of Megatron's, with the ids beside it */
};

struct info_options {
    bool verify;           /* read every byte: checksums, hashes, NaN and infinities */
    bool verbose;          /* every tensor, every shard */
    bool docs, ids, json;  /* info_documents: list them; their ids; as JSON lines */
    bool stats;            /* info_stats */
    const char *plot;      /* info_stats: a picture too, in this file; or NULL */
    int64_t sample;        /* info_sample: so many documents, */
    int64_t ctx, seed;     /* or, ctx > 0, rows of so many tokens; which ones */
    bool colour, utf8;     /* what the terminal takes */
    int64_t doc;           /* only this one, -1 for all */
    const char *tokenizer; /* NULL: the one the data names */
    const char *split;     /* NULL: "train" */
};

/* By name and first bytes. raw: an otherwise unknown file is u16 ids. E_NOINPUT; E_DATA when
 * it is nothing known, with what is. */
int info_kind_of(const char *path, bool raw, enum info_kind *kind, struct err *e);

/* A JSON object that says what is there; the caller gives it back (json_decref). With
 * o->verify the object has "verified": bytes read. "changed": files beside weights that are not as
 * they were written, which is no error here. E_DATA for damage; E_NO, naming the tensor,
 * for values that are not finite. */
int info_describe(const char *path, enum info_kind kind, const struct info_options *o,
                  json_t **out, struct err *e);

/* For kinds up to INFO_RAW: writes a list of documents (docs), their ids (ids), or the text
 * of document o->doc to f. The text is exactly what was tokenised: BOS and EOS that lprep
 * added are left out. E_CONFIG (another tokenizer than the data's), E_NOINPUT, E_USAGE (no
 * such document), E_DATA. */
int info_documents(const char *path, enum info_kind kind, const struct info_options *o, FILE *f,
                   struct err *e);

/* For kinds up to INFO_RAW: counts by split and source and a histogram of the documents' lengths
 * in powers of two, as lines or a line of JSON. Tables alone are read, of a stream all of it.
 * o->split limits it to one. E_DATA, E_NOINPUT, E_CONFIG; of the picture, plot_file's. */
int info_stats(const char *path, enum info_kind kind, const struct info_options *o, FILE *f,
               struct err *e);

/* The same kinds but streams: o->sample documents or rows as text, with a line before each
 * document and what is masked marked. Which ones is a pure function of the seed and of how many
 * there are; no one twice. E_USAGE (a stream; no row of that length), and as info_documents. */
int info_sample(const char *path, enum info_kind kind, const struct info_options *o, FILE *f,
                struct err *e);

/* Text from a file, for a terminal: without control characters. */
void info_print_text(const char *s, FILE *f);
/* For json_dumps: on a terminal nothing but ASCII, as a control character may be any other. */
size_t info_json_flags(void);
/* The object as indented lines "key  value". */
void info_print(const json_t *o, FILE *f);

/* The tokenizer to decode data with: the one given, or else what info names, as it stands or in
 * or beside the data. E_NOINPUT; E_CONFIG when it is not the one that made the ids. */
struct tokenizer;
struct token_info;
int info_tokenizer(struct tokenizer **t, const char *data, const struct token_info *info,
                   const char *given, struct err *e);
/* The folder that path is, or that holds it as dir/manifest.json; malloc'ed, or NULL. */
char *info_folder(const char *path);

/* The parts that info_describe calls, by what they know of. */
int info_data(const char *path, enum info_kind kind, const struct info_options *o, json_t *out,
              struct err *e);
int info_model(const char *path, enum info_kind kind, const struct info_options *o, json_t *out,
               struct err *e);
int info_checkpoint(const char *path, const struct info_options *o, json_t *out, struct err *e);
int info_journal(const char *path, const struct info_options *o, json_t *out, struct err *e);
/* Those in folder/checkpoints: how many, and with o->verify every byte of them. */
int info_checkpoints(const char *folder, const struct info_options *o, json_t *out, struct err *e);
int info_session(const char *path, const struct info_options *o, json_t *out, struct err *e);
int info_interop(const char *path, enum info_kind kind, json_t *out, struct err *e);

C_END
#endif
