/* formats/tokenizer/hft_unigram.c - the Unigram model of a tokenizer.json: the best path through its tokens.
 *
 * As spm_unigram.c, which is libsentencepiece's, but as tokenizers has it: sums of doubles, and no tokens
 * by kinds. path[i] is the best way to cut the first i bytes; each token that begins at a character is
 * offered to the place where it ends. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>

/* How much worse than the worst token an unknown character is. */
#define UNKNOWN_PENALTY 10.0

struct node { /* the best way to have cut all text before this byte */
    double score;
    int32_t id, start; /* of its last token; start -1: none yet */
};

static int by_text(const void *a, const void *b)
{
    const struct spm_string *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

    return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

int hft_make_unigram(struct hft *t, size_t n, struct err *e)
{
    struct spm_string *s = malloc(n * sizeof *s);
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory for %zu tokens", n);
    t->unknown = t->score[0];
    for (size_t i = 0; i < n; i++) {
        s[i] = (struct spm_string){ t->v->piece[i].p, t->v->piece[i].n, (int32_t)i };
        t->unknown = t->score[i] < t->unknown ? t->score[i] : t->unknown;
    }
    t->unknown -= UNKNOWN_PENALTY;
    qsort(s, n, sizeof *s, by_text);
    rc = spm_trie_build(&t->tokens, s, n, e);
    free(s);
    return rc;
}

/* The first of two that are equal stays. */
static void offer(struct node *to, double score, int32_t id, size_t start)
{
    if (to->start < 0 || score > to->score)
        *to = (struct node){ score, id, (int32_t)start };
}

static int find_path(const struct hft *t, struct node *path, const char *p, size_t n, struct err *e)
{
    for (size_t i = 0; i <= n; i++)
        path[i] = (struct node){ 0, -1, -1 };
    for (size_t at = 0, used; at < n; at += used) {
        double here = path[at].score;
        bool single = false;
        int64_t node = 0;

        unicode_at(p + at, &used);
        for (size_t i = at; i < n; i++) {
            int32_t id;

            if ((node = spm_trie_step(&t->tokens, node, (unsigned char)p[i])) < 0)
                break;
            if ((id = t->tokens.units[node].value) < 0)
                continue;
            offer(&path[i + 1], t->score[id] + here, id, at);
            single |= i + 1 == at + used;
        }
        if (single)
            continue;
        if (t->unk < 0)
            return err_set(e, E_DATA, "'%.*s' is no token, and the tokenizer has none for what is unknown",
                           (int)used, p + at);
        offer(&path[at + used], t->unknown + here, t->unk, at);
    }
    return 0;
}

/* Text that is one token of the path, or several unknown ones: its id, its bytes' ids, or unknown. */
static void put_text(const struct hft *t, const char *p, size_t n, struct spm_ids *out)
{
    int32_t id = hft_map_find(&t->map, p, n);
    bool bytes = id < 0 && t->byte_fallback;

    for (size_t i = 0; i < n; i++)
        bytes = bytes && t->v->byte_id[(unsigned char)p[i]] >= 0;
    for (size_t i = 0; i < n && bytes; i++)
        out->p[out->len++] = t->v->byte_id[(unsigned char)p[i]];
    if (!bytes)
        out->p[out->len++] = id < 0 ? t->unk : id;
}

int hft_unigram(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
                struct spm_ids *out, struct err *e)
{
    struct node *path = c->path;
    int32_t ahead = -1;
    int rc;

    if ((n + 1) * sizeof *path > c->path_cap) {
        size_t bytes = (n + n / 4 + 1024) * sizeof *path;

        if (!(path = realloc(c->path, bytes)))
            return err_set(e, E_SYS, "out of memory for a text of %zu bytes", n);
        c->path = path;
        c->path_cap = bytes;
    }
    if ((rc = find_path(t, path, p, n, e)) < 0 || (rc = spm_ids_reserve(out, (int64_t)n, e)) < 0)
        return rc;
    /* Back from the end: each token's start is told where it ends; then each start is told the end. */
    for (int32_t at = (int32_t)n, start; at >= 0; ahead = at, at = start) {
        start = at > 0 ? path[at].start : -1;
        path[at].start = ahead;
    }
    for (size_t at = 0, end; at < n; at = end) {
        end = (size_t)path[at].start;
        if (path[end].id == t->unk)
            while (end < n && path[path[end].start].id == t->unk)
                end = (size_t)path[end].start;
        put_text(t, p + at, end - at, out);
    }
    return 0;
}
