/* model/inside.h - the model's own struct, shared by the files of this room and no other. */
#ifndef MODEL_INSIDE_H
#define MODEL_INSIDE_H
#include "base/arena.h"
#include "base/pool.h"
#include "model/model.h"

/* One tensor of the model. Matrices are act [out][in], biases the same with in = 1; norms are
 * float32 [in], out = 1. */
struct weight {
    int64_t out, in;
    bool trained;  /* whole; its master, gradient and moments are in the flat arrays */
    const struct tensor_type *type; /* of w: act or, of a frozen matrix, what it is stored in */
    void *w;       /* what ops read: a matrix (mat_at) or bias [out], float32 for norms */
    void *host;    /* streamed: where the values lie; w is their place while they are used */
    float *master; /* float32, NULL where frozen; equals w where act is float32 */
    float *grad;
    struct {       /* the LoRA pair, where rank > 0: A act [rank][in], B act [out][rank]. As of
                      layers with one input (q k v; gate up) and their gradients lie together */
        void *a, *b;
        float *master_a, *master_b, *grad_a, *grad_b;
    } pair;
    int64_t rank;
    float scale; /* alpha / rank, or with rsLoRA by its root: what the pair's product is multiplied by */
    const struct weight *bias; /* that is added to its product; NULL: none */
    float times;               /* its product is multiplied by it, bias and pair included */
    bool slice;                /* rows of the matrix that the family has (role_whole), which is what is
                                  loaded, trained and written; */
    bool shares;               /* not the first of them: A is that of the one before */
};

/* What one layer's forward leaves for its backward. x is every layer's own; the others are
 * the layer's own from their level on, else the shared buffers of struct work. */
struct saved {
    void *x;                   /* [rows][dim] the layer's input */
    void *o;                   /* SAVE_ATTENTION: attention's output */
    float *lse;                /* [heads][rows] */
    float *rstd[2];            /* [rows] of the two norms; every layer's own in training */
    void *q, *k, *v, *x2;      /* SAVE_QKV: after RoPE, or before a norm of q and k; the residual
                                  after attention */
    void *gate, *up;           /* SAVE_ALL: [rows][ffn], or NULL: a tile at a time */
    enum save_level level;
};

/* Buffers of one layer at a time. rows = seqs * ctx. Those that never live together share their
 * place (lay_work): attention's backward d_o with h; its scratch with x2 and dh; dq, dk, dv with
 * the MLP's tiles and the loss's scratch. q, k, v, o may be live all through the backward. */
struct work {
    void *x;                      /* the residual stream after the last layer; scoring, before it
                                     too; training, it is x2 */
    void *h, *q, *k, *v, *o, *x2; /* [rows][...] */
    float *lse, *rstd;
    void *qn, *kn;                /* where q and k have norms: what attention reads, normed and
                                     turned, while q and k stay as their products left them;
                                     afterwards the gradients of those */
    float *q_rstd, *k_rstd;       /* of these norms */
    void *ones;                   /* [rows] of 1, where there are biases */
    void *qkv;                    /* [rows][q + 2 kv] where they lie by heads in one, and their gradients */
    void *kept;                   /* [rows][dim] where attention and MLP read the same x: dx for the second
                                     of them; scoring, x2 */
    void *gate, *up, *act, *d_act; /* [mlp_tile][ffn] */
    void *branch;                 /* [mlp_tile][dim] where the MLP's result has a norm: its gradient */
    void *xa, *dxa;               /* [rows][ranks of the layers with one input] */
    void *xd;                     /* with dropout: what the pairs read, [rows][in] */
    void *dx, *dh, *d_o, *dq, *dk, *dv;
    void *attention, *loss;       /* scratch of attention_back and of the loss */
    void *flat[2];                /* of a line: what is to be sent, and what came */
    struct turned {               /* and some heads of all rows (turn.c) */
        void *q, *k, *v, *o, *d_o, *dq, *dk[2], *dv[2];
        void *flat[5];            /* own rows of q, k, v, o, d_o on their way, or of their gradients */
    } turned;
    int32_t *ids, *targets;       /* [rows] device */
    float *nll;                   /* [rows] device */
    float *logits;                /* [LOGIT_ROWS][vocab] device, where there is a cache */
};
enum { LOGIT_ROWS = 64 };

/* All the device's, but the last. */
enum { MEM_FROZEN, MEM_MASTER, MEM_COMPUTE, MEM_GRAD, MEM_MOMENTS, MEM_SAVED, MEM_WORK, MEM_CACHE,
       MEM_HOST, MEM_CLASSES };

