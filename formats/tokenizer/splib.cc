/* formats/tokenizer/splib.cc - see splib.h. */
#include "formats/tokenizer/splib.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <sentencepiece_processor.h>
#include <string>
#include <string_view>
#include <vector>

/* Exported by the library but not declared in its header: silences its own stderr lines. */
namespace sentencepiece {
namespace logging {
__attribute__((weak)) void SetMinLogLevel(int v);
}
}

struct splib {
    sentencepiece::SentencePieceProcessor sp;
};

/* Every entry point runs its body in here. */
template <class F> static int guarded(struct err *e, F body)
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return err_set(e, E_SYS, "out of memory in libsentencepiece");
    } catch (const std::exception &x) {
        return err_set(e, E_DATA, "libsentencepiece: %s", x.what());
    } catch (...) {
        return err_set(e, E_BUG, "libsentencepiece: unknown exception");
    }
}

extern "C" int splib_parse(struct splib **out, const void *bytes, size_t n, struct err *e)
{
    *out = nullptr;
    return guarded(e, [&] {
        std::unique_ptr<struct splib> l(new struct splib);
        if (sentencepiece::logging::SetMinLogLevel)
            sentencepiece::logging::SetMinLogLevel(3); /* fatal only */
        const auto status = l->sp.LoadFromSerializedProto(
            std::string_view(static_cast<const char *>(bytes), n));
        if (!status.ok())
            return err_set(e, E_DATA, "libsentencepiece: %.200s", status.error_message());
        *out = l.release();
        return 0;
    });
}

extern "C" void splib_free(struct splib *l) { delete l; }
extern "C" int64_t splib_vocab(const struct splib *l) { return l->sp.GetPieceSize(); }
extern "C" int32_t splib_bos(const struct splib *l) { return l->sp.bos_id(); }
extern "C" int32_t splib_eos(const struct splib *l) { return l->sp.eos_id(); }

extern "C" int splib_encode(const struct splib *l, const char *text, size_t n, int32_t **ids,
                            int64_t *n_ids, struct err *e)
{
    static_assert(sizeof(int) == sizeof(int32_t), "ids are copied as they are");

    *ids = nullptr;
    *n_ids = 0;
    return guarded(e, [&] {
        std::vector<int> v;
        const auto status = l->sp.Encode(std::string_view(text ? text : "", n), &v);
        if (!status.ok())
            return err_set(e, E_DATA, "cannot encode: %.200s", status.error_message());
        if (!(*ids = static_cast<int32_t *>(malloc(v.size() * sizeof **ids + 1))))
            return err_set(e, E_SYS, "out of memory for %zu ids", v.size());
        if (!v.empty())
            memcpy(*ids, v.data(), v.size() * sizeof **ids);
        *n_ids = (int64_t)v.size();
        return 0;
    });
}

extern "C" int splib_decode(const struct splib *l, const int32_t *ids, int64_t n_ids,
                            char **text, size_t *n, struct err *e)
{
    *text = nullptr;
    *n = 0;
    return guarded(e, [&] {
        std::string s;
        const auto status = l->sp.Decode(std::vector<int>(ids, ids + n_ids), &s);
        if (!status.ok())
            return err_set(e, E_DATA, "cannot decode: %.200s", status.error_message());
        if (!(*text = static_cast<char *>(malloc(s.size() + 1))))
            return err_set(e, E_SYS, "out of memory for %zu bytes of text", s.size());
        memcpy(*text, s.c_str(), s.size() + 1);
        *n = s.size();
        return 0;
    });
}
