#!/bin/bash
# ltrain --plan for GPUs that are not here: what fits, what is said where it does not.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
plan() { ltrain --plan --shape llama-2-7b --recipe longlora-2023 "$@" > "$tmp/out" 2> "$tmp/err"; }
says() { # says STATUS OUT-WORDS ERR-WORDS ARGUMENT...
    local want=$1 out=$2 err=$3 rc
    shift 3
    plan "$@"
    rc=$?
    cat "$tmp/out" "$tmp/err"
    [ $rc -eq "$want" ] && { [ -z "$out" ] || grep -q -- "$out" "$tmp/out"; } &&
        { [ -z "$err" ] || grep -q -- "$err" "$tmp/err"; }
}
between() { # between KEY LOW HIGH: of the last plan's JSON
    echo "$1 is $(num "$tmp/out" "$1")"
    awk -v x="$(num "$tmp/out" "$1")" -v l="$2" -v h="$3" 'BEGIN { exit !(x >= l && x <= h) }'
}

fits_24() { # 7B at 100k tokens: two thirds of 24 GiB at least are used, and no more than they are
    plan --ctx 100k --gpu h200 --gpu-memory 24g --json || return 1
    between peak_bytes 16e9 25.7e9 && between pinned_bytes 40e9 103.1e9 &&
        between step_s 10 13 && between streamed_layers 3 32 && grep -q '"fits": true' "$tmp/out" &&
        awk -v p="$(num "$tmp/out" peak_bytes)" -v h="$(num "$tmp/out" held_bytes)" \
            'BEGIN { exit !(p + h <= 24 * 2^30) }'
}
ok '7B at 100k tokens in 24 GiB' fits_24
mixed() { # both kinds of step, and their average, as by_hand; the memory is one plan's
    local kind by_hand
    for kind in '--group-ratio 1/16' '--attention dense' '--group-ratio 1/16 --dense-every 10 --dense-last 0.05'; do
        plan --ctx 100k --gpu h200 --steps 1000 $kind --json || return 1
        by_hand+="$(num "$tmp/out" tok_s) $(num "$tmp/out" work_bytes) "
    done
    cat "$tmp/out"
    between dense_share 0.145 0.145 && between s2_step_s 6.0 6.7 && between dense_step_s 21 24 &&
        between tok_s 11300 13000 && between step_s 7.9 9.1 && echo "$by_hand" |
        awk '{ m = 1 / (0.855 / $1 + 0.145 / $3); exit !($5 > 0.98 * m && $5 < 1.01 * m && $6 == $2 && $6 == $4) }'
}
ok '7B at 100k tokens with every 10th step dense, and the last 5%' mixed
table_of_mix() {
    plan --ctx 100k --gpu h200 --group-ratio 1/32 --dense-every 10 || return 1
    cat "$tmp/out"
    grep -qE '^  s2 +[0-9.]+ s  of a step in groups of 3200, 1[78][0-9]{3} tokens/s' "$tmp/out" &&
        grep -qE '^  dense +2[0-9.]+ s  of a dense one, 4[0-9]{3} tokens/s; 10% of the steps' "$tmp/out"
}
ok 'the table of a mix' table_of_mix
ok 'the table of it' says 0 '^available .*it fits' '' --ctx 100k --gpu h200 --gpu-memory 24g
ok 'and its last line' eval "grep -qE '^step .* s  predicted for 102400 tokens, [0-9]+ tokens/s' $tmp/out"
long() {
    plan --ctx 512k --gpu h200 --host-memory 110g --longest --json || return 1
    cat "$tmp/out"
    between longest_ctx 524288 1048576 && between peak_bytes 100e9 150e9
}
ok '7B at 512k tokens on an H200' long
ok 'what does not fit: 78, and what would' says 78 '^available .*does not fit' 'ctx [1-9][0-9]* would fit' \
    --ctx 1m --gpu rtx-4090
longest=$(sed -nE 's/.*--ctx ([0-9]+) would fit.*/\1/p' "$tmp/err")
ok 'that fits indeed' says 0 '^step ' '' --ctx "$longest" --micro 1 --gpu rtx-4090
ok 'a little more does not' says 78 '' "ctx $longest would" --ctx $((longest + 4096)) --gpu rtx-4090
ok 'nothing fits' says 78 '' 'no context fits' --ctx 8k --gpu h200 --gpu-memory 1g
ok 'without the host more has to be kept' says 78 '^pinned *0' 'would fit' \
    --ctx 100k --gpu h200 --gpu-memory 24g --host-memory 0
ok 'the device sets the limit' says 0 'longest .* device memory' '' \
    --ctx 8k --gpu rtx-3090 --longest
ok 'the host does' says 0 'longest .* host memory' '' \
    --ctx 8k --gpu h200 --host-memory 4g --longest
