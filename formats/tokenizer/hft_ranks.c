/* formats/tokenizer/hft_ranks.c - rank files of tiktoken: lines of base64 and a rank. Two neighbours merge
 * where together they have a rank, the lowest first; a word that has one is not taken apart. */
#include "formats/tokenizer/hft_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of Qwen 3.5 and 3.6: marks are letters. */
#define QWEN35 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}" \
    "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What such a file does not say, by how many ranks it has. special: ids behind the ranks. */
static const struct known {
    int32_t ranks;
    const char *pattern; /* the name of one of words.h, or a regular expression */
    int32_t special, bos, eos; /* -1 for none */
    bool nfc; /* its own program (Qwen: tokenization_qwen.py) normalises, and so does its tokenizer.json */
} known[] = {
    { 128000, "Llama 3", 256, 128000, 128001, false }, /* <|begin_of_text|>, <|end_of_text|> */
    { 151643, "Qwen 2", 208, -1, 151643, true },       /* <|endoftext|> */
    { 248044, QWEN35, 33, -1, 248044, true },
    { 100256, "cl100k", 21, -1, 100257, false },
    { 199998, "o200k", 21, -1, 199999, false },
    { 50256, "GPT-2", 1, -1, 50256, false },
};

struct rank {
    size_t at;
    uint32_t n;
};
struct ranks {
    struct buf text; /* the tokens' bytes, in order */
    struct rank *v;
    size_t n, cap;
};

static int digit64(unsigned char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Appends what n characters of base64 say. */
static bool decode64(const char *p, size_t n, struct buf *out)
{
    size_t ends = n > 0 && p[n - 1] == '=' ? n > 1 && p[n - 2] == '=' ? 2 : 1 : 0;

    if (n == 0 || n % 4)
        return false;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t v = 0;

        for (size_t k = 0; k < 4; k++) {
            int d = i + k >= n - ends ? 0 : digit64((unsigned char)p[i + k]);

            if (d < 0)
                return false;
            v = v << 6 | (uint32_t)d;
        }
        for (size_t k = 0; k < 3 - (i + 4 == n ? ends : 0); k++)
            out->p[out->len++] = (char)(v >> (16 - 8 * k));
    }
    return true;
}

/* The ranks count up from 0, one a line. */
static int read_lines(struct ranks *r, const char *bytes, size_t n, struct err *e)
{
    int rc = buf_reserve(&r->text, n, e);

    for (size_t at = 0; at < n && rc == 0;) {
        const char *p = bytes + at, *end = memchr(p, '\n', n - at), *space;
        size_t len = end ? (size_t)(end - p) : n - at, from = r->text.len, rank = 0, i;

        at += len + 1;
        if (len > 0 && p[len - 1] == '\r')
            len--;
        if (len == 0)
            continue;
        if (!(space = memchr(p, ' ', len)) ||
            (size_t)(space - p) > 2 * SPMODEL_MAX_PIECE_BYTES ||
            !decode64(p, (size_t)(space - p), &r->text) || r->text.len == from)
            return hft_bad(bytes, p, e, "line %zu is not base64 and a rank", r->n + 1);
        for (i = (size_t)(space - p) + 1; i < len && p[i] >= '0' && p[i] <= '9' && rank < 1 << 24; i++)
            rank = rank * 10 + (size_t)(p[i] - '0');
        if (i < len || rank != r->n || r->n >= SPMODEL_MAX_PIECES)
            return hft_bad(bytes, space, e, "line %zu: the rank must be %zu", r->n + 1, r->n);
        if ((rc = array_grow(&r->v, &r->cap, r->n, sizeof *r->v, 4096, "ranks", e)) == 0)
            r->v[r->n++] = (struct rank){ from, (uint32_t)(r->text.len - from) };
    }
    return rc;
}

/* Tokens are kept in the alphabet of bytes, as a tokenizer.json writes them. */
static int add_tokens(struct hft *t, const struct ranks *r, const struct known *k, struct err *e)
{
    int rc = spm_new(&t->v, 2 * r->text.len + r->n + 32 * (size_t)k->special, e);
    struct buf b = { 0 };
    char name[32];

    for (size_t i = 0; i < r->n && rc == 0; i++) {
        const char *p = r->text.p + r->v[i].at;

        b.len = 0;
        if ((rc = buf_reserve(&b, 2 * (size_t)r->v[i].n, e)) < 0)
            break;
        for (uint32_t x = 0; x < r->v[i].n; x++) {
            memcpy(b.p + b.len, t->alphabet[(unsigned char)p[x]].p, 2);
            b.len += (size_t)t->alphabet[(unsigned char)p[x]].n;
        }
        rc = spm_add(t->v, b.p, b.len, PIECE_NORMAL, e);
    }
    for (int32_t i = 0; i < k->special && rc == 0; i++) {
        int len = snprintf(name, sizeof name, "<|special_%d|>", (int)r->n + i);

        rc = spm_add(t->v, name, (size_t)len, PIECE_CONTROL, e);
    }
    buf_free(&b);
    if (rc == 0)
        rc = hft_map_make(&t->map, r->n, e);
    for (size_t i = 0; i < r->n && rc == 0; i++) {
        const struct spm_string *s = &t->v->piece[i];

        if ((rc = hft_map_add(&t->map, s->p, s->n, (int32_t)i, e)) == E_NO)
            rc = err_set(e, E_DATA, "the token of rank %zu is there twice", i);
        if (s->n > t->longest)
            t->longest = s->n;
    }
    return rc;
}

