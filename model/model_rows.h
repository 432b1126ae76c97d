/* model/model_rows.h - option rows of the tools that open a model, each written once. */
#ifndef MODEL_MODEL_ROWS_H
#define MODEL_MODEL_ROWS_H
#include "base/opt_rows.h"
#include "model/preset.h"
#include "model/rope.h"
#include "model/session.h"

#define ROW_MODEL(dst) \
    { 'm', "model", "FOLDER", OPT_STR, dst, 0, 0, "base model: a folder, or a GGUF file" }
#define ROW_ADAPTER(dst) { 'a', "adapter", "FOLDER", OPT_STR, dst, 0, 0, "LoRA adapter (PEFT)" }
#define ROW_SHAPE(dst, what) { 0, "shape", SHAPES, OPT_ENUM, dst, 0, 0, what }
/* struct opt_counts */
#define ROW_CTX(dst, what) \
    { 'c', "ctx", "TOKENS", OPT_COUNTS | OPT_RESULT, dst, 2, 0x1p31, what }

/* The rows of a struct rope_ask. auto is what the context asks for; flags: OPT_AUTO, OPT_RESULT. */
#define ROWS_ROPE(a, flags, kind_what, factor_what) \
    { 0, "rope", ROPE_KINDS, OPT_ENUM, &(a)->kind, 0, 0, kind_what }, \
    { 0, "rope-factor", "F", OPT_F64 | (flags), &(a)->factor, 1, 65536, factor_what }, \
    { 0, "rope-theta", "X", OPT_F64, &(a)->theta, 1, 1e15, "of theta: the new base" }, \
    { 0, "rope-low", "X", OPT_F64, &(a)->low, 1e-6, 1e6, \
      "of parts: waves of fewer turns are slowed whole [1]" }, \
    { 0, "rope-high", "X", OPT_F64, &(a)->high, 1e-6, 1e6, \
      "of parts: waves of more turns stay as they are [4]" }, \
    { 0, "rope-fast", "X", OPT_F64, &(a)->fast, 1e-6, 1e6, "of yarn: its beta_fast [32]" }, \
    { 0, "rope-slow", "X", OPT_F64, &(a)->slow, 1e-6, 1e6, "of yarn: its beta_slow [1]" }, \
    { 0, "rope-attention", "X", OPT_F64, &(a)->attention, 1e-6, 1e6, \
      "of yarn and longrope: scale of cos and sin [by the factor]" }, \
    { 0, "rope-lists", "FILE", OPT_STR, &(a)->lists, 0, 0, \
      "of longrope: JSON with short_factor and long_factor" }

/* The rows of a struct machine. */
#define ROWS_MACHINE(m) \
    { 0, "device", "NAME", OPT_STR | OPT_RESULT, &(m)->device, 0, 0, "auto, cpu or cuda [auto]" }, \
    ROW_THREADS(&(m)->threads), \
    { 0, "gpu-memory", "SIZE", OPT_BYTES, &(m)->device_bytes, 1, 0x1p50, \
      "limit on GPU memory, 24g [what is free]" }, \
    { 0, "host-memory", "SIZE", OPT_BYTES, &(m)->host_bytes, 0, 0x1p50, \
      "limit on pinned host memory [three quarters of what is free]" }

#endif
