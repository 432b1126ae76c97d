#!/bin/bash
# ltrain from its command line: fresh model, adapter, going on, stopping, refusing, planning.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
clean() { umount "$tmp/disk" 2> /dev/null; }
is() { # is STATUS PATTERN COMMAND...: the exit status, and the message in at most three lines
    local want=$1 pattern=$2 rc
    shift 2
    "$@" > "$tmp/out" 2> "$tmp/err"
    rc=$?
    [ $rc -eq "$want" ] && { [ -z "$pattern" ] || grep -q -e "$pattern" "$tmp/err"; } && return 0
    echo "exit $rc, not $want, or no '$pattern' in:"
    cat "$tmp/err"
    return 1
}

ids 20000 1 > "$tmp/d.bin"
ids 4000 2 > "$tmp/v.bin"
c=tests/data/tiny-config.json
fresh() { ltrain -q "$tmp/d.bin" --init $c --batch 4 --lr 3e-3 "$@"; }
tune=(ltrain "$tmp/d.bin" --model "$tmp/base" --ctx 128 --batch 4 --lr 1e-3 --recipe longlora-2023)
tune() { "${tune[@]}" "$@"; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

learns() {
    fresh -o "$tmp/base" --steps 60 --save-every 25 --keep 2 --json > "$tmp/sum" || return 1
    less "$(num "$tmp/sum" loss)" 5.5 && [ -s "$tmp/base/model.safetensors" ] &&
        [ "$(wc -l < "$tmp/base/metrics.jsonl")" -eq 60 ] &&
        [ "$(ls "$tmp/base/checkpoints" | tr '\n' ' ')" = 'step-00000050 step-00000060 ' ] &&
        grep -q '"command"' "$tmp/base/options.json"
}
ok 'a fresh model learns, and leaves model, metrics, options, the newest checkpoints' learns

adapts() {
    tune -o "$tmp/ad" --steps 8 --val "$tmp/v.bin" --val-every 4 2> "$tmp/err" || return 1
    grep -q 'ctx=128 (model 64) rope=linear factor=2 attention=s2 group=32' "$tmp/err" &&
        grep -q 'mode=lora+' "$tmp/err" && grep -q 'tokens_per_step=512' "$tmp/err" &&
        [ "$(grep -c '"val_loss":[0-9]' "$tmp/ad/metrics.jsonl")" -eq 2 ] &&
        [ -s "$tmp/ad/adapter_model.safetensors" ] && [ -s "$tmp/ad/adapter_config.json" ] &&
        grep -q '"max_position_embeddings": 128' "$tmp/ad/config.json" &&
        grep -q 'step=8 loss=[0-9.]* grad_norm.* mfu=[0-9.]* mem=[1-9]' "$tmp/err" &&
        grep -q 'first step done after [0-9.]* s: files .* weights .* step ' "$tmp/err" &&
        less 1e6 "$(num "$tmp/ad/metrics.jsonl" model_flop_s)" &&
        less 0 "$(num "$tmp/ad/metrics.jsonl" mfu)"
}
ok 'an adapter at twice the context, with held-out loss; what was resolved is said' adapts
ok 'the same command again: complete' is 0 'is already complete: 8 steps' \
    tune -o "$tmp/ad" --steps 8 --val "$tmp/v.bin" --val-every 4

more_steps() { # 8 and 4 more are the 12 of another run
    tune -q -o "$tmp/ad" --steps 12 --val "$tmp/v.bin" --val-every 4 &&
        tune -q -o "$tmp/ad12" --steps 12 --save-every 5 --threads 1 &&
        cmp "$tmp/ad/adapter_model.safetensors" "$tmp/ad12/adapter_model.safetensors" &&
        cmp <(grep -o '"loss_hex":"[^"]*"' "$tmp/ad/metrics.jsonl") \
            <(grep -o '"loss_hex":"[^"]*"' "$tmp/ad12/metrics.jsonl")
}
ok 'more steps go on; threads and checkpoints do not change a bit' more_steps
kinds() { grep -o '"attention":"[a-z0-9]*"' "$1/metrics.jsonl" | cut -d'"' -f4 | tr '\n' ' '; }
mixed() { # in one go, and stopped after an S2 step and after a dense one
    local mix=(--group 32 --dense-every 3 --dense-last 0.2 --steps 10) k
    tune -o "$tmp/mix" "${mix[@]}" --json > "$tmp/sum" 2> "$tmp/err" || return 1
    [ "$(kinds "$tmp/mix")" = 's2 s2 dense s2 s2 dense s2 s2 dense dense ' ] &&
        grep -q 'dense_every=3 dense_last=0.2: 4 of 10 steps are dense' "$tmp/err" &&
        grep -q '^  "dense_steps": 4' "$tmp/sum" && grep -q '"dense_last": 0.2' "$tmp/mix/options.json" || return 1
    for k in 4 6; do
        rm -rf "$tmp/cut" && cp -r "$tmp/mix" "$tmp/cut" && rm "$tmp/cut/summary.json" || return 1
        tune -q -f -o "$tmp/cut" "${mix[@]}" --save-every $k --keep 9 &&
            rm -r "$tmp/cut/summary.json" "$tmp/cut/checkpoints/step-00000010" "$tmp"/cut/checkpoints/step-00000008 2> "$tmp/why"
        is 0 "continuing after step $k" tune -o "$tmp/cut" "${mix[@]}" &&
            cmp "$tmp/cut/adapter_model.safetensors" "$tmp/mix/adapter_model.safetensors" &&
            cmp <(grep -o '"loss_hex":"[^"]*"' "$tmp/cut/metrics.jsonl") \
                <(grep -o '"loss_hex":"[^"]*"' "$tmp/mix/metrics.jsonl") || return 1
    done
}
ok 'dense steps among S2: by their number, also after a restart' mixed
ok 'an end that is dense depends on --steps: others are refused' is 78 "'steps' 10, this run has 12" \
    tune -o "$tmp/mix" --group 32 --dense-every 3 --dense-last 0.2 --steps 12
ok 'and why is said' eval 'grep -q "lengthened begins with --dense-last 0" "$tmp/err"'
ok 'and so are others that are dense' is 78 "'dense_every' 3, this run has 4" \
    tune -o "$tmp/mix" --group 32 --dense-every 4 --dense-last 0.2 --steps 10
only_by_number() { tune -q -o "$tmp/mix3" --group 32 --dense-every 3 --steps 4 &&
        tune -q -o "$tmp/mix3" --group 32 --dense-every 3 --steps 6 &&
        [ "$(kinds "$tmp/mix3")" = 's2 s2 dense s2 s2 dense ' ]; }
ok 'without such an end a run can be made longer' only_by_number
ok 'a mix in which all is dense' is 64 'attention dense makes every step dense, so --dense-every' \
    tune -o "$tmp/none" --attention dense --dense-every 10
ok 'or its end' is 64 'so --dense-last says nothing' tune -o "$tmp/none" --attention dense --dense-last 0.1
ok 'or every first step' is 64 'dense-every 1 makes every step dense' tune -o "$tmp/none" --dense-every 1
ok 'or all the end' is 64 'dense-last' tune -o "$tmp/none" --dense-last 1
fresh_mix() { fresh -o "$tmp/fmix" --steps 2 --dense-every 2 && [ "$(kinds "$tmp/fmix")" = 's2 dense ' ]; }
ok 'a fresh model has a mix where it is asked for' fresh_mix
by_recipe() { # what it set is said, recorded, and repeated
    local by=(ltrain "$tmp/d.bin" --model "$tmp/base" --ctx 256 --batch 2 --lr 1e-3)
    is 0 'recipe mix-2026: --rope parts --attention s2 --group-ratio 1/16 --dense-last 0.05$' \
        "${by[@]}" --dense-every 2 --steps 4 -o "$tmp/by" &&
        grep -q 'attention=s2 group=16$' "$tmp/err" && [ "$(kinds "$tmp/by")" = 's2 dense s2 dense ' ] &&
        grep -q '"recipe": "mix-2026"' "$tmp/by/options.json" && grep -q '"dense_last": 0.05' "$tmp/by/options.json" &&
        is 0 'already complete: 4 steps (-f starts over)' "${by[@]}" --dense-every 2 --steps 4 -o "$tmp/by" &&
        is 78 "'dense_every' 2, this run has 10" "${by[@]}" --steps 4 -o "$tmp/by"
}
ok 'a recipe by default, with what the command says beside it' by_recipe
kept_recipe() { # begun with another, or without any: so it goes on, though the command does not say so
    local by=(ltrain "$tmp/d.bin" --model "$tmp/base" --ctx 128 --batch 4 --lr 1e-3 --recipe longlora-2023)
    "${by[@]}" -q --steps 2 -o "$tmp/kept" || return 1
    is 0 'recipe longlora-2023: ' "${by[@]::10}" --steps 3 -o "$tmp/kept" && grep -q 'continuing after step 2' "$tmp/err" &&
        sed -i '/"recipe"/d' "$tmp/kept/options.json" &&
        is 0 'continuing after step 3' "${by[@]::10}" --steps 4 -o "$tmp/kept" && ! grep -q recipe "$tmp/err" &&
        tune -q -o "$tmp/kept4" --steps 4 && cmp "$tmp/kept/adapter_model.safetensors" "$tmp/kept4/adapter_model.safetensors"
}
ok 'a run goes on with its own recipe, an older one with none' kept_recipe
lists() { ltrain --recipe list > "$tmp/list" && cat "$tmp/list" && [ "$(grep -cE '^(mix-2026|longlora-2023)' "$tmp/list")" -eq 2 ] &&
        [ "$(grep -cE '^  (source|result|sets): ' "$tmp/list")" -eq 6 ] && is 74 'standard output' sh -c 'ltrain --recipe list > /dev/full'; }
ok 'the list of recipes' lists
ok 'no such recipe' is 64 "'best' is not one of mix-2026, longlora-2023" tune -o "$tmp/none" --recipe best
plain() { tune -q -o "$tmp/lora" --mode lora --targets q,v,down --rank 4 --steps 2 --mask-documents \
        --attention dense && ! grep -q embed_tokens "$tmp/lora/adapter_config.json"; }
ok 'plain LoRA of chosen targets, dense, documents apart' plain
of_each_kind() { # trained, stopped, continued, merged; ranks and alphas by pattern, dropout, modules by name
    local kinds=(--mode lora --targets q,v,layers.1.mlp.up_proj --rank-pattern q=3,layers.0.self_attn.v_proj=2
        --alpha-pattern v=5 --rslora --dropout 0.1 --trainable norm,head)
    tune -q -o "$tmp/kinds" "${kinds[@]}" --steps 4 && tune -q -o "$tmp/kinds2" "${kinds[@]}" --steps 2 &&
        tune -q -o "$tmp/kinds2" "${kinds[@]}" --steps 4 &&
        cmp "$tmp/kinds/adapter_model.safetensors" "$tmp/kinds2/adapter_model.safetensors" &&
        tr -d ' \n' < "$tmp/kinds/adapter_config.json" > "$tmp/flat" &&
        grep -q '"rank_pattern":{"q_proj":3,"layers.0.self_attn.v_proj":2,"layers.1' "$tmp/flat" &&
        grep -q '"alpha_pattern":{"q_proj":16,"layers.0.self_attn.v_proj":5,' "$tmp/flat" && grep -q '"use_rslora":true' "$tmp/flat" &&
        grep -q '"lora_dropout":0.1' "$tmp/flat" && grep -q '"layers.1.mlp.up_proj"' "$tmp/flat" &&
        grep -q '"modules_to_save":.*"lm_head"' "$tmp/flat" &&
        lmerge -m "$tmp/base" -a "$tmp/kinds" -o "$tmp/kinds3" | grep -q 'merged, [0-9]* replaced' &&
        linfo "$tmp/kinds" > /dev/null && is 78 "'dropout' 0.1, this run has 0.2" \
            tune -q -o "$tmp/kinds" "${kinds[@]}" --steps 5 --dropout 0.2
}
ok 'pairs of each kind, and what is trained beside them' of_each_kind
whole() { tune -q -o "$tmp/full" --mode full --steps 2 --schedule cosine --dtype bfloat16 &&
        grep -q bfloat16 "$tmp/full/config.json" && [ -s "$tmp/full/model.safetensors" ] &&
        ltrain -q "$tmp/d.bin" --model "$tmp/full" --batch 2 --steps 1 -o "$tmp/again"; }
ok 'full fine-tuning writes a model that can be trained again' whole
retyped() { # a finished run with another --dtype, and back
    cp "$tmp/full/model.safetensors" "$tmp/full.bf16" && cp "$tmp/full/config.json" "$tmp/full.config" || return 1
    for t in float32 float16 bfloat16; do
        tune -q -o "$tmp/full" --mode full --steps 2 --schedule cosine --dtype $t &&
            grep -q "\"torch_dtype\": \"$t\"" "$tmp/full/config.json" || return 1
        [ $t = bfloat16 ] || ! cmp -s "$tmp/full/model.safetensors" "$tmp/full.bf16" || return 1
    done
    cmp "$tmp/full/model.safetensors" "$tmp/full.bf16" && cmp "$tmp/full/config.json" "$tmp/full.config"
}
ok 'a finished run with another --dtype writes its model in it' retyped
beyond() { # weights of about 1e7 are no float16
    sed 's/"initializer_range": *[0-9.]*/"initializer_range": 50/' $c > "$tmp/wild.json" &&
        wild() { ltrain -q "$tmp/d.bin" --init "$tmp/wild.json" --batch 2 --lr 1e3 --decay 1e3 --warmup 0 --steps 1 -o "$tmp/wild" "$@"; } &&
        is 65 "tensor '.*' has values that are not finite as F16" wild --dtype float16 &&
        [ ! -e "$tmp/wild/model.safetensors" ] && [ ! -e "$tmp/wild/config.json" ] &&
        wild --dtype bfloat16 && linfo --verify "$tmp/wild"
}
ok 'values beyond float16 are refused by name, and nothing is published' beyond
ok '--dtype of an adapter does nothing, and that is said' is 0 'the adapter is float32' \
    tune -q -o "$tmp/lora16" --steps 1 --dtype float16
ok 'the base: a path that is not UTF-8 is refused at once' is 64 'is not UTF-8' \
    ltrain -q "$tmp/d.bin" --model "$tmp/"$'b\xe9' -o "$tmp/no" --steps 1
ok 'or one that is too long' is 64 'may have 1023' \
    ltrain -q "$tmp/d.bin" --model "$(printf 'b%.0s' $(seq 1100))" -o "$tmp/no" --steps 1
given() { # an explicit factor: the context is what was trained
    tune -o "$tmp/given" --steps 1 --rope-factor 8 2> "$tmp/err" &&
        grep -q '"max_position_embeddings": 128' "$tmp/given/config.json" &&
        tr -d ' \n' < "$tmp/given/config.json" |
            grep -q '"rope_scaling":{"type":"linear","factor":8.0}' || return 1
    local command
    command=$(sed -n 's/.*RoPE scaling; .*: \(lmerge .*\)/\1/p' "$tmp/err")
    eval "$command -q" && grep -q '"factor": 8.0' "$tmp/given-merged/config.json"
}
ok 'max_position_embeddings is the context, not the factor; the end names the command for peft' given
quotes() { # the command is a shell's, whatever the folders are called
    local command
    cp -r "$tmp/base" "$tmp/it's a base" && ltrain "$tmp/d.bin" --model "$tmp/it's a base" --ctx 128 --batch 4 \
        --steps 1 -o "$tmp/'q' out/" 2> "$tmp/err" || return 1
    command=$(sed -n 's/.*RoPE scaling; .*: \(lmerge .*\)/\1/p' "$tmp/err")
    echo "$command"
    eval "$command -q" && [ -s "$tmp/'q' out-merged/config.json" ]
}
ok 'and the command holds with quotes and spaces in names' quotes

# Whole documents in a row: 300 of 1 to 40 words.
packed() {
    awk 'BEGIN { for (i = 0; i < 300; i++) { printf "{\"text\":\"document"
            for (k = 0; k < i * 7 % 40; k++) printf " of word %d", (i + k) % 10
            print "\"}" } }' > "$tmp/p.jsonl"
    lprep -q "$tmp/p.jsonl" -t tests/data/tiny.model | lpack -q -o "$tmp/shards" || return 1
    pack() { ltrain "$tmp/shards" --init $c --batch 4 --lr 3e-3 --packing bestfit --save-every 3 "$@"; }
    pack -o "$tmp/pk" --epochs 1 --json > "$tmp/sum" 2> "$tmp/err" || return 1
    grep -q 'packing=bestfit padding=[0-9.]*% cut=' "$tmp/err" &&
        grep -q '"packing": "bestfit"' "$tmp/pk/options.json" || return 1
    local n; n=$(num "$tmp/sum" steps) # ends in the next epoch, as batches straddle
    pack -q -o "$tmp/pk1" --steps $((n + 5)) --mask-documents -j 1 &&
        pack -q -o "$tmp/pk2" --steps $((n / 2)) --mask-documents &&
        pack -q -o "$tmp/pk2" --steps $((n + 5)) --mask-documents &&
        cmp "$tmp/pk1/model.safetensors" "$tmp/pk2/model.safetensors" &&
        cmp <(grep -o '"loss_hex":"[^"]*"' "$tmp/pk1/metrics.jsonl") \
            <(grep -o '"loss_hex":"[^"]*"' "$tmp/pk2/metrics.jsonl")
}
ok '--packing bestfit: going on into another epoch changes no bit' packed
ok 'another packing is refused by name' is 78 "'packing' \"bestfit\", this run has \"concat\"" \
    pack -o "$tmp/pk" --packing concat --epochs 2

