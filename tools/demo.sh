#!/bin/sh
# The main job, small: text found on this machine (or the FILES given), a small model that this
# project trained, its context extended four times by LongLoRA, and a table of perplexities on held-out
# text. Training on a text also teaches the text: so the same steps are made at the base's own context
# too, and what is left beside them is what the longer context gives.
# Everything printed is computed here and now.
# usage: tools/demo.sh [FILE|FOLDER ...]     (called by ./setup demo; results in demo-out/)
#   environment: DEMO_FULL=1: full fine-tuning with dense attention beside it, a minute more
set -eu
root=$(CDPATH= cd "$(dirname "$0")/.." && pwd)
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

# train NAME OPTIONS...: as many steps and tokens for each
train() {
    name=$1
    shift
    run ltrain "$out/shards" --model "$out/base" -o "$out/$name" --steps 60 "$@" --schedule cosine --warmup 4 \
        --save-every 1000 --log-every 20
}
pairs="--mode lora+ --rank 32 --alpha 64 --targets q,k,v,o,gate,up,down --lr 5e-3"
say "4. From $ctx to $long tokens: LongLoRA, by the default recipe, in groups of the base's $ctx tokens"
train longlora --ctx $long --batch $batch --group-ratio 1/4 $pairs
say "   The same at $ctx tokens: what the text alone teaches"
train text --ctx $ctx --batch $((batch * long / ctx)) --attention dense $pairs
if [ -n "${DEMO_FULL:-}" ]; then
    say "   Full fine-tuning with dense attention at $long tokens"
    train full --ctx $long --batch $batch --mode full --attention dense --lr 1e-3
fi

say "5. Perplexity of held-out text at 1, 2 and 4 times the original context"
# score LABEL FILE [leval options]
score() {
    label=$1 file=$2
    shift 2
    leval -q --ppl "$out/shards" --split validation --protocol nonoverlap --ctx 256,512,1024 \
        --label "$label" --max-tokens 60000 --json "$@" > "$out/$file.json"
}
score "base, $ctx tokens" base --model "$out/base"
score "base, RoPE by parts" parts --model "$out/base" --rope parts --rope-factor $((long / ctx))
score "base, as many steps more at $ctx" text --model "$out/base" --adapter "$out/text"
score "LongLoRA to $long" longlora --model "$out/base" --adapter "$out/longlora"
[ -z "${DEMO_FULL:-}" ] || score "full fine-tuning to $long" full --model "$out/full"
leval --table "$out/base.json" "$out/parts.json" "$out/text.json" "$out/longlora.json" \
    ${DEMO_FULL:+"$out/full.json"} --plot "$out/perplexity.png" --title "Extended from $ctx to $long tokens"
# What the same steps at the base's own context change, and what the longer context does beside it.
gained() { # CTX
    for f in base text longlora; do
        awk -F'[:,]' -v ctx="$1" '/"ctx":/ { on = $2 + 0 == ctx } on && /"ppl":/ { print $2; exit }' "$out/$f.json"
    done | awk -v ctx="$1" '{ p[NR] = $1 } END { printf "  at %4d tokens: base %.1f; the text alone %.1f (%+.0f%%); and the longer context %.1f (%+.0f%%)\n",
        ctx, p[1], p[2], 100 * p[2] / p[1] - 100, p[3], 100 * p[3] / p[2] - 100 }'
}
printf '\nWhat of it is text, learnt by the same steps at %d tokens, and what is context:\n' $ctx
for n in 256 512 1024; do gained $n; done
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
