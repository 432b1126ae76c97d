/* formats/weights/weights.h - the tensors of a model folder, in whatever form they lie there. */
#ifndef FORMATS_WEIGHTS_WEIGHTS_H
#define FORMATS_WEIGHTS_WEIGHTS_H
#include "base/err.h"
#include "formats/weights/reader.h"
#include "formats/weights/tensors.h"
C_BEGIN

/*
 * A model folder: config.json and model.safetensors, or model.safetensors.index.json and the
 * files it names (file names without '/' only). Tensors have Hugging Face's names, which the
 * family's description lists (arch.h), also those of files that name them otherwise: of a language model
 * within a multimodal one, or saved without its head's part (naming.h).
 */
struct weights;
struct naming;

/* Opens by the first reader (reader.h) that finds its files, and checks: every tensor of
 * config_tensors is there in its shape, of a type to compute with; no name appears twice; a head beside a
 * tied embedding has its values. Others are let through (rotary_emb.inv_freq). E_NOINPUT (no such folder or file:
 * says which files a model folder needs), E_DATA naming the first missing tensor and how many
 * there are, E_CONFIG. */
int weights_open(struct weights **w, const char *folder, struct err *e);
/* The same by a reader of the caller's. */
int weights_open_by(struct weights **w, const struct weights_reader *r, const char *folder,
                    struct err *e);
void weights_close(struct weights *w);
const struct llama_config *weights_config(const struct weights *w);
/* All tensors of the files, sorted by name. */
int64_t weights_count(const struct weights *w);
const struct tensor *weights_at(const struct weights *w, int64_t i);
const struct tensor *weights_find(const struct weights *w, const char *name); /* NULL: absent */

/* How the files name the tensors; NULL: as the family does. */
const struct naming *weights_naming(const struct weights *w);
/* What a multimodal model has beside its language model: "162 tensors of vision_tower, 2 of
 * multi_modal_projector"; NULL of others. weights_is_beside: t is one of them. */
const char *weights_beside(const struct weights *w);
bool weights_is_beside(const struct weights *w, const struct tensor *t);

/* From now on embedding and head have so many rows: the first of the files', then their mean, in
 * memory; nothing where they have as many. Tensors that were looked up before are no longer valid.
 * E_CONFIG, E_SYS. */
int weights_resize(struct weights *w, int64_t vocab, struct err *e);

/* A tensor by name that must be there in this shape (dims, shape as declared); E_DATA naming
 * it, what was found and what was expected. */
int weights_get(const struct weights *w, const char *name, int dims, const int64_t *shape,
                const struct tensor **t, struct err *e);

/* One hash for all tensors of the files, their names, types, shapes and every byte: the same however
 * they are divided into files. each: the block_hash of weights_at(w, i), by i. Never 0. */
uint64_t weights_hash(const struct weights *w, const uint64_t *each);
/* Files of the folder, such as config.json, that are not as they were written together with the
 * tensors: "config.json, tokenizer.model"; edited or damaged. NULL: none, or nothing is known. */
const char *weights_changed(const struct weights *w);

/* Copies what is in folder 'from' of the tokenizer's and generation files, licences and policies to
 * 'to', byte for byte; but a model_max_length (tokenizer_config.json) below context becomes it, and what 'to' has already
 * stays. Adds what it wrote to files. */
struct beside;
int weights_copy_side_files(const char *from, const char *to, int64_t context, struct beside *files,
                            struct err *e);
/* The tokenizer.json of a model folder, else its tokenizer.model, as a malloc'ed path; NULL where there
 * is neither. */
char *weights_tokenizer_path(const char *folder);

C_END
#endif
