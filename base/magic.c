/* base/magic.c - see magic.h. */
#include "base/magic.h"

#include "base/bytes.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Text is judged by its beginning; more would cost time and say little else. */
#define TEXT_LOOK_BYTES ((size_t)64 << 10)

/* What to do with such a file, as the hint below an error says it. */
static const char of_ours[] = "linfo shows it; lprep reads text",
                  of_tokens[] = "lpack --import reads it; what lprep reads is text",
                  of_utf16[] = "convert it: iconv -f utf-16 -t utf-8",
                  packed_twice[] = "unpack it first: an archive is read, one inside it is not",
                  of_unpack[] = "unpack it first: lprep reads gzip, zstd, xz, tar and zip itself",
                  of_table[] = "write its rows as JSON lines first: duckdb, or to_json of Python's "
                               "datasets and pandas",
                  of_pages[] = "take its text out first: pdftotext, ps2ascii",
                  of_book[] = "take its text out first: pandoc -t plain FILE | lprep -",
                  of_markup[] = "take its text out first (pandoc -t plain FILE | lprep -), or give "
                                "--format text",
                  of_warc[] = "write its records as JSON lines with a 'text' first, or give "
                              "--format text",
                  of_lfs[] = "fetch what it stands for: git lfs pull",
                  of_no_text[] = "name text only, or leave such files out by --on-error skip";

/* What is looked at. */
struct look {
    const unsigned char *p;
    size_t n;
    bool whole; /* that is all there is */
};

/* Do these n bytes stand at 'at'? False behind the end. */
static bool has(const struct look *l, size_t at, const char *bytes, size_t n)
{
    return l->n >= at + n && memcmp(l->p + at, bytes, n) == 0;
}

/* Does word occur within the first 'most' bytes? */
static bool has_within(const struct look *l, const char *word, size_t most)
{
    return memmem(l->p, l->n < most ? l->n : most, word, strlen(word));
}

/* The byte there, or -1 behind the end: a field that cannot be seen contradicts nothing. */
static int byte_at(const struct look *l, size_t at) { return at < l->n ? l->p[at] : -1; }

/* White space and what terminals are sent in text (backspace, escape) is none. */
static size_t controls(const unsigned char *p, size_t n)
{
    size_t k = 0;

    for (size_t i = 0; i < n; i++)
        k += (p[i] < 32 && !(p[i] >= 8 && p[i] <= 13) && p[i] != 27) || p[i] == 127;
    return k;
}

/* A control character, or what is not UTF-8, the character apart that the look has cut. */
static bool is_binary(const struct look *l)
{
    size_t bad, n = l->n < MAGIC_LOOK_BYTES ? l->n : MAGIC_LOOK_BYTES;

    return controls(l->p, n) > 0 || (!utf8_valid((const char *)l->p, n, &bad) &&
                                     (n < MAGIC_LOOK_BYTES || n - bad > 3));
}

/* Method 8 is deflate, the only one there is; the top three flags are reserved and 0. */
static bool is_gzip(const struct look *l)
{
    int method = byte_at(l, 2), flags = byte_at(l, 3);

    return (method < 0 || method == 8) && (flags < 0 || (flags & 0xE0) == 0);
}

/* A frame, or frames to be passed over (pzstd writes them) and then one. lz4 knows these too. */
static bool is_zstd(const struct look *l)
{
    size_t at = 0, size;

    while (l->n >= at + 8 && (l->p[at] & 0xF0) == 0x50 && has(l, at + 1, "\x2A\x4D\x18", 3)) {
        size = (size_t)get_le(l->p + at + 4, 4);
        if (size > l->n - at - 8) /* the frame behind it is not in sight */
            return !l->whole;
        at += 8 + size;
    }
    if (at > 0 && at == l->n)
        return true;
    /* Behind the magic number is the descriptor, of which bit 3 is reserved and 0. */
    return has(l, at, "\x28\xB5\x2F\xFD", 4) && (byte_at(l, at + 4) < 0 || !(l->p[at + 4] & 8));
}

