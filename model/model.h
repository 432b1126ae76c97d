/* model/model.h - the transformer against the op table: load, score, train one batch. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H
#include "base/err.h"
#include "formats/weights/adapter.h"
#include "formats/weights/config.h"
#include "formats/weights/weights.h"
#include "kernels/kernels.h"
#include "model/segments.h"
#include <stdint.h>
C_BEGIN

enum train_mode {
    TRAIN_NONE,     /* forward only */
    TRAIN_FULL,     /* every weight */
    TRAIN_LORA,     /* LoRA pairs only */
    TRAIN_LORA_PLUS /* LoRA pairs, the embedding and all norms (the paper's LoRA+) */
};

/* Keys and values of the tokens that a text has so far, of several texts at once (extend.h): what a
 * new token needs of the old ones. */
struct cache_options {
    int64_t rows;               /* tokens of a text; 0: no cache. Then ctx and seqs are of the rows that
                                   are computed at once, not of texts */
    int64_t seqs;               /* texts */
    enum kv_type type;
    int64_t sinks, window;      /* a text keeps its first sinks tokens and the last window ones, and may
                                   be of any length: Xiao et al. 2023, arXiv:2309.17453. Then rows is
                                   at least sinks + window, more rows move less. window 0: all */
    bool in_host;               /* of a device with memory of its own: in the host's, fetched a layer
                                   at a time */
};

struct model_options {
    enum train_mode mode;
    int64_t rank;               /* LoRA; 8 */
    double alpha;               /* 16; pairs add alpha/rank * B A */
    uint64_t targets;           /* roles with pairs (arch.h); q k v o */
    const struct adapter_pairs *pairs; /* which of them in which layer, of which rank and alpha; NULL:
                                   all, of rank and alpha. The caller's, as long as the model */
    bool rslora;                /* pairs add alpha / sqrt(rank) * B A instead */
    uint64_t whole;             /* roles that the LoRA modes train whole; 0: none, and with
                                   TRAIN_LORA_PLUS what the family says. Over a tied base the head
                                   is the embedding */
    double dropout;             /* share of what a pair reads that a training step leaves out, [0, 1);
                                   matrices with one input (q k v; gate up) leave out the same */
    int64_t ctx;                /* tokens a sequence */
    int64_t seqs;               /* sequences computed at once (micro-batch) */
    int64_t keep_layers;        /* training: layers that save all activations; the others save
                                   their input and recompute. -1: what is predicted to be
                                   fastest in the memory there is */
    int64_t shards;             /* ranks that share AdamW's state, as group_part has it; this one's
                                   part is by the device's group. 0, 1: all is here */
    int64_t chunk;              /* floats that a chunk of what shards train has at least, but for
                                   the first and the last one; 0: 2^23 */
    int64_t cp;                 /* ranks that a sequence lies over, each with a part of its tokens;
                                   0, 1: one. seqs is 1 then, and every batch is given to all of
                                   them alike */
    struct group *line;         /* these ranks (kernels/subgroup.h); NULL: only to plan */
    int64_t shares;             /* ranks that hold the layers' frozen matrices together, each a part of
                                   every layer, brought together for its use; 0, 1: each has all. They
                                   make the same calls */
    struct group *sharers;      /* these ranks; NULL: only to plan */
    int64_t stages;             /* ranks that have the layers one after another, each a run of them and its
                                   part of a cache; 0, 1: all are here. Only with a cache. They make the same
                                   calls, and get the same logits */
    int64_t stage;              /* which of them this one is */
    struct group *pipe;         /* these ranks; NULL: only to plan */
    double link_rate;           /* bytes a second between them, to foretell; 0: endless */
    bool spans_ctx;             /* with cp: batches may be dense, whatever attention_span says */
    int64_t attention_span;     /* tokens a segment of attention, to weigh what recomputing
                                   costs; 0: ctx. Changes no result */
    double dense_share;         /* training: of the batches, so many span ctx instead, [0, 1]. What
                                   is planned fits and is fast for both kinds. Changes no result */
    int64_t memory_bytes;       /* budget that -1 fills; 0: four fifths of what is free,
                                   of a device's own memory 15/16, less of a small one */
    int64_t device_bytes;       /* most that the process may hold of a device's own memory, all
                                   that it took before in it; 0: what is free */
    int64_t host_bytes;         /* of the host's memory, for what a device with memory of its own
                                   puts there; 0: three quarters of what is free, -1: none */
    const struct weights *stored; /* frozen matrices keep the types that these files have them in,
                                   where the device has a product (kernels/product.h); NULL: all
                                   are the device's act. Open until model_open has returned */
    const struct placement *placement; /* take this one, of a plan made before; NULL: choose */
    int64_t mlp_tile;           /* rows of the MLP computed at once; 0: 2048; of bf16 8192 or
                                   more, 180 MiB in ffn_dim columns */
    int64_t loss_chunk;         /* rows of logits at once; 0: 1024; of bf16 2048 to 8192,
                                   16 MiB in dim columns */
    struct cache_options cache; /* without training */
};
void model_defaults(struct model_options *o); /* LoRA+, rank 8, alpha 16, q k v o, keep -1 */

