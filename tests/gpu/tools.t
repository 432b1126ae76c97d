#!/bin/bash
# ltrain and leval on a GPU: the same bits run after run and across a stop, the CPU's figures,
# and what is said where there is no GPU or too little memory. Run by run.sh, tools on PATH.
# DEVICE=cpu tries the script itself where there is no GPU.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
d=${DEVICE:-cuda}
lib=$here/../cli/lib.sh
[ -f "$lib" ] || lib=$here/lib.sh
. "$lib"

ids 60000 1 > "$tmp/d.bin"
# Large enough for cuDNN's kernels, with fewer key heads than query heads.
llama_config vocab_size=512 hidden_size=256 intermediate_size=640 num_hidden_layers=3 > "$tmp/c.json"
train() { timeout 100 ltrain -q "$tmp/d.bin" --batch 4 --device "$d" "$@"; }
fresh() { train --init "$tmp/c.json" --lr 1e-3 --warmup 2 "$@"; }
tune() { train --model "$tmp/base" --ctx 512 --recipe longlora-2023 --lr 1e-3 --warmup 2 "$@"; }
hexes() { grep -o '"loss_hex":"[^"]*"' "$1/metrics.jsonl"; }
# near A B SHARE: two numbers that differ by no more than so much of the first
near() { awk -v a="$1" -v b="$2" -v s="$3" 'BEGIN { d = a - b; print a, b
    exit !(a > 0 && (d < 0 ? -d : d) <= s * a) }'; }

base() {
    fresh -o "$tmp/base" --steps 40 --deterministic &&
        awk -v l="$(num "$tmp/base/summary.json" loss)" 'BEGIN { print l; exit !(l > 0 && l < 5) }'
}
ok "a model is trained from scratch on $d" base
again() {
    fresh -o "$tmp/base2" --steps 40 --deterministic &&
        cmp <(hexes "$tmp/base") <(hexes "$tmp/base2") &&
        cmp "$tmp/base/model.safetensors" "$tmp/base2/model.safetensors"
}
ok 'the same run again: equal losses and weights, byte for byte' again
resumes() { # resumes FILE COMMAND...: 10 steps are 5, an end, and 5 more
    local file=$1
    shift
    "$@" -o "$tmp/whole" --steps 10 --deterministic &&
        "$@" -o "$tmp/parts" --steps 5 --deterministic &&
        "$@" -o "$tmp/parts" --steps 10 --deterministic || return 1
    grep -q '"resumed_from": 5' "$tmp/parts/summary.json" || { echo 'did not go on'; return 1; }
    cmp <(hexes "$tmp/whole") <(hexes "$tmp/parts") && cmp "$tmp/whole/$file" "$tmp/parts/$file" &&
        rm -rf "$tmp/whole" "$tmp/parts"
}
ok 'an adapter (lora+, s2) resumed: equal bytes' resumes adapter_model.safetensors tune
ok 'the same with nothing kept' resumes adapter_model.safetensors tune --keep-layers 0
ok 'with dense steps among them' resumes adapter_model.safetensors tune --dense-every 3
ok 'full training resumed: equal bytes' resumes model.safetensors fresh
ok 'documents kept apart, resumed: equal bytes' resumes adapter_model.safetensors tune --mask-documents
as_cpu() { # losses of 8 steps, those of the CPU within what bf16 leaves
    tune -o "$tmp/gpu" --steps 8 && d=cpu tune -o "$tmp/cpu" --steps 8 || return 1
    paste <(sed -E 's/.*"loss":([0-9.]+).*/\1/' "$tmp/cpu/metrics.jsonl") \
        <(sed -E 's/.*"loss":([0-9.]+).*/\1/' "$tmp/gpu/metrics.jsonl") | tee "$tmp/both" |
        awk '{ d = $1 - $2; print; if ((d < 0 ? -d : d) > 0.01 * $1) bad = 1 }
            END { exit bad || NR != 8 }'
}
ok 'eight steps: losses within 1% of the CPU' as_cpu
score() { # score DEVICE PROTOCOL CTX: perplexity
    timeout 100 leval -q --ppl "$tmp/d.bin" --max-tokens 8k --model "$tmp/base" \
        --adapter "$tmp/gpu" --device "$1" --protocol "$2" --ctx "$3" --json > "$tmp/ppl.json" &&
        num "$tmp/ppl.json" ppl
}
scores() { near "$(score cpu "$@")" "$(score "$d" "$@")" 0.005; }
ok 'perplexity at 512 is the CPU'"'"'s within 0.5%' scores nonoverlap 512
ok 'at 2048, the reference'"'"'s protocol' scores longlora 2048
ok 'at 333, sliding' scores stride 333
fields() { # of the last line, and of the run
    local m=$tmp/gpu/metrics.jsonl s=$tmp/gpu/summary.json
    tail -n 1 "$m"
    awk -v mem="$(num "$m" mem)" -v u="$(num "$m" mfu)" -v t="$(num "$m" tok_s)" \
        'BEGIN { exit !(mem > 1e6 && t > 0 && u > 0 && u < 1) }' &&
        { [ "$d" = cpu ] || [ "$(num "$s" device_bytes)" -gt 1000000 ]; }
}
ok 'metrics: tokens/s, memory, share of the matrix rate' fields
bench() {
    timeout 100 ltrain -q --bench --init "$tmp/c.json" --device "$d" --ctx 256,1k --json \
        --steps 5 > "$tmp/bench" || return 1
    cat "$tmp/bench"
    [ "$(grep -cE '"tok_s":[1-9].*"memory_bytes":[1-9]' "$tmp/bench")" -eq 2 ]
}
ok 'ltrain --bench' bench

# What is refused, each with exit status 69 and in words.
ok 'no GPU to be seen: said so' ends 69 'no GPU can be used' \
    env CUDA_VISIBLE_DEVICES= ltrain --bench --init "$tmp/c.json" --device cuda
ok 'leval says so too' ends 69 'no GPU can be used' \
    env CUDA_VISIBLE_DEVICES= leval --ppl "$tmp/d.bin" --model "$tmp/base" --device cuda
falls_back() {
    CUDA_VISIBLE_DEVICES= ltrain -v --bench --init "$tmp/c.json" --ctx 64 --micro 1 --steps 1 \
        > "$tmp/out" 2> "$tmp/err"
    local rc=$?
    cat "$tmp/err"
    [ $rc -eq 0 ] && grep -q 'using the CPU' "$tmp/err" && grep -q 'device=cpu' "$tmp/err"
}
ok 'auto then takes the CPU, and -v says why' falls_back
echo 'not a module' > "$tmp/junk.so"
ok 'a module that is none' ends 69 'no GPU can be used\|cannot load the CUDA device' \
    env LONGLORA_CUDA="$tmp/junk.so" ltrain --bench --init "$tmp/c.json" --device cuda
ok 'a module that is not there' ends 69 'has no CUDA device' \
    env LONGLORA_CUDA="$tmp/none.so" ltrain --bench --init "$tmp/c.json" --device cuda
if [ "$d" = cuda ]; then
    ok 'a context that no GPU holds' ends 69 'out of GPU memory\|more memory' \
        timeout 100 ltrain -q --bench --shape llama-3-70b --ctx 64m --device cuda --keep-layers 0
else
    skip 'a context that no GPU holds' 'no GPU asked for'
fi
echo "1..$n"
