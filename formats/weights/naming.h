/* formats/weights/naming.h - names of tensors and modules where they are not the family's own. */
#ifndef FORMATS_WEIGHTS_NAMING_H
#define FORMATS_WEIGHTS_NAMING_H
#include "formats/weights/arch.h"
#include <stddef.h>
C_BEGIN

/* body takes the place of what the family's own names begin with: of "model.layers.0..." "model.". head
 * takes that of "lm_head". NULL: it is the family's own. */
struct naming {
    const char *body, *head;
};
#define NAMING_END { NULL, NULL }
extern const struct naming naming_llava[], naming_idefics[]; /* of multimodal models */

/* The other names that tensors of a model may have, ended by NAMING_END: of a multimodal one (multimodal.h) its
 * names, else (NULL) of a model that was saved without the part that has the head ("layers.0..."), and of
 * a family whose head is called otherwise by other versions of transformers those with that name. */
const struct naming *namings_of(const struct arch *a, const struct naming *within);
/* Naming i of all, the family's own not counted; NULL past the last. */
const struct naming *naming_nth(int i);

/* A name, or the path of a module, of the family's own as n has it (NULL: its own); returns buf. */
const char *naming_put(const struct arch *a, const struct naming *n, const char *own, char *buf, size_t cap);
/* The other way; false: the name is not one of the language model's in n. */
bool naming_own(const struct arch *a, const struct naming *n, const char *name, char *buf, size_t cap);

/* Which of these a set of names is in, by what it has of embedding and layers. *n: NULL for the family's
 * own. E_DATA: two at once. has: a name of the set begins with the prefix; *first is it. */
typedef bool naming_has(const void *set, const char *prefix, const char **first);
int naming_choose(const struct arch *a, const struct naming *within, naming_has *has, const void *set,
                  const char *file, const struct naming **n, struct err *e);

C_END
#endif
