#!/bin/sh
# Tests and measures the CUDA device on this machine's GPU. Prints everything, whatever fails;
# the short table comes last. Run from the project's root: sh build/gpu/run.sh (after 'make
# gpu-bundle' here or elsewhere), or 'make check-gpu'.
# usage: run.sh [tests] [sanitize] [bench] [tools]   default: all four
# BIN, SO, TOOLS: folders and module of a build; else those beside this script.
here=$(cd "$(dirname "$0")" && pwd)
BIN=${BIN:-$here/bin} TOOLS=${TOOLS:-$here/bin} SO=${SO:-$here/lib/liblonglora_cuda.so}
out=$(mktemp -d)
what=${*:-tests sanitize bench tools}

# Libraries: those of the system first, what was carried last; NVIDIA's beside Python if there.
site=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null)
for d in "$site/cudnn/lib" "$site/cu13/lib" "$site/cublas/lib" "$site/cuda_nvrtc/lib" \
    /usr/local/cuda/lib64; do
    [ -d "$d" ] && LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$d"
done
[ -z "$LONGLORA_CUDNN" ] && [ -f "$site/cudnn/lib/libcudnn.so.9" ] &&
    export LONGLORA_CUDNN="$site/cudnn/lib/libcudnn.so.9"
for f in "$here"/lib/*.so*; do # only what this system lacks
    [ -f "$f" ] || continue
    n=${f##*/}
    [ "$n" = liblonglora_cuda.so ] && continue
    ldconfig -p 2>/dev/null | grep -q "	$n " || { mkdir -p "$out/lib" && ln -sf "$f" "$out/lib/$n"; }
done
[ -d "$out/lib" ] && LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$out/lib"
export LD_LIBRARY_PATH LONGLORA_CUDA="$SO"

now() { date +%s; }
t0=$(now)
summary=$out/summary
: > "$summary"
note() { echo "$*" >> "$summary"; }
step() { # step SECONDS LOG COMMAND...: runs, shows the end of what it said, notes how it went
    limit=$1 log=$2
    shift 2
    echo "== $log: $*  [$(($(now) - t0)) s]"
    timeout "$limit" "$@" > "$out/$log.log" 2>&1
    rc=$?
    tail -n 45 "$out/$log.log"
    note "$log: exit $rc, $(($(now) - t0)) s after the start"
    return $rc
}
wanted() { case " $what " in *" $1 "*) return 0 ;; esac; return 1; }

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader
if wanted tests; then
    step 120 ops "$BIN/test_cuda_ops"
    step 180 attention "$BIN/test_cuda_attention"
    step 120 model "$BIN/test_cuda_model"
fi
if wanted bench; then
    step 100 bench_8k env LONGLORA_CUDA_PROFILE=1 "$BIN/bench_step" --steps 5 8192
    step 100 bench_32k env LONGLORA_CUDA_PROFILE=1 "$BIN/bench_step" --steps 3 32768
fi
if wanted tools; then
    python3 - "$out/tokens.bin" << 'EOF'
import struct, sys
x, out = 1, []
for i in range(40000):
    x = (x * 1103515245 + 12345) % 2147483648
    out.append(3 + (i * 7 + (x >> 20) % 3) % 40)
open(sys.argv[1], "wb").write(struct.pack("<%dH" % len(out), *out))
EOF
    for d in cpu cuda; do
        step 60 "ltrain_$d" "$TOOLS/ltrain" "$out/tokens.bin" \
            --model tests/data/model/mha --ctx 64 --steps 20 --warmup 2 --lr 1e-3 --device $d \
            -o "$out/adapter_$d"
        step 60 "leval_$d" "$TOOLS/leval" --ppl "$out/tokens.bin" \
            --model tests/data/model/mha --ctx 64 --device $d
    done
fi
if wanted sanitize && [ $(($(now) - t0)) -lt 390 ]; then
    san=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
    export LONGLORA_GPU_SMALL=1
    step 100 memcheck_ops "$san" --tool memcheck "$BIN/test_cuda_ops"
    export LONGLORA_CUDNN=none # our own kernels are what is looked at
    step 90 memcheck_attention "$san" --tool memcheck "$BIN/test_cuda_attention"
fi
[ -n "$OUT" ] && cat "$out"/*.log > "$OUT/gpu.log" # all of it
echo "== summary, logs in ${OUT:-$out}"
cat "$summary"
grep -h -E '^\[  (FAILED|ERROR)|^RESULT|ERROR SUMMARY' "$out"/*.log | cut -c1-300
