/* formats/tokenizer/spm_fast.c - BPE by safe cuts in the text, remembering the fragments.
 *
 * BPE merges pairs of symbols over the whole text, but no merge crosses a place between two
 * characters that stand side by side in no piece of the vocabulary. spm_cuts.c finds such pairs
 * of bytes once a model; here text is cut at them, and each fragment has the same ids wherever it
 * stands. So "the cat saw the cat" is cut to "the", " cat", " saw", " the", " cat"; the second
 * " cat" is looked up in a table of this thread, words, and only what the table lacks is merged
 * (spm_bpe.c).
 *
 * A block of 1024 bytes goes through three steps: scan finds its cuts, 64 bytes at once with
 * AVX-512; the fragments' slots in the table are computed and prefetched; then each is compared
 * and its ids are copied. A fragment of at most 16 bytes is a key of two numbers (words); up to 64
 * bytes it is in phrases; a longer one is merged each time.
 */
#include "formats/tokenizer/word_cache.h"
#include "base/processor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define BLOCK_BYTES 1024
#define HUGE_BYTES ((size_t)2 << 20)

/* Writes the places 1 .. n-1 at which p may be cut; how many. Has 64 places beyond n. */
typedef size_t scan_fn(const struct spm_bpe *b, const unsigned char *p, size_t n, uint16_t *at);

/* The fragments of one block: found first, then looked up, so that memory is asked in time. */
struct batch {
    /* Places are counted from the block's start. lo, hi and slot are of fragments that are
     * words; padded holds the end of the text where 16 bytes cannot be read behind it. */
    uint16_t end[BLOCK_BYTES + 65];
    uint64_t lo[BLOCK_BYTES + 1], hi[BLOCK_BYTES + 1];
    uint32_t slot[BLOCK_BYTES + 1];
    unsigned char padded[BLOCK_BYTES + WORD_BYTES];
};

struct job {
    const struct spm *m;
    struct spm_cache *c;
    bool raw;
    int64_t first; /* of this text's ids */
    struct spm_ids *out;
    struct err *e;
};

/* Appends n ids; one unk for as many as follow one another where there is no byte fallback. */
static int append(const struct job *j, const int32_t *ids, int64_t n)
{
    struct spm_ids *out = j->out;
    int rc = spm_ids_reserve(out, n, j->e);

    if (rc < 0)
        return rc;
    if (n > 0 && !j->m->byte_fallback && ids[0] == j->m->unk && out->len > j->first &&
        out->p[out->len - 1] == j->m->unk) {
        ids++;
        n--;
    }
    memcpy(out->p + out->len, ids, (size_t)n * sizeof *ids);
    out->len += n;
    return 0;
}

/* A fragment of WORD_BYTES + 1 to PHRASE_BYTES bytes. */
static int encode_phrase(const struct job *j, const unsigned char *p, size_t n)
{
    const struct spm_part part = { (const char *)p, n, j->raw, false, false };
    bool narrow = j->m->vocab <= 65536; /* an id fits 16 bits */
    struct spm_cache *c = j->c;
    struct spm_phrase *w;
    int32_t ids[PHRASE_IDS];
    int rc;

    w = phrase_slot(c, p, n);
    if (w->n_bytes == n && memcmp(w->text, p, n) == 0) {
        phrase_ids(w, narrow, ids);
        return append(j, ids, w->n_ids);
    }
    /* Not in the table: merged, and put in its slot, over whatever was there, if its ids
     * fit. */
    c->ids.len = 0;
    if ((rc = spm_bpe_encode(j->m, c, &part, 0, &c->ids, j->e)) < 0)
        return rc;
    phrase_keep(w, narrow, p, n, &c->ids);
    return append(j, c->ids.p, c->ids.len);
}

/* A fragment that is too long to be remembered, or has the dummy prefix before it. */
static int encode_part(const struct job *j, const unsigned char *p, size_t n, bool prefix)
{
    const struct spm_part part = { (const char *)p, n, j->raw, prefix, false };

    return spm_bpe_encode(j->m, j->c, &part, j->first, j->out, j->e);
}

