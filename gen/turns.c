/* gen/turns.c - see turns.h. */
#include "gen/turns.h"

#include <stdlib.h>
#include <string.h>

/* A template as the texts round messages. Of llama2, mistral and gemma a system message has its place in the
 * first user's. "\1" is BOS and "\2" EOS: ids, where a tokenizer reads no special tokens in a text. */
struct form {
    const char *begin;
    const char *system[2];    /* before and after; NULL: goes into the first user message, */
    const char *inner[2];     /* between these */
    const char *user[2], *assistant[2], *reply; /* reply: after the last message */
    const char *stop;
    bool trim;
};

static const struct form forms[CHAT_FORMS_N] = {
    [CHAT_OTHER] = { "", { "", "" }, { NULL, NULL }, { "", "" }, { "", "" }, "", NULL, false },
    [CHAT_LLAMA2] = { "", { NULL, NULL }, { "<<SYS>>\n", "\n<</SYS>>\n\n" }, { "\1[INST] ", " [/INST]" },
      { " ", " \2" }, "", NULL, true },
    [CHAT_ALPACA] = { "\1", { "", "\n\n" }, { NULL, NULL }, { "### Instruction:\n", "\n\n" },
      { "### Response:\n", "\2\n\n" }, "### Response:\n", "### Instruction:", true },
    [CHAT_CHATML] = { "", { "<|im_start|>system\n", "<|im_end|>\n" }, { NULL, NULL },
      { "<|im_start|>user\n", "<|im_end|>\n" }, { "<|im_start|>assistant\n", "<|im_end|>\n" },
      "<|im_start|>assistant\n", "<|im_end|>", false },
    [CHAT_LLAMA3] = { "\1", { "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>" },
      { NULL, NULL }, { "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>" },
      { "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>" },
      "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", true },
    [CHAT_MISTRAL] = { "\1", { NULL, NULL }, { "", "\n\n" }, { "[INST] ", " [/INST]" }, { "", "\2" }, "",
      NULL, false },
    [CHAT_GEMMA] = { "\1", { NULL, NULL }, { "", "\n\n" }, { "<start_of_turn>user\n", "<end_of_turn>\n" },
      { "<start_of_turn>model\n", "<end_of_turn>\n" }, "<start_of_turn>model\n", "<end_of_turn>", true },
};

static const char alpaca_system[] = "Below is an instruction that describes a task. Write a response "
                                    "that appropriately completes the request.";

const char *turns_name(enum chat_form f) { return f == CHAT_OTHER ? TURNS_NONE : chat_form_name(f); }
const char *turns_stop(enum chat_form f) { return forms[f].stop; }

int turns_recognise(const char *folder, enum chat_form *f, bool *known, struct err *e)
{
    char *text;
    size_t n;
    int rc = chat_template(folder, &text, &n, e);

    *f = rc == 0 && text ? chat_form_of(text, n) : CHAT_OTHER;
    *known = rc < 0 || !text || *f != CHAT_OTHER;
    free(text);
    return rc;
}

/* Ids that grow. */
struct ids {
    const struct tokenizer *t;
    struct buf text;  /* not yet among them */
    int32_t *v;
    int64_t n;
};

static int add_ids(struct ids *to, const int32_t *v, int64_t n, struct err *e)
{
    int32_t *grown = realloc(to->v, (size_t)(to->n + n + 1) * sizeof *grown);

    if (!grown)
        return err_set(e, E_SYS, "out of memory for %lld tokens", (long long)(to->n + n));
    memcpy(grown + to->n, v, (size_t)n * sizeof *v);
    to->v = grown;
    to->n += n;
    return 0;
}

/* The text that waits becomes ids: as late as can be, since what stands together is cut together. */
static int flush(struct ids *to, struct err *e)
{
    int32_t *v = NULL;
    int64_t n = 0;
    int rc = to->text.len ? tokenizer_encode(to->t, to->text.p, to->text.len, &v, &n, e) : 0;

    if (rc == 0 && n)
        rc = add_ids(to, v, n, e);
    free(v);
    to->text.len = 0;
    return rc;
}

