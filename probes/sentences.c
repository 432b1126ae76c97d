/* probes/sentences.c - text cut into sentences, as Punkt does it. */
#include "probes/sentences.h"

#include "base/bytes.h"
#include "formats/tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

/* Words with a full stop behind them that ends no sentence, in order. */
static const char *const abbreviations[] = {
    "adm", "approx", "apr", "assn", "assoc", "aug", "ave", "bldg", "blvd", "bros", "capt", "cf",
    "chap", "cie", "co", "col", "comdr", "corp", "cos", "ct", "dec", "dept", "dr", "eds", "esq",
    "etc", "feb", "fri", "ft", "gen", "gov", "hon", "inc", "jan", "jr", "jul", "jun", "lieut",
    "lt", "ltd", "maj", "messrs", "mlle", "mme", "mr", "mrs", "ms", "mt", "mts", "nov", "oct",
    "ph.d", "phila", "pp", "prof", "pvt", "reps", "rev", "sen", "sens", "sep", "sept", "sgt",
    "sr", "st", "ste", "supt", "tues", "viz", "vol", "vols", "vs", "yr", "yrs",
};
/* Words that are written small inside sentences: a capital means that one begins, in order. */
static const char *const starters[] = {
    "a", "after", "all", "although", "among", "an", "and", "another", "any", "are", "as", "at",
    "be", "because", "before", "both", "but", "by", "can", "could", "did", "do", "each", "even",
    "every", "for", "from", "had", "has", "have", "he", "her", "here", "hers", "his", "how",
    "however", "if", "in", "indeed", "instead", "is", "it", "its", "let", "many", "may",
    "meanwhile", "more", "most", "my", "nevertheless", "no", "nor", "not", "now", "of", "on",
    "once", "one", "only", "or", "other", "our", "perhaps", "she", "should", "since", "so",
    "some", "still", "such", "than", "that", "the", "their", "then", "there", "therefore",
    "these", "they", "this", "those", "though", "through", "thus", "to", "too", "two", "under",
    "until", "was", "we", "were", "what", "when", "where", "whether", "which", "while", "who",
    "why", "will", "with", "without", "would", "yes", "yet", "you", "your",
};
#define COUNT(list) (int)(sizeof(list) / sizeof *(list))

size_t space_at(const char *p, const char *end)
{
    unsigned char c = (unsigned char)*p;
    size_t n;

    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
    if (c != 0xC2 && (c < 0xE1 || c > 0xE3)) /* where all others lie */
        return 0;
    if (unicode_bits(unicode_at(p, &n)) & UNI_SPACE && n <= (size_t)(end - p))
        return n;
    return 0;
}

/* The same in a pattern, where the four separators of ASCII are none. */
static size_t gap_at(const char *p, const char *end)
{
    return *p >= 28 && *p < 32 ? 0 : space_at(p, end);
}

/* Bytes of one of the quotation marks that are not ASCII, or 0. */
static size_t quote_at(const char *p, const char *end)
{
    size_t left = (size_t)(end - p);

    if (left >= 2 && (memcmp(p, "\u00ab", 2) == 0 || memcmp(p, "\u00bb", 2) == 0))
        return 2;
    return left >= 3 && (memcmp(p, "\u2018", 3) == 0 || memcmp(p, "\u2019", 3) == 0 ||
                         memcmp(p, "\u201c", 3) == 0 || memcmp(p, "\u201d", 3) == 0) ? 3 : 0;
}

