/* model/spread.h - one sequence over the ranks of a line: who has which rows, and what attention
 * needs of others. */
#ifndef MODEL_SPREAD_H
#define MODEL_SPREAD_H
#include "kernels/line.h"
#include "model/inside.h"
C_BEGIN

/*
 * Rank r of a line of n has a run of rows of every sequence (group_part), for which it computes
 * everything. Only attention looks at the rows of others. There are two ways:
 *
 *   neighbours  where no segment over a border begins before the rank before (S2-Attn, short
 *               documents): each rank gets from that one the keys and values of the segments that
 *               cross its first row, of the heads that read them. Where borders are those of groups
 *               these are half a group of half of the heads. They lie in front of its own keys, so
 *               that a segment is one run of rows, whose gradients go back the same way.
 *   turned      all else, such as dense attention: each rank gets all rows of some heads (turn.c).
 *
 * Keys and values thus have room for 'halo' rows in front: k - halo rows is where the op reads.
 */
struct strip { /* of keys or values: the last rows before a border, some of the key heads */
    int64_t rows, head, heads;
};
enum { STRIPS = 3 };
struct strips {
    int n;
    struct strip at[STRIPS];
};

struct spread {
    struct line line;
    struct strips in, out;      /* over this rank's first border and over its last */
    int64_t halo;               /* of this batch: rows in front */
    int64_t first, rows, whole; /* of the sequence */
    bool turned;
    void *k, *v;                /* whose front is on its way; NULL: none is */
    int64_t came;               /* with that exchange of the line */
    struct op_segments list[2]; /* of this rank's rows */
    int64_t *lists[2];          /* owned: cu, kv, first */
    int64_t cap[2];
    struct turn *turn;          /* turn.c's own */
};

static inline int64_t line_size(const struct model_options *o) { return o->cp > 1 ? o->cp : 1; }

/* layout: rows in front of keys and values, 0 where segments of these options need more than one
 * neighbour, and bytes of what is sent at once. */
int64_t spread_halo(const struct model_options *o);
size_t spread_flat_bytes(const struct model *m);

/* Over which strips the segments of two lists reach that cross row 'border'. */
struct strips strips_over(const struct model *m, const struct op_segments half[2],
                          int64_t border);

/* The segments of rows [from, to) of list s as *part says them: keys are rows [keys, keys_to). at
 * has room for 3 (s->n + 2) numbers. */
void segments_part(const struct op_segments *s, int64_t from, int64_t to, int64_t keys,
                   int64_t keys_to, int64_t *at, struct op_segments *part);

/* Of a layer, the bytes that a rank sends forwards; its backward sends back of that what 'back' says,
 * and as much as forwards where it computes attention again (whole) or keys alone. */
struct spread_traffic {
    double forward, back, whole, keys;
    double bare; /* of these bytes, the share that waits for nothing but itself */
};
struct spread_traffic spread_traffic(const struct model *m, bool dense);
/* How many pairs of queries and keys the rank has that has most, over the mean. 1 for dense
 * attention. */
double spread_slowest(const struct model *m, bool dense);

int spread_open(struct model *m, struct err *e);
void spread_close(struct model *m);
/* Before a batch: rows and lists of this rank. E_CONFIG, E_SYS; alike on all ranks but for E_SYS. */
int spread_begin(struct model *m, const struct batch *b, struct span *sp, struct err *e);

/* After the device has done all of a batch (rc and e): what the line failed of, if it did. A rank
 * whose device failed while others wait for its links leaves (group.over). */
int line_settled(struct model *m, struct line *l, int rc, struct err *e);

/*
 * What layer.c calls round attention, in this order. Exchanges are only begun (line.h), so that they are
 * on their way beside the ops that come in between:
 *
 *   keys      k and v (addresses of own rows) are there: others get what they need of them. again: for
 *             the backward of a layer whose attention is not computed again
 *   queries   all of a is there: the same of queries; again: of o, too
 *   forward   attention: o and lse of this rank's rows become what they are in the whole sequence
 *   back      its backward, of own->d_o: dq is complete
 *   keys_back and dk and dv are
 *
 * Between keys and forward are the product of q, and with 'again' the MLP's backward; between back and
 * keys_back the product of dq.
 */
void spread_keys(struct model *m, void *k, void *v, bool again);
void spread_queries(struct model *m, const struct op_attention *a, bool again);
void spread_forward(struct model *m, const struct op_attention *a);
void spread_back(struct model *m, const struct op_attention_back *own);
void spread_keys_back(struct model *m, const struct op_attention_back *own);

/* The ops wait for exchange n of the line. */
void spread_wait(struct model *m, int64_t n);

/* turn.c: the same of a batch that is turned. begin: its lists. planned: there is room for it, which
 * lay takes (take: activations), beside attention's scratch of so many bytes. */
void turn_keys(struct model *m, const void *k, const void *v, bool again);
void turn_queries(struct model *m, const struct op_attention *own, bool again);
void turn_forward(struct model *m, const struct op_attention *own);
void turn_back(struct model *m, const struct op_attention_back *own);
void turn_keys_back(struct model *m, const struct op_attention_back *own);
int turn_open(struct model *m, struct err *e);
void turn_close(struct turn *t);
int turn_begin(struct model *m, const struct batch *b, struct err *e);
bool turn_planned(const struct model *m);
void turn_lay(struct model *m, void *take(struct model *m, int64_t rows, int64_t cols));
double turn_bytes(const struct model *m); /* of q, k, v and o, of one rank's rows, to all that want them */
double turn_bare(const struct model *m);  /* the share of them that no other work hides */
size_t turn_scratch_bytes(const struct model *m);

/* share.c: frozen matrices over ranks. keep: what has been loaded of a layer into its slot. */
int share_open(struct model *m, struct err *e);
void share_close(struct model *m);
struct line *share_line(const struct model *m); /* NULL: none */
int share_keep(struct model *m, int64_t layer, struct err *e);

C_END
#endif
