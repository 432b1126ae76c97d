/* formats/tokenizer/hft_cut.c - a text into words by the steps of a pre-tokenizer, one after another, as
 * tokenizers does it. What is known to be fast takes hft_words.c. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

struct span {
    size_t at, n;
    bool mark; /* of a match: it is one; of a piece: it begins the text */
};
struct spans {
    struct span *v;
    size_t n, cap;
};
/* The text as the steps so far have made it, and where it is cut. */
struct state {
    struct buf text;
    struct spans pieces, matches;
};

static int add(struct spans *s, size_t at, size_t n, bool mark, struct err *e)
{
    int rc = array_grow(&s->v, &s->cap, s->n, sizeof *s->v, 64, "words", e);

    if (rc == 0)
        s->v[s->n++] = (struct span){ at, n, mark };
    return rc;
}

/* A match and what lies between it and the one before; from is moved. */
static int add_match(struct spans *m, size_t *from, size_t start, size_t end, struct err *e)
{
    int rc = start > *from ? add(m, *from, start - *from, false, e) : 0;

    *from = end;
    return rc < 0 ? rc : add(m, start, end - start, true, e);
}

static bool is_match(const struct hft_step *s, uint32_t c)
{
    uint64_t b = unicode_bits(c);

    return s->kind == CUT_DIGITS        ? b & UNI_NUMERIC
           : s->kind == CUT_PUNCTUATION ? b & UNI_PUNCTUATION
           : s->kind == CUT_MARKS       ? c == 0x2581
                                        : b & UNI_SPACE;
}

static int match_characters(const struct hft_step *s, const char *p, size_t n, struct spans *m,
                            size_t *from, struct err *e)
{
    int rc = 0;

    for (size_t i = 0, k; i < n && rc == 0; i += k)
        if (is_match(s, unicode_at(p + i, &k)))
            rc = add_match(m, from, i, i + k, e);
    return rc;
}

static uint64_t word_kind(const char *p, size_t *k)
{
    return unicode_bits(unicode_at(p, k)) & (UNI_PLAIN_WORD | UNI_SPACE);
}

/* \w+|[^\w\s]+ */
static int match_words(const char *p, size_t n, struct spans *m, size_t *from, struct err *e)
{
    int rc = 0;

    for (size_t i = 0, k, start; i < n && rc == 0;) {
        uint64_t kind = word_kind(p + i, &k);

        start = i;
        for (i += k; i < n && word_kind(p + i, &k) == kind;)
            i += k;
        if (kind != UNI_SPACE)
            rc = add_match(m, from, start, i, e);
    }
    return rc;
}

static int match_pattern(const struct hft_step *s, struct pattern_at *at, const char *p, size_t n,
                         struct spans *m, size_t *from, struct err *e)
{
    size_t start, end;
    const char *q;
    int rc = 0;

    if (s->words) {
        for (start = 0; start < n && rc == 0; start = end) {
            end = words_next(s->words, p, n, start);
            rc = add_match(m, from, start, end, e);
        }
        return rc;
    }
    if (s->text) {
        for (start = 0; rc == 0 && (q = memmem(p + start, n - start, s->text, s->text_len));) {
            end = (size_t)(q - p) + s->text_len;
            rc = add_match(m, from, (size_t)(q - p), end, e);
            start = end;
        }
        return rc;
    }
    pattern_begin(at, n);
    while ((rc = pattern_next(s->pattern, at, p, n, &start, &end, e)) == 1)
        if ((rc = add_match(m, from, start, end, e)) < 0)
            break;
    return rc;
}

/* Every match and what lies between. */
static int find_matches(const struct hft_step *s, struct pattern_at *at, const char *p, size_t n,
                        struct spans *m, struct err *e)
{
    bool invert = s->kind == CUT_PATTERN && s->invert;
    size_t from = 0;
    int rc;

    m->n = 0;
    if (s->kind == CUT_PATTERN || s->kind == CUT_BYTES)
        rc = match_pattern(s, at, p, n, m, &from, e);
    else if (s->kind == CUT_WORDS)
        rc = match_words(p, n, m, &from, e);
    else
        rc = match_characters(s, p, n, m, &from, e);
    if (rc == 0 && from < n)
        rc = add(m, from, n - from, false, e);
    for (size_t i = 0; i < m->n && (invert || s->kind == CUT_WORDS); i++)
        m->v[i].mark = !m->v[i].mark;
    return rc;
}

/* Whether match i joins the piece before it. */
static bool joins(enum hft_behaviour b, const struct spans *m, size_t i)
{
    bool now = m->v[i].mark, before = i > 0 && m->v[i - 1].mark;

    switch (b) {
    case CONTIGUOUS:
        return now == before;
    case WITH_PREVIOUS:
        return now && !before;
    case WITH_NEXT: /* seen from the end: a match joins what follows, unless that is one too */
        return !now && before;
    default:
        return false;
    }
}

static int add_pieces(enum hft_behaviour b, const struct span *whole, size_t base,
                      struct state *to, const struct spans *m, struct err *e)
{
    bool open = false; /* a piece that the next may join */
    int rc = 0;

    for (size_t i = 0; i < m->n && rc == 0; i++) {
        const struct span *x = &m->v[i];

        if (b == REMOVED && x->mark)
            continue;
        if (open && joins(b, m, i)) {
            to->pieces.v[to->pieces.n - 1].n += x->n;
            continue;
        }
        rc = add(&to->pieces, base + x->at, x->n, whole->mark && x->at == 0, e);
        open = true;
    }
    return rc;
}

