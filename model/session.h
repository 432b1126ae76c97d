/* model/session.h - an open model: files, adapter, device, memory plan; tokens in, losses out. */
#ifndef MODEL_SESSION_H
#define MODEL_SESSION_H
#include "base/err.h"
#include "kernels/cards.h"
#include "model/model.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* The machine that a model is opened on, as its options say. */
struct machine {
    const char *device;   /* "auto", "cpu", "cuda"; NULL: auto */
    int index;            /* of the GPUs that are seen */
    int64_t threads;      /* 0: all processors */
    int64_t device_bytes; /* most that the process may take of a device's own memory; 0: what is
                             free */
    int64_t host_bytes;   /* of the host's memory beside it; -1: three quarters of what is free,
                             0: none */
    bool deterministic;   /* equal bits run after run, at some speed */
    struct group *group;  /* of processes (kernels/group.h); NULL: of one */
};

struct session_options {
    const char *model;          /* a model folder; NULL: sizes */
    const struct llama_config *sizes; /* without a folder: a model of this configuration */
    const char *adapter;        /* an adapter's folder, for model; NULL: none */
    bool noise;                 /* without a folder: numbers for measuring (model_noise), not
                                   those that training starts from (model_init) */
    uint64_t seed;              /* of whatever is not read from files */
    bool keep_types;            /* matrices that an adapter is merged into keep the files' type, where
                                   the device computes with it, too: rounded once more, of bfloat16 as
                                   lmerge writes them, but half as large */
    struct machine machine;
    struct model_options plan;  /* model_defaults; ctx 0: the model's. Its device_bytes and
                                   host_bytes are taken from machine */
};

/*
 * A session is opened in four steps, cheap ones first, and session_open takes them all. A caller
 * that has more to refuse between them (data, results) takes them one by one:
 *
 *     session_files    config.json and the names of the tensors; config may be changed then, by
 *                      rope_extend for one
 *     session_device   the device
 *     session_plan     how the memory will be used, and whether it suffices
 *     session_load     memory, and the weights
 *
 * session_unload gives the model's memory back; then the last two steps can be taken again, with
 * another context say.
 *
 * Zero a session before its first step, do not move it, and session_close it in any state.
 * Fields are for reading, but for config.
 */
struct session {
    struct llama_config config;   /* the model's, as an adapter extends it */
    int64_t base_context;         /* its context, as the files have it */
    struct weights *weights;      /* NULL without a folder, and after session_close_files */
    struct adapter *adapter;      /* the same */
    struct device device;
    bool has_device, keep_types;
    size_t free_bytes;            /* of the device, before the model took any */
    struct model_options options; /* what was planned */
    struct memory_plan plan;
    struct group *line;           /* of options.cp ranks; NULL: none, or only planned */
    struct group *sharers;        /* the same of options.shares */
    struct model *model;          /* NULL: not loaded */
    double memory_s, weights_s;   /* seconds that session_load took for each */
    struct segments seg;          /* of the last batch */
    int32_t *ids;                 /* [options.ctx], n of them given: session_extend */
    int64_t n;
};

/* All steps. The plan must fit (model_fits). The files are closed at the end. */
int session_open(struct session *s, const struct session_options *o, struct err *e);

/* E_NOINPUT, E_DATA, E_CONFIG of the folders. */
int session_files(struct session *s, const struct session_options *o, struct err *e);
/* E_DEVICE, E_SYS. */
int session_device(struct session *s, const struct machine *m, struct err *e);
/* In its place, for a plan alone: a card that need not be here (kernels/planned.h). */
int session_card(struct session *s, const struct card *c, size_t memory_bytes, struct err *e);
/* Fills in plan, and in options what o asks with what the plan chose. With cp or shares all ranks of
 * the device's group call it, if it has as many, and all get the plan of the one that has the least
 * memory. E_CONFIG, E_DEVICE. */
int session_plan(struct session *s, const struct model_options *o, struct err *e);
/* Takes the memory and fills it. E_SYS, E_DEVICE, E_DATA. */
int session_load(struct session *s, const struct session_options *o, struct err *e);
/* The files are not needed any more: pages of them count as the process's while they are open. */
void session_close_files(struct session *s);
void session_unload(struct session *s);
void session_close(struct session *s);

/* m becomes that of one rank of g: its GPU, and its threads where none are asked for. */
void machine_share(struct machine *m, struct group *g, int gpu, int threads);

/* m's sizes to those of o, which has another way to say none. */
void machine_plan(const struct machine *m, struct model_options *o);

/* In place of session_plan, for texts that grow over a cache (model/extend.h). Of o are
 * taken cache, stages, stage, and ctx: tokens of a text that are computed at once; 0: 512, of a GPU 2048. */
int session_plan_texts(struct session *s, const struct machine *m, const struct model_options *o,
                       struct err *e);
/* Whether what that plan keeps in the host's memory fits what may be taken of it. Streamed weights fit by the plan,
 * keys and values as they are: E_SYS. */
int session_texts_fit_host(const struct session *s, struct err *e);

/* The losses of n_seqs rows of len tokens, each row from position 0, with dense attention.
 * n_seqs * len is at most options.seqs * options.ctx. ids and targets as in struct batch; nll:
 * host float32 [n_seqs * len], may be NULL; *sum and *n: of the scored ones. E_DATA (an id outside
 * the vocabulary), E_DEVICE. */
int session_losses(struct session *s, int64_t n_seqs, int64_t len, const int32_t *ids,
                   const int32_t *targets, float *nll, double *sum, int64_t *n, struct err *e);

/* One text, grown by pieces: appends n ids to those given so far and writes the logits of the last
 * of them, host float32 [vocab], which may be NULL. Where the plan has a cache (options.cache), what
 * was given before is there; else it is computed again. E_CONFIG: beyond options.cache.rows, or
 * without a cache options.ctx. E_DATA, E_DEVICE. Several texts at once: model/extend.h, whose text 0
 * this is. */
int session_extend(struct session *s, const int32_t *ids, int64_t n, float *logits,
                   struct err *e);
/* Forgets all but the first n tokens given; 0: a new text. n is at most as many as were given. */
void session_rewind(struct session *s, int64_t n);

C_END
#endif
