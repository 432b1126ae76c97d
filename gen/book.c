/* gen/book.c - see book.h. */
#include "gen/book.h"

#include "base/block_hash.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/pool.h"
#include "formats/weights/session_file.h"
#include "gen/told.h"
#include "model/extend.h"
#include "model/rope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 16 << 20 };

static enum session_type type_of(const struct session *s)
{
    enum kv_type t = s->options.cache.type;

    return t == KV_INT8 ? SESSION_INT8 : t == KV_BF16 || s->device.act == DT_BF16 ? SESSION_BF16
                                                                                   : SESSION_F32;
}

/* Where layers differ: what each of them sees, and whether it turns. */
static int add_layers(struct buf *b, const struct llama_config *c, struct err *e)
{
    int rc = 0;

    for (int64_t l = 0; l < c->layers && rc == 0; l++) {
        int64_t has[2] = { config_window(c, l), layer_in(&c->no_rope, l) };

        rc = buf_add(b, has, sizeof has, e);
    }
    return rc;
}

/* What keys are turned by, as in a text that fills the room (model/extend.h), and what sees them: it is told by
 * config.json alone, and the hash of the tensors knows nothing of it. */
static int hash_positions(const struct session *s, uint64_t *hash, struct err *e)
{
    const struct llama_config *c = &s->config;
    const struct rope_config local = { .type = ROPE_DEFAULT, .theta = c->local_theta };
    static const struct layer_set none;
    int64_t pairs = config_rotary(c) / 2, rows = s->options.cache.rows;
    float *f = calloc((size_t)pairs + 1, sizeof *f);
    struct buf b = { 0 };
    int rc;

    if (!f)
        return err_set(e, E_SYS, "out of memory");
    f[pairs] = rope_inv_freq(&c->rope, 2 * pairs, rows, f);
    rc = buf_add(&b, f, (size_t)(pairs + 1) * sizeof *f, e);
    if (rc == 0 && c->local_theta > 0) {
        rope_inv_freq(&local, 2 * pairs, rows, f);
        rc = buf_add(&b, f, (size_t)pairs * sizeof *f, e);
    }
    if (rc == 0 && (c->window > 0 || memcmp(&c->no_rope, &none, sizeof none) != 0))
        rc = add_layers(&b, c, e);
    *hash = hash64_of(b.p, b.len);
    buf_free(&b);
    free(f);
    return rc;
}

/* The head of a session of n tokens, but for the hash of its data. */
static int head_of(const struct opening *g, const struct question *q, int64_t n,
                   struct session_head *h, struct err *e)
{
    const struct llama_config *c = &g->s.config;

    *h = (struct session_head){ .type = type_of(&g->s), .layers = c->layers, .heads = c->kv_heads,
                                .channels = c->head_dim, .tokens = n,
                                .model = model_base_hash(g->s.model), .adapter = g->adapter_hash,
                                .text = hash64_of(q->text.p, q->files_bytes) };
    return hash_positions(&g->s, &h->positions, e);
}

/* A session file that is whole, but was made otherwise. */
static int check_same(const struct session_head *is, const struct session_head *want,
                      const char *path, struct err *e)
{
    const char *other = is->model != want->model ? "another model"
                        : is->adapter != want->adapter ? "another adapter"
                        : is->text != want->text ? "another text"
                        : is->positions != want->positions ? "another RoPE, or other windows"
                        : is->layers != want->layers || is->heads != want->heads ||
                          is->channels != want->channels ? "a model of other sizes" : NULL;

    if (!other && is->type == want->type)
        return 0;
    if (!other) {
        err_set(e, E_CONFIG, "'%s' has keys and values as %s, this run keeps them as %s", path,
                session_type_name(is->type), session_type_name(want->type));
        return err_hint(e, "give --cache %s", is->type == SESSION_F32 ? "float on the CPU"
                        : is->type == SESSION_BF16 ? "bf16" : "int8");
    }
    err_set(e, E_CONFIG, "'%s' is a session of %s", path, other);
    return err_hint(e, "name another file, or remove it to begin anew");
}

