/* formats/tokenizer/spm_bpe.c - merging: always the pair of the best score, the leftmost of equals.
 *
 * A run starts as one symbol a character. Each symbol knows its neighbours (a linked list, prev
 * and next) and the rank of the merge with its right neighbour; 0 is the best, RANK_NONE is no
 * merge. "hello", where "ll" has rank 5, "he" 9, "ell" 12:
 *
 *     h e l l o   ranks 9 - 5 - -   merge l l (5)
 *     h e ll o    ranks 9 12 - -    merge h e (9), which removes "ell"
 *     he ll o     no rank is left
 *
 * The least rank is found in a tree: minima of 16 ranks, minima of 16 of those, and so on, so
 * that a merge updates one path of a few levels however long the run is. At most SMALL symbols,
 * as in nearly all words, need no tree: merge_small searches them in registers.
 */
#include "formats/tokenizer/spm_impl.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

/* A run of more symbols than this takes a lock: at 24 bytes a symbol its buffers would be too much
 * in every thread at once. They are freed after it. */
#define GIANT ((size_t)1 << 20)
static pthread_mutex_t giants = PTHREAD_MUTEX_INITIALIZER;

#define FAN 16 /* ranks under one minimum */
#define MAX_LEVELS 8
#define NOT_ASCII 128
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The two searches of the tree, one each for AVX-512, AVX2 and plain C; all give the same. */
typedef int32_t min16_fn(const int32_t *p);             /* the least of 16 */
typedef unsigned first16_fn(const int32_t *p, int32_t v); /* the first that is v; one is */

/* The minima of each 16 ranks, of each 16 of those, up to a level of 16 at most. */
struct levels {
    int32_t *at[MAX_LEVELS];
    int n;
};

/* n up to whole blocks of 16, as the searches read them: 17 gives 32. */
static size_t up16(size_t n) { return (n + FAN - 1) / FAN * FAN; }

/* What there is of each symbol; rank last, which has its minima behind it. */
enum { ARRAYS = 6 };
static void arrays_of(struct spm_cache *c, void **array[ARRAYS])
{
    void **all[ARRAYS] = { (void **)&c->sym,  (void **)&c->pos,  (void **)&c->to,
                           (void **)&c->prev, (void **)&c->next, (void **)&c->rank };

    memcpy(array, all, sizeof all);
}

/* Makes room for n symbols in every array. Runs of over GIANT symbols wait for one another
 * at the lock, which is held until spm_merge_done; a run that grows further holds it already. On
 * failure what was enlarged stays usable, as sym_cap is set last. */
int spm_merge_room(struct spm_cache *c, size_t n, struct err *e)
{
    size_t cap = c->sym_cap ? c->sym_cap : 1024;
    bool begins = n > GIANT && c->sym_cap <= GIANT;
    void **array[ARRAYS];

    if (begins)
        pthread_mutex_lock(&giants);
    while (cap < n)
        cap *= 2;
    arrays_of(c, array);
    for (int k = 0; k < ARRAYS; k++) {
        /* Behind the ranks: minima of 16, of 256 and so on, 1/16 + 1/256 ... of cap in all,
         * which is less than cap / 8; each level is filled up to a whole block. */
        size_t items = k == ARRAYS - 1 ? cap + cap / 8 + MAX_LEVELS * FAN : cap;
        void *p = realloc(*array[k], items * 4);

        if (!p) {
            if (begins)
                pthread_mutex_unlock(&giants);
            return err_set(e, E_SYS, "out of memory for a fragment of %zu characters", n);
        }
        *array[k] = p;
    }
    c->sym_cap = cap;
    return 0;
}

void spm_merge_done(struct spm_cache *c)
{
    void **array[ARRAYS];

    if (c->sym_cap <= GIANT)
        return;
    arrays_of(c, array);
    for (int k = 0; k < ARRAYS; k++) {
        free(*array[k]);
        *array[k] = NULL;
    }
    c->sym_cap = 0;
    pthread_mutex_unlock(&giants);
}