/* The stream's flags: a byte 0, then the kind of checksum, which has four bits. */
static bool is_xz(const struct look *l)
{
    return byte_at(l, 6) <= 0 && byte_at(l, 7) < 16;
}

/* A digit says the block size; then a block begins, with the digits of pi, or the end, with
 * those of the square root of pi. */
static bool is_bzip2(const struct look *l)
{
    return isdigit(byte_at(l, 3)) && (has(l, 4, "\x31\x41\x59\x26\x53\x59", 6) ||
                                      has(l, 4, "\x17\x72\x45\x38\x50\x90", 6));
}

/* There is no real magic number, so the fields must make sense: the window is a power of two
 * from 4 KiB on, and the unpacked size is below 1 TiB or unknown (all ones). */
static bool is_lzma(const struct look *l)
{
    uint32_t window = l->n >= 13 ? (uint32_t)get_le(l->p + 1, 4) : 0;
    uint64_t size = l->n >= 13 ? get_le(l->p + 5, 8) : 0;

    return window >= 4096 && (window & (window - 1)) == 0 && size > 0 &&
           (size == UINT64_MAX || size < (uint64_t)1 << 40);
}

/* Version 01 in the two top bits; the reserved bits of both bytes are 0. */
static bool is_lz4(const struct look *l)
{
    int flags = byte_at(l, 4), block = byte_at(l, 5);

    return (flags < 0 || (flags & 0xC2) == 0x40) && (block < 0 || (block & 0x8F) == 0);
}

/* Its version follows, unless it was cut there. */
static bool is_stream(const struct look *l) { return l->n == 8 || is_binary(l); }

/* A member's own header: a method that there is, and a name. */
static bool is_zip(const struct look *l)
{
    uint64_t method = l->n >= 10 ? get_le(l->p + 8, 2) : 0;

    /* The version needed to unpack is small, and methods have low numbers: 8,
     * deflate, is usual. */
    return (l->n < 6 || l->p[4] < 100) && method < 100 &&
           (l->n < 30 || get_le(l->p + 26, 2) > 0);
}

/* An end record of nothing, which must be all there is. */
static bool is_empty_zip(const struct look *l)
{
    return l->n >= 22 && get_le(l->p + 4, 8) == 0 && get_le(l->p + 12, 8) == 0 &&
           (l->n == 22 + get_le(l->p + 20, 2) || (!l->whole && l->n >= MAGIC_LOOK_BYTES));
}

/* Formats that are a zip archive of certain members, the first of which tells. */
static bool first_member(const struct look *l, const char *name)
{
    /* A member's header has 30 bytes, with the length of the name at 26 and
     * the name behind it. */
    size_t n = l->n >= 30 ? (size_t)get_le(l->p + 26, 2) : 0, k = strlen(name);

    return is_zip(l) && n >= k && has(l, 30, name, k);
}

static bool is_epub(const struct look *l)
{
    return first_member(l, "mimetype") && has_within(l, "application/epub", MAGIC_LOOK_BYTES);
}

static bool is_opendocument(const struct look *l)
{
    return first_member(l, "mimetype") &&
           has_within(l, "application/vnd.oasis.opendocument", MAGIC_LOOK_BYTES);
}

static bool is_office(const struct look *l)
{
    return first_member(l, "[Content_Types].xml") || first_member(l, "_rels/.rels") ||
           first_member(l, "docProps/");
}

/* torch.save writes NAME/data.pkl first, with a name of its own choice. */
static bool is_pytorch(const struct look *l)
{
    size_t n = l->n >= 30 ? (size_t)get_le(l->p + 26, 2) : 0;

    return is_zip(l) && n > 9 && has(l, 30 + n - 9, "/data.pkl", 9);
}

/* Octal digits, what fills up before them and a NUL or space behind: -1 for no number. */
static int64_t octal(const unsigned char *p, size_t n)
{
    int64_t v = 0;
    size_t i = 0, digits = 0;

    while (i < n && p[i] == ' ')
        i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++, digits++)
        v = 8 * v + p[i] - '0';
    return digits == 0 || (i < n && p[i] != 0 && p[i] != ' ') ? -1 : v;
}

