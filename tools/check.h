/* tools/check.h - what another program would not take of a model or an adapter, before it is tried. */
#ifndef TOOLS_CHECK_H
#define TOOLS_CHECK_H
#include "base/err.h"
#include <jansson.h>
C_BEGIN

/* The words of --check, in this order. */
#define CHECK_PROGRAMS "vllm|llama.cpp|peft|transformers"
enum check_program { CHECK_VLLM, CHECK_LLAMA_CPP, CHECK_PEFT, CHECK_TRANSFORMERS };

/* What a program does with what was found, worst last but for the notes, which cost nothing. */
enum check_kind { CHECK_NOTE, CHECK_DIFFERS, CHECK_IGNORED, CHECK_REFUSED };
const char *check_word(enum check_kind k); /* "ignored" */

struct check_list {
    struct check_finding {
        enum check_kind kind;
        char text[400];
    } *v;
    int n;
    size_t cap;
    enum check_kind worst;
};

/* Looks at a model's folder, an adapter's folder or a GGUF file, of which only small files and headers
 * are read. base: the adapter's base model, or NULL for the one it names. E_NOINPUT (none of the three),
 * E_DATA, E_SYS. The facts are of the programs' sources and documentation as of 2026. */
int check_path(struct check_list *l, enum check_program p, const char *path, const char *base,
               struct err *e);
void check_free(struct check_list *l);

C_END
#endif
