/* train/recipes.c - see recipes.h. */
#include "train/recipes.h"

#include "base/file.h"
#include "base/json.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_BYTES = 1 << 20 }; /* no options.json is longer */

/*
 * The first is what a model is extended with unless the command says otherwise. What is in one
 * stays as it is, since runs that were begun with it are continued with it: a better one has
 * another name. What a recipe does not name has ltrain's default, which is the paper's.
 */
const struct recipe recipes[] = {
    { "mix-2026",
      "RoPE by parts; S2-Attn in small groups, every tenth step and the last twentieth dense",
      "this project's measurements, docs/extension.md",
      "34M model, 1024 to 8192 and 32768 tokens, LoRA+, 150 steps at searched rates, three seeds: "
      "perplexity 1.011 and 1.010 times that of dense training (in the last quarter 1.020 and 1.019), "
      "1.6 and 2.8 times as fast; needles at the end of 8192 tokens are found about half as often as after dense training, nearly as "
      "often with --dense-last 0.25 (one seed)",
      { { .option = "rope", .value = "parts", .unscaled = true },
        { .option = "attention", .value = "s2" },
        { .option = "group-ratio", .value = "1/16", .instead = "group", .s2 = true },
        { .option = "dense-every", .value = "10", .s2 = true },
        { .option = "dense-last", .value = "0.05", .s2 = true } } },
    { "longlora-2023",
      "the LongLoRA paper's to the letter: every step in groups of a quarter of the context",
      "Chen et al. 2023, arXiv:2309.12307, sections 3 and 4.1, and its published command (7B)",
      "34M model, 1024 to 8192 tokens, 600 steps at a rate of 1e-3: perplexity 85.75, and 62.84 "
      "after 150; dense 47.49 and 48.80. Another base, 150 steps at 2.5e-4: 41.39; dense 40.63",
      { { .option = "mode", .value = "lora+" },
        { .option = "rank", .value = "8" },
        { .option = "alpha", .value = "16" },
        { .option = "targets", .value = "q,k,v,o" },
        { .option = "attention", .value = "s2" },
        { .option = "group-ratio", .value = "1/4", .instead = "group", .s2 = true },
        { .option = "dense-every", .value = "0", .s2 = true },
        { .option = "dense-last", .value = "0", .s2 = true },
        { .option = "rope", .value = "pi", .unscaled = true },
        { .option = "rope-factor", .value = "auto" },
        { .option = "packing", .value = "concat" },
        { .option = "batch", .value = "64" },
        { .option = "lr", .value = "2e-5" },
        { .option = "warmup", .value = "20" },
        { .option = "schedule", .value = "constant" },
        { .option = "decay", .value = "0" },
        { .option = "beta1", .value = "0.9" },
        { .option = "beta2", .value = "0.95" },
        { .option = "eps", .value = "1e-8" },
        { .option = "clip", .value = "1" } } },
    { .name = NULL }
};

const struct recipe *recipe_find(const char *name)
{
    for (const struct recipe *r = recipes; r->name; r++)
        if (strcmp(r->name, name) == 0)
            return r;
    return NULL;
}

void recipes_print(FILE *f)
{
    for (const struct recipe *r = recipes; r->name; r++) {
        fprintf(f, "%s%s\n  %s\n  source: %s\n  result: %s\n  sets:  ", r->name,
                r == recipes ? " (default for an existing model)" : "", r->what, r->source,
                r->result);
        for (const struct recipe_row *w = r->row; w->option; w++)
            fprintf(f, " --%s %s", w->option, w->value);
        fputs(r[1].name ? "\n\n" : "\n", f);
    }
}

/* The words of all of them, for messages. */
static int unknown(const char *name, int code, const char *where, struct err *e)
{
    char words[256] = "";

    for (const struct recipe *r = recipes; r->name; r++) {
        size_t n = strlen(words);
        snprintf(words + n, sizeof words - n, "%s%s", n ? ", " : "", r->name);
    }
    return err_set(e, code, "%s '%s' is not one of %s", where, name, words);
}

/* The run that OUT holds, if it is one: *mine, and the recipe it was begun with, which older runs
 * do not name. A record that cannot be read is no reason to stop here (outdir.c, record.c), but for
 * want of memory. */
static int recorded(const struct settings *s, bool *mine, const struct recipe **r, struct err *e)
{
    char *path = path_join(s->out, "options.json");
    struct js record, options = { .obj = NULL };
    struct err why = { 0 };
    const char *name = NULL;
    int rc = js_load(&record, path, RECORD_BYTES, &why);

    *mine = rc == 0;
    if (rc == E_SYS)
        *e = why;
    else
        rc = 0;
    if (*mine && js_object(&record, "options", JS_MAY, &options, NULL) == 0 && options.obj &&
        js_str(&options, "recipe", JS_MAY, &name, NULL) == 0 && name && !(*r = recipe_find(name))) {
        unknown(name, E_CONFIG, "recipe", e);
        err_within(e, "'%s'", path);
        rc = err_hint(e, "continue it with the version that began it, start over with -f, or give "
                         "another folder (-o)");
    }
    if (*mine)
        js_free(&record);
    free(path);
    return rc;
}

static int choose(const struct settings *s, const struct recipe **r, struct err *e)
{
    bool mine = false;
    int rc = 0;

    *r = NULL;
    if (s->recipe)
        return (*r = recipe_find(s->recipe)) ? 0 : unknown(s->recipe, E_USAGE, "--recipe", e);
    if (s->out && !s->force && !s->plan && !s->bench)
        rc = recorded(s, &mine, r, e);
    if (rc == 0 && !mine && (!s->init || s->mode > 0) && s->attention != ATTN_DENSE)
        *r = recipes;
    return rc;
}

static bool is_given(const struct opt *rows, const bool *given, const char *name)
{
    const struct opt *o = name ? opt_find(rows, name) : NULL;

    return o && given[o - rows];
}

__attribute__((format(printf, 3, 4)))
static void add(char *text, size_t cap, const char *fmt, ...)
{
    size_t n = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text + n, cap - n, fmt, ap);
    va_end(ap);
}

int recipe_apply(struct settings *s, const struct opt *rows, const bool *given, char *said,
                 size_t cap, struct err *e)
{
    const struct recipe *r;
    int rc = choose(s, &r, e);

    *said = '\0';
    if (rc < 0 || !r)
        return rc;
    s->recipe = r->name;
    add(said, cap, "recipe %s:", r->name);
    for (const struct recipe_row *w = r->row; w->option && rc == 0; w++) {
        if (is_given(rows, given, w->option) || is_given(rows, given, w->instead) ||
            (w->s2 && s->attention == ATTN_DENSE))
            continue;
        rc = opt_set(opt_find(rows, w->option), w->value, e);
        s->rope.unscaled |= w->unscaled;
        add(said, cap, " --%s %s", w->option, w->value);
    }
    return rc;
}
