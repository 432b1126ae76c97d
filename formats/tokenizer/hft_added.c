/* formats/tokenizer/hft_added.c - tokens that are found in the text as they stand, and the alphabet of
 * bytes. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ADDED ((size_t)1 << 17)

static int read_one(struct hft *t, const struct hft_value *o, struct err *e)
{
    struct hft_added *a = &t->added[t->n_added];
    struct hft_value id;
    char *text;
    size_t n;
    int rc = hft_string(o, "content", &text, &n, e);

    if (rc < 0)
        return rc;
    if (n == 0) { /* tokenizers passes it over */
        free(text);
        return 0;
    }
    *a = (struct hft_added){ .content = text, .n = (uint32_t)n };
    t->n_added++; /* from here on hft_free frees the text */
    if (n > SPMODEL_MAX_PIECE_BYTES)
        return hft_bad(o->start, o->v.p, e, "field 'added_tokens': a token of %zu bytes", n);
    if ((rc = hft_field(o, "id", &id, e)) < 0)
        return rc;
    a->id = rc == 1 && id.v.type == JK_NUMBER && id.v.n < 9 && strspn(id.v.p, "0123456789") == id.v.n
                ? atoi(id.v.p) : -1;
    if (a->id < 0 || a->id >= SPMODEL_MAX_PIECES)
        return hft_bad(o->start, o->v.p, e, "field 'added_tokens[%zu].id' must be 0 to %lld",
                       t->n_added - 1, (long long)SPMODEL_MAX_PIECES - 1);
    if ((rc = hft_bool(o, "single_word", false, &a->single_word, e)) < 0 ||
        (rc = hft_bool(o, "lstrip", false, &a->lstrip, e)) < 0 ||
        (rc = hft_bool(o, "rstrip", false, &a->rstrip, e)) < 0 ||
        (rc = hft_bool(o, "special", false, &a->special, e)) < 0)
        return rc;
    return hft_bool(o, "normalized", true, &a->normalized, e);
}

