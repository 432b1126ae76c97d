/* formats/tokenizer/chat.h - chat templates: where a model keeps its own, and the well-known ones by name. */
#ifndef FORMATS_TOKENIZER_CHAT_H
#define FORMATS_TOKENIZER_CHAT_H
#include "base/err.h"
#include <stddef.h>
C_BEGIN

/*
 * The text of the chat template (Jinja) that a model's folder has, as transformers would take it:
 * chat_template.jinja, else "chat_template" of tokenizer_config.json: a text, or of a list of
 * {name, template} the one called "default". malloc'ed, with a NUL after the end; NULL, *n 0 and success
 * where there is none. E_DATA: a field of another type, more than 1 MiB, not UTF-8. E_SYS, E_IO.
 */
int chat_template(const char *folder, char **text, size_t *n, struct err *e);

/*
 * Which well-known template a text is, by the marks of a turn in it:
 *
 *   llama2    [INST] and <<SYS>>           mistral  [INST], no <<SYS>>
 *   chatml    <|im_start|>                 llama3   <|start_header_id|> and <|eot_id|>
 *   alpaca    ### Instruction: and ### Response:
 *   gemma     <start_of_turn> and <end_of_turn>
 *
 * Marks of two of them, or of none: CHAT_OTHER. The marks say how turns are written; not what a template
 * puts in of its own accord (a date, a system text, tools), nor its blanks.
 */
#define CHAT_FORMS(X)                                                                          \
    X(LLAMA2, "llama2") X(ALPACA, "alpaca") X(CHATML, "chatml") X(LLAMA3, "llama3")            \
    X(MISTRAL, "mistral") X(GEMMA, "gemma")
#define CHAT_FORM_ID(id, name) CHAT_##id,
enum chat_form { CHAT_OTHER, CHAT_FORMS(CHAT_FORM_ID) CHAT_FORMS_N };
enum chat_form chat_form_of(const char *text, size_t n);
/* "llama2", ...; CHAT_OTHER: "other". */
const char *chat_form_name(enum chat_form f);

C_END
#endif
