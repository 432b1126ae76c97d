/* formats/tokenizer/hft_steps.c - the normaliser and the pre-tokenizer of a tokenizer.json, as steps. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

struct reader {
    struct hft *t;
    const char *part; /* "normalizer", for messages */
    bool cuts;        /* of a pre-tokenizer */
    int depth;
    uint64_t work; /* of its patterns */
    struct err *e;
};
typedef int step_fn(struct reader *r, const struct hft_value *o, struct hft_step *s);

static int bad_value(const struct hft_value *o, const char *key, struct err *e)
{
    return hft_bad(o->start, o->v.p, e, "field '%s' of '%s' is not as it must be", key, o->path);
}

/* One of several words; E_DATA for another. */
static int word(const struct hft_value *o, const char *key, const char *const *words, int n,
                int missing, int *v, struct err *e)
{
    struct hft_value f;
    int rc = hft_field(o, key, &f, e);

    *v = missing;
    if (rc <= 0)
        return rc < 0 ? rc : missing >= 0 ? 0 : bad_value(o, key, e);
    for (int i = 0; i < n; i++)
        if (f.v.type == JK_STRING && json_is(&f.v, words[i])) {
            *v = i;
            return 0;
        }
    return bad_value(&f, key, e);
}

static int behaviour(struct reader *r, const struct hft_value *o, int missing, struct hft_step *s)
{
    static const char *const words[] = { "Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                         "MergedWithNext" };
    int v = 0, rc = word(o, "behavior", words, 5, missing, &v, r->e);

    s->behaviour = (enum hft_behaviour)v;
    return rc;
}

/* {"String": text} or {"Regex": pattern}; a known pattern needs no library. */
static int read_pattern(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    struct hft_value f;
    char *regex = NULL;
    size_t n = 0;
    int rc = hft_field(o, "pattern", &f, r->e);

    if (rc <= 0)
        return rc < 0 ? rc : bad_value(o, "pattern", r->e);
    if ((rc = hft_string(&f, "String", &s->text, &s->text_len, r->e)) < 0 ||
        (rc = hft_string(&f, "Regex", &regex, &n, r->e)) < 0)
        return rc;
    if (!s->text == !regex || (s->text && s->text_len == 0))
        rc = bad_value(o, "pattern", r->e);
    else if (regex && !(s->words = words_known(regex, n)) &&
             (rc = pattern_make(&s->pattern, regex, n, &r->work, r->e)) < 0)
        err_within(r->e, "field '%s.pattern.Regex' (at byte %zu)", r->part,
                   (size_t)(f.v.p - f.start));
    s->regex = regex;
    return rc;
}

static int form(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    static const char *const names[] = { "NFC", "NFD", "NFKC", "NFKD", "Lowercase" };
    int v = 0, rc = word(o, "type", names, 5, -1, &v, r->e);

    s->kind = NORM_FORM;
    s->form = (enum unicode_form)v;
    return rc;
}

static int prepend(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    int rc = hft_string(o, "prepend", &s->to, &s->to_len, r->e);

    s->kind = NORM_PREPEND;
    /* With nothing to prepend tokenizers doubles the first character. */
    return rc == 0 && s->to_len == 0 ? bad_value(o, "prepend", r->e) : rc;
}

static int replace(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    int rc = hft_string(o, "content", &s->to, &s->to_len, r->e);

    s->kind = NORM_REPLACE;
    if (rc == 0 && !s->to)
        return bad_value(o, "content", r->e);
    return rc < 0 ? rc : read_pattern(r, o, s);
}

static int strip(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    int rc = hft_bool(o, "strip_left", true, &s->left, r->e);

    s->kind = NORM_STRIP;
    return rc < 0 ? rc : hft_bool(o, "strip_right", true, &s->right, r->e);
}

static int split(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    int rc = behaviour(r, o, -1, s);

    s->kind = CUT_PATTERN;
    if (rc == 0 && (rc = hft_bool(o, "invert", false, &s->invert, r->e)) == 0)
        rc = read_pattern(r, o, s);
    return rc;
}

static int digits(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    s->kind = CUT_DIGITS;
    return hft_bool(o, "individual_digits", false, &s->each, r->e);
}

static int byte_level(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    bool regex;
    int rc = hft_bool(o, "add_prefix_space", true, &s->prefix, r->e);

    s->kind = CUT_BYTES;
    if (rc == 0 && (rc = hft_bool(o, "use_regex", true, &regex, r->e)) == 0 && regex)
        s->words = &words_gpt2;
    r->t->bytes = true;
    return rc;
}

static int metaspace(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    static const char *const schemes[] = { "never", "first", "always" };
    bool prefix;
    int v = 2, rc = hft_string(o, "replacement", &s->text, &s->text_len, r->e);

    s->kind = CUT_MARKS;
    if (rc == 0 && (!s->text || s->text_len != 3 || memcmp(s->text, SPACE_MARK, 3) != 0))
        return bad_value(o, "replacement", r->e);
    if (rc == 0 && (rc = word(o, "prepend_scheme", schemes, 3, ALWAYS, &v, r->e)) == 0 &&
        (rc = hft_bool(o, "split", true, &s->each, r->e)) == 0 &&
        (rc = hft_bool(o, "add_prefix_space", true, &prefix, r->e)) == 0 && !prefix)
        v = NEVER;
    s->scheme = v;
    return rc;
}

static int punctuation(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    s->kind = CUT_PUNCTUATION;
    return behaviour(r, o, ISOLATED, s);
}

static int whitespace(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    (void)r;
    (void)o;
    s->kind = CUT_WORDS;
    return 0;
}

static int whitespace_split(struct reader *r, const struct hft_value *o, struct hft_step *s)
{
    (void)r;
    (void)o;
    s->kind = CUT_SPACES;
    s->behaviour = REMOVED;
    return 0;
}

static const struct {
    const char *name;
    bool cuts;
    step_fn *read;
} known[] = {
    { "NFC", false, form },
    { "NFD", false, form },
    { "NFKC", false, form },
    { "NFKD", false, form },
    { "Lowercase", false, form },
    { "Prepend", false, prepend },
    { "Replace", false, replace },
    { "Strip", false, strip },
    { "Split", true, split },
    { "Digits", true, digits },
    { "ByteLevel", true, byte_level },
    { "Metaspace", true, metaspace },
    { "Punctuation", true, punctuation },
    { "Whitespace", true, whitespace },
    { "WhitespaceSplit", true, whitespace_split },
};

static int read_step(struct reader *r, const struct hft_value *o);

static int read_sequence(struct reader *r, const struct hft_value *o)
{
    const char *key = r->cuts ? "pretokenizers" : "normalizers";
    struct json_object scan;
    struct hft_value list, item = { .start = o->start, .path = r->part };
    int rc = hft_field(o, key, &list, r->e);

    if (rc < 0)
        return rc;
    if (rc == 0 || list.v.type != JK_ARRAY)
        return bad_value(o, key, r->e);
    if (++r->depth > 8)
        return hft_bad(o->start, o->v.p, r->e, "field '%s': sequences nested deeper than 8",
                       r->part);
    scan = json_scan(list.v.p, list.v.n);
    while ((rc = json_next_element(&scan, &item.v, r->e)) == 1)
        if ((rc = read_step(r, &item)) < 0)
            return rc;
    r->depth--;
    return rc;
}

static int read_step(struct reader *r, const struct hft_value *o)
{
    struct hft *t = r->t;
    struct hft_step *steps = r->cuts ? t->cut : t->norm;
    int *n = r->cuts ? &t->n_cut : &t->n_norm;
    struct hft_value type;
    int rc = hft_field(o, "type", &type, r->e);

    if (rc <= 0)
        return rc < 0 ? rc : hft_bad(o->start, o->v.p, r->e, "field '%s' has no type", r->part);
    if (type.v.type == JK_STRING && json_is(&type.v, "Sequence"))
        return read_sequence(r, o);
    if (*n == HFT_MAX_STEPS)
        return hft_bad(o->start, o->v.p, r->e, "field '%s': more than %d steps", r->part,
                       HFT_MAX_STEPS);
    for (int i = 0; i < *n && r->cuts && type.v.type == JK_STRING; i++)
        if (steps[i].kind == CUT_BYTES && (json_is(&type.v, "ByteLevel") ||
                                           json_is(&type.v, "Metaspace")))
            return hft_bad(o->start, o->v.p, r->e, "field '%s': '%.*s' behind ByteLevel is not "
                           "supported", r->part, (int)type.v.n, type.v.p);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].cuts == r->cuts && type.v.type == JK_STRING && json_is(&type.v, known[i].name))
            return known[i].read(r, o, &steps[(*n)++]);
    return hft_bad(type.start, type.v.p, r->e, "field '%s.type': '%.*s' is not supported", r->part,
                   type.v.n < 40 ? (int)type.v.n : 40, type.v.p);
}