/* A rank in this block of 16 has changed: brings the minima above it up to date, level by
 * level, until one stays as it was. */
ALWAYS_INLINE void raise(struct levels *v, int32_t block, min16_fn *min16)
{
    for (int k = 1; k < v->n; k++, block /= FAN) {
        int32_t least = min16(v->at[k - 1] + (ptrdiff_t)block * FAN);

        if (v->at[k][block] == least)
            return;
        v->at[k][block] = least;
    }
}

/* Builds the tree over n ranks. Example: 300 ranks are 19 blocks of 16; their 19 minima,
 * filled up to 32 with RANK_NONE, are 2 blocks, whose 2 minima are the last level. */
ALWAYS_INLINE struct levels make_levels(struct spm_cache *c, size_t n, min16_fn *min16)
{
    struct levels v = { { c->rank }, 1 };

    for (size_t i = n; i < up16(n); i++)
        c->rank[i] = RANK_NONE;
    for (; n > FAN; v.n++) {
        int32_t *below = v.at[v.n - 1], *at = below + up16(n);
        size_t blocks = up16(n) / FAN;

        for (size_t i = 0; i < up16(blocks); i++)
            at[i] = i < blocks ? min16(below + i * FAN) : RANK_NONE;
        v.at[v.n] = at;
        n = blocks;
    }
    return v;
}

/* Merges the n > 1 symbols of a run, each looked up with its next; those that remain are linked
 * by next from symbol 0. */
ALWAYS_INLINE void merge_run(const struct spm *m, struct spm_cache *c, int32_t n,
                             min16_fn *min16, first16_fn *first16)
{
    struct levels v;
    int32_t least;

    for (int32_t i = 0; i < n; i++) {
        c->prev[i] = i - 1;
        c->next[i] = i + 1;
    }
    c->rank[n - 1] = RANK_NONE; /* the last symbol has no next */
    v = make_levels(c, (size_t)n, min16);
    while ((least = min16(v.at[v.n - 1])) != RANK_NONE) {
        int32_t i = 0, right, after, before;

        /* Down the tree: of each block of 16 the first that is the least, so the leftmost
         * wins. */
        for (int k = v.n - 1; k >= 0; k--)
            i = i * FAN + (int32_t)first16(v.at[k] + (ptrdiff_t)i * FAN, least);
        /* before, i, right, after stand in a row; i and right become one symbol, at i. */
        right = c->next[i];
        after = c->next[right];
        before = c->prev[i];
        c->sym[i] = c->to[i];
        c->next[i] = after;
        /* right is gone, and the pairs on both sides of the new symbol are other ones now:
         * spm_merge_look sets their ranks. */
        c->rank[right] = c->rank[i] = RANK_NONE;
        if (before >= 0)
            spm_merge_look(m, c, before, c->sym[i]);
        if (after < n) {
            c->prev[after] = i;
            spm_merge_look(m, c, i, c->sym[after]);
        }
        /* The ranks at i, right and before have changed; blocks that they share are updated
         * once. */
        raise(&v, i / FAN, min16);
        if (right / FAN != i / FAN)
            raise(&v, right / FAN, min16);
        if (before >= 0 && before / FAN != i / FAN)
            raise(&v, before / FAN, min16);
    }
}

#define SMALL 16

/* The same for n <= SMALL symbols, all in registers and the nearest cache: what most words that
 * are not remembered need. c->next is set as by merge_run. */