/* Items that take turns in two slots on the device: item i, counted over the layers that have one,
 * in slot i % 2. A ring for each level that layers have offloaded, and one for the frozen matrices
 * of streamed layers. The last two items of a level never leave their slots: the backward begins
 * with them. */
struct ring;
/* Where items lie when they are in no slot. bring fills a slot with an item, store takes one that
 * the ops have written out of its slot; each queues its work on its queue only, and returns what
 * the device does. The slot is the ops' own again when that queue is through. A ring whose items
 * are never written needs no store. Host memory is one source (ring_host); a gather over ranks or
 * a dequantiser (on QUEUE_OPS: it is an op) are others. */
struct ring_source {
    enum queue bring_on, store_on;
    int (*bring)(struct device *d, const struct ring *r, int64_t item, void *slot);
    int (*store)(struct device *d, const struct ring *r, int64_t item, const void *slot);
    bool always; /* bring is called after a failure too: other ranks wait for it */
    bool behind; /* what is brought waits for offload_ahead: not before the next layer's exchanges */
};
extern const struct ring_source ring_host; /* item i at ring.host + i * nbytes */

enum { RING_WEIGHTS = SAVE_LEVELS, RING_CACHE, RINGS };
struct ring {
    int64_t n;                       /* items */
    size_t nbytes;                   /* of each, in a slot */
    unsigned char *slot[2], *host;
    const struct ring_source *source;
    void *state;                     /* the source's own */
    bool moving[2];                  /* a copy that the ops have not waited for yet */
    int64_t holds[2];                /* which item */
};

/* A layer's keys and values of all texts, [seqs][rows][kv_dim], and their scales
 * [seqs][rows][kv_heads]; with sinks, those of every text's first tokens as they were stored, act
 * [seqs][sinks][kv_dim]. Of a cache in the host's memory what is here lies in a slot of its ring. */
struct kept {
    void *k, *v;
    float *k_scale, *v_scale;
    void *sink_k, *sink_v;
};

struct layer {
    struct kept kept;             /* where there is a cache */
    struct weight w[ROLES];       /* by role; in what the family has not, all is 0 */
    struct saved s;
    int offloaded;     /* levels below this one lie in host memory */
    int64_t item[RINGS];          /* -1: none */
    struct arena blob;            /* streamed: measures its frozen matrices */
};

struct model {
    struct device *d;
    struct llama_config c;
    struct model_options o;
    struct memory_plan plan;
    struct arena mem[MEM_CLASSES];
    struct layer *layers;
    int64_t from, to;  /* of the layers, those that are here: [from, to). All, but of stages (stages.h) */
    struct stages *stages; /* NULL: all are here */
    struct ring ring[RINGS];
    int64_t ahead;                  /* item of the weights that is due; -1: none */
    struct weight top[ROLES];       /* embedding, last norm, head */
    struct work work;
    int64_t halo;    /* of a line: rows in front of keys and values (spread.h); all such arrays'
                        addresses are those of their own first rows */
    size_t flat_bytes;
    struct sharing *share;  /* NULL: frozen matrices are here as a whole (share.c) */
    size_t share_part;     /* bytes of a layer's that each rank has */
    unsigned char *share_store;
    struct spread *spread; /* NULL: sequences are here as a whole */
    struct trained t;
    int64_t chunk_layer[CHUNKS_MOST]; /* with whose backward a chunk is final; -1: the embedding's */
    int chunk_next;  /* of this batch: the next one that will be final */
    int gathered;    /* chunks that are on their way to all ranks */
    void *compute;   /* act [t.n]: t.w as ops read it; NULL: they read t.w, which is float32 */
    float *norms;    /* trained ones as ops read them; NULL: in t.w */
    int64_t n_norms;
    struct param *params;
    float *inv_freq; /* host [rotary/2], of the channels that RoPE turns; of this batch's length */
    float *local_freq; /* the same of layers with a window that have a base of their own (config_local) */
    float rope_scale;  /* of the first */
    float *host_nll; /* host [rows] */
    void *stage;     /* upload_begin's; NULL: none */
    struct {
        uint32_t drop;  /* of 65536; 0: none in this call */
        uint64_t seed;
        int64_t first;  /* number of the batch's first sequence (model_number) */
        int64_t token;  /* of its first row among all tokens, */
        int64_t at;     /* and of the rows in hand in the batch (a tile of the MLP) */
    } dropout;
    bool varies;     /* this call's rows are others than those it was planned for */
    uint64_t base_hash; /* of the files that were loaded; 0: none were */
    struct cache *cache; /* cache.c's; NULL: there is none */
    int rc;          /* the first op that failed in this call; ops after it do nothing */
};

