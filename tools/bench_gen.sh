#!/bin/bash
# lgen's decode on the CPU, at bfloat16 and float32, against what the memory gives and, where PyPI's xllamacpp and gguf are
# there (PYTHON=), beside llama.cpp with the same weights and threads: three turns each, the best counts.
# usage: bench_gen.sh MAKE_MODEL TOKENIZER   'make bench-gen' runs it; LAYERS=4 is a smaller model, J=1 other threads.
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
most() { awk -v a="$1" -v b="$2" 'BEGIN { print (a + 0 > b + 0 ? a : b) }'; }
ours=0 peer=0 bound=0
for i in 1 2 3; do
    t=$(lgen -m "$tmp/m" -j "$J" -n 24 --ignore-eos 'hello there' 2>&1 >/dev/null |
        sed -nE 's/.*written, ([0-9.e+]+) tokens.*/\1/p')
    ours=$(most "$t" "$ours")
    if t=$("${PYTHON:-python3}" "$(dirname "$0")/peer_llama.py" "$tmp/m" "$J" 24 2> "$tmp/why"); then
        peer=$(most "$(sed -n 's/tok_s=//p' <<< "$t")" "$peer")
    fi
    t=$(lgen -q -m "$tmp/m" -c 256 -j "$J" --plan | sed -nE 's/.*: ([0-9.]+) GB.s are read/\1/p')
    bound=$(most "$t" "$bound")
done
awk -v o="$ours" -v p="$peer" -v g="$bound" -v b="$bytes" -v j="$J" 'BEGIN {
    printf "lgen, bf16, %d threads: %.2f tokens/s, %.2f GB/s of weights; memory gives %.2f GB/s: %.2f times the bound\n",
        j, o, o * b / 1e9, g, g / (o * b / 1e9)
    if (p > 0) printf "llama.cpp beside it: %.2f tokens/s; lgen has %.2f times as many\n", p, o / p
    else print "llama.cpp: skipped, xllamacpp or gguf is not there (PYTHON= names a Python that has them)" }'
echo "$plan" | sed -n '/^weights/p'