static void merge_small(const struct spm *m, struct spm_cache *c, int32_t n)
{
    uint32_t key[SMALL]; /* rank, then place: the least is the leftmost */
    /* Bit i: symbol i still stands. Of n = 3: binary 111. */
    uint32_t alive = (1u << n) - 1;
    int32_t last = 0;

    for (int32_t i = 0; i < n - 1; i++)
        /* There are at most 2^22 pieces, so a rank leaves 4 bits for the place. */
        key[i] = c->rank[i] == RANK_NONE ? UINT32_MAX : (uint32_t)c->rank[i] << 4 | (uint32_t)i;
    key[n - 1] = UINT32_MAX;
    for (;;) {
        uint32_t least = key[0], i, right, after, before;

        for (int32_t k = 1; k < n; k++)
            least = key[k] < least ? key[k] : least;
        if (least == UINT32_MAX)
            break;
        i = least & 15;
        /* The next symbol alive: 2u << i, less 1, has the bits 0 to i, so they are cleared
         * before the lowest one is looked for. Bits below i alone give the one before, by
         * the highest. */
        right = (uint32_t)__builtin_ctz(alive & ~((2u << i) - 1));
        alive &= ~(1u << right);
        c->sym[i] = c->to[i];
        key[i] = key[right] = UINT32_MAX;
        if ((before = alive & ((1u << i) - 1))) {
            before = 31u - (uint32_t)__builtin_clz(before);
            spm_merge_look(m, c, (int32_t)before, c->sym[i]);
            key[before] = c->rank[before] == RANK_NONE
                              ? UINT32_MAX : (uint32_t)c->rank[before] << 4 | before;
        }
        if ((after = alive & ~((2u << i) - 1))) {
            spm_merge_look(m, c, (int32_t)i, c->sym[__builtin_ctz(after)]);
            if (c->rank[i] != RANK_NONE)
                key[i] = (uint32_t)c->rank[i] << 4 | i;
        }
    }
    /* Links those that still stand, as merge_run leaves them: bit 0 always does. */
    for (alive &= alive - 1; alive; alive &= alive - 1)
        last = c->next[last] = __builtin_ctz(alive);
    c->next[last] = n;
}

static int32_t min16_plain(const int32_t *p)
{
    int32_t v = p[0];

    for (int i = 1; i < FAN; i++)
        v = p[i] < v ? p[i] : v;
    return v;
}
static unsigned first16_plain(const int32_t *p, int32_t v)
{
    unsigned i = 0;

    while (i < FAN - 1 && p[i] != v)
        i++;
    return i;
}
static void merge_plain(const struct spm *m, struct spm_cache *c, int32_t n)
{
    merge_run(m, c, n, min16_plain, first16_plain);
}

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt")))
#define AVX512 __attribute__((target("avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512vl,avx512dq")))

AVX2 static inline int32_t min16_avx2(const int32_t *p)
{
    __m256i v = _mm256_min_epi32(_mm256_loadu_si256((const __m256i *)p),
                                 _mm256_loadu_si256((const __m256i *)(p + 8)));
    __m128i x = _mm_min_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    /* Of 16 ranks 4 are left; 0x4E swaps their halves, then 0xB1 swaps neighbours. */
    x = _mm_min_epi32(x, _mm_shuffle_epi32(x, 0x4E));
    x = _mm_min_epi32(x, _mm_shuffle_epi32(x, 0xB1));
    return _mm_cvtsi128_si32(x);
}
AVX2 static inline unsigned first16_avx2(const int32_t *p, int32_t v)
{
    __m256i x = _mm256_set1_epi32(v);
    __m256i a = _mm256_cmpeq_epi32(x, _mm256_loadu_si256((const __m256i *)p));
    __m256i b = _mm256_cmpeq_epi32(x, _mm256_loadu_si256((const __m256i *)(p + 8)));
    unsigned bits = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(a)) |
                    (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(b)) << 8;

    /* One of the 16 is v: if it is none of the first 15, it is the last. */
    return (unsigned)__builtin_ctz(bits | 1u << 15);
}
AVX2 static void merge_avx2(const struct spm *m, struct spm_cache *c, int32_t n)
{
    merge_run(m, c, n, min16_avx2, first16_avx2);
}

AVX512 static inline int32_t min16_avx512(const int32_t *p)
{
    return _mm512_reduce_min_epi32(_mm512_loadu_si512(p));
}
AVX512 static inline unsigned first16_avx512(const int32_t *p, int32_t v)
{
    unsigned bits = _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(p), _mm512_set1_epi32(v));

    return (unsigned)__builtin_ctz(bits | 1u << 15);
}
AVX512 static void merge_avx512(const struct spm *m, struct spm_cache *c, int32_t n)
{
    merge_run(m, c, n, min16_avx512, first16_avx512);
}
#endif

