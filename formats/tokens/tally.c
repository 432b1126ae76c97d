/* formats/tokens/tally.c - see tally.h. */
#include "formats/tokens/tally.h"

#include "base/bytes.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By enum drop: the name in files and options, and the words in messages for people. */
static const struct {
    const char *name, *words;
} drops[DROPS] = {
    { "kept", "kept" },
    { "empty", "empty" },
    { "short", "too short" },
    { "long", "too long" },
    { "language", "of another language" },
    { "where", "by --where" },
    { "sample", "by --sample" },
    { "few_tokens", "of too few tokens" },
    { "many_tokens", "of too many tokens" },
    { "contaminated", "contaminated" },
    { "copies", "copies" },
    { "near_copies", "near copies" },
    { "bad_documents", "bad documents" },
};

const char *drop_name(enum drop d) { return drops[d].name; }
const char *drop_words(enum drop d) { return drops[d].words; }

enum drop drop_of(const char *name)
{
    /* 0 is KEPT, which is no reason for leaving a document out. */
    int d = 1;

    while (d < DROPS && strcmp(drops[d].name, name) != 0)
        d++;
    return (enum drop)d;
}

/* Where a name stands in the sorted list, or where it would have to be put. */
static int64_t place(const struct tally *t, const char *name, bool *found)
{
    int64_t lo = 0, hi = t->n;

    *found = false;
    while (lo < hi && !*found) {
        int64_t mid = (lo + hi) / 2;
        int order = strcmp(t->v[mid].name, name);
        if ((*found = order == 0))
            return mid;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct tally_source *tally_find(const struct tally *t, const char *name)
{
    bool found;
    int64_t at = place(t, name, &found);

    return found ? &t->v[at] : NULL;
}

int tally_of(struct tally *t, const char *name, struct tally_source **s, struct err *e)
{
    bool found;
    int64_t at = place(t, name, &found);

    if (!found && t->n == TALLY_MAX_SOURCES)
        return err_set(e, E_DATA, "more than %d different sources", TALLY_MAX_SOURCES);
    /* A new source moves others, so that pointers from earlier calls no longer hold. */
    if (!found && array_grow(&t->v, &t->cap, (size_t)t->n, sizeof *t->v, 8, "sources", e) < 0)
        return E_SYS;
    if (!found) {
        /* Makes room at the sorted place, which moves the sources after it. */
        memmove(t->v + at + 1, t->v + at, (size_t)(t->n++ - at) * sizeof *t->v);
        t->v[at] = (struct tally_source){ 0 };
        snprintf(t->v[at].name, sizeof t->v[at].name, "%s", name);
    }
    *s = &t->v[at];
    return 0;
}

/* All fields are added even when one overflows: after a failure the sums are of no use. */
int tally_source_add(struct tally_source *to, const struct tally_source *from, struct err *e)
{
    bool over = __builtin_add_overflow(to->docs, from->docs, &to->docs);

    over |= __builtin_add_overflow(to->tokens, from->tokens, &to->tokens);
    over |= __builtin_add_overflow(to->masked, from->masked, &to->masked);
    over |= __builtin_add_overflow(to->bytes, from->bytes, &to->bytes);
    over |= __builtin_add_overflow(to->words, from->words, &to->words);
    for (int k = 0; k < DROPS; k++)
        over |= __builtin_add_overflow(to->dropped[k], from->dropped[k], &to->dropped[k]);
    return over ? err_set(e, E_DATA, "counts of source '%s' overflow", from->name) : 0;
}

/* Of documents that are left out with probability p, p / (1 - p) go for each that is kept. */
void tally_false_copy(struct tally *t, double chance)
{
    /* The bound keeps p / (1 - p) below a million, so that one document cannot outweigh all
     * others. */
    double p = chance < 0.999999 ? chance : 0.999999;
    int64_t last = (int64_t)(p * TALLY_CHANCE + 0.5);

    if (__builtin_add_overflow(t->false_copies, (int64_t)(p / (1 - p) * TALLY_CHANCE + 0.5),
                               &t->false_copies))
        t->false_copies = INT64_MAX;
    if (last > t->false_copy_chance)
        t->false_copy_chance = last;
}

/* Adds what is not counted by source. The number of false copies stops at its largest value, as
 * it is an estimate; of the two chances the larger one stays. */
static int add_bad(struct tally *to, const struct tally *from, struct err *e)
{
    if (__builtin_add_overflow(to->false_copies, from->false_copies, &to->false_copies))
        to->false_copies = INT64_MAX; /* nine million */
    if (from->false_copy_chance > to->false_copy_chance)
        to->false_copy_chance = from->false_copy_chance;
    if (__builtin_add_overflow(to->bad_docs, from->bad_docs, &to->bad_docs) ||
        __builtin_add_overflow(to->bad_files, from->bad_files, &to->bad_files))
        return err_set(e, E_DATA, "counts of bad documents and files overflow");
    return 0;
}

/* Adds source by source. A failure in the middle leaves 'to' half added. */
int tally_add(struct tally *to, const struct tally *from, struct err *e)
{
    struct tally_source *s;
    int rc = 0;

    for (int64_t i = 0; i < from->n && rc == 0; i++)
        if ((rc = tally_of(to, from->v[i].name, &s, e)) == 0)
            rc = tally_source_add(s, &from->v[i], e);
    return rc < 0 ? rc : add_bad(to, from, e);
}

int tally_add_dropped(struct tally *to, const struct tally *from, struct err *e)
{
    struct tally_source *s;
    int rc = 0;

    for (int64_t i = 0; i < from->n && rc == 0; i++) {
        /* A copy with the counts of dropped documents alone; all others stay 0. */
        struct tally_source dropped = { .docs = 0 };
        int64_t any = 0;
        memcpy(dropped.name, from->v[i].name, sizeof dropped.name);
        memcpy(dropped.dropped, from->v[i].dropped, sizeof dropped.dropped);
        for (int d = 0; d < DROPS; d++)
            any |= dropped.dropped[d];
        if (any && (rc = tally_of(to, dropped.name, &s, e)) == 0)
            rc = tally_source_add(s, &dropped, e);
    }
    return rc < 0 ? rc : add_bad(to, from, e);
}

int tally_sum(const struct tally *t, struct tally_source *all, struct err *e)
{
    int rc = 0;

    *all = (struct tally_source){ 0 };
    for (int64_t i = 0; i < t->n && rc == 0; i++)
        rc = tally_source_add(all, &t->v[i], e);
    /* Bad documents are counted beside the sources, so their sum is set and not added. */
    all->dropped[DROP_BAD] = t->bad_docs;
    return rc;
}

void tally_clear(struct tally *t)
{
    t->n = t->bad_docs = t->bad_files = t->false_copies = t->false_copy_chance = 0;
}

void tally_free(struct tally *t)
{
    free(t->v);
    *t = (struct tally){ 0 };
}
