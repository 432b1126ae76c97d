/* prep/part.h - which of the input files are this machine's, where many do the work. */
#ifndef PREP_PART_H
#define PREP_PART_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/* Part k of n, 0 <= k < n. */
struct part {
    int64_t k, n;
};

/* "3/8" is the third of eight. "auto" is what the starter of this process says in the
 * environment: its rank (base/ranks.h), and of a job array of Slurm's SLURM_ARRAY_TASK_ID, less
 * _MIN and by _STEP, of SLURM_ARRAY_TASK_COUNT. Where there are both, each array task's share
 * is dealt to its ranks. E_USAGE, also for "auto" where nothing is said: each of many would do
 * everything. */
int part_parse(struct part *p, const char *text, struct err *e);

/* The operands as one list of files, of which file i is in part i mod n. All parts together are
 * all files, each once, as long as every machine sees the same ones. paths is malloc'ed, and
 * each of its strings; part_free frees. As source_open, and E_USAGE for standard input and for
 * fewer files than parts, which every part says alike, before any work is done. */
struct part_files {
    char **path;
    int64_t n, of;
};
int part_take(struct part_files *f, const struct part *p, const char *const *operands, int n,
              const char *const *include, int n_include, struct err *e);
void part_free(struct part_files *f);

C_END
#endif
