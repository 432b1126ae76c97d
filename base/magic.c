/* base/magic.c - see magic.h. */
#include "base/magic.h"

#include "base/bytes.h"

#include <string.h>

#define LOOK_BYTES 512

static const char of_ours[] = "linfo shows it; what lprep reads is text",
                  of_utf16[] = "convert it: iconv -f utf-16 -t utf-8",
                  packed_twice[] = "unpack it first: an archive is read, one inside it is not",
                  of_no_text[] = "name text only, or leave such files out by --on-error skip";

static const struct {
    const char *kind, *remedy;
    unsigned n;
    const char *bytes;
} known[] = {
    { "a token shard", of_ours, 8, "LLSHARD\x1A" },
    { "a token stream", of_ours, 8, "LLSTREAM" },
    { "text in UTF-16", of_utf16, 2, "\xFF\xFE" },
    { "text in UTF-16", of_utf16, 2, "\xFE\xFF" },
    { "packed by gzip", packed_twice, 2, "\x1F\x8B" },
    { "packed by zstd", packed_twice, 4, "\x28\xB5\x2F\xFD" },
    { "packed by xz", packed_twice, 6, "\xFD" "7zXZ" },
    { "packed by bzip2", of_no_text, 3, "BZh" },
    { "a zip archive", packed_twice, 4, "PK\3\4" },
    { "a 7z archive", of_no_text, 6, "7z\xBC\xAF\x27\x1C" },
    { "a rar archive", of_no_text, 6, "Rar!\x1A\7" },
    { "a PDF", of_no_text, 5, "%PDF-" },
    { "a PNG picture", of_no_text, 4, "\x89PNG" },
    { "a JPEG picture", of_no_text, 3, "\xFF\xD8\xFF" },
    { "a program", of_no_text, 4, "\x7F" "ELF" },
    { "a GGUF model", of_no_text, 4, "GGUF" },
    { "a Parquet table", of_no_text, 4, "PAR1" },
    { "an Arrow table", of_no_text, 6, "ARROW1" },
    { "an HDF5 file", of_no_text, 4, "\x89HDF" },
    { "a NumPy array", of_no_text, 6, "\x93NUMPY" },
    { "a Python pickle", of_no_text, 2, "\x80\4" },
    { "a Python pickle", of_no_text, 2, "\x80\2" },
    { "an SQLite database", of_no_text, 15, "SQLite format 3" },
};

/* A NUL, or what is not UTF-8, the character apart that the look may have cut. */
static bool is_binary(const char *p, size_t n)
{
    size_t bad;

    return memchr(p, 0, n) || (!utf8_valid(p, n, &bad) && n - bad > 3);
}

static bool is_safetensors(const unsigned char *p, size_t n)
{
    return n >= 10 && get_le(p, 8) <= 100000000 && get_le(p, 8) >= 2 && p[8] == '{';
}

const char *magic_kind(const void *p, size_t n, const char **remedy)
{
    const char *unused;

    n = n < LOOK_BYTES ? n : LOOK_BYTES;
    remedy = remedy ? remedy : &unused;
    if (n < 2 || !is_binary(p, n))
        return NULL;
    *remedy = of_no_text;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (n >= known[i].n && memcmp(p, known[i].bytes, known[i].n) == 0) {
            *remedy = known[i].remedy;
            return known[i].kind;
        }
    if (is_safetensors(p, n))
        return "tensors (safetensors)";
    return memmem(p, n < 64 ? n : 64, "<unk>", 5) && *(const char *)p == '\n'
               ? "a SentencePiece model" : NULL;
}
