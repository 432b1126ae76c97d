/* formats/weights/pickle.c - see pickle.h. Opcodes: Python's pickletools.py. */
#include "formats/weights/pickle.h"

#include "base/bytes.h"
#include "formats/weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)8 << 20) /* some 40,000 tensors */

/* What stands on the stack. Texts point into the pickle; objects are the machine's. */
enum kind { V_NONE, V_INT, V_OTHER, V_TEXT, V_MARK, V_FUNCTION, V_STORAGE_TYPE, V_TUPLE, V_LIST,
            V_DICT, V_STORAGE, V_TENSOR };
enum function { F_ORDERED_DICT, F_TENSOR, F_PARAMETER, F_SIZE };

struct object;
struct value {
    enum kind kind;
    union {
        int64_t number; /* V_INT, V_FUNCTION */
        struct {
            const char *p;
            size_t n;
        } text;
        const struct tensor_type *type; /* V_STORAGE_TYPE */
        struct object *object;          /* from V_TUPLE on */
    } u;
};
/* items: of a dict key, value, key, ...; of a storage its type, key and size; of a tensor its storage,
 * offset, shape and strides. */
struct object {
    struct object *next;
    struct value *items;
    size_t n, cap;
};

struct machine {
    const unsigned char *p, *start, *end;
    const char *file;
    struct err *e;
    struct value *stack, *memo;
    size_t n, cap, n_memo, cap_memo;
    struct object *objects;
};

static int bad(const struct machine *m, const char *what)
{
    err_set(m->e, E_DATA, "'%s': at byte %zu of the pickle: %s", m->file, (size_t)(m->p - m->start), what);
    return E_DATA;
}

/* ---- memory ---- */

static int push(struct value **a, size_t *n, size_t *cap, struct value v, struct err *e)
{
    int rc = array_grow(a, cap, *n, sizeof **a, 4, "values", e);

    if (rc == 0)
        (*a)[(*n)++] = v;
    return rc;
}

static int put(struct machine *m, struct value v) { return push(&m->stack, &m->n, &m->cap, v, m->e); }

static int put_number(struct machine *m, int64_t n)
{
    return put(m, (struct value){ V_INT, { .number = n } });
}

/* A new object of n items, moved there. */
static int put_object(struct machine *m, enum kind k, const struct value *items, size_t n)
{
    struct object *o = calloc(1, sizeof *o);

    if (!o)
        return err_set(m->e, E_SYS, "out of memory");
    o->next = m->objects;
    m->objects = o;
    if (n && !(o->items = malloc(n * sizeof *items)))
        return err_set(m->e, E_SYS, "out of memory");
    if (n)
        memcpy(o->items, items, n * sizeof *items);
    o->n = o->cap = n;
    return put(m, (struct value){ k, { .object = o } });
}

/* The upper n values of the stack. */
static int top(const struct machine *m, size_t n, struct value **v)
{
    *v = m->stack;
    if (m->n < n)
        return bad(m, "the stack is empty");
    *v += m->n - n;
    return 0;
}

/* Those above the last mark, which goes with them. */
static int above_mark(struct machine *m, struct value **v, size_t *n)
{
    size_t at = m->n;

    while (at > 0 && m->stack[at - 1].kind != V_MARK)
        at--;
    if (at == 0)
        return bad(m, "there is no mark");
    *v = m->stack + at;
    *n = m->n - at;
    m->n = at - 1;
    return 0;
}

/* ---- reading ---- */

static int bytes(struct machine *m, uint64_t n, const char **p)
{
    if (n > (uint64_t)(m->end - m->p))
        return bad(m, "it is cut short");
    *p = (const char *)m->p;
    m->p += n;
    return 0;
}

/* An unsigned number of n bytes. */
static int number(struct machine *m, int n, uint64_t *v)
{
    const char *p;
    int rc = bytes(m, (uint64_t)n, &p);

    if (rc == 0)
        *v = get_le(p, n);
    return rc;
}

