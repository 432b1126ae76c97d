#!/bin/sh
# Makes demo/base: a tokenizer of 2048 pieces and a Llama of 1.3 million parameters with a
# context of 256, trained by this project's own tools on 242 books of the PG-19 training set
# (public domain) that are given as folders or archives; the tokenizer also saw 5 MB of manual
# pages and package documentation of a Debian 12 machine.
# The shipped one took 8 minutes on 16 cores: 18.5 million tokens, final loss 3.22 nats a token.
# (Its tokenizer was trained on JSON lines of 25 books, as this script then had it; today it takes
# plain lines of all of them.)
# usage: tools/make_base.sh OUT PG19 ...
set -eu
[ $# -ge 2 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 64; }
root=$(CDPATH= cd "$(dirname "$0")/.." && pwd)
PATH=$root/build/bin:$PATH
out=$1
shift
mkdir -p "$out/parts"

"$root/tools/sample_text.sh" 6000000 "$@" --utf8 replace > "$out/parts/books.txt"
MIN=6000 "$root/tools/collect_text.sh" "$out/parts/text" 8000000
{ cat "$out/parts/books.txt"; cat "$out"/parts/text/*.txt | head -c 5000000; } > "$out/parts/mixed.txt"
spm_train --input="$out/parts/mixed.txt" --model_prefix="$out/parts/tokenizer" --vocab_size=2048 \
    --model_type=bpe --byte_fallback=true --character_coverage=0.9995 \
    --normalization_rule_name=identity --remove_extra_whitespaces=false \
    --allow_whitespace_only_pieces=true --split_digits=true --max_sentence_length=100000

cat > "$out/parts/config.json" <<END
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2048,
  "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
  "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
  "initializer_range": 0.02, "torch_dtype": "float32" }
END
lprep "$@" -t "$out/parts/tokenizer.model" --utf8 replace | lpack -o "$out/parts/shards"
ltrain "$out/parts/shards" --init "$out/parts/config.json" -o "$out/run" --ctx 256 --batch 64 \
    --steps 1129 --attention dense --lr 3e-3 --warmup 50 --schedule cosine --min-lr 1e-4 \
    --decay 0.1 --save-every 200 --dtype bfloat16
mkdir -p "$out/base"
for f in config.json model.safetensors tokenizer.model; do cp "$out/run/$f" "$out/base/"; done