/* The header's checksum is the sum of its bytes, those of the checksum taken as spaces. Of a
 * header that is cut, what is there must look like one. */
static bool is_tar(const struct look *l)
{
    int64_t sum = 8 * ' ', signed_sum = 8 * ' ', said;

    /* The header is a block of 512 bytes, the checksum 8 of them from 148 on; "ustar" is at
     * 257. Old archives lack that mark, so a whole header is judged by its sum. */
    if (l->n < 263 || l->p[0] == 0 || (said = octal(l->p + 148, 8)) < 0)
        return false;
    if (l->n < 512)
        return (has(l, 257, "ustar\0", 6) || has(l, 257, "ustar ", 6)) && is_binary(l);
    for (size_t i = 0; i < 512; i++)
        if (i < 148 || i >= 156) {
            sum += l->p[i];
            signed_sum += (signed char)l->p[i]; /* as some old ones counted */
        }
    return said == sum || said == signed_sum;
}

/* A magic number and a version: 16-bit ids of GPT-2, or 32-bit ids of Llama 3. */
static bool is_llmc(const struct look *l)
{
    return l->n >= 8 && ((get_le(l->p, 4) == 20240520 && get_le(l->p + 4, 4) == 1) ||
                         (get_le(l->p, 4) == 20240801 && get_le(l->p + 4, 4) == 7));
}

/* Eight bytes of header size, then the header in JSON, which may end in spaces. The format
 * itself allows 100 million bytes of it. */
static bool is_safetensors(const struct look *l)
{
    uint64_t size = l->n >= 10 ? get_le(l->p, 8) : 0;

    if (size < 2 || size > 100000000 || l->p[8] != '{')
        return false;
    /* The header must end within the file, and with a brace or a space where
     * its end is in sight. */
    if (l->whole && size > l->n - 8)
        return false;
    if (l->n >= 8 + size && l->p[7 + size] != '}' && l->p[7 + size] != ' ')
        return false;
    return l->p[9] == '"' || l->p[9] == '}' || isspace(l->p[9]);
}

/* Protobuf's: a message of at most 127 bytes that holds a piece and a number, then another. */
static bool is_sentencepiece(const struct look *l)
{
    size_t size, piece;

    /* 0x0A, here '\n', is field 1 with a length: a piece of the vocabulary, and in it
     * the text of the piece. */
    if (l->n < 16 || l->p[0] != '\n' || (size = l->p[1]) > 127 || l->p[2] != '\n')
        return false;
    piece = l->p[3];
    /* Behind the text a score or type follows; then the next piece begins, again with 0x0A. */
    if (piece == 0 || piece + 4 > size || l->n <= 2 + size || l->p[2 + size] != '\n')
        return false;
    return l->p[4 + piece] == 0x15 || l->p[4 + piece] == 0x18; /* a score, or its type */
}

/* Lines of base64 and a number: 0, 1, 2 ... */
static bool is_tiktoken(const struct look *l)
{
    size_t at = 0;

    for (int line = 0; line < 3; line++) {
        size_t from = at;
        while (at < l->n && (isalnum(l->p[at]) || l->p[at] == '+' || l->p[at] == '/' ||
                             l->p[at] == '='))
            at++;
        /* Base64 has four characters for three bytes; the number is the line's own. */
        if (at == from || at - from < 4 || (at - from) % 4 || byte_at(l, at) != ' ' ||
            byte_at(l, at + 1) != '0' + line)
            return false;
        at += byte_at(l, at + 2) == '\r' ? 3 : 2;
        if (byte_at(l, at++) != '\n')
            return false;
    }
    return true;
}

static bool is_tokenizer_json(const struct look *l)
{
    size_t at = 0;

    while (at < l->n && isspace(l->p[at]))
        at++;
    /* The keys that the tokenizers library writes, and close to the start:
     * other JSON may have one. */
    return byte_at(l, at) == '{' && has_within(l, "\"version\"", 64) &&
           has_within(l, "\"truncation\"", MAGIC_LOOK_BYTES) &&
           has_within(l, "\"padding\"", MAGIC_LOOK_BYTES);
}