# Going on only with what was begun.
ok 'another option is refused by name' is 78 "'lr' 0.001, this run has 0.002" \
    tune -o "$tmp/ad" --steps 20 --lr 2e-3
ok 'other data are refused' is 78 'is not the data' \
    ltrain "$tmp/v.bin" --model "$tmp/base" --ctx 128 --batch 4 --lr 1e-3 -o "$tmp/ad" --steps 20
ok 'another base is refused' is 78 "'base'" \
    ltrain "$tmp/d.bin" --model "$tmp/full" --batch 4 --lr 1e-3 -o "$tmp/ad" --steps 20
other_byte() { # in the middle of a tensor, of a file without hashes of its own, as others write them
    local f=$tmp/b2/model.safetensors from
    cp -r "$tmp/base" "$tmp/b2" && LC_ALL=C sed -i 's/longlora_\(header\|tensors\|files\)/somebody_\1/g' "$f" && tune -q --model "$tmp/b2" -o "$tmp/ab" --steps 2 || return 1
    from=$(($(stat -c %s "$f") / 2)) && cp "$f" "$tmp/whole"
    printf '\x11' | dd of="$f" bs=1 seek=$from conv=notrunc 2> "$tmp/why" && ! cmp -s "$f" "$tmp/whole" || return 1
    is 78 "b2' has other weights than the base that '$tmp/ab' was trained on so far" tune --model "$tmp/b2" -o "$tmp/ab" --steps 4 &&
        cp "$tmp/whole" "$f" && is 0 'continuing after step 2' tune --model "$tmp/b2" -o "$tmp/ab" --steps 4
}
ok 'so is one that differs in a byte' other_byte
ok 'fewer steps than are done are refused' is 78 'past --steps 3' tune -o "$tmp/ad" --steps 3
anew() { tune -q -f -o "$tmp/ad" --steps 2 --lr 2e-3 && [ "$(wc -l < "$tmp/ad/metrics.jsonl")" -eq 2 ]; }
ok '-f starts anew' anew
falls() { tune -q -o "$tmp/falls" --steps 2 --schedule cosine &&
        is 78 'to be lengthened has --schedule constant' tune -o "$tmp/falls" --steps 3 --schedule cosine; }
