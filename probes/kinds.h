/* probes/kinds.h - every kind of prompt; probes.c has the table that is shown. */
#ifndef PROBES_KINDS_H
#define PROBES_KINDS_H
#include "probes/probe.h"
C_BEGIN

extern const struct probe_kind probe_passkey, probe_lines, probe_json_kv;

C_END
#endif