/* A pointer is a short text with the hash and the size of the true file. */
static bool is_lfs(const struct look *l)
{
    return has_within(l, "\noid sha256:", 200) && has_within(l, "\nsize ", 400) &&
           l->n < 1024;
}

/* "%PDF-1.4" and the end of the line; a text about PDF files may begin so, and is told apart by
 * the objects or binary bytes that follow. */
static bool is_pdf(const struct look *l)
{
    int end = byte_at(l, 8);

    return isdigit(byte_at(l, 5)) && byte_at(l, 6) == '.' && isdigit(byte_at(l, 7)) &&
           (end == '\n' || end == '\r' || end == ' ') &&
           (is_binary(l) || has_within(l, " obj", MAGIC_LOOK_BYTES));
}

static bool is_warc(const struct look *l)
{
    return isdigit(byte_at(l, 5)) && byte_at(l, 6) == '.' &&
           has_within(l, "\nWARC-", MAGIC_LOOK_BYTES);
}

/* Behind a byte order mark, white space and comments. */
static size_t markup_begins(const struct look *l)
{
    size_t at = has(l, 0, "\xEF\xBB\xBF", 3) ? 3 : 0;

    for (;;) {
        while (at < l->n && isspace(l->p[at]))
            at++;
        const unsigned char *end = has(l, at, "<!--", 4)
                                       ? memmem(l->p + at, l->n - at, "-->", 3) : NULL;
        if (!end)
            return at;
        at = (size_t)(end - l->p) + 3;
    }
}

static bool is_html(const struct look *l)
{
    size_t at = markup_begins(l);
    const char *p = (const char *)l->p + at;
    size_t left = l->n - at;

    /* A page may begin as XML does, in upper or lower case. */
    if (left > 6 && strncasecmp(p, "<?xml ", 6) == 0)
        return has_within(l, "<html", MAGIC_LOOK_BYTES);
    if (left > 14 && strncasecmp(p, "<!doctype html", 14) == 0)
        return p[14] == '>' || isspace((unsigned char)p[14]);
    return left > 5 && strncasecmp(p, "<html", 5) == 0 &&
           (p[5] == '>' || isspace((unsigned char)p[5]));
}

static bool is_xml(const struct look *l)
{
    size_t at = markup_begins(l);

    return has(l, at, "<?xml ", 6) && has_within(l, "?>", MAGIC_LOOK_BYTES);
}

/* Pages of dictionaries or data first, in Thrift; and the length of what stands before the end. */
static bool is_parquet(const struct look *l)
{
    if (!l->whole)
        return byte_at(l, 4) < 0 || l->p[4] == 0x15;
    /* The file begins and ends with the same mark; before the last one stands the length of the
     * footer, which fits between them. */
    return (l->n >= 12 && has(l, l->n - 4, (const char *)l->p, 4) &&
                         get_le(l->p + l->n - 8, 4) <= l->n - 12);
}

/* As datasets writes it: a mark, the size of a schema, and where its table begins. */
static bool is_arrow_stream(const struct look *l)
{
    uint64_t size = l->n >= 12 ? get_le(l->p + 4, 4) : 0;

    return size >= 16 && size % 8 == 0 && size < (64 << 20) && get_le(l->p + 8, 4) >= 8 &&
           get_le(l->p + 8, 4) < size && (!l->whole || size + 8 <= l->n);
}

/* The version follows the mark: 3 today, and a text that begins with GGUF has a
 * larger number. */
static bool is_gguf(const struct look *l)
{
    return l->n >= 8 && get_le(l->p + 4, 4) >= 1 && get_le(l->p + 4, 4) <= 16;
}

