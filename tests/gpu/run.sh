#!/bin/sh
# Tests the CUDA device on this machine's GPU. Prints everything, whatever fails; the short table
# comes last, and the exit status is 1 where something failed. Run from the project's root:
# 'make check-gpu', or sh build/gpu/run.sh (after 'make gpu-bundle' here or elsewhere).
# usage: run.sh [tests] [ranks] [tools] [sanitize] [ranks-memcheck] [bench] [windows]
# default: the first four
# ranks: two processes, on two GPUs where there are two. ranks-memcheck: in small, under memcheck.
# windows: products of windows of 200 lengths, timed once an octave and for every one of them.
# sanitize is racecheck initcheck memcheck synccheck, each a word of its own too.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
what=${*:-tests ranks tools sanitize}
wanted() { case " $what " in *" $1 "*) return 0 ;; esac; return 1; }

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader
if wanted tests; then
    step 120 ops "$BIN/test_cuda_ops"
    step 180 attention "$BIN/test_cuda_attention"
    step 90 attention_small_tiles env LONGLORA_SMALL_TILES=1 LONGLORA_CUDNN=none \
        "$BIN/test_cuda_attention"
    step 120 model "$BIN/test_cuda_model"
    step 240 extend "$BIN/test_cuda_extend"
    step 180 families "$BIN/test_cuda_families"
fi
wanted ranks && step 300 ranks "$BIN/test_cuda_ranks"
wanted ranks && step 200 ranks_tools bash "$here/ranks.t"
wanted tools && step 200 tools bash "$here/tools.t"
# Our own kernels, in small; the libraries' are not ours to look at.
san=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
not_ours() { # the options that leave them out
    "$san" --help 2>&1 | grep -q -e --kernel-name-exclude || return
    for k in cutlass cublas nvjet xmma gemv cudnn nccl; do
        echo "--kernel-name-exclude kns=$k"
    done
}
sanitize() { # sanitize TOOL [OPTION...]
    tool=$1
    shift
    wanted sanitize || wanted "$tool" || return
    set -- "$@" $(not_ours)
    for b in ops attention families extend; do
        step 90 "${tool}_$b" env LONGLORA_GPU_SMALL=1 LONGLORA_CUDNN=none LONGLORA_GPU_SKIP="$skip" \
            "$san" --tool "$tool" --error-exitcode 99 "$@" "$BIN/test_cuda_$b"
    done
}
# Slow: enough launches to meet every kernel. The library's products, of which timing tries
# many, make racecheck itself fail ("failed to handle a hardware exception"): what calls them, the loss
# too, is in a test whose name begins with test_gemm.
skip='test_gemm*'
sanitize racecheck --launch-count 400
skip=
sanitize initcheck
sanitize memcheck
sanitize synccheck
# NCCL asks CUDA for kernels that a card may not have: its failures at that are no faults.
wanted ranks-memcheck && step 290 ranks_memcheck env LONGLORA_GPU_SMALL=1 LONGLORA_CUDNN=none \
    "$san" --tool memcheck --report-api-errors no --target-processes all --error-exitcode 99 $(not_ours) \
    "$(CDPATH= cd "$BIN" && pwd)/test_cuda_ranks"
wanted windows && step 300 windows "$BIN/bench_windows"
wanted bench && step 100 bench_attention "$BIN/bench_attention"
wanted bench && step 300 bench_extend "$BIN/bench_extend"
wanted bench && step 400 bench sh "$here/bench_gpu.sh" train:8192 train:32768
[ -n "$OUT" ] && cat "$out"/*.log > "$OUT/gpu.log" # all of it
echo "== summary, logs in ${OUT:-$out}"
cat "$out/summary"
grep -h -E '^\[  (FAILED|ERROR)|^not ok|ERROR SUMMARY|RACECHECK SUMMARY' "$out"/*.log | cut -c1-300
! grep -q -v ': exit 0,' "$out/summary"
