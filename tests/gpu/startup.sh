#!/bin/sh
# From the command to the end of the first step, for a model of 7 billion random weights whose
# files are in the page cache: makes the folder (13.5 GB below FOLDER), runs ltrain twice, and
# prints where the time went. usage: startup.sh [CTX]   default 8k
# FOLDER: where there is room, by default memory (/dev/shm) if it has enough, else a temporary one.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
room() { df -Pk "$1" 2> /dev/null | awk 'NR == 2 { print int($4 / 1048576) }'; }
if [ -z "$FOLDER" ]; then
    FOLDER=$out
    [ "$(room /dev/shm)" -ge 20 ] 2> /dev/null && FOLDER=/dev/shm
fi
[ "$(room "$FOLDER")" -ge 20 ] || { echo "skipped: '$FOLDER' has no 20 GiB (FOLDER=)"; exit 0; }
work=$(mktemp -d "$FOLDER/longlora.XXXXXX") || exit 70
trap 'rm -rf "$work" "$out"' EXIT

cat > "$work/config.json" << 'JSON'
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000,
  "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu", "torch_dtype": "bfloat16",
  "initializer_range": 0.02, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2 }
JSON
head -c 4000000 /dev/urandom | od -An -v -tu1 |
    awk '{ for (i = 1; i < NF; i += 2) printf "%c%c", 1 + $i % 127, 1 + $(i + 1) % 100 }' \
        > "$work/tokens.bin"
begun=$(spent)
timeout -k 5 240 "$BIN/make_model" "$work/config.json" "$work/model" 3 || exit 1
echo "13.5 GB of weights written in $(($(spent) - begun)) s to $work"
timeout 60 cat "$work"/model/*.safetensors > /dev/null # into the page cache
for run in 1 2; do
    a=$(date +%s.%N)
    timeout -k 5 120 ltrain "$work/tokens.bin" --model "$work/model" --ctx "${1:-8k}" --batch 1 --recipe longlora-2023 \
        --steps 2 --save-every 1000 --log-every 1 --device cuda -o "$work/out$run" > "$out/log" 2>&1
    rc=$?
    echo "run $run: exit $rc, $(echo "$a $(date +%s.%N)" | awk '{ printf "%.1f", $2 - $1 }') s" \
        "for two steps and the adapter"
    grep -E 'first step done|step=' "$out/log" || { tail -n 20 "$out/log"; exit 1; }
done
took=$(sed -nE 's/.*first step done after ([0-9.]+) s.*/\1/p' "$out/log")
echo "RESULT startup: $took s from the command to the end of the first step (must: under 15)"
awk -v t="$took" 'BEGIN { exit !(t > 0 && t < 15) }'
