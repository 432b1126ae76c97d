/* prep/prompt.c - documents as text: prompts of instructions, JSON lines, counts. */
#include "prep/doc.h"

#include "base/jsonscan.h"

#include <string.h>

/* The templates are byte for byte those of LongLoRA's
 * code (doc.h), with its odd blanks and line ends. */
static const char alpaca_input[] =
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n";
static const char alpaca_no_input[] =
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n";
static const char llama2_system[] =
    "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as "
    "helpfully as possible, while being safe.  Your answers should not include any harmful, "
    "unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your "
    "responses are socially unbiased and positive in nature.\n\nIf a question does not make "
    "any sense, or is not factually coherent, explain why instead of answering something not "
    "correct. If you don't know the answer to a question, please don't share false "
    "information.\n<</SYS>> \n\n ";

static int add_text(struct buf *out, const char *s, struct err *e)
{
    return buf_add(out, s, strlen(s), e);
}

/* Only a row with an input gets llama2's system text. */
int doc_prompt(const struct doc *d, enum prompt prompt, struct buf *out, struct err *e)
{
    bool input = d->input.len > 0, llama2 = prompt == PROMPT_LLAMA2;
    int rc;

    if (d->bare)
        return buf_add(out, d->text.p, d->text.len, e);
    rc = add_text(out, llama2 ? (input ? llama2_system : "[INST]")
                                  : (input ? alpaca_input : alpaca_no_input), e);

    if (rc == 0)
        rc = buf_add(out, d->text.p, d->text.len, e);
    if (rc == 0 && input)
        rc = add_text(out, llama2 ? " \n" : "\n\n### Input:\n", e);
    if (rc == 0 && input)
        rc = buf_add(out, d->input.p, d->input.len, e);
    if (rc == 0)
        rc = add_text(out, llama2 ? (input ? " [/INST]" : "[/INST]") : "\n\n### Response:", e);
    return rc;
}

/* key stands for all JSON up to the value, such as ",\"name\":"; the value is quoted here. */
static int add_key(struct buf *out, const char *key, const char *p, size_t n, struct err *e)
{
    int rc = add_text(out, key, e);

    return rc < 0 ? rc : json_quote(out, p, n, e);
}

/* All answers as one; the blank before them is put there again. */
static int add_answers(const struct doc *d, struct buf *out, struct err *e)
{
    size_t blank = d->output.p[0] == ' ' && !(d->text.len && d->text.p[d->text.len - 1] == ' ');
    int rc = add_key(out, ",\"answers\":[", d->output.p + blank, d->output.len - blank, e);

    return rc < 0 ? rc : add_text(out, "]", e);
}

int doc_to_json(const struct doc *d, struct buf *out, struct err *e)
{
    int rc = add_key(out, d->bare ? "{\"prompt\":" : d->instruct ? "{\"instruction\":" : "{\"text\":",
                     d->text.p, d->text.len, e);

    if (rc == 0 && d->bare)
        rc = add_answers(d, out, e);
    if (rc == 0 && d->instruct && !d->bare)
        rc = add_key(out, ",\"input\":", d->input.p, d->input.len, e);
    if (rc == 0 && d->instruct && !d->bare)
        rc = add_key(out, ",\"output\":", d->output.p, d->output.len, e);
    if (rc == 0)
        rc = add_key(out, ",\"meta\":{\"source\":", d->source, strlen(d->source), e);
    if (rc == 0)
        rc = add_key(out, ",\"name\":", d->name, strlen(d->name), e);
    return rc < 0 ? rc : add_text(out, "}}\n", e);
}
