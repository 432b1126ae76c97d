/* prep/doc.c - see doc.h. */
#include "prep/doc.h"

#include "base/jsonscan.h"
#include "base/magic.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define BYTE_ORDER_MARK "\xEF\xBB\xBF"

const char *schema_name(enum schema s)
{
    static const char *const name[SCHEMAS] = { "text file",    "pg19",         "text",
                                               "lprep --text", "redpajama v1", "redpajama v2",
                                               "proof-pile",   "alpaca",       "longalpaca",
                                               "leval --prompts", "--field" };
    return name[s];
}

void doc_clear(struct doc *d)
{
    struct buf text = d->text, input = d->input, output = d->output;

    text.len = input.len = output.len = 0;
    *d = (struct doc){ .text = text, .input = input, .output = output };
}

void doc_free(struct doc *d)
{
    buf_free(&d->text);
    buf_free(&d->input);
    buf_free(&d->output);
}

static void set_name(struct doc *d, const struct doc_place *at)
{
    char name[DOC_NAME_MAX + 64];
    /* 24 bytes are left for ":" and the line's number. */
    size_t n = strlen(at->name), keep = DOC_NAME_MAX - 24;

    /* Of a name too long the end says more. */
    if (at->line)
        snprintf(name, sizeof name, "%s:%lld", at->name + (n > keep ? n - keep : 0),
                 (long long)at->line);
    else
        snprintf(name, sizeof name, "%s", at->name + (n > keep ? n - keep : 0));
    label_clean(d->name, DOC_NAME_MAX, name);
}

/* --source comes before whatever was recognised. */
static void set_source(struct doc *d, const struct doc_opts *o, const char *source)
{
    label_clean(d->source, DOC_SOURCE_MAX, o->source ? o->source : source);
}

/* train|validation|test/<number>.txt, at the end of a path or an archive's member. */
static bool is_pg19(const char *name)
{
    static const char *const split[] = { "train/", "validation/", "test/" };
    const char *end = name + strlen(name), *p;

    /* p: the file's name alone. It must be digits and then ".txt". */
    for (p = end; p > name && p[-1] != '/' && p[-1] != ':'; p--)
        ;
    if (end - p < 5 || strncmp(p + strspn(p, "0123456789"), ".txt", 4) != 0 || *p == '.')
        return false;
    for (size_t i = 0; i < sizeof split / sizeof *split; i++) {
        size_t k = strlen(split[i]);
        if ((size_t)(p - name) >= k && memcmp(p - k, split[i], k) == 0)
            return true;
    }
    return false;
}

/* Copies the valid stretches of the text. Each invalid byte between them becomes U+FFFD, or
 * is the error that ends it. */
int doc_from_text(struct doc *d, const struct doc_place *at, const char *p, size_t n,
                  const struct doc_opts *o, struct err *e)
{
    size_t bad, done = 0;
    int rc = 0;

    doc_clear(d);
    d->schema = is_pg19(at->name) ? SCHEMA_PG19 : SCHEMA_TEXT_FILE;
    set_name(d, at);
    set_source(d, o, d->schema == SCHEMA_PG19 ? "pg19" : "text");
    if (n >= 3 && memcmp(p, BYTE_ORDER_MARK, 3) == 0)
        done = 3;
    while (rc == 0 && !utf8_valid(p + done, n - done, &bad)) {
        /* Only a text that is not UTF-8 is looked at again: is it text at all? */
        if (magic_binary(p, n)) {
            err_set(e, E_DATA, "'%s' is binary data, not text", at->name);
            return err_hint(e, "leave it out, or use --on-error skip");
        }
        if (!o->replace) {
            err_set(e, E_DATA, "'%s': invalid UTF-8 (byte 0x%02X) at byte %zu", at->name,
                    (unsigned char)p[done + bad], done + bad);
            return err_hint(e, "convert it (iconv -t utf-8), or give --utf8 replace");
        }
        if ((rc = buf_add(&d->text, p + done, bad, e)) == 0)
            rc = buf_add(&d->text, "\xEF\xBF\xBD", 3, e);
        done += bad + 1;
    }
    return rc < 0 ? rc : buf_add(&d->text, p + done, n - done, e);
}

