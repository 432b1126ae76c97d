#!/bin/bash
# torchrun itself, where there is one on PATH: its ranks find each other, the bits of our own starter, and
# it ends them all when one is killed. Slurm has a script of its own: tests/cluster/slurm.sh.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
command -v torchrun > /dev/null || { echo '1..0 # SKIP no torchrun here'; exit 0; }
ids 20000 1 > "$tmp/d.bin"
train=(ltrain "$tmp/d.bin" --init tests/data/tiny-config.json --ctx 128 --batch 6 --micro 2 -j 1
    --lr 1e-3 --warmup 1 --save-every 4 --log-every 0)
numbers() { grep -oE '"(step|loss_hex|grad_norm)":[^,]*' "$1/metrics.jsonl"; }
port=$((20000 + $$ % 10000))
torch() { # torch OPTION...: four ranks of one host
    port=$((port + 1))
    timeout -k 5 120 torchrun --nnodes 1 --nproc-per-node 4 --master-addr 127.0.0.1 --master-port $port \
        --no-python "${train[@]}" "$@"
}
bits() {
    "${train[@]}" -q --steps 6 --processes 4 -o "$tmp/own" || return 1
    torch --steps 6 -o "$tmp/torch" 2> "$tmp/err" || { cat "$tmp/err"; return 1; }
    grep -q '4 ranks, started by torchrun; what the hosts send goes by TCP' "$tmp/err" &&
        cmp <(numbers "$tmp/own") <(numbers "$tmp/torch") &&
        cmp "$tmp/own/model.safetensors" "$tmp/torch/model.safetensors"
}
ok 'torchrun: four ranks, the bits of our own starter' bits
begin() { # in the background, some steps under way; sets job
    local i
    rm -rf "$tmp/k"
    torch --steps 1000000 -o "$tmp/k" > /dev/null 2> "$tmp/err" &
    job=$!
    for i in $(seq 1500); do
        [ "$(wc -l 2> /dev/null < "$tmp/k/metrics.jsonl")" -ge 2 ] 2> /dev/null && return
        sleep 0.02
    done
}
rank() { # rank NUMBER: its process
    local f
    for f in /proc/[0-9]*; do
        [[ $(tr '\0' ' ' 2> /dev/null < "$f/cmdline") == "ltrain "*" -o $tmp/k "* ]] &&
            tr '\0' '\n' 2> /dev/null < "$f/environ" | grep -qx "RANK=$1" && echo "${f#/proc/}"
    done
}
killed() {
    local i
    begin
    kill -9 "$(rank 2)"
    for i in $(seq 250); do [ -z "$(rank '[0-3]')" ] && break; sleep 0.02; done
    [ -z "$(rank '[0-3]')" ] || { echo 'some live on'; return 1; }
    wait $job
    echo "torchrun: $?"
    cat "$tmp/err"
    grep -q "ltrain: rank 2 on $(hostname) has died" "$tmp/err"
}
ok 'torchrun: a rank killed, all gone in 5 s, and it is named' killed
stopped() { # torchrun gives its children 30 s after its own SIGTERM
    begin
    kill -TERM "$(rank 1)"
    wait $job
    cat "$tmp/err"
    grep -q 'stopped by SIGTERM after step .*checkpoint saved' "$tmp/err" &&
        [ -d "$(ls -d "$tmp"/k/checkpoints/step-* | tail -n 1)" ]
}
ok 'torchrun: SIGTERM to a rank: one checkpoint' stopped
echo "1..$n"
