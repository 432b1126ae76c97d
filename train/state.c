/* train/state.c - see state.h. */
#include "train/state.h"

#include "base/file.h"
#include "formats/weights/safetensors.h"
#include "kernels/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STATE_FILE "state.safetensors"
/* 2^18 floats are 1 MiB. */
#define PIECE ((int64_t)1 << 18) /* floats moved at once */

/* The three values kept of each parameter: the weight and AdamW's two moments. */
static const char part_letter[] = { 'w', 'm', 'v' };

/* Values [at, at + n) of a parameter's, as far as one rank has them; x: where, if it is this one. */
struct piece {
    float *x;
    int64_t n;
    int owner; /* rank */
};

/* The first piece of values [at, end) of one of the arrays. The weights are whole everywhere, of the
 * moments each rank has its share of every chunk. */
static struct piece piece_of(const struct trained *t, int part, int64_t at, int64_t end)
{
    struct share o;
    int k = 0, owner;

    if (part == 0)
        return (struct piece){ t->w + at, end - at, t->rank };
    while (at >= t->chunk[k + 1])
        k++;
    owner = (int)((at - t->chunk[k]) / ((t->chunk[k + 1] - t->chunk[k]) / t->shards));
    o = trained_share(t, k, owner);
    return (struct piece){ (part == 1 ? t->m : t->v) + o.at + (at - o.from),
                           o.to < end ? o.to - at : end - at, owner };
}

/* Writes n floats of the device's memory as the next values of w, a piece at a time. */
int state_write(struct device *d, struct st_writer *w, const float *from, int64_t n,
                struct err *e)
{
    float *piece = malloc((size_t)PIECE * sizeof *piece);
    int rc = piece ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0, k; rc == 0 && i < n; i += k) {
        k = n - i < PIECE ? n - i : PIECE;
        if ((rc = d->to_host(d, piece, from + i, (size_t)k * sizeof *piece)) < 0)
            err_set(e, rc, "cannot read trained values from '%s'", d->name);
        else
            rc = st_write_f32(w, piece, k, e);
    }
    free(piece);
    return rc;
}

/* Values [at, end) of moments that the ranks hold in parts, to w where the rank writes (else
 * NULL): a piece at a time, from the one that has it. A rank that fails goes on with whatever is in
 * the piece, as the one that writes would wait for it; they meet it at the next tensor. */
static int write_shared(struct device *d, struct st_writer *w, const struct trained *t, int part,
                        int64_t at, int64_t end, struct err *e)
{
    struct group *g = d->group;
    float *piece = malloc((size_t)PIECE * sizeof *piece);
    int local = group_meet(g, piece ? 0 : err_set(e, E_SYS, "out of memory"), NULL, e), rc = local;

    for (int64_t k; rc == 0 && at < end; at += k) {
        struct piece p = piece_of(t, part, at, end);

        k = p.n < PIECE ? p.n : PIECE;
        if (p.owner == g->rank && local == 0 &&
            (local = d->to_host(d, piece, p.x, (size_t)k * sizeof *piece)) < 0)
            err_set(e, local, "cannot read trained values from '%s'", d->name);
        rc = group_bring(g, p.owner, piece, (size_t)k * sizeof *piece, e);
        if (w && rc == 0 && local == 0)
            local = st_write_f32(w, piece, k, e);
    }
    free(piece);
    return rc < 0 ? rc : local;
}

/* Value by value of the file: the weights, which every rank has, from the one that writes, the
 * moments from whoever has them. */
static int write_values(struct device *d, struct st_writer *w, const struct trained *t,
                        struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; rc >= 0 && i < 3 * t->n_params; i++) {
        const struct param *p = &t->params[i % t->n_params];
        int part = (int)(i / t->n_params);

        if (part > 0 && t->shards > 1) {
            if ((rc = group_meet(d->group, rc, NULL, e)) == 0)
                rc = write_shared(d, w, t, part, p->offset, p->offset + p->count, e);
        } else if (w) {
            rc = state_write(d, w, piece_of(t, part, p->offset, p->offset + p->count).x, p->count, e);
        }
    }
    return rc;
}

int state_send(struct device *d, const struct trained *t, struct err *e)
{
    return write_values(d, NULL, t, e);
}

/* Declares w.NAME of every parameter, then m.NAME, then v.NAME. *names is one block, of len
 * bytes a name: letter, dot, and the name with its final 0. */
