/* tests/test_source.c - members out of files, folders, globs, pipes and archives. */
#include "base/bytes.h"
#include "base/file.h"
#include "formats/text/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_source.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct err e = { 0 };

    (void)state;
    return dir_remove(dir, &e);
}

static const char *at(const char *name)
{
    static char path[4][256];
    static int k;

    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void put(const char *name, const void *p, size_t n)
{
    FILE *f = fopen(at(name), "w");

    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

/* All members as "name=bytes|" with the folder's name left out, and "!message|" for errors. */
static void list_of(char *out, size_t cap, int n_operands, const char *const *operands,
                    const char *include)
{
    struct source_member m;
    struct source *s;
    struct err e = { 0 };
    size_t k = 0;
    char buf[7]; /* small, so that members take many reads */
    int64_t n;
    int rc = source_open(&s, operands, n_operands, &include, include != NULL, NULL, &e);

    out[0] = '\0';
    if (rc < 0) {
        snprintf(out, cap, "!%s", e.msg);
        return;
    }
    while ((rc = source_next(s, &m, &e)) != 0) {
        const char *name = rc < 0 ? "" : m.name;
        if (strncmp(name, dir, strlen(dir)) == 0)
            name += strlen(dir) + 1;
        if (rc == 1)
            k += (size_t)snprintf(out + k, cap - k, "%s=", name);
        while (rc == 1 && (n = source_read(s, buf, sizeof buf, &e)) != 0) {
            if (n < 0)
                rc = (int)n;
            else
                k += (size_t)snprintf(out + k, cap - k, "%.*s", (int)n, buf);
        }
        k += (size_t)snprintf(out + k, cap - k, rc < 0 ? "!%s|" : "|", e.msg);
        assert_true(k < cap);
        e = (struct err){ 0 };
    }
    source_close(s);
}

static const char *list(const char *operand, const char *include)
{
    static char out[8192];

    list_of(out, sizeof out, operand != NULL, &operand, include);
    return out;
}

static void test_folders_in_byte_order(void **state)
{
    char pattern[256];

    (void)state;
    mkdir(at("f"), 0777);
    mkdir(at("f/b"), 0777);
    mkdir(at("f/.git"), 0777);
    put_text("f/z.txt", "z");
    put_text("f/B.tex", "B");
    put_text("f/a.md", "a");
    put_text("f/b/10.jsonl", "ten");
    put_text("f/b/9.json", "nine");
    put_text("f/x.png", "no text");
    put_text("f/.hidden.txt", "hidden");
    put_text("f/.git/c.txt", "hidden");
    assert_int_equal(symlink("..", at("f/b/up")), 0);
    assert_int_equal(symlink("nowhere.txt", at("f/dangling.txt")), 0);
    snprintf(pattern, sizeof pattern, "f/B.tex=B|f/a.md=a|f/b/10.jsonl=ten|f/b/9.json=nine|"
             "!cannot open '%s/f/dangling.txt': No such file or directory|f/z.txt=z|", dir);
    assert_string_equal(list(at("f"), NULL), pattern); /* at its turn */
    assert_string_equal(list(at("f"), "*.png"), "f/x.png=no text|");
    assert_string_equal(list(at("f/x.png"), NULL), "f/x.png=no text|"); /* named: read */
    unlink(at("f/dangling.txt"));
    snprintf(pattern, sizeof pattern, "%s/f/*.[mt]*", dir);
    assert_string_equal(list(pattern, NULL), "f/B.tex=B|f/a.md=a|f/z.txt=z|");
    assert_non_null(strstr(list(at("f/*.none"), NULL), "no file matches"));
    assert_non_null(strstr(list(at("none"), NULL), "cannot open"));
    assert_non_null(strstr(list(at("f"), "*.none"), "no text files in the folder"));
    put_text("f/[1].txt", "brackets"); /* a name that looks like a glob, but is there */
    assert_string_equal(list(at("f/[1].txt"), NULL), "f/[1].txt=brackets|");
}

struct member {
    const char *name, *text;
    int type;
};
static const struct member members[] = {
    { "one.txt", "first text", AE_IFREG },      { "sub", "", AE_IFDIR },
    { "sub/two.jsonl", "{\"a\":1}", AE_IFREG }, { "sub/pic.png", "\x89PNG", AE_IFREG },
    { "link.txt", "", AE_IFLNK },               { "../../evil.txt", "kept apart", AE_IFREG },
    { "/tmp/abs.txt", "absolute", AE_IFREG },   { "empty.txt", "", AE_IFREG },
    { ".hid.txt", "hidden", AE_IFREG },
};
#define WANT(f) f ":one.txt=first text|" f ":sub/two.jsonl={\"a\":1}|" \
    f ":../../evil.txt=kept apart|" f ":/tmp/abs.txt=absolute|" f ":empty.txt=|"

static void pack(const char *name, int filter, int zip)
{
    struct archive *a = archive_write_new();

    assert_int_equal((zip ? archive_write_set_format_zip : archive_write_set_format_pax)(a), 0);
    assert_int_equal(archive_write_add_filter(a, filter), ARCHIVE_OK);
    archive_write_set_bytes_in_last_block(a, 1);
    assert_int_equal(archive_write_open_filename(a, at(name)), ARCHIVE_OK);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        struct archive_entry *en = archive_entry_new();
        archive_entry_set_pathname(en, members[i].name);
        archive_entry_set_filetype(en, (unsigned)members[i].type);
        archive_entry_set_perm(en, 0644);
        archive_entry_set_size(en, (la_int64_t)strlen(members[i].text));
        if (members[i].type == AE_IFLNK)
            archive_entry_set_symlink(en, "/etc/passwd");
        assert_int_equal(archive_write_header(a, en), ARCHIVE_OK);
        archive_write_data(a, members[i].text, strlen(members[i].text));
        archive_entry_free(en);
    }
    assert_int_equal(archive_write_free(a), ARCHIVE_OK);
}

/* Links are followed, each folder is read once, and what is left out is counted. */
static void test_links_in_folders(void **state)
{
    struct source_progress p;
    struct buf notes = { 0 };
    const char *operand;
    struct source *s;
    struct err e = { 0 };

    (void)state;
    mkdir(at("l"), 0777);
    mkdir(at("l/real"), 0777);
    mkdir(at("elsewhere"), 0777);
    put_text("l/real/a.txt", "a");
    put_text("l/pic.png", "no text");
    put_text("elsewhere/b.txt", "b");
    assert_int_equal(symlink("../elsewhere", at("l/z")), 0);
    assert_int_equal(symlink("..", at("l/real/up")), 0);
    assert_int_equal(symlink("real", at("l/second")), 0);
    assert_int_equal(symlink("pic.png", at("l/t.txt")), 0);
    assert_int_equal(mkfifo(at("l/pipe.txt"), 0666), 0);
    assert_string_equal(list(at("l"), NULL), "l/real/a.txt=a|l/t.txt=no text|l/z/b.txt=b|");
    operand = at("l");
    assert_int_equal(source_open(&s, &operand, 1, NULL, 0, NULL, &e), 0);
    source_progress(s, &p);
    assert_int_equal(p.in_folders, 1);
    assert_non_null(strstr(p.first, "l/pic.png"));
    source_notes(s, &notes);
    assert_int_equal(buf_add(&notes, "", 1, &e), 0);
    assert_string_equal(notes.p, "1 pipes, sockets or devices in folders\n"
                                 "2 links to folders that are read already, or lead back\n");
    buf_free(&notes);
    source_close(s);
}

/* How much there is to read is known beside an empty file, and not beside a pipe. */
static void test_progress(void **state)
{
    const char *operands[2];
    struct source_progress p;
    struct source *s;
    struct err e = { 0 };

    (void)state;
    mkdir(at("progress"), 0777);
    put_text("progress/a.txt", "twelve bytes");
    put_text("progress/empty.txt", "");
    operands[0] = strdup(at("progress"));
    assert_int_equal(source_open(&s, operands, 1, NULL, 0, NULL, &e), 0);
    source_progress(s, &p);
    assert_true(p.files == 2 && p.bytes == 12 && p.bytes_done == 0);
    source_close(s);
    operands[1] = "-";
    assert_int_equal(source_open(&s, operands, 2, NULL, 0, NULL, &e), 0);
    source_progress(s, &p);
    assert_true(p.files == 3 && p.bytes == 0);
    source_close(s);
    free((char *)(uintptr_t)operands[0]);
}

static void test_archives(void **state)
{
    (void)state;
    pack("a.tar", ARCHIVE_FILTER_NONE, 0);
    pack("a.tar.gz", ARCHIVE_FILTER_GZIP, 0);
    pack("a.tar.xz", ARCHIVE_FILTER_XZ, 0);
    pack("tar-by-another-name", ARCHIVE_FILTER_ZSTD, 0);
    pack("a.zip", ARCHIVE_FILTER_NONE, 1);
    assert_string_equal(list(at("a.tar"), NULL), WANT("a.tar"));
    assert_string_equal(list(at("a.tar.gz"), NULL), WANT("a.tar.gz"));
    assert_string_equal(list(at("a.tar.xz"), NULL), WANT("a.tar.xz"));
    assert_string_equal(list(at("tar-by-another-name"), NULL), WANT("tar-by-another-name"));
    assert_string_equal(list(at("a.zip"), NULL), WANT("a.zip"));
    assert_string_equal(list(at("a.zip"), "*.png"), "a.zip:sub/pic.png=\x89PNG|");
    assert_string_equal(list(at("a.tar"), "sub/*"),
                        "a.tar:sub/two.jsonl={\"a\":1}|a.tar:sub/pic.png=\x89PNG|");
    assert_false(path_exists(at("../evil.txt")) || path_exists("/tmp/abs.txt") ||
                 path_exists("../../evil.txt"));
}

static void test_other_formats_are_not_opened(void **state)
{
    char want[256];
    struct archive *a = archive_write_new();
    struct archive_entry *en = archive_entry_new();

    (void)state;
    archive_write_set_format_cpio_newc(a);
    archive_write_open_filename(a, at("x.cpio"));
    archive_entry_set_pathname(en, "in.txt");
    archive_entry_set_filetype(en, AE_IFREG);
    archive_entry_set_size(en, 0);
    archive_write_header(a, en);
    archive_entry_free(en);
    archive_write_free(a);
    snprintf(want, sizeof want, "%.15s", list(at("x.cpio"), NULL));
    assert_string_equal(want, "x.cpio=07070100"); /* a file like any other */
}

/* Cut anywhere, an archive is an error, and what came before the cut is not lost. */
static void test_cut_anywhere(void **state)
{
    static const char *const names[] = { "a.tar", "a.tar.gz", "a.tar.xz", "tar-by-another-name",
                                         "a.zip" };
    struct err e = { 0 };
    int between = 0;

    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char *bytes;
        size_t n;

        assert_int_equal(file_read(at(names[k]), 1 << 20, &bytes, &n, &e), 0);
        /* Below 8 bytes nothing tells it from a text; a tar needs its magic at 257. */
        for (size_t cut = k ? 8 : 263; cut + (k == 0 ? 1024 : 1) < n; cut += 1 + n / 150) {
            put("cut", bytes, cut);
            if (!strstr(list(at("cut"), NULL), "cut short"))
                fail_msg("%s cut at %zu of %zu: %s", names[k], cut, n, list(at("cut"), NULL));
        }
        /* Between members too, where only the end mark of two empty blocks is missing. */
        for (size_t cut = 512; k == 0 && cut + 1024 < n; cut += 512)
            if (memcmp(bytes + cut + 257, "ustar", 5) == 0) {
                put("cut", bytes, cut);
                assert_non_null(strstr(list(at("cut"), NULL), "cut short"));
                between++;
            }
        free(bytes);
    }
    assert_true(between > 0);
}

