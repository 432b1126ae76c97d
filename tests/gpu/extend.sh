#!/bin/sh
# tests/gpu/extend.sh - tools/extend_pg19.sh on this machine's GPUs, with the programs and libraries
# that lie beside this script ('make gpu-bundle'). The data comes along in WORK, made elsewhere.
# usage: [SCRIPT=retrieval_pg19.sh] extend.sh WORK [STAGE ...]     SCRIPT: another one of tools/
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
script=$here/${SCRIPT:=extend_pg19.sh}
[ -f "$script" ] || script=$here/../../tools/$SCRIPT
sh "$script" "$@"
rc=$?
rm -rf "$out"
exit $rc
