/* train/recipes.h - options that belong together, by name: data, and how it is applied. */
#ifndef TRAIN_RECIPES_H
#define TRAIN_RECIPES_H
#include "train/settings.h"
#include <stdio.h>
C_BEGIN

/* A row sets an option, unless the command gives it, or 'instead', which says the same in other
 * words. Rows about S2-Attn are left out where the command says --attention dense. */
struct recipe_row {
    const char *option, *value;
    const char *instead;
    bool s2;
    bool unscaled; /* a kind of RoPE: of models whose RoPE is not scaled yet */
};
struct recipe {
    const char *name, *what;
    const char *source;         /* who says so */
    const char *result;         /* what was measured of it */
    struct recipe_row row[20];  /* up to the first without an option */
};
extern const struct recipe recipes[]; /* up to the first without a name */

const struct recipe *recipe_find(const char *name); /* NULL: none of that name */
/* All of them: what each is, its source, its result, its options. */
void recipes_print(FILE *f);

/*
 * Chooses a recipe and sets what is in it, over the defaults and under the options of the command.
 *
 *     --recipe NAME                          that one
 *     a folder (-o) with a run of ours       the one it was begun with, or none, as it was
 *     an existing model is trained           the first of the list
 *     a fresh one, or --attention dense      none
 *
 * rows: of settings_rows over s. given: for each of them, whether the command has it (struct cmd).
 * s->recipe becomes the name; said (cap bytes): what was set, for people, "" where there is no
 * recipe. E_USAGE: no such recipe. E_CONFIG: the folder's record names one that is not known.
 */
int recipe_apply(struct settings *s, const struct opt *rows, const bool *given, char *said,
                 size_t cap, struct err *e);

C_END
#endif