int doc_from_buf(struct doc *d, const struct doc_place *at, struct buf *b,
                 const struct doc_opts *o, struct err *e)
{
    struct buf text = *b;

    if (!utf8_valid(b->p, b->len, NULL))
        return doc_from_text(d, at, b->p, b->len, o, e);
    /* Sets schema, name and source; an empty text cannot fail. */
    doc_from_text(d, at, "", 0, o, e);
    if (text.len >= 3 && memcmp(text.p, BYTE_ORDER_MARK, 3) == 0)
        memmove(text.p, text.p + 3, text.len -= 3);
    *b = d->text;
    d->text = text;
    return 0;
}

/* The keys that tell schemas apart. */
enum key { K_TEXT, K_RAW_CONTENT, K_INSTRUCTION, K_INPUT, K_OUTPUT, K_META, K_SOURCE, K_SUBSET,
           K_PRED_LABEL, K_SYSTEM, K_HISTORY, K_PROMPT, K_ANSWERS, K_FIELD, KEYS };
static const char *const key_name[KEYS] = { "text",   "raw_content",       "instruction",
                                            "input",  "output",            "meta",
                                            "source", "red_pajama_subset", "pred_label",
                                            "system", "history",           "prompt",
                                            "answers" };
/* The same for the keys inside "meta". */
enum meta_key { M_SOURCE, M_NAME, M_SUBSET_NAME, M_SET_NAME, M_CONFIG, M_FILE, M_ARXIV_ID,
                M_BOOK_TITLE, M_SCORE, M_TITLE, M_URL, M_TIMESTAMP, M_CONTENT_HASH, META_KEYS };
static const char *const meta_name[META_KEYS] = {
    "source", "name", "subset_name", "set_name", "config", "file", "arxiv_id",
    "short_book_title", "question_score", "title", "url", "timestamp", "content_hash"
};

/* What a row was found to hold. Values point into its JSON and are decoded only when taken. */
struct row {
    bool has[KEYS], meta_has[META_KEYS]; /* and not null */
    bool input;                          /* the key is there, if only as null */
    struct json_value key[KEYS], meta[META_KEYS];
    int n_meta;         /* keys of meta, known or not */
    const char *subset; /* by a meta that is a string */
    char found[256];    /* the row's keys, for a message */
    bool has_string;    /* one of them has a string */
    const char *kind;   /* what a row of such a key is, that is not read */
    bool ours;          /* a manifest of these tools */
};

/* Adds a key to r->found, as long as there is space for it. */
static void note_found(struct row *r, const struct json_value *key)
{
    size_t used = strlen(r->found);

    if (used + key->n + 8 >= sizeof r->found)
        return;
    if (used)
        memcpy(r->found + used, ", ", 2);
    used += used ? 2 : 0;
    memcpy(r->found + used, key->p, key->n);
    r->found[used + key->n] = '\0';
}

/* Rows that are well known, and need more than to name a key. */
static void note_kind(struct row *r, const struct json_value *key, const struct json_value *v)
{
    if (v->type == JK_ARRAY && (json_is(key, "messages") || json_is(key, "conversations") ||
                                json_is(key, "conversation") || json_is(key, "turns")))
        r->kind = "a conversation";
    if (json_is(key, "chosen") || json_is(key, "rejected"))
        r->kind = "a preference";
}

/* All of the row is walked, so that what is accepted is JSON to its end. */
static int walk_row(struct row *r, const char *p, size_t n, const char *field, struct err *e)
{
    struct json_object o = json_scan(p, n);
    struct json_value key, v;
    int rc;

    while ((rc = json_next(&o, &key, &v, e)) == 1) {
        note_found(r, &key);
        r->has_string |= v.type == JK_STRING;
        /* Cheap test before the comparisons: "chosen" and "rejected" begin so. */
        if (v.type == JK_ARRAY || (key.n && (*key.p == 'c' || *key.p == 'r')))
            note_kind(r, &key, &v);
        r->ours |= json_is(&key, "format") && v.type == JK_STRING && v.n > 9 &&
                   memcmp(v.p, "longlora-", 9) == 0;
        for (int k = 0; k < KEYS; k++)
            if (k == K_FIELD ? field && json_is(&key, field) : json_is(&key, key_name[k])) {
                r->input |= k == K_INPUT;
                /* A "text" that is null counts as there, so that the row is an error and not
                 * of another schema. Of a key given twice the last value counts. */
                r->has[k] = v.type != JK_NULL || k == K_TEXT;
                r->key[k] = v;
            }
    }
    return rc;
}