/* Rows of a micro-batch, the most that a rank has of it. */
static inline int64_t model_rows(const struct model_options *o)
{
    return o->cp > 1 ? (o->ctx + o->cp - 1) / o->cp : o->seqs * o->ctx;
}
static inline int64_t q_dim(const struct model *m) { return config_size(&m->c, SIZE_Q); }
static inline int64_t kv_dim(const struct model *m) { return config_size(&m->c, SIZE_KV); }
static inline bool has_role(const struct model *m, enum role r)
{
    return arch_roles(config_arch(&m->c)) & ROLE_BIT(r);
}
/* A vector that ops read in float32: a norm or its bias. */
static inline bool is_norm(enum role r) { return role_form(r) == FORM_NORM || role_form(r) == FORM_SHIFT; }
/* What norms add to their weights. */
static inline float norm_shift(const struct model *m) { return config_arch(&m->c)->block.one_more ? 1 : 0; }
static inline struct weight *weight_at(struct model *m, enum role r, int64_t layer)
{
    return layer < 0 ? &m->top[r] : &m->layers[layer].w[r];
}
/* A weight as products read it; a matrix of act, as they read that. */
static inline struct mat weight_mat(const struct weight *w)
{
    return mat_at(w->type, w->w, w->out, w->in);
}
static inline size_t weight_bytes(const struct weight *w)
{
    return mat_bytes(w->type, w->out, w->in);
}
static inline struct mat act_mat(const struct model *m, const void *p)
{
    return mat_plain(m->d->act, p);
}
/* p + n elements of the activation type; NULL stays NULL. */
static inline void *act_at(const struct model *m, void *p, int64_t n)
{
    return p ? (char *)p + (size_t)n * dtype_bytes(m->d->act) : NULL;
}

/* The roles that are trained whole: all, the LoRA modes' set, or none. */
uint64_t model_whole(const struct model *m);
/* Rank and factor of a pair; 0 where there is none, or no LoRA mode. */
int64_t model_rank(const struct model *m, enum role r, int64_t layer, float *scale);

/* layout.c: places everything; run with empty arenas it only measures. */
int model_layout(struct model *m, struct err *e);

/* The part of it that says which layer keeps what where, and takes which turns in the rings. */
void model_spread(struct model *m);

/* Bytes of all classes of the device's memory, as last laid out. */
size_t model_bytes(const struct model *m);

/* offload.c: run for every layer in order, or for the backward in reverse order, with the copies of
 * what is offloaded queued around it. back: a backward follows, for which activations are saved.
 * begin: before the forward, when nothing is queued. forget: the weights in host memory are others
 * now. */
typedef void layer_fn(struct model *m, int64_t layer, void *ctx);
void offload_begin(struct model *m);
void offload_ahead(struct model *m); /* weights that are due (behind) may come now */
void offload_forward(struct model *m, bool back, layer_fn *run, void *ctx);
void offload_backward(struct model *m, layer_fn *run, void *ctx);
void offload_forget(struct model *m);

/* placement.c: decides the level of each layer by the options and the budget, and lays it out. */
int model_place(struct model *m, struct err *e);

/* upload.c. Between begin and end a device with memory of its own is sent what threads have put
 * into pinned memory, which it reads several times faster than a mapped file. */
void upload_begin(struct model *m);
void upload_end(struct model *m);
/* A tensor of a file to dst, as type to, by the threads of p (NULL: by this one): any type of file
 * becomes plain floats, a packed one stays as it is (laid out as mat_at has it).
 * *hash (unless NULL) becomes the block_hash of its bytes. E_DATA names the tensor and its first
 * element that is not finite, or says that its hash is not the file's; E_CONFIG where to is packed
 * and the tensor of another type. */
int upload_tensor(struct model *m, struct pool *p, void *dst, const struct tensor_type *to,
                  const struct tensor *t, uint64_t *hash, struct err *e);

/* pair_merge.c: what the adapter adds to the matrix w of tensor s: its pair, and with DoRA the lengths
 * of the rows. E_CONFIG where w is packed. */
int pair_merge(struct model *m, const struct weight *w, const struct tensor_spec *s,
               const struct adapter_change *x, struct err *e);

/* linear.c: the layers w[0..n) that read one input, neighbours in struct layer.
 * y[i] [rows][out] = times (x W^T + s (x A^T) B^T + bias) (+ add unless NULL; it may be y[i] itself).
 * The backward: dx [rows][in] = the sum of times (dy[i] W + s (dy[i] B) A). What that leaves in work.dxa
 * linear_back_weights needs, which adds to the gradients of W, A, B, bias where they are trained;
 * x and dy unchanged. It reads x only where linear_reads_input says so. */
void linear(struct model *m, const struct weight *w, int n, int64_t rows, const void *x,
            void *const y[], const void *add);
