#!/bin/sh
# What 'make bench' measures beside the ops: lprep against spm_encode, and ltrain's speed and how
# well it foretold its memory. TEXT: a file of text (else what this machine has), TOKENIZER: a
# SentencePiece model (else the tests').
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
tokenizer=${TOKENIZER:-tests/data/tiny.model}

now() { date +%s.%N; }
# rate NAME COMMAND...: megabytes of text a second, best of three
rate() {
    name=$1 best=0
    shift
    for _ in 1 2 3; do
        t0=$(now)
        "$@" > /dev/null
        best=$(echo "$best $t0 $(now)" |
            awk -v n="$bytes" '{ r = n / ($3 - $2) / 1e6; print(r > $1 ? r : $1) }')
    done
    printf '%-34s %7.2f MB/s\n' "$name" "$best"
}

if [ -n "${TEXT:-}" ]; then
    cat "$TEXT" > "$tmp/text.txt"
else
    tools/collect_text.sh "$tmp/found" 8000000 > /dev/null
    find "$tmp/found" -type f -exec cat {} + > "$tmp/text.txt"
    rm -rf "$tmp/found"
fi
bytes=$(wc -c < "$tmp/text.txt")
echo "tokenising $bytes bytes by $tokenizer"
if command -v spm_encode > /dev/null; then
    rate 'spm_encode, 1 thread' spm_encode --model="$tokenizer" --output_format=id "$tmp/text.txt"
fi
split -l 2000 --additional-suffix=.txt "$tmp/text.txt" "$tmp/part-"
mkdir "$tmp/parts"
mv "$tmp"/part-*.txt "$tmp/parts"
rate 'lprep, 1 thread' lprep -q -j 1 --utf8 replace -t "$tokenizer" "$tmp/parts"
rate "lprep, $(nproc) threads" lprep -q --utf8 replace -t "$tokenizer" "$tmp/parts"

echo
echo 'training, 4 layers, d=256, LongLoRA from 256 to 1024 tokens'
cat > "$tmp/config.json" <<'END'
{ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
  "vocab_size": 400, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
  "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 256,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02,
  "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2 }
END
head -c 1000000 "$tmp/text.txt" | lprep -q --utf8 replace -t tests/data/tiny.model |
    lpack -q -o "$tmp/shards"
ltrain -q "$tmp/shards" --init "$tmp/config.json" --ctx 256 --batch 8 --steps 1 -o "$tmp/base"
ltrain -q "$tmp/shards" --model "$tmp/base" --ctx 1k --batch 8 --steps 6 --recipe longlora-2023 -o "$tmp/adapter" \
    --json > "$tmp/summary.json"
field() { sed -n "s/.*\"$1\": *\([0-9.e+]*\).*/\1/p" "$2" | tail -n 1; }
awk -v peak="$(field peak_rss_bytes "$tmp/summary.json")" \
    -v plan="$(field predicted_bytes "$tmp/summary.json")" \
    -v tok="$(field tok_s "$tmp/adapter/metrics.jsonl")" \
    -v gemm="$(field gemm_fraction "$tmp/adapter/metrics.jsonl")" 'BEGIN {
    printf "%-34s %7.0f tokens/s, %.0f%% of it inside matrix products\n", "ltrain", tok, 100 * gemm
    printf "%-34s %7.0f MiB, foretold %.0f (%+.1f%%)\n", "its peak memory", peak / 2^20,
        plan / 2^20, 100 * (plan / peak - 1) }'
