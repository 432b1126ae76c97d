/* probes/probe.h - prompts with a known answer, of any length: needles in text, lines to find,
 * variables to follow. Makes text alone; eval/ puts it to a model and scores what comes. */
#ifndef PROBES_PROBE_H
#define PROBES_PROBE_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokenizer/tokenizer.h"
#include <stdint.h>
C_BEGIN

/* How an output is held against the answers; the first two without regard to case. */
enum probe_score {
    PROBE_ALL,  /* the share of the answers that stand in the output (RULER's string_match_all) */
    PROBE_ANY,  /* 1 if one of them does (string_match_part) */
    PROBE_FIRST, /* 1 if the output, after a space or none, begins with the first answer */
    PROBE_NUMBER, /* 1 if the last digits in a row of the output are the first answer's number */
    PROBE_ONLY   /* 1 if the output's first sentence has the first answer, and none of 'others';
                  * without regard to case (BABILong's compare_answers) */
};

/* One prompt. Zero it before; probe_free in any state. */
struct probe {
    struct buf prompt;   /* what the model is given, to where it goes on */
    struct buf answers;  /* n of them, each ended by a NUL */
    struct buf others;   /* n_others wrong answers (PROBE_ONLY), the same way */
    int64_t n, n_others;
    int64_t tokens;      /* of the prompt, BOS not counted */
    double depth;        /* of the (first) answer's place in the prompt, 0 to 1; -1: it has none */
};
void probe_free(struct probe *p);

struct word_lists;
/* The text that hides the answer, and the words that name things. Text and words belong to the
 * caller and outlive the stream. */
struct probe_source {
    const char *text;    /* UTF-8, NULL: none; a kind that needs one says so (E_USAGE) */
    size_t nbytes;
    const struct word_lists *words; /* probes/word_lists.h; NULL: our own */
};

struct probe_ask {
    int64_t length;      /* tokens of prompt and reply together, at most */
    uint64_t seed;
    int64_t number;      /* how many prompts will be taken */
    double depth;        /* 0 to 1: where the kind lets one choose it; -1: as the kind has it */
    const struct tokenizer *tokenizer;
    struct probe_source source;
};

struct probes;

/* One kind of prompt; the table PROBE_KINDS has them all. */
struct probe_kind {
    const char *name;    /* "passkey", "niah_single_1", ... */
    const char *what;    /* a line for --tasks list */
    const char *origin;  /* whose procedure it is: project, file, licence */
    enum probe_score score;
    int64_t reply;       /* tokens that the reply may have */
    bool deep;           /* depth can be chosen, and a map by depth means something */
    bool needs_text;
    uint64_t seed;       /* the original's own, where none is asked for */
    /* State of one stream of prompts, from a->seed: the same prompts on every machine. E_USAGE (a
     * length that is too short), E_DATA, E_SYS. */
    int (*open)(void **state, const struct probe_ask *a, struct err *e);
    int (*next)(void *state, struct probe *p, struct err *e);
    void (*close)(void *state);
};
extern const struct probe_kind *const PROBE_KINDS[];
extern const int N_PROBE_KINDS;
const struct probe_kind *probe_kind_named(const char *name);

/* A stream of a->number prompts of one kind, each of at most length - reply tokens. p is filled
 * anew by each probes_next. */
int probes_open(struct probes **s, const struct probe_kind *k, const struct probe_ask *a,
                struct err *e);
int probes_next(struct probes *s, struct probe *p, struct err *e);
void probes_close(struct probes *s);

/* For kinds: one more answer, one more of the others; and p->tokens of the prompt as it is. E_SYS, E_DATA. */
int probe_answer(struct probe *p, const char *answer, size_t nbytes, struct err *e);
int probe_other(struct probe *p, const char *answer, size_t nbytes, struct err *e);
int probe_count(struct probe *p, const struct tokenizer *t, struct err *e);
/* For kinds: 36 characters of a version 4 UUID and a NUL, as uuid.UUID(int=getrandbits(128), version=4). */
struct python_random;
void probe_uuid(struct python_random *r, char out[37]);

/* The score of an output, 0 to 1. */
double probe_score(const struct probe_kind *k, const struct probe *p, const char *output,
                   size_t nbytes);

C_END
#endif