static bool is_mark_for_space(const struct hft_step *s)
{
    return s->kind == NORM_REPLACE && s->text && s->text_len == 1 && *s->text == ' ' &&
           s->to_len == 3 && memcmp(s->to, SPACE_MARK, 3) == 0;
}

static bool is_mark_before(const struct hft_step *s)
{
    return s->kind == NORM_PREPEND && s->to_len == 3 && memcmp(s->to, SPACE_MARK, 3) == 0;
}

/* Splitting at spaces where there are none any more: Gemma's. */
static bool cuts_nothing(const struct hft *t)
{
    return t->n_cut == 0 || (t->n_cut == 1 && t->cut[0].kind == CUT_PATTERN && t->cut[0].text &&
                             strcmp(t->cut[0].text, " ") == 0 && t->n_norm > 0);
}

/* SentencePiece's three ways to put marks: by the normaliser, before the text or not, or by
 * Metaspace. */
static bool is_sentences(struct hft *t)
{
    const struct hft_step *n = t->norm, *c = t->cut;

    if (t->n_norm == 0 && t->n_cut == 1 && c->kind == CUT_MARKS) {
        t->prefix = c->scheme == NEVER ? PREFIX_NEVER
                    : c->scheme == FIRST ? PREFIX_FIRST : PREFIX_UNLESS;
        return true;
    }
    if (!cuts_nothing(t))
        return false;
    t->prefix = t->n_norm == 2 ? PREFIX_ALWAYS : PREFIX_NEVER;
    return (t->n_norm == 1 && is_mark_for_space(n)) ||
           (t->n_norm == 2 && is_mark_before(n) && is_mark_for_space(n + 1));
}

