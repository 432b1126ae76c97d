/* prep/resume.h - lprep's side of the journal: what a killed run had done is left out. */
#ifndef PREP_RESUME_H
#define PREP_RESUME_H
#include "base/err.h"
#include "base/opt.h"
#include "formats/text/source.h"
#include "prep/dedup.h"
#include "prep/journal.h"
#include "prep/prep.h"
C_BEGIN

struct resume {
    const char *folder; /* lpack's */
    struct buf recipe;  /* a string: what documents depend on, but for inputs and tokenizer */
    struct journal_state state;
    struct stream_run run; /* for the stream */
    int64_t files;         /* that the journal has; 0: there is none */
};
/* Reads the journal in folder, if any. The recipe has "name value" for each option marked
 * OPT_RESULT that was given or has a default, and a line for each file of eval.
 * E_CONFIG naming what the journal's has otherwise; E_NOINPUT, E_IO, E_SYS. resume_close takes
 * any state. */
int resume_open(struct resume *r, const char *folder, const struct opt *opts,
                const struct opt_list *eval, struct err *e);
/* The inputs that the journal names must be the first of s, unchanged; what was counted and seen
 * by --dedup (may be NULL) is so again. E_USAGE for an input that is no file, E_CONFIG for others
 * than the journal has, or another tokenizer. */
int resume_enter(struct resume *r, const struct source *s, const struct token_info *info,
                 struct prep_counts *c, struct dedup *seen, struct err *e);
void resume_close(struct resume *r);

C_END
#endif
