/* prep/lprep_options.h - what lprep's options set, and their rows. */
#ifndef PREP_LPREP_OPTIONS_H
#define PREP_LPREP_OPTIONS_H
#include "base/opt.h"
#include "prep/prep.h"

#include <stdio.h>

/* Fields that the rows fill; those of enums are an index into the words of their row. */
struct args {
    const char *tokenizer, *output, *stats, *part, *skipped, *removed, *resume;
    bool quiet, verbose, json, force, mpi;
    int format, on_error, utf8, prompt, engine, dedup;
    int64_t threads, max_record, dedup_bytes, bands, rows, words, eval_words;
    struct opt_list include, where, where_not, sample, eval;
    struct prep_opts prep;
    FILE *skipped_file;     /* open; NULL: no --skipped */
    const struct opt *opts; /* the table itself, for prep_rest */
};

/* The defaults, which the rows' help names. */
#define ARGS_DEFAULT { .max_record = 16 << 20, .dedup_bytes = 256 << 20, .bands = 14, .rows = 8, \
                       .words = 5, .eval_words = 13 }

/* Adds lprep's rows, which set a. */
void lprep_rows(struct opt_table *t, struct args *a);

#endif
