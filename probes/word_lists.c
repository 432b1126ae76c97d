/* probes/word_lists.c - reading lists of words; all pairs of an adjective and a noun in order. */
#include "probes/word_lists.h"

#include "base/file.h"
#include "base/json.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int out_of_memory(struct err *e)
{
    return err_set(e, E_SYS, "out of memory for words");
}

/* What word_lists_read has taken: text of three files, the object of a fourth, arrays of pointers. */
struct owned {
    char *text[3];
    struct js json;
    const char **word[4];
};

static int no_word(const char *path, int64_t line, struct err *e)
{
    return err_set(e, E_DATA, "'%s' has no word in line %" PRId64, path, line);
}

/* Cuts text, which ends in a NUL, into its lines without white space at their ends. */
static int cut_lines(char *text, const char *path, const char ***word, struct word_list *l,
                     struct err *e)
{
    size_t lines = 1;

    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    if (!(*word = malloc(lines * sizeof **word)))
        return out_of_memory(e);
    for (char *p = text, *next; *p; p = next) {
        char *end = p + strcspn(p, "\n");

        next = *end ? end + 1 : end;
        while (end > p && isspace((unsigned char)end[-1]))
            end--;
        *end = 0;
        if (end == p)
            return no_word(path, l->n + 1, e);
        (*word)[l->n++] = p;
    }
    l->word = *word;
    return l->n ? 0 : no_word(path, 1, e);
}

static int read_lines(struct owned *o, int i, const char *folder, const char *name,
                      struct word_list *l, struct err *e)
{
    char path[4096];
    size_t n, at;
    int rc;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return err_set(e, E_NOINPUT, "the name of the folder '%.100s...' is too long", folder);
    if ((rc = file_read(path, JS_MAX_BYTES, &o->text[i], &n, e)) < 0)
        return rc;
    if (!utf8_valid(o->text[i], n, &at) || strlen(o->text[i]) != n)
        return err_set(e, E_DATA, "'%s' is not a list of words in UTF-8", path);
    return cut_lines(o->text[i], path, &o->word[i], l, e);
}

/* The values of RULER's object of numbered words, in the order of the file. */
static int read_more(struct owned *o, const char *folder, struct word_list *l, struct err *e)
{
    char path[4096];
    const char *key;
    json_t *value;
    int rc;

    if (snprintf(path, sizeof path, "%s/english_words.json", folder) >= (int)sizeof path ||
        access(path, F_OK) != 0)
        return 0;
    if ((rc = js_load(&o->json, path, JS_MAX_BYTES, e)) < 0)
        return rc;
    if (!(o->word[3] = malloc((json_object_size(o->json.obj) + 1) * sizeof *o->word[3])))
        return out_of_memory(e);
    json_object_foreach(o->json.obj, key, value) {
        const char *word = json_string_value(value);

        if (!word || !*word || strlen(word) != json_string_length(value))
            return err_set(e, E_DATA, "'%s': '%s' is no word", path, key);
        o->word[3][l->n++] = word;
    }
    l->word = o->word[3];
    return 0;
}

int word_lists_read(struct word_lists *w, const char *folder, struct err *e)
{
    struct owned *o = calloc(1, sizeof *o);
    int rc;

    *w = (struct word_lists){ .owned = o };
    if (!o)
        return out_of_memory(e);
    if ((rc = read_lines(o, 0, folder, "nounlist.txt", &w->nouns, e)) < 0 ||
        (rc = read_lines(o, 1, folder, "adjectivelist.txt", &w->adjectives, e)) < 0 ||
        (rc = read_lines(o, 2, folder, "verblist.txt", &w->verbs, e)) < 0 ||
        (rc = read_more(o, folder, &w->more, e)) < 0)
        word_lists_free(w);
    return rc;
}

void word_lists_free(struct word_lists *w)
{
    struct owned *o = w->owned;

    if (o) {
        for (int i = 0; i < 3; i++)
            free(o->text[i]);
        for (int i = 0; i < 4; i++)
            free(o->word[i]);
        js_free(&o->json);
        free(o);
    }
    *w = (struct word_lists){ 0 };
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Of adjectives, with the hyphen that comes behind them. */
static int by_pair(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;

    while (*x && *x == *y)
        x++, y++;
    if (*x && *y)
        return (unsigned char)*x - (unsigned char)*y;
    if (!*x && !*y)
        return 0;
    if (!*x)
        return *y == '-' ? -1 : '-' - (unsigned char)*y;
    return *x == '-' ? 1 : (unsigned char)*x - '-';
}

/* Sorted, each once; how many are left. */
static int64_t sorted_once(const char **word, int64_t n, int (*order)(const void *, const void *))
{
    int64_t kept = 0;

    qsort(word, (size_t)n, sizeof *word, order);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(word[i], word[kept - 1]) != 0)
            word[kept++] = word[i];
    return kept;
}

int word_lists_all(const struct word_lists *w, const char ***all, int64_t *n, struct err *e)
{
    const struct word_list *l[] = { &w->nouns, &w->adjectives, &w->verbs };

    *n = 0;
    *all = malloc((size_t)(l[0]->n + l[1]->n + l[2]->n + 1) * sizeof **all);
    if (!*all)
        return out_of_memory(e);
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < l[k]->n; i++)
            (*all)[(*n)++] = l[k]->word[i];
    *n = sorted_once(*all, *n, by_bytes);
    return 0;
}

