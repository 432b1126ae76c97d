/* eval/answered.c - the journal of answers; see answered.h. */
#include "eval/answered.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERSION = 1 };
#define BEGINS "{\"answers\":"
#define SUM_KEY ",\"sum\":\""

struct known {
    uint64_t key;
    double score;
};
struct answered {
    char path[4096], device[300];
    uint64_t model;
    int fd;              /* -1: not written */
    size_t whole;        /* bytes of whole lines */
    struct known *known; /* sorted by key */
    size_t n, cap;
};

static int damaged(const struct answered *a, int64_t line, struct err *e)
{
    err_set(e, E_DATA, "'%s': line %" PRId64 " is damaged", a->path, line);
    return err_hint(e, "what it says cannot be trusted: take that line out, and its prompt is asked again");
}

/* Appends the sum and the end of the object to what begins at 'from'. */
static int seal(struct buf *b, size_t from, struct err *e)
{
    return buf_printf(b, e, SUM_KEY "%08" PRIx32 "\"}\n", crc32c(0, b->p + from, b->len - from));
}

/* Some other file, which would be overwritten. */
static int not_ours(const struct answered *a, struct err *e)
{
    err_set(e, E_DATA, "'%s' is not a journal of leval --tasks", a->path);
    return err_hint(e, "name another file for it");
}

static bool sealed(const char *line, size_t n)
{
    char want[24];
    size_t tail = strlen(SUM_KEY) + 8 + 2;

    if (n <= tail)
        return false;
    snprintf(want, sizeof want, SUM_KEY "%08" PRIx32 "\"}", crc32c(0, line, n - tail));
    return memcmp(line + n - tail, want, tail) == 0;
}

static int read_hex(const struct js *o, const char *key, uint64_t *v, struct err *e)
{
    const char *s = "";
    int rc = js_str(o, key, JS_MUST, &s, e);

    *v = strtoull(s, NULL, 16);
    return rc;
}

/* The first line: whose answers these are. */
static int read_head(struct answered *a, const struct js *o, struct err *e)
{
    const char *device = "";
    uint64_t model = 0;
    int64_t version;
    int rc;

    if ((rc = js_i64(o, "answers", JS_MUST, 1, VERSION, &version, e)) < 0 ||
        (rc = read_hex(o, "model", &model, e)) < 0 || (rc = js_str(o, "device", JS_MAY, &device, e)) < 0)
        return rc;
    snprintf(a->device, sizeof a->device, "%s", device);
    if (model == a->model)
        return 0;
    err_set(e, E_CONFIG, "'%s' has the answers of another model, adapter or tokenizer", a->path);
    return err_hint(e, "name another --journal");
}

static int read_answer(struct answered *a, const struct js *o, struct err *e)
{
    struct known k = { 0, 0 };
    int rc = read_hex(o, "key", &k.key, e);

    if (rc == 0 && (rc = js_f64(o, "score", JS_MUST, 0, 1, &k.score, e)) == 0 &&
        (rc = array_grow(&a->known, &a->cap, a->n, sizeof k, 256, "answers", e)) == 0)
        a->known[a->n++] = k;
    return rc;
}

static int read_line(struct answered *a, const char *line, size_t n, int64_t number, struct err *e)
{
    struct err why = { 0 };
    struct js o;
    int rc;

    if (!sealed(line, n))
        return damaged(a, number, e);
    if ((rc = js_parse(&o, line, n, a->path, &why)) < 0) {
        if (rc == E_DATA)
            return damaged(a, number, e);
        *e = why;
        return rc;
    }
    rc = number == 1 ? read_head(a, &o, e) : read_answer(a, &o, e);
    js_free(&o);
    return rc;
}

static int by_key(const void *x, const void *y)
{
    uint64_t a = ((const struct known *)x)->key, b = ((const struct known *)y)->key;

    return a < b ? -1 : a > b;
}

