#!/bin/sh
# Ours and PyTorch beside it, on this machine, one after the other: a table of tokens/s and GiB.
# usage: bench_gpu.sh [ROW ...]   rows: train dense eval scratch fit24 fit40 llama-3-8b qwen3-8b, or one as
# train:65536
# fit24, fit40: training inside so many GiB, which must keep 80 and 95% of the speed without; ours.
# llama-3-8b, qwen3-8b: other shapes, which must reach 98% of the share of the card that train has; ours.
# 'must' and 'aim' are what the project set itself on one H200. LIMIT: seconds in all, 570; what
# there is no time for is left out with a word: choose fewer rows a call. PEER=0: ours alone.
# Of one GPU: many.sh measures several.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
trap 'rm -rf "$out"' EXIT
all='train:8192 train:32768 train:65536 train:102400 dense:65536
    eval:4096 eval:32768 eval:102400 scratch:1024 fit40:102400 fit24:102400
    llama-3-8b:8192 llama-3-8b:32768 qwen3-8b:8192 qwen3-8b:32768'
rows=
for r in ${*:-$all}; do
    found=
    for a in $all; do
        case $a in "$r" | "$r":*) found="$found $a" ;; esac
    done
    [ "$found" ] || { echo "bench_gpu: no row '$r'; there are: $(echo $all)" >&2; exit 64; }
    rows="$rows $found"
done
cat > "$out/134m.json" << 'JSON'
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000,
  "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
  "num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.02,
  "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2 }
JSON
ours() { # ours ROW: our figures as a line of JSON
    ctx=${1#*:}
    case $1 in
    train:*) set -- ltrain --bench --shape llama-2-7b --recipe longlora-2023 --micro 1 ;;
    dense:*) set -- ltrain --bench --shape llama-2-7b --mode lora+ --micro 1 --attention dense ;;
    fit*) fit=${1%%:*} # fit24:102400
        set -- ltrain --bench --shape llama-2-7b --recipe longlora-2023 --micro 1 --gpu-memory "${fit#fit}g" ;;
    *-8b:*) set -- ltrain --bench --shape "${1%%:*}" --recipe longlora-2023 --micro 1 ;;
    eval:*) set -- leval --bench --shape llama-2-7b --batch-tokens 4k ;; # one window, as PyTorch
    scratch:*) set -- ltrain --bench --init "$out/134m.json" --batch 32 --micro 32 ;;
    esac
    timeout -k 5 150 "$@" -q --json --device cuda --ctx "$ctx"
}
left() { echo $((${LIMIT:-570} - $(spent))); }
for r in $rows; do
    [ "$(left)" -lt 40 ] && { echo "no time left for ours at $r"; continue; }
    line=$(ours "$r" 2> "$out/err") || { echo "ours at $r failed:"; tail -n 3 "$out/err"; continue; }
    echo "$r $line" | tee -a "$out/ours"
done
: > "$out/peer"
if [ "${PEER:-1}" = 0 ]; then
    why='not asked (PEER=0)'
elif ! python3 -c 'import torch, transformers, peft; assert torch.cuda.is_available()' 2> "$out/err"; then
    why="no PyTorch here: $(tail -n 1 "$out/err")"
elif [ "$(left)" -lt 60 ]; then
    why='no time left for PyTorch'
else
    timeout -k 5 "$(left)" python3 -W ignore "$here/peer_torch.py" $(($(left) - 45)) \
        $(echo "$rows" | tr ' ' '\n' | grep -v '^fit\|-8b:') \
        > "$out/peer" 2> "$out/err" || why="PyTorch ended with status $?: $(tail -n 1 "$out/err")"
    cat "$out/peer"
fi
[ "$why" ] && echo "$why"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
awk -v rows="$rows" '
    function field(s, key) { # a number after "key": or nothing
        return match(s, "\"" key "\": ?[0-9.e+-]+") ? \
            substr(s, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : ""
    }
    function shown(x, form) { return x == "" ? "-" : sprintf(form, x) }
    FILENAME ~ /ours$/ { mine[$1] = $0 }
    FILENAME ~ /peer$/ { split($0, p, "\""); other[p[4]] = $0 }
    END {
        must["train:8192"] = 14000; aim["train:8192"] = 18000
        must["train:32768"] = 12500; aim["train:32768"] = 15000
        must["train:65536"] = 10500; aim["train:65536"] = 12500
        must["train:102400"] = 9000; aim["train:102400"] = 11000
        must["dense:65536"] = 4300; must["eval:4096"] = 34100
        must["eval:32768"] = 23600; must["eval:102400"] = 13400; must["scratch:1024"] = 551000
        form = "| %-16s | %8s | %10s | %9s | %9s | %10s | %6s | %8s | %8s |\n"
        printf form, "row", "tokens/s", "GiB, taken", "predicted", "PyTorch", "GiB, its", "ratio",
            "must", "aim"
        printf "|---|---|---|---|---|---|---|---|---|\n"
        n = split(rows, r, " ")
        for (i = 1; i <= n; i++) {
            k = r[i]
            if (k ~ /^fit/)
                must[k] = field(mine["train:102400"], "tok_s") * (k ~ /^fit24/ ? 0.8 : 0.95)
            a = field(mine[k], "tok_s")
            b = field(other[k], "tok_s")
            if (k ~ /-8b:/ && (f = field(mine["train:" substr(k, index(k, ":") + 1)], "model_flop_s")))
                must[k] = 0.98 * f * a / field(mine[k], "model_flop_s")
            g = field(mine[k], "memory_bytes"); q = field(mine[k], "predicted_bytes")
            printf form, k, shown(a, "%.0f"), shown(g == "" ? g : g / 2^30, "%.1f"),
                shown(q == "" ? q : q / 2^30, "%.1f"), shown(b, "%.0f"),
                shown(field(other[k], "gib"), "%.1f"), a != "" && b ? sprintf("%.2f", a / b) : "-",
                shown(must[k] ? must[k] : "", "%.0f"), shown(aim[k], "%.0f")
            if (a != "" && a < must[k] + 0)
                short = short " " k
        }
        if (short)
            print "below what must be reached:" short
    }' "$out/ours" "$out/peer" 2> /dev/null
[ -n "$OUT" ] && cat "$out/ours" "$out/peer" "$out/err" > "$OUT/bench_gpu.log" 2> /dev/null
grep -q . "$out/ours"
