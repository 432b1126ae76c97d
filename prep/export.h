/* prep/export.h - a data set to the token files of other programs, or to JSON lines. */
#ifndef PREP_EXPORT_H
#define PREP_EXPORT_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* In the order of lpack's --export and --import; layouts: formats/tokens/interop.md, tokenlines.md. */
enum token_format { FORMAT_U16, FORMAT_LLMC, FORMAT_MEGATRON, FORMAT_NDJSON };

struct export_options {
    enum token_format format;
    const char *data, *split; /* as dataset_open takes them */
    const char *out;          /* NULL: fd. Megatron: a name that .bin and .idx are added to */
    int fd;
    const char *tokenizer;    /* NDJSON: documents get their text too; or NULL */
    int64_t file_tokens;      /* llm.c: above it, files OUT_000000.bin, OUT_000001.bin, ... */
    bool force;               /* files that are there are replaced */
    void (*progress)(void *ctx, bool writing, int64_t docs, int64_t tokens, double waited_s); /* may be NULL */
    void *progress_ctx;
};

/* What was written, and how much of it the format has no place for. */
struct export_sums {
    int64_t docs, tokens, files;
    int64_t lost_masked;  /* masked tokens: now trained on as any other */
    int64_t lost_bounds;  /* documents that nothing parts from the next */
    int64_t lost_labels;  /* documents with a source or a name */
};

/* Files appear whole or not at all, an index after what it is of. E_CREATE (they are there),
 * E_IO, E_CONFIG (ids that do not fit; another tokenizer than the data's; no such split),
 * E_NOINPUT, E_DATA, E_USAGE (Megatron without out). */
int export_data(const struct export_options *o, struct export_sums *sums, struct err *e);

C_END
#endif