/* What is known to be fast is named here; the rest goes step by step. */
static void choose_way(struct hft *t)
{
    const struct hft_step *c = t->cut;
    int n = t->n_cut;

    t->nfc_only = t->n_norm == 1 && t->norm[0].kind == NORM_FORM && t->norm[0].form == UNICODE_NFC;
    t->sentences = is_sentences(t);
    t->way = t->sentences ? WAY_SENTENCES : WAY_STEPS;
    if (!t->bytes || n == 0 || c[n - 1].kind != CUT_BYTES || c[n - 1].prefix)
        return;
    if (n == 1 && c[0].words)
        t->words = c[0].words;
    else if (n == 2 && c[0].kind == CUT_PATTERN && c[0].words && !c[1].words &&
             ((c[0].behaviour == ISOLATED && !c[0].invert) ||
              (c[0].behaviour == REMOVED && c[0].invert)))
        t->words = c[0].words;
    else if (n == 2 && c[0].kind == CUT_DIGITS && c[0].each && c[1].words == &words_gpt2)
        t->words = &words_gpt2_digits;
    if (t->words)
        t->way = WAY_WORDS;
}

/* Where a text begins is not known any more behind a normaliser that takes its first characters, nor
 * where pieces of what it made begin. */
static int refuse_first(const struct hft *t, const struct hft_value *pre, struct err *e)
{
    bool first = false, takes = false, marked = false;

    for (int i = 0; i < t->n_cut; i++) {
        if (t->cut[i].kind == CUT_MARKS && t->cut[i].scheme == FIRST && marked)
            return hft_bad(pre->start, pre->v.p, e, "field 'pre_tokenizer': prepend_scheme 'first' behind "
                           "another Metaspace is not supported");
        first |= t->cut[i].kind == CUT_MARKS && t->cut[i].scheme == FIRST;
        marked |= t->cut[i].kind == CUT_MARKS;
    }
    for (int i = 0; i < t->n_norm; i++)
        takes |= t->norm[i].kind == NORM_STRIP || t->norm[i].kind == NORM_REPLACE;
    if (!first || t->n_norm == 0 || (t->n_cut == 1 && !takes))
        return 0;
    return hft_bad(pre->start, pre->v.p, e, "field 'pre_tokenizer': prepend_scheme 'first' behind this "
                   "normalizer is not supported");
}

int hft_read_steps(struct hft *t, const struct hft_value *normalizer,
                   const struct hft_value *pre_tokenizer, struct err *e)
{
    struct reader n = { .t = t, .part = "normalizer", .e = e };
    struct reader p = { .t = t, .part = "pre_tokenizer", .cuts = true, .e = e };
    int rc = 0;

    if (normalizer->v.p && (rc = read_step(&n, normalizer)) < 0)
        return rc;
    if (pre_tokenizer->v.p && (rc = read_step(&p, pre_tokenizer)) < 0)
        return rc;
    choose_way(t);
    return refuse_first(t, pre_tokenizer, e);
}
