/* formats/tokenizer/spm_normalize.c - text to the normal form that the pieces are made of. */
#include "formats/tokenizer/spm_impl.h"

#include <stdlib.h>
#include <string.h>

/* As RFC 3629 has it: overlong forms (C0, C1, and by the value of c), surrogates (D800 to
 * DFFF) and what lies above U+10FFFF are no characters. */
size_t spm_utf8(const unsigned char *p, size_t n)
{
    uint32_t c;

    if (p[0] < 0x80)
        return 1;
    if (n >= 2 && (p[0] & 0xE0) == 0xC0)
        return p[0] >= 0xC2 && (p[1] & 0xC0) == 0x80 ? 2 : 0;
    if (n >= 3 && (p[0] & 0xF0) == 0xE0) {
        c = (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63u);
        return (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80 && c >= 0x800 &&
               (c < 0xD800 || c >= 0xE000) ? 3 : 0;
    }
    if (n >= 4 && (p[0] & 0xF8) == 0xF0) {
        c = (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 |
            (uint32_t)(p[2] & 63) << 6 | (p[3] & 63u);
        return (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80 && (p[3] & 0xC0) == 0x80 &&
               c >= 0x10000 && c <= 0x10FFFF ? 4 : 0;
    }
    return 0;
}

/* Darts-clone's units, 32 bits each: bits 0 to 7 the label (a byte), bit 8 set if a string
 * ends here, bit 9 set if the offset is to be shifted by 8 more, bits 10 to 30 the offset,
 * bit 31 set for a leaf, whose other bits are its value. The child by byte c is at (node ^
 * offset) ^ c, a leaf at node ^ offset. */
static uint32_t unit_offset(uint32_t u) { return (u >> 10) << ((u & (1u << 9)) >> 6); }
static uint32_t unit_label(uint32_t u) { return u & 0x800000FFu; }
static bool has_leaf(uint32_t u) { return u >> 8 & 1; }

/* Copies the table out of the model's file, which does not stay. starts is computed once,
 * as most characters begin no rule and need no search. */
int spm_norm_make(struct spm_norm *to, const struct spmodel_norm *from, bool suffix,
                  struct err *e)
{
    *to = (struct spm_norm){ .dummy_prefix = from->dummy_prefix,
                             .strip_spaces = from->strip_spaces,
                             .escape_spaces = from->escape_spaces, .suffix = suffix };
    if (!from->units)
        return 0;
    to->trie = malloc(from->units * sizeof *to->trie);
    to->pool = malloc(from->pool_bytes);
    if (!to->trie || !to->pool)
        return err_set(e, E_SYS, "out of memory for a normaliser");
    for (size_t i = 0; i < from->units; i++)
        to->trie[i] = (uint32_t)get_le(from->trie + 4 * i, 4);
    memcpy(to->pool, from->pool, from->pool_bytes);
    for (unsigned c = 0; c < 256; c++)
        to->starts[c] = unit_label(to->trie[unit_offset(to->trie[0]) ^ c]) == c;
    return 0;
}

void spm_norm_free(struct spm_norm *norm)
{
    free(norm->trie);
    free(norm->pool);
}

/* Bytes of the longest rule that p starts with, and what it puts in their place. */
static size_t longest_rule(const struct spm_norm *norm, const unsigned char *p, size_t n,
                           const char **to)
{
    const uint32_t *trie = norm->trie;
    size_t at = unit_offset(trie[0]), longest = 0;
    uint32_t leaf = 0;

    /* The longest match wins: the search goes on until no rule can follow. */
    for (size_t i = 0; i < n; i++) {
        uint32_t u = trie[at ^= p[i]];

        if (unit_label(u) != p[i])
            break;
        at ^= unit_offset(u);
        if (has_leaf(u)) {
            leaf = trie[at];
            longest = i + 1;
        }
    }
    if (longest)
        *to = norm->pool + (leaf & 0x7FFFFFFFu); /* bit 31 marks a leaf */
    return longest;
}

/* What stands at the start of p: takes *used bytes and gives the n bytes at *to. */
static size_t one_step(const struct spm_norm *norm, const struct spm_trie *user, const char *p,
                       size_t n, size_t *used, const char **to)
{
    const unsigned char *u = (const unsigned char *)p;

    *to = p;
    /* In this order, as the library: user-defined symbols pass untouched, then rules, then
     * one character as it is, then a broken byte as U+FFFD. */
    if (user && (*used = spm_trie_longest(user, p, n)))
        return *used;
    if (norm->trie && norm->starts[*u] && (*used = longest_rule(norm, u, n, to)))
        return strlen(*to);
    if ((*used = spm_utf8(u, n)))
        return *used;
    *used = 1;
    *to = REPLACEMENT;
    return 3;
}

/* Room for what one step may give, at three bytes a byte. */
static int reserve(struct buf *out, size_t n, struct err *e)
{
    if (n <= (out->cap - out->len) / 3)
        return 0;
    return buf_reserve(out, 3 * n + out->len / 2, e);
}

static void put_space(const struct spm_norm *norm, struct buf *out)
{
    if (norm->escape_spaces) {
        memcpy(out->p + out->len, SPACE_MARK, 3);
        out->len += 3;
    } else {
        out->p[out->len++] = ' ';
    }
}

static void put_text(const struct spm_norm *norm, struct buf *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] == ' ')
            put_space(norm, out);
        else
            out->p[out->len++] = p[i];
}

/* Takes spaces off the end of what this call appended, from from on. */
static void strip_end(const struct spm_norm *norm, struct buf *out, size_t from)
{
    const char *space = norm->escape_spaces ? SPACE_MARK : " ";
    size_t n = strlen(space);

    while (out->len - from >= n && memcmp(out->p + out->len - n, space, n) == 0)
        out->len -= n;
}

int spm_normalize(const struct spm_norm *norm, const struct spm_trie *user, const char *text,
                  size_t n, struct buf *out, struct err *e)
{
    size_t from = out->len, i = 0, used, len = 0;
    bool after_space = norm->strip_spaces;
    const char *to;
    int rc;

    if (user && !user->units)
        user = NULL;
    /* Spaces at the start are passed over; a rule may make a space of something else. */
    for (; norm->strip_spaces && i < n; i += used)
        if ((len = one_step(norm, user, text + i, n - i, &used, &to)) != 1 || *to != ' ')
            break;
    if (i == n)
        return 0;
    if ((rc = buf_reserve(out, (n - i) + (n - i) / 4 + 64, e)) < 0)
        return rc;
    if (norm->dummy_prefix && !norm->suffix)
        put_space(norm, out);
    /* after_space: the last thing put was a space, so those that follow are left out. */
    for (; i < n; i += used) {
        len = one_step(norm, user, text + i, n - i, &used, &to);
        while (after_space && len && *to == ' ') {
            to++;
            len--;
        }
        if (len) {
            if ((rc = reserve(out, len + 1, e)) < 0)
                return rc;
            put_text(norm, out, to, len);
            after_space = norm->strip_spaces && to[len - 1] == ' ';
        }
        if (out->len - from > INT32_MAX - 4) /* positions have 32 bits */
            return err_set(e, E_DATA, "the normal form of a text of %zu bytes is too long", n);
    }
    if (norm->strip_spaces)
        strip_end(norm, out, from);
    if ((rc = reserve(out, 1, e)) < 0)
        return rc;
    if (norm->dummy_prefix && norm->suffix)
        put_space(norm, out);
    return 0;
}