static int by_text(const void *a, const void *b)
{
    const struct spm_string *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

    return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

static bool is_same(const struct hft_added *a, const struct hft_added *b)
{
    return a->id == b->id && a->single_word == b->single_word && a->lstrip == b->lstrip &&
           a->rstrip == b->rstrip && a->normalized == b->normalized && a->special == b->special;
}

/* A token that is there twice counts once. */
static int drop_twins(struct hft *t, const struct hft_value *added, struct err *e)
{
    struct spm_string *s = malloc((t->n_added + 1) * sizeof *s);
    size_t kept = 0;
    int rc = s ? 0 : err_set(e, E_SYS, "out of memory for added tokens");

    for (size_t i = 0; i < t->n_added && rc == 0; i++)
        s[i] = (struct spm_string){ t->added[i].content, t->added[i].n, (int32_t)i };
    if (rc == 0)
        qsort(s, t->n_added, sizeof *s, by_text);
    for (size_t i = 1; i < t->n_added && rc == 0; i++) {
        struct hft_added *a = &t->added[s[i - 1].value], *b = &t->added[s[i].value];

        if (by_text(&s[i - 1], &s[i]) != 0)
            continue;
        if (!is_same(a, b))
            rc = hft_bad(added->start, added->v.p, e, "field 'added_tokens': '%.60s' is there twice, and "
                         "not alike", b->content);
        else
            b->n = 0; /* it stays in s */
    }
    for (size_t i = 0; i < t->n_added && rc == 0; i++)
        if (t->added[i].n > 0)
            t->added[kept++] = t->added[i];
        else
            free((char *)t->added[i].content);
    if (rc == 0)
        t->n_added = kept;
    free(s);
    return rc;
}

int hft_read_added(struct hft *t, const struct hft_value *added, struct err *e)
{
    struct hft_value item = { .start = added->start, .path = "added_tokens" };
    struct json_object scan;
    size_t cap = 0;
    int rc;

    if (!added->v.p)
        return 0;
    if (added->v.type != JK_ARRAY)
        return hft_bad(added->start, added->v.p, e, "field 'added_tokens' is %s, must be an array",
                       json_type_name(added->v.type));
    scan = json_scan(added->v.p, added->v.n);
    while ((rc = json_next_element(&scan, &item.v, e)) == 1) {
        if (t->n_added == MAX_ADDED)
            return hft_bad(added->start, item.v.p, e, "field 'added_tokens': more than %zu", MAX_ADDED);
        if ((rc = array_grow(&t->added, &cap, t->n_added, sizeof *t->added, 64, "added tokens", e)) < 0 ||
            (rc = read_one(t, &item, e)) < 0)
            return rc;
    }
    return rc < 0 ? rc : drop_twins(t, added, e);
}

/* Bytes 33-126, 161-172 and 174-255 are the characters of these numbers; the others, in order, those
 * from 256 on. */
static bool shown(unsigned b) { return (b > 32 && b < 127) || (b > 160 && b != 173); }

int hft_byte(uint32_t c)
{
    if (c < 256)
        return shown(c) ? (int)c : -1;
    c -= 256; /* of these 0 to 32 come first, then 127 to 160, then 173 */
    return c < 33 ? (int)c : c < 67 ? (int)c + 94 : c == 67 ? 173 : -1;
}

static size_t put_byte(char *to, unsigned char b)
{
    uint32_t c = b;

    if (!shown(b)) {
        c = 256;
        for (unsigned x = 0; x < b; x++)
            c += !shown(x);
    }
    return unicode_put(to, c);
}

/* The symbol of each byte. */
void hft_make_bytes(struct hft *t)
{
    for (unsigned b = 0; b < 256; b++) {
        char text[4];
        size_t n = put_byte(text, (unsigned char)b);
        int32_t id = hft_map_find(&t->map, text, n);

        t->base[b] = id < 0 ? SYM_NONE : (uint32_t)id;
        memcpy(t->alphabet[b].p, text, n);
        t->alphabet[b].n = (char)n;
    }
}

int hft_make_pairs(struct hft *t, struct err *e)
{
    t->all_bytes = true;
    for (unsigned b = 0; b < 256; b++)
        t->all_bytes = t->all_bytes && t->base[b] != SYM_NONE;
    if (!t->all_bytes)
        return 0;
    if (!(t->pair = malloc(sizeof *t->pair * 256)))
        return err_set(e, E_SYS, "out of memory for the pairs of bytes");
    for (unsigned x = 0; x < 256; x++)
        for (unsigned y = 0; y < 256; y++)
            t->pair[x][y].rank = spm_bpe_merge(&t->v->bpe, t->base[x], t->base[y],
                                               &t->pair[x][y].id);
    return 0;
}

static void note_start(struct hft_finder *f, const struct spm_string *s)
{
    const unsigned char *p = (const unsigned char *)s->p;

    f->first = f->first == -2 || f->first == p[0] ? p[0] : -1;
    if (s->n == 1)
        f->one[p[0]] = true;
    else
        f->pair[p[0] * 32 + p[1] / 8] |= (unsigned char)(1 << p[1] % 8);
}

/* Of the n strings at s, which it sorts. */
static int make_finder(const struct hft *t, struct hft_finder *f, struct spm_string *s, size_t n, struct err *e)
{
    if (n == 0)
        return 0;
    if (!(f->pair = calloc(256, 32)))
        return err_set(e, E_SYS, "out of memory for added tokens");
    qsort(s, n, sizeof *s, by_text);
    f->first = -2; /* none yet */
    for (size_t i = 0; i < n; i++) {
        /* tokenizers takes any of them, another in each process */
        if (i > 0 && by_text(&s[i - 1], &s[i]) == 0)
            return err_set(e, E_DATA, "field 'added_tokens': the normalizer makes '%.60s' and '%.60s' the same",
                           t->added[s[i - 1].value].content, t->added[s[i].value].content);
        note_start(f, &s[i]);
    }
    return spm_trie_build(&f->trie, s, n, e);
}

int hft_make_finders(struct hft *t, struct err *e)
{
    struct spm_string *before = malloc((t->n_added + 1) * sizeof *before),
                      *after = malloc((t->n_added + 1) * sizeof *after);
    struct buf *text = calloc(t->n_added + 1, sizeof *text);
    size_t n_before = 0, n_after = 0;
    int rc = before && after && text ? 0 : err_set(e, E_SYS, "out of memory for added tokens");

    for (size_t i = 0; i < t->n_added && rc == 0; i++) {
        const struct hft_added *a = &t->added[i];

        if (!a->normalized) {
            before[n_before++] = (struct spm_string){ a->content, a->n, (int32_t)i };
            continue;
        }
        if ((rc = hft_normalize(t, a->content, a->n, &text[i], e)) < 0)
            break;
        if (text[i].len == 0)
            rc = err_set(e, E_DATA, "field 'added_tokens': '%.60s' becomes nothing", a->content);
        after[n_after++] = (struct spm_string){ text[i].p, (uint32_t)text[i].len, (int32_t)i };
    }
    if (rc == 0 && (rc = make_finder(t, &t->before, before, n_before, e)) == 0)
        rc = make_finder(t, &t->after, after, n_after, e);
    for (size_t i = 0; text && i < t->n_added; i++)
        buf_free(&text[i]);
    free(text);
    free(before);
    free(after);
    return rc;
}

void hft_finder_free(struct hft_finder *f)
{
    free(f->trie.units);
    free(f->pair);
}