/* A word that the table lacks: encodes it and puts it in, its slot's last one beside it. */
static __attribute__((noinline)) int missed(const struct job *j, const unsigned char *p,
                                            size_t n, uint64_t lo, uint64_t hi, uint32_t slot)
{
    const struct spm_part part = { (const char *)p, n, j->raw, false, false };
    bool narrow = j->m->vocab <= 65536;
    struct spm_cache *c = j->c;
    struct spm_word w = { .lo = lo, .hi = hi, .n_bytes = (uint8_t)n };
    int rc;

    c->ids.len = 0;
    if ((rc = spm_bpe_encode(j->m, c, &part, 0, &c->ids, j->e)) < 0)
        return rc;
    if (fill_word(&w, c->ids.p, c->ids.len, narrow)) {
        /* The newer of two words stays first; the older one moves over, and the oldest is
         * lost. */
        c->words[slot ^ 1] = c->words[slot];
        c->words[slot] = w;
    }
    return append(j, c->ids.p, c->ids.len);
}

/* One fragment, wherever it is remembered: for a text's first one, for long ones, and where
 * unk may join unk. 16 bytes may be read at p when n <= WORD_BYTES. */
static int encode_word(const struct job *j, const unsigned char *p, size_t n)
{
    const struct spm_word *w;
    uint64_t lo, hi;
    uint32_t slot;
    int32_t ids[WORD_IDS + 1];

    if (n > WORD_BYTES)
        return n <= PHRASE_BYTES ? encode_phrase(j, p, n) : encode_part(j, p, n, false);
    load_key(p, n, &lo, &hi);
    slot = slot_of(lo, hi);
    w = &j->c->words[slot];
    if (!is_word(w, lo, hi, n) && !is_word(w = &j->c->words[slot ^ 1], lo, hi, n))
        return missed(j, p, n, lo, hi, slot);
    return append(j, ids, put_word(ids, w, j->m->vocab <= 65536) - ids);
}

/* The fragments of b end at b->end[0 .. k-1]; p has WORD_BYTES bytes more to read. */
ALWAYS_INLINE int encode_batch(const struct job *j, struct batch *b, const unsigned char *p,
                               size_t k, bool narrow, bool fuses)
{
    const struct spm_word *words = j->c->words;
    struct spm_ids *out = j->out;
    size_t from = 0;
    int32_t *to;
    int rc;

    /* First all keys and slots, so that the table's lines are on their way from memory
     * while the rest is computed; then the comparisons find them in the cache. */
    for (size_t i = 0; i < k; i++) {
        size_t n = b->end[i] - from;

        if (n <= WORD_BYTES) {
            load_key(p + from, n, &b->lo[i], &b->hi[i]);
            b->slot[i] = slot_of(b->lo[i], b->hi[i]);
            __builtin_prefetch(&words[b->slot[i]]);
        }
        from = b->end[i];
    }
    /* Space for 8 ids a fragment, which put_word writes without asking. */
    if ((rc = spm_ids_reserve(out, (int64_t)(k + 2) * 8, j->e)) < 0)
        return rc;
    from = 0;
    to = out->p + out->len;
    for (size_t i = 0; i < k; from = b->end[i++]) {
        size_t n = b->end[i] - from;

        if (n <= WORD_BYTES && !fuses) {
            const struct spm_word *w = &words[b->slot[i]], *beside = &words[b->slot[i] ^ 1];
            bool first = is_word(w, b->lo[i], b->hi[i], n);

            w = first ? w : beside; /* by no branch: which of the two is hard to guess */
            if (is_word(w, b->lo[i], b->hi[i], n)) {
                to = put_word(to, w, narrow);
                continue;
            }
        }
        /* Not found, or no word: these append to out themselves, so its length is set
         * before and read again after, and out->p may have moved. */
        out->len = to - out->p;
        rc = n <= WORD_BYTES && !fuses
                 ? missed(j, p + from, n, b->lo[i], b->hi[i], b->slot[i])
                 : encode_word(j, p + from, n);
        if (rc < 0 || (rc = spm_ids_reserve(out, (int64_t)(k - i + 2) * 8, j->e)) < 0)
            return rc;
        to = out->p + out->len;
    }
    out->len = to - out->p;
    return 0;
}

/* Whether text may be cut before p; p[-1] is there. */
static bool cut_before(const struct spm_bpe *b, const unsigned char *p)
{
    return b->cut[p[0]][p[-1]];
}

/* Block by block. The last fragment of a block is left to the next one, as its end is not
 * known, but for the text's last. The usual values of narrow and fuses are given as
 * constants, so that the compiler makes a version without those branches. */