struct sums {
    const unsigned char *p;
    size_t n;
    unsigned char *sums;
};

static void one_sum(void *ctx, int64_t task, int thread)
{
    const struct sums *s = ctx;

    (void)thread;
    sum_block(s->sums, s->p, s->n, (size_t)task);
}

/* session_verify's hash, by all processors: a book is tens of gigabytes. */
static int verify(const struct session_head *h, const unsigned char *p, size_t n, struct err *e)
{
    struct sums s = { p + SESSION_HEAD_BYTES, n - SESSION_HEAD_BYTES, NULL };
    struct pool *pool = pool_open(0, NULL);
    int rc = 0;

    if (!(s.sums = malloc(8 * hash_blocks(s.n) + 1)))
        rc = err_set(e, E_SYS, "out of memory");
    else {
        pool_run(pool, (int64_t)hash_blocks(s.n), one_sum, &s);
        if (block_hash_of(s.sums, s.n) != h->data)
            rc = session_verify(h, p, n, e); /* which says so */
    }
    free(s.sums);
    pool_close(pool);
    return rc;
}

static bool is_here(const struct opening *g, int64_t layer)
{
    struct group *pipe = model_pipe(g->s.model);

    return !pipe || pipe->rank == model_layer_rank(g->s.model, layer);
}

/* The rows of n tokens of every layer that is here, from the file. */
static int put_rows(struct opening *g, const struct session_head *h, const unsigned char *p, int64_t n,
                    struct err *e)
{
    int rc = 0;

    for (int64_t l = 0; l < h->layers && rc == 0; l++)
        for (int part = 0; part < TEXT_PARTS && rc == 0 && is_here(g, l); part++)
            rc = model_text_put(g->s.model, 0, l, part, 0, n, p + session_offset(h, l, part), e);
    if (rc == 0 && (rc = g->s.device.sync(&g->s.device, e)) == 0) {
        model_text_set(g->s.model, 0, n);
        g->s.n = n;
    }
    return rc;
}

/* Tokens that the question and the file begin with alike come from the file. */
static int take(struct opening *g, const struct question *q, const struct session_head *h,
                const unsigned char *p, struct err *e)
{
    int64_t n = 0;
    int rc;

    while (n < q->n && n < h->tokens &&
           (int32_t)get_le(p + SESSION_HEAD_BYTES + 4 * n, 4) == q->ids[n])
        n++;
    if (n == 0)
        return 0;
    if (!(g->said.ids = malloc((size_t)n * sizeof *g->said.ids)))
        return err_set(e, E_SYS, "out of memory");
    g->said.cap = n;
    if ((rc = put_rows(g, h, p, n, e)) == 0) {
        memcpy(g->said.ids, q->ids, (size_t)n * sizeof *g->said.ids);
        g->said.n = n;
    }
    return rc;
}

static int load(struct opening *g, const struct question *q, struct err *e)
{
    const char *path = g->o->session;
    struct session_head h, want;
    double start = now_s();
    const void *p;
    size_t n;
    int rc = file_map(path, &p, &n, e);

    if (rc < 0)
        return rc;
    if ((rc = session_parse(&h, p, n, e)) < 0)
        err_within(e, "'%s'", path);
    else if ((rc = head_of(g, q, h.tokens, &want, e)) == 0 &&
             (rc = check_same(&h, &want, path, e)) == 0) {
        if ((rc = verify(&h, p, n, e)) < 0)
            err_within(e, "'%s'", path);
        else
            rc = take(g, q, &h, p, e);
    }
    file_unmap(p, n);
    if (rc == 0)
        log_info("'%s': %" PRId64 " tokens brought back in %.3g s", path, g->said.n,
                 now_s() - start);
    return rc;
}

/* A session that is written: by the first of several ranks, f NULL in the others. */
struct saving {
    struct file_out *f;
    struct block_hasher *b;
    unsigned char *room; /* for PIECE_BYTES, or a row */
};

static int put(struct saving *s, const void *p, size_t n, struct err *e)
{
    if (!s->f)
        return 0;
    block_hasher_add(s->b, p, n);
    return file_write_all(s->f->fd, p, n, s->f->path, e);
}