static int add_special(struct ids *to, int32_t id, struct err *e)
{
    int rc = flush(to, e);

    return rc < 0 || id < 0 ? rc : add_ids(to, &id, 1, e);
}

/* A template's text. */
static int add_form(struct ids *to, const char *s, struct err *e)
{
    int rc = 0;

    for (; *s && rc == 0; s++)
        rc = *s == '\1' ? add_special(to, tokenizer_bos(to->t), e)
             : *s == '\2' ? add_special(to, tokenizer_eos(to->t), e)
                          : buf_add(&to->text, s, 1, e);
    return rc;
}

static bool blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static int add_message(struct ids *to, const struct form *f, const struct message *m, struct err *e)
{
    const char *p = m->text;
    size_t n = m->n;

    for (; f->trim && n && blank(*p); p++)
        n--;
    while (f->trim && n && blank(p[n - 1]))
        n--;
    return buf_add(&to->text, p, n, e);
}

static int add_between(struct ids *to, const struct form *f, const char *const round[2],
                       const struct message *m, struct err *e)
{
    int rc = add_form(to, round[0], e);

    if (rc == 0)
        rc = add_message(to, f, m, e);
    return rc < 0 ? rc : add_form(to, round[1], e);
}

/* A user's message, with the system's in it where that has its place there. */
static int add_user(struct ids *to, const struct form *f, const struct message *system,
                    const struct message *m, struct err *e)
{
    int rc = add_form(to, f->user[0], e);

    if (rc == 0 && system)
        rc = add_between(to, f, f->inner, system, e);
    if (rc == 0)
        rc = add_message(to, f, m, e);
    return rc < 0 ? rc : add_form(to, f->user[1], e);
}

static int check_roles(const struct message *m, int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        int first = m[0].role == TURN_SYSTEM;
        enum turn_role want = i < first ? TURN_SYSTEM : (i - first) % 2 ? TURN_ASSISTANT : TURN_USER;

        if (m[i].role != want)
            return err_set(e, E_USAGE, "message %d of a conversation is not the %s's", i + 1,
                           want == TURN_USER ? "user" : "assistant");
    }
    return n && m[n - 1].role != TURN_ASSISTANT
               ? 0 : err_set(e, E_USAGE, "a conversation that does not end with the user's message");
}

static int add_all(struct ids *to, enum chat_form c, const struct message *m, int n, struct err *e)
{
    static const struct message preface = { TURN_SYSTEM, alpaca_system, sizeof alpaca_system - 1 };
    const struct form *f = &forms[c];
    const struct message *system = n && m[0].role == TURN_SYSTEM ? m : NULL;
    int rc = add_form(to, f->begin, e), i = system ? 1 : 0;

    if (!system && c == CHAT_ALPACA)
        system = &preface;
    if (rc == 0 && system && f->system[0]) {
        rc = add_between(to, f, f->system, system, e);
        system = NULL;
    }
    for (; i < n && rc == 0; i++, system = NULL)
        rc = m[i].role == TURN_USER ? add_user(to, f, system, &m[i], e)
                                    : add_between(to, f, f->assistant, &m[i], e);
    return rc < 0 ? rc : add_form(to, f->reply, e);
}

int turns_ids(enum chat_form c, const struct tokenizer *t, bool bos, const struct message *m, int n,
              int32_t **ids, int64_t *n_ids, struct err *e)
{
    struct ids to = { .t = t };
    int rc = c == CHAT_OTHER ? 0 : check_roles(m, n, e);

    if (rc == 0 && c == CHAT_OTHER && bos)
        rc = add_special(&to, tokenizer_bos(t), e);
    if (rc == 0)
        rc = add_all(&to, c, m, n, e);
    if (rc == 0)
        rc = flush(&to, e);
    buf_free(&to.text);
    *ids = rc == 0 ? to.v : NULL;
    *n_ids = to.n;
    if (rc < 0)
        free(to.v);
    return rc;
}
