/* formats/tokenizer/spm_unigram.c - the best path through the pieces of a unigram model.
 *
 * A unigram model gives each piece a score, the logarithm of its probability, and a text
 * the pieces whose sum of scores is highest. path[i] is the best way to cut the first i
 * bytes; from each character every piece that begins there is offered to the place where it
 * ends. At the text's end the best way is known, and is followed back. */
#include "formats/tokenizer/spm_impl.h"

#include <stdlib.h>
#include <string.h>

/* How much worse than the worst piece an unknown character is. */
#define UNKNOWN_PENALTY 10.0f

struct node { /* the best way to have cut all text before this byte */
    float score;
    int32_t id, start; /* of its last piece; start -1: none yet */
};

/* The library adds a double and a float for a user-defined symbol or a piece, compares the sum
 * as a double with the float it kept, and keeps the sum as a float; for an unknown character
 * it adds two floats. Which of two paths wins depends on it. */
static void offer(struct node *to, double score, int32_t id, int32_t start)
{
    if (to->start != -1 && !(score > to->score))
        return;
    *to = (struct node){ (float)score, id, start };
}

/* Offers all pieces that begin at start, and unk for the one character where no piece is
 * it, so that there is always a way on. path[start] must be final: all ways to it came from
 * before. */
static void from_here(const struct spm *m, struct node *path, const char *text, int32_t n,
                      int32_t start)
{
    int32_t n_char = (int32_t)char_bytes((unsigned char)text[start]);
    float here = path[start].score;
    bool single = false;
    int64_t node = 0;

    if (n_char > n - start)
        n_char = n - start;
    for (int32_t at = start; at < n;) {
        int32_t id;
        double score;

        if ((node = spm_trie_step(&m->trie, node, (unsigned char)text[at++])) < 0)
            break;
        if ((id = m->trie.units[node].value) < 0 || m->kind[id] == PIECE_UNUSED)
            continue;
        /* A user-defined symbol of n bytes counts as n pieces of the best score, less 0.1.
         * The type of each term is the library's, see offer. */
        score = m->kind[id] == PIECE_USER ? (float)(at - start) * m->max_score - 0.1
                                          : (double)m->score[id];
        offer(&path[at], score + (double)here, id, start);
        single |= at - start == n_char;
    }
    if (!single) {
        float unknown = m->min_score - UNKNOWN_PENALTY;
        float score = unknown + here;

        offer(&path[start + n_char], (double)score, m->unk, start);
    }
}

int spm_unigram_encode(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                       struct spm_ids *out, struct err *e)
{
    struct node *path = c->path;
    int64_t first = out->len;
    int32_t at = (int32_t)n, before;
    int rc = 0;

    if ((n + 1) * sizeof *path > c->path_cap) {
        size_t cap = n + n / 4 + 1024;

        if (!(path = realloc(c->path, cap * sizeof *path)))
            return err_set(e, E_SYS, "out of memory for a text of %zu bytes", n);
        c->path = path;
        c->path_cap = cap * sizeof *path;
    }
    for (size_t i = 0; i <= n; i++)
        path[i] = (struct node){ 0, -1, -1 };
    for (int32_t i = 0; i < (int32_t)n;) {
        from_here(m, path, text, (int32_t)n, i);
        i += (int32_t)char_bytes((unsigned char)text[i]);
    }
    for (before = -1; at >= 0;) { /* start becomes the end of the piece that starts here */
        int32_t start = at > 0 ? path[at].start : -1;

        path[at].start = before;
        before = at;
        at = start;
    }
    for (at = 0; at < (int32_t)n && rc == 0; at = before) {
        before = path[at].start;
        rc = spm_put(m, path[before].id, text + at, (size_t)(before - at), first, out, e);
    }
    return rc;
}
