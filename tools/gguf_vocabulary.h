/* tools/gguf_vocabulary.h - the tokens of a model's folder, one after another (internal). */
#ifndef TOOLS_GGUF_VOCABULARY_H
#define TOOLS_GGUF_VOCABULARY_H
#include "base/json.h"
#include "formats/tokenizer/spmodel.h"
#include <stdbool.h>

struct vocabulary {
    struct vocabulary_token {
        char *text; /* malloc'ed; NULL: none of this id */
        size_t n;
        float score;
        int type; /* enum spmodel_type, which is GGUF's too */
    } *v;
    int64_t n;
};
int vocabulary_open(struct vocabulary *v, int64_t n, struct err *e);
void vocabulary_free(struct vocabulary *v);
/* Ids from n on are passed over. */
int vocabulary_set(struct vocabulary *v, int64_t id, const char *text, size_t n, float score, int type,
                   struct err *e);
/* A token that is found in texts as it stands, special or not: as llama.cpp's converter judges. */
int vocabulary_add(struct vocabulary *v, int64_t id, const char *text, bool special, struct err *e);
/* Of added_tokens.json and tokenizer_config.json of the folder, where they are there. */
int vocabulary_added(struct vocabulary *v, const char *folder, struct err *e);
/* What is left out gets a name and is unused. */
int vocabulary_fill(struct vocabulary *v, struct err *e);
/* The object of a folder's file; o->obj NULL where it has none. */
int vocabulary_json(struct js *o, char **path, const char *folder, const char *name, struct err *e);

#endif