ok 'a learning rate that falls ends with its steps' falls

auto_factor() { tune -q -o "$tmp/auto" --steps 1 --rope-factor auto && tune -q -o "$tmp/noauto" --steps 1 &&
        cmp "$tmp/auto/adapter_model.safetensors" "$tmp/noauto/adapter_model.safetensors" &&
        grep -q '"rope_factor": 2.0' "$tmp/auto/options.json"; }
ok '--rope-factor auto is what the context asks for' auto_factor

# A checkpoint of 0.1.0's first form (a number for the kind of RoPE, the threads in its device).
old_run() { # old_run STATUS WORDS OPTION...
    local want=$1 words=$2 i
    shift 2
    rm -rf "$tmp/old" && cp -r tests/data/old_run "$tmp/old" && echo '{}' > "$tmp/old/options.json" &&
        for i in $(seq 300); do printf "\\x$(printf %02x $((i * i % 47)))\\x00"; done > "$tmp/old.bin" &&
        LONGLORA_BLAS=builtin is "$want" "$words" ltrain "$tmp/old.bin" --model tests/data/model/mha \
            --ctx 64 --batch 2 --mode lora --rank 1 --targets q --steps 3 --device cpu -j 2 \
            -o "$tmp/old" "$@"
}
old_form() {
    old_run 0 'continuing after step 2' && ! grep -q 'made by .* thread' "$tmp/err" &&
        grep -q '"rope_type": "linear"' "$tmp/old/checkpoints/step-00000003/MANIFEST.json" &&
        grep -q '"rope_type": "linear"' "$tmp/old/options.json"
}
ok 'a checkpoint of an older form is continued, with other threads, and rewritten by names' old_form
ok 'and with the paper'"'"'s recipe, which it was' old_run 0 'continuing after step 2' --recipe longlora-2023
ok 'and what differs is named' old_run 78 "'rope_factor' 2.0, this run has 3.0" --rope-factor 3

