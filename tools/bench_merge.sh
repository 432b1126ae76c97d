#!/bin/bash
# lmerge on a model of 2 GiB in bfloat16 (LAYERS=18), to a folder and to GGUF, beside dd writing and
# syncing as many bytes; RUNS=3 times.
# usage: bench_merge.sh MAKE_MODEL   'make bench' runs it; TMPDIR needs three times the model.
set -eu
make_model=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat > "$tmp/config.json" <<END
{ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
  "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5504,
  "num_hidden_layers": ${LAYERS:-18}, "num_attention_heads": 16, "num_key_value_heads": 16,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "initializer_range": 0.02, "torch_dtype": "bfloat16", "tie_word_embeddings": false,
  "bos_token_id": 1, "eos_token_id": 2 }
END
"$make_model" "$tmp/config.json" "$tmp/base"
head -c 20000 /dev/zero | tr '\0' '\1' > "$tmp/ids.bin"
ltrain -q "$tmp/ids.bin" --model "$tmp/base" --ctx 64 --batch 1 --steps 1 --warmup 0 -o "$tmp/adapter"
rm -rf "$tmp/adapter/checkpoints"
bytes=$(cat "$tmp"/base/*.safetensors | wc -c)

# timed COMMAND...: "real user sys" of it, in seconds, to $tmp/times
timed() { sync; { time -p "$@" 2> "$tmp/err"; } 2>&1 | awk '{ printf "%s ", $2 }' > "$tmp/times"; }
# beside NAME OUT: lmerge to OUT, then dd of as many bytes.
beside() {
    local lmerge bytes
    timed lmerge -q -m "$tmp/base" -a "$tmp/adapter" "${@:2}"
    lmerge=$(cat "$tmp/times")
    bytes=$(cat "$tmp"/merged* 2> /dev/null | wc -c)
    [ ! -d "$tmp/merged" ] || bytes=$(cat "$tmp"/merged/*.safetensors | wc -c)
    rm -r "$tmp"/merged*
    timed dd if=/dev/zero of="$tmp/zeros" bs=1M count=$((bytes >> 20)) conv=fsync status=none
    rm "$tmp/zeros"
    echo "$bytes $lmerge $(cat "$tmp/times")" | awk -v name="$1" '{
        printf "%-34s %7.0f MB/s, %.1f s of a processor (%.2f a GiB); %.2f times dd, which took %.1f s\n",
            name, $1 / $2 / 1e6, $3 + $4, ($3 + $4) * 2 ^ 30 / $1, $2 / $5, $5 }'
}
for _ in $(seq "${RUNS:-3}"); do
    beside lmerge -o "$tmp/merged"
    for type in bf16 q8_0 q4_0; do
        beside "lmerge, GGUF $type" -o "$tmp/merged.gguf" --gguf $type
    done
done
