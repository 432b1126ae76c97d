#!/bin/bash
# ltrain --bench: random weights of a shape, measured without data.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
c=tests/data/tiny-config.json
bench() { ltrain -q --bench --device cpu --init $c --steps 2 "$@"; }

measures() {
    bench --ctx 64,256 --mode lora+ --recipe longlora-2023 > "$tmp/out" || return 1
    cat "$tmp/out"
    grep -q '^ctx=64 micro=64 mode=lora+ attention=s2 group=16$' "$tmp/out" &&
        grep -q '^ctx=256 micro=32 mode=lora+ attention=s2 group=64$' "$tmp/out" &&
        [ "$(grep -cE '^  [1-9][0-9]* tokens/s .* a step .* loss [0-9.]+$' "$tmp/out")" -eq 2 ] &&
        [ "$(grep -cE '^  memory .* predicted .*saved: all in 2 layers$' "$tmp/out")" -eq 2 ]
}
ok 'two contexts, a paragraph each' measures
ok 'pairs of several ranks; nothing of them stays' eval 'bench --ctx 64,128 --mode lora --attention dense --rank-pattern q=3 | grep -c tokens/s | grep -qx 2'
finite() { # the loss of random ids is about the log of the vocabulary, 512, and sinks
    bench --ctx 64 --mode full --micro 2 --lr 1e-2 --steps 8 --json > "$tmp/out" || return 1
    cat "$tmp/out"
    sed -E 's/.*"loss":([0-9.]+).*/\1/' "$tmp/out" | awk '{ exit !($1 > 1 && $1 < 6.2) }' &&
        grep -qE '^\{"ctx":64,"micro":2,.*"tok_s":[1-9].*"model_flop_s":[1-9].*\}$' "$tmp/out"
}
mixes() { # both kinds, and the average of a long run: the average of three parts and one
    local paper=(--recipe longlora-2023)
    bench --ctx 256 "${paper[@]}" --dense-every 4 > "$tmp/out" && bench --ctx 256 "${paper[@]}" \
        --dense-every 4 --json > "$tmp/json" || return 1
    cat "$tmp/out" "$tmp/json"
    grep -q '^ctx=256 .*attention=s2 group=64$' "$tmp/out" && grep -q '^ctx=256 .*attention=dense group=256$' "$tmp/out" &&
        grep -q '^mix: dense-every=4 dense-last=0, 25% of the steps dense$' "$tmp/out" &&
        [ "$(wc -l < "$tmp/json")" -eq 3 ] && grep -oE '"step_s":[0-9.]+' "$tmp/json" | cut -d: -f2 | tr '\n' ' ' |
        awk '{ m = 0.75 * $1 + 0.25 * $2; exit !($3 > 0.999 * m && $3 < 1.001 * m) }'
}
ok 'a mix: a paragraph for each kind of step, and its rate' mixes
at_once() { # the first line is there while the steps of the other kind run
    local first second
    bench --ctx 2048 --micro 1 --steps 4 --json --recipe mix-2026 | {
        read -r first && t=$(date +%s%N) && read -r second && u=$(date +%s%N) && cat > "$tmp/mix" || exit 1
        printf '%s\n' "$first" "$second" "$((u - t)) ns between"
        echo "$second" | grep -oE '"step_s":[0-9.]+' | awk -F: -v ns=$((u - t)) '{ exit !(ns > 1e9 * $2) }'
    } && grep -q '"attention":"mix".*"dense_share":0.145,' "$tmp/mix"
}
ok 'each kind is printed as soon as it is measured' at_once
ok 'as JSON; what is measured does train' finite
levels() {
    bench --ctx 256 --memory 1k > "$tmp/out" && grep -q 'saved: input in 2 layers' "$tmp/out" &&
        bench --ctx 256 --keep-layers 1 --deterministic > "$tmp/out" &&
        grep -q 'saved: all in 1 layer; input in 1 layer$' "$tmp/out"
}
ok 'with nothing kept, with one layer kept' levels
ok 'a shape is planned for' eval "ltrain --plan --device cpu --shape llama-2-7b --ctx 32k \
    > $tmp/out 2> $tmp/err; grep -q 'mode=lora+ params=6738415616 ' $tmp/out"
big='-q --bench --shape llama-3-70b --ctx 1m --device cpu'
ok 'what this machine cannot hold is refused at once' ends 71 'is free' timeout 20 ltrain $big
ok 'and by leval' ends 71 'is free' timeout 20 leval $big
ok 'neither shape nor config' ends 64 'either --shape or --init' ltrain --bench --ctx 64
ok 'data is refused' ends 64 'takes no data' ltrain --bench --init $c some.bin
ok 'a shape has no weights' ends 64 'use it with --plan or --bench' \
    ltrain d.bin --shape llama-2-7b -o "$tmp/o"
ok 'a list of contexts is for benchmark and plan' ends 64 'only with --bench or --plan' \
    ltrain d.bin --model m --ctx 1k,2k -o "$tmp/o"
ok 'a context that is none' ends 64 "ctx" ltrain --bench --init $c --ctx 64,x
ok 'a context of one token' ends 64 "not from 2 to" ltrain --bench --init $c --ctx 1
scores() {
    leval -q --bench --device cpu --model tests/data/model/mha --ctx 16,64 > "$tmp/out" &&
        leval -q --bench --device cpu --model tests/data/model/mha --ctx 32 --json > "$tmp/json" ||
        return 1
    cat "$tmp/out" "$tmp/json"
    [ "$(grep -cE '^ctx=(16 windows=512|64 windows=128)$' "$tmp/out")" -eq 2 ] &&
        [ "$(grep -cE '^  [1-9][0-9]* tokens/s .* loss [2-9]\.[0-9]+$' "$tmp/out")" -eq 2 ] &&
        grep -qE '^\{"ctx":32,"windows":256,"tok_s":[1-9].*"matrix_flop_s":[1-9].*\}$' "$tmp/json"
}
ok 'leval --bench: two contexts, and as JSON' scores
shares() { # two ranks share each window: its tokens count once
    leval -q --bench --device cpu --model tests/data/model/mha --ctx 64 --processes 2 --cp 2 > "$tmp/out" || return 1
    cat "$tmp/out"
    grep -q '^ctx=64 windows=1 on each of 1 x 2 ranks that share it$' "$tmp/out"
}
ok 'windows that two ranks share' shares
ok 'it takes sizes' ends 64 'either --shape or --model' leval --bench
ok 'and nothing that it would pass over' ends 64 'leave out --output' \
    leval --bench --shape llama-2-7b -o "$tmp/result"
ok 'no adapter either' ends 64 'leave out --adapter' leval --bench --shape llama-2-7b --adapter x
ok 'and no data' ends 64 'no data' leval --bench --shape llama-2-7b --ppl x
ok 'a shape scores nothing' ends 64 'use it with --bench' leval --shape llama-2-7b --ppl x
echo "1..$n"
