/* base/ranks.c - see ranks.h. */
#include "base/ranks.h"

#include "base/opt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The variables by which each of these programs tells a process its number among all (rank) and
 * among those of its host. */
struct starter {
    const char *by, *size, *rank, *local_rank, *local_size;
};

/* Slurm's last variable is a list over the hosts: tasks_here. */
static const struct starter starters[] = {
    { RANKS_OWN, "LONGLORA_SIZE", "LONGLORA_RANK", "LONGLORA_LOCAL_RANK",
      "LONGLORA_LOCAL_SIZE" },
    { "torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE" },
    { "Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
      "OMPI_COMM_WORLD_LOCAL_SIZE" },
    { "MPICH", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS" },
    { "Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", NULL },
};
enum { STARTERS = sizeof starters / sizeof *starters };

/* 1 and *v where the variable is set, 0 where it is not, or an error for what is no number. */
int ranks_env(const char *name, int64_t *v, struct err *e)
{
    const char *s = getenv(name);

    if (!s || !*s)
        return 0;
    if (num_i64(s, v) && *v >= 0 && *v <= RANKS_MOST)
        return 1;
    return err_set(e, E_USAGE, "%s is '%.40s', which is not a process number", name, s);
}

/* "4(x2),3", tasks on hosts 0, 1 and 2: those on host 'node'; -1: not such a list. */
static int64_t tasks_on(const char *list, int64_t node)
{
    while (*list) {
        int64_t tasks = 0, times = 1;
        int n = 0;

        /* %n stores how many characters were read, so that the text can be walked. */
        if (sscanf(list, "%9" SCNd64 "%n", &tasks, &n) != 1)
            return -1;
        list += n;
        if (sscanf(list, "(x%9" SCNd64 ")%n", &times, &n) == 1)
            list += n;
        /* The entry stands for 'times' hosts, of which this one is the node-th from here. */
        if (node < times)
            return tasks;
        node -= times;
        if (*list == ',')
            list++;
        else if (*list)
            return -1;
    }
    return -1;
}

/* As ranks_env, of a Slurm step. */
static int tasks_here(int64_t *v, struct err *e)
{
    static const char *const name = "SLURM_STEP_TASKS_PER_NODE";
    const char *list = getenv(name);
    int64_t node;
    int rc;

    if (!list || !*list || (rc = ranks_env("SLURM_NODEID", &node, e)) == 0)
        return 0;
    if (rc < 0)
        return rc;
    if ((*v = tasks_on(list, node)) >= 0)
        return 1;
    return err_set(e, E_USAGE, "%s is '%.40s', which has no entry for node %lld (SLURM_NODEID)",
                   name, list, (long long)node);
}

/* Two variables that contradict each other: better an error than processes that
 * wait for one another. */
static int too_high(const char *a, int64_t va, const char *b, int64_t vb, struct err *e)
{
    return err_set(e, E_USAGE, "%s is %lld, but %s is only %lld", a, (long long)va, b,
                   (long long)vb);
}

/* What the starter says of this host, where it says both. */
static int find_local(struct ranks *r, const struct starter *s, struct err *e)
{
    const char *size = s->local_size ? s->local_size : "SLURM_STEP_TASKS_PER_NODE";
    int64_t k = 0, n = 0;
    int has_k = ranks_env(s->local_rank, &k, e), has_n;

    if (has_k < 0)
        return has_k;
    has_n = s->local_size ? ranks_env(size, &n, e) : tasks_here(&n, e);
    if (has_n < 0)
        return has_n;
    if (has_n && n > r->size)
        return too_high(size, n, s->size, r->size, e);
    if (has_k && has_n && k >= n)
        return too_high(s->local_rank, k, size, n, e);
    if (has_k && k >= r->size)
        return too_high(s->local_rank, k, s->size, r->size, e);
    /* -1 and 0: not known. */
    r->local_rank = has_k ? (int)k : -1;
    r->local_size = has_n ? (int)n : 0;
    return 0;
}

/* A size without a rank cannot be used: each process must know which one it is. */
static int find_rank(struct ranks *r, const struct starter *s, int64_t size, struct err *e)
{
    int64_t k;
    int has = ranks_env(s->rank, &k, e);

    if (has < 0)
        return has;
    if (!has)
        return err_set(e, E_USAGE, "%s is %lld, but %s, the number of this process, is "
                       "not set", s->size, (long long)size, s->rank);
    if (k >= size)
        return too_high(s->rank, k, s->size, size, e);
    r->by = s->by;
    r->rank = (int)k, r->size = (int)size;
    return find_local(r, s, e);
}

/* Without any of these variables this process is the only one. */
int ranks_find(struct ranks *r, struct err *e)
{
    *r = (struct ranks){ .size = 1, .local_size = 1 };
    if (gethostname(r->host, sizeof r->host - 1) < 0)
        snprintf(r->host, sizeof r->host, "?");
    /* The first whose size is set is taken: within a Slurm job another starter's variables may
     * stand beside Slurm's own. */
    for (int i = 0; i < STARTERS; i++) {
        int64_t size;
        int rc = ranks_env(starters[i].size, &size, e);

        if (rc < 0)
            return rc;
        if (rc > 0)
            return find_rank(r, &starters[i], size, e);
    }
    return 0;
}
