/* train/run.h - a training run from its settings to its results. */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H
#include "base/err.h"
#include "model/session.h"
#include "train/budget.h"
#include "train/metrics.h"
#include "train/settings.h"
#include "train/update.h"
#include <jansson.h>
C_BEGIN

#define RUN_MAX_STREAK 3 /* steps in a row that are not finite, then the run stops (E_NO) */

/* Where the time before the first step goes. */
enum run_phase { PHASE_FILES, PHASE_DEVICE, PHASE_PLAN, PHASE_MEMORY, PHASE_WEIGHTS, RUN_PHASES };

/* Everything that is open during a run. Zero it before run_open, but for the group; run_close
 * takes any state. Of several processes each has its own, with the same settings; every
 * function below that can fail does so on all of them or on none. */
struct run {
    struct settings *s;
    struct group *group;        /* the processes that train together; NULL: this one */
    struct session_options open;
    struct session session;     /* its files are closed once they are loaded */
    struct dataset *data, *val;
    struct budget budget;
    struct trainer t;
    struct progress p;
    struct metrics metrics;
    struct err unlogged;        /* a line of metrics could not be written: why */
    char *metrics_path;
    int argc;                   /* the command, for options.json */
    char **argv;
    json_t *run;                /* settings_run */
    char *root;                 /* OUT/checkpoints */
    char base_was[17];          /* the base's hash by the checkpoint; "": it is older and has none */
    int lock;
    int64_t resumed, saved;     /* step it went on from, last step published */
    double last_loss, started_s, trained_s;
    double step_s[2];           /* of a step of each kind (enum attention_kind), averaged over
                                   those before; 0: none yet */
    double val_s;               /* of the last validation */
    int64_t trained_tokens;     /* in this process */
    double comm_s, all_s;       /* of its steps: in exchanges, of all ranks for their gradients */
    struct metrics_rank *each;  /* [group->size]; NULL: not asked for yet */
    double matrix_rate;         /* of the device, operations a second (rate.h) */
    double phase_s[RUN_PHASES], mark_s;
};

/* Opens model files and data, resolves the settings, opens the device and plans: everything
 * that can be refused before memory is taken or a file is written. */
int run_open(struct run *r, struct settings *s, struct err *e);
/* Opens OUT, finds and checks a checkpoint. *done: the run was complete already. */
int run_begin(struct run *r, bool *done, struct err *e);
/* Loads the model, goes on from the checkpoint that run_begin found, writes options.json,
 * trains to the last step and publishes. E_AGAIN after a signal, with a checkpoint. */
int run_train(struct run *r, int argc, char **argv, struct err *e);
/* agree.c. Version, options, base and data are the same on all ranks. E_CONFIG, naming what is
 * not. */
int run_agree(const struct run *r, struct err *e);
/* summary.c. OUT/summary.json speaks of finished results: it goes before they change, and comes
 * back last. seconds: of the whole run. E_CREATE, E_IO. */
int run_unsummarise(const struct run *r, struct err *e);
int run_summarise(const struct run *r, double seconds, struct err *e);
/* OUT/summary.json of the run, as text; malloc'ed, NULL where there is none. */
char *run_summary(const struct run *r);
void run_close(struct run *r);

/* "name detail" of a device for its checkpoints: without the number of threads, which changes no
 * bit. Of a text that has both, name is "". */
void run_hardware(char *out, size_t cap, const char *name, const char *detail);

/* Bytes taken now: resident ones, or of a device with memory of its own what it gave since. */
size_t run_memory(const struct run *r);

/* Adds the time since the last call, or since mark_s was set, to phase p. */
void run_phase(struct run *r, enum run_phase p);

/* writer.c: all that a run leaves on the disk. Nobody else asks which rank writes. Every rank
 * calls these at the same point, with what it has failed of so far (rc); one writes, and all
 * leave with the same outcome (kernels/group.h). writer_open: OUT, made, locked, swept
 * (outdir_open). writer_begin: options.json, the log of metrics at r->resumed, no summary of
 * older results. writer_save: a checkpoint of r->p.step, unless there is one; first each rank
 * sees whether all is finite. writer_finish: the results, then summary.json. writer_line alone
 * is not met: r->unlogged says why a line could not be written, and the loop then publishes the
 * step and ends with that. */
int writer_open(struct run *r, int rc, struct err *e);
int writer_begin(struct run *r, int argc, char **argv, struct err *e);
void writer_line(struct run *r, const struct metrics_line *l);
int writer_save(struct run *r, struct err *e);
int writer_finish(struct run *r, int rc, struct err *e);

/* loop.c: steps until the last one, a signal, to whichever rank it came (E_AGAIN), or a line of
 * metrics that could not be written (E_IO); of the last two with a checkpoint. */
int run_loop(struct run *r, struct err *e);
/* Seconds that a step should take: what the plan foretells or, if less, what the last ones of its
 * kind took; these also where they show that the plan was wrong, by more than a late step is late
 * (WATCH_LATE), which was said then. 0: nothing is known. */
double run_expected_s(const struct run *r, int64_t step);

C_END
#endif