/* What a layer's forward saves for its backward; each level includes those below it. The rest is
 * recomputed, to the same bits. */
enum save_level {
    SAVE_INPUT,     /* the layer's input */
    SAVE_ATTENTION, /* attention's output and statistics: the one op that grows with ctx^2 */
    SAVE_QKV,       /* q, k, v and the residual after attention */
    SAVE_ALL,       /* the MLP's two inner products */
    SAVE_LEVELS
};

/* Where everything lies. n[level][offloaded]: so many layers save up to level for the backward, of
 * which the levels below offloaded (0: none, to level + 1: all) lie in host memory. */
struct placement {
    int64_t n[SAVE_LEVELS][SAVE_LEVELS + 1];
    int64_t streamed; /* layers whose frozen matrices lie in host memory, fetched for use */
};
/* Layers that save up to a level, wherever it lies. */
static inline int64_t placement_layers(const struct placement *p, enum save_level k)
{
    int64_t n = 0;

    for (int offloaded = 0; offloaded <= SAVE_LEVELS; offloaded++)
        n += p->n[k][offloaded];
    return n;
}

/* Bytes of each class, by the same code that later allocates. */
struct memory_plan {
    size_t frozen;      /* weights that are not trained */
    size_t trained;     /* master weights, float32 (and compute copies where act differs) */
    size_t gradients;
    size_t moments;     /* AdamW's m and v */
    size_t saved;       /* what the forward keeps for the backward */
    size_t work;        /* buffers of one layer, the loss chunk, ids */
    size_t cache;       /* keys and values of texts that grow */
    size_t total;
    size_t host;        /* pinned host memory: offloaded activations and streamed weights */
    struct placement placement; /* no layers without training */
    int64_t mlp_tile, loss_chunk;
    double step_s;      /* predicted time of one micro-batch, of both kinds on the average; 0: not
                           known */
    double dense_ratio; /* time of a dense one over that of one of attention_span; 0 where
                           dense_share is */
    int64_t shares;             /* ranks that hold streamed weights together; 0, 1: the host does */
    double line_bytes, line_s;  /* with cp: what a rank sends in a micro-batch (as attention_span says),
                                   the time of it; 0: link_rate is not known; */
    double line_bare_s;         /* and what of it no ops hide: it is in step_s */
    double line_most;           /* pairs to attend to of the rank that has most, over the mean */
    int64_t layers;
    int64_t params, trained_params;
};
/* Without a device's memory: answers "does it fit". E_CONFIG for impossible options; E_DEVICE
 * for device_bytes of a device that has no memory of its own. */
int model_plan(const struct device *d, const struct llama_config *c,
               const struct model_options *o, struct memory_plan *plan, struct err *e);

/* Bytes of the device's memory that a model may take: what is free, or what device_bytes leaves
 * beside what the process holds already. */
size_t model_capacity(const struct device *d, const struct model_options *o);
/* Bytes of the host's memory that it may take beside a device with memory of its own (options.host_bytes);
 * 0 where the device has none of its own. */
size_t model_host_capacity(const struct device *d, const struct model_options *o);

/* E_SYS where a plan is more than is free of the host's memory, if that is the device's: a run would
 * swap, or be killed. A device with memory of its own says so itself, when it is taken. */
int model_fits(struct device *d, const struct memory_plan *p, struct err *e);

/* What the plan chose becomes what o asks for, so that nothing is chosen anew when the memory that
 * is free has changed. p stays where it is as long as o is used. */
void model_as_planned(struct model_options *o, const struct memory_plan *p);

struct model;
/* Allocates everything the plan lists, once. Weights are undefined until loaded.
 * E_SYS / E_DEVICE when the memory cannot be had (naming the plan's total), E_CONFIG where it is
 * more than device_bytes allow. */
int model_open(struct model **m, struct device *d, const struct llama_config *c,
               const struct model_options *o, struct err *e);
void model_close(struct model *m);
const struct llama_config *model_config(const struct model *m);
struct group *model_line(const struct model *m); /* options.line; NULL: none */
struct group *model_sharers(const struct model *m); /* options.sharers; the same */
struct group *model_pipe(const struct model *m);    /* options.pipe; the same */
/* Which of its ranks has this layer; 0 where there is no pipe. */
int model_layer_rank(const struct model *m, int64_t layer);
const struct memory_plan *model_memory(const struct model *m);

/* Base weights from a folder whose sizes equal the model's. LoRA pairs start at A ~ Kaiming
 * uniform(a = sqrt 5) by seed, B = 0, as peft does. E_DATA names the tensor. */
int model_load(struct model *m, const struct weights *w, uint64_t seed, struct err *e);
/* weights_hash of what model_load has read, every byte of it; 0: nothing. */
uint64_t model_base_hash(const struct model *m);
/* Fresh weights: normal(0, init_range) by seed, norms that change nothing; pure function of seed and name. */
int model_init(struct model *m, uint64_t seed, struct err *e);
/* Numbers for measuring: as wide as model_init's, soon made, and they repeat. B is not zero. */
int model_noise(struct model *m, uint64_t seed, struct err *e);
/* Trained values (pairs and whole modules) from an adapter. With TRAIN_NONE they are merged
 * into the weights in float32; with a LoRA mode the ranks and factors of all pairs must equal it. */
