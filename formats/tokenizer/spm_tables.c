/* formats/tokenizer/spm_tables.c - what a BPE vocabulary says: symbols, merges, neighbours.
 *
 * SentencePiece stores no list of merges. Two symbols merge if what they make together is a
 * piece, and the pieces' scores are the order. So all merges are found here, once a model:
 * the piece "the" can be made of "t" + "he" and of "th" + "e", where those are pieces, and
 * each way becomes a pair in the table, with the rank of "the". All tables are bounded, in
 * size and in steps, as a model may come from anyone. */
#include "formats/tokenizer/spm_impl.h"

#include <stdlib.h>
#include <string.h>

#define MAX_EXTRA ((uint32_t)2 << 20)   /* Unicode has 1,112,064 characters */
#define MAX_PAIRS ((size_t)8 << 20)     /* Llama 2: 61,249; Gemma 2: 514,906 */
#define MAX_STEPS ((uint64_t)1 << 27)   /* bytes of pieces looked up for the pairs */
#define MAX_PROBES 4096                 /* of a table: more is no vocabulary but an attack */

/* Pieces that text is cut into; the others (control, byte, unknown) are never merged. */
static bool is_text(const struct spm *m, int64_t id)
{
    return m->kind[id] == PIECE_NORMAL || m->kind[id] == PIECE_USER ||
           m->kind[id] == PIECE_UNUSED;
}

/* Bytes of the character at p, cut short at the end of a piece that is not whole UTF-8. */
static size_t clipped(const char *p, size_t cap)
{
    size_t n = char_bytes((unsigned char)*p);

    return n < cap ? n : cap;
}

/* A character as a number: its bytes and how many. */
static uint64_t char_key(const char *p, size_t n)
{
    uint32_t v = 0;

    memcpy(&v, p, n);
    return (uint64_t)n << 32 | v;
}

/* The slot of a character in bpe.chars: its own or the free one where it belongs. */
static uint32_t *char_slot(const struct spm_bpe *b, const char *p, size_t n, int *probes)
{
    uint64_t key = char_key(p, n);
    size_t mask = ((size_t)1 << (64 - b->char_shift)) - 1;
    size_t i = spm_mix(key >> 32, key & UINT32_MAX) >> b->char_shift;

    for (*probes = 0; b->chars[i] != UINT32_MAX; i = (i + 1) & mask, ++*probes) {
        const struct spm_string *x = &b->extra[b->chars[i]];

        if (x->n == n && memcmp(x->p, p, n) == 0)
            break;
    }
    return &b->chars[i];
}

uint32_t spm_bpe_char(const struct spm *m, const char *p, size_t n)
{
    int32_t id = spm_trie_find(&m->trie, p, n);
    uint32_t extra;
    int probes;

    if (id >= 0)
        return (uint32_t)id;
    extra = *char_slot(&m->bpe, p, n, &probes);
    return extra == UINT32_MAX ? SYM_NONE : (uint32_t)m->vocab + extra;
}

/* Doubles the table of characters (1024 at first, always at most half full) and puts all in
 * again. */
static int grow_chars(struct spm_bpe *b, struct err *e)
{
    uint32_t *old = b->chars, *chars;
    size_t n = b->chars ? (size_t)2 << (64 - b->char_shift) : 1024;
    int probes;

    if (!(chars = malloc(n * sizeof *chars)))
        return err_set(e, E_SYS, "out of memory for %zu characters", n);
    memset(chars, 0xFF, n * sizeof *chars);
    b->chars = chars;
    b->char_shift = 64 - __builtin_ctzll(n);
    for (uint32_t i = 0; i < b->n_extra; i++)
        *char_slot(b, b->extra[i].p, b->extra[i].n, &probes) = i;
    free(old);
    return 0;
}