void spm_merge(const struct spm *m, struct spm_cache *c, int32_t n)
{
    if (n <= SMALL) {
        merge_small(m, c, n);
        return;
    }
#ifdef __x86_64__
    if (c->level == SPM_AVX512) {
        merge_avx512(m, c, n);
        return;
    }
    if (c->level == SPM_AVX2) {
        merge_avx2(m, c, n);
        return;
    }
#endif
    merge_plain(m, c, n);
}

/* The final id and the text of a symbol. */
static int32_t symbol_id(const struct spm *m, uint32_t s, const struct spm_string **text)
{
    *text = s < (uint64_t)m->vocab ? &m->piece[s] : &m->bpe.extra[s - (uint32_t)m->vocab];
    return (*text)->value;
}

/* Ids of a symbol that turned out an unused piece: those it was made of, and so on. */
static int resegment(const struct spm *m, const struct spm_cache *c, uint32_t s, int64_t first,
                     struct spm_ids *out, struct err *e)
{
    uint32_t stack[SPMODEL_MAX_PIECE_BYTES + 2]; /* shorter at each step: texts never overlap */
    size_t top = 0;
    int rc = 0;

    for (stack[top++] = s; top > 0 && rc == 0;) {
        const struct spm_string *text;
        int32_t id;

        id = symbol_id(m, s = stack[--top], &text);
        /* A piece that no two symbols make (split is SYM_NONE) is given as it is, unused or
         * not. */
        if (m->kind[id] != PIECE_UNUSED || m->bpe.split[id][0] == SYM_NONE) {
            rc = spm_put(m, id, text->p, text->n, first, out, e);
            continue;
        }
        /* The parts are put on the stack right first, so that the left one comes off first. */
        stack[top++] = m->bpe.local ? m->bpe.split[id][1] : c->split[id][1];
        stack[top++] = m->bpe.local ? m->bpe.split[id][0] : c->split[id][0];
    }
    return rc;
}

/* Appends the ids of symbol i: one id as a rule, more for an unused piece, and for a
 * character that is in no piece its bytes or unk. */
static int put_symbol(const struct spm *m, const struct spm_cache *c,
                      const struct spm_part *part, int32_t i, int64_t first,
                      struct spm_ids *out, struct err *e)
{
    const struct spm_string *text;
    uint32_t s = c->sym[i];
    int32_t id;

    if (s == SYM_OTHER) {
        size_t at = c->pos[i], n = char_bytes((unsigned char)part->p[at]);

        return spm_put(m, m->unk, part->p + at, n < part->n - at ? n : part->n - at, first, out,
                       e);
    }
    /* SYM_FROZEN marks a user-defined symbol; without it s is the symbol's number. */
    id = symbol_id(m, s &= ~SYM_FROZEN, &text);
    if (m->kind[id] == PIECE_UNUSED)
        return resegment(m, c, s, first, out, e);
    return spm_put(m, id, text->p, text->n, first, out, e);
}

/* True when no merge can join what ends in l to what starts with r; x and y are their bytes,
 * where they are ASCII. */
static inline bool apart(const struct spm *m, uint32_t l, uint32_t r, unsigned x, unsigned y)
{
    if ((x | y) < NOT_ASCII)
        return m->bpe.cut[y][x];
    /* next_to is a hash: it may say true of two that never meet, but false is certain. */
    return ((l | r) & SYM_FROZEN) || !spm_bpe_next_to(&m->bpe, l, r);
}

static int flush(const struct spm *m, struct spm_cache *c, const struct spm_part *part,
                 int32_t n, int64_t first, struct spm_ids *out, struct err *e)
{
    int rc = 0;

    if (n > 1)
        spm_merge(m, c, n);
    else
        c->next[0] = 1;
    for (int32_t i = 0; i < n && rc == 0; i = c->next[i]) {
        uint32_t s = c->sym[i];

        if (s < (uint64_t)m->vocab && m->bpe.own_id[s] && out->len < out->cap)
            out->p[out->len++] = (int32_t)s;
        else
            rc = put_symbol(m, c, part, i, first, out, e);
    }
    return rc;
}

