# shellcheck shell=bash
# tests/imitate/env.sh - makes imitated GPUs those that the tools find; behind tests/cli/lib.sh, with TESTBIN set. Sourced.
so=$TESTBIN/imitate/libcuda.so.1
export LD_LIBRARY_PATH="$TESTBIN/imitate${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" LONGLORA_CUDA="$so" LONGLORA_NCCL="$so"
export OPENBLAS_NUM_THREADS=1 LONGLORA_IMITATED=1 TMPDIR=$tmp
export TSAN_OPTIONS="${TSAN_OPTIONS:-die_after_fork=0 exitcode=66 history_size=4}"