int model_load_adapter(struct model *m, const struct adapter *a, struct err *e);

/* The trained parameters: one flat float32 array, and its parts in the order of
 * config_tensor (whole tensors) or adapter_tensor (LoRA modes). Moments are the caller's to
 * keep zero at the start. All device memory.
 *
 * The array lies in chunks, one after the other: the backward is through with the last of them
 * first (batch.final), so that its gradient can travel while earlier layers are at it. Of several
 * shards each has an equal part of every chunk, in the order of ranks (trained_share), which it
 * updates and whose state it holds. On a device whose memory is the host's there is one chunk. */
enum { CHUNKS_MOST = 64 };
struct param {
    char name[160]; /* full: model tensor name; LoRA modes: adapter tensor name */
    enum role role;
    int64_t layer, offset, count;
    int part; /* 0 whole, 1 lora_A, 2 lora_B */
};
struct trained {
    int64_t n;          /* floats in all */
    int64_t held;       /* of them this rank's: n / shards */
    int shards, rank;   /* 1, 0: all is here */
    int chunks;
    int64_t chunk[CHUNKS_MOST + 1]; /* where each begins, and the end; multiples of 64 shards */
    float *w, *grad;    /* [n]; w may lie in grad's place (apart) */
    float *own, *m, *v; /* [held]: the shares of the chunks, in their order */
    const struct param *params;
    int64_t n_params;
};
const struct trained *model_trained(const struct model *m);
/* Which part [from, to) of a chunk is a rank's, and where the state of value 'from' is in the
 * arrays own, m and v of that rank. */
struct share {
    int64_t from, to, at;
};
static inline struct share trained_share(const struct trained *t, int chunk, int rank)
{
    int64_t first = t->chunk[chunk], each = (t->chunk[chunk + 1] - first) / t->shards;

    return (struct share){ first + rank * each, first + (rank + 1) * each, first / t->shards };
}
/* What an adapter is that a LoRA mode trains, less its base: rank, alpha, what is in it. */
void model_adapter_config(const struct model *m, struct adapter_config *a);
/* A device with memory of its own keeps no more than this rank's part of w: the whole is there from
 * model_gather, or from loading to model_sync_trained, until the next gradient. */
static inline bool trained_apart(const struct trained *t) { return t->w == t->grad; }
/* Every rank's own part of what is trained reaches all, into w. Every rank calls it, with rc, what
 * it has failed of so far: all are through, or none. Nothing is to be done where there is one.
 * model_gather_chunk may come before it, for each chunk from the first: over the device's links
 * (device.links) it goes on its way as soon as the ops queued so far are done. E_DEVICE. */
int model_gather(struct model *m, int rc, struct err *e);
int model_gather_chunk(struct model *m, int chunk);
/* After w changed (optimizer step, checkpoint): refreshes compute copies. */
int model_sync_trained(struct model *m);

/* One micro-batch: n_seqs sequences of len tokens, n_seqs * len <= options.seqs * options.ctx
 * (so many short ones may take the place of few long ones). ids and targets: host int32
 * [n_seqs * len] (-1: not scored; targets[i] is what follows ids[i]).
 * seg: attention, rows n_seqs * len. nll: host float32 [n_seqs * len], may be NULL.
 * Of a sequence over several ranks each is given all of it and computes its part: nll, *nll_sum,
 * *n_scored and the gradient are of this part; logits are not to be had.
 * model_forward only scores. model_step also adds to trained.grad the gradient of
 * grad_scale * sum(nll). *nll_sum is a float64 sum in row order; *n_scored counts. */
struct batch {
    int64_t n_seqs, len;
    const int32_t *ids, *targets;
    const struct segments *seg;
    float *nll;
    /* model_step, unless NULL: the chunk of trained.grad is what it will be when the ops queued so
     * far are done. Called from the last chunk to the first; after a failure only where ranks
     * share a sequence or weights. */
    void (*final)(void *arg, int chunk);
    void *final_arg;
};
int model_forward(struct model *m, const struct batch *b, double *nll_sum, int64_t *n_scored,
                  struct err *e);
int model_step(struct model *m, const struct batch *b, double grad_scale, double *nll_sum,
               int64_t *n_scored, struct err *e);
/* For dropout, before a step: what is left out follows from the seed and the sequences' numbers, of
 * which the batch's first is this one's, and from nothing else. */
void model_number(struct model *m, uint64_t seed, int64_t first);
/* Logits float32 [n_seqs * len][vocab] into host memory. */
int model_logits(struct model *m, const struct batch *b, float *logits, struct err *e);
/* Of the batch's last row alone: [vocab]. */
int model_last_logits(struct model *m, const struct batch *b, float *logits, struct err *e);

C_END
#endif
