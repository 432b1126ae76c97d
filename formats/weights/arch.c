/* formats/weights/arch.c - what is known of a family by its entry; see arch.h. The entries stand in
 * families.c. */
#include "formats/weights/arch.h"

#include <stdio.h>
#include <string.h>

/* ---- the list of families ---- */

enum { MOST_FAMILIES = 32 };
/* Behind those of families.c; arch_register fills them, NULL ends them. */
static const struct arch *more[MOST_FAMILIES];

const struct arch *arch_nth(int i)
{
    return i < arch_families ? &arch_family[i]
         : i < arch_families + MOST_FAMILIES ? more[i - arch_families] : NULL;
}

const struct arch *arch_find(const char *model_type)
{
    int i = 0;

    while (arch_nth(i) && strcmp(arch_nth(i)->model_type, model_type) != 0)
        i++;
    return arch_nth(i);
}

const struct arch *arch_with_biases(const struct arch *a, bool attention, bool mlp)
{
    for (int i = 0; arch_nth(i); i++) {
        const struct arch *k = arch_nth(i);
        uint64_t has = arch_roles(k);

        if (strcmp(k->model_type, a->model_type) == 0 &&
            attention == !!(has & (ROLE_BIT(ROLE_Q_BIAS) | ROLE_BIT(ROLE_QKV_BIAS))) &&
            mlp == !!(has & ROLE_BIT(ROLE_DOWN_BIAS)))
            return k;
    }
    return NULL;
}

int arch_register(const struct arch *a, struct err *e)
{
    int n = 0, rc = arch_check(a, e);

    if (rc < 0)
        return rc;
    while (n < MOST_FAMILIES && more[n])
        n++;
    if (arch_find(a->model_type) || n == MOST_FAMILIES)
        return err_set(e, E_BUG, "model family '%.60s' is already known, or there are too many",
                       a->model_type);
    more[n] = a;
    return 0;
}

/* ---- roles ---- */

