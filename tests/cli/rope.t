#!/bin/bash
# The kinds of RoPE from the command line: trained, written, merged, scored, gone on from, refused.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
says() { # says STATUS TEXT COMMAND...
    local want=$1 text=$2
    shift 2
    "$@" > "$tmp/out" 2> "$tmp/said"
    local rc=$?
    [ $rc -eq "$want" ] && grep -qF -e "$text" "$tmp/said" && return 0
    echo "exit $rc, not $want, or no '$text' in:"
    cat "$tmp/said"
    return 1
}
flat() { tr -d ' \n' < "$1"; } # a JSON file without blanks
has() { # has FILE JSON...
    local f=$1 part
    shift
    for part; do
        flat "$f" | grep -qF "$part" || { echo "no $part in $f:"; cat "$f"; return 1; }
    done
}

ids 20000 1 > "$tmp/d.bin"
ids 4000 2 > "$tmp/v.bin"
ltrain -q "$tmp/d.bin" --init tests/data/tiny-config.json --ctx 64 --batch 4 --lr 3e-3 --steps 30 \
    -o "$tmp/base" || exit 70
tune() { # tune NAME OPTION...
    local name=$1
    shift
    ltrain "$tmp/d.bin" --model "$tmp/base" --ctx 160 --batch 4 --lr 1e-3 --steps 2 \
        --recipe longlora-2023 -o "$tmp/$name" "$@" \
        2> "$tmp/$name.err" || { cat "$tmp/$name.err"; return 1; }
}
ppl() { # the losses of each context, to 5 digits
    leval --ppl "$tmp/v.bin" --form raw --max-windows 4 -q --json "$@" |
        sed -n 's/^      "loss": \([0-9.]\{7\}\).*/\1/p'
}
# The adapter and the merged model give the same loss at a length within and one beyond.
merged() { # merged NAME
    lmerge -q -m "$tmp/base" -a "$tmp/$1" -o "$tmp/$1-m" &&
        ppl -m "$tmp/base" -a "$tmp/$1" --ctx 48,160 > "$tmp/one" &&
        ppl -m "$tmp/$1-m" --ctx 48,160 > "$tmp/two" && [ -s "$tmp/one" ] &&
        cmp "$tmp/one" "$tmp/two" && cmp "$tmp/$1/config.json" "$tmp/$1-m/config.json"
}

parts() {
    tune parts --rope parts && grep -q 'rope=llama3 factor=2.5 attention' "$tmp/parts.err" &&
        has "$tmp/parts/config.json" '"max_position_embeddings":160' \
            '"torch_dtype":"float32","original_max_position_embeddings":64' \
            '"rope_scaling":{"rope_type":"llama3","factor":2.5,"original_max_position_embeddings":64,"low_freq_factor":1.0,"high_freq_factor":4.0}' &&
        merged parts
}
ok 'parts: llama3 keys, the original context also where llama.cpp looks; factor exact' parts
yarn() {
    tune yarn --rope yarn --rope-slow 2 && has "$tmp/yarn/config.json" '"max_position_embeddings":160' \
        '"rope_scaling":{"type":"yarn","rope_type":"yarn","factor":2.5,"original_max_position_embeddings":64,"beta_slow":2.0}' &&
        grep -q 'transformers before 4.51' "$tmp/yarn.err" && merged yarn
}
ok 'yarn: factor is the context by the original one' yarn
dynamic() { # and its max_position_embeddings stays
    tune dynamic --rope dynamic && has "$tmp/dynamic/config.json" '"max_position_embeddings":64' \
        '"rope_scaling":{"type":"dynamic","factor":2.5}' && merged dynamic &&
        linfo --json "$tmp/dynamic-m" > "$tmp/info" && has "$tmp/info" '"context":160'
}
ok 'dynamic: two keys, the context that transformers computes with' dynamic
ntk() {
    tune ntk --rope ntk && grep -q 'rope=default factor=1 theta=' "$tmp/ntk.err" &&
        has "$tmp/ntk/config.json" '"max_position_embeddings":160' '"rope_scaling":null' &&
        ! has "$tmp/ntk/config.json" '"rope_theta":10000.0' > /dev/null && merged ntk
}
ok 'ntk: a base that every program reads' ntk
theta() {
    tune theta --rope theta --rope-theta 5e5 && has "$tmp/theta/config.json" '"rope_theta":500000.0' \
        '"rope_scaling":null' '"max_position_embeddings":160' && merged theta
}
ok 'theta' theta
longrope() {
    printf '{"short_factor": [1, 1, 1, 1], "long_factor": [1, 1.5, 2, 2.5]}' > "$tmp/lists"
    tune longrope --rope longrope --rope-lists "$tmp/lists" &&
        has "$tmp/longrope/config.json" '"torch_dtype":"float32","original_max_position_embeddings":64' \
            '"long_factor":[1.0,1.5,2.0,2.5]' '"max_position_embeddings":160' '"attention_factor":1.1' &&
        merged longrope
}
ok 'longrope, from a file of lists' longrope
pi() { tune pi && grep -q 'give them --max-model-len 192' "$tmp/pi.err" && merged pi &&
    lmerge -f -m "$tmp/base" -a "$tmp/pi" -o "$tmp/pi-m" | grep -q 'note: vLLM and SGLang take'; }
