/* formats/tokenizer/hft_model.c - the model of a tokenizer.json: tokens by their ids, and merges. */
#include "formats/tokenizer/hft_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens as the file lists them, in any order; their text in one buffer, each with a NUL. */
struct listed {
    size_t at;
    const char *place; /* in the file */
    uint32_t n;
    int32_t id;
};
struct list {
    struct buf text;
    struct listed *v;
    size_t n, cap;
    int32_t max_id;
};

static int add_listed(struct list *l, const struct json_value *key, int64_t id, struct err *e)
{
    size_t at = l->text.len;
    int rc = array_grow(&l->v, &l->cap, l->n, sizeof *l->v, 4096, "tokens", e);

    if (rc < 0 || (rc = json_text(key, false, &l->text, e)) < 0 || (rc = buf_add(&l->text, "", 1, e)) < 0)
        return rc;
    l->v[l->n++] = (struct listed){ at, key->p, (uint32_t)(l->text.len - at - 1), (int32_t)id };
    if (id > l->max_id)
        l->max_id = (int32_t)id;
    return 0;
}

/* A number without sign, fraction or exponent; -1 for anything else. */
static int64_t whole_number(const struct json_value *v)
{
    int64_t x = 0;

    if (v->type != JK_NUMBER || v->n > 10)
        return -1;
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i] < '0' || v->p[i] > '9')
            return -1;
        x = x * 10 + (v->p[i] - '0');
    }
    return x;
}

static int read_vocab(struct list *l, const struct hft_value *vocab, struct err *e)
{
    struct json_object scan = json_scan(vocab->v.p, vocab->v.n);
    struct json_value key, v;
    int rc;

    if (vocab->v.type != JK_OBJECT)
        return hft_bad(vocab->start, vocab->v.p, e, "field 'model.vocab' is %s, must be an object",
                       json_type_name(vocab->v.type));
    while ((rc = json_next(&scan, &key, &v, e)) == 1) {
        int64_t id = whole_number(&v);

        if (id < 0 || id >= SPMODEL_MAX_PIECES)
            return hft_bad(vocab->start, v.p, e, "field 'model.vocab': the id of token %zu must be "
                           "0 to %lld", l->n, (long long)SPMODEL_MAX_PIECES - 1);
        if (key.n > 6 * SPMODEL_MAX_PIECE_BYTES || (rc = add_listed(l, &key, id, e)) < 0)
            return rc < 0 ? rc : hft_bad(vocab->start, key.p, e, "field 'model.vocab': a token of "
                                         "%zu bytes", key.n);
    }
    return rc;
}

/* Unigram: [text, score] each, in order of their ids. */
static int read_scores(struct hft *t, struct list *l, const struct hft_value *vocab, struct err *e)
{
    struct json_object scan = json_scan(vocab->v.p, vocab->v.n);
    struct json_value item, part[2];
    size_t cap = 0;
    int rc;

    if (vocab->v.type != JK_ARRAY)
        return hft_bad(vocab->start, vocab->v.p, e, "field 'model.vocab' is %s, must be an array",
                       json_type_name(vocab->v.type));
    while ((rc = json_next_element(&scan, &item, e)) == 1) {
        struct json_object pair = json_scan(item.p, item.n);
        double score = NAN;
        int n = 0;

        while (item.type == JK_ARRAY && n < 3 &&
               (rc = json_next_element(&pair, &part[n < 2 ? n : 1], e)) == 1)
            n++;
        if (rc < 0)
            return rc;
        if (n == 2 && part[1].type == JK_NUMBER)
            score = strtod(part[1].p, NULL); /* the text goes on behind it */
        if (n != 2 || part[0].type != JK_STRING || part[0].n == 0 || !isfinite(score) ||
            part[0].n > 6 * SPMODEL_MAX_PIECE_BYTES || l->n == SPMODEL_MAX_PIECES)
            return hft_bad(vocab->start, item.p, e, "field 'model.vocab[%zu]' is not a token and a number",
                           l->n);
        if ((rc = array_grow(&t->score, &cap, l->n, sizeof *t->score, 4096, "tokens", e)) < 0)
            return rc;
        t->score[l->n] = score;
        if ((rc = add_listed(l, &part[0], (int64_t)l->n, e)) < 0)
            return rc;
    }
    return rc;
}

