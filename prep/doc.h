/* prep/doc.h - documents: the schemas they are found in, and the prompts of instructions. */
#ifndef PREP_DOC_H
#define PREP_DOC_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokens/document.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * What a record is, by its keys; by the file's name where the keys leave it open:
 *   text file      a file that is one document; "pg19" by train|validation|test/<number>.txt
 *   text           {"text": ...}; "source" (top level or in meta), if a word, is its source
 *   lprep          text or instruction, and "meta" of just "source" and "name": --text wrote it
 *   redpajama v1   "text" and "meta" (object or string) of the subsets, or a common_crawl row,
 *                  or "red_pajama_subset"; sources redpajama.arxiv, redpajama.book, ...
 *   redpajama v2   "raw_content"
 *   proof-pile     meta with subset_name, set_name, or config and file
 *   alpaca         "instruction", "output", maybe "input"; longalpaca: by the file's name, or
 *                  without "input"
 *   prompts        "prompt" and "answers", an array of strings: leval --tasks --prompts wrote it
 */
enum schema { SCHEMA_TEXT_FILE, SCHEMA_PG19, SCHEMA_TEXT, SCHEMA_LPREP, SCHEMA_REDPAJAMA,
              SCHEMA_REDPAJAMA2, SCHEMA_PROOF_PILE, SCHEMA_ALPACA, SCHEMA_LONGALPACA,
              SCHEMA_PROMPTS, SCHEMA_FIELD, SCHEMAS };
const char *schema_name(enum schema s);

struct doc {
    enum schema schema;
    bool instruct;          /* then text is the instruction */
    bool bare;              /* an instruction without a template round it: output follows text */
    bool lost;              /* its row has a system text or turns before, for which the prompts
                               have no place */
    char source[DOC_SOURCE_MAX + 1];
    char name[DOC_NAME_MAX + 1];
    struct buf text, input, output;
};
void doc_clear(struct doc *d); /* keeps the buffers */
void doc_free(struct doc *d);

struct doc_opts {
    const char *field;  /* take the text from this key; NULL: by schema */
    const char *source; /* NULL: by schema */
    bool replace;       /* bad UTF-8 becomes U+FFFD; else it is E_DATA */
};
/* Where a record stands, for names, messages and schemas that are told by file name. */
struct doc_place {
    const char *name; /* of the file or member */
    int64_t line;     /* 0: the document is the whole file */
    int64_t offset;
};

/* The whole of a text file, byte for byte but for a byte order mark at its start. E_DATA with
 * the offset of invalid UTF-8; for binary data (magic_binary) also where o->replace is set. */
int doc_from_text(struct doc *d, const struct doc_place *at, const char *p, size_t n,
                  const struct doc_opts *o, struct err *e);
/* The same of a text that is all of b, which gets d's buffer in exchange where nothing had to
 * be mended. */
int doc_from_buf(struct doc *d, const struct doc_place *at, struct buf *b,
                 const struct doc_opts *o, struct err *e);
/* One JSON object. E_DATA, naming file and line: not JSON, no known key (which there are),
 * conversations and preferences by name, a text that is no string, bad UTF-8. */
int doc_from_json(struct doc *d, const struct doc_place *at, const char *p, size_t n,
                  const struct doc_opts *o, struct err *e);

/* LongLoRA's templates (supervised-fine-tune.py at d4eb344), without BOS: what stands before
 * the output. PROMPT_LLAMA2: "[INST]...[/INST]", with the long system text if there is an
 * input; PROMPT_ALPACA: "### Instruction:" and so on. Of a bare document it is its text alone. */
enum prompt { PROMPT_LLAMA2, PROMPT_ALPACA };
int doc_prompt(const struct doc *d, enum prompt prompt, struct buf *out, struct err *e);

/* Appends the document as one line of JSON, newline included, that reads back as the same. */
int doc_to_json(const struct doc *d, struct buf *out, struct err *e);

C_END
#endif