/* Makes sure that the character is a symbol. p stays valid as long as the model. */
static int intern(struct spm *m, const char *p, size_t n, struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    uint32_t *slot, cap;
    int probes, rc;

    if (spm_bpe_char(m, p, n) != SYM_NONE)
        return 0;
    if (b->n_extra == b->extra_cap) {
        struct spm_string *x;

        if ((cap = b->extra_cap ? 2 * b->extra_cap : 256) > MAX_EXTRA)
            return err_set(e, E_DATA, "the pieces have more than %u characters", MAX_EXTRA);
        if (!(x = realloc(b->extra, cap * sizeof *x)))
            return err_set(e, E_SYS, "out of memory for %u characters", cap);
        b->extra = x;
        b->extra_cap = cap;
        if (2 * (size_t)cap > (size_t)1 << (64 - b->char_shift) && (rc = grow_chars(b, e)) < 0)
            return rc;
    }
    slot = char_slot(b, p, n, &probes);
    if (probes > MAX_PROBES)
        return err_set(e, E_DATA, "the characters of the pieces collide: the model is malicious");
    b->extra[b->n_extra] = (struct spm_string){ p, (uint32_t)n, spm_find(m, p, n) };
    *slot = b->n_extra++;
    return 0;
}

/* Every character of a piece is a symbol, also where it is no piece by itself; the mark and
 * U+FFFD always are. A reserved piece of one character gives its id to that character. */
static int find_symbols(struct spm *m, struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    int rc = grow_chars(b, e);

    if (rc == 0 && (rc = intern(m, SPACE_MARK, 3, e)) == 0)
        rc = intern(m, REPLACEMENT, 3, e);
    for (int64_t id = 0; id < m->vocab && rc == 0; id++) {
        const struct spm_string *s = &m->piece[id];

        if (is_text(m, id)) {
            for (size_t i = 0, n; i < s->n && rc == 0; i += n) {
                n = clipped(s->p + i, s->n - i);
                rc = intern(m, s->p + i, n, e);
            }
        } else if (s->n == clipped(s->p, s->n)) {
            rc = intern(m, s->p, s->n, e);
        }
    }
    if (rc < 0)
        return rc;
    /* An ASCII character that is in no piece stays SYM_NONE. */
    for (int c = 0; c < 128; c++)
        b->ascii[c] = spm_bpe_char(m, (char[1]){ (char)c }, 1);
    b->space = spm_bpe_char(m, SPACE_MARK, 3);
    b->replacement = spm_bpe_char(m, REPLACEMENT, 3);
    return 0;
}

static int by_score(const void *a, const void *b, void *ctx)
{
    const float *score = ctx;
    float x = score[*(const uint32_t *)a], y = score[*(const uint32_t *)b];

    return x > y ? -1 : x < y;
}

/* 0 for the best score, the same for equal ones; the caller frees. */
static int32_t *find_ranks(const struct spm *m)
{
    size_t n = (size_t)m->vocab;
    uint32_t *order = malloc(n * sizeof *order);
    int32_t *rank = malloc(n * sizeof *rank), r = 0;

    if (order && rank) {
        for (size_t i = 0; i < n; i++)
            order[i] = (uint32_t)i;
        qsort_r(order, n, sizeof *order, by_score, m->score);
        for (size_t i = 0; i < n; i++) {
            if (i > 0 && m->score[order[i]] != m->score[order[i - 1]])
                r++;
            rank[order[i]] = r;
        }
    } else {
        free(rank);
        rank = NULL;
    }
    free(order);
    return rank;
}

/* Puts a pair into the table, over the same pair if it is there; how many slots were looked at. */
static size_t insert(struct spm_bpe *b, struct spm_pair p)
{
    size_t mask = ((size_t)1 << (64 - b->pair_shift)) - 1, probes = 0;
    size_t i = spm_mix(p.left, p.right) >> b->pair_shift;

    for (; b->pairs[i].left != SYM_NONE; i = (i + 1) & mask, probes++)
        if (b->pairs[i].left == p.left && b->pairs[i].right == p.right) {
            b->n_pairs--; /* the caller counts it again */
            break;
        }
    b->pairs[i] = p;
    return probes;
}

static int grow_pairs(struct spm_bpe *b, struct err *e)
{
    struct spm_pair *old = b->pairs;
    size_t old_n = old ? (size_t)1 << (64 - b->pair_shift) : 0, n = old ? 2 * old_n : 1024;

    if (n > 2 * MAX_PAIRS) /* half of the slots are used at most */
        return err_set(e, E_DATA, "the pieces can be made in more than %zu ways", MAX_PAIRS);
    if (!(b->pairs = malloc(n * sizeof *b->pairs))) {
        b->pairs = old;
        return err_set(e, E_SYS, "out of memory for %zu merges", n);
    }
    memset(b->pairs, 0xFF, n * sizeof *b->pairs);
    b->pair_shift = 64 - __builtin_ctzll(n);
    for (size_t i = 0; i < old_n; i++)
        if (old[i].left != SYM_NONE)
            insert(b, old[i]); /* each is there once */
    free(old);
    return 0;
}