/* The ids as tokenizers gives them to tokens that the model has not: those that follow. */
static int read_added_ids(struct hft *t, struct list *l, const struct hft_value *added,
                          struct err *e)
{
    int64_t vocab = (int64_t)l->n, next = vocab;

    for (size_t i = 0; i < t->n_added; i++) {
        struct hft_added *a = &t->added[i];
        struct json_value key = { JK_STRING, false, a->content, a->n };
        int32_t known = hft_map_find(&t->map, a->content, a->n);
        int rc;

        if (known >= 0 && known != a->id)
            return hft_bad(added->start, added->v.p, e, "field 'added_tokens': '%.60s' has id %d, "
                           "and %d in the model", a->content, a->id, known);
        if (known >= 0) {
            if (known >= vocab && known >= next)
                next = known + 1;
            continue;
        }
        if (a->id != next)
            return hft_bad(added->start, added->v.p, e, "field 'added_tokens': '%.60s' has id %d, "
                           "but tokenizers gives it %lld", a->content, a->id, (long long)next);
        next = a->id + 1;
        if ((rc = add_listed(l, &key, a->id, e)) < 0)
            return rc;
        l->v[l->n - 1].place = added->v.p;
    }
    return 0;
}

/* The kinds of tokens, for SentencePiece's way; others do not ask. */
static void set_kinds(const struct hft *t, const struct list *l, size_t n_model,
                      unsigned char *kind)
{
    for (size_t i = 0; i < l->n; i++) {
        const char *p = l->text.p + l->v[i].at;

        if (i >= n_model)
            kind[l->v[i].id] = PIECE_CONTROL;
        else if (l->v[i].id == t->unk)
            kind[l->v[i].id] = PIECE_UNKNOWN;
        else if (t->byte_fallback && l->v[i].n == 6 && memcmp(p, "<0x", 3) == 0 && p[5] == '>' &&
                 strspn(p + 3, "0123456789ABCDEF") == 2)
            kind[l->v[i].id] = PIECE_BYTE;
        else
            kind[l->v[i].id] = PIECE_NORMAL;
    }
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].special && t->added[i].n > 4 && kind[t->added[i].id] == PIECE_NORMAL)
            kind[t->added[i].id] = PIECE_CONTROL;
}

/* All tokens by id. An id that no token has gets an empty text. */
static int make_vocab(struct hft *t, const struct list *l, size_t n_model,
                      const struct hft_value *vocab, struct err *e)
{
    size_t n = (size_t)l->max_id + 1;
    const struct listed **by_id = calloc(n, sizeof *by_id);
    unsigned char *kind = malloc(n);
    int rc = by_id && kind ? 0 : err_set(e, E_SYS, "out of memory for %zu tokens", n);

    if (rc == 0 && n > 4 * l->n + 4096)
        rc = hft_bad(vocab->start, vocab->v.p, e, "field 'model.vocab': ids up to %d for %zu tokens",
                     l->max_id, l->n);
    for (size_t i = 0; i < l->n && rc == 0; i++) {
        if (by_id[l->v[i].id])
            rc = hft_bad(vocab->start, l->v[i].place, e, "field 'model.vocab': two tokens have id %d",
                         l->v[i].id);
        by_id[l->v[i].id] = &l->v[i];
    }
    if (rc == 0 && (rc = spm_new(&t->v, l->text.len + n, e)) == 0) {
        memset(kind, PIECE_UNUSED, n);
        set_kinds(t, l, n_model, kind);
    }
    for (size_t id = 0; id < n && rc == 0; id++) {
        const char *p = by_id[id] ? l->text.p + by_id[id]->at : "";
        size_t k = by_id[id] ? by_id[id]->n : 0;

        rc = spm_add(t->v, p, k, (enum spmodel_type)kind[id], e);
    }
    free(by_id);
    free(kind);
    return rc;
}

/* The map is of the list's texts first, then, when all are known, of the model's. */
static int map_listed(struct hft *t, const struct list *l, const struct hft_value *vocab,
                      struct err *e)
{
    int rc = hft_map_make(&t->map, l->n + t->n_added, e);

    for (size_t i = 0; i < l->n && rc == 0; i++) {
        rc = hft_map_add(&t->map, l->text.p + l->v[i].at, l->v[i].n, l->v[i].id, e);
        if (rc == E_NO)
            rc = hft_bad(vocab->start, l->v[i].place, e, "field 'model.vocab': the token is there "
                         "twice");
    }
    return rc;
}

