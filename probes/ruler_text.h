/* probes/ruler_text.h - text as a haystack: words of it, cut into sentences. */
#ifndef PROBES_RULER_TEXT_H
#define PROBES_RULER_TEXT_H
#include "probes/probe.h"
#include "probes/sentences.h"
C_BEGIN

/* Words with one space between two, as often round as a prompt needs. */
struct ruler_text {
    struct buf flat;            /* all words */
    int64_t n;                  /* of them */
    size_t most;                /* bytes that a haystack may have */
    struct buf now;             /* the words of one haystack */
    struct sentences sentences; /* in now */
};
/* E_DATA: not UTF-8, no words. */
int ruler_text_open(struct ruler_text *t, const struct probe_ask *a, struct err *e);
/* The first n words, into now and sentences; *fits is false where they are longer than any prompt of the
 * length asked for. E_SYS. */
int ruler_text_take(struct ruler_text *t, int64_t n, bool *fits, struct err *e);
void ruler_text_free(struct ruler_text *t);

C_END
#endif