/* An unused piece that two pairs make is split in a way that depends on the text around it, so text may
 * then not be cut: not local. */
static void note_split(struct spm *m, uint32_t l, uint32_t r, uint32_t id)
{
    struct spm_bpe *b = &m->bpe;

    if (!b->split || m->kind[id] != PIECE_UNUSED)
        return;
    if (b->split[id][0] != SYM_NONE)
        b->local = false;
    b->split[id][0] = l;
    b->split[id][1] = r;
}

static int add_pair(struct spm *m, uint32_t l, uint32_t r, uint32_t id, int32_t rank,
                    struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    int rc;

    if (2 * (b->n_pairs + 1) > (size_t)1 << (64 - b->pair_shift) && (rc = grow_pairs(b, e)) < 0)
        return rc;
    if (insert(b, (struct spm_pair){ l, r, id, rank }) > MAX_PROBES)
        return err_set(e, E_DATA, "the merges of the pieces collide: the model is malicious");
    b->n_pairs++;
    note_split(m, l, r, id);
    return 0;
}

/* All ways to make one piece of two symbols, and which characters stand side by side in it. */
static int split_piece(struct spm *m, uint32_t id, int32_t rank, uint64_t *steps, struct err *e)
{
    const struct spm_string *s = &m->piece[id];
    size_t n = clipped(s->p, s->n), next;
    uint32_t before = spm_bpe_char(m, s->p, n), left = before;
    int64_t node = 0;
    int rc = 0;

    /* node follows the trie over the bytes of left: its value is left's id, step by step. */
    for (size_t i = 0; i < n; i++)
        node = spm_trie_step(&m->trie, node, (unsigned char)s->p[i]);
    for (size_t at = n; at < s->n && rc == 0; at += next) {
        uint32_t here, right;
        uint64_t h;

        next = clipped(s->p + at, s->n - at);
        here = spm_bpe_char(m, s->p + at, next);
        /* See spm_bpe_next_to: 2^20 bits, 64 a word. */
        h = spm_mix(before, here) >> 44;
        m->bpe.next_to[h >> 6] |= (uint64_t)1 << (h & 63);
        /* left is the part before at, right is the part from at on. A single character need
         * not be a piece; a longer part must be one. */
        if (left != SYM_NONE) {
            right = at + next == s->n ? here
                                      : (uint32_t)spm_trie_find(&m->trie, s->p + at, s->n - at);
            *steps += s->n - at;
            if (right != SYM_NONE)
                rc = add_pair(m, left, right, id, rank, e);
        }
        for (size_t i = 0; i < next; i++)
            node = spm_trie_step(&m->trie, node, (unsigned char)s->p[at + i]);
        left = (uint32_t)m->trie.units[node].value; /* -1 is SYM_NONE */
        before = here;
    }
    return rc;
}

/* Which characters stand side by side in a piece, for a model that lists its merges. */
static void note_neighbours(struct spm *m, const struct spm_string *s)
{
    size_t n = clipped(s->p, s->n), next;
    uint32_t before = spm_bpe_char(m, s->p, n), here;

    for (size_t at = n; at < s->n; at += next, before = here) {
        uint64_t h;

        next = clipped(s->p + at, s->n - at);
        here = spm_bpe_char(m, s->p + at, next);
        h = spm_mix(before, here) >> 44;
        m->bpe.next_to[h >> 6] |= (uint64_t)1 << (h & 63);
    }
}

/* Into listed, over the same pair if it is there. */
static int add_listed(struct spm *m, const struct spm_merge *x, uint64_t rank, size_t *probes,
                      struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    uint64_t key = x->left | (uint64_t)x->right << LISTED_SYMBOL;
    size_t i = spm_listed_slot(b, key);

    for (; b->listed[i] != UINT64_MAX && (b->listed[i] & LISTED_KEY) != key; ++*probes)
        i = i + 1 < b->n_listed ? i + 1 : 0;
    b->n_pairs += b->listed[i] == UINT64_MAX;
    b->listed[i] = key | rank << 2 * LISTED_SYMBOL;
    b->makes[rank] = x->id;
    note_split(m, x->left, x->right, x->id);
    if (*probes > 64 * (size_t)rank + MAX_PROBES) /* far more tries than pairs */
        return err_set(e, E_DATA, "the merges of the pieces collide: the model is malicious");
    return 0;
}

