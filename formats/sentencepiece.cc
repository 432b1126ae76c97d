/* formats/sentencepiece.cc - tokenizer.h over libsentencepiece, which has no C interface. */
#include "formats/tokenizer.h"

#include "base/bytes.h"
#include "base/file.h"
#include "formats/spmodel.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <sentencepiece_processor.h>
#include <string>
#include <string_view>
#include <vector>
#include <xxhash.h>

/* Exported by the library but not declared in its header: silences its own stderr lines. */
namespace sentencepiece {
namespace logging {
__attribute__((weak)) void SetMinLogLevel(int v);
}
}

struct tokenizer {
    sentencepiece::SentencePieceProcessor sp;
    struct spmodel model;
    bool cuts;       /* spmodel_cuts_at_spaces */
    uint64_t serial; /* names this tokenizer in a thread's cache, as an address may be reused */
    std::string path;
    char fingerprint[FINGERPRINT_HEX + 1];
};

namespace {

constexpr size_t ENCODE_MAX_BYTES = (size_t)1 << 30; /* the library counts in int */
std::atomic<uint64_t> next_serial{1};

/* Words come again: one thread's ids of short fragments, direct-mapped (1.5 MiB). What is not
 * here is asked of the library, so that a hit and a miss give the same ids. */
constexpr size_t WORD_BYTES = 28, WORD_IDS = 15, CACHE_SLOTS = (size_t)1 << 14;
struct word {
    unsigned char n_bytes, n_ids; /* n_bytes 0: empty */
    char text[WORD_BYTES];
    int32_t ids[WORD_IDS];
};
struct cache {
    uint64_t serial = 0;
    std::vector<word> words;
};
thread_local cache thread_cache;

/* No exception leaves this file: every entry point runs its body in here. */
template <class F> int guarded(struct err *e, F body)
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return err_set(e, E_SYS, "out of memory in the tokenizer");
    } catch (const std::exception &x) {
        return err_set(e, E_DATA, "tokenizer: %s", x.what());
    } catch (...) {
        return err_set(e, E_BUG, "tokenizer: unknown exception");
    }
}

int load(struct tokenizer *t, const void *bytes, size_t n, struct err *e)
{
    int rc = spmodel_check(&t->model, bytes, n, e);

    if (rc < 0)
        return rc;
    if (sentencepiece::logging::SetMinLogLevel)
        sentencepiece::logging::SetMinLogLevel(3); /* fatal only */
    const auto status =
        t->sp.LoadFromSerializedProto(std::string_view(static_cast<const char *>(bytes), n));
    if (!status.ok())
        return err_set(e, E_DATA, "not a usable SentencePiece model: %.200s",
                       status.error_message());
    if (t->sp.GetPieceSize() != t->model.pieces)
        return err_set(e, E_DATA, "SentencePiece model: %lld pieces in the file, %d loaded",
                       (long long)t->model.pieces, t->sp.GetPieceSize());
    return 0;
}

void fingerprint(char hex[FINGERPRINT_HEX + 1], const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    XXH128_canonical_t c;

    XXH128_canonicalFromHash(&c, XXH3_128bits(bytes, n));
    for (size_t i = 0; i < sizeof c.digest; i++) {
        hex[2 * i] = digits[c.digest[i] >> 4];
        hex[2 * i + 1] = digits[c.digest[i] & 15];
    }
    hex[FINGERPRINT_HEX] = '\0';
}

int encode_part(const struct tokenizer *t, std::string_view s, std::vector<int> *ids,
                struct err *e)
{
    const auto status = t->sp.Encode(s, ids);

    return status.ok() ? 0
                       : err_set(e, E_DATA, "cannot encode: %.200s", status.error_message());
}

/* Appends the ids of one fragment, from the cache where it is short and known. */
int encode_word(const struct tokenizer *t, std::string_view s, std::vector<int> *part,
                std::vector<int> *ids, struct err *e)
{
    cache &c = thread_cache;
    int rc;

    if (s.size() > WORD_BYTES) {
        if ((rc = encode_part(t, s, part, e)) == 0)
            ids->insert(ids->end(), part->begin(), part->end());
        return rc;
    }
    word &w = c.words[XXH3_64bits(s.data(), s.size()) & (CACHE_SLOTS - 1)];
    if (w.n_bytes != s.size() || memcmp(w.text, s.data(), s.size()) != 0) {
        if ((rc = encode_part(t, s, part, e)) < 0)
            return rc;
        if (part->size() > WORD_IDS) {
            ids->insert(ids->end(), part->begin(), part->end());
            return 0;
        }
        w.n_bytes = (unsigned char)s.size();
        w.n_ids = (unsigned char)part->size();
        memcpy(w.text, s.data(), s.size());
        for (size_t i = 0; i < part->size(); i++)
            w.ids[i] = (*part)[i];
    }
    ids->insert(ids->end(), w.ids, w.ids + w.n_ids);
    return 0;
}

/* The cuts of spmodel_cuts_at_spaces. A cut leaves at least one byte after its space, as the
 * library gives nothing, not even the dummy prefix, for an empty text. */
