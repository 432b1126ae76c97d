/* base/opt_rows.h - option rows that several tools have, each written once; see opt.h. */
#ifndef BASE_OPT_ROWS_H
#define BASE_OPT_ROWS_H
#include "base/opt.h"

/* dst is as the row's type wants it. what: what the tool does with it, for --help. */
#define ROW_THREADS(dst) \
    { 'j', "threads", "N", OPT_I64, dst, 0, 4096, "threads; 0: all processors [0]" }
#define ROW_SEED(dst, flags, what) \
    { 0, "seed", "N", OPT_I64 | (flags), dst, 0, 0x1p53, what }
#define ROW_FORCE(dst, what) { 'f', "force", NULL, OPT_FLAG, dst, 0, 0, what }
#define ROW_JSON(dst, what) { 0, "json", NULL, OPT_FLAG, dst, 0, 0, what }
/* For log_init: bool each. */
#define ROW_QUIET(dst, what) { 'q', "quiet", NULL, OPT_FLAG, dst, 0, 0, what }
#define ROW_VERBOSE(dst, what) { 'v', "verbose", NULL, OPT_FLAG, dst, 0, 0, what }

#endif