/* A text whose length stands before it in so many bytes. */
static int put_text(struct machine *m, int length_bytes)
{
    struct value v = { .kind = V_TEXT };
    uint64_t n;
    int rc = number(m, length_bytes, &n);

    if (rc == 0 && (rc = bytes(m, n, &v.u.text.p)) == 0) {
        v.u.text.n = (size_t)n;
        rc = put(m, v);
    }
    return rc;
}

/* A signed number of n bytes, 0 to 8. */
static int put_signed(struct machine *m, int n)
{
    uint64_t v = 0;
    int rc = number(m, n, &v);

    if (rc == 0 && n > 0 && n < 8 && (v >> (8 * n - 1)))
        v |= ~UINT64_C(0) << (8 * n);
    return rc < 0 ? rc : put_number(m, (int64_t)v);
}

static int put_long(struct machine *m)
{
    uint64_t n;
    int rc = number(m, 1, &n);

    return rc < 0 ? rc : n > 8 ? bad(m, "an integer has more than 64 bits") : put_signed(m, (int)n);
}

/* ---- what may be named ---- */

static bool is(const char *p, size_t n, const char *text)
{
    return strlen(text) == n && memcmp(p, text, n) == 0;
}

static const struct { const char *module, *name; enum function f; } functions[] = {
    { "collections", "OrderedDict", F_ORDERED_DICT },
    { "torch._utils", "_rebuild_tensor_v2", F_TENSOR },
    { "torch._utils", "_rebuild_tensor", F_TENSOR },
    { "torch._utils", "_rebuild_parameter", F_PARAMETER },
    { "torch._utils", "_rebuild_parameter_with_state", F_PARAMETER },
    { "torch.nn.parameter", "Parameter", F_PARAMETER },
    { "torch", "Size", F_SIZE },
};
/* Of the modules torch and torch.cuda. */
static const struct { const char *name, *type; } storages[] = {
    { "FloatStorage", "F32" }, { "HalfStorage", "F16" }, { "BFloat16Storage", "BF16" },
    { "DoubleStorage", "F64" }, { "LongStorage", "I64" }, { "IntStorage", "I32" },
    { "ShortStorage", "I16" }, { "CharStorage", "I8" }, { "ByteStorage", "U8" },
    { "BoolStorage", "BOOL" },
};

static int put_global(struct machine *m, const char *module, size_t k, const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (is(module, k, functions[i].module) && is(name, n, functions[i].name))
            return put(m, (struct value){ V_FUNCTION, { .number = functions[i].f } });
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++)
        if ((is(module, k, "torch") || is(module, k, "torch.cuda")) && is(name, n, storages[i].name))
            return put(m, (struct value){ V_STORAGE_TYPE, { .type = st_type(storages[i].type) } });
    err_set(m->e, E_DATA, "'%s': at byte %zu of the pickle: it names '%.*s.%.*s', and only tensors are "
            "read", m->file, (size_t)(m->p - m->start), k > 80 ? 80 : (int)k, module,
            n > 80 ? 80 : (int)n, name);
    return err_hint(m->e, "nothing of it was run; if the file is to be trusted, save it as safetensors "
                          "with the program that made it");
}

/* Two lines. */
static int global(struct machine *m)
{
    const char *part[2];
    size_t n[2];

    for (int i = 0; i < 2; i++) {
        const unsigned char *nl = memchr(m->p, '\n', (size_t)(m->end - m->p));
        if (!nl)
            return bad(m, "it is cut short");
        part[i] = (const char *)m->p;
        n[i] = (size_t)(nl - m->p);
        m->p = nl + 1;
    }
    return put_global(m, part[0], n[0], part[1], n[1]);
}

static int stack_global(struct machine *m)
{
    struct value *v;
    int rc = top(m, 2, &v);

    if (rc < 0)
        return rc;
    if (v[0].kind != V_TEXT || v[1].kind != V_TEXT)
        return bad(m, "a name is not a text");
    m->n -= 2;
    return put_global(m, v[0].u.text.p, v[0].u.text.n, v[1].u.text.p, v[1].u.text.n);
}

/* ---- what it would call ---- */

static bool is_kind(const struct object *args, size_t i, enum kind k)
{
    return i < args->n && args->items[i].kind == k;
}

