/* formats/tokens/left_out.h - the manifest's counts of documents that were left out. */
#ifndef FORMATS_TOKENS_LEFT_OUT_H
#define FORMATS_TOKENS_LEFT_OUT_H
#include "base/json.h"
#include "formats/tokens/tally.h"
C_BEGIN

/* The key "left_out" of manifest.md: a source's name to reasons and counts; under "" what has no
 * source, bad documents and files. Reads it into t, which is empty where it is absent. E_DATA. */
int left_out_parse(struct tally *t, const struct js *top, struct err *e);
/* The same object of t, in order of names; {} where nothing was left out. */
json_t *left_out_json(const struct tally *t);

/* The key "false_duplicates" of manifest.md, of t's two counts of them; absent, and NULL, where
 * both are 0. E_DATA. */
int false_copies_parse(struct tally *t, const struct js *top, struct err *e);
json_t *false_copies_json(const struct tally *t);

C_END
#endif
