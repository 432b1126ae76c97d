/* base/magic.h - what bytes are, by how they begin: the one table of all forms that are known. */
#ifndef BASE_MAGIC_H
#define BASE_MAGIC_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
C_BEGIN

enum magic {
    MAGIC_SHARD = 1, MAGIC_STREAM,                     /* ours */
    MAGIC_GZIP, MAGIC_ZSTD, MAGIC_XZ, MAGIC_ZIP, MAGIC_TAR, /* what a source unpacks */
    MAGIC_LLMC, MAGIC_MEGATRON,                        /* other programs' token files */
    MAGIC_SAFETENSORS, MAGIC_GGUF, MAGIC_SENTENCEPIECE, MAGIC_TIKTOKEN, MAGIC_TOKENIZER_JSON,
    MAGIC_LFS,                                         /* stands for a file that is elsewhere */
    MAGIC_MARKUP,     /* text, but not as it stands: HTML, XML, WARC, RTF */
    MAGIC_UTF16_BARE, /* without a mark; small token ids look the same */
    MAGIC_OTHER       /* no text: pictures, tables, programs ... */
};

struct magic_form {
    enum magic form;
    const char *name;   /* "a token shard", "packed by gzip", "a PDF" */
    const char *remedy; /* for who gives it as text; a line */
};

/* Enough for every form that is told by its first bytes. */
enum { MAGIC_LOOK_BYTES = 512 };

/* What p[0 .. n) is, or begins, or NULL for anything else, text among it. More than
 * MAGIC_LOOK_BYTES are looked at only where whole says that it is all there is: then sizes and
 * what stands at the end must fit too. A form is held to all that it demands of the bytes at
 * hand (fields, sizes, checksums), so that text which only begins like one is text. */
const struct magic_form *magic_of(const void *p, size_t n, bool whole);

/* "JSON", "text" or "text in an 8-bit encoding" where the first 64 KiB of p are that by their
 * bytes; NULL for what is no text. */
const char *magic_text(const void *p, size_t n);
/* Far too many control characters for a text in any encoding of bytes. */
bool magic_binary(const void *p, size_t n);

/* E_DATA, naming the file and the remedy, where its first bytes are Git LFS's pointer; else 0. */
int magic_refuse_lfs(const char *path, const void *p, size_t n, struct err *e);

C_END
#endif
