#!/bin/bash
# A tiny model of each family through the tools: described, trained in each mode, merged, scored, and under
# its own names in what is written.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
awk 'BEGIN { x = 5; for (i = 0; i < 800; i++) { x = (x * 7 + i) % 29; printf "\\x%02x\\x00%s", x + 3, i % 200 == 199 ? "\n" : "" } }' |
    while read -r line; do printf '%b' "$line"; done > "$tmp/d.bin"
loss() { # loss OPTION...: to 6 digits
    leval -q --ppl "$tmp/d.bin" --form raw --ctx 32 --max-windows 3 --json -j 1 "$@" |
        sed -n 's/^      "loss": \([0-9.]\{7\}\).*/\1/p'
}
train() { # train BASE MODE OUT OPTION...
    local base=$1 mode=$2 out=$3
    shift 3
    ltrain -q "$tmp/d.bin" --model "tests/data/arch/$base" --ctx 32 --batch 2 --mode "$mode" --steps 2 --rank 2 \
        --lr 1e-2 -j 1 -o "$out" "$@" 2> "$tmp/said" || { cat "$tmp/said"; return 1; }
}
names() { # of the tensors, out of the header
    head -c 20000 "$1/model.safetensors" | grep -aoE '"[a-z][a-z_0-9.]*\.(weight|bias)"' | sort
}
family() { # family NAME
    local base=tests/data/arch/$1 a=$tmp/$1 want
    linfo "$base" > "$tmp/info" && grep -q layers "$tmp/info" || return 1
    train "$1" full "$a.full" || return 1
    train "$1" lora+ "$a.plus" --attention s2 --group 8 || return 1
    lmerge -q --model "$base" --adapter "$a.plus" --dtype float32 -o "$a.merged" || return 1
    want=$(loss --model "$base" --adapter "$a.plus")
    [ "$want" ] && [ "$(loss --model "$a.merged")" = "$want" ] || { echo "merged: not $want"; return 1; }
    [ "$(loss --model "$a.full")" ] || return 1
    grep -o '"model_type": "[a-z0-9_]*"' "$base/config.json" > "$tmp/type"
    grep -qF "$(cat "$tmp/type")" "$a.full/config.json" && grep -qF "$(cat "$tmp/type")" "$a.merged/config.json" &&
        [ "$(names "$a.full")" = "$(names "$base")" ] || { echo "other tensors than the base's"; return 1; }
}
for f in llama_bias mistral qwen2_window qwen3_bias smollm3 phi3 olmo2 granite_bias neox gemma gemma2 gemma3_capped gemma3_vision \
    mistral3 llava smolvlm; do
    ok "$f from base to merged" family "$f"