ALWAYS_INLINE int encode_blocks(const struct job *j, const unsigned char *text, size_t n,
                                scan_fn *scan)
{
    const struct spm_bpe *bpe = &j->m->bpe;
    bool narrow = j->m->vocab <= 65536, fuses = !j->m->byte_fallback;
    struct batch b;
    int rc = 0;

    for (size_t at = 0; at < n && rc == 0;) {
        size_t span = n - at < BLOCK_BYTES ? n - at : BLOCK_BYTES, k;
        const unsigned char *p = text + at;

        /* Near the end of the text: a copy, so that 16 bytes can be read behind any place. */
        if (n - at < span + WORD_BYTES)
            p = memcpy(b.padded, p, span);
        k = scan(bpe, p, span, b.end);
        if (at + span == n)
            b.end[k++] = (uint16_t)span;
        if (k == 0) {
            /* No cut in the whole block: goes on to the next cut or the end, and merges all
             * at once. */
            while (at + span < n && !cut_before(bpe, text + at + span))
                span++;
            rc = encode_part(j, text + at, span, false);
            at += span;
        } else {
            rc = narrow && !fuses ? encode_batch(j, &b, p, k, true, false)
                                  : encode_batch(j, &b, p, k, narrow, fuses);
            at += b.end[k - 1];
        }
    }
    return rc;
}

/* The place is written always, and counted only if it is a cut: there is no branch to
 * guess. */
static size_t scan_plain(const struct spm_bpe *b, const unsigned char *p, size_t n,
                         uint16_t *at)
{
    size_t k = 0;

    for (size_t i = 1; i < n; i++) {
        at[k] = (uint16_t)i;
        k += b->cut[p[i]][p[i - 1]];
    }
    return k;
}
static int blocks_plain(const struct job *j, const unsigned char *text, size_t n)
{
    return encode_blocks(j, text, n, scan_plain);
}

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
#define AVX512                                                                                 \
    __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,"     \
                          "avx512vbmi,avx512vbmi2")))

AVX2 static int blocks_avx2(const struct job *j, const unsigned char *text, size_t n)
{
    return encode_blocks(j, text, n, scan_plain);
}

/* Bit i: text may be cut before y's byte i, all bytes being ASCII; x holds the byte before
 * each. b->ascii_cut has 16 rows, x / 8, of 128 bytes, one a value of y, and bit x % 8 of
 * that byte is the answer. Every row is looked up for all 64 bytes at once, and kept where
 * x is of it. */
AVX512 static inline uint64_t ascii_cuts(const struct spm_bpe *b, __m512i x, __m512i y)
{
    __m512i row = _mm512_and_si512(_mm512_srli_epi16(x, 3), _mm512_set1_epi8(15));
    /* In each byte 1 << x % 8, out of a table of eight. */
    __m512i bit = _mm512_shuffle_epi8(_mm512_set1_epi64((long long)0x8040201008040201u),
                                      _mm512_and_si512(x, _mm512_set1_epi8(7)));
    __m512i cuts = _mm512_setzero_si512();

    for (int r = 0; r < 16; r++) {
        __mmask64 here = _mm512_cmpeq_epi8_mask(row, _mm512_set1_epi8((char)r));
        __m512i low = _mm512_loadu_si512(b->ascii_cut[r]);
        __m512i high = _mm512_loadu_si512(b->ascii_cut[r] + 64);

        /* By the low 7 bits of y: one of the row's 128 bytes. */
        cuts = _mm512_or_si512(cuts, _mm512_maskz_permutex2var_epi8(here, low, y, high));
    }
    return _mm512_test_epi8_mask(cuts, bit);
}

/* 64 places at a time. Bits of cuts become places by compressing the numbers 0 to 63: cuts
 * 0b10100 gives 2, 4. Up to 64 places are stored, though fewer count: hence the 64 beyond
 * n. */
