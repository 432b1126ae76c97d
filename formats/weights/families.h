/* formats/weights/families.h - the list of families.c, for arch.c alone. */
#ifndef FORMATS_WEIGHTS_FAMILIES_H
#define FORMATS_WEIGHTS_FAMILIES_H
#include "formats/weights/arch.h"

extern const struct arch arch_family[];
extern const int arch_families;

#endif