/*
 * "blue-..." of every noun comes before "boring-...": so pairs go by adjective, and then by noun, but
 * where one adjective begins with another and a hyphen, as "blue-eyed" does with "blue". Pairs of such
 * adjectives are made and sorted; of all others the i-th is known.
 */
enum { MOST_MADE = 10000000 };
struct block {
    const char *adjective; /* NULL: the pairs are in made */
    char **made;
    int64_t from, n;
};
struct word_pairs {
    const char **noun, **adjective;
    int64_t n_nouns, n_adjectives;
    struct block *block;
    int64_t n_blocks, n;
};

static bool goes_on(const char *adjective, const char *with)
{
    size_t n = strlen(adjective);

    return strncmp(with, adjective, n) == 0 && with[n] == '-';
}

/* All pairs of the adjectives [from, to). */
static int make_block(struct word_pairs *p, struct block *b, int64_t from, int64_t to, struct err *e)
{
    int64_t n = 0;

    if (to - from > MOST_MADE / p->n_nouns)
        return err_set(e, E_DATA, "%" PRId64 " adjectives begin with '%s-': they make more than %d pairs",
                       to - from, p->adjective[from], MOST_MADE);
    if (!(b->made = calloc((size_t)((to - from) * p->n_nouns) + 1, sizeof *b->made)))
        return out_of_memory(e);
    for (int64_t a = from; a < to; a++)
        for (int64_t i = 0; i < p->n_nouns; i++)
            if (asprintf(&b->made[n++], "%s-%s", p->adjective[a], p->noun[i]) < 0) {
                b->made[n - 1] = NULL;
                return out_of_memory(e);
            }
    qsort(b->made, (size_t)n, sizeof *b->made, by_bytes);
    for (int64_t i = b->n = 1; i < n; i++)
        if (strcmp(b->made[i], b->made[b->n - 1]) != 0) {
            char *s = b->made[b->n];

            b->made[b->n++] = b->made[i];
            b->made[i] = s; /* what is not used stays owned, behind the n that are */
        }
    return 0;
}

static int make_blocks(struct word_pairs *p, struct err *e)
{
    int64_t to;
    int rc = 0;

    for (int64_t a = 0; a < p->n_adjectives && rc == 0; a = to) {
        struct block *b = &p->block[p->n_blocks++];

        for (to = a + 1; to < p->n_adjectives && goes_on(p->adjective[a], p->adjective[to]);)
            to++;
        b->from = p->n;
        if (to == a + 1) {
            b->adjective = p->adjective[a];
            b->n = p->n_nouns;
        } else {
            rc = make_block(p, b, a, to, e);
        }
        p->n += b->n;
    }
    return rc;
}

static int copy_sorted(const struct word_list *l, int (*order)(const void *, const void *),
                       const char ***to, int64_t *n, struct err *e)
{
    if (!(*to = malloc((size_t)(l->n + 1) * sizeof **to)))
        return out_of_memory(e);
    if (l->n)
        memcpy(*to, l->word, (size_t)l->n * sizeof **to);
    *n = sorted_once(*to, l->n, order);
    return 0;
}

int word_pairs_open(struct word_pairs **out, const struct word_lists *w, struct err *e)
{
    struct word_pairs *p = *out = calloc(1, sizeof *p);
    int rc;

    if (!p)
        return out_of_memory(e);
    if (w->nouns.n < 1 || w->adjectives.n < 1)
        rc = err_set(e, E_BUG, "no words");
    else if ((rc = copy_sorted(&w->nouns, by_bytes, &p->noun, &p->n_nouns, e)) == 0 &&
        (rc = copy_sorted(&w->adjectives, by_pair, &p->adjective, &p->n_adjectives, e)) == 0) {
        p->block = calloc((size_t)p->n_adjectives + 1, sizeof *p->block);
        rc = p->block ? make_blocks(p, e) : out_of_memory(e);
    }
    if (rc < 0) {
        word_pairs_close(p);
        *out = NULL;
    }
    return rc;
}

void word_pairs_close(struct word_pairs *p)
{
    if (!p)
        return;
    for (int64_t b = 0; b < p->n_blocks; b++) { /* those of which there were two lie behind the n */
        for (int64_t i = 0; p->block[b].made && p->block[b].made[i]; i++)
            free(p->block[b].made[i]);
        free(p->block[b].made);
    }
    free(p->block);
    free(p->noun);
    free(p->adjective);
    free(p);
}

int64_t word_pairs_count(const struct word_pairs *p) { return p->n; }

int word_pairs_add(const struct word_pairs *p, int64_t i, struct buf *out, struct err *e)
{
    int64_t low = 0, high = p->n_blocks - 1;
    const struct block *b;

    while (low < high) {
        int64_t mid = (low + high + 1) / 2;

        if (p->block[mid].from <= i)
            low = mid;
        else
            high = mid - 1;
    }
    b = &p->block[low];
    i -= b->from;
    if (b->adjective)
        return buf_printf(out, e, "%s-%s", b->adjective, p->noun[i]);
    return buf_add(out, b->made[i], strlen(b->made[i]), e);
}
