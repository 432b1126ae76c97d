/* prep/part.c - see part.h. */
#include "prep/part.h"

#include "base/opt.h"
#include "base/ranks.h"
#include "formats/text/source_list.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The task of a job array of Slurm's; false: this is none. */
static bool array_task(struct part *task, int *rc, struct err *e)
{
    int64_t min = 0, step = 1, id = 0;
    int has;

    *task = (struct part){ 0, 1 };
    if ((has = ranks_env("SLURM_ARRAY_TASK_ID", &id, e)) <= 0 ||
        (has = ranks_env("SLURM_ARRAY_TASK_COUNT", &task->n, e)) <= 0 ||
        (has = ranks_env("SLURM_ARRAY_TASK_MIN", &min, e)) < 0 ||
        (has = ranks_env("SLURM_ARRAY_TASK_STEP", &step, e)) < 0) {
        *rc = has;
        return false;
    }
    /* For --array=10-16:2 ids are 10, 12, 14, 16: tasks 0 to 3 of 4. */
    task->k = (id - min) / (step > 0 ? step : 1);
    if (id < min || task->k >= task->n)
        *rc = err_set(e, E_USAGE, "SLURM_ARRAY_TASK_ID is %lld, of %lld tasks from %lld",
                      (long long)id, (long long)task->n, (long long)min);
    return true;
}

/* The part that the starter's environment gives. Array tasks of r ranks each: rank j of task
 * k is part k r + j. */
static int part_auto(struct part *p, struct err *e)
{
    struct ranks r;
    struct part task;
    int rc = ranks_find(&r, e);
    bool array = rc == 0 && array_task(&task, &rc, e);

    if (rc < 0)
        return rc;
    /* Without an answer every machine would take part 1 of 1 and do all of the work. */
    if (!array && !r.by) {
        err_set(e, E_USAGE, "--part auto: nothing in the environment says which part this is");
        return err_hint(e, "it works under mpirun, srun, torchrun and Slurm's array jobs; "
                           "elsewhere give --part 1/8");
    }
    p->k = task.k * r.size + r.rank;
    p->n = task.n * r.size;
    return 0;
}

int part_parse(struct part *p, const char *text, struct err *e)
{
    const char *slash = strchr(text, '/');
    char k[24];

    if (strcmp(text, "auto") == 0)
        return part_auto(p, e);
    if (slash && (size_t)(slash - text) < sizeof k) {
        memcpy(k, text, (size_t)(slash - text));
        k[slash - text] = '\0';
        /* People count from 1, the program from 0. */
        if (num_i64(k, &p->k) && num_i64(slash + 1, &p->n) && p->k >= 1 && p->k <= p->n &&
            p->n <= RANKS_MOST) {
            p->k--;
            return 0;
        }
    }
    err_set(e, E_USAGE, "--part '%.60s' is not K/N or auto", text);
    return err_hint(e, "--part 3/8 is the third of eight, --part auto the scheduler's rank");
}

/* Moves the names of this part's files, every n-th from the k-th on, from l to f. */
static int take(struct part_files *f, const struct part *p, struct source_list *l,
                struct err *e)
{
    /* A list entry without a path is standard input: only one machine could read it. */
    for (int64_t i = 0; i < l->n; i++)
        if (!l->v[i].path)
            return err_set(e, E_USAGE, "standard input cannot be split into parts");
    if (l->n < p->n) {
        err_set(e, E_USAGE, "%lld file%s cannot be split into %lld parts", (long long)l->n,
                l->n == 1 ? "" : "s", (long long)p->n);
        return err_hint(e, "ask for at most %lld, or split the files", (long long)l->n);
    }
    /* The count of operands is an int further on. */
    if (l->n / p->n >= INT32_MAX)
        return err_set(e, E_USAGE, "%lld files are too many for one part", (long long)l->n);
    if (!(f->path = calloc((size_t)(l->n / p->n) + 1, sizeof *f->path)))
        return err_set(e, E_SYS, "out of memory");
    f->of = l->n;
    for (int64_t i = p->k; i < l->n; i += p->n) {
        f->path[f->n++] = l->v[i].path;
        l->v[i].path = NULL; /* f's now, and freed with it */
    }
    return 0;
}

int part_take(struct part_files *f, const struct part *p, const char *const *operands, int n,
              const char *const *include, int n_include, struct err *e)
{
    struct source_list l = { .include = include, .n_include = n_include };
    int rc = source_list_fill(&l, operands, n, e);

    *f = (struct part_files){ 0 };
    if (rc == 0)
        rc = take(f, p, &l, e);
    source_list_free(&l);
    return rc;
}

void part_free(struct part_files *f)
{
    for (int64_t i = 0; i < f->n; i++)
        free(f->path[i]);
    free(f->path);
}
