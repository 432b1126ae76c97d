/* model/stages.c - see stages.h. */
#include "model/stages.h"

#include <stdlib.h>
#include <string.h>

static bool are_several(const struct model *m) { return m->o.stages > 1; }

/* The layers of one of them. */
static void layers_of(const struct model *m, int64_t stage, int64_t *from, int64_t *to)
{
    const struct group who = { .rank = (int)stage, .size = (int)m->o.stages };

    group_part(&who, m->c.layers, from, to); /* the last ranks have fewer, and the head */
}

int stages_layers(struct model *m, struct err *e)
{
    int64_t n = m->c.layers, stages = m->o.stages;

    m->from = 0, m->to = n;
    if (!are_several(m))
        return 0;
    if (m->o.mode != TRAIN_NONE || !m->o.cache.rows || m->o.cp > 1 || m->o.shares > 1)
        return err_set(e, E_BUG, "layers over ranks, of a model that is not for texts that grow");
    if (stages > n)
        return err_set(e, E_CONFIG, "the model has %lld layers: they cannot lie over %lld ranks", (long long)n,
                       (long long)stages);
    layers_of(m, m->o.stage, &m->from, &m->to);
    return 0;
}

bool stage_has(const struct model *m, enum role r, int64_t layer)
{
    if (layer >= 0)
        return layer >= m->from && layer < m->to;
    if (r == ROLE_EMBED)
        return stage_is_first(m) || (m->c.tied && stage_is_last(m));
    return stage_is_last(m);
}

int stages_open(struct model *m, struct err *e)
{
    if (!are_several(m))
        return 0;
    if (!m->o.pipe || m->o.pipe->size != m->o.stages || m->o.pipe->rank != m->o.stage)
        return err_set(e, E_BUG, "layers over %lld ranks, and no group of so many", (long long)m->o.stages);
    if (!(m->stages = calloc(1, sizeof *m->stages)))
        return err_set(e, E_SYS, "out of memory");
    line_open(&m->stages->line, m->d, m->o.pipe);
    return 0;
}

void stages_close(struct model *m)
{
    if (m->stages)
        line_close(&m->stages->line);
    free(m->stages);
    m->stages = NULL;
}

static size_t bytes_of(const struct model *m, int64_t rows)
{
    return (size_t)(rows * m->c.dim) * dtype_bytes(m->d->act);
}

/* The ops that follow read what came, or write where what is sent lies. */
static void pass(struct model *m, const void *out, size_t n_out, void *in, size_t n_in)
{
    int rc = line_pass(&m->stages->line, m->rc == 0, 1, out, n_out, in, n_in);

    if (rc == 0)
        rc = line_wait(&m->stages->line, m->stages->line.begun);
    m->rc = m->rc < 0 ? m->rc : rc;
}

void stages_take(struct model *m, int64_t rows)
{
    if (!stage_is_first(m))
        pass(m, NULL, 0, m->work.x, bytes_of(m, rows));
}

void stages_give(struct model *m, int64_t rows)
{
    if (!stage_is_last(m))
        pass(m, m->work.x, bytes_of(m, rows), NULL, 0);
}

int stages_settled(struct model *m, int rc, struct err *e)
{
    int failed = m->stages ? line_failed(&m->stages->line, NULL) : 0;

    return rc == 0 && failed < 0 ? line_failed(&m->stages->line, e) : rc;
}

int stages_logits(struct model *m, int rc, float *logits, int64_t n, struct err *e)
{
    struct group *g = m->o.pipe;

    if (!m->stages)
        return rc;
    if (rc < 0) /* the others may wait for rows, and not come to a meeting */
        return group_leave(g, rc);
    if (!logits)
        return 0;
    rc = group_meet(g, 0, NULL, e);
    return rc < 0 ? rc : g->broadcast(g, g->size - 1, logits, (size_t)n * sizeof *logits, e);
}

int stages_hashes(struct model *m, uint64_t *each, int64_t n, int rc, struct err *e)
{
    struct group *g = m->o.pipe;
    size_t bytes = (size_t)n * sizeof *each;
    uint64_t *all;

    if (!m->stages)
        return rc;
    all = malloc((size_t)g->size * bytes + 1);
    if (rc == 0 && !all)
        rc = err_set(e, E_SYS, "out of memory");
    if ((rc = group_meet(g, rc, NULL, e)) == 0 && (rc = g->gather(g, each, all, bytes, e)) == 0)
        for (int64_t i = 0; i < n; i++)
            for (int r = 0; r < g->size && each[i] == ELSEWHERE; r++)
                each[i] = all[r * n + i];
    free(all);
    return rc;
}

int model_layer_rank(const struct model *m, int64_t layer)
{
    int64_t from, to = 0;
    int r = -1;

    if (!m->stages)
        return 0;
    while (layer >= to)
        layers_of(m, ++r, &from, &to);
    return r;
}
