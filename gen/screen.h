/* gen/screen.h - a model's text on a terminal. */
#ifndef GEN_SCREEN_H
#define GEN_SCREEN_H
#include "base/bytes.h"
C_BEGIN

/* Adds text to out with what a terminal might obey made harmless: control characters but tabs and line
 * ends (C0, DEL, C1, as UTF-8 and as bytes of their own) become U+FFFD; so do bytes that are not UTF-8,
 * and the marks that turn the direction of writing. text is whole characters. E_SYS. */
int screen_clean(const char *text, size_t n, struct buf *out, struct err *e);

C_END
#endif
