/* formats/text/source.c - see source.h. */
#include "formats/text/source.h"

#include "base/bytes.h"
#include "base/magic.h"
#include "formats/text/gunzip.h"
#include "formats/text/source_list.h"
#include "formats/text/zipcheck.h"

#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PEEK_BYTES ((size_t)MAGIC_LOOK_BYTES)
#define BLOCK_BYTES ((size_t)128 << 10)
#define NAME_BYTES 2048 /* of a name, for messages; a longer one is cut */
/* A stretch of so many unpacked bytes, headers among them, that came of less than this part of
 * it, is a bomb: text packs to a tenth, the most even of logs to a hundredth. */
#define BOMB_BYTES ((int64_t)32 << 20)
#define BOMB_RATIO 500

struct source {
    struct source_list list;
    int64_t at;       /* the file that is open, or the next one */
    int fd;           /* -1: none open */
    bool regular, plain, given; /* a plain file was handed out */
    struct archive *archive;
    struct gunzip *gunzip; /* between the file and archive */
    bool ended;       /* of the archive's last member: only the end mark may follow */
    int64_t last_end; /* bytes of the archive, unpacked, when its last member had been read */
    int64_t data;     /* bytes of its members so far, with the holes of sparse ones */
    int64_t stretch, stretch_packed; /* where the stretch began, unpacked and packed */
    locale_t utf8;    /* for libarchive, which gives no name beyond ASCII in the C locale */
    struct archive_counts {
        int64_t taken, by_name, links, nameless, special;
        char first[200]; /* of those that are no text by name */
    } in;             /* members of the open archive */
    struct buf notes;
    enum magic form; /* of the open file; 0: none that is known */
    unsigned char peek[PEEK_BYTES];
    size_t n_peek, peeked; /* read ahead from a pipe; handed on so far */
    unsigned char *block;  /* BLOCK_BYTES for libarchive, of a pipe */
    char name[NAME_BYTES]; /* source_member.name */
    const char *member;    /* in name: what follows "file:" */
    bool in_member;
    _Atomic int64_t files_done, bytes_before, bytes_here, passed_over;
    int64_t bytes; /* of all files, 0 when one is a pipe */
};

static const char *file_name(const struct source *s)
{
    const char *path = s->list.v[s->at].path;

    return path ? path : "standard input";
}

int source_open(struct source **out, const char *const *operands, int n, const char *const *include,
                int n_include, const struct source_advice *advice, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);
    int rc;

    *out = NULL;
    if (!s || !(s->block = malloc(BLOCK_BYTES))) {
        free(s);
        return err_set(e, E_SYS, "out of memory");
    }
    s->fd = -1;
    s->utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); /* 0: that of the caller */
    s->list.include = include;
    s->list.n_include = n_include;
    s->list.advice = advice ? *advice : (struct source_advice){ 0 };
    if ((rc = source_list_fill(&s->list, operands, n, e)) < 0) {
        source_close(s);
        return rc;
    }
    if (s->list.special)
        buf_printf(&s->notes, NULL, "%lld pipes, sockets or devices in folders\n",
                   (long long)s->list.special);
    if (s->list.again)
        buf_printf(&s->notes, NULL, "%lld links to folders that are read already, or lead back\n",
                   (long long)s->list.again);
    for (int64_t i = 0; i < s->list.n; i++)
        s->bytes += s->list.v[i].bytes;
    for (int64_t i = 0; i < s->list.n; i++)
        if (!s->list.v[i].regular)
            s->bytes = 0; /* one size is unknown, and so is the sum */
    *out = s;
    return 0;
}

static void close_file(struct source *s)
{
    if (s->archive)
        archive_read_free(s->archive);
    gunzip_close(s->gunzip);
    s->archive = NULL;
    s->gunzip = NULL;
    if (s->fd > STDIN_FILENO) /* standard input is not ours to close */
        close(s->fd);
    s->fd = -1;
    s->in_member = false;
}

/* The open file is done with, well or not. */
static void leave_file(struct source *s)
{
    close_file(s);
    s->bytes_before += s->list.v[s->at].bytes; /* in full, whether it was read or not */
    s->bytes_here = 0;
    s->files_done++;
    s->at++;
}

int64_t source_files(const struct source *s) { return s->list.n; }
const struct source_item *source_file(const struct source *s, int64_t i) { return &s->list.v[i]; }
int64_t source_at(const struct source *s) { return s->at; }

void source_skip(struct source *s, int64_t n)
{
    while (s->at < n)
        leave_file(s);
}