/* The same in steps, to do something in between: what the pairs read of x, then y of each w[i], in any
 * order. And of the backward: dx from the first one's dy alone, then from all the others'. first: false
 * if it has to be linear_back at the end, as with dropout. */
void linear_begin(struct model *m, const struct weight *w, int n, int64_t rows, const void *x);
void linear_one(struct model *m, const struct weight *w, int n, int i, int64_t rows, const void *x,
                void *y, const void *add);
bool linear_back_first(struct model *m, const struct weight *w, int64_t rows, const void *dy,
                       void *dx);
void linear_back_rest(struct model *m, const struct weight *w, int n, int64_t rows,
                      const void *const dy[], void *dx);
void linear_back(struct model *m, const struct weight *w, int n, int64_t rows,
                 const void *const dy[], void *dx);
bool linear_reads_input(const struct weight *w, int n);
void linear_back_weights(struct model *m, const struct weight *w, int n, int64_t rows,
                         const void *x, const void *const dy[]);

/* norm.c: y = the norm of x, of the family's kind, in float32 weights w with their bias; rstd [rows] stays
 * for the backward, or is NULL. Backward: dx += the gradient of x, or = where overwrite is set. */
void norm_forward(struct model *m, const struct weight *w, int64_t rows, const void *x, void *y, float *rstd);
void norm_backward(struct model *m, const struct weight *w, int64_t rows, const void *x, const void *dy,
                   const float *rstd, void *dx, bool overwrite);

/* layer.c: one transformer layer. forward: y [rows][dim] is the next layer's input and may be
 * s->x. backward: computes again what the level did not keep; m->work.dx holds the gradient of
 * the layer's output and afterwards that of its input. */
struct span {
    int64_t rows, len, first; /* rows = sequences * len, at positions first, first + 1, ... */
    int64_t whole;            /* tokens of a sequence, of which the rows may be a part */
    const struct segments *seg;
    const struct cached *cached; /* rows behind those of a cache; NULL: alone */
};
void layer_forward(struct model *m, const struct layer *l, const struct saved *s,
                   const struct span *b, void *y);
void layer_backward(struct model *m, const struct layer *l, const struct saved *s,
                    const struct span *b);

/* What a layer's queries and keys are turned by. */
static inline const float *layer_freq(const struct model *m, int64_t layer)
{
    return config_local(&m->c, layer) ? m->local_freq : m->inv_freq;
}
static inline float layer_freq_scale(const struct model *m, int64_t layer)
{
    return config_local(&m->c, layer) ? 1 : m->rope_scale;
}

/* step.c: the parts of a pass. The frequencies of RoPE, for texts of a length; logits [n], float32 on the device,
 * as the family caps them. Embedding and all layers, of host ids, into work.x; reach: the length
 * that RoPE's frequencies are for. The last norm of rows into work.h. Waits, and says what failed. */
void step_forward(struct model *m, const int32_t *ids, int64_t reach, struct span *sp);
void step_frequencies(struct model *m, int64_t reach);
void step_cap(struct model *m, int64_t n, float *logits);
void step_norm(struct model *m, int64_t rows);
int step_settled(struct model *m, struct err *e);

/* cache.c. Where a span's rows go in the cache, and what they see of it. */
struct cached {
    struct op_segments seg;       /* its keys are rows [row, row + rows) of the cache */
    int64_t row, rows;
    int64_t n;                    /* pieces of the span: op_store's */
    const int64_t *cu, *to;
    const int64_t *firsts;        /* op_rope's, for every len rows */
    int64_t seq, at;              /* with sinks: the text, and the position of its first row */
};
/* Places a layer's part. */
void cache_lay(struct model *m);
int cache_open(struct model *m, struct err *e); /* after the layout */
void cache_close(struct model *m);
/* A layer's k and v, turned, go to the cache, and a comes to read it. */
void cache_attend(struct model *m, const struct layer *l, const struct span *b, const void *k,
                  const void *v, struct op_attention *a);
/* Where the items of RING_CACHE come from, of a cache in the host's memory: what texts have of a
 * layer comes, and the rows of the span in hand go back. */
extern const struct ring_source ring_cache;
/* What a text has, at hand for extend.c: tokens given, and the rows that hold what is kept of them. */
struct kept_text {
    int64_t n, first, end;
};
struct kept_text *cache_text(const struct model *m, int64_t seq);
/* Makes room for n more tokens of a text, where it keeps a window: the oldest but the sinks go. */
void cache_make_room(struct model *m, int64_t seq, int64_t n);
/* The span that passes now, until the next. */
void cache_now(struct model *m, const struct cached *now);
#endif
