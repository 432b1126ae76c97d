/* prep/import.h - token files of other programs, and JSON lines, into a pack. */
#ifndef PREP_IMPORT_H
#define PREP_IMPORT_H
#include "base/err.h"
#include "prep/export.h"
#include "prep/pack.h"
#include <stdint.h>
C_BEGIN

struct import_options {
    enum token_format format;
    const char *tokenizer; /* SentencePiece model that made the ids; or NULL: */
    int64_t vocab;         /* ids are below this; 0: 65536 where they have 16 bits */
    int64_t bos, eos;      /* -1: the tokenizer's. Given, documents begin, and end, with it: raw
                            * ids and llm.c's, which know no bounds, are cut there */
    bool surely_raw;       /* u16: take files that look like something else (raw_refuse) */
};

/* What the documents of an input are told apart by when nothing else is known: the format's
 * name as source, "file:number" as name, XXH3-64 of the ids (4 bytes each) as text hash. */
struct import;
/* E_NOINPUT, E_DATA (the tokenizer); E_CONFIG (a bos or eos beyond the vocabulary). */
int import_open(struct import **x, const struct import_options *o, struct err *e);
void import_close(struct import *x); /* NULL is fine */
/* All documents of one operand: a file; of Megatron's two either, or their name without .bin
 * and .idx; of JSON lines what source.h reads, "-" too. E_NOINPUT; E_DATA with the byte or
 * line; E_USAGE (no vocabulary known); what pack_input and pack_doc give. */
int import_file(struct import *x, struct pack *p, const char *path, struct err *e);

C_END
#endif