/* The symbol at p and its bytes. */
static uint32_t symbol_at(const struct spm *m, const char *p, size_t n, bool raw, size_t *used)
{
    const struct spm_bpe *b = &m->bpe;
    unsigned char c = (unsigned char)*p;
    uint32_t s;

    /* In normal form user-defined symbols are found first; a raw text's model has none. */
    if (!raw && m->user.units && (*used = spm_trie_longest(&m->user, p, n)))
        return (uint32_t)spm_trie_find(&m->trie, p, *used) | SYM_FROZEN;
    *used = 1;
    if (c < 128) {
        s = raw && c == ' ' ? b->space : b->ascii[c]; /* a raw space is its mark */
    } else if (raw && (*used = spm_utf8((const unsigned char *)p, n)) == 0) {
        *used = 1; /* one wrong byte stands for U+FFFD */
        return b->replacement;
    } else {
        /* What a normaliser puts in need not be whole characters. */
        if (!raw)
            *used = char_bytes(c) < n ? char_bytes(c) : n;
        s = spm_bpe_char(m, p, *used);
    }
    return s == SYM_NONE ? SYM_OTHER : s;
}

/* Two ASCII characters: looked up by their bytes. */
static inline void look_ascii(const struct spm *m, struct spm_cache *c, int32_t i, unsigned x,
                              unsigned y)
{
    uint32_t p = m->bpe.ascii_pair[x][y];

    c->rank[i] = p == UINT32_MAX ? RANK_NONE : (int32_t)(p & UINT16_MAX);
    c->to[i] = p >> 16;
}

/* Turns a part into symbols, and merges what lies between two safe cuts as soon as the
 * second one is seen, so that the runs stay short and memory small. Each symbol is looked
 * up with the one before it as it comes; before and here are the first bytes of the last
 * two, NOT_ASCII for any but a plain ASCII character. */
static int encode(const struct spm *m, struct spm_cache *c, const struct spm_part *part,
                  int64_t first, struct spm_ids *out, struct err *e)
{
    bool cuts = m->bpe.local && !part->whole;
    unsigned before = NOT_ASCII, here;
    int32_t k = 0;
    int rc = 0;

    if (!c->sym_cap && (rc = spm_merge_room(c, 1, e)) < 0)
        return rc;
    if (part->prefix)
        c->sym[k++] = m->bpe.space;
    for (size_t i = 0, used; i < part->n; i += used, before = here) {
        uint32_t s = symbol_at(m, part->p + i, part->n - i, part->raw, &used);

        here = (unsigned char)part->p[i];
        if (here > 127 || (s & SYM_FROZEN))
            here = NOT_ASCII;
        if (cuts && k > 0 && apart(m, c->sym[k - 1], s, before, here)) {
            if ((rc = flush(m, c, part, k, first, out, e)) < 0)
                return rc;
            k = 0;
        }
        if ((size_t)k + 1 >= c->sym_cap && (rc = spm_merge_room(c, (size_t)k + 2, e)) < 0)
            return rc;
        c->sym[k] = s;
        c->pos[k++] = (uint32_t)i; /* read only where s is SYM_OTHER */
        if (k > 1 && m->bpe.small && (before | here) < NOT_ASCII)
            look_ascii(m, c, k - 2, before, here);
        else if (k > 1)
            spm_merge_look(m, c, k - 2, s);
    }
    return k > 0 ? flush(m, c, part, k, first, out, e) : 0;
}

int spm_bpe_encode(const struct spm *m, struct spm_cache *c, const struct spm_part *part,
                   int64_t first, struct spm_ids *out, struct err *e)
{
    int rc = encode(m, c, part, first, out, e);

    spm_merge_done(c);
    return rc;
}
