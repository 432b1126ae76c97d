/* formats/tokens/manifest.h - manifest.json: what a data set folder holds. */
#ifndef FORMATS_TOKENS_MANIFEST_H
#define FORMATS_TOKENS_MANIFEST_H
#include "base/err.h"
#include "formats/tokens/shard.h"
#include "formats/tokens/stream.h"
#include "formats/tokens/tally.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* Keys and rules stand in manifest.md. */
#define MANIFEST_FILE "manifest.json"
#define MANIFEST_JOURNAL "lpack.journal" /* is there until the run that makes it has ended */
#define MANIFEST_MAX_SPLITS 64
#define MANIFEST_SEED_MAX ((int64_t)1 << 53)

struct manifest_shard {
    char file[256];
    int64_t bytes, docs, tokens;
    char hash[33];        /* XXH3-128 of the file, hex */
    uint64_t footer_hash; /* XXH3-64 of its last 128 bytes */
};
struct manifest_split {
    char name[64];
    int64_t docs, tokens, text_bytes, text_words;
    struct source_table sources;
    struct manifest_shard *shards;
    int64_t n_shards;
    size_t cap_shards;
};
struct manifest {
    struct token_info info;
    int64_t seed;
    bool shuffled;
    int n_splits;
    struct manifest_split splits[MANIFEST_MAX_SPLITS];
    struct tally left_out; /* dropped and bad ones alone: what was kept is in the splits */
    char **command;
    int n_command;
};

/* json: nbytes of text; name is for messages. The caller frees. E_DATA naming the key. */
int manifest_parse(struct manifest **m, const char *json, size_t nbytes, const char *name,
                   struct err *e);
/* Reads folder/manifest.json. E_NOINPUT saying that the folder is no data set; E_DATA. */
int manifest_read(struct manifest **m, const char *folder, struct err *e);
/* Writes folder/manifest.json by rename. The same content gives the same bytes. */
int manifest_write(const struct manifest *m, const char *folder, struct err *e);
/* The same in two steps, so that what needs memory is done before anything is published: the
 * text, malloc'ed, NULL when memory is short; and the file. */
char *manifest_text(const struct manifest *m);
int manifest_put(const char *text, const char *folder, struct err *e);
void manifest_free(struct manifest *m); /* NULL is fine */

/* NULL when there is none of that name. */
const struct manifest_split *manifest_find(const struct manifest *m, const char *name);
/* Letters, digits, '.', '_', '-', beginning with a letter or digit; 1 to 63 of them. */
bool split_name_ok(const char *name);

/* Whether a shard, read from path, has the size, counts and footer that h lists. E_DATA. */
int manifest_check_shard(const struct manifest_shard *h, const struct shard *s, const char *path,
                         struct err *e);
/* The same of the file at path, all of which is read: shard_verify with h's hash. E_NOINPUT,
 * E_DATA, E_SYS. */
int manifest_verify_shard(const struct manifest_shard *h, const char *path, struct err *e);

/* For writers. manifest_new: NULL when memory is short. Splits get their names directly. */
struct manifest *manifest_new(void);
/* The split of that name, made where it is missing; NULL when there are too many. */
struct manifest_split *manifest_add_split(struct manifest *m, const char *name);
int manifest_add_shard(struct manifest_split *s, const struct manifest_shard *shard,
                       struct err *e);

C_END
#endif