AVX512 static inline size_t scan_avx512(const struct spm_bpe *b, const unsigned char *p,
                                        size_t n, uint16_t *at)
{
    static const unsigned char count[64] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63
    };
    const __m512i lanes = _mm512_loadu_si512(count);
    size_t k = 0;

    for (size_t i = 1; i < n; i += 64) {
        __mmask64 have = n - i >= 64 ? UINT64_MAX : (UINT64_C(1) << (n - i)) - 1;
        __m512i x = _mm512_maskz_loadu_epi8(have, p + i - 1);
        __m512i y = _mm512_maskz_loadu_epi8(have, p + i), at_i, which;
        uint64_t cuts = 0;

        /* No byte has its top bit: ASCII. */
        if (_mm512_movepi8_mask(_mm512_or_si512(x, y)) == 0) {
            cuts = ascii_cuts(b, x, y) & have;
        } else {
            for (size_t q = 0; q < 64 && i + q < n; q++)
                cuts |= (uint64_t)b->cut[p[i + q]][p[i + q - 1]] << q;
        }
        which = _mm512_maskz_compress_epi8(cuts, lanes);
        at_i = _mm512_set1_epi16((short)i);
        _mm512_storeu_si512(at + k, _mm512_add_epi16(
            at_i, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(which))));
        if (__builtin_popcountll(cuts) > 32)
            _mm512_storeu_si512(at + k + 32, _mm512_add_epi16(
                at_i, _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(which, 1))));
        k += (size_t)__builtin_popcountll(cuts);
    }
    return k;
}
AVX512 static int blocks_avx512(const struct job *j, const unsigned char *text, size_t n)
{
    return encode_blocks(j, text, n, scan_avx512);
}
#endif

enum spm_level spm_best_level(void)
{
#ifdef __x86_64__
    enum simd level = simd_level();

    return level >= SIMD_VBMI ? SPM_AVX512 : level >= SIMD_AVX2 ? SPM_AVX2 : SPM_PLAIN;
#else
    return SPM_PLAIN;
#endif
}

/* The first fragment, with the dummy prefix: the same as one that starts with a space. A
 * raw space stands for the mark, so it is found in the table as any other word. */
static int encode_first(const struct job *j, const unsigned char *text, size_t n, size_t *used)
{
    unsigned char with[WORD_BYTES + 1] = { ' ' };

    *used = 1;
    while (*used < n && !cut_before(&j->m->bpe, text + *used))
        ++*used;
    if (*used >= WORD_BYTES) /* with the space it would be no word */
        return encode_part(j, text, *used, true);
    memcpy(with + 1, text, *used);
    return encode_word(j, with, *used + 1);
}

int spm_bpe_fast(const struct spm *m, struct spm_cache *c, const char *text, size_t n, bool raw,
                 bool prefix, struct spm_ids *out, struct err *e)
{
    const struct job j = { m, c, raw, out->len, out, e };
    const unsigned char *p = (const unsigned char *)text;
    size_t used = 0;
    int rc = 0;

    word_cache_take(c, m->serial);
    if (prefix)
        rc = encode_first(&j, p, n, &used);
    if (rc < 0)
        return rc;
#ifdef __x86_64__
    if (c->level == SPM_AVX512)
        return blocks_avx512(&j, p + used, n - used);
    if (c->level == SPM_AVX2)
        return blocks_avx2(&j, p + used, n - used);
#endif
    return blocks_plain(&j, p + used, n - used);
}

int spm_cache_open(struct spm_cache **out, struct err *e)
{
    struct spm_cache *c = calloc(1, sizeof *c);
    /* 2 MiB more, to begin at a huge page. */
    size_t bytes = (sizeof *c->words << WORD_BITS) + HUGE_BYTES;
    void *map = MAP_FAILED;

    *out = NULL;
    if (c && (c->phrases = calloc((size_t)1 << PHRASE_BITS, sizeof *c->phrases)))
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        if (c)
            free(c->phrases);
        free(c);
        return err_set(e, E_SYS, "out of memory for a cache of %zu bytes", bytes);
    }
    c->map = map;
    c->words = (void *)(((uintptr_t)map + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    madvise(c->words, sizeof *c->words << WORD_BITS, MADV_HUGEPAGE); /* before a first touch */
    c->level = spm_best_level();
    *out = c;
    return 0;
}

void spm_cache_close(struct spm_cache *c)
{
    if (!c)
        return;
    munmap(c->map, (sizeof *c->words << WORD_BITS) + HUGE_BYTES);
    free(c->phrases);
    buf_free(&c->norm);
    free(c->sym);
    free(c->pos);
    free(c->to);
    free(c->prev);
    free(c->next);
    free(c->rank);
    free(c->split);
    free(c->path);
    spm_ids_free(&c->ids);
    spm_ids_free(&c->spilled);
    free(c);
}

bool spm_cache_level(struct spm_cache *c, enum spm_level level)
{
    if (level > spm_best_level())
        return false;
    c->level = level;
    return true;
}