/* The same for the n bytes of the object "meta". */
static int walk_meta(struct row *r, const char *p, size_t n, struct err *e)
{
    struct json_object o = json_scan(p, n);
    struct json_value key, v;
    int rc;

    while ((rc = json_next(&o, &key, &v, e)) == 1) {
        r->n_meta++;
        for (int k = 0; k < META_KEYS; k++)
            if (json_is(&key, meta_name[k])) {
                r->meta_has[k] = v.type != JK_NULL;
                r->meta[k] = v;
            }
    }
    return rc;
}

/* v as a label, "" when it is no string or longer than fits: out has max + 1 bytes. */
static void label_of(char *out, size_t max, const struct json_value *v)
{
    struct buf b = { 0 };

    out[0] = '\0';
    /* A byte is at most six bytes of JSON, as \u0041 is for "A". */
    if (v->type == JK_STRING && v->n <= 6 * max && json_text(v, true, &b, NULL) == 0 &&
        buf_add(&b, "", 1, NULL) == 0)
        label_clean(out, max, b.p);
    buf_free(&b);
}

/* Letters, digits, '.', '_' and '-', at most 64: what makes a good name of a source. */
static bool is_word(const char *s)
{
    size_t n = 0;

    while (isalnum((unsigned char)s[n]) || (s[n] && strchr("._-", s[n])))
        n++;
    return n > 0 && n <= 64 && s[n] == '\0';
}

static const char *const subsets[] = { "arxiv",  "stackexchange", "common_crawl", "c4",
                                       "github", "wikipedia",     "book" };

/* The subset of RedPajama that a row names ("books" of the full set is "book"). */
static const char *subset_of(const char *s)
{
    for (size_t i = 0; i < sizeof subsets / sizeof *subsets; i++)
        if (strcasecmp(s, subsets[i]) == 0)
            return subsets[i];
    return strncmp(s, "cc/", 3) == 0 ? "common_crawl" : strcmp(s, "books") == 0 ? "book" : NULL;
}

/* The one that a file's name holds: arxiv_sample.jsonl, cc_2019-30_sample.jsonl. */
static const char *subset_in(const char *name)
{
    for (size_t i = 0; i < sizeof subsets / sizeof *subsets; i++)
        if (strcasestr(name, subsets[i]))
            return subsets[i];
    return strcasestr(name, "cc_20") ? "common_crawl" : NULL;
}

/* The subset by the keys of a RedPajama row's meta, or NULL. */
static const char *subset_by_meta(const struct row *r)
{
    char source[65];

    label_of(source, 64, &r->meta[M_SOURCE]);
    if (r->meta_has[M_SOURCE] && subset_of(source) && r->n_meta > 1)
        return subset_of(source);
    if (r->meta_has[M_TITLE] && r->meta_has[M_URL] && r->meta_has[M_TIMESTAMP])
        return "wikipedia";
    return r->meta_has[M_ARXIV_ID]       ? "arxiv"
           : r->meta_has[M_BOOK_TITLE]   ? "book"
           : r->meta_has[M_SCORE]        ? "stackexchange"
           : r->meta_has[M_CONTENT_HASH] ? "github"
                                         : NULL;
}

static const char *base_name(const char *path)
{
    const char *p = path + strlen(path);

    while (p > path && p[-1] != '/' && p[-1] != ':')
        p--;
    return p;
}

/* "redpajama.<subset>"; a subset unknown even to the file's name leaves the plain name. */
static void redpajama(struct doc *d, const struct doc_opts *o, const char *subset,
                      const struct doc_place *at)
{
    char source[96];

    if (!subset)
        subset = subset_in(base_name(at->name));
    snprintf(source, sizeof source, subset ? "redpajama.%s" : "redpajama", subset);
    d->schema = SCHEMA_REDPAJAMA;
    set_source(d, o, source);
}

