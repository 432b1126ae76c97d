/* prep/split.c - see split.h. */
#include "prep/split.h"
#include "base/opt.h"
#include "base/perm.h"
#include "formats/tokens/manifest.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

const char *split_name(const struct split_rules *r, int i)
{
    return i == 0 ? "train" : r->rule[i - 1].name;
}

int split_add(struct split_rules *r, const char *text, struct err *e)
{
    const char *eq = strchr(text, '=');
    struct split_rule *rule = &r->rule[r->n];
    double f;

    if (!eq || !eq[1] || eq - text > 63)
        return err_set(e, E_USAGE, "--split '%.200s' is not NAME=FRACTION or NAME=PATTERN", text);
    if (r->n == SPLIT_MAX)
        return err_set(e, E_USAGE, "--split given more than %d times", SPLIT_MAX);
    *rule = (struct split_rule){0};
    memcpy(rule->name, text, (size_t)(eq - text));
    if (!split_name_ok(rule->name))
        return err_set(e, E_USAGE, "--split '%.200s': a name is letters, digits, '.', '_', '-'",
                       text);
    if (strcmp(rule->name, "train") == 0) {
        err_set(e, E_USAGE, "--split '%.200s': train is what the other splits leave", text);
        return err_hint(e, "name the others, as in --split validation=0.05; what is in another "
                        "split is not trained on");
    }
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->rule[i].name, rule->name) == 0)
            return err_set(e, E_USAGE, "--split '%s' given twice", rule->name);
    /* What is no number is a pattern. */
    if (!num_f64(eq + 1, &f)) {
        rule->glob = eq + 1;
    } else {
        /* Fractions lie end to end: 0.05 and 0.1 become [0, 0.05) and [0.05, 0.15). */
        rule->from = r->taken;
        rule->to = r->taken += f;
        if (f <= 0 || f >= 1 || r->taken >= 1)
            return err_set(e, E_USAGE, "--split '%.200s': fractions must be between 0 and 1, and "
                           "their sum below 1", text);
    }
    r->n++;
    return 0;
}

/* The name is tried whole, then from behind each '/' and ':' on: "val/?.txt" takes
 * "a/val/1.txt". */
static bool glob_takes(const char *glob, const struct token_doc *doc)
{
    if (fnmatch(glob, doc->source, 0) == 0 || fnmatch(glob, doc->name, 0) == 0)
        return true;
    for (const char *p = strpbrk(doc->name, "/:"); p; p = strpbrk(p + 1, "/:"))
        if (fnmatch(glob, p + 1, 0) == 0)
            return true;
    return false;
}

int split_of(const struct split_rules *r, int64_t seed, const struct token_doc *doc)
{
    uint64_t h = mix64(mix64((uint64_t)seed) ^ doc->text_hash);
    /* In [0, 1): the upper 53 bits of h are what a double holds exactly. */
    double u = (double)(h >> 11) * 0x1p-53;

    /* Patterns first: a document that one takes is in no split by fraction. */
    for (int i = 0; i < r->n; i++)
        if (r->rule[i].glob && glob_takes(r->rule[i].glob, doc))
            return i + 1;
    for (int i = 0; i < r->n; i++)
        if (!r->rule[i].glob && u >= r->rule[i].from && u < r->rule[i].to)
            return i + 1;
    return 0;
}