void source_close(struct source *s)
{
    if (!s)
        return;
    close_file(s);
    source_list_free(&s->list);
    if (s->utf8)
        freelocale(s->utf8);
    buf_free(&s->notes);
    free(s->block);
    free(s);
}

static ssize_t read_fd(int fd, void *buf, size_t cap)
{
    ssize_t n;

    while ((n = read(fd, buf, cap)) < 0 && errno == EINTR) /* a signal came: once more */
        ;
    return n;
}

static int peek(struct source *s, struct err *e)
{
    ssize_t n;

    s->n_peek = s->peeked = 0;
    s->regular = lseek(s->fd, 0, SEEK_CUR) == 0; /* a file, still at its start */
    do {
        n = read_fd(s->fd, s->peek + s->n_peek, PEEK_BYTES - s->n_peek);
        if (n < 0)
            return err_sys(e, errno == EISDIR ? E_NOINPUT : E_IO, "cannot read '%s'",
                           file_name(s));
        s->n_peek += (size_t)n;
    } while (n > 0 && s->n_peek < PEEK_BYTES);
    return 0;
}

static bool is_called(const struct source *s, const char *ending)
{
    const char *path = s->list.v[s->at].path;
    size_t n = path ? strlen(path) : 0, k = strlen(ending);

    return n > k && strcmp(path + n - k, ending) == 0;
}

/* A name that says archive opens one too, whatever may stand before it. */
static bool is_packed(struct source *s)
{
    const struct magic_form *m = magic_of(s->peek, s->n_peek, s->n_peek < PEEK_BYTES);

    s->form = m ? m->form : 0;
    if (s->form >= MAGIC_GZIP && s->form <= MAGIC_TAR)
        return true;
    return s->form != MAGIC_LFS && s->form != MAGIC_MARKUP && (is_called(s, ".tar") || is_called(s, ".zip"));
}

/* What is to be done about the file, or else. */
static int damaged_hint(const struct source *s, const char *first, struct err *e)
{
    return err_hint(e, "%s%s", first, s->list.advice.leave_out ? s->list.advice.leave_out : "leave it out");
}

static int archive_failed(struct source *s, struct err *e)
{
    const char *why = archive_error_string(s->archive);
    int no = archive_errno(s->archive);

    if (no != EIO && errno == ENOMEM) /* libarchive may say nothing, or that data are bad */
        no = ENOMEM;
    if (no == EIO || no == ENOMEM)
        return err_set(e, no == EIO ? E_IO : E_SYS, "cannot read '%s': %s", s->name,
                       strerror(no));
    if (why && strstr(why, "too much memory")) {
        err_set(e, E_DATA, "'%s': its zstd window is larger than 128 MiB", s->name);
        return err_hint(e, "compress it again: zstd -dc --long=31 FILE | zstd --long=27 > NEW.zst");
    }
    if (!why || strlen(why) < 2) /* libarchive gives no reason */
        why = "it ends too early";
    err_set(e, E_DATA, "'%s' is cut short or damaged: %c%s", s->name,
            islower((unsigned char)why[1]) ? tolower((unsigned char)*why) : *why, why + 1);
    return damaged_hint(s, "fetch it again, or ", e);
}

/* The next bytes of the file, those that were read ahead first. */
static int64_t read_block(void *ctx, const void **block)
{
    struct source *s = ctx;
    ssize_t n;

    *block = s->peek;
    if (s->peeked < s->n_peek) { /* what peek read to know the form */
        n = (ssize_t)s->n_peek;
        s->peeked = s->n_peek;
    } else {
        *block = s->block;
        n = read_fd(s->fd, s->block, BLOCK_BYTES);
    }
    return n;
}

static ssize_t read_pipe(struct archive *a, void *ctx, const void **block)
{
    int64_t n = read_block(ctx, block);

    if (n < 0)
        archive_set_error(a, EIO, "%s", strerror(errno));
    return n;
}

static ssize_t read_gzip(struct archive *a, void *ctx, const void **block)
{
    struct source *s = ctx;
    const char *why;
    int64_t n = gunzip_next(s->gunzip, block, &why);

    if (n < 0)
        archive_set_error(a, why ? EILSEQ : EIO, "%s",
                          why ? why : strerror(errno));
    return n;
}

static bool is_compressed(const struct source *s)
{
    return s->gunzip || archive_filter_count(s->archive) > 1; /* the file itself counts */
}

