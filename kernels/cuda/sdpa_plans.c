/* kernels/cuda/sdpa_plans.c - finds cuDNN, keeps plans by shape, runs them. */
#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/sdpa_graph.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cuDNN, loaded when the program runs: nothing is linked against it. */
struct sdpa {
    void *lib, *handle;
    struct dnn l;
    dnn_desc device;
    int64_t version, n, cap, uses;
    struct sdpa_plan **plans;
};

/* A function pointer out of dlsym without a cast that C forbids. */
#define LOAD(s, field, name) load(s, name, &(s)->l.field, sizeof (s)->l.field)
static bool load(struct sdpa *s, const char *name, void *to, size_t nbytes)
{
    void *sym = dlsym(s->lib, name);

    memcpy(to, &sym, nbytes);
    return sym != NULL;
}

/* False: a function is missing, so the library is another one. */
static bool load_all(struct sdpa *s)
{
    return LOAD(s, version, "cudnnGetVersion") && LOAD(s, create, "cudnnCreate") &&
           LOAD(s, destroy, "cudnnDestroy") && LOAD(s, set_stream, "cudnnSetStream") &&
           LOAD(s, error_string, "cudnnGetErrorString") &&
           LOAD(s, last_error, "cudnnGetLastErrorString") &&
           LOAD(s, desc_create, "cudnnBackendCreateDescriptor") &&
           LOAD(s, desc_destroy, "cudnnBackendDestroyDescriptor") &&
           LOAD(s, desc_finalize, "cudnnBackendFinalize") &&
           LOAD(s, desc_set, "cudnnBackendSetAttribute") &&
           LOAD(s, desc_get, "cudnnBackendGetAttribute") &&
           LOAD(s, execute, "cudnnBackendExecute");
}

static int check_version(struct sdpa *s, struct err *e)
{
    s->version = (int64_t)s->l.version();
    /* a version is 10000 major + 100 minor + patch: 91100 is 9.11.0 */
    if (s->version < 91100)
        return err_set(e, E_DEVICE, "cuDNN %lld.%lld.%lld is too old: 9.11 is needed",
                       (long long)(s->version / 10000), (long long)(s->version / 100 % 100),
                       (long long)(s->version % 100));
    if (s->version == 91400)
        return err_set(e, E_DEVICE, "cuDNN 9.14.0 computes attention wrongly");
    return 0;
}

/* Either a handle on the current GPU, or the description of one that is not here. */
static int attach(struct sdpa *s, void *stream, const char *json, struct err *e)
{
    int status;

    if (!json) {
        if ((status = s->l.create(&s->handle)) != 0) {
            s->handle = NULL;
            return err_set(e, E_DEVICE, "cuDNN cannot start: %s", s->l.error_string(status));
        }
        status = s->l.set_stream(s->handle, stream);
        return status ? err_set(e, E_DEVICE, "cuDNN: %s", s->l.error_string(status)) : 0;
    }
    if ((status = s->l.desc_create(DNN_DEVICEPROP, &s->device)) == 0 &&
        (status = s->l.desc_set(s->device, DNN_PROP_JSON, DNN_T_CHAR, (int64_t)strlen(json) + 1,
                                json)) == 0)
        status = s->l.desc_finalize(s->device);
    return status ? err_set(e, E_DEVICE, "cuDNN rejects the description of the GPU: %s",
                            s->l.error_string(status)) : 0;
}

int sdpa_open(struct sdpa **out, const char *path, void *stream, const char *device_json,
              struct err *e)
{
    struct sdpa *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    /* NODELETE: the library stays in memory even after dlclose */
    if (!(s->lib = dlopen(path ? path : "libcudnn.so.9", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)))
        rc = err_set(e, E_DEVICE, "no cuDNN: %s", dlerror());
    else if (!load_all(s))
        rc = err_set(e, E_DEVICE, "'%s' is not cuDNN 9", path ? path : "libcudnn.so.9");
    else if ((rc = check_version(s, e)) == 0)
        rc = attach(s, stream, device_json, e);
    if (rc < 0)
        sdpa_close(s);
    else
        *out = s;
    return rc;
}

/* In the reverse order of their making: later descriptors refer to earlier ones. */
static void plan_free(struct sdpa *s, struct sdpa_plan *p)
{
    for (int i = p->n_made; i-- > 0;)
        s->l.desc_destroy(p->made[i]);
    free(p);
}

void sdpa_close(struct sdpa *s)
{
    if (!s)
        return;
    for (int64_t i = 0; i < s->n; i++)
        plan_free(s, s->plans[i]);
    free(s->plans);
    if (s->device)
        s->l.desc_destroy(s->device);
    if (s->handle)
        s->l.destroy(s->handle);
    if (s->lib)
        dlclose(s->lib);
    free(s);
}

int64_t sdpa_version(const struct sdpa *s) { return s->version; }
size_t sdpa_workspace(const struct sdpa_plan *p) { return (size_t)p->workspace; }

/* Whether a plan made for one shape computes the other: all sizes and strides are part of
 * it. */