static int declare(const struct trained *t, struct st_decl **decl, char **names, struct err *e)
{
    const size_t len = sizeof t->params->name + 2;
    int64_t n = 3 * t->n_params;

    *decl = calloc((size_t)n, sizeof **decl);
    *names = malloc((size_t)n * len);
    if (!*decl || !*names)
        return err_set(e, E_SYS, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        const struct param *p = &t->params[i % t->n_params];
        char *name = *names + (size_t)i * len;
        snprintf(name, len, "%c.%s", part_letter[i / t->n_params], p->name);
        (*decl)[i] = (struct st_decl){ .name = name, .type = &type_f32, .dims = 1,
                                       .shape = { p->count } };
    }
    return 0;
}

static int write_state(struct device *d, const struct trained *t, const char *folder,
                       struct err *e)
{
    char *path = path_join(folder, STATE_FILE), *names = NULL;
    struct st_decl *decl = NULL;
    struct st_writer *w = NULL;
    int rc = declare(t, &decl, &names, e);

    if (rc == 0)
        rc = st_create(&w, path, decl, 3 * t->n_params, e);
    if (rc == 0) {
        rc = write_values(d, w, t, e);
        if (rc == 0)
            rc = st_finish(w, e);
        else
            st_abandon(w);
    }
    free(decl);
    free(names);
    free(path);
    return rc;
}

/* Writes a checkpoint under a temporary name and publishes it when it is whole. Only then
 * are old ones removed. A failure removes what was written, and the old ones stay. */
int state_save(struct device *d, const struct trained *t, const char *root,
               struct checkpoint *c, int64_t keep, struct err *e)
{
    char *folder;
    int rc = checkpoint_begin(root, c->step, &folder, e);

    if (rc < 0)
        return rc;
    if ((rc = write_state(d, t, folder, e)) < 0)
        checkpoint_abandon(root, c->step);
    else if ((rc = checkpoint_commit(root, c, e)) == 0)
        rc = checkpoint_prune(root, c->step, keep, e);
    free(folder);
    return rc;
}

/* Mapped pages that were copied are given back, or a large state would count twice. */
static void forget_pages(const void *p, size_t nbytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    /* Rounds inward to whole pages: a page at the edge may hold bytes that are still to be
     * read. */
    uintptr_t first = ((uintptr_t)p + page - 1) / page * page;
    uintptr_t last = ((uintptr_t)p + nbytes) / page * page;

    if (last > first)
        madvise((void *)first, last - first, MADV_DONTNEED);
}

/* What of the tensor, whose values are at offset in the array, is held here. */
static int load_tensor(struct device *d, const struct tensor *f, int64_t offset,
                       const struct trained *t, int part, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0, k; rc == 0 && i < f->count; i += k) {
        struct piece p = piece_of(t, part, offset + i, offset + f->count);
        const char *from = (const char *)f->data + (size_t)i * sizeof *p.x;

        k = p.n < PIECE ? p.n : PIECE;
        if (p.owner == t->rank)
            rc = d->to_device(d, p.x, from, (size_t)k * sizeof *p.x);
        forget_pages(from, (size_t)k * sizeof *p.x);
    }
    return rc < 0 ? err_set(e, rc, "cannot write trained values to '%s'", d->name) : 0;
}

/* Loads all values from a checkpoint. Every tensor must be there, in float32 and of the
 * model's size; nothing else may be in the file. */
int state_load(struct device *d, const struct trained *t, const char *folder, struct err *e)
{
    char *path = path_join(folder, STATE_FILE), name[sizeof t->params->name + 2];
    struct st_file *f = NULL;
    int rc = st_open(&f, path, e);

    if (rc == 0 && st_count(f) != 3 * t->n_params)
        rc = err_set(e, E_DATA, "'%s' has %" PRId64 " tensors, this model trains %" PRId64,
                     path, st_count(f), 3 * t->n_params);
    for (int64_t i = 0; rc == 0 && i < 3 * t->n_params; i++) {
        const struct param *p = &t->params[i % t->n_params];
        int part = (int)(i / t->n_params);
        const struct tensor *found;

        snprintf(name, sizeof name, "%c.%s", part_letter[part], p->name);
        found = st_find(f, name);
        if (!found || found->type->plain != DT_F32 || found->count != p->count)
            rc = err_set(e, E_DATA, "'%s' lacks the float32 tensor '%s' of %" PRId64 " values",
                         path, name, p->count);
        else
            rc = load_tensor(d, found, p->offset, t, part, e);
    }
    st_close(f);
    free(path);
    return rc;
}