/* Protocols 4 and 5 begin with a frame; 2 and 3 with something made, and end with STOP. */
static bool is_pickle(const struct look *l)
{
    int protocol = byte_at(l, 1), op = byte_at(l, 2);

    if (protocol >= 4 && protocol <= 5)
        /* 0x95 opens a frame and is followed by its length in eight bytes. */
        return op == 0x95 && l->n >= 11 && get_le(l->p + 3, 8) < (uint64_t)1 << 40;
    if (protocol < 2 || protocol > 5 || op < 0)
        return false;
    if (has(l, 2, "\x8A\x0A\x6C\xFC\x9C\x46", 6)) /* as PyTorch saved before it used zip */
        return true;
    /* The codes that a pickle usually begins with: a class, an empty dict or list, a mark, a
     * text, a number, None. The whole ends with '.', which is STOP. */
    return op && strchr("c}](XKJMN", op) && (!l->whole || l->p[l->n - 1] == '.');
}

/* The first box is of type ftyp; its length stands before that, and varies. */
static bool is_mp4(const struct look *l) { return has(l, 4, "ftyp", 4); }

static bool is_riff(const struct look *l)
{
    return has(l, 8, "WEBP", 4) || has(l, 8, "WAVE", 4) || has(l, 8, "AVI ", 4);
}

/* Two bytes a character, of which one is 0 and the other one of ASCII's. */
static bool is_utf16_bare(const struct look *l)
{
    size_t n = (l->n < MAGIC_LOOK_BYTES ? l->n : MAGIC_LOOK_BYTES) / 2, zero[2] = { 0, 0 },
           ascii = 0;

    for (size_t i = 0; i < 2 * n; i++) {
        zero[i % 2] += l->p[i] == 0;
        ascii += (l->p[i] >= 32 && l->p[i] < 127) || (l->p[i] >= 9 && l->p[i] <= 13);
    }
    /* 19 of 20 characters must be so: a few letters of other alphabets do no harm. */
    return n >= 8 && (zero[0] * 20 >= n * 19 || zero[1] * 20 >= n * 19) && ascii * 20 >= n * 19;
}

/* The order matters where one form is another's beginning. TEXTUAL: may be valid UTF-8 without
 * a NUL; all others are taken for text where they are. */
