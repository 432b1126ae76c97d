#!/bin/bash
# lgen on the CPU, bfloat16: its decode against what the memory gives and, where PyPI's xllamacpp and gguf are there
# (PYTHON=), beside llama.cpp with the same weights and threads; how fast it reads a prompt, beside leval. Turn by turn,
# TURNS of them, 3 unless said; of each the best and the median, as others may be at work.
# usage: bench_gen.sh MAKE_MODEL TOKENIZER   'make bench-gen' runs it; LAYERS=4 is a smaller model, J=1 other threads,
# LONGLORA_SIMD=avx2 leaves out wider loops (llama.cpp's stay).
set -eu
make_model=$1
tokenizer=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
J=${J:-$(nproc)}
cat > "$tmp/config.json" <<END
{ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
  "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5504,
  "num_hidden_layers": ${LAYERS:-12}, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
  "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "initializer_range": 0.02, "torch_dtype": "bfloat16", "tie_word_embeddings": false,
  "bos_token_id": 1, "eos_token_id": 2 }
END
"$make_model" "$tmp/config.json" "$tmp/m" 1
cp "$tokenizer" "$tmp/m/tokenizer.model"
bytes=$(cat "$tmp/m"/*.safetensors | wc -c)
bytes=$((bytes - 2 * 32000 * 2048)) # of the embedding a row is read
plan=$(lgen -q -m "$tmp/m" -c 256 -j "$J" --plan)
head -c 1150 "$(dirname "$tokenizer")/tiny.txt" > "$tmp/prompt"
one_turn() {
    lgen -m "$tmp/m" -j "$J" -n 24 --ignore-eos 'hello there' 2>&1 >/dev/null |
        sed -nE 's/.*written, ([0-9.e+]+) tokens.*/\1/p' >> "$tmp/ours"
    if "${PYTHON:-python3}" "$(dirname "$0")/peer_llama.py" "$tmp/m" "$J" 24 > "$tmp/out" 2> "$tmp/why"; then
        sed -n 's/tok_s=//p' "$tmp/out" >> "$tmp/peer"
    fi
    lgen -q -m "$tmp/m" -c 256 -j "$J" --plan | sed -nE 's/.*: ([0-9.]+) GB.s are read/\1/p' >> "$tmp/bound"
    lgen -m "$tmp/m" -j "$J" -n 1 < "$tmp/prompt" 2>&1 >/dev/null |
        sed -nE 's/.*: ([0-9]+) tokens read .* in ([0-9.e+-]+) s;.*/\1 \2/p' > "$tmp/out"
    awk '{ print $1 / $2 }' "$tmp/out" >> "$tmp/read"
    tokens=$(cut -d' ' -f1 "$tmp/out")
    leval -q --bench -m "$tmp/m" -j "$J" --ctx "$tokens" --batch-tokens "$tokens" --json |
        sed -E 's/.*"tok_s":([0-9.]+).*/\1/' >> "$tmp/scored"
}
for i in $(seq "${TURNS:-3}"); do one_turn; done
best() { sort -g "$tmp/$1" | tail -n 1; }
median() { sort -g "$tmp/$1" | awk '{ x[NR] = $1 } END { print (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'; }
echo "$J threads, ${LONGLORA_SIMD:-all} of the processor, ${TURNS:-3} turns; best and median of each"
for how in best median; do
    awk -v how=$how -v o="$($how ours)" -v g="$($how bound)" -v b="$bytes" 'BEGIN {
        printf "%-6s decode: %.2f tokens/s, %.2f GB/s of weights; memory gives %.2f GB/s: %.2f times the bound\n",
            how, o, o * b / 1e9, g, g / (o * b / 1e9) }'
    if [ -s "$tmp/peer" ]; then
        awk -v how=$how -v o="$($how ours)" -v p="$($how peer)" 'BEGIN {
            printf "%-6s llama.cpp: %.2f tokens/s; lgen has %.2f times as many\n", how, p, o / p }'
    else
        echo 'llama.cpp: skipped, xllamacpp or gguf is not there (PYTHON= names a Python that has them)'
    fi
    awk -v how=$how -v o="$($how read)" -v p="$($how scored)" -v n="$tokens" 'BEGIN {
        printf "%-6s prompt of %d: %.1f tokens/s; leval, which has logits of all of them, %.1f: %.2f times\n",
            how, n, o, p, o / p }'
done
echo "$plan" | sed -n '/^weights/p'
