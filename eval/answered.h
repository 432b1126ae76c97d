/* eval/answered.h - what a model has answered, kept in a file as it goes: a killed run goes on. */
#ifndef EVAL_ANSWERED_H
#define EVAL_ANSWERED_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * The journal (formats/probes.md): a line of JSON that names the model, then one an answer, each with
 * a sum of itself. Each is written at once, so what a killed run leaves is cut within its last line,
 * which then counts for nothing. Any other line that is damaged is E_DATA, naming it.
 */
struct answered;

struct answer {
    uint64_t key;       /* of prompt, answers, length of the reply, RoPE: all that made it */
    const char *task;
    int64_t length, number, tokens;
    double depth, score;
    const char *output; /* UTF-8 or not; nbytes */
    size_t nbytes;
};

/* text: of the file, nbytes; 0 bytes: there is none yet. model: names weights, adapter and tokenizer.
 * E_CONFIG: it is another's; E_DATA, E_SYS. */
int answered_parse(struct answered **a, const char *path, const char *text, size_t nbytes,
                   uint64_t model, struct err *e);
/* From now on answers are added to the file, behind the last whole line. device: for people. E_CREATE,
 * E_IO. */
int answered_write(struct answered *a, const char *device, struct err *e);
void answered_close(struct answered *a);
int64_t answered_count(const struct answered *a);
const char *answered_device(const struct answered *a); /* as its first line says */
/* The score of an answer that the file had when it was opened. */
bool answered_find(const struct answered *a, uint64_t key, double *score);
/* One more, on disk where the file is written. E_IO, E_SYS. */
int answered_add(struct answered *a, const struct answer *x, struct err *e);

C_END
#endif
