/* tests/test_magic.c - forms by their first bytes, and text that only begins like one. */
#include "base/bytes.h"
#include "base/magic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a block of exactly n bytes is. */
static const char *name_of(const void *p, size_t n, bool whole)
{
    unsigned char *copy = malloc(n ? n : 1);
    const struct magic_form *m;

    memcpy(copy, p, n);
    m = magic_of(copy, n, whole);
    free(copy);
    return m ? m->name : "nothing";
}

#define B(s) s, sizeof s - 1
static const struct {
    const char *bytes;
    size_t n;
    const char *whole, *begun; /* as all there is, and as a beginning; begun NULL: the same */
} known[] = {
    { B("LLSHARD\x1A"), "a token shard", NULL },
    { B("LLSHARD is the first word of a shard"), "nothing", NULL },
    { B("LLSTREAM\1\0\0\0"), "a token stream", NULL },
    { B("LLSTREAM begins a stream"), "nothing", NULL },
    { B("\x1F\x8B\x08\0\0\0\0\0"), "packed by gzip", NULL },
    { B("\x1F\x8B\x07\0\0\0\0\0"), "nothing", NULL },    /* no such method */
    { B("\x1F\x8B\x08\xE0\0\0\0\0"), "nothing", NULL },  /* flags that are none */
    { B("\x28\xB5\x2F\xFD\x04\x88\1"), "packed by zstd", NULL },
    { B("\x28\xB5\x2F\xFD\x0C\x88\1"), "nothing", NULL }, /* a reserved bit */
    { B("\x50\x2A\x4D\x18\4\0\0\0abcd\x28\xB5\x2F\xFD\4"), "packed by zstd", NULL },
    { B("\x5F\x2A\x4D\x18\0\0\0\0\x51\x2A\x4D\x18\1\0\0\0x\x28\xB5\x2F\xFD\4"),
      "packed by zstd", NULL },
    { B("\x50\x2A\x4D\x18\4\0\0\0abcdno frame"), "nothing", NULL },
    { B("\x50\x2A\x4D\x18\xFF\0\0\0abcd"), "nothing", "packed by zstd" }, /* out of sight */
    { B("\xFD" "7zXZ\0\0\4"), "packed by xz", NULL },
    { B("\xFD" "7zXZ\0\1\4"), "nothing", NULL },
    { B("BZh91AY&SY\xAF\0"), "packed by bzip2", NULL },
    { B("BZh91AY&SY is how bzip2 begins"), "nothing", NULL },
    { B("\x04\x22\x4D\x18\x64\x40\xA7"), "packed by lz4", NULL },
    { B("\x04\x22\x4D\x18\x24\x40\xA7"), "nothing", NULL },
    { B("PK\3\4\x14\0\0\x08\0\0"), "a zip archive", NULL },
    { B("PK\3\4\x14\0\0\x08\xFF\xFF"), "nothing", NULL }, /* no such method */
    { B("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "an empty zip archive", NULL },
    { B("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0more"), "nothing", NULL },
    { B("PK\5\6\0\0\0\0\1\0\1\0\0\0\0\0\0\0\0\0\0\0"), "nothing", NULL }, /* of one member */
    { B("PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x14\0\0\0\x14\0\0\0\x08\0\0\0"
        "mimetypeapplication/epub+zip"), "an EPUB book", NULL },
    { B("PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x14\0\0\0\x14\0\0\0\x13\0\0\0"
        "[Content_Types].xml<?xml"), "an Office document", NULL },
    { B("%PDF-1.4\n%\xE2\xE3\xCF\xD3\n1 0 obj"), "a PDF", NULL },
    { B("%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"), "a PDF", NULL },
    { B("%PDF-1.4 is what a PDF begins with"), "nothing", NULL },
    { B("%PDF-ling is a word"), "nothing", NULL },
    { B("PAR1\x15\4\x15\4data\x15\0\0\0PAR1"), "nothing", "a Parquet table" }, /* 21 > its data */
    { B("PAR1\x15\4\x15\4data\4\0\0\0PAR1"), "a Parquet table", NULL },
    { B("PAR1\x15\4\x15\4data"), "nothing", "a Parquet table" },
    { B("PAR1 and PAR1"), "nothing", NULL },
    { B("ARROW1\0\0\xFF\xFF"), "an Arrow table", NULL },
    { B("\xFF\xFF\xFF\xFF\x18\0\0\0\x10\0\0\0\0\0\0\0aaaabbbbccccddddeeee"), "an Arrow table",
      NULL },
    { B("\xFF\xFF\xFF\xFF\x19\0\0\0\x10\0\0\0\0\0\0\0aaaabbbbccccddddeeee"), "nothing", NULL },
    { B("GGUF\3\0\0\0"), "a GGUF model", NULL },
    { B("GGUF is a format\0"), "nothing", NULL },
    { B("\x10\0\0\0\0\0\0\0{\"a\":{}}       }"), "tensors (safetensors)", NULL },
    { B("\x10\1\0\0\0\0\0\0{\"a\":{}}       }"), "nothing", "tensors (safetensors)" },
    { B("\x10\0\0\0\0\0\0\0{\"a\":{}}       x"), "nothing", NULL },
    { B("\x10\0\0\0\0\0\0\0{a"), "nothing", NULL },
    { B("\n\x0E\n\5<unk>\x15\0\0\0\0\x18\2\n\x0B\n\3<s>"), "a SentencePiece model", NULL },
    { B("\n\x0E\n\5<unk>\x15\0\0\0\0\x18\2\x0B\n\3<s>"), "nothing", NULL },
    { B("MMIDIDX\0\0\1\0\0\0"), "an index of Megatron's", NULL },
    { B("\x88\xD8\x34\1\1\0\0\0"), "a data file of llm.c", NULL },
    { B("\x88\xD8\x34\1\2\0\0\0"), "nothing", NULL },
    { B("\x80\4\x95\x10\0\0\0\0\0\0\0}."), "a Python pickle", NULL },
    { B("\x80\2}q\0."), "a Python pickle", NULL },
    { B("\x80\2\7\0\1\2"), "nothing", NULL }, /* ids 640, 7 */
    { B("\xFF\xFEh\0i\0"), "text in UTF-16", NULL },
    { B("\xFF\xFE\0\0h\0\0\0"), "text in UTF-32", NULL },
    { B("w\0i\0t\0h\0o\0u\0t\0 \0m\0a\0r\0k\0"), "text in UTF-16", NULL },
    { B("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
      "a pointer of Git LFS", NULL },
    { B("version https://git-lfs.github.com/spec/v1 is its first line"), "nothing", NULL },
    { B("<!DOCTYPE html><p>"), "an HTML page", NULL },
    { B("\xEF\xBB\xBF\n<!-- a page -->\n<HTML lang=en>"), "an HTML page", NULL },
    { B("<?xml version='1.0'?><html>"), "an HTML page", NULL },
    { B("<?xml version='1.0'?><mediawiki>"), "an XML document", NULL },
    { B("<htmlish is no tag>"), "nothing", NULL },
    { B("<!-- of html -->"), "nothing", NULL },
    { B("WARC/1.0\r\nWARC-Type: conversion\r\n"), "WARC records", NULL },
    { B("WARC/1.0 is the format of archives"), "nothing", NULL },
    { B("IQ== 0\nIg== 1\nIw== 2\n"), "a vocabulary of tiktoken's", NULL },
    { B("word 0\nmore 1\nlast 3\n"), "nothing", NULL },
    { B("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,"),
      "a tokenizer.json of Hugging Face's tokenizers", NULL },
    { B("{\"version\": \"1.0\"}"), "nothing", NULL },
    { B("plain text"), "nothing", NULL },
    { B("a"), "nothing", NULL },
    { B(""), "nothing", NULL },
};

static void test_known_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *whole = name_of(known[i].bytes, known[i].n, true),
                   *begun = name_of(known[i].bytes, known[i].n, false),
                   *want = known[i].begun ? known[i].begun : known[i].whole;
        if (strcmp(whole, known[i].whole) != 0 ||
            (strcmp(begun, want) != 0 && !strstr(known[i].whole + 3, "empty")))
            fail_msg("row %zu, '%.12s': whole %s, begun %s", i, known[i].bytes, whole, begun);
    }
}

/* A text is one wherever the word that marks a tar stands; a tar is one by its checksum. */
static void test_tar_by_its_checksum(void **state)
{
    unsigned char b[1024] = { 0 };
    unsigned sum = 0;

    (void)state;
    memset(b, 'x', sizeof b);
    memcpy(b + 257, "ustar  \0", 8);
    assert_string_equal(name_of(b, 512, false), "nothing");
    memset(b, 0, sizeof b);
    strcpy((char *)b, "one.txt");
    memcpy(b + 100, "0000644\0000001750\0000001750\00000000000012\00014653021514\0", 48);
    memset(b + 148, ' ', 8);
    b[156] = '0';
    for (int ustar = 0; ustar < 2; ustar++) { /* one of 1979 has no such word */
        sum = 0;
        if (ustar)
            memcpy(b + 257, "ustar\00000", 8);
        memset(b + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += b[i];
        snprintf((char *)b + 148, 8, "%06o", sum);
        assert_string_equal(name_of(b, 512, false), "a tar archive");
        assert_string_equal(name_of(b, 1024, true), "a tar archive");
        b[3]++;
        assert_string_equal(name_of(b, 512, false), "nothing");
        b[3]--;
    }
    assert_string_equal(name_of(b, 300, true), "a tar archive"); /* cut */
}

static void test_text_by_its_bytes(void **state)
{
    static const struct { const char *bytes; size_t n; const char *want; } t[] = {
        { B("plain text\n"), "text" },
        { B("\xEF\xBB\xBF{\"text\": 1}"), "JSON" },
        { B(" [ {\"a\":1}]"), "JSON" },
        { B("{a set}"), "text" },
        { B("\1\0\2\0\3\0"), NULL },
        { B("caf\xE9"), NULL }, /* too little to say */
        { B("caf\xE9 caf\xE9 caf\xE9 caf\xE9 caf\xE9 caf\xE9 caf\xE9 caf\xE9 caf\xE9 caf\xE9 "
            "caf\xE9 caf\xE9 caf\xE9 "), "text in an 8-bit encoding" },
        { B(""), NULL },
    };
    unsigned char ids[4096];
    uint32_t x = 1;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        const char *got = magic_text(t[i].bytes, t[i].n);
        if ((got == NULL) != (t[i].want == NULL) || (got && strcmp(got, t[i].want) != 0))
            fail_msg("row %zu: %s", i, got);
    }
    for (int k = 0; k < 50; k++) { /* ids are no text, large ones neither */
        for (size_t i = 0; i < sizeof ids; i += 2) {
            x = x * 1103515245u + 12345u;
            put_le(ids + i, 8192 + (x >> 8) % 23808, 2);
        }
        assert_null(magic_text(ids, sizeof ids));
    }
    for (size_t i = 0; i < sizeof ids; i++)
        ids[i] = (unsigned char)((x = x * 1103515245u + 12345u) >> 24);
    assert_true(magic_binary(ids, sizeof ids));
    assert_false(magic_binary("one\0NUL", 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_forms),
        cmocka_unit_test(test_tar_by_its_checksum),
        cmocka_unit_test(test_text_by_its_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