/* Of a row with text: which schema, which source. */
static void classify_text(struct doc *d, const struct row *r, const struct doc_place *at,
                          const struct doc_opts *o)
{
    char top[DOC_SOURCE_MAX + 1], inner[DOC_SOURCE_MAX + 1];
    const char *subset = r->subset ? r->subset : subset_by_meta(r);
    bool meta_string = r->has[K_META] && r->key[K_META].type == JK_STRING;

    label_of(inner, DOC_SOURCE_MAX, &r->meta[M_SOURCE]);
    label_of(top, DOC_SOURCE_MAX, &r->key[r->has[K_SUBSET] ? K_SUBSET : K_SOURCE]);
    /* From the most certain sign to the least: what lprep --text wrote, then proof-pile's
     * keys, then RedPajama's; a row of none of them is plain text. */
    if (r->n_meta == 2 && r->meta_has[M_SOURCE] && r->meta_has[M_NAME] && *inner) {
        d->schema = SCHEMA_LPREP;
        set_source(d, o, inner);
        label_of(d->name, DOC_NAME_MAX, &r->meta[M_NAME]);
    } else if (r->meta_has[M_SUBSET_NAME] || r->meta_has[M_SET_NAME] ||
               (r->meta_has[M_CONFIG] && r->meta_has[M_FILE])) {
        d->schema = SCHEMA_PROOF_PILE;
        set_source(d, o, "proof-pile");
    } else if (r->has[K_SUBSET]) {
        redpajama(d, o, subset_of(top), at);
    } else if (r->has[K_PRED_LABEL] || strncmp(top, "cc/", 3) == 0) {
        redpajama(d, o, "common_crawl", at);
    } else if (subset || meta_string) {
        redpajama(d, o, subset, at);
    } else {
        d->schema = SCHEMA_TEXT;
        set_source(d, o, is_word(top) ? top : is_word(inner) ? inner : "text");
    }
}

/* Of instructions the file's name says which; where it says neither, a row without "input" is LongAlpaca's. */
static void classify_instruction(struct doc *d, const struct row *r, const struct doc_place *at,
                                 const struct doc_opts *o)
{
    const char *base = base_name(at->name);
    bool is_long;

    if (r->n_meta == 2 && r->meta_has[M_SOURCE] && r->meta_has[M_NAME]) {
        classify_text(d, r, at, o);
        return;
    }
    if (d->bare) {
        d->schema = SCHEMA_PROMPTS;
        set_source(d, o, "prompts");
        return;
    }
    is_long = strcasestr(base, "longalpaca") || strcasestr(base, "long_alpaca") ||
              (!strcasestr(base, "alpaca") && !r->input);
    d->schema = is_long ? SCHEMA_LONGALPACA : SCHEMA_ALPACA;
    set_source(d, o, is_long ? "longalpaca" : "alpaca");
}

/* The error for a row without the keys wanted, with advice that fits what the row does have. */
static int no_key(const struct row *r, const char *wanted, struct err *e)
{
    if (r->ours) {
        err_set(e, E_DATA, "this is a manifest of these tools, not text");
        return err_hint(e, "linfo shows it; lprep reads text");
    }
    if (r->kind) {
        err_set(e, E_DATA, "%s (%s), which is not read", r->kind, r->found);
        return err_hint(e, "convert it first to rows with 'instruction' and 'output', or with 'text'");
    }
    err_set(e, E_DATA, "no key %s; the keys are: %s", wanted, *r->found ? r->found : "none");
    return r->has_string ? err_hint(e, "name the key that holds the text with --field NAME")
                         : err_hint(e, "a row needs its text in a string: leave it out, or "
                                       "--on-error skip");
}

/* Decodes a string of key 'name'. */
static int decode(const struct json_value *v, const char *name, const struct doc_opts *o, struct buf *out,
                  struct err *e)
{
    int rc = json_text(v, o->replace, out, e);

    if (rc < 0) {
        err_within(e, "key '%s'", name);
        if (rc == E_DATA)
            err_hint(e, "give --utf8 replace, or --on-error skip to leave such rows out");
    }
    return rc;
}

/* Decodes the value of key k, which is there unless it may be absent. */
static int take(const struct row *r, enum key k, const char *name, const struct doc_opts *o,
                struct buf *out, struct err *e)
{
    const struct json_value *v = &r->key[k];

    if (!r->has[k])
        return 0;
    if (v->type != JK_STRING)
        return err_set(e, E_DATA, "key '%s' is %s, not a string", name,
                       json_type_name(v->type));
    return decode(v, name, o, out, e);
}