/* The merges that a file lists; of two for one pair the later counts. */
static int take_merges(struct spm *m, const struct spm_merges *list, struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    /* The highest number of a symbol and of a rank would be a free slot. */
    bool fits = m->vocab + b->n_extra < 1 << LISTED_SYMBOL && list->n < 1 << (64 - 2 * LISTED_SYMBOL);
    size_t probes = 0;
    int rc = 0;

    if (fits) {
        b->n_listed = list->n + list->n / 2 + 16;
        b->listed = malloc(b->n_listed * sizeof *b->listed);
        b->makes = malloc((list->n + 1) * sizeof *b->makes);
        if (!b->listed || !b->makes)
            return err_set(e, E_SYS, "out of memory for %zu merges", list->n);
        memset(b->listed, 0xFF, b->n_listed * sizeof *b->listed);
    } else {
        rc = grow_pairs(b, e);
    }
    for (size_t i = 0; i < list->n && rc == 0; i++)
        rc = fits ? add_listed(m, &list->v[i], i, &probes, e)
                  : add_pair(m, list->v[i].left, list->v[i].right, list->v[i].id, (int32_t)i, e);
    for (int64_t id = 0; b->next_to && id < m->vocab; id++)
        if (is_text(m, id))
            note_neighbours(m, &m->piece[id]);
    return rc;
}

/* The pairs of all pieces. steps bounds the time, which grows with the square of a piece's
 * length. */
static int find_pairs(struct spm *m, struct err *e)
{
    int32_t *rank = find_ranks(m);
    uint64_t steps = 0;
    int rc = rank ? 0 : err_set(e, E_SYS, "out of memory for %lld pieces", (long long)m->vocab);

    if (rc == 0)
        rc = grow_pairs(&m->bpe, e);
    for (int64_t id = 0; id < m->vocab && rc == 0; id++) {
        if (is_text(m, id))
            rc = split_piece(m, (uint32_t)id, rank[id], &steps, e);
        if (steps > MAX_STEPS)
            rc = err_set(e, E_DATA, "the pieces are too long to be merged (piece %lld)",
                         (long long)id);
    }
    free(rank);
    return rc;
}

/* Bigrams of ASCII are the bulk of what is looked up: a table of their own, in the first cache.
 * Where raw text is read, a space stands for its mark. */
static void fill_ascii_pairs(const struct spm *m)
{
    const struct spm_bpe *b = &m->bpe;

    for (unsigned x = 0; x < 128; x++)
        for (unsigned y = 0; y < 128; y++) {
            uint32_t l = x == ' ' && b->raw ? b->space : b->ascii[x], id;
            uint32_t r = y == ' ' && b->raw ? b->space : b->ascii[y];
            int32_t rank = spm_small_pair(b, l, r, &id);

            b->ascii_pair[x][y] = rank == RANK_NONE ? UINT32_MAX : (uint32_t)rank | id << 16;
        }
}

size_t spm_bpe_slots(const struct spm_bpe *b)
{
    return b->small ? b->n_small : b->listed ? b->n_listed
           : b->pairs ? (size_t)1 << (64 - b->pair_shift) : 0;
}

bool spm_bpe_slot(const struct spm_bpe *b, size_t i, struct spm_pair *p)
{
    uint64_t x;

    if (b->small) {
        x = b->small[i];
        *p = (struct spm_pair){ (uint32_t)(x & UINT16_MAX), (uint32_t)(x >> 16 & UINT16_MAX),
                                (uint32_t)(x >> 48), (int32_t)(x >> 32 & UINT16_MAX) };
        return x != UINT64_MAX;
    }
    if (b->listed) {
        const uint32_t symbol = (1u << LISTED_SYMBOL) - 1;

        if ((x = b->listed[i]) == UINT64_MAX)
            return false;
        *p = (struct spm_pair){ (uint32_t)x & symbol, (uint32_t)(x >> LISTED_SYMBOL) & symbol,
                                b->makes[x >> 2 * LISTED_SYMBOL], (int32_t)(x >> 2 * LISTED_SYMBOL) };
        return true;
    }
    *p = b->pairs[i];
    return p->left != SYM_NONE;
}