/* A space or a mark before a piece, and marks for its spaces. */
static int put_text(const struct hft_step *s, const char *p, size_t n, bool first, struct buf *out,
                    struct err *e)
{
    int rc = 0;

    if (s->kind == CUT_BYTES && s->prefix && *p != ' ')
        rc = buf_add(out, " ", 1, e);
    if (s->kind != CUT_MARKS)
        return rc < 0 ? rc : buf_add(out, p, n, e);
    if (*p != ' ' && (n < 3 || memcmp(p, SPACE_MARK, 3) != 0) &&
        (s->scheme == ALWAYS || (s->scheme == FIRST && first)))
        rc = buf_add(out, SPACE_MARK, 3, e);
    for (size_t i = 0, k; i < n && rc == 0; i += k + 1) {
        const char *q = memchr(p + i, ' ', n - i);

        k = q ? (size_t)(q - p) - i : n - i;
        if ((rc = buf_add(out, p + i, k, e)) == 0 && q)
            rc = buf_add(out, SPACE_MARK, 3, e);
    }
    return rc;
}

static int apply(const struct hft_step *s, struct pattern_at *at, const struct state *was, struct state *to,
                 struct err *e)
{
    bool cuts = s->kind == CUT_BYTES ? s->words != NULL : s->kind == CUT_MARKS ? s->each : true;
    enum hft_behaviour b = s->kind == CUT_BYTES    ? ISOLATED
                           : s->kind == CUT_MARKS  ? WITH_NEXT
                           : s->kind == CUT_DIGITS ? (s->each ? ISOLATED : CONTIGUOUS)
                           : s->kind == CUT_WORDS  ? REMOVED
                                                   : s->behaviour;
    int rc = 0;

    to->text.len = 0;
    to->pieces.n = 0;
    for (size_t i = 0; i < was->pieces.n && rc == 0; i++) {
        const struct span *x = &was->pieces.v[i];
        size_t base = to->text.len;

        if (x->n == 0)
            continue;
        if ((rc = put_text(s, was->text.p + x->at, x->n, x->mark, &to->text, e)) < 0)
            break;
        if (!cuts)
            rc = add(&to->pieces, base, to->text.len - base, x->mark, e);
        else if ((rc = find_matches(s, at, to->text.p + base, to->text.len - base, &to->matches,
                                    e)) == 0)
            rc = add_pieces(b, x, base, to, &to->matches, e);
    }
    return rc;
}

/* The pieces in the alphabet of bytes, or, back, the bytes of what is in it: for steps behind ByteLevel,
 * which see that alphabet. */
static int change_alphabet(const struct hft *t, bool back, const struct state *was,
                           struct state *to, struct err *e)
{
    int rc = 0;

    to->text.len = 0;
    to->pieces.n = 0;
    for (size_t i = 0; i < was->pieces.n && rc == 0; i++) {
        const struct span *x = &was->pieces.v[i];
        const char *p = was->text.p + x->at;
        size_t from = to->text.len;

        if ((rc = buf_reserve(&to->text, 2 * x->n, e)) < 0)
            break;
        for (size_t k = 0, used = 1; k < x->n; k += used)
            if (back) {
                to->text.p[to->text.len++] = (char)hft_byte(unicode_at(p + k, &used));
            } else {
                unsigned char b = (unsigned char)p[k];

                memcpy(to->text.p + to->text.len, t->alphabet[b].p, 2);
                to->text.len += (size_t)t->alphabet[b].n;
            }
        rc = add(&to->pieces, from, to->text.len - from, x->mark, e);
    }
    return rc;
}

static void free_state(struct state *s)
{
    buf_free(&s->text);
    free(s->pieces.v);
    free(s->matches.v);
}

int hft_encode_steps(const struct hft *t, struct spm_cache *c, const struct hft_piece *piece,
                     struct spm_ids *out, struct err *e)
{
    struct state a = { 0 }, b = { 0 }, was;
    struct pattern_at at[HFT_MAX_STEPS] = { 0 };
    bool mapped = false;
    int rc = buf_add(&a.text, piece->p, piece->n, e);

    if (rc == 0)
        rc = add(&a.pieces, 0, piece->n, piece->at_start, e);
    for (int i = 0; i <= t->n_cut && rc == 0; i++) {
        bool last = i == t->n_cut, maps = i > 0 && !last && t->cut[i - 1].kind == CUT_BYTES;

        if (maps || (last && mapped)) {
            was = a;
            rc = change_alphabet(t, last, &was, &b, e);
            a = b;
            b = was;
            mapped = !last;
        }
        if (rc < 0 || last)
            break;
        was = a;
        rc = apply(&t->cut[i], &at[i], &was, &b, e);
        a = b;
        b = was;
    }
    for (size_t i = 0; i < a.pieces.n && rc == 0; i++)
        if (a.pieces.v[i].n)
            rc = hft_word(t, c, a.text.p + a.pieces.v[i].at, a.pieces.v[i].n, out, e);
    for (int i = 0; i < t->n_cut; i++)
        pattern_done(&at[i]);
    free_state(&a);
    free_state(&b);
    return rc;
}