int encode_cut(const struct tokenizer *t, std::string_view s, std::vector<int> *ids,
               struct err *e)
{
    std::vector<int> part;
    size_t from = 0, i;
    int rc = 0;

    if (thread_cache.serial != t->serial) {
        thread_cache.words.assign(CACHE_SLOTS, word{});
        thread_cache.serial = t->serial;
    }
    ids->reserve(s.size() / 3);
    for (size_t look = 1; rc == 0; look = i + 1) {
        bool at = (i = s.find(' ', look)) != s.npos;
        unsigned char before = at ? (unsigned char)s[i - 1] : 0;
        if (at && (i + 1 == s.size() || before >= 128 || before == ' ' ||
                   t->model.before_space[before]))
            continue;
        rc = encode_word(t, s.substr(from, at ? i - from : s.npos), &part, ids, e);
        from = i + 1;
        if (!at)
            break;
    }
    return rc;
}

} /* namespace */

extern "C" int tokenizer_parse(struct tokenizer **out, const void *bytes, size_t nbytes,
                               const char *name, struct err *e)
{
    *out = nullptr;
    int rc = guarded(e, [&] {
        std::unique_ptr<struct tokenizer> t(new struct tokenizer);
        int bad = load(t.get(), bytes, nbytes, e);
        if (bad < 0)
            return bad;
        t->cuts = spmodel_cuts_at_spaces(&t->model);
        t->serial = next_serial++;
        t->path = name;
        fingerprint(t->fingerprint, bytes, nbytes);
        *out = t.release();
        return 0;
    });
    if (rc < 0 && e) {
        err_within(e, "'%s'", name);
        if (rc == E_DATA)
            err_hint(e, "-t takes a SentencePiece tokenizer.model, as Llama 2 has");
    }
    return rc;
}

extern "C" int tokenizer_open(struct tokenizer **t, const char *path, struct err *e)
{
    char *bytes = nullptr;
    size_t n = 0;

    *t = nullptr;
    int rc = file_read(path, SPMODEL_MAX_BYTES, &bytes, &n, e);
    if (rc < 0)
        return rc;
    rc = tokenizer_parse(t, bytes, n, path, e);
    free(bytes);
    return rc;
}

extern "C" void tokenizer_close(struct tokenizer *t) { delete t; }
extern "C" int64_t tokenizer_vocab(const struct tokenizer *t) { return t->model.pieces; }
extern "C" int32_t tokenizer_bos(const struct tokenizer *t) { return t->sp.bos_id(); }
extern "C" int32_t tokenizer_eos(const struct tokenizer *t) { return t->sp.eos_id(); }
extern "C" const char *tokenizer_path(const struct tokenizer *t) { return t->path.c_str(); }
extern "C" const char *tokenizer_fingerprint(const struct tokenizer *t)
{
    return t->fingerprint;
}

extern "C" const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return id < 0 || id >= t->model.pieces ? "" : t->sp.IdToPiece(id).c_str();
}

extern "C" int tokenizer_encode(const struct tokenizer *t, const char *text, size_t nbytes,
                                int32_t **ids, int64_t *n, struct err *e)
{
    static_assert(sizeof(int) == sizeof(int32_t), "ids are copied as they are");

    *ids = nullptr;
    *n = 0;
    if (nbytes > ENCODE_MAX_BYTES)
        return err_set(e, E_DATA, "a text of %zu bytes is too long to tokenise at once (%zu)",
                       nbytes, ENCODE_MAX_BYTES);
    return guarded(e, [&] {
        std::vector<int> v;
        std::string_view s(text ? text : "", nbytes);
        int rc = t->cuts ? encode_cut(t, s, &v, e) : encode_part(t, s, &v, e);
        if (rc < 0)
            return rc;
        if (!(*ids = static_cast<int32_t *>(malloc(v.size() * sizeof **ids + 1))))
            return err_set(e, E_SYS, "out of memory for %zu ids", v.size());
        if (!v.empty())
            memcpy(*ids, v.data(), v.size() * sizeof **ids);
        *n = (int64_t)v.size();
        return 0;
    });
}

extern "C" int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n,
                                char **text, size_t *nbytes, struct err *e)
{
    *text = nullptr;
    *nbytes = 0;
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->model.pieces)
            return err_set(e, E_DATA, "token id %d at %lld is outside the vocabulary of %lld",
                           (int)ids[i], (long long)i, (long long)t->model.pieces);
    return guarded(e, [&] {
        std::string s;
        const auto status = t->sp.Decode(std::vector<int>(ids, ids + n), &s);
        if (!status.ok())
            return err_set(e, E_DATA, "cannot decode: %.200s", status.error_message());
        if (!(*text = static_cast<char *>(malloc(s.size() + 1))))
            return err_set(e, E_SYS, "out of memory for %zu bytes of text", s.size());
        memcpy(*text, s.c_str(), s.size() + 1);
        *nbytes = s.size();
        return 0;
    });
}