/* (storage, offset, shape, strides, ...) */
static int call_tensor(struct machine *m, const struct object *args)
{
    if (!is_kind(args, 0, V_STORAGE) || !is_kind(args, 1, V_INT) || !is_kind(args, 2, V_TUPLE) ||
        !is_kind(args, 3, V_TUPLE))
        return bad(m, "a tensor is not made of a storage, an offset, a shape and strides");
    return put_object(m, V_TENSOR, args->items, 4);
}

static int reduce(struct machine *m)
{
    struct value *v;
    const struct object *args;
    int rc = top(m, 2, &v);

    if (rc < 0)
        return rc;
    if (v[0].kind != V_FUNCTION || v[1].kind != V_TUPLE)
        return bad(m, "it calls what is no function");
    args = v[1].u.object;
    m->n -= 2;
    switch ((enum function)v[0].u.number) {
    case F_ORDERED_DICT:
        return args->n ? bad(m, "an OrderedDict begins with something in it")
                       : put_object(m, V_DICT, NULL, 0);
    case F_TENSOR:
        return call_tensor(m, args);
    case F_PARAMETER:
        return is_kind(args, 0, V_TENSOR) ? put(m, args->items[0])
                                          : bad(m, "a Parameter is not made of a tensor");
    case F_SIZE:
        return is_kind(args, 0, V_TUPLE) ? put(m, args->items[0])
                                         : bad(m, "a Size is not made of a tuple");
    }
    return bad(m, "it calls what is no function");
}

/* ("storage", type, key, where, size): what lies outside the pickle. */
static int persistent(struct machine *m)
{
    struct value *v;
    const struct object *t;
    int rc = top(m, 1, &v);

    if (rc < 0)
        return rc;
    t = v->kind == V_TUPLE ? v->u.object : NULL;
    if (!t || !is_kind(t, 0, V_TEXT) || !is(t->items[0].u.text.p, t->items[0].u.text.n, "storage") ||
        !is_kind(t, 1, V_STORAGE_TYPE) || !is_kind(t, 2, V_TEXT) || !is_kind(t, 4, V_INT))
        return bad(m, "a storage is not made of a type, a key and a size");
    m->n--;
    return put_object(m, V_STORAGE, (struct value[]){ t->items[1], t->items[2], t->items[4] }, 3);
}

/* What is set on an object. A state_dict carries versions of its modules along: of no use here. */
static int build(struct machine *m)
{
    struct value *v;
    int rc = top(m, 2, &v);

    if (rc == 0 && v[0].kind != V_DICT)
        rc = bad(m, "it sets something on what is no OrderedDict");
    m->n -= rc == 0;
    return rc;
}

/* n values to the list or dict below them. */
static int add_items(struct machine *m, const struct value *v, size_t n, enum kind k)
{
    struct value *to = m->n ? &m->stack[m->n - 1] : NULL;
    int rc = 0;

    if (!to || to->kind != k || (k == V_DICT && n % 2))
        return bad(m, "something is added to what is no list or dict");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = push(&to->u.object->items, &to->u.object->n, &to->u.object->cap, v[i], m->e);
    return rc;
}

static int add_marked(struct machine *m, enum kind k)
{
    struct value *v;
    size_t n;
    int rc = above_mark(m, &v, &n);

    return rc < 0 ? rc : add_items(m, v, n, k);
}

static int add_few(struct machine *m, size_t n, enum kind k)
{
    struct value *v;
    int rc = top(m, n, &v);

    if (rc < 0)
        return rc;
    m->n -= n;
    return add_items(m, v, n, k);
}

/* An object of what stands above the mark, or of the upper n. */
static int gather_marked(struct machine *m, enum kind k)
{
    struct value *v;
    size_t n;
    int rc = above_mark(m, &v, &n);

    return rc < 0 ? rc : k == V_DICT && n % 2 ? bad(m, "a dict has a key without a value")
                                              : put_object(m, k, v, n);
}

static int gather_few(struct machine *m, size_t n)
{
    struct value *v;
    int rc = top(m, n, &v);

    if (rc < 0)
        return rc;
    m->n -= n;
    return put_object(m, V_TUPLE, v, n);
}

/* ---- memory of the machine ---- */