ok 'a card that has less' says 0 '' '--gpu-memory is more than the' --ctx 8k --gpu a100-40 --gpu-memory 80g
ok 'other shapes' says 0 '^step ' '' --gpu a100-80 --ctx 32k --shape llama-3-8b
heads() { # heads CHANNELS: a model of 8 such heads
    sed -E "s/\"hidden_size\": *[0-9]+/\"hidden_size\": 1024, \"head_dim\": $1/;
        s/(\"num_(attention|key_value)_heads\": *)[0-9]+/\18/" tests/data/tiny-config.json > "$tmp/c.json"
    ltrain --plan --init "$tmp/c.json" --ctx 4k --gpu rtx-4090
}
ok 'heads of 256 channels fit a card with little shared memory' heads 256
ok 'wider ones are refused' ends 78 'at most 256' heads 320
ok "and said what takes them" grep -q -- "--device cpu" "$tmp/err"
eight() { # 559 MB of float32, 7/4 of it over NVLink: 3 ms; 8 rows on each
    plan --ctx 8k --gpu h200 --gpus 8 --json || return 1
    cat "$tmp/out"
    between ranks 8 8 && between exchange_bytes 558e6 560e6 && between exchange_s 2e-3 4e-3 &&
        between scaling 7.9 8 && between batch_s 3 4 && between moment_bytes 139e6 141e6
}
ok 'eight GPUs: memory of one, time of all' eight
hosts() { # the network is slower, and two thirds of a step
    plan --ctx 8k --gpu h100 --mode full --gpus 8 --hosts 2 --link 100g --json || return 1
    cat "$tmp/out"
    between ranks 16 16 && between hosts 2 2 && between exchange_s 4 5 && between scaling 5 8
}
ok 'two hosts by a slow network' hosts
ok 'the table of it' says 0 '^exchange .*over 100g, 10.8 GiB/s' '' --ctx 8k --gpu h200 --gpus 4 --hosts 2 --link 100g
longer() { # 8 ranks share a sequence that one has no room for
    plan --ctx 1m --group 32k --gpu h200 --host-memory 64g --gpus 8 --cp 8 --batch 8 --json || return 1
    between cp 8 8 && between line_most 1 1.02 && between line_bytes 8e9 12e9 &&
        between batch_tok_s 60000 85000 && ! grep -q scaling "$tmp/out"
}
ok '8 GPUs to a sequence of a million tokens' longer
ok 'the table of it' says 0 '^sequence .*2 ranks share a sequence, the one with most .* 6.7% more' '' \
    --ctx 100k --gpu h200 --gpus 2 --cp 2
auto() { # short rows need no two ranks; rows that one has no room for do
    plan --ctx 8k --gpu h200 --gpus 8 --batch 64 --cp auto --json && between cp 1 1 &&
        plan --ctx 1m --gpu h200 --host-memory 64g --gpus 8 --batch 8 --cp auto --json && between cp 2 8
}
ok '--cp auto' auto
ok '--cp of no divisor' says 64 '' 'does not fit 8 ranks' --ctx 8k --gpu h200 --gpus 8 --cp 3
ok 'a rate in bytes' says 0 'over 1g, 1.00 GiB/s' '' --ctx 8k --gpu h200 --gpus 2 --link 1g
ok 'full training of 7B fits sixteen cards of 80 GiB, and not one' says 0 'it fits' '' \
    --ctx 8k --gpu h100 --mode full --gpus 16
ok 'nor two' says 78 'does not fit' '' --ctx 8k --gpu h100 --mode full --gpus 2
ok 'no such link' says 64 '' "--link 'ether'" --ctx 8k --gpus 8 --link ether
ok 'hosts of how many' says 64 '' 'of how many GPUs a host' --ctx 8k --hosts 2
ok 'all is no number' says 64 '' 'a plan needs a number' --ctx 8k --gpus all
if ltrain -v --bench --init tests/data/tiny-config.json --ctx 64 --steps 1 --micro 1 2>&1 |
    grep -q 'device=cuda'; then
    skip 'not here' 'there is a GPU'
else
    ok 'without a name an H200, and it is said' says 0 'on H200' 'no GPU here' --ctx 32k --gpu-memory 60g
    ok 'a run has no GPU to keep small' ends 69 '--gpu-memory needs a GPU' ltrain --bench \
        --init tests/data/tiny-config.json --ctx 64 --steps 1 --gpu-memory 1g
    ok 'nor has leval' ends 69 '--gpu-memory needs a GPU' leval --bench --shape llama-2-7b --ctx 64 --gpu-memory 1g
fi
several() { # ends with the first that does not fit
    plan --ctx 8k,32k,1m,64k --gpu l40s
    [ $? -eq 78 ] && [ "$(grep -c '^ctx=' "$tmp/out")" -eq 3 ] &&
        [ "$(grep -c 'it fits$' "$tmp/out")" -eq 2 ]
}
ok 'several contexts' several
ok '--gpu is for plans' ends 64 '--gpu works only with --plan' ltrain d.bin --model m -o o --gpu h200
ok '--longest too' ends 64 '--longest works only with --plan' ltrain d.bin --model m -o o --longest
ok 'of the CPU there is no GPU' ends 64 '--device is cpu' \
    ltrain --plan --shape llama-2-7b --gpu h200 --device cpu
echo "1..$n"
