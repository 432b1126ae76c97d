/* formats/weights/adapter_files.h - the tensors of an adapter's folder, under one kind of names. */
#ifndef FORMATS_WEIGHTS_ADAPTER_FILES_H
#define FORMATS_WEIGHTS_ADAPTER_FILES_H
#include "formats/weights/naming.h"
#include "formats/weights/tensor.h"
C_BEGIN

/*
 * adapter_model.safetensors or adapter_model.bin, and what LongLoRA and its like put beside it:
 * trainable_params.bin, trainable_params.safetensors, non_lora_trainables.bin. Names become those of
 * adapter.h, whatever wrappers of peft they went through:
 *
 *     base_model.model.M.lora_A.default.weight            base_model.model.M.lora_A.weight
 *     base_model.model.M.modules_to_save.default.weight   base_model.model.M.weight
 *     base_model.model.M.base_layer.bias                  base_model.model.M.bias
 *     base_model.model.M.lora_magnitude_vector.weight     base_model.model.M.lora_magnitude_vector
 *     model.norm.weight (trainable_params.bin)            base_model.model.model.norm.weight
 *
 * A pair of an embedding, lora_embedding_A [r][vocab] and _B [dim][r], becomes one of its matrix
 * [vocab][dim]: lora_B.weight and lora_A.weight, turned over, as float32.
 */
struct adapter_files;
struct adapter_entry {
    char *name;
    struct tensor t; /* its name is the file's own */
    bool beside;     /* of the second file */
    void *turned;    /* its values, where they are not the file's */
};
/* E_NOINPUT, E_DATA: also two tensors of one name. */
int adapter_files_open(struct adapter_files **f, const char *folder, struct err *e);
void adapter_files_close(struct adapter_files *f);
/* Names become those of the family's own modules, whatever the model is within (namings_of). *n: what they were.
 * E_DATA. */
int adapter_files_own(struct adapter_files *f, const struct arch *a, const struct naming *within,
                      const struct naming **n, struct err *e);
/* Sorted by name. */
int64_t adapter_files_count(const struct adapter_files *f);
const struct adapter_entry *adapter_files_at(const struct adapter_files *f, int64_t i);
const struct tensor *adapter_files_find(const struct adapter_files *f, const char *name);
/* Path of the first file, and a key of its metadata, where it has such; NULL. */
const char *adapter_files_path(const struct adapter_files *f);
const char *adapter_files_note(const struct adapter_files *f, const char *key);

#define ADAPTER_PREFIX "base_model.model." /* peft wraps the model twice */

C_END
#endif
