/* formats/weights/reader.h - how weights lie in a model's folder: one reader a form. */
#ifndef FORMATS_WEIGHTS_READER_H
#define FORMATS_WEIGHTS_READER_H
#include "base/bytes.h"
#include "formats/weights/config.h"
#include "formats/weights/tensor.h"
C_BEGIN

/* What a reader makes of a folder. Tensors have Hugging Face's names and shapes. */
struct weights_files {
    struct llama_config config;
    struct tensor *all; /* malloc'ed, freed by the caller; sorted by weights_sort */
    int64_t n;
    struct buf changed; /* weights_changed, with a NUL where there is something; the caller frees */
    void *state;        /* the reader's own, what the tensors point into */
};

/* By name; a name that appears twice is E_DATA. */
int weights_sort(struct weights_files *f, struct err *e);

struct weights_reader {
    const char *name;
    bool (*finds)(const char *folder); /* files of this form are there */
    /* Fills *f, zeroed before. On an error close is called too. */
    int (*open)(struct weights_files *f, const char *folder, struct err *e);
    void (*close)(void *state); /* which may be NULL */
    bool file; /* it reads a file and not a folder */
};

/* config.json, and model.safetensors or model.safetensors.index.json and the files it names. */
extern const struct weights_reader safetensors_reader;
/* One file of llama.cpp's (gguf.md), which has the configuration too. */
extern const struct weights_reader gguf_reader;

C_END
#endif
