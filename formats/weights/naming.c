/* formats/weights/naming.c - see naming.h. */
#include "formats/weights/naming.h"

#include <stdio.h>
#include <string.h>

/* In memory from transformers 4.52 on; and in files of all versions, and in memory before. */
const struct naming naming_llava[] = { { "model.language_model.", "lm_head" },
                                       { "language_model.model.", "language_model.lm_head" }, NAMING_END };
const struct naming naming_idefics[] = { { "model.text_model.", "lm_head" }, NAMING_END };
/* Of models that were saved without the part with the head, as AutoModel has them. */
static const struct naming bare[] = { { "", NULL }, NAMING_END };
/* Of a family with another name for its head (head_also): with that; bare; both. */
static const struct naming other_head[] = { { NULL, "lm_head" }, { "", NULL }, { "", "lm_head" }, NAMING_END };

const struct naming *namings_of(const struct arch *a, const struct naming *within)
{
    return within ? within : a->block.head_also ? other_head : bare;
}

static bool is_end(const struct naming *n) { return !n->body && !n->head; }

const struct naming *naming_nth(int i)
{
    static const struct naming *const all[] = { naming_llava, naming_idefics, other_head };

    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        for (const struct naming *n = all[k]; !is_end(n); n++)
            if (i-- == 0)
                return n;
    return NULL;
}

/* ---- the family's own ---- */

static const struct tensor_def *def_of(const struct arch *a, enum role r)
{
    const struct tensor_def *d = a->tensors;

    while (d->role != r)
        d++;
    return d;
}

static size_t less_weight(const char *name) { return strlen(name) - strlen(".weight"); }

/* "model." of "model.embed_tokens.weight": so many bytes. */
static size_t own_body(const struct arch *a)
{
    const char *name = def_of(a, ROLE_EMBED)->name;
    size_t n = less_weight(name);

    while (n > 0 && name[n - 1] != '.')
        n--;
    return n;
}

/* name begins with the word of n bytes, and ends there or goes on with a dot. */
static bool begins(const char *name, const char *word, size_t n)
{
    return strncmp(name, word, n) == 0 && (name[n] == '\0' || name[n] == '.');
}

static const char *head_of(const struct arch *a, const struct naming *n, size_t *len)
{
    const char *name = def_of(a, ROLE_HEAD)->name;

    *len = n && n->head ? strlen(n->head) : less_weight(name);
    return n && n->head ? n->head : name;
}

static const char *body_of(const struct arch *a, const struct naming *n, size_t *len)
{
    *len = n && n->body ? strlen(n->body) : own_body(a);
    return n && n->body ? n->body : def_of(a, ROLE_EMBED)->name;
}

/* What begins with from as beginning with to. */
static const char *put(const char *name, size_t from, const char *to, size_t n, char *buf, size_t cap)
{
    snprintf(buf, cap, "%.*s%s", (int)n, to, name + from);
    return buf;
}

const char *naming_put(const struct arch *a, const struct naming *n, const char *own, char *buf, size_t cap)
{
    size_t is, as;
    const char *head = head_of(a, NULL, &is), *body, *to;

    if (n && begins(own, head, is)) {
        to = head_of(a, n, &as);
        return put(own, is, to, as, buf, cap);
    }
    body = body_of(a, NULL, &is);
    if (!n || strncmp(own, body, is) != 0)
        return put(own, 0, "", 0, buf, cap);
    to = body_of(a, n, &as);
    return put(own, is, to, as, buf, cap);
}

bool naming_own(const struct arch *a, const struct naming *n, const char *name, char *buf, size_t cap)
{
    size_t is, as;
    const char *head = head_of(a, n, &is), *body, *to;

    if (begins(name, head, is)) {
        to = head_of(a, NULL, &as);
        put(name, is, to, as, buf, cap);
        return true;
    }
    body = body_of(a, n, &is);
    if (strncmp(name, body, is) != 0)
        return false;
    to = body_of(a, NULL, &as);
    put(name, is, to, as, buf, cap);
    return true;
}

/* ---- which it is ---- */

/* The set has layers or an embedding in this naming; *first: one of them. */
static bool has_body(const struct arch *a, const struct naming *n, naming_has *has, const void *set, const char **first)
{
    const char *embed = def_of(a, ROLE_EMBED)->name, *norm = NULL;
    char own[96], name[160];

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors && !norm; d++)
        norm = tensor_of_layer(d) ? d->name : NULL;
    snprintf(own, sizeof own, "%.*s", norm ? (int)strcspn(norm, "#") : 0, norm ? norm : "");
    if (*own && has(set, naming_put(a, n, own, name, sizeof name), first))
        return true;
    snprintf(own, sizeof own, "%.*s.", (int)less_weight(embed), embed);
    return has(set, naming_put(a, n, own, name, sizeof name), first);
}

static bool has_head(const struct arch *a, const struct naming *n, naming_has *has, const void *set)
{
    const char *first;
    char word[96];
    size_t len;
    const char *head = head_of(a, n, &len);

    snprintf(word, sizeof word, "%.*s.", (int)len, head);
    return has(set, word, &first);
}

static bool same_body(const struct arch *a, const struct naming *x, const struct naming *y)
{
    size_t n, k;
    const char *p = body_of(a, x, &n), *q = body_of(a, y, &k);

    return n == k && memcmp(p, q, n) == 0;
}

/* The family's own first, then the list. */
int naming_choose(const struct arch *a, const struct naming *within, naming_has *has, const void *set,
                  const char *file, const struct naming **chosen, struct err *e)
{
    const struct naming *list = namings_of(a, within), *n = NULL, *body = NULL;
    const char *was = NULL, *is;
    bool found = false, head = false;

    for (const struct naming *next = list;; n = next++) {
        if (has_body(a, n, has, set, &is)) {
            if (found && !same_body(a, n, body)) {
                err_set(e, E_DATA, "'%s' has the language model twice, as '%.100s' and as '%.100s'", file, was, is);
                return err_hint(e, "which of them counts is not known: remove one");
            }
            if (!found || (!head && has_head(a, n, has, set)))
                body = n;
            head = has_head(a, body, has, set);
            found = true;
            was = is;
        }
        if (is_end(next))
            break;
    }
    *chosen = found ? body : NULL;
    for (n = list; !found && !is_end(n); n++) /* an adapter of the head alone */
        if (!has_head(a, NULL, has, set) && has_head(a, n, has, set)) {
            *chosen = n;
            break;
        }
    return 0;
}