int answered_parse(struct answered **out, const char *path, const char *text, size_t nbytes,
                   uint64_t model, struct err *e)
{
    struct answered *a = calloc(1, sizeof *a);
    int64_t number = 0;
    int rc = 0;

    *out = a;
    if (!a)
        return err_set(e, E_SYS, "out of memory");
    snprintf(a->path, sizeof a->path, "%s", path);
    a->model = model;
    a->fd = -1;
    if (nbytes && memcmp(text, BEGINS, nbytes < strlen(BEGINS) ? nbytes : strlen(BEGINS)) != 0)
        rc = not_ours(a, e);
    while (rc == 0 && a->whole < nbytes) {
        const char *line = text + a->whole, *end = memchr(line, '\n', nbytes - a->whole);

        if (!end) /* cut within its last line */
            break;
        if ((rc = read_line(a, line, (size_t)(end - line), ++number, e)) == 0)
            a->whole = (size_t)(end - text) + 1;
    }
    if (a->n)
        qsort(a->known, a->n, sizeof *a->known, by_key);
    return rc;
}

/* A JSON string of whatever bytes a model made: those that are not UTF-8, and NUL, become '?'. */
static int put_text(struct buf *b, const char *s, size_t n, struct err *e)
{
    char *clean = malloc(n + 1), *text = NULL;
    json_t *v = NULL;
    size_t at;
    int rc = 0;

    for (size_t i = 0; clean && i < n; i++)
        clean[i] = s[i] ? s[i] : '?';
    while (clean && !utf8_valid(clean, n, &at))
        clean[at] = '?';
    if (clean && (v = json_stringn(clean, n)))
        text = json_dumps(v, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    rc = text ? buf_add(b, text, strlen(text), e) : err_set(e, E_SYS, "out of memory");
    free(text);
    json_decref(v);
    free(clean);
    return rc;
}

static int put(struct answered *a, const struct buf *b, struct err *e)
{
    int rc = file_write_all(a->fd, b->p, b->len, a->path, e);

    if (rc == 0)
        a->whole += b->len;
    return rc;
}

int answered_write(struct answered *a, const char *device, struct err *e)
{
    struct buf b = { 0 };
    int rc = 0;

    if ((a->fd = open(a->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) < 0)
        return err_sys(e, E_CREATE, "cannot write '%s'", a->path);
    if (ftruncate(a->fd, (off_t)a->whole) < 0 || lseek(a->fd, (off_t)a->whole, SEEK_SET) < 0)
        return err_sys(e, E_CREATE, "cannot continue '%s'", a->path);
    if (a->whole)
        return 0;
    snprintf(a->device, sizeof a->device, "%s", device);
    if ((rc = buf_printf(&b, e, BEGINS "%d,\"model\":\"%016" PRIx64 "\",\"device\":", VERSION,
                         a->model)) == 0 &&
        (rc = put_text(&b, device, strlen(device), e)) == 0 && (rc = seal(&b, 0, e)) == 0)
        rc = put(a, &b, e);
    buf_free(&b);
    return rc;
}

void answered_close(struct answered *a)
{
    if (!a)
        return;
    if (a->fd >= 0)
        close(a->fd);
    free(a->known);
    free(a);
}

int64_t answered_count(const struct answered *a) { return (int64_t)a->n; }
const char *answered_device(const struct answered *a) { return a->device; }

bool answered_find(const struct answered *a, uint64_t key, double *score)
{
    struct known want = { key, 0 };
    const struct known *k = a->n ? bsearch(&want, a->known, a->n, sizeof want, by_key) : NULL;

    if (k)
        *score = k->score;
    return k;
}

int answered_add(struct answered *a, const struct answer *x, struct err *e)
{
    struct buf b = { 0 };
    int rc;

    if (a->fd < 0)
        return 0;
    rc = buf_printf(&b, e, "{\"task\":\"%s\",\"length\":%" PRId64 ",\"depth\":", x->task, x->length);
    if (rc == 0)
        rc = x->depth < 0 ? buf_add(&b, "null", 4, e) : buf_printf(&b, e, "%.17g", x->depth);
    if (rc == 0 && (rc = buf_printf(&b, e, ",\"number\":%" PRId64 ",\"tokens\":%" PRId64
                                    ",\"score\":%.17g,\"key\":\"%016" PRIx64 "\",\"output\":", x->number,
                                    x->tokens, x->score, x->key)) == 0 &&
        (rc = put_text(&b, x->output, x->nbytes, e)) == 0 && (rc = seal(&b, 0, e)) == 0)
        rc = put(a, &b, e);
    buf_free(&b);
    return rc;
}