# Runs that were begun when documents of one length alone changed places, when masked data were joined
# like others, and when a tied base came apart: they go on so, with the losses they had then.
awk 'BEGIN { for (i = 0; i < 60; i++) {
    n = 1 + i * 37 % 61; s = ""
    for (k = 0; k < n; k++) s = s (k ? "," : "") (3 + (i * i + k * 7) % 90)
    print "{\"tokens\":[" s "]" (n > 2 ? ",\"mask\":[[0," int(n / 3) "]]" : "") "}" } }' > "$tmp/docs.ndjson"
lpack -q --import ndjson --vocab 96 "$tmp/docs.ndjson" > "$tmp/docs.shard"
on_tied() { LONGLORA_BLAS=builtin ltrain "$tmp/docs.shard" --model tests/data/peft_tiny/tied/base --ctx 64 \
        --batch 4 --lr 1e-2 --rank 1 --targets q --device cpu -j 1 --warmup 2 "$@"; }
losses() { grep -o '"loss":[0-9.]*' "$1/metrics.jsonl" | cut -d: -f2; }
goes_on() { # goes_on NAME STEPS LOSSES OPTION...
    local name=$1 steps=$2 want=$3
    shift 3
    cp -r "tests/data/$name" "$tmp/$name" && echo '{}' > "$tmp/$name/options.json" &&
        on_tied -o "$tmp/$name" --steps "$steps" "$@" 2> "$tmp/err" || { cat "$tmp/err"; return 1; }
    losses "$tmp/$name" | paste -d ' ' - <(tr ' ' '\n' <<< "$want") |
        awk '{ d = $1 - $2 } NF != 2 || d > 2e-5 || d < -2e-5 { print "loss " $0; bad = 1 }
             END { exit bad || NR == 0 }'
}
ok 'rows of an older order are gone on with, into the next epochs' goes_on old_packed 17 '4.609658 4.490783 4.485791 4.437264 4.297105 4.156534 4.137751 4.211583 4.088517 3.927331 4.040386' --packing bestfit
ok 'and joined rows of masked data' goes_on old_masked 5 '4.959528 4.818517 4.829475'
ok 'what is not as it was is named' is 78 "'tied' \"split\", this run has \"keep\"" \
    on_tied -o "$tmp/old_masked" --steps 6 --tied keep