#define TEXTUAL true
static const struct {
    struct magic_form f;
    bool textual;
    unsigned n;
    const char *bytes; /* n first bytes; n 0: is() alone tells */
    bool (*is)(const struct look *l);
} known[] = {
    { { MAGIC_SHARD, "a token shard", of_ours }, false, 8, "LLSHARD\x1A", NULL },
    { { MAGIC_STREAM, "a token stream", of_ours }, TEXTUAL, 8, "LLSTREAM", is_stream },
    { { MAGIC_LFS, "a pointer of Git LFS", of_lfs }, TEXTUAL, 23, "version https://git-lfs",
      is_lfs },
    { { MAGIC_LFS, "a pointer of Git LFS", of_lfs }, TEXTUAL, 22, "version https://hawser",
      is_lfs },
    { { MAGIC_OTHER, "text in UTF-32", "convert it: iconv -f utf-32 -t utf-8" }, false, 4,
      "\xFF\xFE\0\0", NULL },
    { { MAGIC_OTHER, "text in UTF-32", "convert it: iconv -f utf-32 -t utf-8" }, false, 4,
      "\0\0\xFE\xFF", NULL },
    { { MAGIC_OTHER, "text in UTF-16", of_utf16 }, false, 2, "\xFF\xFE", NULL },
    { { MAGIC_OTHER, "text in UTF-16", of_utf16 }, false, 2, "\xFE\xFF", NULL },
    { { MAGIC_GZIP, "packed by gzip", packed_twice }, false, 2, "\x1F\x8B", is_gzip },
    { { MAGIC_ZSTD, "packed by zstd", packed_twice }, false, 0, "", is_zstd },
    { { MAGIC_XZ, "packed by xz", packed_twice }, false, 6, "\xFD" "7zXZ\0", is_xz },
    { { MAGIC_OTHER, "packed by bzip2", "unpack it first: bzip2 -dc FILE | lprep -" }, false, 3,
      "BZh", is_bzip2 },
    { { MAGIC_OTHER, "packed by lzma", "unpack it first: xz -dc FILE | lprep -" }, false, 2,
      "\x5D\0", is_lzma },
    { { MAGIC_OTHER, "packed by lz4", "unpack it first: lz4 -dc FILE | lprep -" }, false, 4,
      "\x04\x22\x4D\x18", is_lz4 },
    { { MAGIC_OTHER, "packed by lz4", "unpack it first: lz4 -dc FILE | lprep -" }, false, 4,
      "\x02\x21\x4C\x18", NULL },
    { { MAGIC_OTHER, "packed by snappy", of_unpack }, false, 10, "\xFF\x06\0\0sNaPpY", NULL },
    { { MAGIC_OTHER, "packed by lzip", of_unpack }, false, 5, "LZIP\1", NULL },
    { { MAGIC_OTHER, "an EPUB book", of_book }, false, 4, "PK\3\4", is_epub },
    { { MAGIC_OTHER, "an OpenDocument file", of_book }, false, 4, "PK\3\4", is_opendocument },
    { { MAGIC_OTHER, "an Office document", of_book }, false, 4, "PK\3\4", is_office },
    { { MAGIC_OTHER, "a PyTorch checkpoint", of_no_text }, false, 4, "PK\3\4", is_pytorch },
    { { MAGIC_ZIP, "a zip archive", packed_twice }, false, 4, "PK\3\4", is_zip },
    { { MAGIC_ZIP, "an empty zip archive", packed_twice }, false, 4, "PK\5\6", is_empty_zip },
    { { MAGIC_TAR, "a tar archive", packed_twice }, false, 0, "", is_tar },
    { { MAGIC_OTHER, "a 7z archive", of_unpack }, false, 6, "7z\xBC\xAF\x27\x1C", NULL },
    { { MAGIC_OTHER, "a rar archive", of_unpack }, false, 6, "Rar!\x1A\7", NULL },
    { { MAGIC_OTHER, "a PDF", of_pages }, TEXTUAL, 5, "%PDF-", is_pdf },
    { { MAGIC_OTHER, "PostScript", of_pages }, TEXTUAL, 10, "%!PS-Adobe", NULL },
    { { MAGIC_OTHER, "an Office document", of_book }, false, 8,
      "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", NULL },
    { { MAGIC_OTHER, "a PNG picture", of_no_text }, false, 4, "\x89PNG", NULL },
    { { MAGIC_OTHER, "a JPEG picture", of_no_text }, false, 3, "\xFF\xD8\xFF", NULL },
    { { MAGIC_OTHER, "a GIF picture", of_no_text }, false, 5, "GIF89", NULL },
    { { MAGIC_OTHER, "a TIFF picture", of_no_text }, false, 4, "II*\0", NULL },
    { { MAGIC_OTHER, "sound or pictures", of_no_text }, false, 4, "RIFF", is_riff },
    { { MAGIC_OTHER, "a video", of_no_text }, false, 0, "", is_mp4 },
    { { MAGIC_OTHER, "a program", of_no_text }, false, 4, "\x7F" "ELF", NULL },
    { { MAGIC_GGUF, "a GGUF model", of_no_text }, false, 4, "GGUF", is_gguf },
    { { MAGIC_OTHER, "a Parquet table", of_table }, false, 4, "PAR1", is_parquet },
    { { MAGIC_OTHER, "an encrypted Parquet table", of_table }, false, 4, "PARE", is_parquet },
    { { MAGIC_OTHER, "an Arrow table", of_table }, false, 8, "ARROW1\0\0", NULL },
    { { MAGIC_OTHER, "an Arrow table", of_table }, false, 4, "\xFF\xFF\xFF\xFF",
      is_arrow_stream },
    { { MAGIC_OTHER, "an Avro table", of_table }, false, 4, "Obj\1", NULL },
    { { MAGIC_OTHER, "an HDF5 file", of_no_text }, false, 8, "\x89HDF\r\n\x1A\n", NULL },
    { { MAGIC_OTHER, "a NumPy array", of_no_text }, false, 6, "\x93NUMPY", NULL },
    { { MAGIC_OTHER, "an SQLite database", of_no_text }, false, 16, "SQLite format 3", NULL },
    { { MAGIC_MEGATRON, "an index of Megatron's", of_tokens }, false, 9, "MMIDIDX\0", NULL },
    { { MAGIC_LLMC, "a data file of llm.c", of_tokens }, false, 0, "", is_llmc },
    { { MAGIC_SAFETENSORS, "tensors (safetensors)", of_no_text }, false, 0, "", is_safetensors },
    { { MAGIC_SENTENCEPIECE, "a SentencePiece model", of_no_text }, false, 1, "\n",
      is_sentencepiece },
    { { MAGIC_OTHER, "a Python pickle", of_no_text }, false, 1, "\x80", is_pickle },
    { { MAGIC_MARKUP, "WARC records", of_warc }, TEXTUAL, 5, "WARC/", is_warc },
    { { MAGIC_MARKUP, "an RTF document", of_markup }, TEXTUAL, 6, "{\\rtf1", NULL },
    { { MAGIC_MARKUP, "an HTML page", of_markup }, TEXTUAL, 0, "", is_html },
    { { MAGIC_MARKUP, "an XML document", of_markup }, TEXTUAL, 0, "", is_xml },
    { { MAGIC_TIKTOKEN, "a vocabulary of tiktoken's", of_no_text }, TEXTUAL, 0, "",
      is_tiktoken },
    { { MAGIC_TOKENIZER_JSON, "a tokenizer.json of Hugging Face's tokenizers", of_no_text },
      TEXTUAL, 0, "", is_tokenizer_json },
    { { MAGIC_UTF16_BARE, "text in UTF-16", of_utf16 }, false, 0, "", is_utf16_bare },
};

