#!/bin/sh
# The main job, small: text found on this machine (or the FILES given), a small model that this
# project trained, its context extended four times by LoRA, LongLoRA and full fine-tuning, and a
# table of perplexities on held-out text. Everything printed is computed here and now.
# usage: tools/demo.sh [FILE|FOLDER ...]     (called by ./setup demo; results in demo-out/)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PATH=$root/build/bin:$PATH
base=$root/demo/base out=${DEMO_OUT:-demo-out}
ctx=256 long=1024 batch=8
start=$(date +%s)

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }
run() { printf '  $ %s\n' "$*" >&2; "$@"; }

if [ -e "$out" ] && [ ! -e "$out/made-by-the-demo" ]; then
    echo "demo: '$out' is there and was not made by the demo: move it away, or set DEMO_OUT" >&2
    exit 73
fi
rm -rf "$out"
mkdir -p "$out"
: > "$out/made-by-the-demo"
say "1. Text: what this machine has to read"
"$root/tools/collect_text.sh" "$out/text" "${DEMO_BYTES:-8000000}" "$@"

say "2. Tokens: lprep | lpack, a tenth of the documents held out"
printf '  $ lprep %s/text --utf8 replace -t %s/tokenizer.model | lpack -o %s/shards --split validation=0.1\n' \
    "$out" "$base" "$out"
lprep -q "$out/text" --utf8 replace -t "$base/tokenizer.model" |
    lpack -q -o "$out/shards" --split validation=0.1
linfo "$out/shards"

say "3. The base: the shipped model of $ctx tokens, made used to this text at its own context"
run ltrain "$out/shards" --model "$base" -o "$out/base" --mode full --attention dense \
    --ctx $ctx --batch 32 --steps 120 --lr 1e-3 --schedule cosine --warmup 6 --save-every 1000 --log-every 20

# extend NAME MODE ATTENTION LR STEPS
extend() {
    run ltrain "$out/shards" --model "$out/base" -o "$out/$1" --recipe longlora-2023 --mode "$2" --attention "$3" \
        --ctx $long --batch $batch --steps "$5" --lr "$4" --schedule cosine --warmup 4 --save-every 1000 --log-every 20
}
say "4. From $ctx to $long tokens, three ways"
extend lora lora s2 5e-3 80
extend longlora lora+ s2 5e-3 80
extend full full dense 1e-3 80

say "5. Perplexity of held-out text at 1, 2 and 4 times the original context"
# score LABEL FILE [leval options]
score() {
    label=$1 file=$2
    shift 2
    leval -q --ppl "$out/shards" --split validation --protocol nonoverlap --ctx 256,512,1024 \
        --label "$label" --max-tokens 60000 --json "$@" > "$out/$file.json"
}
score "base, $ctx tokens" base --model "$out/base"
score "plain LoRA" lora --model "$out/base" --adapter "$out/lora"
score "LongLoRA" longlora --model "$out/base" --adapter "$out/longlora"
score "full fine-tuning" full --model "$out/full"
leval --table "$out/base.json" "$out/lora.json" "$out/longlora.json" "$out/full.json" \
    --plot "$out/perplexity.png" --title "Extended from $ctx to $long tokens"

lmerge -q --model "$out/base" --adapter "$out/longlora" -o "$out/merged"
say "Done in $(($(date +%s) - start)) s. Plot: $out/perplexity.png; merged model: $out/merged"
cat <<END
The same with a model of your own:
  lprep mytexts/*.jsonl.zst -t Llama-2-7b-hf/tokenizer.model | lpack -o shards/
  ltrain shards/ --model Llama-2-7b-hf --ctx 32k -o adapter/
  leval --ppl held-out.txt --model Llama-2-7b-hf --adapter adapter/ --ctx 4k,32k
  lmerge --model Llama-2-7b-hf --adapter adapter/ -o Llama-2-7b-32k/
('ltrain --plan' says first what memory it needs; 'man 7 longlora' is the tutorial.)
END