by_masks() { # whole examples, unless asked otherwise; asking so is the same
    on_tied -o "$tmp/bm" --dense-last 0 --steps 9 2> "$tmp/err" &&
        grep -q 'has masks: its documents stay whole and do not see each other' "$tmp/err" &&
        grep -q 'packing=bestfit .* recurring=[0-9]* of [0-9]* shared rows' "$tmp/err" &&
        grep -q '"packing": "bestfit"' "$tmp/bm/options.json" &&
        grep -q '"mask_documents": true' "$tmp/bm/options.json" || return 1
    on_tied -q -o "$tmp/bm2" --dense-last 0 --steps 5 && on_tied -q -o "$tmp/bm2" --dense-last 0 --steps 9 --packing bestfit --mask-documents &&
        cmp "$tmp/bm/adapter_model.safetensors" "$tmp/bm2/adapter_model.safetensors" || return 1
    on_tied -o "$tmp/bm3" --steps 1 --packing concat 2> "$tmp/err" && ! grep -q 'has masks' "$tmp/err" &&
        grep -q 'packing=concat left_out=10 (0.54%)' "$tmp/err" &&
        grep -q '"mask_documents": false' "$tmp/bm3/options.json"
}
ok 'data with masks: whole examples that do not see each other, by default' by_masks

tied() { # --tied keep: one matrix stays one; split: the head is the base's, and is written
    local way line
    for way in keep split; do
        on_tied -o "$tmp/t-$way" --steps 3 --tied $way 2> "$tmp/err" && grep -q "(--tied $way)" "$tmp/err" &&
            lmerge -q -f --model tests/data/peft_tiny/tied/base --adapter "$tmp/t-$way" -o "$tmp/tm-$way" || return 1
        for line in "$tmp/tm-$way" "tests/data/peft_tiny/tied/base --adapter $tmp/t-$way"; do
            leval -q --ppl "$tmp/docs.shard" --join --model $line --ctx 64 --json | grep -o '"loss_hex".*'
        done | uniq > "$tmp/same-$way"
        [ "$(wc -l < "$tmp/same-$way")" -eq 1 ] || return 1
    done
    # as peft's ensure_weight_tying writes it: both in the file, one in the list
    cp -r "$tmp/t-keep" "$tmp/t-peft" && tr -d '\n' < "$tmp/t-keep/adapter_config.json" |
        sed 's/, *"lm_head"//; s/^{/{"ensure_weight_tying": true,/' > "$tmp/t-peft/adapter_config.json" &&
        lmerge -q --model tests/data/peft_tiny/tied/base --adapter "$tmp/t-peft" -o "$tmp/tm-peft" &&
        cmp "$tmp/tm-peft/model.safetensors" "$tmp/tm-keep/model.safetensors" || return 1
    ! cmp -s "$tmp/same-keep" "$tmp/same-split" && on_tied -q -o "$tmp/t-none" --steps 3 &&
        cmp "$tmp/t-none/adapter_model.safetensors" "$tmp/t-keep/adapter_model.safetensors" &&
        grep -q '"tie_word_embeddings": true' "$tmp/tm-keep/config.json" &&
        grep -q '"tie_word_embeddings": false' "$tmp/tm-split/config.json" &&
        ! linfo -v "$tmp/tm-keep" | grep -q lm_head && linfo -v "$tmp/tm-split" | grep -q lm_head &&
        grep -q '"lm_head"' "$tmp/t-keep/adapter_config.json" && ! grep -q lm_head "$tmp/t-split/adapter_config.json"
}
ok 'a tied base stays tied, or comes apart; adapter, merged model and leval agree' tied

