/* formats/tokenizer/spm_model.c - a SentencePiece model file as the tables that encoding needs. */
#include "formats/tokenizer/spm_impl.h"

#include <float.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers the models that were read, for caches: never 0, which is an empty cache's. */
static _Atomic uint64_t next_serial = 1;

/* Pieces that may come out of text by merging or by a search; the others are reserved. */
static bool is_normal(int kind)
{
    return kind == PIECE_NORMAL || kind == PIECE_USER || kind == PIECE_UNUSED;
}

/* At least one element more than count in each array of the pieces. */
static int more_pieces(struct spm *m, struct err *e)
{
    size_t cap = m->piece_cap ? 2 * m->piece_cap : 1024;
    struct spm_string *piece = realloc(m->piece, cap * sizeof *piece);
    /* On failure the arrays that were enlarged are kept; spm_free frees all of them. */
    float *score = piece ? realloc(m->score, cap * sizeof *score) : NULL;
    unsigned char *kind = score ? realloc(m->kind, cap) : NULL;

    if (piece)
        m->piece = piece;
    if (score)
        m->score = score;
    if (!kind)
        return err_set(e, E_SYS, "out of memory for %zu pieces", cap);
    m->kind = kind;
    m->piece_cap = cap;
    return 0;
}

/* The byte that a piece of kind BYTE names: "<0x" and two capital hex digits ">". */
static int byte_of(const char *p, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *hi, *lo;

    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>' || !p[3] || !p[4])
        return -1;
    hi = strchr(digits, p[3]);
    lo = strchr(digits, p[4]);
    return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

static int bad_piece(const struct spm *m, const char *what, struct err *e)
{
    return err_set(e, E_DATA, "piece %lld: %s", (long long)m->vocab, what);
}

/* A spmodel_piece_fn. */
static int take_piece(void *ctx, const char *text, size_t n, float score,
                      enum spmodel_type type, struct err *e)
{
    struct spm *m = ctx;
    int rc = 0, byte;

    if ((size_t)m->vocab == m->piece_cap && (rc = more_pieces(m, e)) < 0)
        return rc;
    if (type == PIECE_UNKNOWN) {
        if (m->unk >= 0)
            return bad_piece(m, "a second one of type unknown", e);
        m->unk = (int32_t)m->vocab;
    }
    if (type == PIECE_BYTE) {
        if ((byte = byte_of(text, n)) < 0)
            return bad_piece(m, "of type byte, but not of the form '<0xHH>'", e);
        m->byte_id[byte] = (int32_t)m->vocab;
    }
    if (type == PIECE_USER && memchr(text, 0, n))
        return bad_piece(m, "a user-defined symbol with a NUL in it", e);
    /* The pieces' text stands in one block, which never moves: pieces point into it. */
    memcpy(m->text + m->text_len, text, n);
    m->text[m->text_len + n] = 0;
    m->piece[m->vocab] = (struct spm_string){ m->text + m->text_len, (uint32_t)n,
                                              (int32_t)m->vocab };
    m->text_len += n + 1;
    m->score[m->vocab] = score;
    m->kind[m->vocab++] = (unsigned char)type;
    return 0;
}

/* For qsort_r: by bytes, then reserved before normal, then by id. */
static int by_text(const void *a, const void *b, void *ctx)
{
    const struct spm *m = ctx;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    const struct spm_string *x = &m->piece[i], *y = &m->piece[k];
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

    if (c || x->n != y->n)
        return c ? c : x->n < y->n ? -1 : 1;
    if (is_normal(m->kind[i]) != is_normal(m->kind[k]))
        return is_normal(m->kind[i]) ? 1 : -1;
    return i < k ? -1 : i > k;
}

static bool same_text(const struct spm_string *a, const struct spm_string *b)
{
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

/* A text may be one normal piece and one reserved one; the reserved one then gives the id. */
static int sort_pieces(struct spm *m, struct err *e)
{
    size_t n = (size_t)m->vocab;

    if (!(m->order = malloc(n * sizeof *m->order)))
        return err_set(e, E_SYS, "out of memory for %zu pieces", n);
    for (size_t i = 0; i < n; i++)
        m->order[i] = (uint32_t)i;
    qsort_r(m->order, n, sizeof *m->order, by_text, m);
    for (size_t i = 1; i < n; i++) {
        uint32_t a = m->order[i - 1], b = m->order[i];

        if (!same_text(&m->piece[a], &m->piece[b]))
            continue;
        if (is_normal(m->kind[a]) == is_normal(m->kind[b]))
            return err_set(e, E_DATA, "piece %u: the same text as piece %u", b, a);
        /* Of equal texts the reserved one is a, as by_text puts it first. */
        m->piece[b].value = (int32_t)a;
    }
    return 0;
}

/* The id of a text by halving the sorted list; unk where it is no piece. */
int32_t spm_find(const struct spm *m, const char *text, size_t n)
{
    size_t lo = 0, hi = (size_t)m->vocab;

    while (lo < hi) { /* the first that is not below text */
        size_t mid = lo + (hi - lo) / 2;
        const struct spm_string *p = &m->piece[m->order[mid]];
        int c = memcmp(p->p, text, p->n < n ? p->n : n);

        if (c < 0 || (c == 0 && p->n < n))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < (size_t)m->vocab) {
        const struct spm_string *p = &m->piece[m->order[lo]];

        if (p->n == n && memcmp(p->p, text, n) == 0)
            return (int32_t)m->order[lo];
    }
    return m->unk;
}

/* Byte fallback needs a piece for each of the 256 bytes; without it there may be none. */
static int check_bytes(const struct spm *m, struct err *e)
{
    for (int b = 0; b < 256; b++) {
        if (!m->byte_fallback && m->byte_id[b] >= 0)
            return err_set(e, E_DATA, "piece %d: of type byte, but byte_fallback is off",
                           m->byte_id[b]);
        if (m->byte_fallback && m->byte_id[b] < 0)
            return err_set(e, E_DATA, "byte_fallback is on, but there is no piece '<0x%02X>'",
                           (unsigned)b);
    }
    return 0;
}

/* The id of a piece that trainer_spec names, if it is a control symbol. */
static int32_t control(const struct spm *m, struct spmodel_text name, const char *standard)
{
    /* The library sees a name up to its first NUL. */
    int32_t id = name.p && name.n ? spm_find(m, name.p, strnlen(name.p, name.n))
                                  : spm_find(m, standard, strlen(standard));

    return m->kind[id] == PIECE_CONTROL ? id : -1;
}

/* The trie of the pieces that text is made of, or of the user-defined ones alone. */
static int make_trie(struct spm *m, struct spm_trie *t, bool user, struct err *e)
{
    struct spm_string *s = malloc((size_t)m->vocab * sizeof *s);
    size_t n = 0;
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory for %lld pieces", (long long)m->vocab);
    for (int64_t i = 0; i < m->vocab; i++) {
        uint32_t id = m->order[i];

        if (user ? m->kind[id] != PIECE_USER : !is_normal(m->kind[id]))
            continue;
        s[n] = m->piece[id];
        s[n++].value = (int32_t)id;
    }
    rc = spm_trie_build(t, s, n, e);
    free(s);
    return rc;
}

/* The least and the greatest score of normal pieces: what an unknown character costs, and
 * what a user-defined symbol gains, follow from them. */
static int unigram_make(struct spm *m, struct err *e)
{
    m->min_score = FLT_MAX;
    m->max_score = FLT_MIN; /* sic: the library's start, the smallest positive one */
    for (int64_t i = 0; i < m->vocab; i++) {
        if (is_normal(m->kind[i]) && memchr(m->piece[i].p, 0, m->piece[i].n))
            return err_set(e, E_DATA, "piece %lld: it contains a NUL", (long long)i);
        if (m->kind[i] != PIECE_NORMAL)
            continue;
        if (m->score[i] < m->min_score)
            m->min_score = m->score[i];
        if (m->score[i] > m->max_score)
            m->max_score = m->score[i];
    }
    if (!m->trie.units)
        return err_set(e, E_DATA, "a unigram model without a normal piece");
    return 0;
}

/* Reads the file and checks what needs all pieces. In this order: the pieces before their
 * sorted list, that before bos and eos, which are found in it. */
static int read_model(struct spm *m, const void *bytes, size_t n, struct err *e)
{
    struct spmodel spec;
    int rc;

    m->unk = m->bos = m->eos = -1;
    memset(m->byte_id, 0xFF, sizeof m->byte_id);
    m->text = malloc(n + 1); /* a piece of k bytes takes k + 4 of the file, k + 1 here */
    if (!m->text)
        return err_set(e, E_SYS, "out of memory for a model of %zu bytes", n);
    if ((rc = spmodel_read(&spec, bytes, n, take_piece, m, e)) < 0)
        return rc;
    m->type = spec.type;
    m->byte_fallback = spec.byte_fallback;
    /* The default is U+2047, two question marks in one, between spaces. */
    m->unk_surface = spec.unk_surface.p ? strndup(spec.unk_surface.p, spec.unk_surface.n)
                                        : strdup(" \xE2\x81\x87 ");
    if (!m->unk_surface)
        return err_set(e, E_SYS, "out of memory");
    if (m->unk < 0)
        return err_set(e, E_DATA, "the model has no piece of type 'unknown'");
    if ((rc = check_bytes(m, e)) < 0 || (rc = sort_pieces(m, e)) < 0)
        return rc;
    m->bos = control(m, spec.names[SPMODEL_BOS], "<s>");
    m->eos = control(m, spec.names[SPMODEL_EOS], "</s>");
    if ((rc = spm_norm_make(&m->norm, &spec.norm[SPMODEL_ENCODES], spec.space_is_suffix,
                            e)) < 0)
        return rc;
    return spec.norm[SPMODEL_DECODES].units
               ? spm_norm_make(&m->denorm, &spec.norm[SPMODEL_DECODES], false, e) : 0;
}

int spm_parse(struct spm **out, const void *bytes, size_t n, const char *name, struct err *e)
{
    struct spm *m = calloc(1, sizeof *m);
    int rc;

    *out = NULL;
    if (!m)
        return err_set(e, E_SYS, "out of memory");
    if (n > SPMODEL_MAX_BYTES)
        rc = err_set(e, E_DATA, "%zu bytes, at most %zu", n, SPMODEL_MAX_BYTES);
    else if ((rc = read_model(m, bytes, n, e)) == 0 &&
             (rc = make_trie(m, &m->trie, false, e)) == 0 &&
             (rc = make_trie(m, &m->user, true, e)) == 0)
        /* Types 1 unigram, 2 BPE, 3 word, 4 char; the last two need no tables of their own. */
        rc = m->type == 1 ? unigram_make(m, e) : m->type == 2 ? spm_bpe_make(m, NULL, e) : 0;
    if (rc < 0) {
        spm_free(m);
        if (e)
            err_within(e, "'%s'", name);
        return rc;
    }
    m->serial = atomic_fetch_add(&next_serial, 1);
    *out = m;
    return 0;
}

int spm_new(struct spm **out, size_t text_bytes, struct err *e)
{
    struct spm *m = calloc(1, sizeof *m);

    if (m) {
        m->unk = m->bos = m->eos = -1;
        m->type = 2;
        memset(m->byte_id, 0xFF, sizeof m->byte_id);
        m->text = malloc(text_bytes + 1);
        m->serial = atomic_fetch_add(&next_serial, 1);
    }
    if (!m || !m->text) {
        spm_free(m);
        *out = NULL;
        return err_set(e, E_SYS, "out of memory for %zu bytes of tokens", text_bytes);
    }
    *out = m;
    return 0;
}

int spm_add(struct spm *m, const char *text, size_t n, enum spmodel_type kind, struct err *e)
{
    return take_piece(m, text, n, 0, kind, e);
}

int spm_build(struct spm *m, const struct spm_merges *list, struct err *e)
{
    int rc;

    m->norm.escape_spaces = true;
    if ((rc = sort_pieces(m, e)) == 0 && (rc = make_trie(m, &m->trie, false, e)) == 0)
        rc = spm_bpe_make(m, list, e);
    return rc;
}

void spm_free(struct spm *m)
{
    if (!m)
        return;
    free(m->text);
    free(m->unk_surface);
    free(m->piece);
    free(m->score);
    free(m->kind);
    free(m->order);
    free(m->trie.units);
    free(m->user.units);
    spm_norm_free(&m->norm);
    spm_norm_free(&m->denorm);
    spm_bpe_free(&m->bpe);
    free(m);
}

int64_t spm_vocab(const struct spm *m) { return m->vocab; }
int32_t spm_bos(const struct spm *m) { return m->bos; }
int32_t spm_eos(const struct spm *m) { return m->eos; }
int32_t spm_unk(const struct spm *m) { return m->unk; }

const char *spm_piece(const struct spm *m, int32_t id, size_t *n)
{
    bool inside = id >= 0 && id < m->vocab;

    if (n)
        *n = inside ? m->piece[id].n : 0;
    return inside ? m->piece[id].p : "";
}