/* The list goes, the tokens stay. */
static void map_tokens(struct hft *t, const struct list *l, size_t n_model)
{
    for (size_t i = 0; i < t->map.n; i++)
        if (t->map.slot[i].value >= 0 && t->map.slot[i].n > HFT_SHORT)
            t->map.slot[i].p = t->v->piece[t->map.slot[i].value].p;
    for (size_t i = 0; i < n_model; i++)
        if (l->v[i].n > t->longest)
            t->longest = l->v[i].n;
}

/* One merge: "a b", or ["a", "b"]; joined to a and b with the place between them in *cut. */
static int read_merge(const struct json_value *v, struct buf *b, size_t *cut, struct err *e)
{
    struct json_object scan;
    struct json_value part;
    char *space;
    int rc, parts = 0;

    b->len = 0;
    if (v->type == JK_STRING) {
        if ((rc = json_text(v, false, b, e)) < 0)
            return rc;
        space = b->len ? memchr(b->p, ' ', b->len) : NULL;
        if (!space || memchr(space + 1, ' ', b->len - (size_t)(space + 1 - b->p)))
            return E_NO;
        *cut = (size_t)(space - b->p);
        memmove(space, space + 1, b->len - *cut - 1);
        b->len--;
        return 0;
    }
    if (v->type != JK_ARRAY)
        return E_NO;
    scan = json_scan(v->p, v->n);
    for (; (rc = json_next_element(&scan, &part, e)) == 1; parts++) {
        if (parts == 2 || part.type != JK_STRING || (rc = json_text(&part, false, b, e)) < 0)
            return rc < 0 ? rc : E_NO;
        if (parts == 0)
            *cut = b->len;
    }
    return rc == 0 && parts < 2 ? E_NO : rc;
}

int hft_add_merge(struct spm_merges *m, size_t *cap, struct spm_merge x, struct err *e)
{
    int rc = array_grow(&m->v, cap, m->n, sizeof *m->v, 4096, "merges", e);

    if (rc == 0)
        m->v[m->n++] = x;
    return rc;
}

/* The token of this text. Merges make tokens in the order of the list as a rule: the one that the last
 * merge made, or the next, *guess, is tried before the table, most of which is far from the processor. */
static int32_t find_made(const struct hft *t, const struct list *l, const char *p, size_t n,
                         size_t *guess)
{
    int32_t id;

    for (size_t i = *guess; i < l->n && i < *guess + 2; i++)
        if (l->v[i].n == n && memcmp(l->text.p + l->v[i].at, p, n) == 0) {
            *guess = i;
            return l->v[i].id;
        }
    id = hft_map_find(&t->map, p, n);
    *guess = id < 0 ? *guess : (size_t)id; /* its place too, in most files */
    return id;
}

static int read_merges(struct hft *t, const struct list *l, const struct hft_value *merges,
                       struct spm_merges *out, struct err *e)
{
    struct json_object scan = json_scan(merges->v.p, merges->v.n);
    struct json_value v;
    struct buf b = { 0 };
    size_t cap = 0, cut = 0, guess = 0;
    int rc;

    if (merges->v.type != JK_ARRAY)
        return hft_bad(merges->start, merges->v.p, e, "field 'model.merges' is %s, must be an array",
                       json_type_name(merges->v.type));
    while ((rc = json_next_element(&scan, &v, e)) == 1) {
        int32_t id[3];

        if (v.type == JK_STRING && v.n >= 8 && memcmp(v.p, "#version", 8) == 0)
            continue;
        if ((rc = read_merge(&v, &b, &cut, e)) == E_NO)
            rc = hft_bad(merges->start, v.p, e, "field 'model.merges[%zu]' is not two tokens",
                         out->n);
        if (rc < 0)
            break;
        for (int i = 0; i < 3 && rc == 0; i++) {
            const char *p = i == 1 ? b.p + cut : b.p;
            size_t n = i == 0 ? cut : i == 1 ? b.len - cut : b.len;

            id[i] = i == 2 ? find_made(t, l, p, n, &guess) : hft_map_find(&t->map, p, n);
            if (id[i] < 0)
                rc = hft_bad(merges->start, v.p, e, "field 'model.merges[%zu]': '%.*s' is no token",
                             out->n, n < 60 ? (int)n : 60, p);
        }
        if (rc == 0)
            rc = hft_add_merge(out, &cap, (struct spm_merge){ (uint32_t)id[0], (uint32_t)id[1],
                                                              (uint32_t)id[2] }, e);
        if (rc < 0)
            break;
    }
    buf_free(&b);
    return rc;
}

