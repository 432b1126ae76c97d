/* model/model_rows.h - option rows of the tools that open a model, each written once. */
#ifndef MODEL_MODEL_ROWS_H
#define MODEL_MODEL_ROWS_H
#include "base/opt_rows.h"
#include "model/preset.h"
#include "model/session.h"

#define ROW_MODEL(dst) \
    { 'm', "model", "FOLDER", OPT_STR, dst, 0, 0, "base model: config.json and safetensors" }
#define ROW_ADAPTER(dst) { 'a', "adapter", "FOLDER", OPT_STR, dst, 0, 0, "LoRA adapter (PEFT)" }
#define ROW_SHAPE(dst, what) { 0, "shape", SHAPES, OPT_ENUM, dst, 0, 0, what }
/* struct opt_counts */
#define ROW_CTX(dst, what) \
    { 'c', "ctx", "TOKENS", OPT_COUNTS | OPT_RESULT, dst, 2, 0x1p31, what }

/* double; auto is what the context asks for, as rope_extend without a factor. */
#define ROW_ROPE(dst, what) \
    { 0, "rope-factor", "F", OPT_F64 | OPT_AUTO | OPT_RESULT, dst, 0, 65536, what }

/* The rows of a struct machine. */
#define ROWS_MACHINE(m) \
    { 0, "device", "NAME", OPT_STR | OPT_RESULT, &(m)->device, 0, 0, "auto, cpu or cuda [auto]" }, \
    ROW_THREADS(&(m)->threads), \
    { 0, "gpu-memory", "SIZE", OPT_BYTES, &(m)->device_bytes, 1, 0x1p50, \
      "limit on GPU memory, 24g [what is free]" }, \
    { 0, "host-memory", "SIZE", OPT_BYTES, &(m)->host_bytes, 0, 0x1p50, \
      "limit on pinned host memory [three quarters of what is free]" }

#endif