/* Numbers come in order, from 0; a pickle that leaves some out is not one that torch makes, but
 * legal: the memo grows by at most what the pickle could have filled. */
static int remember(struct machine *m, uint64_t at)
{
    struct value *v, none = { .kind = V_NONE };
    int rc = top(m, 1, &v);

    if (rc < 0)
        return rc;
    if (at > (uint64_t)(m->end - m->start))
        return bad(m, "a number of the memo is larger than the pickle");
    while (rc == 0 && m->n_memo <= at)
        rc = push(&m->memo, &m->n_memo, &m->cap_memo, none, m->e);
    if (rc == 0)
        m->memo[at] = m->stack[m->n - 1];
    return rc;
}

static int put_memo(struct machine *m, int n, bool get)
{
    uint64_t at;
    int rc = number(m, n, &at);

    if (rc < 0 || !get)
        return rc < 0 ? rc : remember(m, at);
    return at < m->n_memo ? put(m, m->memo[at]) : bad(m, "it asks the memo for what is not there");
}

static int pop(struct machine *m)
{
    struct value *v;
    int rc = top(m, 1, &v);

    m->n -= rc == 0;
    return rc;
}

static int unknown(struct machine *m, unsigned op)
{
    char what[80];

    snprintf(what, sizeof what, "opcode 0x%02x is not one that tensors need", op);
    return bad(m, what);
}

/* One instruction; 1 at the last. */
static int step(struct machine *m)
{
    const char *p;
    uint64_t v;
    unsigned op;

    if (m->p == m->end)
        return bad(m, "it is cut short");
    op = *m->p++;
    switch (op) {
    case 0x80: return number(m, 1, &v) < 0 ? E_DATA : v > 5 ? bad(m, "its protocol is not known") : 0;
    case 0x95: return number(m, 8, &v);            /* FRAME */
    case '.': return 1;                            /* STOP */
    case '(': return put(m, (struct value){ .kind = V_MARK });
    case ')': return put_object(m, V_TUPLE, NULL, 0);
    case ']': return put_object(m, V_LIST, NULL, 0);
    case '}': return put_object(m, V_DICT, NULL, 0);
    case 'N': return put(m, (struct value){ .kind = V_NONE });
    case 0x88: case 0x89: return put(m, (struct value){ .kind = V_OTHER }); /* True, False */
    case 'J': return put_signed(m, 4);             /* BININT */
    case 'K': return number(m, 1, &v) < 0 ? E_DATA : put_number(m, (int64_t)v);
    case 'M': return number(m, 2, &v) < 0 ? E_DATA : put_number(m, (int64_t)v);
    case 0x8a: return put_long(m);                 /* LONG1 */
    case 'G': return bytes(m, 8, &p) < 0 ? E_DATA : put(m, (struct value){ .kind = V_OTHER });
    case 'X': case 'T': return put_text(m, 4);     /* BINUNICODE, BINSTRING */
    case 0x8c: case 'U': return put_text(m, 1);    /* SHORT_... */
    case 0x8d: return put_text(m, 8);              /* BINUNICODE8 */
    case 't': return gather_marked(m, V_TUPLE);
    case 'l': return gather_marked(m, V_LIST);
    case 'd': return gather_marked(m, V_DICT);
    case 0x85: case 0x86: case 0x87: return gather_few(m, op - 0x84); /* TUPLE1 to 3 */
    case 'a': return add_few(m, 1, V_LIST);        /* APPEND */
    case 'e': return add_marked(m, V_LIST);        /* APPENDS */
    case 's': return add_few(m, 2, V_DICT);        /* SETITEM */
    case 'u': return add_marked(m, V_DICT);        /* SETITEMS */
    case 'q': return put_memo(m, 1, false);        /* BINPUT */
    case 'r': return put_memo(m, 4, false);        /* LONG_BINPUT */
    case 0x94: return remember(m, m->n_memo);      /* MEMOIZE */
    case 'h': return put_memo(m, 1, true);         /* BINGET */
    case 'j': return put_memo(m, 4, true);         /* LONG_BINGET */
    case 'c': return global(m);
    case 0x93: return stack_global(m);
    case 'R': return reduce(m);
    case 'b': return build(m);
    case 'Q': return persistent(m);                /* BINPERSID */
    case '0': return pop(m);
    default: return unknown(m, op);
    }
}