/* What changes the ids and is not done here. */
static int refuse(const struct hft_value *model, struct err *e)
{
    static const char *const none[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    struct hft_value v;
    int rc;

    if ((rc = hft_field(model, "type", &v, e)) == 1 && !json_is(&v.v, "BPE") && !json_is(&v.v, "Unigram"))
        return hft_bad(v.start, v.v.p, e, "field 'model.type': '%.*s' is not supported, BPE and "
                       "Unigram are", v.v.n < 40 ? (int)v.v.n : 40, v.v.p);
    if (rc >= 0 && (rc = hft_field(model, "dropout", &v, e)) == 1 &&
        (v.v.type != JK_NUMBER || strspn(v.v.p, "0.") < v.v.n))
        return hft_bad(v.start, v.v.p, e, "field 'model.dropout' must be null: ids would be random");
    for (int i = 0; i < 2 && rc >= 0; i++)
        if ((rc = hft_field(model, none[i], &v, e)) == 1 && (v.v.type != JK_STRING || v.v.n > 0))
            return hft_bad(v.start, v.v.p, e, "field 'model.%s' is not supported", none[i]);
    return rc < 0 ? rc : 0;
}

static bool has_all_bytes(const struct hft *t)
{
    for (int b = 0; b < 256; b++)
        if (t->v->byte_id[b] < 0)
            return false;
    return true;
}

/* SentencePiece's way, where the merges are of characters and have no bytes in them. */
static bool merges_are_plain(const struct hft *t, const struct spm_merges *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (t->v->kind[m->v[i].left] != PIECE_NORMAL || t->v->kind[m->v[i].right] != PIECE_NORMAL ||
            t->v->kind[m->v[i].id] != PIECE_NORMAL)
            return false;
    for (int64_t id = 0; id < t->v->vocab; id++)
        if (t->v->piece[id].n == 0 ||
            (t->v->kind[id] == PIECE_CONTROL && t->v->piece[id].n <= 4))
            return false;
    return true;
}

/* A cut before each mark: what begins with one is never on the right. */
static void drop_crossing(struct hft *t, struct spm_merges *m)
{
    size_t k = 0;

    for (size_t i = 0; i < m->n; i++) {
        const struct spm_string *right = &t->v->piece[m->v[i].right];

        if (right->n < 3 || memcmp(right->p, SPACE_MARK, 3) != 0)
            m->v[k++] = m->v[i];
    }
    m->n = k;
}

static int make_merges(struct hft *t, struct spm_merges *m, struct err *e)
{
    bool each = t->n_cut == 1 && t->cut[0].kind == CUT_MARKS && t->cut[0].each;

    t->sentences = t->sentences && t->byte_fallback && !t->ignore_merges && has_all_bytes(t);
    if (t->way == WAY_SENTENCES && !(t->sentences && t->unk >= 0 && merges_are_plain(t, m)))
        t->way = WAY_STEPS;
    if (t->way != WAY_SENTENCES)
        return spm_bpe_merges(t->v, m, e);
    t->v->byte_fallback = true;
    if (each)
        drop_crossing(t, m);
    return spm_build(t->v, m, e);
}

static int read_flags(struct hft *t, const struct hft_value *model, char **unk, size_t *n_unk,
                      struct err *e)
{
    int rc = hft_bool(model, "ignore_merges", false, &t->ignore_merges, e);

    if (rc == 0 && (rc = hft_bool(model, "byte_fallback", false, &t->byte_fallback, e)) == 0 &&
        (rc = hft_bool(model, "fuse_unk", false, &t->fuse_unk, e)) == 0)
        rc = hft_string(model, "unk_token", unk, n_unk, e);
    return rc;
}

/* The model's tokens are known, and those it has not as well. */
static int take_list(struct hft *t, struct list *l, size_t n_model, const struct hft_value *vocab,
                     const struct hft_value *added, struct err *e)
{
    int rc = read_added_ids(t, l, added, e);

    if (rc == 0 && (rc = make_vocab(t, l, n_model, vocab, e)) == 0)
        map_tokens(t, l, n_model);
    return rc;
}

static int read_unigram(struct hft *t, const struct hft_value *model, const struct hft_value *added,
                        struct err *e)
{
    struct list l = { .max_id = -1 };
    struct hft_value vocab, unk;
    int rc = hft_bool(model, "byte_fallback", false, &t->byte_fallback, e);
    size_t n_model;

    if (rc == 0 && t->bytes)
        rc = hft_bad(model->start, model->v.p, e, "field 'model.type': Unigram behind ByteLevel is not "
                     "supported");
    t->way = WAY_STEPS;
    t->sentences = false;
    if (rc == 0 && (rc = hft_field(model, "vocab", &vocab, e)) == 0)
        rc = hft_bad(model->start, model->v.p, e, "field 'model.vocab' is missing");
    if (rc == 1 && (rc = read_scores(t, &l, &vocab, e)) == 0 && l.n == 0)
        rc = hft_bad(vocab.start, vocab.v.p, e, "field 'model.vocab' is empty");
    if (rc == 0 && (rc = hft_field(model, "unk_id", &unk, e)) == 1) {
        int64_t id = whole_number(&unk.v);

        rc = id < 0 || id >= (int64_t)l.n
                 ? hft_bad(unk.start, unk.v.p, e, "field 'model.unk_id' must be 0 to %zu", l.n - 1) : 0;
        t->unk = rc == 0 ? (int32_t)id : -1;
    }
    n_model = l.n;
    if (rc == 0 && (rc = map_listed(t, &l, &vocab, e)) == 0 &&
        (rc = take_list(t, &l, n_model, &vocab, added, e)) == 0)
        rc = hft_make_unigram(t, n_model, e);
    free(l.v);
    buf_free(&l.text);
    return rc;
}

static int read_bpe(struct hft *t, const struct hft_value *model, const struct hft_value *added,
                    struct err *e)
{
    struct list l = { .max_id = -1 };
    struct hft_value vocab, merges;
    struct spm_merges m = { 0 };
    char *unk = NULL;
    size_t n_unk = 0, n_model;
    int rc = read_flags(t, model, &unk, &n_unk, e);

    if (rc == 0 && (rc = hft_field(model, "vocab", &vocab, e)) == 0)
        rc = hft_bad(model->start, model->v.p, e, "field 'model.vocab' is missing");
    if (rc == 1 && (rc = hft_field(model, "merges", &merges, e)) == 0)
        rc = hft_bad(model->start, model->v.p, e, "field 'model.merges' is missing");
    if (rc == 1 && (rc = read_vocab(&l, &vocab, e)) == 0 && l.n == 0)
        rc = hft_bad(vocab.start, vocab.v.p, e, "field 'model.vocab' is empty");
    if (rc == 0 && (rc = map_listed(t, &l, &vocab, e)) == 0 && unk)
        t->unk = hft_map_find(&t->map, unk, n_unk);
    if (rc == 0 && unk && t->unk < 0)
        rc = hft_bad(model->start, model->v.p, e, "field 'model.unk_token': '%.60s' is no token", unk);
    n_model = l.n;
    /* Merges know the model's own tokens alone. */
    if (rc == 0 && (rc = read_merges(t, &l, &merges, &m, e)) == 0 &&
        (rc = take_list(t, &l, n_model, &vocab, added, e)) == 0)
        rc = make_merges(t, &m, e);
    if (rc == 0 && t->bytes) {
        hft_make_bytes(t);
        rc = hft_make_pairs(t, e);
    }
    free(unk);
    free(m.v);
    free(l.v);
    buf_free(&l.text);
    return rc;
}

int hft_read_model(struct hft *t, const struct hft_value *model, const struct hft_value *added,
                   struct err *e)
{
    struct hft_value with = *model, type;
    struct hft_members m;
    int rc = hft_find_members(model, &m, e);

    with.members = &m;
    if (rc < 0 || (rc = refuse(&with, e)) < 0 || (rc = hft_field(&with, "type", &type, e)) < 0)
        return rc;
    if (rc == 0) { /* old files: the kind shows in the form of the vocabulary */
        struct hft_value vocab;

        if ((rc = hft_field(&with, "vocab", &vocab, e)) < 0)
            return rc;
        return rc == 1 && vocab.v.type == JK_ARRAY ? read_unigram(t, &with, added, e)
                                                   : read_bpe(t, &with, added, e);
    }
    return json_is(&type.v, "Unigram") ? read_unigram(t, &with, added, e) : read_bpe(t, &with, added, e);
}
