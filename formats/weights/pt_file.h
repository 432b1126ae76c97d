/* formats/weights/pt_file.h - a file of torch.save: a dict of tensors, read without running it. */
#ifndef FORMATS_WEIGHTS_PT_FILE_H
#define FORMATS_WEIGHTS_PT_FILE_H
#include "formats/weights/tensor.h"
C_BEGIN

/* "pytorch_model.bin", "adapter_model.bin": a zip (pt_zip.h) whose data.pkl is a pickle (pickle.h) of
 * names to tensors, and whose members data/0, data/1, ... hold their values, little-endian. Files of
 * torch before 1.6, which are no zip, are refused. Tensors are views into the mapped file, sorted by
 * name; two may share their bytes. */
struct pt_file;
/* E_NOINPUT; E_DATA naming the tensor or what the pickle asked for. */
int pt_open(struct pt_file **f, const char *path, struct err *e);
int pt_parse(struct pt_file **f, const void *bytes, size_t nbytes, const char *name,
             struct err *e); /* bytes stay the caller's and must outlive f */
void pt_close(struct pt_file *f);
int64_t pt_count(const struct pt_file *f);
const struct tensor *pt_at(const struct pt_file *f, int64_t i);
const struct tensor *pt_find(const struct pt_file *f, const char *name); /* NULL: absent */

C_END
#endif