/* Reads "meta", an object or a string that holds one. */
static int take_meta(struct row *r, struct err *e)
{
    struct buf text = { 0 };
    const struct json_value *v = &r->key[K_META];

    if (!r->has[K_META])
        return 0;
    if (v->type == JK_OBJECT)
        return walk_meta(r, v->p, v->n, e);
    /* The Sample's loader types meta as a string; where that is JSON its keys count too. */
    if (v->type == JK_STRING && v->n > 1 && *v->p == '{' &&
        json_text(v, true, &text, NULL) == 0) {
        /* Of the string only the subset is kept: values
         * of trial point into text, which is freed. */
        struct row trial = *r;
        if (walk_meta(&trial, text.p, text.len, NULL) == 0)
            r->subset = subset_by_meta(&trial);
    }
    buf_free(&text);
    return 0;
}

/* More than "", [] and {}. */
static bool says(const struct json_value *v, bool there)
{
    /* A string's length is without its quotes; an array's or object's is with its brackets. */
    size_t n = there && v->type != JK_STRING ? 2 : 0;

    return there && v->n > n;
}

/* The answers, each behind a blank, as the output; a prompt that ends in one has it already. */
static int take_answers(struct doc *d, const struct row *r, const struct doc_opts *o, struct err *e)
{
    struct json_object all = json_scan(r->key[K_ANSWERS].p, r->key[K_ANSWERS].n);
    struct json_value v;
    bool blank = d->text.len > 0 && d->text.p[d->text.len - 1] == ' ';
    int rc;

    while ((rc = json_next_element(&all, &v, e)) == 1) {
        if (v.type != JK_STRING)
            return err_set(e, E_DATA, "key 'answers' has %s, not a string", json_type_name(v.type));
        if ((!blank && (rc = buf_add(&d->output, " ", 1, e)) < 0) ||
            (rc = decode(&v, "answers", o, &d->output, e)) < 0)
            return rc;
        blank = false;
    }
    if (rc == 0 && d->output.len == 0)
        return err_set(e, E_DATA, "key 'answers' has none");
    return rc;
}

/* Fills d's texts from the row: by --field if given, else as instruction and output, else
 * from "text", else as prompt and answers, else from "raw_content". */
static int from_row(struct doc *d, const struct row *r, const struct doc_opts *o, struct err *e)
{
    bool instruct = !o->field && r->has[K_INSTRUCTION] && r->has[K_OUTPUT];
    bool asks = !o->field && !instruct && !r->has[K_TEXT] && r->has[K_PROMPT] && r->has[K_ANSWERS] &&
                r->key[K_ANSWERS].type == JK_ARRAY;
    enum key k = o->field ? K_FIELD : instruct ? K_INSTRUCTION : r->has[K_TEXT] ? K_TEXT
                 : asks ? K_PROMPT : K_RAW_CONTENT;
    int rc;

    if (!r->has[k])
        return o->field ? no_key(r, o->field, e)
                        : no_key(r, "'text', 'raw_content' or 'instruction' with 'output'", e);
    if ((rc = take(r, k, o->field ? o->field : key_name[k], o, &d->text, e)) < 0 ||
        !(instruct || asks))
        return rc;
    d->instruct = true;
    if ((d->bare = asks))
        return take_answers(d, r, o, e);
    d->lost = says(&r->key[K_SYSTEM], r->has[K_SYSTEM]) ||
              says(&r->key[K_HISTORY], r->has[K_HISTORY]);
    if ((rc = take(r, K_INPUT, "input", o, &d->input, e)) == 0)
        rc = take(r, K_OUTPUT, "output", o, &d->output, e);
    return rc;
}

int doc_from_json(struct doc *d, const struct doc_place *at, const char *p, size_t n,
                  const struct doc_opts *o, struct err *e)
{
    struct row r = { 0 };
    int rc;

    doc_clear(d);
    set_name(d, at);
    if ((rc = walk_row(&r, p, n, o->field, e)) == 0 && (rc = take_meta(&r, e)) == 0)
        rc = from_row(d, &r, o, e);
    if (rc < 0)
        return err_within(e, "'%s' line %lld", at->name, (long long)at->line);
    if (d->instruct) {
        classify_instruction(d, &r, at, o);
    } else if (!o->field && !r.has[K_TEXT]) {
        d->schema = SCHEMA_REDPAJAMA2;
        set_source(d, o, "redpajama2");
    } else {
        classify_text(d, &r, at, o);
        if (o->field)
            d->schema = SCHEMA_FIELD;
    }
    return 0;
}