/* After an archive that is cut comes the next file. */
static void test_going_on_after_an_error(void **state)
{
    char out[4096], *bytes;
    const char *operands[3];
    struct err e = { 0 };
    size_t n;

    (void)state;
    assert_int_equal(file_read(at("a.tar.gz"), 1 << 20, &bytes, &n, &e), 0);
    put("cut.tar.gz", bytes, n / 2);
    free(bytes);
    put_text("next.txt", "next");
    operands[0] = at("cut.tar.gz");
    operands[1] = at("next.txt");
    operands[2] = at("next.txt");
    list_of(out, sizeof out, 3, operands, NULL);
    assert_non_null(strstr(out, "cut short"));
    assert_string_equal(strchr(out, '|') ? strstr(out, "next.txt") : "", "next.txt=next|"
                                                                         "next.txt=next|");
}

static void test_files_that_are_packed(void **state)
{
    struct archive *a;
    struct archive_entry *en;
    size_t used;
    char out[1 << 16];

    static const int filters[] = { ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_ZSTD,
                                   ARCHIVE_FILTER_XZ };
    static const char *const names[] = { "p.txt.gz", "p.jsonl.zst", "p" };
    static const enum source_kind kinds[] = { SOURCE_TEXT, SOURCE_LINES, SOURCE_UNKNOWN };

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *operand;
        struct source_member m;
        struct source *s;
        struct err e = { 0 };

        a = archive_write_new();
        en = archive_entry_new();
        archive_write_set_format_raw(a);
        archive_write_add_filter(a, filters[i]);
        archive_write_open_memory(a, out, sizeof out, &used);
        archive_entry_set_filetype(en, AE_IFREG);
        archive_write_header(a, en);
        archive_write_data(a, "packed text", 11);
        archive_write_free(a);
        archive_entry_free(en);
        put(names[i], out, used);
        operand = at(names[i]);
        assert_int_equal(source_open(&s, &operand, 1, NULL, 0, NULL, &e), 0);
        assert_int_equal(source_next(s, &m, &e), 1);
        assert_int_equal(m.kind, kinds[i]);
        assert_false(m.archived);
        assert_string_equal(m.name, operand);
        assert_int_equal(source_read(s, out, sizeof out, &e), 11);
        assert_int_equal(source_next(s, &m, &e), 0);
        source_close(s);
    }
}

