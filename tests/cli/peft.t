#!/bin/bash
# What ltrain writes, as peft reads it; what peft writes, as lmerge merges it. Where there is no peft (PYTHON names one that has it), it is skipped.
cd "$(dirname "$0")/../.." || exit 70
python=${PYTHON:-python3}
timeout 120 "$python" -c 'import peft, torch, transformers' 2> /dev/null ||
    { echo '1..0 # SKIP no peft'; exit 0; }
. tests/cli/lib.sh
export HF_HUB_OFFLINE=1
data=tests/data/peft_features
awk 'BEGIN { for (i = 0; i < 60; i++) {
    s = ""
    for (k = 0; k < 40; k++) s = s (k ? "," : "") (3 + (i * i + k * 7) % 44)
    print "{\"tokens\":[" s "]}" } }' > "$tmp/d.ndjson"
lpack -q --import ndjson --vocab 48 "$tmp/d.ndjson" > "$tmp/d.shard"
checked() { "$python" tests/peft_check.py "$@" > "$tmp/said" 2>&1 || { tail -n 5 "$tmp/said"; return 1; }; }
trained() { # trained FOLDER DATA OPTION...: trained over it, merged, and the same to peft
    local base=$1 shards=$2
    shift 2
    rm -rf "$tmp/a" "$tmp/m"
    ltrain -q "$shards" --model "$base" --ctx 64 --batch 4 --lr 1e-2 --steps 3 --mode lora -o "$tmp/a" "$@" &&
        lmerge -q -m "$base" -a "$tmp/a" --dtype f32 -o "$tmp/m" && checked "$base" "$tmp/a" "$tmp/m"
}
reads() { # reads BASE OPTION...
    local base=$data/$1
    shift
    trained "$base" "$tmp/d.shard" "$@"
}
ok 'ranks and alphas by pattern, one layer, rsLoRA, dropout' reads base --targets q,v,layers.1.mlp.up_proj,down \
    --rank-pattern q=3,layers.0.self_attn.v_proj=2 --alpha-pattern v=5,layers.2.mlp.down_proj=3 --rslora \
    --dropout 0.1 --trainable norm,embed
ok 'a head, whole matrices' reads base --targets q --trainable head,o_proj
ok 'a tied head, kept' reads base_tied --targets q,o --trainable norm,head --tied keep
ok 'a tied head, split' reads base_tied --targets q,o --trainable norm,head --tied split

# Every family's names, and those of a language model within a multimodal one.
awk 'BEGIN { for (i = 0; i < 60; i++) {
    s = ""
    for (k = 0; k < 40; k++) s = s (k ? "," : "") (3 + (i * i + k * 7) % 28)
    print "{\"tokens\":[" s "]}" } }' > "$tmp/d32.ndjson"
lpack -q --import ndjson --vocab 32 "$tmp/d32.ndjson" > "$tmp/d32.shard"
family() { # family NAME OPTION...
    local base=tests/data/arch/$1
    shift
    trained "$base" "$tmp/d32.shard" "$@"
}
makes() { # makes FOLDER SETTINGS: peft's adapter, merged here, computes what it does in peft
    rm -rf "$tmp/a" "$tmp/m"
    "$python" tests/peft_check.py --make "$1" "$tmp/a" "$2" > "$tmp/said" 2>&1 || { tail -n 5 "$tmp/said"; return 1; }
    lmerge -q -m "$1" -a "$tmp/a" --dtype f32 -o "$tmp/m" && checked "$1" "$tmp/a" "$tmp/m"
}
for f in gemma3_vision mistral3 llava smolvlm; do
    ok "$f: pairs of all layers" family $f
    ok "$f: pairs of some layers and ranks" family $f --targets q,layers.1.mlp.up_proj,down --rank-pattern q=3
    ok "$f: a pair on every module of a name" makes tests/data/arch/$f '{"target_modules": ["q_proj", "v_proj", "fc1"]}'
    ok "$f: modules by an expression" makes tests/data/arch/$f \
        '{"target_modules": ".*\\.(language_model|text_model)\\.layers\\.[01]\\..*(o_proj|gate_proj)", "rank_pattern": {"layers.1.self_attn.o_proj": 2}}'
    ok "$f: whole modules" makes tests/data/arch/$f '{"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm", "post_attention_layernorm"]}'
done
for f in mistral3 llava smolvlm; do
    ok "$f: norms, embedding and head" family $f --trainable norm,embed,head
    ok "$f: a pair of the head" makes tests/data/arch/$f '{"target_modules": ["q_proj", "lm_head"]}'
done
# GPT-NeoX, whose head transformers 4 and 5 call differently; of a tied one too.
sed 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' tests/data/arch/neox/config.json > "$tmp/tied.json"
ltrain -q "$tmp/d32.shard" --init "$tmp/tied.json" --ctx 12 --batch 4 --lr 1e-2 --steps 5 -o "$tmp/tied" || exit 70
for base in tests/data/arch/neox "$tmp/tied"; do
    name=${base##*/}
    ok "neox, $name: its modules by name" trained "$base" "$tmp/d32.shard" \
        --targets query_key_value,dense,dense_h_to_4h --trainable norm,dense_4h_to_h
    ok "neox, $name: pairs of all kinds" makes "$base" \
        '{"target_modules": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], "modules_to_save": ["final_layer_norm", "input_layernorm"]}'
    ok "neox, $name: a pair of the head" makes "$base" '{"target_modules": ["dense", "embed_out", "lm_head"]}'
    ok "neox, $name: a pair of the embedding" makes "$base" '{"target_modules": ["dense", "embed_in"]}'
    ok "neox, $name: embedding and head whole" makes "$base" \
        '{"target_modules": ["dense"], "modules_to_save": ["embed_in", "embed_out", "lm_head"]}'
done
ok 'neox: embedding and head by name' trained tests/data/arch/neox "$tmp/d32.shard" --trainable embed_in,embed_out
ok "neox: the head by transformers 5's name" trained tests/data/arch/neox "$tmp/d32.shard" --trainable lm_head
ok 'neox: a tied head, kept' trained "$tmp/tied" "$tmp/d32.shard" --trainable head --tied keep
ok 'neox: a tied head, split' trained "$tmp/tied" "$tmp/d32.shard" --trainable embed,head --tied split
refused() { # refused NAME SETTINGS: it changes the vision tower
    rm -rf "$tmp/a" "$tmp/m"
    "$python" tests/peft_check.py --make tests/data/arch/$1 "$tmp/a" "$2" > "$tmp/said" 2>&1 || { tail -n 5 "$tmp/said"; return 1; }
    lmerge -q -m tests/data/arch/$1 -a "$tmp/a" -o "$tmp/m" 2> "$tmp/said"
    [ $? -eq 78 ] && grep -q 'changes what is not the language model' "$tmp/said" && [ ! -e "$tmp/m" ] || { cat "$tmp/said"; return 1; }
}
ok 'pairs of the vision tower that change it' refused gemma3_vision '{"target_modules": ["q_proj", "fc1"], "everywhere": true}'
ok 'whole modules of the vision tower' refused mistral3 '{"target_modules": ["q_proj"], "modules_to_save": ["o_proj"]}'
ok 'gemma3_vision: the tied head, kept' family gemma3_vision --trainable norm,head --tied keep
ok 'gemma3_vision: the tied head, split' family gemma3_vision --trainable norm,head --tied split
echo "1..$n"
