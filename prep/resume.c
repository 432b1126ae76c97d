/* prep/resume.c - see resume.h.
 *
 * A run may continue another only if it would have made the same documents. So the journal
 * holds the other's inputs and its recipe: the options and files that documents depend on, as
 * text. Both are compared with this run's before anything is skipped.
 */
#include "prep/resume.h"

#include "formats/tokens/document.h"
#include "formats/text/source_list.h"

#include <stdlib.h>
#include <string.h>

/* A line "name value" for an option: its value now, whether it was given or is the default. */
static int add_option(struct buf *b, const struct opt *o, struct err *e)
{
    const struct opt_list *list = o->dst;
    const char *word = o->arg;
    int rc = 0;

    switch (opt_type(o)) {
    case OPT_FLAG:
        return *(const bool *)o->dst ? buf_printf(b, e, "%s\n", o->name) : 0;
    case OPT_STR:
        word = *(const char *const *)o->dst;
        return word ? buf_printf(b, e, "%s %s\n", o->name, word) : 0;
    case OPT_LIST:
        for (int i = 0; i < list->n && rc == 0; i++)
            rc = buf_printf(b, e, "%s %s\n", o->name, list->v[i]);
        return rc;
    case OPT_F64:
        return buf_printf(b, e, "%s %.17g\n", o->name, *(const double *)o->dst);
    /* The value is a number; its word is found in the row's "a|b|c". */
    case OPT_ENUM:
        for (int i = 0; i < *(const int *)o->dst && word; i++)
            word = strchr(word, '|') ? strchr(word, '|') + 1 : NULL;
        return buf_printf(b, e, "%s %.*s\n", o->name, (int)strcspn(word ? word : "", "|"),
                          word ? word : "");
    default:
        return buf_printf(b, e, "%s %lld\n", o->name, (long long)*(const int64_t *)o->dst);
    }
}

/* A line for each file of --decontaminate, with
 * size and time: other contents are another recipe. */
static int add_eval_files(struct buf *b, const struct opt_list *eval, struct err *e)
{
    struct source_list l = { .n = 0 };
    int rc = eval->n ? source_list_fill(&l, eval->v, eval->n, e) : 0;

    for (int64_t i = 0; i < l.n && rc == 0; i++)
        rc = buf_printf(b, e, "decontaminate %s, %lld bytes of %lld\n",
                        l.v[i].path ? l.v[i].path : "-", (long long)l.v[i].bytes,
                        (long long)l.v[i].mtime_ns);
    source_list_free(&l);
    return rc;
}

/* Makes the text that two runs must share for the second to continue the first: program
 * version, options and files that documents depend on. */
static int recipe_make(struct buf *b, const struct opt *opts, const struct opt_list *eval,
                       struct err *e)
{
    size_t bad;
    int rc = buf_printf(b, e, "lprep " LONGLORA_VERSION "\n");

    for (; (opts->name || opts->help) && rc == 0; opts++)
        if (opts->name && (opts->type & OPT_RESULT))
            rc = add_option(b, opts, e);
    if (rc == 0)
        rc = add_eval_files(b, eval, e);
    while (rc == 0 && !utf8_valid(b->p, b->len, &bad)) /* as RUN must be */
        b->p[bad] = '?';
    return rc < 0 ? rc : buf_add(b, "", 1, e);
}

/* The first line of one that is not the other's; where there is none, "nothing". */
static int differ(const struct resume *r, struct err *e)
{
    const char *then = r->state.recipe, *now = r->recipe.p;

    for (size_t n; *then && *now; then += n + 1, now += n + 1) {
        n = strcspn(then, "\n");
        if (n != strcspn(now, "\n") || memcmp(then, now, n) != 0 || !then[n])
            break;
    }
    err_set(e, E_CONFIG, "the journal in '%s' is of a run with '%.*s', not '%.*s'", r->folder,
            (int)strcspn(then, "\n"), then, (int)strcspn(now, "\n"), now);
    return err_hint(e, "give the same options, or start over: rm '%s/lpack.journal'", r->folder);
}

int resume_open(struct resume *r, const char *folder, const struct opt *opts,
                const struct opt_list *eval, struct err *e)
{
    int rc;

    *r = (struct resume){ .folder = folder };
    if ((rc = recipe_make(&r->recipe, opts, eval, e)) < 0 ||
        (rc = journal_look(&r->state, folder, -1, e)) < 0)
        return rc;
    r->files = r->state.files;
    r->run = (struct stream_run){ r->state.marks, r->state.docs, r->state.manifest,
                                  r->recipe.p };
    if (!r->state.there || strcmp(r->state.recipe, r->recipe.p) == 0)
        return 0;
    return differ(r, e);
}

void resume_close(struct resume *r)
{
    buf_free(&r->recipe);
    journal_state_free(&r->state);
}

/* What enter_mark needs while the journal is read. */
struct entered {
    const struct resume *r;
    const struct source *s;
    struct prep_counts *c;
    struct dedup *seen;
    int64_t files;
};

/* The next input of the journal must be the next file of this run: same name, size and time. */
static int check_input(const struct entered *x, const struct stream_input *in, struct err *e)
{
    const struct source_item *f = x->files < source_files(x->s) ? source_file(x->s, x->files)
                                                                 : NULL;

    if (f && strcmp(f->path, in->path) == 0 && f->bytes == in->bytes &&
        f->mtime_ns == in->mtime_ns)
        return 0;
    if (f && strcmp(f->path, in->path) == 0)
        err_set(e, E_CONFIG, "'%s' has changed since the run of the journal in '%s' read it",
                in->path, x->r->folder);
    else
        err_set(e, E_CONFIG, "the journal in '%s' has '%.300s' as input %lld, not '%.300s'",
                x->r->folder, in->path, (long long)x->files + 1, f ? f->path : "none");
    return err_hint(e, "give the same inputs, or start over: rm '%s/lpack.journal'",
                    x->r->folder);
}

/* One mark of the journal: its inputs are checked, its keys and counts taken over. */
static int enter_mark(void *ctx, const struct stream_mark *m, struct err *e)
{
    struct entered *x = ctx;
    int rc = 0;

    for (int64_t i = 0; i < m->n_inputs && rc == 0; i++, x->files++)
        rc = check_input(x, &m->inputs[i], e);
    for (int64_t i = 0; i < m->n_keys && rc == 0 && x->seen; i++)
        dedup_add(x->seen, mark_key(m, i), 0); /* 0: its name is not known */
    return rc < 0 ? rc : tally_add(&x->c->by, &m->tally, e);
}

int resume_enter(struct resume *r, const struct source *s, const struct token_info *info,
                 struct prep_counts *c, struct dedup *seen, struct err *e)
{
    struct entered x = { r, s, c, seen, 0 };
    char name[300];
    int rc;

    for (int64_t i = 0; i < source_files(s); i++)
        /* A pipe cannot be read again, nor does it say whether it has changed. */
        if (!source_file(s, i)->regular)
            return err_set(e, E_USAGE, "--resume needs files, and '%s' is not one",
                           source_file(s, i)->path ? source_file(s, i)->path : "standard input");
    if (!r->state.there)
        return 0;
    snprintf(name, sizeof name, "%s/lpack.journal", r->folder);
    if ((rc = info_agree(&r->state.info, name, info, "this run", e)) < 0)
        return err_hint(e, "give the same tokenizer, or start over: rm '%s'", name);
    if ((rc = journal_each(&r->state, r->folder, enter_mark, &x, e)) < 0)
        return rc;
    return tally_sum(&c->by, &c->all, e);
}