static bool same(const struct sdpa_shape *a, const struct sdpa_shape *b)
{
    return a->back == b->back && a->det == b->det && a->b == b->b && a->hq == b->hq &&
           a->hkv == b->hkv && a->s == b->s && a->d == b->d && a->keys == b->keys && a->scale == b->scale &&
           memcmp(a->q, b->q, sizeof a->q) == 0 && memcmp(a->kv, b->kv, sizeof a->kv) == 0 &&
           memcmp(a->lse, b->lse, sizeof a->lse) == 0;
}

/* A new plan, all zero, at the end of the list. NULL: no memory. */
static struct sdpa_plan *add(struct sdpa *s, struct err *e)
{
    struct sdpa_plan **p = s->plans;

    if (s->n == s->cap) {
        int64_t cap = s->cap ? 2 * s->cap : 16;
        if (!(p = realloc(s->plans, (size_t)cap * sizeof(struct sdpa_plan *)))) {
            err_set(e, E_SYS, "out of memory");
            return NULL;
        }
        s->plans = p;
        s->cap = cap;
    }
    if (!(p[s->n] = calloc(1, sizeof *p[s->n]))) {
        err_set(e, E_SYS, "out of memory");
        return NULL;
    }
    return p[s->n++];
}

/* Room for one more: where there are many, the one that was used longest ago goes. */
static void forget_one(struct sdpa *s)
{
    int64_t oldest = 0;

    if (s->n < SDPA_PLANS)
        return;
    for (int64_t i = 1; i < s->n; i++)
        if (s->plans[i]->used < s->plans[oldest]->used)
            oldest = i;
    plan_free(s, s->plans[oldest]);
    s->plans[oldest] = s->plans[--s->n];
}

/* The plan for a shape, made when it is first asked for. A shape that cuDNN refuses has a
 * plan too, which says why, so that it is not asked again. */
int sdpa_plan(struct sdpa *s, const struct sdpa_shape *shape, const struct sdpa_plan **out,
              struct err *e)
{
    struct sdpa_plan *p = NULL;

    *out = NULL;
    for (int64_t i = 0; i < s->n && !p; i++)
        if (same(&s->plans[i]->shape, shape))
            p = s->plans[i];
    if (!p) {
        forget_one(s);
        if (!(p = add(s, e)))
            return E_SYS;
        p->shape = *shape;
        sdpa_build(&s->l, s->handle, s->device, p);
    }
    p->used = ++s->uses;
    if (!p->ok)
        return err_set(e, E_DEVICE, "cuDNN does not support attention of %lld x %lld rows, "
                                    "%lld/%lld heads of %lld%s: %s", (long long)p->shape.b,
                                    (long long)p->shape.s,
                       (long long)p->shape.hq, (long long)p->shape.hkv, (long long)p->shape.d,
                       p->shape.back ? ", backward" : "", p->why);
    *out = p;
    return 0;
}

/* Where the caller has the tensor of a slot. cuDNN wants pointers that are not const. */
static void *address(const struct sdpa_args *a, enum sdpa_slot slot)
{
    switch (slot) {
    case SLOT_Q: return (void *)(uintptr_t)a->q;
    case SLOT_K: return (void *)(uintptr_t)a->k;
    case SLOT_V: return (void *)(uintptr_t)a->v;
    case SLOT_DO: return (void *)(uintptr_t)a->d_o;
    case SLOT_O: return a->o;
    case SLOT_LSE: return a->lse;
    case SLOT_DQ: return a->dq;
    case SLOT_DK: return a->dk;
    case SLOT_DV: return a->dv;
    case SLOT_ACC: return a->acc;
    case SLOT_SUM: return a->sum;
    default: return NULL;
    }
}

int sdpa_run(struct sdpa *s, const struct sdpa_plan *p, const struct sdpa_args *a, struct err *e)
{
    /* room for all tensors and scalars of the larger graph, the backward */
    int64_t uid[24];
    void *at[24], *workspace = a->workspace;
    union sdpa_scalar scalar[8];
    dnn_desc pack = NULL;
    char msg[200] = "";
    int n = 0, status;

    for (int i = 0; i < p->n_tensors; i++) {
        uid[n] = p->uid[i];
        at[n++] = address(a, p->slot[i]);
    }
    /* cuDNN reads scalars through pointers as well */
    for (int i = 0; i < p->n_scalars; i++) {
        scalar[i] = p->scalar[i];
        uid[n] = p->scalar_uid[i];
        at[n++] = &scalar[i];
    }
    if ((status = s->l.desc_create(DNN_PACK, &pack)) == 0 &&
        (status = s->l.desc_set(pack, DNN_PACK_UIDS, DNN_T_INT64, n, uid)) == 0 &&
        (status = s->l.desc_set(pack, DNN_PACK_POINTERS, DNN_T_PTR, n, at)) == 0 &&
        (status = s->l.desc_set(pack, DNN_PACK_WORKSPACE, DNN_T_PTR, 1, &workspace)) == 0 &&
        (status = s->l.desc_finalize(pack)) == 0)
        status = s->l.execute(s->handle, p->plan, pack);
    if (status)
        /* read before the next call to cuDNN, which may replace it */
        s->l.last_error(msg, sizeof msg);
    if (pack)
        s->l.desc_destroy(pack);
    return status ? err_set(e, E_DEVICE, "attention failed in cuDNN: %s %s",
                            s->l.error_string(status), msg) : 0;
}