ok 'pi is what the paper has; what vLLM makes of it is said, by lmerge too' pi

on() { # parts goes on: its factor grows, the original context stays
    ltrain -q "$tmp/d.bin" --model "$tmp/parts-m" --ctx 320 --batch 2 --steps 1 -o "$tmp/on" &&
        has "$tmp/on/config.json" '"max_position_embeddings":320' '"factor":5.0' \
            '"original_max_position_embeddings":64,"low_freq'
}
ok 'a model that is scaled goes on in its kind' on
ok 'but not in another' says 78 'cannot go on from that' ltrain "$tmp/d.bin" --model "$tmp/parts-m" \
    --ctx 320 --rope yarn -o "$tmp/no"
ok 'a run goes on with the same kind' eval 'tune parts --rope parts --steps 3 && tune ntk --rope ntk --steps 3'
ok 'and the same parameters' says 78 "was made with 'rope' {" ltrain "$tmp/d.bin" --model "$tmp/base" \
    --ctx 160 --batch 4 --lr 1e-3 --steps 4 --recipe longlora-2023 -o "$tmp/parts" --rope parts --rope-high 8
ok 'another kind is another run' says 78 "was made with 'rope" ltrain "$tmp/d.bin" --model "$tmp/base" \
    --ctx 160 --batch 4 --lr 1e-3 --steps 4 --recipe longlora-2023 -o "$tmp/ntk" --rope theta --rope-theta 5e5

scores() { # leval stretches a base by the same words
    local hex=(leval --ppl "$tmp/v.bin" --form raw --max-windows 4 -q --json -m "$tmp/base" --ctx 160)
    "${hex[@]}" --rope parts | grep loss_hex > "$tmp/one" &&
        "${hex[@]}" --rope parts --rope-factor 2.5 | grep loss_hex > "$tmp/two" &&
        "${hex[@]}" --rope-factor auto | grep loss_hex > "$tmp/three" && [ -s "$tmp/one" ] &&
        cmp "$tmp/one" "$tmp/two" && ! cmp -s "$tmp/one" "$tmp/three" &&
        leval --ppl "$tmp/v.bin" --form raw --max-windows 2 -m "$tmp/base" --ctx 64,160 --rope ntk \
            --json -q | grep -q '"rope": "default, default theta [0-9]'
}
ok 'leval --rope' scores
lengths() { # the last window is shorter: alone or beside others, it has its own frequencies
    local m run=(leval --ppl "$tmp/v.bin" --form raw --max-tokens 700 --protocol nonoverlap -q --json)
    for m in dynamic longrope; do
        "${run[@]}" --ctx 150 -m "$tmp/$m-m" > "$tmp/one" &&
            "${run[@]}" --ctx 150 -m "$tmp/$m-m" --batch-tokens 1 > "$tmp/two" &&
            awk -v a="$(num <(grep -v '^        ' "$tmp/one") loss)" \
                -v b="$(num <(grep -v '^        ' "$tmp/two") loss)" \
                'BEGIN { print a, b; exit !(a > 1 && a - b < 2e-7 && b - a < 2e-7) }' || return 1
    done
}
ok 'each window has the frequencies of its length' lengths
bare() { # an adapter that does not say it
    rm "$tmp/parts/config.json" && lmerge -q -m "$tmp/base" -a "$tmp/parts" --rope parts \
        --rope-factor 2.5 -o "$tmp/bare" && cmp "$tmp/bare/config.json" "$tmp/parts-m/config.json"
}
ok 'lmerge --rope, for an adapter without config.json' bare
ok 'which needs the factor' says 64 '--rope needs --rope-factor' lmerge -m "$tmp/base" \
    -a "$tmp/parts" --rope parts -o "$tmp/no"

for bad in '--rope-factor 0' '--rope-factor nan' '--rope-theta 0' '--rope-low 0' '--rope-high inf' \
    '--rope-fast -1' '--rope-slow nan' '--rope-attention 0' '--rope yam'; do
    ok "refused: $bad" says 64 "${bad%% *}" ltrain "$tmp/d.bin" --model "$tmp/base" -o "$tmp/no" $bad
    ok "by leval: $bad" says 64 "${bad%% *}" leval --ppl "$tmp/v.bin" -m "$tmp/base" $bad
done
ok 'a parameter of another kind' says 64 '--rope pi has no --rope-low' ltrain "$tmp/d.bin" \
    --model "$tmp/base" -o "$tmp/no" --rope pi --rope-low 2
ok 'a list that is too short' says 65 "'long_factor' has 1 numbers, must have 4" \
    ltrain "$tmp/d.bin" --model "$tmp/base" --ctx 160 -o "$tmp/no" --rope longrope \
    --rope-lists <(echo '{"short_factor": [1,1,1,1], "long_factor": [1]}')
echo "1..$n"