damaged() { # the newest checkpoint has a flipped byte: the one before, and the same end
    tune -q -o "$tmp/dam" --steps 9 --save-every 3 --keep 3 || return 1
    sha256sum < "$tmp/dam/adapter_model.safetensors" > "$tmp/sum1"
    printf 'X' | dd of="$tmp/dam/checkpoints/step-00000009/state.safetensors" bs=1 seek=9000 \
        conv=notrunc 2> /dev/null
    is 0 'state.safetensors.* was changed' tune -o "$tmp/dam" --steps 9 --save-every 3 --keep 3 &&
        grep -q 'continuing after step 6' "$tmp/err" &&
        [ -d "$tmp/dam/checkpoints/step-00000009.bad" ] &&
        sha256sum < "$tmp/dam/adapter_model.safetensors" | cmp - "$tmp/sum1"
}
ok 'a damaged checkpoint: the one before it, and the same adapter' damaged
all_damaged() {
    rm "$tmp"/dam/checkpoints/*/state.safetensors
    is 65 'none of the' tune -o "$tmp/dam" --steps 9 && is 65 'start over with -f' tune -o "$tmp/dam" --steps 9
}
ok 'all damaged: refused, with the remedy' all_damaged

# Signals. Steps are far more than can be done meanwhile.
stopped() { # stopped SIGNAL
    rm -rf "$tmp/sig"
    env --default-signal=HUP "${tune[@]}" -o "$tmp/sig" --steps 1000000 2> "$tmp/err" &
    local pid=$! i
    for i in $(seq 3000); do
        [ "$(wc -l 2> /dev/null < "$tmp/sig/metrics.jsonl")" -ge 2 ] 2> /dev/null && break
        sleep 0.02
    done
    kill -"$1" $pid
    wait $pid
    local rc=$? steps
    steps=$(wc -l < "$tmp/sig/metrics.jsonl")
    [ $rc -eq 75 ] && [ -d "$(printf '%s/sig/checkpoints/step-%08d' "$tmp" "$steps")" ] &&
        grep -q "stopped by SIG$1 after step $steps of 1000000, checkpoint saved" "$tmp/err"
}
for s in TERM INT USR1 HUP XCPU; do
    ok "SIG$s: 75 and a checkpoint of the last step" stopped $s
done
at_once() { # a step of minutes: the second signal does not wait for its end
    "${tune[@]}" --batch 200000 -o "$tmp/slow" 2> "$tmp/err" &
    local pid=$! i
    for i in $(seq 3000); do [ -e "$tmp/slow/metrics.jsonl" ] && break; sleep 0.02; done
    sleep 1
    kill -TERM $pid
    sleep 0.02
    kill -TERM $pid # so soon it is the same one
    sleep 1.2
    kill -0 $pid || return 1
    kill -TERM $pid
    wait $pid
    [ $? -eq 143 ] && [ ! -e "$tmp/slow/checkpoints" ]
}
ok 'a second signal leaves at once' at_once
goes_on() { local k; k=$(wc -l < "$tmp/sig/metrics.jsonl")
    tune -q -o "$tmp/sig" --steps $((k + 2)) && [ "$(wc -l < "$tmp/sig/metrics.jsonl")" -eq $((k + 2)) ]; }
ok 'and the same command goes on from there' goes_on
in_use() { # one folder, one writer
    "${tune[@]}" -q -o "$tmp/two" --steps 1000000 &
    local pid=$! rc=1 i
    for i in $(seq 3000); do [ -s "$tmp/two/metrics.jsonl" ] && break; sleep 0.02; done
    is 73 'another ltrain is writing' tune -o "$tmp/two" --steps 1000000 && rc=0
    kill -9 $pid
    wait $pid 2> /dev/null
    return $rc
}
ok 'two runs do not share a folder' in_use

# Numbers that are not.
poison() { # BYTES: a base whose final norm begins with them
    rm -rf "$tmp/nan"
    cp -r "$tmp/base" "$tmp/nan" && rm -r "$tmp/nan/checkpoints"
    local f="$tmp/nan/model.safetensors" len off
    sed -i 's/longlora_header/elsewhere_given/; s/longlora_tensors/without_hashes__/' "$f" # as others write it
    len=$(od -An -tu8 -N8 "$f" | tr -d ' ')
    off=$(head -c $((8 + len)) "$f" | tail -c "$len" |
        sed -nE 's/.*"model.norm.weight":[^}]*"data_offsets":\[([0-9]+),.*/\1/p')
    printf "$1" | dd of="$f" bs=1 seek=$((8 + len + off)) conv=notrunc 2> /dev/null
}
not_finite() {
    poison '\xe6\xb1\x61\x7f' || return 1
    is 1 'not finite in 3 steps in a row' ltrain "$tmp/d.bin" --model "$tmp/nan" --batch 4 \
        -o "$tmp/nanout" || return 1
    [ "$(wc -l < "$tmp/nanout/metrics.jsonl")" -eq 3 ] &&
        grep -q '"loss":null' "$tmp/nanout/metrics.jsonl" &&
        [ ! -e "$tmp/nanout/adapter_model.safetensors" ]
}
ok 'values that overflow: three steps, nothing learnt, nothing published' not_finite
nan() {
    poison '\x00\x00\xc0\x7f' &&
        is 65 "tensor 'model.norm.weight': element 0 is not a number" ltrain "$tmp/d.bin" \
            --model "$tmp/nan" --batch 4 -o "$tmp/nanout2" && [ ! -s "$tmp/nanout2/metrics.jsonl" ]
}
ok 'a NaN in the base is found before the first step' nan

# Bad input, each with its status and a message that names it.
out=(-o "$tmp/none")
ok 'too little data' is 78 'too few for one row of 32768' tune "${out[@]}" --ctx 32k
ok 'no such data' is 66 "nothere" ltrain "$tmp/nothere" --model "$tmp/base" "${out[@]}"
ok 'no such model' is 66 "nothere" ltrain "$tmp/d.bin" --model "$tmp/nothere" "${out[@]}"
ok 'group beyond the context' is 78 'a group of 512 tokens' tune "${out[@]}" --group 512
ok 'context not divisible by the group is said' is 0 '128 tokens, is not divisible by the group, 50' \
    tune "${out[@]}" --group 50 --steps 1
ok 'ratio that is none' is 64 'group-ratio' tune "${out[@]}" --group-ratio 5/4
ok 'target that is none' is 64 "'x'" tune "${out[@]}" --targets q,x
ok 'a name that is no module' is 64 '1 of the names are no modules' tune "${out[@]}" --targets q,c_attn
ok 'a rank that is none' is 64 "'q=0' is not a rank" tune "${out[@]}" --rank-pattern q=0
ok 'nothing of that name to train' is 64 "'embeddings' is no module of a llama" tune "${out[@]}" --trainable embeddings
ok 'LoRA of nothing' is 64 'mode lora+' fresh "${out[@]}" --mode lora+
ok 'a cosine that would rise' is 64 'min-lr 0.1 is above --lr' tune "${out[@]}" \
    --schedule cosine --min-lr 0.1
ok 'a cosine of one step is said' is 0 'nothing will be trained' tune -o "$tmp/one" --schedule cosine \
    --warmup 0 --steps 1
ok 'a batch of more rows than there are is said' is 0 'has 156 rows, fewer than the 312 of a step (--batch): each step uses each row 2 times' \
    tune -o "$tmp/many" --batch 312 --steps 1