/* What an ASCII character may be. */
enum { MARK = 1, NO_WORD = 2, CLOSER = 4, NO_START = 8, INNER = 16, BLANK = 32 };
static const unsigned char kinds[128] = {
    ['.'] = MARK | INNER, ['?'] = MARK | NO_WORD | INNER, ['!'] = MARK | NO_WORD | INNER,
    [')'] = NO_WORD | CLOSER | NO_START, ['"'] = NO_WORD | CLOSER | NO_START,
    ['}'] = NO_WORD | CLOSER | NO_START, [']'] = NO_WORD | CLOSER | NO_START,
    ['\''] = NO_WORD | CLOSER, [';'] = NO_WORD | NO_START | INNER,
    [':'] = NO_WORD | NO_START | INNER, ['*'] = NO_WORD | NO_START, ['@'] = NO_WORD | NO_START,
    ['('] = NO_WORD | NO_START, ['{'] = NO_WORD | NO_START, ['['] = NO_WORD | NO_START,
    ['`'] = NO_START, ['&'] = NO_START, ['#'] = NO_START, ['-'] = NO_START,
    [','] = NO_START | INNER, [' '] = BLANK, ['\t'] = BLANK, ['\n'] = BLANK, ['\v'] = BLANK,
    ['\f'] = BLANK, ['\r'] = BLANK,
};
static bool is(char c, int kind) { return c >= 0 && kinds[(int)c] & kind; }

/* What may not be inside a word, and what may close a sentence behind its full stop: bytes or 0. */
static size_t no_word_at(const char *p, const char *end)
{
    return *p & 0x80 ? quote_at(p, end) : is(*p, NO_WORD);
}
static size_t closer_at(const char *p, const char *end)
{
    return *p & 0x80 ? quote_at(p, end) : is(*p, CLOSER);
}

/* Dashes or dots in a row, or dots with white space between them, three or more. */
static size_t row_at(const char *p, const char *end)
{
    const char *q = p;
    size_t space;
    int dots = 1;

    if (*p != '-' && *p != '.')
        return 0;
    while (q < end && *q == *p)
        q++;
    if (q - p > 1)
        return (size_t)(q - p);
    if (*p == '-')
        return 0;
    for (; q < end && *q != '\n' && (space = gap_at(q, end)) > 0; dots++) {
        if (q + space == end || q[space] != '.')
            break;
        q += space + 1;
    }
    return dots > 2 ? (size_t)(q - p) : 0;
}

struct token {
    const char *from, *to;
    bool breaks, abbreviation, dots;
};

/* Whether a word may end before p. */
static bool word_ends(const char *p, const char *end)
{
    if (p == end || gap_at(p, end) || no_word_at(p, end) || row_at(p, end))
        return true;
    if (*p != ',')
        return false;
    return ++p == end || gap_at(p, end) || no_word_at(p, end) || row_at(p, end);
}

/* The next token at or after *p: a word, or one mark; false: there is none. */
static bool next_token(const char **p, const char *end, struct token *t)
{
    size_t n;

    while (*p < end && (n = gap_at(*p, end)) > 0)
        *p += n;
    if (*p == end)
        return false;
    *t = (struct token){ .from = *p };
    if ((n = row_at(*p, end)) == 0) {
        unicode_at(*p, &n);
        if (!is(**p, NO_START))
            for (const char *q; !word_ends(*p + n, end); n += (size_t)(q - (*p + n))) {
                size_t bytes;

                unicode_at(*p + n, &bytes);
                q = *p + n + bytes;
            }
    }
    t->to = *p += n;
    return true;
}

/* The n bytes at a, in small letters, against a word. */
static int word_order(const char *a, size_t n, const char *b)
{
    for (size_t i = 0; i < n; i++) {
        const int c = (unsigned char)(a[i] >= 'A' && a[i] <= 'Z' ? a[i] + 32 : a[i]);

        if (!b[i]) /* a NUL of the text is no end */
            return 1;
        if (c != (unsigned char)b[i])
            return c - (unsigned char)b[i];
    }
    return b[n] ? -1 : 0;
}