/* What layer.c and step.c compute a tensor of the role with. */
static const struct {
    const char *word; /* NULL: no LoRA pair */
    enum form form;
    bool layer, must; /* of a layer; every family has it */
    enum size rows, cols;
    /* ROLES stands for none. */
    enum role bias, first; /* of those that read the same input */
} roles[ROLES] = {
    [ROLE_EMBED] = { NULL, FORM_MATRIX, false, true, SIZE_VOCAB, SIZE_DIM, ROLES, ROLE_EMBED },
    [ROLE_HEAD] = { NULL, FORM_MATRIX, false, true, SIZE_VOCAB, SIZE_DIM, ROLES, ROLE_HEAD },
    [ROLE_LAST_NORM] = { NULL, FORM_NORM, false, true, SIZE_DIM, 0, ROLE_LAST_NORM_BIAS, ROLES },
    [ROLE_ATTN_NORM] = { NULL, FORM_NORM, true, false, SIZE_DIM, 0, ROLE_ATTN_NORM_BIAS, ROLES },
    [ROLE_Q] = { "q", FORM_MATRIX, true, false, SIZE_Q, SIZE_DIM, ROLE_Q_BIAS, ROLE_Q },
    [ROLE_K] = { "k", FORM_MATRIX, true, false, SIZE_KV, SIZE_DIM, ROLE_K_BIAS, ROLE_Q },
    [ROLE_V] = { "v", FORM_MATRIX, true, false, SIZE_KV, SIZE_DIM, ROLE_V_BIAS, ROLE_Q },
    [ROLE_O] = { "o", FORM_MATRIX, true, true, SIZE_DIM, SIZE_Q, ROLE_O_BIAS, ROLE_O },
    [ROLE_MLP_NORM] = { NULL, FORM_NORM, true, false, SIZE_DIM, 0, ROLE_MLP_NORM_BIAS, ROLES },
    [ROLE_GATE] = { "gate", FORM_MATRIX, true, false, SIZE_FFN, SIZE_DIM, ROLE_GATE_BIAS, ROLE_GATE },
    [ROLE_UP] = { "up", FORM_MATRIX, true, false, SIZE_FFN, SIZE_DIM, ROLE_UP_BIAS, ROLE_GATE },
    [ROLE_DOWN] = { "down", FORM_MATRIX, true, true, SIZE_DIM, SIZE_FFN, ROLE_DOWN_BIAS, ROLE_DOWN },
    [ROLE_Q_NORM] = { NULL, FORM_NORM, true, false, SIZE_HEAD_DIM, 0, ROLES, ROLES },
    [ROLE_K_NORM] = { NULL, FORM_NORM, true, false, SIZE_HEAD_DIM, 0, ROLES, ROLES },
    [ROLE_Q_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_Q, 0, ROLES, ROLES },
    [ROLE_K_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_KV, 0, ROLES, ROLES },
    [ROLE_V_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_KV, 0, ROLES, ROLES },
    [ROLE_O_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_DIM, 0, ROLES, ROLES },
    [ROLE_GATE_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_FFN, 0, ROLES, ROLES },
    [ROLE_UP_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_FFN, 0, ROLES, ROLES },
    [ROLE_DOWN_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_DIM, 0, ROLES, ROLES },
    [ROLE_QKV] = { "qkv", FORM_MATRIX, true, false, SIZE_QKV, SIZE_DIM, ROLE_QKV_BIAS, ROLE_QKV },
    [ROLE_GATE_UP] = { "gate_up", FORM_MATRIX, true, false, SIZE_GATE_UP, SIZE_DIM, ROLES, ROLE_GATE_UP },
    [ROLE_QKV_BIAS] = { NULL, FORM_BIAS, true, false, SIZE_QKV, 0, ROLES, ROLES },
    [ROLE_ATTN_NORM_BIAS] = { NULL, FORM_SHIFT, true, false, SIZE_DIM, 0, ROLES, ROLES },
    [ROLE_MLP_NORM_BIAS] = { NULL, FORM_SHIFT, true, false, SIZE_DIM, 0, ROLES, ROLES },
    [ROLE_LAST_NORM_BIAS] = { NULL, FORM_SHIFT, false, false, SIZE_DIM, 0, ROLES, ROLES },
    [ROLE_POST_ATTN_NORM] = { NULL, FORM_NORM, true, false, SIZE_DIM, 0, ROLES, ROLES },
    [ROLE_POST_MLP_NORM] = { NULL, FORM_NORM, true, false, SIZE_DIM, 0, ROLES, ROLES },
};

enum form role_form(enum role r) { return roles[r].form; }
const char *role_word(enum role r) { return roles[r].word; }
enum role role_bias(enum role r) { return roles[r].bias; }

enum role role_whole(enum role r)
{
    return roles[r].form != FORM_MATRIX ? ROLES : roles[r].first == ROLE_Q ? ROLE_QKV
         : roles[r].first == ROLE_GATE ? ROLE_GATE_UP : ROLES;
}

/* The word is compared by length, since it may be a part of a longer text. */
enum role role_of_word(const char *word, size_t n)
{
    for (int r = 0; r < ROLES; r++)
        if (roles[r].word && strlen(roles[r].word) == n && memcmp(roles[r].word, word, n) == 0)
            return (enum role)r;
    return ROLES;
}

const char *role_words(char *buf, size_t cap)
{
    size_t n = 0;

    *buf = '\0';
    for (int r = 0; r < ROLES && n < cap; r++)
        if (roles[r].word)
            n += (size_t)snprintf(buf + n, cap - n, "%s%s", n ? ", " : "", roles[r].word);
    return buf;
}

/* Matrices that read the same input have the same 'first': q, k and v have q. */
int role_readers(enum role r, enum role *first)
{
    int n = 0;

    *first = roles[r].first;
    for (int k = 0; k < ROLES; k++)
        n += *first < ROLES && roles[k].first == *first;
    return n;
}

/* The set of roles in a family's table: of those that may have LoRA pairs only, if pairs is
 * set, and of those that LoRA+ trains only, if plus is set. */
static uint64_t roles_where(const struct arch *a, bool pairs, bool plus)
{
    uint64_t set = 0;

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        if ((!pairs || roles[d->role].word) && (!plus || d->plus))
            set |= ROLE_BIT(d->role);
    return set;
}