done
# transformers 5 calls the head of gpt_neox lm_head, and reads both names.
head_of_5() {
    cp -r tests/data/arch/neox "$tmp/neox5" && sed -i 's/"embed_out.weight":/"lm_head.weight"  :/' "$tmp/neox5/model.safetensors" &&
        grep -q lm_head "$tmp/neox5/model.safetensors" && [ "$(loss --model "$tmp/neox5")" ] &&
        [ "$(loss --model "$tmp/neox5")" = "$(loss --model tests/data/arch/neox)" ] &&
        train neox lora+ "$tmp/head5" && lmerge -q --model "$tmp/neox5" --adapter "$tmp/head5" -o "$tmp/merged5" &&
        [ "$(names "$tmp/merged5")" = "$(names tests/data/arch/neox)" ]
}
ok "gpt_neox: the head by transformers 5's name" head_of_5
# What is no text is said and copied, whatever type is asked for; a GGUF file is the language model.
beside() {
    local base=tests/data/arch/mistral3 eyes=$tmp/eyes
    lmerge --model $base --adapter "$tmp/mistral3.plus" --dtype float32 -o "$eyes" > "$tmp/said" 2>&1 &&
        grep -q 'copied as they are: 4 tensors of multi_modal_projector, 11 of vision_tower' "$tmp/said" || return 1
    for f in $base "$eyes"; do
        linfo --verify --verbose --json "$f" | tr -d ' \n' | grep -o '{"name":"model.\(vision_tower\|multi_modal\)[^}]*}' | sort > "$tmp/list.${f##*/}"
    done
    [ "$(wc -l < "$tmp/list.eyes")" -eq 15 ] && cmp "$tmp/list.eyes" "$tmp/list.mistral3" &&
        linfo "$eyes" | grep -q 'BF16 15' && grep -q '"vision_config"' "$eyes/config.json" || return 1
    ltrain "$tmp/d.bin" --model $base --ctx 32 --batch 2 --mode lora --steps 1 -o "$tmp/eyes.a" > "$tmp/said" 2>&1 &&
        grep -q 'the language model of mistral3 is used, and passed over are 4 tensors' "$tmp/said" &&
        grep -q '"language_model.layers.0.self_attn.q_proj"' "$tmp/eyes.a/adapter_config.json" || return 1
    lmerge --model $base -o "$tmp/eyes.gguf" > "$tmp/said" 2>&1 && grep -q 'left out, as llama.cpp has them' "$tmp/said" &&
        [ "$(loss --model "$tmp/eyes.gguf")" = "$(loss --model $base)" ] && ! linfo "$tmp/eyes.gguf" | grep -q beside || return 1
    lmerge --check llama.cpp $base > "$tmp/said" 2>&1
    lmerge --check peft "$tmp/eyes.a" >> "$tmp/said" 2>&1
    grep -q 'a file of its own' "$tmp/said" && grep -q 'a whole mistral3 model' "$tmp/said"
}
ok 'what a multimodal model has beside its language model' beside
# A GGUF in bfloat16, which the CPU multiplies by as it lies, has q and k in llama.cpp's order of rows.
in_order() {
    local f
    for f in mistral_full llama32; do
        lmerge -q --model tests/data/arch/$f --gguf bf16 -o "$tmp/$f.gguf" 2> /dev/null &&
            [ "$(loss --model "$tmp/$f.gguf")" ] && [ "$(loss --model "$tmp/$f.gguf")" = "$(loss --model tests/data/arch/$f)" ] || return 1
    done
}
ok 'a GGUF in bfloat16 computes what its folder does' in_order
# A model that AutoModel saved has names without "model.", and keeps them.
bare() {
    local base=tests/data/arch/qwen2_window b=$tmp/bare
    cp -r $base "$b" && sed -i 's/"model\.\([a-z][^"]*\)":/"\1":      /g' "$b/model.safetensors" &&
        [ "$(loss --model "$b")" ] && [ "$(loss --model "$b")" = "$(loss --model $base)" ] &&
        train qwen2_window lora "$b.a" && lmerge -q --model "$b" --adapter "$b.a" --dtype float32 -o "$b.merged" &&
        [ "$(loss --model "$b.merged")" = "$(loss --model $base --adapter "$b.a")" ] &&
        [ "$(names "$b.merged")" = "$(names "$b")" ] && names "$b" | grep -q '^"layers.0' || return 1
    cp -r tests/data/arch/qwen2 "$b.untied" && sed -i 's/"model\.\([a-z][^"]*\)":/"\1":      /g; s/"lm_head.weight"/"xx_head.weight"/' "$b.untied/model.safetensors"
    ends 65 'has no head' linfo "$b.untied"
}
ok 'a model saved without the part that has the head' bare
# Of gpt_neox up has no gate beside it: its pair's A has room of its own.
up_alone() { train neox lora "$tmp/up" --targets up && lmerge -q --model tests/data/arch/neox --adapter "$tmp/up" \
    --dtype float32 -o "$tmp/up.merged" && [ "$(loss --model "$tmp/up.merged")" = \
    "$(loss --model tests/data/arch/neox --adapter "$tmp/up")" ]; }
ok 'a pair of up alone, without a gate' up_alone
one_matrix() {
    ends 78 'one matrix for q, k and v' ltrain -q "$tmp/d.bin" --model tests/data/arch/phi3 --ctx 32 --mode lora \
        --targets q,v --steps 1 -o "$tmp/no"
}
ok 'Phi-3 has one pair for q, k and v' one_matrix
told() {
    lmerge --model tests/data/arch/olmo2 --adapter "$tmp/olmo2.plus" -o "$tmp/told" > "$tmp/said" 2>&1
    grep -q 'transformers 4 refuse a model of the family olmo2' "$tmp/said"
}
ok 'a kind of RoPE that transformers 4 refuse of the family is told' told
# A window narrower than the groups, and one as wide as the context: both change S2's loss as they should.
windows() {
    sed 's/"sliding_window": 5/"sliding_window": null/' tests/data/arch/mistral/config.json > "$tmp/open.json"
    mkdir -p "$tmp/open" && cp tests/data/arch/mistral/model.safetensors "$tmp/open" && cp "$tmp/open.json" "$tmp/open/config.json"
    local a b
    a=$(loss --model tests/data/arch/mistral) b=$(loss --model "$tmp/open")
    [ "$a" ] && [ "$b" ] && [ "$a" != "$b" ]
}
ok 'a sliding window is honoured, and null is none' windows
# Where ranks share a sequence, or weights: the losses of one, with dropout too.
last_loss() { tail -n 1 "$1/metrics.jsonl" | sed -n 's/.*"loss":\([0-9.]*\).*/\1/p'; }
shared() { # shared NAME
    local base=$1 k want got
    set -- --attention s2 --group 8 --dropout 0.1 --micro 1
    train "$base" lora+ "$tmp/one" -f "$@" || return 1
    want=$(last_loss "$tmp/one")
    for k in --cp --shard-weights; do
        train "$base" lora+ "$tmp/two" -f "$@" --processes 2 $k 2 || return 1
        got=$(last_loss "$tmp/two")
        awk "BEGIN { d = ($want - $got) / $want; exit !($want > 0 && d * d < 1e-12) }" || { echo "$k: $got, not $want"; return 1; }
    done
}
for f in qwen2_window smollm3 phi3 olmo2 granite neox gemma2 gemma3; do ok "$f: two ranks share a sequence, or weights" shared "$f"; done
echo "1..$n"
