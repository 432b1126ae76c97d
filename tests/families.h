/* tests/families.h - the tiny models of tests/data/arch, one a family or a form of it. */
#ifndef TESTS_FAMILIES_H
#define TESTS_FAMILIES_H

#define FAMILIES_DATA "tests/data/arch/"
static const char *const family_names[] = {
    "llama32", "llama_bias", "mistral", "mistral_full", "qwen2", "qwen2_window", "qwen3", "qwen3_bias",
    "smollm3", "phi3", "phi4mini", "olmo2", "granite", "granite_bias", "neox", "neox_serial",
    "gemma", "gemma2", "gemma2_plain", "gemma3", "gemma3_capped", "gemma3_vision", "mistral3", "llava", "smolvlm",
};
enum { FAMILIES = sizeof family_names / sizeof *family_names };

#endif