const struct magic_form *magic_of(const void *p, size_t n, bool whole)
{
    /* Of a file that goes on, only the first MAGIC_LOOK_BYTES count, however
     * many the caller has. */
    struct look l = { p, whole || n < MAGIC_LOOK_BYTES ? n : MAGIC_LOOK_BYTES, whole };
    bool binary;

    if (n < 2)
        return NULL;
    /* Text is the common case: most of the table is passed over then, and only what may
     * itself be text is tried. */
    binary = is_binary(&l);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if ((binary || known[i].textual) && has(&l, 0, known[i].bytes, known[i].n) &&
            (!known[i].is || known[i].is(&l)))
            return &known[i].f;
    return NULL;
}

bool magic_binary(const void *p, size_t n)
{
    n = n < TEXT_LOOK_BYTES ? n : TEXT_LOOK_BYTES;
    /* A few stray control characters are forgiven. */
    return controls(p, n) > 4 + n / 32;
}

const char *magic_text(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    bool cut = n > TEXT_LOOK_BYTES;
    size_t bad, few, at = 0;

    n = cut ? TEXT_LOOK_BYTES : n;
    few = controls(p, n);
    if (n == 0 || few > n / 256)
        return NULL;
    /* Invalid bytes at the very end of a look that was cut may be half a character. */
    if (!utf8_valid(bytes, n, &bad) && !(cut && n - bad <= 3))
        /* A few bytes are too little to guess from. */
        return n >= 64 ? "text in an 8-bit encoding" : NULL;
    at = n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < n && isspace(p[at]))
        at++;
    /* JSON: an object with a key or nothing in it, or a list of objects. Prose may
     * begin with a bracket too. */
    if (at + 1 < n && (p[at] == '{' || p[at] == '[')) {
        unsigned char open = p[at++];
        while (at < n && isspace(p[at]))
            at++;
        if (at < n && (open == '{' ? p[at] == '"' || p[at] == '}' : p[at] == '{'))
            return "JSON";
    }
    return "text";
}

int magic_refuse_lfs(const char *path, const void *p, size_t n, struct err *e)
{
    /* A pointer has less than 1024 bytes, so larger files are not looked at. */
    const struct magic_form *m = n < 1024 ? magic_of(p, n, true) : NULL;

    if (!m || m->form != MAGIC_LFS)
        return 0;
    err_set(e, E_DATA, "'%s' is %s, not the file itself", path, m->name);
    return err_hint(e, "%s", m->remedy);
}
