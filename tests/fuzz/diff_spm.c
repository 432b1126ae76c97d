/* tests/fuzz/diff_spm.c - our SentencePiece against the library's, on texts made at random. */
#include "base/file.h"
#include "formats/tokenizer/spm.h"
#include "formats/tokenizer/splib.h"
#include "formats/tokenizer/spmodel.h"
#include "tests/spmrandom.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_MODELS = 32, MAX_TEXT_BYTES = 1 << 16 };

struct pair {
    const char *path;
    struct spm *ours;
    struct splib *theirs;
};

static uint64_t state = 1;

static uint32_t dice(uint32_t n) /* 0 .. n-1 */
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return n ? (uint32_t)((state * 0x2545F4914F6CDD1Du >> 32) % n) : 0;
}

static size_t put_char(char *to, uint32_t c)
{
    unsigned char *u = (unsigned char *)to;

    if (c < 0x80)
        return u[0] = (unsigned char)c, 1;
    if (c < 0x800) {
        u[0] = (unsigned char)(0xC0 | c >> 6);
        return u[1] = (unsigned char)(0x80 | (c & 63)), 2;
    }
    if (c < 0x10000) {
        u[0] = (unsigned char)(0xE0 | c >> 12);
        u[1] = (unsigned char)(0x80 | (c >> 6 & 63));
        return u[2] = (unsigned char)(0x80 | (c & 63)), 3;
    }
    u[0] = (unsigned char)(0xF0 | (c >> 18 & 7));
    u[1] = (unsigned char)(0x80 | (c >> 12 & 63));
    u[2] = (unsigned char)(0x80 | (c >> 6 & 63));
    return u[3] = (unsigned char)(0x80 | (c & 63)), 4;
}

/* A few bytes of one kind; at most 4160. */
static size_t put_some(const struct spm *m, char *to, uint32_t kind)
{
    static const char *const odd[] = {
        "\xE2\x96\x81", "\xEF\xBF\xBD", "\xC0\x80", "\xE2\x96", "\xED\xA0\x80",
        "\xF4\x90\x80\x80",
        "\xF8\x88\x80\x80\x80", "\xFF", "\x80", "\xE2 ", "<s>", "</s>", "<unk>",
        "<0x41>", "<pad>",
        "\n", "\r\n", "\t", " ", "  ", "\xC2\xA0", "\xE3\x80\x80", "a\xCC\x80", "\xEF\xAC\x81",
        "\xE2\x84\xAB", "\xEF\xB7\xBA", "\xE2\x80\x8B", "\xF0\x9F\x98\x80",
        "\xE1\x84\x80\xE1\x85\xA1"
    };
    size_t n = 0, k;
    const char *p;

    switch (kind) {
    case 0: /* a piece, its space marks perhaps spaces */
    case 1:
        p = spm_piece(m, (int32_t)dice((uint32_t)spm_vocab(m)), &k);
        for (size_t i = 0; i < k;) {
            if (kind == 1 && k - i >= 3 && memcmp(p + i, "\xE2\x96\x81", 3) == 0) {
                to[n++] = ' ';
                i += 3;
            } else {
                to[n++] = p[i++];
            }
        }
        return n;
    case 2: /* one character again and again */
        k = 1 + dice(40);
        for (uint32_t c = dice(4) ? ' ' + dice(95) : dice(0x3000); k > 0; k--)
            n += put_char(to + n, c);
        return n;
    case 3:
        return put_char(to, dice(0x80));
    case 4:
        return put_char(to, dice(0x800));
    case 5:
        return put_char(to, dice(0x110000));
    case 6:
        to[0] = (char)dice(256);
        return 1;
    case 7: /* small letters: few pieces span them as a whole */
        for (k = dice(12); k > 0; k--)
            to[n++] = (char)('a' + dice(6));
        return n;
    default:
        p = odd[dice(sizeof odd / sizeof *odd)];
        memcpy(to, p, strlen(p));
        return strlen(p);
    }
}

static size_t make_text(const struct spm *m, char *to)
{
    uint32_t kinds = dice(4) ? 9 : 1 + dice(9), parts = dice(16) ? dice(30) : dice(1500);
    uint32_t one = dice(9);
    size_t n = 0;

    for (; parts > 0 && n + 4200 < MAX_TEXT_BYTES; parts--)
        n += put_some(m, to + n, kinds == 9 ? dice(9) : dice(3) ? one : dice(kinds));
    return n;
}

static void show(const char *what, const int32_t *ids, int64_t n)
{
    fprintf(stderr, "%s %" PRId64 ":", what, n);
    for (int64_t i = 0; i < n && i < 200; i++)
        fprintf(stderr, " %d", ids[i]);
    fputc('\n', stderr);
}

static void differ(const struct pair *p, const char *what, const char *text, size_t n)
{
    fprintf(stderr, "diff_spm: %s: %s differs for %zu bytes:\n", p->path, what, n);
    for (size_t i = 0; i < n && i < 400; i++)
        fprintf(stderr, "\\x%02X", (unsigned char)text[i]);
    fputc('\n', stderr);
    exit(1);
}

