/* probes/kinds.h - every kind of prompt; probes.c has the table that is shown. */
#ifndef PROBES_KINDS_H
#define PROBES_KINDS_H
#include "probes/probe.h"
C_BEGIN

extern const struct probe_kind probe_passkey, probe_lines, probe_json_kv;
extern const struct probe_kind probe_niah_single_1, probe_niah_single_2, probe_niah_single_3,
    probe_niah_multikey_1, probe_niah_multikey_2, probe_niah_multikey_3, probe_niah_multivalue,
    probe_niah_multiquery, probe_vt, probe_cwe, probe_fwe, probe_qa1, probe_qa2, probe_qa3;

C_END
#endif