/* Packs the pairs into 8 bytes each, two thirds of the slots used, where ids, characters
 * and ranks have 16 bits, as with Llama 2's 32,000 pieces. Twice as many fit a cache. The
 * wide table is then given up. Does nothing and succeeds where it cannot be done. */
static int make_small(struct spm *m, size_t ranks, struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    struct spm_bpe all = *b;
    size_t slots = spm_bpe_slots(b), probes = 0;

    if (!b->local || m->vocab + b->n_extra > UINT16_MAX || ranks > UINT16_MAX)
        return 0;
    b->n_small = b->n_pairs + b->n_pairs / 2 + 16;
    b->small = malloc(b->n_small * sizeof *b->small);
    b->maybe = calloc((size_t)1 << (MAYBE_BITS - 6), sizeof *b->maybe);
    b->ascii_pair = malloc(sizeof(uint32_t[128][128]));
    if (!b->small || !b->maybe || !b->ascii_pair)
        return err_set(e, E_SYS, "out of memory for %zu merges", b->n_pairs);
    memset(b->small, 0xFF, b->n_small * sizeof *b->small);
    for (size_t k = 0; k < slots; k++) {
        struct spm_pair p;
        uint64_t h;
        size_t i;

        if (!spm_bpe_slot(&all, k, &p))
            continue;
        h = spm_small_hash(p.left | p.right << 16);
        /* The hash's top 18 bits name a bit: 12 the word, 6 the bit in it. */
        b->maybe[h >> (64 - MAYBE_BITS + 6)] |= UINT64_C(1) << (h >> (64 - MAYBE_BITS) & 63);
        for (i = spm_small_slot(b, h); b->small[i] != UINT64_MAX; probes++)
            i = i + 1 < b->n_small ? i + 1 : 0;
        b->small[i] = p.left | (uint64_t)p.right << 16 | (uint64_t)p.rank << 32 |
                      (uint64_t)p.id << 48;
        /* Far more tries than pairs mean that the model was made to be slow. */
        if (probes > 64 * b->n_pairs + MAX_PROBES)
            return err_set(e, E_DATA, "the merges of the pieces collide: the model is malicious");
    }
    if (b->next_to)
        fill_ascii_pairs(m);
    free(b->pairs);
    free(b->listed);
    free(b->makes);
    b->pairs = NULL;
    b->listed = NULL;
    b->makes = NULL;
    return 0;
}

/* The order matters: pairs need all symbols, cuts need to know whether the model is local,
 * which the pairs tell, and the small table needs raw, which the cuts tell. */
int spm_bpe_make(struct spm *m, const struct spm_merges *list, struct err *e)
{
    struct spm_bpe *b = &m->bpe;
    int rc;

    b->local = true;
    b->next_to = calloc(NEXT_TO_WORDS, sizeof *b->next_to);
    b->split = malloc((size_t)m->vocab * sizeof *b->split);
    b->own_id = calloc((size_t)m->vocab, 1);
    if (!b->next_to || !b->split || !b->own_id)
        return err_set(e, E_SYS, "out of memory for %lld pieces", (long long)m->vocab);
    memset(b->split, 0xFF, (size_t)m->vocab * sizeof *b->split);
    for (int64_t id = 0; id < m->vocab; id++)
        b->own_id[id] = m->piece[id].value == id &&
                        (m->kind[id] == PIECE_NORMAL || m->kind[id] == PIECE_USER);
    if ((rc = find_symbols(m, e)) < 0 ||
        (rc = list ? take_merges(m, list, e) : find_pairs(m, e)) < 0)
        return rc;
    if ((rc = spm_bpe_cuts(m, e)) < 0)
        return rc;
    return make_small(m, list ? list->n : (size_t)m->vocab, e); /* a rank is less than that */
}

int spm_bpe_merges(struct spm *m, const struct spm_merges *list, struct err *e)
{
    int rc;

    m->bpe.local = true;
    rc = take_merges(m, list, e);
    return rc < 0 ? rc : make_small(m, list->n, e);
}

void spm_bpe_free(struct spm_bpe *b)
{
    free(b->extra);
    free(b->pairs);
    free(b->listed);
    free(b->makes);
    free(b->small);
    free(b->maybe);
    free(b->ascii_pair);
    free(b->chars);
    free(b->next_to);
    free(b->split);
    free(b->own_id);
    free(b->cut);
}