/* A zip of one member, its name in UTF-8 and said to be, as no C locale can name it. */
static void test_names_beyond_ascii(void **state)
{
    static const char zip[] =
        "PK\3\4\x14\0\0\x08\0\0\xe5\x85\x7d\x5d\x77\x4c\xc2\x38\x0d\0\0\0\x0d\0\0\0\x0b\0\0\0"
        "caf\xc3\xa9.jsonl{\"text\":\"a\"}\nPK\1\2\x14\3\x14\0\0\x08\0\0\xe5\x85\x7d\x5d\x77\x4c\xc2"
        "\x38\x0d\0\0\0\x0d\0\0\0\x0b\0\0\0\0\0\0\0\0\0\0\0\x80\1\0\0\0\0caf\xc3\xa9.jsonl"
        "PK\5\6\0\0\0\0\1\0\1\0\x39\0\0\0\x36\0\0\0\0";

    char reaches[sizeof zip];

    (void)state;
    put("utf8.zip", zip, sizeof zip);
    /* its own header says that a longer extra part comes before the data */
    memcpy(reaches, zip, sizeof zip);
    reaches[28] = 4;
    put("reaches.zip", reaches, sizeof zip);
    assert_non_null(strstr(list(at("reaches.zip"), NULL), "reaches into its directory"));
    assert_string_equal(list(at("utf8.zip"), NULL),
                        "utf8.zip:caf\xc3\xa9.jsonl={\"text\":\"a\"}\n|");
}