uint64_t arch_roles(const struct arch *a) { return roles_where(a, false, false); }
uint64_t arch_pairs(const struct arch *a) { return roles_where(a, true, false); }
uint64_t arch_plus(const struct arch *a) { return roles_where(a, false, true); }

int arch_targets(const struct arch *a, uint64_t *targets, struct err *e)
{
    uint64_t has = arch_pairs(a);
    char words[128];
    int n = 0, all = 0;

    for (enum role whole = ROLE_QKV; whole <= ROLE_GATE_UP; whole++) {
        uint64_t parts = 0;

        for (int r = 0; r < ROLES; r++)
            if (role_whole((enum role)r) == whole)
                parts |= ROLE_BIT(r);
        if (!(has & ROLE_BIT(whole)) || !(*targets & parts))
            continue;
        n = __builtin_popcountll(*targets & parts), all = __builtin_popcountll(parts);
        if (n < all)
            break;
        *targets = (*targets & ~parts) | ROLE_BIT(whole);
    }
    if (n < all) {
        err_set(e, E_CONFIG, "a model of the family '%s' has one matrix for q, k and v, and one for gate "
                "and up, with a LoRA pair each", a->model_type);
        return err_hint(e, "give all that are in one, or none of them");
    }
    if (!(*targets & ~has))
        return 0;
    return err_set(e, E_CONFIG, "LoRA pairs are for %s only", role_words(words, sizeof words));
}

/* The table's order counts: the last row that passes the test is the last reader. */
bool arch_last_reader(const struct arch *a, enum role r)
{
    enum role last = ROLES;

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++)
        if (roles[d->role].word && roles[d->role].first == roles[r].first)
            last = d->role;
    return last == r;
}

/* ---- what the model's code can compute ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return k <= n && strcmp(s + n - k, end) == 0;
}

/* The shape that the code wants; a q/k norm may also go over all heads at once. */
static bool right_shape(const struct tensor_def *d)
{
    enum size all = d->role == ROLE_Q_NORM ? SIZE_Q : d->role == ROLE_K_NORM ? SIZE_KV : SIZE_NONE;

    return d->cols == roles[d->role].cols &&
           (d->rows == roles[d->role].rows || (all && d->rows == all));
}

/* What is wrong with one row of a family's table. seen has the roles of the rows before it. */
static int check_def(const struct arch *a, const struct tensor_def *d, uint64_t seen,
                     struct err *e)
{
    const char *what =
        strlen(d->name) > 64 ? "has too long a name" :
        d->role < 0 || d->role >= ROLES ? "has no role" :
        seen & ROLE_BIT(d->role) ? "has a role that another has" :
        tensor_of_layer(d) != roles[d->role].layer ? "is in the wrong place for its role" :
        !right_shape(d) ? "has not the shape of its role" :
        !ends_with(d->name, roles[d->role].form >= FORM_BIAS ? ".bias" : ".weight")
            ? "must end in .weight, or .bias" :
        d->plus && (roles[d->role].word || roles[d->role].form == FORM_BIAS ||
                    d->role == ROLE_HEAD) ? "cannot be trained by LoRA+" : NULL;

    return !what ? 0 : err_set(e, E_CONFIG, "model family '%.60s': tensor '%.80s' %s",
                               a->model_type, d->name, what);
}

/* The roles of the biases of some matrices. */
static uint64_t bias_bits(uint64_t matrices)
{
    uint64_t set = 0;

    for (int r = 0; r < ROLES; r++)
        if (matrices & ROLE_BIT(r) && roles[r].bias < ROLES)
            set |= ROLE_BIT(roles[r].bias);
    return set;
}

/* The whole table: every row by itself, then that a layer's rows are together, that nothing is
 * missing, and that the block is one that the code computes. */