static bool listed(const char *const *list, int count, const char *from, const char *to)
{
    int low = 0, high = count;

    while (low < high) {
        int mid = (low + high) / 2, c = word_order(from, (size_t)(to - from), list[mid]);

        if (c == 0)
            return true;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return false;
}

/* Single letters with full stops between them: "p.m" without its last. */
static bool are_letters(const char *from, const char *to)
{
    if ((to - from) % 2 == 0 || to - from < 3)
        return false;
    for (; from < to; from += 2)
        if ((*from | 32) < 'a' || (*from | 32) > 'z' || (from + 1 < to && from[1] != '.'))
            return false;
    return true;
}

/* The word, or what is behind its last hyphen. */
static bool is_abbreviation(const char *from, const char *to)
{
    const char *part = to;

    while (part > from && part[-1] != '-')
        part--;
    return listed(abbreviations, COUNT(abbreviations), from, to) || are_letters(from, to) ||
           listed(abbreviations, COUNT(abbreviations), part, to);
}

static uint64_t first_bits(const struct token *t)
{
    size_t n;

    return unicode_bits(unicode_at(t->from, &n));
}

/* One letter and a full stop. */
static bool is_initial(const struct token *t)
{
    size_t n;
    uint64_t bits = unicode_bits(unicode_at(t->from, &n));

    return t->to == t->from + n + 1 && t->from[n] == '.' && bits & UNI_WORD && !(bits & 1ull << UNI_ND);
}

static bool digit_at(const char *p, const char *end, size_t *n)
{
    unicode_at(p, n);
    return p + *n <= end && (*p & 0x80 ? unicode_bits(unicode_at(p, n)) >> UNI_ND & 1 : *p >= '0' && *p <= '9');
}

/* Digits with , . and - inside, a sign before them, a full stop behind. */
static bool is_number(const struct token *t)
{
    const char *p = t->from;
    size_t n;

    if (*p == '-')
        p++;
    if (p < t->to && (*p == '.' || *p == ','))
        p++;
    if (p >= t->to || !digit_at(p, t->to, &n))
        return false;
    for (p += n; p < t->to; p += n)
        if (!digit_at(p, t->to, &n) && *p != ',' && *p != '.' && *p != '-')
            return false;
    return true;
}

/* What the token alone says. */
static void look_at(struct token *t, enum sentence_ends ends)
{
    size_t n = (size_t)(t->to - t->from), dots = 0;

    while (dots < n && t->from[dots] == '.')
        dots++;
    if (n == 1 && is(*t->from, MARK))
        t->breaks = true;
    else if (dots == n && n > 1)
        t->dots = true;
    else if (t->to[-1] == '.' && !(n > 1 && t->to[-2] == '.')) {
        t->abbreviation = ends == SENTENCES_ENGLISH && is_abbreviation(t->from, t->to - 1);
        t->breaks = !t->abbreviation;
    }
}

/* What the token behind it says, too. */
static void look_on(struct token *t, const struct token *next, enum sentence_ends ends)
{
    const bool initial = is_initial(t), upper = first_bits(next) >> UNI_LU & 1;
    const char *to = next->to[-1] == '.' && next->to - next->from > 1 ? next->to - 1 : next->to;
    const bool starts = ends == SENTENCES_ENGLISH && upper &&
                        listed(starters, COUNT(starters), next->from, to);
    const bool goes_on = first_bits(next) >> UNI_LL & 1 ||
                         (next->to - next->from == 1 && is(*next->from, INNER));

    if (t->to[-1] != '.')
        return;
    if ((t->abbreviation || t->dots) && !initial && starts)
        t->breaks = true;
    else if ((initial || is_number(t)) && (goes_on || (initial && upper && !starts)))
        t->breaks = false;
}

/* Whether a sentence ends inside a word, the mark behind it and what follows. */
static bool has_break(const char *p, const char *end, enum sentence_ends ends)
{
    struct token t, next;

    if (!next_token(&p, end, &t))
        return false;
    look_at(&t, ends);
    while (next_token(&p, end, &next)) {
        look_at(&next, ends);
        look_on(&t, &next, ends);
        if (t.breaks)
            return true;
        t = next;
    }
    return false;
}

/* A mark that may end a sentence: the word before it, the mark itself, what is behind it. */
struct mark {
    const char *word, *at, *next, *end; /* next: the following word, or the character behind the mark */
};

static bool mark_at(const char *p, const char *end, struct mark *m)
{
    const char *q = p + 1;
    size_t n;

    if (!is(*p, MARK) || q == end)
        return false;
    *m = (struct mark){ .at = p, .next = q };
    if ((n = no_word_at(q, end)) > 0) {
        m->end = q + n;
        return true;
    }
    while (q < end && (n = gap_at(q, end)) > 0)
        q += n;
    if (q == p + 1 || q == end)
        return false;
    for (m->next = q; q < end && !gap_at(q, end);) {
        unicode_at(q, &n);
        q += n;
    }
    m->end = q;
    return true;
}

static int add(struct sentences *s, size_t from, size_t to, struct err *e)
{
    int rc = array_grow(&s->at, &s->cap, (size_t)s->n, sizeof *s->at, 64, "sentences", e);

    if (rc == 0)
        s->at[s->n++] = (struct sentence){ from, to };
    return rc;
}

/* The start of the word before a mark: behind the last ASCII white space since the mark before it. */
static const char *word_before(const char *at, const struct mark *before, const char *text)
{
    const char *from = before->at ? before->at : text, *p = at;

    while (p > from && !is(p[-1], BLANK))
        p--;
    return p > from + 1 ? p : before->at ? before->word : text;
}

/* One sentence to the mark m, if it ends there; *from is where it begins, and then the next one. */
static int cut_at(struct sentences *s, enum sentence_ends ends, const char *text, const char **from,
                  const struct mark *m, struct err *e)
{
    int rc;

    if (!m->at || !has_break(m->word, m->end, ends))
        return 0;
    rc = add(s, (size_t)(*from - text), (size_t)(m->at + 1 - text), e);
    *from = m->next;
    return rc;
}

/* Each sentence to its mark, what closes it left to the next. Of marks in one word the last counts. */
static int cut_at_marks(struct sentences *s, enum sentence_ends ends, const char *text, size_t n,
                        struct err *e)
{
    const char *const end = text + n, *from = text, *last = end;
    struct mark before = { 0 }, m = { 0 };
    size_t bytes;
    int rc = 0;

    for (const char *p = text; p < end && rc == 0; p++)
        if (mark_at(p, end, &m)) {
            m.word = word_before(p, &before, text);
            if (before.at <= m.word)
                rc = cut_at(s, ends, text, &from, &before, e);
            before = m;
        }
    if (rc == 0)
        rc = cut_at(s, ends, text, &from, &before, e);
    for (; last > from; last -= bytes) {
        unicode_before(text, (size_t)(last - text), &bytes);
        if (!space_at(last - bytes, last))
            break;
    }
    return rc < 0 ? rc : add(s, (size_t)(from - text), (size_t)(last - text), e);
}

/* Bytes at p of what closes a sentence and the white space behind; *marks without that. 0: none. */
static size_t closing(const char *p, const char *end, size_t *marks)
{
    const char *q = p;
    size_t n;

    while (q < end && (n = closer_at(q, end)) > 0) {
        q += n;
        *marks = (size_t)(q - p);
        if (q == end || (end - q > 1 && q[0] == '-' && q[1] == '-'))
            return *marks;
        if (gap_at(q, end)) {
            while (q < end && (n = gap_at(q, end)) > 0)
                q += n;
            return (size_t)(q - p);
        }
    }
    return 0;
}

/* What closes a sentence goes from the start of the next to its end. */
static void close_sentences(struct sentences *s, const char *text)
{
    int64_t kept = 0;
    size_t skip = 0, marks = 0;

    for (int64_t i = 0; i < s->n; i++) {
        struct sentence now = { s->at[i].from + skip, s->at[i].to };

        skip = 0;
        if (i + 1 < s->n)
            skip = closing(text + s->at[i + 1].from, text + s->at[i + 1].to, &marks);
        if (skip > 0)
            now.to = s->at[i + 1].from + marks;
        if (skip > 0 || now.from < now.to)
            s->at[kept++] = now;
    }
    s->n = kept;
}

int sentences_cut(struct sentences *s, enum sentence_ends ends, const char *text, size_t nbytes,
                  struct err *e)
{
    int rc = unicode_open(e);

    s->n = 0;
    if (rc == 0 && (rc = cut_at_marks(s, ends, text, nbytes, e)) == 0)
        close_sentences(s, text);
    return rc;
}

void sentences_free(struct sentences *s)
{
    free(s->at);
    *s = (struct sentences){ 0 };
}
