#!/bin/bash
# The CUDA device where there is no GPU: it was compiled, it says what is missing, its tests are
# skipped with a word, and cuDNN takes the shapes of attention that are shipped.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
so=${BIN:-build/bin}/../lib/longlora/liblonglora_cuda.so
gpu=${TESTBIN:-none}/../gpu
gpus() { nvidia-smi -L 2> /dev/null | grep -q .; }
all=('the module is there, and exports how it is opened' 'every test of a GPU was compiled'
    'no GPU: ltrain and leval say so, 69' 'no GPU: check-gpu and bench-gpu are skipped with a word'
    'cuDNN takes every shape of attention')
if [ "$CUDA" != 1 ]; then
    for name in "${all[@]}"; do skip "$name" 'built without nvcc (make CUDA=1)'; done
    echo "1..$n"
    exit
fi
module() { [ -f "$so" ] && LC_ALL=C grep -q device_open_cuda "$so"; }
ok "${all[0]}" module
compiled() {
    for f in tests/gpu/*.c; do
        f=${f##*/}
        [ -x "$gpu/${f%.c}" ] || { echo "no ${f%.c}"; return 1; }
    done
}
ok "${all[1]}" compiled
says() {
    ends 69 'no GPU can be used' ltrain --bench --shape llama-2-7b --device cuda &&
        ends 69 'no GPU can be used' leval --bench --shape llama-2-7b --device cuda
}
skips() {
    for s in run bench_gpu startup; do
        SO=$so sh "tests/gpu/$s.sh" > "$tmp/out" 2>&1 || { cat "$tmp/out"; return 1; }
        grep -q '^skipped: no NVIDIA GPU' "$tmp/out" || { cat "$tmp/out"; return 1; }
    done
    SO=$so GPUS=2 RESULTS="$tmp/rows" bash tests/gpu/many.sh > "$tmp/out" 2>&1
    grep -q '^skipped: no NVIDIA GPU' "$tmp/out" || { cat "$tmp/out"; return 1; }
}
if gpus; then
    skip "${all[2]}" 'there is a GPU'
    skip "${all[3]}" 'there is a GPU'
else
    ok "${all[2]}" says
    ok "${all[3]}" skips
fi
if [ -n "$SAN" ]; then
    skip "${all[4]}" 'not under sanitizers'
else
    sh tests/gpu/plans.sh "$gpu/test_cuda_plans" > "$tmp/plans" 2>&1
    rc=$?
    if [ $rc -eq 0 ] && grep -qi 'skipped: ' "$tmp/plans"; then
        skip "${all[4]}" "$(sed -nE 's/.*# skipped: (.*)/\1/p' "$tmp/plans" | head -n 1)"
    else
        planned() { cat "$tmp/plans"; [ $rc -eq 0 ]; }
        ok "${all[4]}" planned
    fi
fi
echo "1..$n"