/* All ways to make each token of two others, by its rank. steps bounds the time. */
static int add_merges(struct hft *t, size_t n, struct spm_merges *m, struct err *e)
{
    size_t cap = 0, steps = 0;
    int rc;

    for (size_t id = 0; id < n; id++) {
        const struct spm_string *s = &t->v->piece[id];

        for (size_t cut = 1; cut < s->n; cut++) {
            int32_t l, r;

            if (((unsigned char)s->p[cut] & 0xC0) == 0x80)
                continue;
            steps += s->n;
            if ((l = hft_map_find(&t->map, s->p, cut)) < 0 ||
                (r = hft_map_find(&t->map, s->p + cut, s->n - cut)) < 0)
                continue;
            if ((rc = hft_add_merge(m, &cap, (struct spm_merge){ (uint32_t)l, (uint32_t)r,
                                                                 (uint32_t)id }, e)) < 0)
                return rc;
        }
        if (steps > (size_t)1 << 28)
            return err_set(e, E_DATA, "the tokens are too long to be merged (rank %zu)", id);
    }
    return 0;
}

/* One of words.h, or as the steps of a tokenizer.json would have it. */
static int set_pattern(struct hft *t, const char *pattern, struct err *e)
{
    struct hft_step *s = &t->cut[0];

    if (!strchr(pattern, '|')) {
        t->words = words_named(pattern);
        t->way = WAY_WORDS;
        return 0;
    }
    t->way = WAY_STEPS;
    t->n_cut = 2;
    *s = (struct hft_step){ .kind = CUT_PATTERN, .behaviour = ISOLATED, .regex = strdup(pattern) };
    t->cut[1] = (struct hft_step){ .kind = CUT_BYTES };
    return s->regex ? pattern_make(&s->pattern, pattern, strlen(pattern), NULL, e)
                    : err_set(e, E_SYS, "out of memory");
}

static int read_all(struct hft *t, struct ranks *r, const char *bytes, size_t n, struct err *e)
{
    const struct known *k = known, *end = known + sizeof known / sizeof *known;
    struct spm_merges m = { 0 };
    int rc = n > HFT_MAX_BYTES ? err_set(e, E_DATA, "%zu bytes, at most %zu", n, HFT_MAX_BYTES)
                               : unicode_open(e);

    if (rc < 0 || (rc = read_lines(r, bytes, n, e)) < 0)
        return rc;
    while (k < end && (size_t)k->ranks != r->n)
        k++;
    if (k == end) {
        err_set(e, E_DATA, "%zu ranks: of no tokenizer whose pattern is known (Llama 3, Qwen, "
                "cl100k, o200k, GPT-2)", r->n);
        return err_hint(e, "use the tokenizer.json of that model");
    }
    if ((rc = set_pattern(t, strcmp(k->pattern, "cl100k") == 0 ? "Llama 3" : k->pattern, e)) < 0)
        return rc;
    if (k->nfc)
        t->norm[t->n_norm++] = (struct hft_step){ .kind = NORM_FORM, .form = UNICODE_NFC };
    t->nfc_only = k->nfc;
    t->bytes = t->ignore_merges = t->decode.bytes = true;
    t->bos = k->bos;
    t->eos = k->eos;
    t->adds_bos = k->bos >= 0;
    hft_make_bytes(t); /* the alphabet */
    if ((rc = add_tokens(t, r, k, e)) == 0 && (rc = add_merges(t, r->n, &m, e)) == 0 &&
        (rc = spm_bpe_merges(t->v, &m, e)) == 0) {
        hft_make_bytes(t); /* and the symbols */
        if ((rc = hft_make_pairs(t, e)) == 0)
            rc = hft_make_raw(t, e);
    }
    free(m.v);
    return rc;
}

int hft_parse_ranks(struct hft **out, const void *bytes, size_t n, const char *name, struct err *e)
{
    struct ranks r = { 0 };
    struct hft *t = hft_new(e);
    int rc = t ? read_all(t, &r, bytes, n, e) : e ? e->code : E_SYS;

    buf_free(&r.text);
    free(r.v);
    return hft_finish(out, t, rc, name, e);
}