ok 'no data' is 64 'no data given' ltrain --model "$tmp/base" "${out[@]}"
ok 'device that is none' is 69 'warp' tune "${out[@]}2" --device warp
ok 'results over the base' is 64 "base model's own folder" tune -o "$tmp/base/."
over_data() {
    lprep -q -t tests/data/tiny.model LICENSE | lpack -q -o "$tmp/set" &&
        is 64 "data's own folder" ltrain "$tmp/set" --model "$tmp/base" -o "$tmp/set"
}
ok 'results over the data' over_data
no_held_out() {
    lprep -q -t tests/data/tiny.model LICENSE | lpack -q -o "$tmp/nov" --split 'validation=nothing' 2> "$tmp/err"
    grep -q 'larger share' "$tmp/err" && is 78 'split validation) has 0 tokens' \
        ltrain "$tmp/nov" --val "$tmp/nov" --model "$tmp/base" --ctx 64 -o "$tmp/nov-out"
}
ok 'held-out data of no documents, told when packed and when used' no_held_out
unfinished() {
    mkdir -p "$tmp/un/checkpoints"
    is 66 'not finished: run its command again' \
        lmerge --model "$tmp/base" --adapter "$tmp/un" -o "$tmp/merged"
}
ok 'an adapter that is not there yet' unfinished
foreign() { mkdir -p "$tmp/foreign" && echo x > "$tmp/foreign/config.json" &&
        is 73 "holds 'config.json'" tune -o "$tmp/foreign" --steps 1 &&
        [ "$(cat "$tmp/foreign/config.json")" = x ]; }
ok 'results over a model of others' foreign
others() { # -f or not
    mkdir -p "$tmp/others/checkpoints/step-00000007" && echo x > "$tmp/others/checkpoints/step-00000007/x" &&
        is 73 "holds 'checkpoints'" tune -o "$tmp/others" --steps 1 &&
        is 73 "holds 'checkpoints'" tune -f -o "$tmp/others" --steps 1 &&
        [ "$(cat "$tmp/others/checkpoints/step-00000007/x")" = x ]
}
ok 'checkpoints of others are not removed' others
other_tokenizer() {
    cp -r "$tmp/base" "$tmp/named" && cp tests/data/tiny.model "$tmp/named/tokenizer.model" &&
        lprep -q README.md ARCHITECTURE.md -t tests/fuzz/seeds/tokenizer/unigram.model | lpack -q > "$tmp/uni.shard" &&
        lprep -q README.md ARCHITECTURE.md -t tests/data/tiny.model | lpack -q > "$tmp/bpe.shard" || return 1
    one=(--model "$tmp/named" --batch 1 --steps 1)
    is 78 'made with another tokenizer' ltrain "$tmp/uni.shard" "${one[@]}" -o "$tmp/t1" &&
        [ ! -e "$tmp/t1/options.json" ] &&
        is 0 '' ltrain "$tmp/uni.shard" "${one[@]}" -o "$tmp/t2" --any-tokenizer &&
        is 0 '' ltrain "$tmp/bpe.shard" "${one[@]}" -o "$tmp/t3"
}
ok 'data of another tokenizer are refused' other_tokenizer
json_tokenizer() { # a model that has only a tokenizer.json: what it does is held to the data's
    local m="$tmp/json"
    local one=(--model "$m" --batch 1 --steps 1)
    cp -r "$tmp/base" "$m" || return 1
    printf '{"version":"1.0","model":{"type":"BPE","vocab":{"<unk>":0,"another":1},"merges":[]}}' > "$m/tokenizer.json"
    is 78 'made with another tokenizer' ltrain "$tmp/bpe.shard" "${one[@]}" -o "$tmp/j1" &&
        is 0 '' ltrain "$tmp/bpe.shard" "${one[@]}" -o "$tmp/j2" --any-tokenizer || return 1
    sed -n 's/.*"name":"tiny","tokenizer":\(.*\),"ids":.*/\1/p' tests/data/hft/golden.jsonl > "$m/tokenizer.json" &&
        cp tests/data/tiny.model "$tmp/gone.model" && lprep -q README.md ARCHITECTURE.md -t "$m" |
        lpack -q > "$tmp/made.shard" || return 1
    is 0 '' ltrain "$tmp/bpe.shard" "${one[@]}" -o "$tmp/j3" && # the same tokenizer in its other form
        is 0 '' ltrain --init "$c" --batch 1 --steps 1 --ctx 32 "$tmp/made.shard" -o "$tmp/j4" &&
        cmp "$m/tokenizer.json" "$tmp/j4/tokenizer.json" || return 1
    printf '{"version":"1.0","model":{"type":"Unigram"}}' > "$m/tokenizer.json"
    is 0 'cannot check whether' ltrain "$tmp/bpe.shard" "${one[@]}" -o "$tmp/j5"
}
ok 'a tokenizer.json alone is compared, or said not to be' json_tokenizer
as_ids() { # what is no ids is not trained on, unless it is said to be
    seq -s ' ' 1 4000 > "$tmp/text.txt" && [ $(($(stat -c %s "$tmp/text.txt") % 2)) -eq 0 ] || echo >> "$tmp/text.txt"
    local f raw=(ltrain --init "$tmp/wide.json" --batch 1 --steps 1 --ctx 64)
    sed -E 's/"vocab_size": *[0-9]+/"vocab_size": 40000/' "$c" > "$tmp/wide.json"
    printf '{"text":"%01000d"}\n' 1 2 > "$tmp/rows.bin"; zstd -qc "$tmp/text.txt" > "$tmp/a.zst"
    gzip -c "$tmp/text.txt" > "$tmp/a.gz"; tar -cf "$tmp/a.bin" -C "$tmp" text.txt
    for f in a.zst a.gz; do [ $(($(stat -c %s "$tmp/$f") % 2)) -eq 0 ] || printf x >> "$tmp/$f"; done
    for f in 'text.txt:text' 'rows.bin:JSON' 'a.zst:packed by zstd' 'a.gz:packed by gzip' 'a.bin:a tar archive'; do
        is 65 "is ${f#*:}, not raw 16-bit" "${raw[@]}" "$tmp/${f%%:*}" -o "$tmp/r1" || { echo "$f"; return 1; }
    done
    ids 1000 5 > "$tmp/good.bin"
    is 65 'is text, not raw' "${raw[@]}" "$tmp/good.bin" --val "$tmp/text.txt" -o "$tmp/r1" &&
        is 0 '' "${raw[@]}" "$tmp/text.txt" --form raw -o "$tmp/r2"
}
ok 'text, JSON, archives for ids: 65, by name' as_ids
own_tokenizer() { # beside a fresh model; what could not be copied at the end is refused at once
    local fresh=(ltrain "$tmp/bpe.shard" --init $c --batch 1 --steps 1)
    is 0 '' "${fresh[@]}" -o "$tmp/t4" && cmp tests/data/tiny.model "$tmp/t4/tokenizer.model" &&
        is 78 'is not the tokenizer that' "${fresh[@]}" -o "$tmp/t5" \
            --tokenizer tests/fuzz/seeds/tokenizer/unigram.model &&
        is 66 'none.model' "${fresh[@]}" -o "$tmp/t5" --tokenizer "$tmp/none.model" &&
        is 78 'made with different tokenizers' "${fresh[@]}" -o "$tmp/t5" --val "$tmp/uni.shard" &&
        [ ! -e "$tmp/t5" ]
}
ok 'a fresh model gets the tokenizer of its data' own_tokenizer
left_over() { # what a killed writer left beside the results goes; other files stay
    touch "$tmp/t3/adapter_model.safetensors.tmp123" "$tmp/t3/config.json.tmp9" "$tmp/t3/config.json.tmpx"
    is 0 'already complete' ltrain "$tmp/bpe.shard" "${one[@]}" -o "$tmp/t3" &&
        [ "$(cd "$tmp/t3" && echo *.tmp*)" = config.json.tmpx ]
}
ok 'what killed writers left is removed' left_over
ok 'metrics over notes' is 73 'not a metrics log' tune "${out[@]}3" --metrics "$c"
ids_beyond() { printf '\x00\x00\xff\xff%.0s' $(seq 200) > "$tmp/big.bin" &&
        is 65 '65535' ltrain "$tmp/big.bin" --model "$tmp/base" "${out[@]}4"; }