/* Ours by every way against theirs; ids are left in *out. */
static void compare(const struct pair *p, struct spm_cache *c, char *text, size_t n)
{
    static struct spm_ids out;
    static struct buf back;
    struct err e = { 0 };
    int32_t *ids;
    int64_t n_ids;
    char *their_back;
    size_t n_back;
    int rc = splib_encode(p->theirs, text, n, &ids, &n_ids, &e);

    for (int level = SPM_PLAIN; level <= (int)SPM_AVX512 + 1; level++) {
        int mine;

        if (level <= (int)SPM_AVX512 && !spm_cache_level(c, (enum spm_level)level))
            continue;
        out.len = 0;
        mine = level <= (int)SPM_AVX512 ? spm_encode(p->ours, c, text, n, &out, &e)
                                        : spm_encode_whole(p->ours, c, text, n, &out, &e);
        if ((mine < 0) != (rc < 0))
            differ(p, e.msg, text, n);
        if (out.len != n_ids || (n_ids && memcmp(out.p, ids, (size_t)n_ids * 4) != 0)) {
            show("theirs", ids, n_ids);
            show("ours", out.p, out.len);
            differ(p, level <= (int)SPM_AVX512 ? "encode" : "encode_whole", text, n);
        }
    }
    free(ids);
    if (dice(2)) { /* any ids, not only such as come from a text */
        if (spm_ids_free(&out), !(out.p = malloc(64 * sizeof *out.p)))
            exit(71);
        for (out.cap = 64, out.len = dice(64), n_ids = 0; n_ids < out.len; n_ids++)
            out.p[n_ids] = (int32_t)dice((uint32_t)(dice(2) && spm_vocab(p->ours) > 300
                                                        ? 300 : spm_vocab(p->ours)));
    }
    back.len = 0;
    if (splib_decode(p->theirs, out.p, out.len, &their_back, &n_back, &e) < 0 ||
        spm_decode(p->ours, out.p, out.len, &back, &e) < 0)
        differ(p, e.msg, text, n);
    if (back.len != n_back || (n_back && memcmp(back.p, their_back, n_back) != 0)) {
        show("ids", out.p, out.len);
        fprintf(stderr, "theirs '%s'\nours '%.*s'\n", their_back, (int)back.len, back.p);
        differ(p, "decode", text, n);
    }
    free(their_back);
}

static void load(struct pair *p, const char *path)
{
    struct err e = { 0 };
    struct spmodel m;
    char *bytes;
    size_t n;

    p->path = path;
    if (file_read(path, SPMODEL_MAX_BYTES, &bytes, &n, &e) < 0 ||
        spmodel_check(&m, bytes, n, &e) < 0 || spm_parse(&p->ours, bytes, n, path, &e) < 0 ||
        splib_parse(&p->theirs, bytes, n, &e) < 0) {
        fprintf(stderr, "diff_spm: %s: %s\n", path, e.msg);
        exit(65);
    }
    free(bytes);
}

/* A small model made at random, and 200 texts for it. */
static int64_t random_model(struct spm_cache *c, char *text, int64_t *models,
                            int64_t *text_bytes)
{
    static struct buf bytes;
    uint64_t seed = state;
    struct pair p = { .path = "a random model" };
    struct err ours = { 0 }, theirs = { 0 };
    struct spmodel check;
    int a, b;

    dice(2);
    make_random_model(&bytes, &seed);
    a = spm_parse(&p.ours, bytes.p, bytes.len, p.path, &ours);
    b = spmodel_check(&check, bytes.p, bytes.len, &theirs);
    if (b == 0)
        b = splib_parse(&p.theirs, bytes.p, bytes.len, &theirs);
    if ((a < 0) != (b < 0)) {
        fprintf(stderr, "diff_spm: one refuses: ours '%s', theirs '%s'\n", ours.msg,
                theirs.msg);
        exit(1);
    }
    if (a < 0)
        return 0;
    for (int k = 0; k < 200; k++) {
        size_t n = random_text(&seed, text, k < 150 ? 40 : 400);
        char *exact = malloc(n + !n);

        memcpy(exact, text, n);
        compare(&p, c, exact, n);
        free(exact);
        *text_bytes += (int64_t)n;
    }
    ++*models;
    spm_free(p.ours);
    splib_free(p.theirs);
    return 200;
}

/* usage: diff_spm SECONDS SEED [MODEL...]; random models and texts, and random texts for the
 * models named; ends at the first difference. */
int main(int argc, char **argv)
{
    static struct pair pairs[MAX_MODELS];
    static char text[MAX_TEXT_BYTES];
    struct spm_cache *c[MAX_MODELS];
    struct spm_cache *spare;
    int n_pairs = argc - 3;
    int64_t count = 0, bytes = 0, models = n_pairs;
    time_t end;
    struct err e = { 0 };

    if (n_pairs < 0 || n_pairs > MAX_MODELS) {
        fprintf(stderr, "usage: diff_spm SECONDS SEED [MODEL...]\n");
        return 64;
    }
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    for (int i = 0; i < n_pairs; i++) {
        load(&pairs[i], argv[i + 3]);
        if (spm_cache_open(&c[i], &e) < 0)
            return 71;
    }
    if (spm_cache_open(&spare, &e) < 0)
        return 71;
    for (end = time(NULL) + atol(argv[1]); time(NULL) < end;) {
        for (int k = 0; k < 4; k++)
            count += random_model(spare, text, &models, &bytes);
        for (int k = 0; k < 100 && n_pairs; k++, count++) {
            uint32_t i = dice((uint32_t)n_pairs);
            size_t n = make_text(pairs[i].ours, text);
            char *exact = malloc(n + !n); /* so that a byte too many is seen */

            memcpy(exact, text, n);
            compare(&pairs[i], c[i], exact, n);
            free(exact);
            bytes += (int64_t)n;
        }
    }
    printf("diff_spm: %" PRId64 " texts, %" PRId64 " bytes, %" PRId64 " models, no "
           "difference\n", count, bytes, models);
    for (int i = 0; i < n_pairs; i++) {
        spm_free(pairs[i].ours);
        splib_free(pairs[i].theirs);
        spm_cache_close(c[i]);
    }
    spm_cache_close(spare);
    return 0;
}
