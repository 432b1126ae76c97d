#!/bin/sh
# The paper's comparison, small: a Llama of 34 million parameters trained from scratch on PG-19
# books at a context of 1024, then extended to 4096 and 8192 by full fine-tuning, plain LoRA and
# LoRA+ (with S2-Attn and with dense attention), and scored on the test books. What it makes is
# in docs/extension.md. Every stage that is done is passed over, so it can be run again, and the
# data can be made on one machine and the rest on another.
# usage: tools/extend_pg19.sh OUT TRAIN TEST     folders or archives of books; needs a GPU to be quick
#   environment: DEVICE=auto, LTRAIN, LEVAL, LPREP, LPACK: other programs than those on PATH
set -eu
[ $# -eq 3 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 64; }
out=$1 train=$2 test=$3
root=$(cd "$(dirname "$0")/.." && pwd)
PATH=$root/build/bin:$PATH
: "${LTRAIN:=ltrain}" "${LEVAL:=leval}" "${LPREP:=lprep}" "${LPACK:=lpack}" "${DEVICE:=auto}"
mkdir -p "$out"

# --- data: a tokenizer of 8192 pieces, shards, one shard of test books
if [ ! -e "$out/tokenizer.model" ]; then
    LPREP=$LPREP "$root/tools/sample_text.sh" 12000000 "$train" --utf8 replace > "$out/sample.txt"
    spm_train --input="$out/sample.txt" --model_prefix="$out/tokenizer" --vocab_size=8192 \
        --model_type=bpe --byte_fallback=true --character_coverage=0.9995 --max_sentence_length=100000 \
        --normalization_rule_name=identity --remove_extra_whitespaces=false \
        --allow_whitespace_only_pieces=true --split_digits=true > "$out/spm.log" 2>&1
    if grep -iE 'too long|skipped|invalid' "$out/spm.log"; then
        echo "extend_pg19: the tokenizer did not see all of its text: $out/spm.log" >&2
        exit 65
    fi
fi
[ -e "$out/shards/manifest.json" ] ||
    $LPREP -q "$train" --utf8 replace -t "$out/tokenizer.model" | $LPACK -o "$out/shards"
[ -s "$out/test.shard" ] ||
    $LPREP -q "$test" --utf8 replace -t "$out/tokenizer.model" | $LPACK > "$out/test.shard"

# --- the base, from scratch
cat > "$out/config.json" <<'END'
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8192,
  "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
  "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
  "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
  "initializer_range": 0.02, "torch_dtype": "float32" }
END
$LTRAIN "$out/shards" --init "$out/config.json" -o "$out/base" --ctx 1024 --batch 64 --micro 32 \
    --steps "${BASE_STEPS:-1200}" --attention dense --lr 1.5e-3 --warmup 60 --schedule cosine --min-lr 1e-4 \
    --decay 0.1 --save-every 100000 --log-every 200 --tokenizer "$out/tokenizer.model" \
    --device "$DEVICE"

# --- four ways to two lengths; 65536 tokens a step
# extend CTX NAME MODE ATTENTION LR
extend() {
    $LTRAIN "$out/shards" --model "$out/base" -o "$out/$2-$1" --ctx "$1" --mode "$3" --attention "$4" \
        --batch $((65536 / $1)) --micro $((32768 / $1)) --steps "${EXT_STEPS:-150}" --lr "$5" --warmup 10 \
        --save-every 100000 --log-every 150 --device "$DEVICE"
}
for ctx in 4096 8192; do
    extend $ctx full full dense 3e-4
    extend $ctx lora-s2 lora s2 1e-3
    extend $ctx loraplus-s2 lora+ s2 1e-3
    extend $ctx loraplus-dense lora+ dense 1e-3
done

# --- scores of the test books, by two protocols
score() { # NAME PROTOCOL OPTIONS...
    name=$1 protocol=$2
    shift 2
    [ -s "$out/$name.$protocol.json" ] || $LEVAL -q --ppl "$out/test.shard" --protocol "$protocol" \
        --ctx 1024,2048,4096,8192 --max-windows "${WINDOWS:-600}" --label "$name" --device "$DEVICE" \
        --json "$@" > "$out/$name.$protocol.json"
}
for protocol in longlora nonoverlap; do
    score base $protocol --model "$out/base"
    for ctx in 4096 8192; do
        score full-$ctx $protocol --model "$out/full-$ctx"
        for way in lora-s2 loraplus-s2 loraplus-dense; do
            score $way-$ctx $protocol --model "$out/base" --adapter "$out/$way-$ctx"
        done
    done
    echo "protocol: $protocol"
    for ctx in 4096 8192; do
        $LEVAL --table "$out/base.$protocol.json" "$out/full-$ctx.$protocol.json" "$out/lora-s2-$ctx.$protocol.json" \
            "$out/loraplus-s2-$ctx.$protocol.json" "$out/loraplus-dense-$ctx.$protocol.json" -q
    done
done