/* A piece of a layer's rows comes to the rank that writes, and rc from all. */
static int bring(struct opening *g, int64_t layer, int rc, void *p, size_t n, struct err *e)
{
    struct group *ranks = opening_ranks(g);

    rc = group_meet(ranks, rc, NULL, e);
    return rc < 0 ? rc : group_bring(ranks, model_layer_rank(g->s.model, layer), p, n, e);
}

/* One part of a layer, a piece after the other. */
static int save_part(struct opening *g, struct saving *s, int64_t layer, int part, int64_t n, struct err *e)
{
    size_t row = model_text_row_bytes(g->s.model, part);
    int64_t most = row ? (int64_t)(PIECE_BYTES / row) : 0;
    int rc = 0;

    most = most > 0 ? most : 1;
    for (int64_t at = 0; at < n && rc == 0 && row; at += most) {
        int64_t k = n - at < most ? n - at : most;

        if (is_here(g, layer))
            rc = model_text_get(g->s.model, 0, layer, part, at, k, s->room, e);
        if ((rc = bring(g, layer, rc, s->room, (size_t)k * row, e)) == 0)
            rc = put(s, s->room, (size_t)k * row, e);
    }
    return rc;
}

static int save_all(struct opening *g, struct saving *s, struct session_head *h, struct err *e)
{
    unsigned char head[SESSION_HEAD_BYTES] = { 0 };
    int rc = s->b && s->room ? 0 : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && s->f)
        rc = file_write_all(s->f->fd, head, sizeof head, s->f->path, e);
    for (int64_t i = 0; i < h->tokens && rc == 0; i++) {
        unsigned char id[4];

        put_le(id, (uint64_t)g->said.ids[i], 4);
        rc = put(s, id, sizeof id, e);
    }
    rc = group_meet(opening_ranks(g), rc, NULL, e);
    for (int64_t l = 0; l < h->layers && rc == 0; l++)
        for (int part = 0; part < TEXT_PARTS && rc == 0; part++)
            rc = save_part(g, s, l, part, h->tokens, e);
    if (rc == 0 && s->f) {
        h->data = block_hasher_end(s->b);
        session_head_put(h, head);
        rc = file_write_at(s->f->fd, 0, head, sizeof head, s->f->path, e);
    }
    return rc;
}

static int save(struct opening *g, const struct question *q, struct err *e)
{
    struct group *ranks = opening_ranks(g);
    struct session_head h;
    struct file_out f;
    struct saving s = { .b = block_hasher_new() };
    double start = now_s();
    int rc = head_of(g, q, g->said.n, &h, e);

    s.room = malloc(PIECE_BYTES + session_row_bytes(&h, 0));
    if (rc == 0 && group_writes(ranks) && (rc = file_out_open(&f, g->o->session, e)) == 0)
        s.f = &f;
    if ((rc = group_meet(ranks, rc, NULL, e)) == 0)
        rc = save_all(g, &s, &h, e);
    rc = group_meet(ranks, rc, NULL, e);
    if (rc == 0 && s.f)
        rc = file_out_publish(&f, e);
    else if (s.f)
        file_out_abandon(&f);
    block_hasher_free(s.b);
    free(s.room);
    if (rc == 0)
        log_info("'%s': %" PRId64 " tokens written in %.3g s", g->o->session, h.tokens,
                 now_s() - start);
    return rc;
}

int book_use(struct opening *g, const struct question *q, struct err *e)
{
    int64_t exists = path_exists(g->o->session);
    int rc = told_number(opening_ranks(g), 0, &exists, e); /* as the first finds it */

    if (rc < 0)
        return rc;
    if (exists)
        return group_meet(opening_ranks(g), load(g, q, e), NULL, e);
    if (q->files_n == 0)
        return err_set(e, E_USAGE, "--session keeps what --file names: nothing of it is to be kept");
    if ((rc = said_become(&g->said, &g->s, q->ids, q->files_n, NULL, e)) == 0)
        rc = save(g, q, e);
    return rc;
}