int arch_check(const struct arch *a, struct err *e)
{
    const uint64_t qkv = ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_K) | ROLE_BIT(ROLE_V);
    const uint64_t gate_up = ROLE_BIT(ROLE_GATE) | ROLE_BIT(ROLE_UP);
    uint64_t seen = 0;
    int parts = 0; /* top, layers, top */

    for (const struct tensor_def *d = a->tensors; d < a->tensors + a->n_tensors; d++) {
        int rc = check_def(a, d, seen, e);

        if (rc < 0)
            return rc;
        seen |= ROLE_BIT(d->role);
        /* A new part begins with the first row and wherever layer and top change over. */
        parts += d == a->tensors || tensor_of_layer(d) != tensor_of_layer(d - 1);
    }
    if (parts > 3)
        return err_set(e, E_CONFIG, "model family '%.60s': the tensors of the layers must be "
                       "listed together",
                       a->model_type);
    for (int r = 0; r < ROLES; r++)
        if (roles[r].must && !(seen & ROLE_BIT(r)))
            return err_set(e, E_CONFIG, "model family '%.60s' has no tensor of role %d, which every "
                           "model needs", a->model_type, r);
    if (seen & ROLE_BIT(ROLE_QKV) ? seen & (qkv | bias_bits(qkv)) : (seen & qkv) != qkv)
        return err_set(e, E_CONFIG, "model family '%.60s' must have q, k and v, or all in one",
                       a->model_type);
    if (seen & ROLE_BIT(ROLE_GATE_UP) ? seen & (gate_up | bias_bits(gate_up)) : !(seen & ROLE_BIT(ROLE_UP)))
        return err_set(e, E_CONFIG, "model family '%.60s' must have up, or gate and up in one", a->model_type);
    if (a->block.by_head ? !(seen & ROLE_BIT(ROLE_QKV)) : seen & ROLE_BIT(ROLE_QKV_BIAS))
        return err_set(e, E_CONFIG, "model family '%.60s': q, k and v in one, by heads or with biases, "
                       "need one another", a->model_type);
    /* The two '!' turn the bits into 0 and 1, so that they can be compared. */
    if (!(seen & ROLE_BIT(ROLE_Q_NORM)) != !(seen & ROLE_BIT(ROLE_K_NORM)))
        return err_set(e, E_CONFIG, "model family '%.60s' has a norm for only one of q and k",
                       a->model_type);
    if (!(seen & (ROLE_BIT(ROLE_ATTN_NORM) | ROLE_BIT(ROLE_POST_ATTN_NORM))) ||
        !(seen & (ROLE_BIT(ROLE_MLP_NORM) | ROLE_BIT(ROLE_POST_MLP_NORM))))
        return err_set(e, E_CONFIG, "model family '%.60s' has no norm before or after attention or "
                       "the MLP", a->model_type);
    if (a->block.norm != NORM_LAYER &&
        seen & (ROLE_BIT(ROLE_ATTN_NORM_BIAS) | ROLE_BIT(ROLE_MLP_NORM_BIAS) | ROLE_BIT(ROLE_LAST_NORM_BIAS)))
        return err_set(e, E_CONFIG, "model family '%.60s': RMSNorm has no bias", a->model_type);
    if (a->block.norm == NORM_LAYER && a->block.one_more)
        return err_set(e, E_CONFIG, "model family '%.60s': LayerNorm with 1 + weight is not computed",
                       a->model_type);
    if (a->block.norm == NORM_LAYER &&
        seen & (ROLE_BIT(ROLE_POST_ATTN_NORM) | ROLE_BIT(ROLE_POST_MLP_NORM)))
        return err_set(e, E_CONFIG, "model family '%.60s': LayerNorm of what is added is not computed",
                       a->model_type);
    return 0;
}

/* "model.layers.#.mlp.up_proj.weight" gives path "mlp.up_proj" and last "up_proj". */
bool tensor_module(const struct tensor_def *d, struct module *m)
{
    /* The path begins behind "#."; a tensor of the top keeps all of its name. */
    const char *number = strchr(d->name, '#'), *from = number ? number + 2 : d->name, *dot;

    if (roles[d->role].form >= FORM_BIAS)
        return false;
    snprintf(m->path, sizeof m->path, "%.*s", (int)(strlen(from) - strlen(".weight")), from);
    dot = strrchr(m->path, '.');
    m->last = dot ? dot + 1 : m->path;
    return true;
}
