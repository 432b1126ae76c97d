/* formats/tokenizer/spm_cuts.c - between which bytes a text may be cut, by the vocabulary. */
#include "formats/tokenizer/spm_impl.h"

#include <stdlib.h>
#include <string.h>

/*
 * A merge makes a piece, so a cut that no piece spans changes nothing: text may be cut between
 * bytes x and y when no piece has y right after x. (User-defined symbols are pieces: no match
 * of one spans the cut either.) A cut never parts the bytes of a character.
 *
 * In raw text a space stands for U+2581, which itself may stand there too, and a byte that
 * is not UTF-8 for U+FFFD: EF BF BD. So a cut after a byte >= 0x80 must be safe after BD as
 * well, and one before a lead byte before EF as well.
 */
struct beside { /* [x][y]: some piece has y right after x */
    unsigned char at[256][256];
};

/* Notes the bytes that stand side by side in a piece. Raw text has ' ' where the piece has
 * the mark, so the mark's neighbours are noted as neighbours of ' ' as well. */
static void note_piece(struct beside *t, const struct spm_string *s, bool raw)
{
    const unsigned char *p = (const unsigned char *)s->p;

    for (size_t i = 0; i + 1 < s->n; i++)
        t->at[p[i]][p[i + 1]] = 1;
    for (size_t i = 0; raw && i + 3 <= s->n; i++) {
        if (memcmp(p + i, SPACE_MARK, 3) != 0)
            continue;
        if (i > 0)
            t->at[p[i - 1]][' '] = 1;
        if (i + 3 < s->n)
            t->at[' '][p[i + 3]] = 1;
        if (i + 6 <= s->n && memcmp(p + i + 3, SPACE_MARK, 3) == 0)
            t->at[' '][' '] = 1;
    }
}

/* A byte from 0x80 on may be broken, and then stands for EF BF BD: what may follow BD may
 * follow it, and a lead byte may stand wherever EF may. */
static void note_broken(struct beside *t)
{
    for (int y = 0; y < 256; y++)
        for (int x = 0x80; x < 256; x++)
            t->at[x][y] |= t->at[0xBD][y];
    for (int x = 0; x < 256; x++)
        for (int y = 0xC0; y < 256; y++)
            t->at[x][y] |= t->at[x][0xEF];
}

int spm_bpe_cuts(struct spm *m, struct err *e)
{
    struct beside *t = calloc(1, sizeof *t);
    struct spm_bpe *b = &m->bpe;

    b->cut = calloc(1, sizeof(unsigned char[256][256]));
    if (!t || !b->cut) {
        free(t);
        return err_set(e, E_SYS, "out of memory");
    }
    /* raw: the normaliser does no more than put marks for spaces and one before the text,
     * so text need not be copied. */
    b->fast = b->local;
    b->raw = b->local && m->norm.escape_spaces && !m->norm.strip_spaces && !m->norm.trie &&
             !m->norm.suffix && !m->user.units;
    for (int64_t id = 0; id < m->vocab; id++)
        if (m->kind[id] == PIECE_NORMAL || m->kind[id] == PIECE_USER ||
            m->kind[id] == PIECE_UNUSED)
            note_piece(t, &m->piece[id], b->raw);
    if (b->raw)
        note_broken(t);
    for (int x = 0; x < 256; x++)
        for (int y = 0; y < 256; y++)
            /* Never before a continuation byte, 80 to BF. */
            b->cut[y][x] = !t->at[x][y] && (y < 0x80 || y >= 0xC0);
    /* The same as bits: scan_avx512 looks 64 of them up at once. */
    for (int x = 0; x < 128; x++)
        for (int y = 0; y < 128; y++)
            b->ascii_cut[x / 8][y] |= (unsigned char)(b->cut[y][x] << x % 8);
    free(t);
    return 0;
}