ok 'ids beyond the vocabulary' ids_beyond
ok 'metrics to a full device' is 74 '/dev/full' tune "${out[@]}5" --metrics /dev/full
full_disk() { # room for little: 74 or 73, and the checkpoints there are whole
    tune -o "$tmp/disk/o" --steps 50 --save-every 1 --keep 50 > "$tmp/out" 2> "$tmp/err"
    local rc=$?
    cat "$tmp/err"
    { [ $rc -eq 74 ] || [ $rc -eq 73 ]; } && grep -q 'No space left' "$tmp/err" || return 1
    [ ! -e "$tmp/disk/o/adapter_model.safetensors" ] && ! ls -d "$tmp"/disk/o/checkpoints/*.tmp &&
        rm -f "$tmp/disk/fill" && rm -r "$tmp/disk/o/checkpoints/step-00000001" &&
        tune -o "$tmp/disk/o" --steps 50 --save-every 1 --keep 1 &&
        tune -q -o "$tmp/disk2" --steps 50 &&
        cmp "$tmp/disk2/adapter_model.safetensors" "$tmp/disk/o/adapter_model.safetensors"
}
mkdir "$tmp/disk"
if mount -t tmpfs -o size=3m none "$tmp/disk" 2> /dev/null; then
    head -c 400000 /dev/zero > "$tmp/disk/fill"
    ok 'a full disk: the checkpoints stand, and with room it goes on' full_disk
else skip 'not here' 'no right to mount a tmpfs'; fi

# The plan, against what was taken.
sed 's/"hidden_size": 32/"hidden_size": 128/; s/"intermediate_size": 64/"intermediate_size": 352/
    s/"vocab_size": 512/"vocab_size": 4096/' $c > "$tmp/c128.json"
predicts() { # predicts ARGUMENT...: within a tenth
    ltrain "$tmp/d.bin" "$@" --plan --json > "$tmp/plan" || return 1
    rm -rf "$tmp/mem"
    ltrain -q "$tmp/d.bin" "$@" --steps 2 --json -o "$tmp/mem" > "$tmp/sum" || return 1
    local p m
    p=$(num "$tmp/plan" peak_bytes) m=$(num "$tmp/sum" peak_rss_bytes)
    echo "predicted $p, measured $m"
    awk -v p="$p" -v m="$m" 'BEGIN { exit !(m > 0 && p > 0.9 * m && p < 1.1 * m) }'
}
ok 'a plan without data' is 0 '' ltrain --model "$tmp/base" --ctx 32k --plan
sized() { # a model that is not here, and does not fit: its sizes and no memory are enough
    printf '{"model_type":"llama","hidden_size":8192,"intermediate_size":28672,
        "num_hidden_layers":4000,"num_attention_heads":64,"num_key_value_heads":8,
        "vocab_size":32000,"max_position_embeddings":4096}' > "$tmp/huge.json"
    is 0 'the plan needs .* is free' ltrain --init "$tmp/huge.json" --mode lora+ --ctx 32k --plan &&
        grep -q 'mode=lora+ .* factor=8' "$tmp/out" && grep -q '^free ' "$tmp/out"
}
ok 'a plan of sizes alone, and that they do not fit' sized
ok 'no file is written by a plan' test ! -e "$tmp/none9"
if [ -n "$SAN" ]; then
    for i in 1 2 3; do skip 'not here' 'memory under sanitizers is not the program'\''s'; done
else
    ok 'the plan of a full run is within a tenth of the peak' \
        predicts --init "$tmp/c128.json" --batch 32 --ctx 256
    ok 'and with every layer recomputed' \
        predicts --init "$tmp/c128.json" --batch 32 --ctx 256 --keep-layers 0
    mv "$tmp/mem" "$tmp/base128"
    ok 'and of LoRA+' predicts --model "$tmp/base128" --batch 8 --ctx 1k --rope-factor 4
fi
echo "1..$n"