/* ---- the result ---- */

static int refuse(const struct machine *m, const struct pickle_tensor *t, const char *why)
{
    return err_set(m->e, E_DATA, "'%s': tensor '%.*s' %s", m->file,
                   t->name_bytes > 200 ? 200 : (int)t->name_bytes, t->name, why);
}

/* The shape, and that the strides are those of whole rows, one after another. */
static int read_shape(const struct machine *m, const struct object *shape, const struct object *strides,
                      struct pickle_tensor *t)
{
    int64_t run = 1;

    if (shape->n > TENSOR_DIMS || strides->n != shape->n)
        return refuse(m, t, "has too many dimensions, or not one stride for each");
    t->dims = (int)shape->n;
    for (size_t i = shape->n; i-- > 0;) {
        int64_t k = shape->items[i].u.number;
        if (!is_kind(shape, i, V_INT) || !is_kind(strides, i, V_INT) || k < 0)
            return refuse(m, t, "has a shape that is not of sizes");
        if (k > 1 && strides->items[i].u.number != run)
            return refuse(m, t, "is a view across rows (transposed, or expanded): not supported");
        t->shape[i] = k;
        if (__builtin_mul_overflow(run, k, &run))
            return refuse(m, t, "is too large");
    }
    t->count = run;
    return 0;
}

static int read_tensor(const struct machine *m, const struct object *o, struct pickle_tensor *t)
{
    const struct object *s = o->items[0].u.object;
    int rc;

    t->type = s->items[0].u.type;
    t->key = s->items[1].u.text.p;
    t->key_bytes = s->items[1].u.text.n;
    t->stored = s->items[2].u.number;
    t->offset = o->items[1].u.number;
    if ((rc = read_shape(m, o->items[2].u.object, o->items[3].u.object, t)) < 0)
        return rc;
    if (t->stored < 0 || t->offset < 0 || t->offset > t->stored || t->count > t->stored - t->offset)
        return refuse(m, t, "lies outside its storage");
    return 0;
}

static int read_dict(const struct machine *m, const struct object *d, struct pickle *out)
{
    int rc = 0;

    if (!(out->at = calloc(d->n / 2 + 1, sizeof *out->at)))
        return err_set(m->e, E_SYS, "out of memory");
    for (size_t i = 0; rc == 0 && i < d->n; i += 2) {
        struct pickle_tensor *t = &out->at[out->n];
        const struct value *key = &d->items[i], *v = key + 1;
        if (v->kind != V_TENSOR)
            continue;
        if (key->kind != V_TEXT || memchr(key->u.text.p, '\0', key->u.text.n))
            return bad(m, "the name of a tensor is not a text");
        t->name = key->u.text.p;
        t->name_bytes = key->u.text.n;
        rc = read_tensor(m, v->u.object, t);
        out->n += rc == 0;
    }
    return rc;
}

static void machine_free(struct machine *m)
{
    for (struct object *o = m->objects, *next; o; o = next) {
        next = o->next;
        free(o->items);
        free(o);
    }
    free(m->stack);
    free(m->memo);
}

int pickle_read(struct pickle *out, const void *p, size_t nbytes, const char *file, struct err *e)
{
    struct machine m = { .p = p, .start = p, .end = (const unsigned char *)p + nbytes, .file = file,
                         .e = e };
    int rc = 0;

    *out = (struct pickle){ 0 };
    if (nbytes > MAX_BYTES)
        return err_set(e, E_DATA, "'%s': a pickle of %zu bytes is too large", file, nbytes);
    while (rc == 0)
        rc = step(&m);
    if (rc > 0)
        rc = m.n == 1 && m.stack[0].kind == V_DICT ? read_dict(&m, m.stack[0].u.object, out)
                                                   : bad(&m, "it is not a dict of tensors");
    machine_free(&m);
    if (rc < 0)
        pickle_free(out);
    return rc;
}

void pickle_free(struct pickle *p)
{
    free(p->at);
    *p = (struct pickle){ 0 };
}