/* Bytes of the file that were read, and what they unpacked to. */
static int64_t packed_bytes(const struct source *s)
{
    return s->gunzip ? gunzip_packed(s->gunzip) : archive_filter_bytes(s->archive, -1);
}

static int64_t unpacked_bytes(const struct source *s)
{
    int64_t n = is_compressed(s) ? archive_filter_bytes(s->archive, 0) : 0;

    return s->data > n ? s->data : n; /* holes of sparse files count too */
}

static bool is_zip_file(const struct source *s)
{
    return s->regular && (s->form == MAGIC_ZIP || is_called(s, ".zip"));
}

/* zstd's filter is put in place where the form is known: libarchive does not know a file that
 * begins with a frame to be passed over. ARCHIVE_WARN: it would start an outside program. */
static int add_filters(const struct source *s, struct archive *a, struct err *e)
{
    if (!a || archive_read_support_filter_xz(a) != ARCHIVE_OK ||
        (s->form == MAGIC_ZSTD ? archive_read_append_filter(a, ARCHIVE_FILTER_ZSTD)
                               : archive_read_support_filter_zstd(a)) != ARCHIVE_OK ||
        archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_support_format_zip_streamable(a) != ARCHIVE_OK ||
        (is_zip_file(s) && archive_read_support_format_zip_seekable(a) != ARCHIVE_OK) ||
        archive_read_support_format_empty(a) != ARCHIVE_OK ||
        archive_read_support_format_raw(a) != ARCHIVE_OK)
        return err_set(e, E_SYS, errno == ENOMEM ? "out of memory"
                                 : "this libarchive was built without zstd or xz");
    return 0;
}

static int open_archive(struct source *s, struct err *e)
{
    struct archive *a;
    int rc;

    errno = 0; /* see archive_failed */
    a = s->archive = archive_read_new();
    if ((rc = add_filters(s, a, e)) < 0)
        return rc;
    if (is_zip_file(s) && /* before any of it is unpacked */
        (rc = zip_check(s->fd, lseek(s->fd, 0, SEEK_END), s->name, e)) < 0)
        return rc == E_DATA ? damaged_hint(s, "no archiver writes this: ", e) : rc;
    s->ended = false;
    s->last_end = s->data = s->stretch = s->stretch_packed = 0;
    s->in = (struct archive_counts){ 0 };
    if (s->form == MAGIC_GZIP) {
        if (!(s->gunzip = gunzip_open(read_block, s)))
            return err_set(e, E_SYS, "out of memory");
        rc = archive_read_open2(a, s, NULL, read_gzip, NULL, NULL);
    } else if (s->regular && lseek(s->fd, 0, SEEK_SET) == 0) { /* from the start again */
        rc = archive_read_open_fd(a, s->fd, BLOCK_BYTES);
    } else {
        rc = archive_read_open2(a, s, NULL, read_pipe, NULL, NULL);
    }
    /* What goes wrong while it looks for the format ends nothing, and would be lost. */
    return rc == ARCHIVE_OK && archive_errno(a) == 0 ? 0 : archive_failed(s, e);
}

/* For a message: UTF-8 without control characters. */
static void make_fit(char *name, size_t n)
{
    size_t bad;

    while (!utf8_valid(name, n, &bad)) /* bad: the first wrong byte */
        name[bad] = '?';
    text_clean(name, false);
}

static void name_file(struct source *s)
{
    snprintf(s->name, sizeof s->name, "%s", file_name(s));
    make_fit(s->name, strlen(s->name));
}