/* Standard input as a pipe: it cannot be rewound once the first bytes were looked at. A zip that
 * streams tells only at its end which members are links, so that there is one more. */
#define ZIP "standard input:link.txt=/etc/passwd|"
static void test_pipes(void **state)
{
    static const char *const names[] = { "a.tar", "tar-by-another-name", "a.zip", "next.txt" };
    struct err e = { 0 };
    int saved = dup(STDIN_FILENO);

    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char *bytes;
        size_t n;
        int fd[2];

        assert_int_equal(file_read(at(names[k]), 1 << 20, &bytes, &n, &e), 0);
        assert_int_equal(pipe(fd), 0);
        assert_true(write(fd[1], bytes, n) == (ssize_t)n); /* fits in a pipe's 64 KiB */
        close(fd[1]);
        dup2(fd[0], STDIN_FILENO);
        close(fd[0]);
        const char *out = list(k % 2 ? "-" : NULL, NULL);
        if (k == 2)
            assert_non_null(strstr(out, ZIP));
        else
            assert_string_equal(out, k < 3 ? WANT("standard input") : "standard input=next|");
        free(bytes);
    }
    dup2(saved, STDIN_FILENO);
    close(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders_in_byte_order),
        cmocka_unit_test(test_links_in_folders),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_archives),
        cmocka_unit_test(test_other_formats_are_not_opened),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_going_on_after_an_error),
        cmocka_unit_test(test_files_that_are_packed),
        cmocka_unit_test(test_names_beyond_ascii),
        cmocka_unit_test(test_pipes),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
