#!/bin/bash
# Ranks on imitated GPUs in every way that divides the work, against one process on the CPU: losses to 3e-6;
# then the scripts for machines with GPUs. By hand, minutes: make check-imitated (SAN=thread: what streams do to the
# same bytes; LATE: see streams.c, IMITATED_LATE).
# usage: TESTBIN=folder of the tests, tools on PATH: sweep.sh [GPUS COMMON... -- MANY...]
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
. tests/imitate/env.sh
export IMITATED_LATE=$LATE
[ -f "$so" ] || { echo 'sweep: make imitated' >&2; exit 69; }
llama_config vocab_size=512 hidden_size=64 intermediate_size=96 num_hidden_layers=3 num_key_value_heads=4 > "$tmp/c.json"
ids 20000 1 > "$tmp/d.bin"
train() { # train OUT OPTION...
    local out=$1
    shift
    timeout 300 ltrain -q "$tmp/d.bin" --ctx 128 -o "$tmp/$out" "$@" 2> "$tmp/err" || { tail -n 4 "$tmp/err"; return 1; }
}
losses() { sed -E 's/.*"loss":([0-9.]+).*/\1/' "$tmp/$1/metrics.jsonl"; }
alike() { # alike GPUS COMMON... -- MANY...: both options of the many
    local gpus=$1 common=()
    shift
    while [ "$1" != -- ]; do common+=("$1"); shift; done
    shift
    rm -rf "$tmp/one" "$tmp/many"
    train one --steps 3 --device cpu --threads 1 "${common[@]}" &&
        IMITATED_GPUS=$gpus train many --steps 3 --device cuda --gpus "$gpus" "${common[@]}" "$@" || return 1
    paste <(losses one) <(losses many) | tee "$tmp/both" |
        awk '{ d = $1 - $2; print; if ((d < 0 ? -d : d) > 3e-6 * $1) bad = 1 } END { exit bad || NR < 3 }'
}
# What is offloaded goes through queues of its own, beside the exchanges.
offloaded() {
    local how="--cp 2 --gpu-memory 656900k"
    # shellcheck disable=SC2086
    alike 2 $lora --batch 2 --attention dense -- $how || return 1
    rm -rf "$tmp/many"
    # shellcheck disable=SC2086
    ltrain -v "$tmp/d.bin" --ctx 128 -o "$tmp/many" --steps 1 $lora --batch 2 --attention dense --device cuda --gpus 2 \
        $how 2>&1 | grep 'weights of 3 layers streamed'
}
try() { ok "$*" alike "$@"; }
train base --init "$tmp/c.json" --batch 2 --micro 1 --steps 1 --device cpu || exit 1
full="--init $tmp/c.json --micro 1" lora="--model $tmp/base --mode lora+ --rank 2 --micro 1" s2='--attention s2 --group 24'
# shellcheck disable=SC2086 # words
if [ $# -gt 0 ]; then
    try "$@"
else
    try 2 ${full/micro 1/micro 2} --batch 5 --
    try 3 $full --batch 2 --
    try 4 $full --batch 3 --
    try 2 $lora --batch 4 --
    try 2 $lora --batch 3 --same-on-any-ranks --
    try 4 $full --batch 4 --attention s2 --group 16 -- --cp 2
    try 4 $full --batch 3 $s2 -- --cp 2
    try 4 $full --batch 3 --attention dense -- --cp 4
    try 3 $full --batch 3 --attention s2 --group 40 -- --cp 3
    try 4 $lora --batch 4 -- --shard-weights 4
    try 4 $lora --batch 4 -- --shard-weights 2
    try 4 $lora --batch 4 -- --shard-weights 2 --cp 2
    try 4 $lora --batch 2 $s2 -- --shard-weights 4 --cp 2
    try 4 $lora --batch 2 $s2 -- --shard-weights 2 --cp 4
    try 2 $lora --batch 3 $s2 --dense-every 2 -- --cp 2 --shard-weights 2
    try 2 $full --batch 3 $s2 --dense-every 2 --keep-layers 0 -- --cp 2
    try 2 $full --batch 3 $s2 --keep-layers 3 -- --cp 2
    try 2 $lora --batch 3 $s2 --mask-documents -- --cp 2
    try 2 $full --batch 3 --packing bestfit -- --cp 2
    try 2 $full --batch 3 --attention dense --val "$tmp/d.bin" --val-every 1 -- --cp 2
    try 4 $lora --batch 3 $s2 --val "$tmp/d.bin" --val-every 1 -- --cp 2 --shard-weights 2
    ok 'offloaded as well' offloaded
    mkdir "$tmp/smi" && printf '#!/bin/sh\necho GPU 0\necho GPU 1\n' > "$tmp/smi/nvidia-smi" && chmod +x "$tmp/smi/nvidia-smi"
    export PATH="$tmp/smi:$PATH" EACH=300
    ok 'tests/gpu/ranks.t' eval 'bash tests/gpu/ranks.t > "$tmp/said" 2>&1; cat "$tmp/said"; ! grep -q "^not ok" "$tmp/said"'
fi
echo "1..$n"