static int open_file(struct source *s, struct err *e)
{
    const char *path = s->list.v[s->at].path;
    int rc;

    s->fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : STDIN_FILENO;
    if (s->fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    name_file(s);
    if ((rc = peek(s, e)) < 0)
        return rc;
    s->plain = !is_packed(s);
    s->given = false;
    return s->plain ? 0 : open_archive(s, e);
}

/* n more bytes of a member were unpacked: E_DATA when that is out of all proportion. */
static int check_bomb(struct source *s, size_t n, struct err *e)
{
    int64_t unpacked, packed;

    s->data += (int64_t)n;
    if ((unpacked = unpacked_bytes(s)) - s->stretch <= BOMB_BYTES)
        return 0;
    packed = packed_bytes(s);
    if (packed < s->stretch_packed) /* a zip's directory stands behind its members */
        s->stretch_packed = 0;
    if ((unpacked - s->stretch) / BOMB_RATIO <= packed - s->stretch_packed) {
        s->stretch = unpacked;
        s->stretch_packed = packed;
        return 0;
    }
    err_set(e, E_DATA, "'%s' unpacks to over %d times its size: a decompression bomb, or damaged", s->name,
            BOMB_RATIO);
    return err_hint(e, "if you trust it, unpack it and give what comes out");
}

/* The rest of the current member. Within a compressed archive that is unpacked all the same. */
static int pass_over(struct source *s, struct err *e)
{
    const void *block;
    la_int64_t at;
    size_t n;
    int rc;

    if (!is_compressed(s))
        return archive_read_data_skip(s->archive) < ARCHIVE_WARN ? archive_failed(s, e) : 0;
    while ((rc = archive_read_data_block(s->archive, &block, &n, &at)) != ARCHIVE_EOF) {
        if (rc < ARCHIVE_WARN)
            return archive_failed(s, e);
        if ((rc = check_bomb(s, n, e)) < 0)
            return rc;
    }
    return 0;
}

/* file:member; false for one without a name. */
static bool name_member(struct source *s, struct archive_entry *entry)
{
    const char *member = archive_entry_pathname_utf8(entry);
    size_t n;

    if (!member)
        member = archive_entry_pathname(entry);
    s->member = s->name + snprintf(s->name, NAME_BYTES / 2, "%.*s:", NAME_BYTES / 2 - 2,
                                   file_name(s));
    n = (size_t)(s->member - s->name);
    n += (size_t)snprintf(s->name + n, NAME_BYTES - n, "%s", member ? member : "?");
    make_fit(s->name, n < NAME_BYTES ? n : NAME_BYTES - 1);
    return member && *member;
}

/* A tar archive ends in a block of zeros, which libarchive does not insist on: without one it
 * was cut between two members. A zip ends in its directory. */
static int check_end(struct source *s, struct err *e)
{
    unsigned char tail[65557]; /* a zip's end record with the longest comment */
    int format = archive_format(s->archive);
    off_t size;
    ssize_t n;

    if ((format & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR && s->ended &&
        archive_filter_bytes(s->archive, 0) <= s->last_end) {
        err_set(e, E_DATA, "'%s' is cut short: no end mark after its last member",
                file_name(s));
        return damaged_hint(s, "fetch it again, or ", e);
    }
    if ((format & ARCHIVE_FORMAT_BASE_MASK) != ARCHIVE_FORMAT_ZIP || !s->regular ||
        is_compressed(s))
        return 0;
    size = lseek(s->fd, 0, SEEK_END);
    n = size < 0 ? 0 : pread(s->fd, tail, sizeof tail,
                             size < (off_t)sizeof tail ? 0 : size - (off_t)sizeof tail);
    if (n >= 22 && memmem(tail, (size_t)n - 18, "PK\5\6", 4)) /* its end record has 22 bytes */
        return 0;
    err_set(e, E_DATA, "'%s' is cut short: its directory is missing", file_name(s));
    return damaged_hint(s, "fetch it again, or ", e);
}

/* Whether the member whose header was read is to be: 0 once it is counted among the others. */
static bool take_member(struct source *s, struct archive_entry *entry)
{
    bool named = name_member(s, entry);

    if (archive_entry_filetype(entry) == AE_IFDIR)
        return false;
    if (archive_entry_hardlink(entry) || archive_entry_filetype(entry) == AE_IFLNK) {
        s->in.links++;
    } else if (archive_entry_filetype(entry) != AE_IFREG) {
        s->in.special++;
    } else if (!named) {
        s->in.nameless++;
    } else if (source_wanted(&s->list, s->member)) {
        s->in.taken++;
        return true;
    } else {
        if (s->in.by_name++ == 0)
            snprintf(s->in.first, sizeof s->in.first, "%s", s->member);
        s->passed_over++;
    }
    return false;
}

/* 1 and a member of the open archive that is to be read, 0 at the archive's end. */
static int next_entry(struct source *s, struct source_member *m, struct err *e)
{
    struct archive_entry *entry;
    bool raw;
    int rc;

    do {
        if (s->ended) { /* what is unread of the last member, so that its end is known */
            if ((rc = pass_over(s, e)) < 0)
                return rc;
            s->last_end = archive_filter_bytes(s->archive, 0);
        }
        name_file(s);
        if ((rc = archive_read_next_header(s->archive, &entry)) == ARCHIVE_EOF)
            return check_end(s, e);
        if (rc < ARCHIVE_WARN)
            return archive_failed(s, e);
        if ((rc = check_bomb(s, 0, e)) < 0)
            return rc;
        s->ended = true;
        s->bytes_here = packed_bytes(s);
        raw = archive_format(s->archive) == ARCHIVE_FORMAT_RAW;
        if (raw && (!is_compressed(s) || source_is_archive(s->name))) {
            /* begins as one, or is called one, and is none */
            err_set(e, E_DATA, "'%s' is cut short or damaged: its header is not an archive's",
                    file_name(s));
            return damaged_hint(s, "fetch it again, or ", e);
        }
        s->in.taken += raw; /* a compressed file is its own only member */
    } while (!raw && !take_member(s, entry));
    *m = (struct source_member){ source_kind(raw ? s->name : s->member), !raw, file_name(s),
                                 s->name };
    return 1;
}

/* What of an archive was not read, for people; of one that ended well or not. */
static void note_members(struct source *s)
{
    const struct archive_counts *c = &s->in;
    struct { int64_t n; const char *one, *many; } why[] = {
        { c->by_name, "member that is no text by its name", "members that are no text by name" },
        { c->links, "link to another member", "links to other members" },
        { c->nameless, "member without a name", "members without a name" },
        { c->special, "device or pipe", "devices or pipes" },
    };
    const char *sep = "";

    if (c->links + c->nameless + c->special == 0 && (c->taken > 0 || c->by_name == 0))
        return; /* how many are no text by name is told once, at the end */
    name_file(s);
    buf_printf(&s->notes, NULL, "of '%.900s'%s ", s->name, c->taken ? "" : " everything:");
    for (size_t i = 0; i < sizeof why / sizeof *why; i++)
        if (why[i].n) {
            buf_printf(&s->notes, NULL, "%s%lld %s", sep, (long long)why[i].n,
                       why[i].n == 1 ? why[i].one : why[i].many);
            sep = ", ";
        }
    if (c->taken == 0 && c->by_name)
        buf_printf(&s->notes, NULL, " ('%s'; --include GLOB takes more)", c->first);
    buf_add(&s->notes, "\n", 1, NULL);
}

int source_next(struct source *s, struct source_member *m, struct err *e)
{
    locale_t before = s->utf8 ? uselocale(s->utf8) : (locale_t)0;
    int rc = 0;

    s->in_member = false;
    for (; s->at < s->list.n; leave_file(s)) {
        if (s->fd < 0 && (rc = open_file(s, e)) < 0)
            break;
        if (s->plain && s->given) /* it is its own only member */
            continue;
        rc = 1;
        s->given = true;
        if (s->plain)
            *m = (struct source_member){ source_kind(s->name), false, file_name(s), s->name };
        else if ((rc = next_entry(s, m, e)) == 0)
            note_members(s);
        if (rc != 0)
            break;
    }
    if (before)
        uselocale(before);
    if (s->at == s->list.n)
        return 0;
    if (rc < 0)
        leave_file(s); /* the next call goes on behind it */
    s->in_member = rc == 1;
    return rc;
}

void source_notes(struct source *s, struct buf *to)
{
    struct buf was = *to;

    was.len = 0; /* its memory takes the next notes */
    *to = s->notes;
    s->notes = was;
}

int64_t source_read(struct source *s, void *buf, size_t cap, struct err *e)
{
    size_t n;
    ssize_t got;
    int rc;

    if (!s->in_member)
        return 0;
    if (s->plain && s->peeked < s->n_peek) { /* what peek read comes first */
        n = s->n_peek - s->peeked < cap ? s->n_peek - s->peeked : cap;
        memcpy(buf, s->peek + s->peeked, n);
        s->peeked += n;
        return (int64_t)n;
    }
    got = s->plain ? read_fd(s->fd, buf, cap) : archive_read_data(s->archive, buf, cap);
    if (got >= 0 && !s->plain && (rc = check_bomb(s, (size_t)got, e)) < 0) {
        leave_file(s);
        return rc;
    }
    if (got >= 0) {
        s->bytes_here = s->plain ? s->bytes_here + got : packed_bytes(s);
        return got;
    }
    rc = s->plain ? err_sys(e, E_IO, "cannot read '%s'", s->name) : archive_failed(s, e);
    leave_file(s);
    return rc;
}

void source_progress(const struct source *s, struct source_progress *p)
{
    p->files = s->list.n;
    p->files_done = s->files_done;
    p->bytes = s->bytes;
    p->bytes_done = s->bytes_before + s->bytes_here;
    p->passed_over = s->passed_over;
    p->in_folders = s->list.passed_over;
    snprintf(p->first, sizeof p->first, "%.190s", s->list.first);
}
