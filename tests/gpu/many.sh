#!/bin/bash
# Everything that is to be known of so many GPUs of one host, as a table: first whether it is right, then how fast,
# each row beside one GPU, the plan's forecast and PyTorch.
# usage: GPUS=2 many.sh [ROW ...]     default: all rows of that many GPUs, in the order of 'rows' below
#        many.sh table                the tables of all results there are
# A call ends after LIMIT seconds (570). Each measurement is a line of RESULTS as soon as it is made (beside this
# script, many-GPUS.rows; a copy goes to OUT), and is not made again: call it until it says 'all rows'.
# A command that hangs ends after twice its forecast and SLACK seconds (60), and is an error.
# What would not end in time, by the plan's forecast, is left for the next call. AGAIN=1: what failed is tried again.
# HOST_MEMORY: what each rank may pin (60g); STEPS: measured (2); PEER=0: no PyTorch; PROFILE=1: a profile
# of rank 0 of each training row as well, in the folder PROFILES.
# DEVICE=cpu SHAPE=tiny tries the script itself: processes without GPUs and a made-up model.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
GPUS=${GPUS:-2} DEVICE=${DEVICE:-cuda} SHAPE=${SHAPE:-}
RESULTS=${RESULTS:-$here/many-$GPUS.rows} PROFILES=${PROFILES:-${OUT:-$here}}
if [ "$1" = table ]; then
    for f in "${RESULTS%/*}"/many-*.rows; do
        [ -f "$f" ] && awk -v gpus="$(echo "$f" | sed 's/.*many-\([0-9]*\).rows/\1/')" -f "$here/many.awk" "$f"
    done
    exit 0
fi
if [ "$DEVICE" = cuda ]; then
    . "$here/env.sh"
    if [ "$(nvidia-smi -L | grep -c '^GPU')" -lt "$GPUS" ]; then
        echo "skipped: there are no $GPUS GPUs here"
        exit 0
    fi
    processes=--gpus
else
    out=$(mktemp -d) || exit 70
    t0=$(date +%s)
    spent() { echo $(($(date +%s) - t0)); }
    processes=--processes
fi
trap 'rm -rf "$out"' EXIT
command -v ltrain > /dev/null && command -v leval > /dev/null || { echo 'many: no ltrain and leval on PATH' >&2; exit 69; }
LIMIT=${LIMIT:-570} SLACK=${SLACK:-60} STEPS=${STEPS:-2} HOST_MEMORY=${HOST_MEMORY:-60g}
left() { echo $((LIMIT - $(spent))); }

# ---- rows ----

longer=204800
[ "$GPUS" -ge 4 ] && longer=409600
# What is worth most first: that ranks are right and nobody outlives one that died, then what must be reached, by the
# seconds it takes; what would only be good to know behind the slow look for wrong addresses.
rows="truth:tests truth:tools killed:5 dp:8192 cp:102400 shard:8192 seventy:32768 dense:65536 eval:102400 dp:102400
    cp:$longer scratch:1024 longest:8192 dense:131072 shard:32768 truth:memcheck dp:32768 equal:102400 evalcp:102400
    eval:4096"
[ $# -gt 0 ] && rows=$*
cat > "$out/134m.json" << 'JSON'
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000,
  "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
  "num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.02,
  "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2 }
JSON
cat > "$out/tiny.json" << 'JSON'
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512,
  "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "hidden_act": "silu", "initializer_range": 0.02, "tie_word_embeddings": false, "bos_token_id": 1,
  "eos_token_id": 2 }
JSON
ln -s tiny.json "$out/config.json" # the same as a model's folder
of_shape() { # of_shape NAME: the options of it
    if [ "$SHAPE" = tiny ]; then echo "--init $out/tiny.json"; else echo "--shape $1"; fi
}
ctx_of() { # of a row; tiny: of so many tokens that all ways are possible
    if [ "$SHAPE" = tiny ]; then echo 128; else echo "${1#*:}"; fi
}
# what ROW: sets tool, common (what one and many have), many (what many have more), one ('no': it is not measured alone)
what() {
    local c
    c=$(ctx_of "$1")
    tool=ltrain one=yes many="$processes $GPUS"
    common="$(of_shape llama-2-7b) --recipe longlora-2023 --micro 1 --ctx $c"
    case $1 in
    dp:32768) one=no ;;
    dp:*) ;;
    cp:*) many="$many --cp $GPUS" ;;
    equal:*) many="$many --cp $GPUS" common="$common --keep-layers 0" ;;
    dense:*)
        common="$(of_shape llama-2-7b) --mode lora+ --attention dense --micro 1 --ctx $c"
        many="$many --cp $GPUS" ;;
    shard:*) many="$many --shard-weights $GPUS" one=no ;;
    seventy:*)
        common="$(of_shape llama-2-70b) --recipe longlora-2023 --micro 1 --ctx $c"
        many="$many --cp $GPUS --shard-weights $GPUS" one=no ;;
    longest:*)
        many="$many --cp $GPUS" one=no
        common="$(of_shape llama-2-7b) --recipe longlora-2023 --micro 1 --group $([ "$SHAPE" ] && echo 16 || echo "${1#*:}")"
        common="$common --ctx $(longest)" ;;
    eval:* | evalcp:*)
        tool=leval common="--bench $(of_shape llama-2-7b) --batch-tokens 4k --ctx $c"
        [ "$SHAPE" = tiny ] && common="--bench --model $out --batch-tokens 128 --ctx $c"
        if [ "${1%%:*}" = evalcp ]; then many="$many --cp $GPUS"; fi ;;
    scratch:*)
        common="--init $out/$([ "$SHAPE" ] && echo tiny || echo 134m).json --batch 32 --micro 32 --ctx $c" ;;
    *) return 1 ;;
    esac
}
# Of groups as small as the row's: what the plan has room for, but no more than was asked of 8.
longest() {
    local most
    if [ "$SHAPE" = tiny ]; then echo 256; return; fi
    most=$(ltrain -q --plan --longest --json --gpu h200 --shape llama-2-7b --recipe longlora-2023 --group 8192 \
        --gpus "$GPUS" --cp "$GPUS" --ctx 1m --batch 1 --host-memory "$HOST_MEMORY" 2> /dev/null |
        sed -n 's/.*"longest_ctx": \([0-9]*\).*/\1/p')
    [ "${most:-0}" -gt 3145728 ] && most=3145728
    echo $((${most:-1048576} / (8192 * GPUS) * 8192 * GPUS))
}

# ---- results ----

touch "$RESULTS" || exit 73
have() { # have ROW KIND: it has been measured, or failed for good
    grep "^$1 $2 " "$RESULTS" | { [ "$AGAIN" ] && grep -v '"error"' || cat; } | grep -q .
}
put() { # put ROW KIND JSON
    grep -v "^$1 $2 " "$RESULTS" > "$out/rows"
    echo "$1 $2 $3" >> "$out/rows"
    cat "$out/rows" > "$RESULTS" && sync "$RESULTS"
    [ -n "$OUT" ] && cp "$RESULTS" "$OUT"
    echo "[$(spent) s] $1 $2 $3"
}
text() { tr -d '"\\\n' | cut -c1-300; } # as a string of JSON holds it
cut= alone=1 # alone: nothing was measured in this call before
room() { # room SECONDS WHAT: there is time for it; else this call is over
    [ "$(left)" -ge "$1" ] && return
    echo "[$(spent) s] $2: left for the next call, it may take $1 s"
    cut=1
    return 1
}
# No command is waited for longer than this, nor than there is time (by_call): what hangs costs no other row its place.
limit() { # limit SECONDS
    limit=$1 by_call=
    if [ "$(left)" -le "$limit" ]; then limit=$(left) by_call=1; fi
}
# measure ROW KIND SECONDS COMMAND...: a line of RESULTS: the last line of JSON it prints, or why there is none
measure() {
    local row=$1 kind=$2 need=$3 rc line
    shift 3
    have "$row" "$kind" && return
    room "$need" "$row $kind" || return
    limit $((2 * need + SLACK))
    timeout -k 5 "$limit" "$@" > "$out/said" 2> "$out/err"
    rc=$?
    line=$(grep '^{' "$out/said" | tail -n 1)
    if [ $rc -eq 0 ] && [ "$line" ]; then
        put "$row" "$kind" "$line"
    elif [ $rc -eq 124 ] && [ "$by_call" ] && [ ! "$alone" ]; then
        echo "[$(spent) s] $row $kind: cut by the end of the call"
        cut=1
    else
        put "$row" "$kind" "{\"error\":\"status $rc$([ $rc -eq 124 ] && echo ", not done in $limit s"): $(tail -n 2 "$out/err" | text)\"}"
    fi
    alone=
}
# What the plan foretells of a row's KIND, with so many more options: step, tokens/s; and the seconds that the
# measurement will take.
foretell() { # foretell ROW KIND OPTION...
    local row=$1 kind=$2 rows=1 common=$common
    shift 2
    have "$row" "plan_$kind" && return
    [ $tool = ltrain ] || return
    case $row.$kind in dp:*.many | shard:*.many) rows=$GPUS ;; esac
    common="--batch $rows $common"
    [ "${row%%:*}.$kind" = scratch.many ] && common=${common/--batch 32/--batch $((32 * GPUS))}
    ltrain -q --plan --json --gpu h200 --host-memory "$HOST_MEMORY" $common "$@" > "$out/plan" 2> "$out/err"
    if grep -q '"step_s"' "$out/plan"; then
        put "$row" "plan_$kind" "$(tr -d '\n' < "$out/plan" | sed 's/  */ /g')"
    else
        put "$row" "plan_$kind" "{\"error\":\"$(tail -n 1 "$out/err" | text)\"}"
    fi
}
number() { # number ROW KIND KEY: of a line of RESULTS
    grep "^$1 $2 " "$RESULTS" | sed -nE "s/.*\"$3\": ?([0-9.e+-]+).*/\1/p"
}
seconds() { # seconds ROW KIND: start, two steps that warm up, those that count, a third more
    local s
    s=$(number "$1" "plan_$2" step_s)
    [ "$SHAPE" = tiny ] && s=0
    awk -v s="${s:-6}" -v n="$STEPS" -v tiny="$SHAPE" \
        'BEGIN { print int((tiny ? 5 : 30) + 1.3 * s * (s > 30 ? n : n + 2)) }'
}
timed() { # timed ROW: one alone, many, and the forecasts
    local row=$1 cmd memory=
    what "$row" || { echo "many: no row '$row'" >&2; exit 64; }
    [ "$DEVICE" = cuda ] && memory="--host-memory $HOST_MEMORY"
    if [ $tool = ltrain ]; then
        cmd="ltrain --bench -q --json --steps $STEPS --device $DEVICE $memory $common"
    else
        cmd="leval -q --json --device $DEVICE $memory $common"
    fi
    foretell "$row" many ${many/--processes/--gpus}
    if [ $one = yes ]; then foretell "$row" one; fi
    # shellcheck disable=SC2086 # words
    measure "$row" many "$(seconds "$row" many)" $cmd $many
    [ "$cut" ] && return
    # shellcheck disable=SC2086
    [ $one = yes ] && measure "$row" one "$(seconds "$row" one)" env CUDA_VISIBLE_DEVICES=0 $cmd
    if [ "$PROFILE" ] && [ $tool = ltrain ] && [ ! "$cut" ] && [ ! -s "$PROFILES/$row.profile" ] &&
        room "$(seconds "$row" many)" "$row profile"; then
        timeout -k 5 "$(left)" ${cmd/ --json/} $many > "$PROFILES/$row.profile" 2>&1
    fi
}

# ---- truth ----

truth() { # truth NAME: the tests of it, as a line of RESULTS
    local row=truth:$1 need=150 most=240 rc passed failed
    local cmd=("$BIN/test_cuda_ranks")
    have "$row" many && return
    case $1 in
    tools)
        cmd=(env GPUS="$GPUS" bash "$here/ranks.t") need=120 most=240 ;;
    memcheck)
        san=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
        cmd=(env LONGLORA_GPU_SMALL=1 LONGLORA_CUDNN=none "$san" --tool memcheck --report-api-errors no
            --target-processes all --error-exitcode 99 "$BIN/test_cuda_ranks")
        need=240 most=400 ;;
    esac
    [ "$DEVICE" = cpu ] && [ "$1" != tools ] && return # nothing of it is there
    [ "$DEVICE" = cpu ] && need=5
    room $need "$row" || return
    limit $most
    timeout -k 5 "$limit" "${cmd[@]}" > "$out/$1.log" 2>&1
    rc=$?
    [ -n "$OUT" ] && cp "$out/$1.log" "$OUT"
    if [ $rc -eq 124 ] && [ "$by_call" ] && [ ! "$alone" ]; then
        echo "[$(spent) s] $row: cut by the end of the call"
        cut=1
        return
    fi
    alone=
    passed=$(grep -c -e '^\[       OK' -e '^ok ' "$out/$1.log")
    failed=$(grep -e '^\[  FAILED  \] test' -e '^not ok' -e 'ERROR SUMMARY: [1-9]' "$out/$1.log" | sort -u | text)
    put "$row" many "{\"status\":$rc,\"passed\":$passed,\"failed\":\"$failed\"}"
}
# A rank of so many killed in mid-run: milliseconds until all are gone, and what was said.
killed() {
    local parent rank start ms rc i
    have killed:5 many && return
    room 40 killed:5 || return
    head -c 400000 /dev/zero > "$out/d.bin"
    ltrain -q "$out/d.bin" --init "$out/tiny.json" --ctx 128 --batch "$GPUS" --steps 1000000 --save-every 1000000 \
        --device "$DEVICE" $processes "$GPUS" -o "$out/killed" 2> "$out/err" &
    parent=$!
    for i in $(seq 300); do
        [ "$(wc -l 2> /dev/null < "$out/killed/metrics.jsonl")" -ge 3 ] 2> /dev/null && break
        sleep 0.1
    done
    rank=$(grep -l "^PPid:[[:space:]]*$parent$" /proc/[0-9]*/status 2> /dev/null | tail -n 1 | sed 's/[^0-9]//g')
    if [ -z "$rank" ]; then
        kill $parent
        put killed:5 many "{\"error\":\"no rank to kill: $(tail -n 1 "$out/err" | text)\"}"
        return
    fi
    start=$(date +%s%N)
    kill -9 "$rank"
    wait $parent
    rc=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    put killed:5 many "{\"status\":$rc,\"ms\":$ms,\"said\":\"$(grep 'has died' "$out/err" | head -n 1 | text)\"}"
}

# ---- PyTorch ----

peer() { # peer ROW: the same work by FSDP2, DistributedDataParallel or its context parallelism
    local row=$1 kind=${1%%:*} as
    case $kind in
    dp) as=train ;; dense) as=cp ;; shard) as=fsdp ;; eval | scratch) as=$kind ;;
    *) return ;;
    esac
    have "$row" peer && return
    room 100 "$row peer" || return
    timeout -k 5 "$(left)" python3 -W ignore -m torch.distributed.run --nproc_per_node="$GPUS" "$here/peer_torch.py" \
        $(($(left) - 30)) "$as:$(ctx_of "$row")" > "$out/said" 2> "$out/err"
    if grep -q '^{' "$out/said"; then
        put "$row" peer "$(grep '^{' "$out/said" | tail -n 1)"
    elif [ "$(left)" -gt 30 ]; then
        put "$row" peer "{\"error\":\"$(tail -n 1 "$out/err" | text)\"}"
    else
        cut=1
    fi
}
peers=${PEER:-1}
if [ "$peers" != 0 ] && ! python3 -c 'import torch, transformers, peft' 2> "$out/err"; then
    echo "no PyTorch here: $(tail -n 1 "$out/err")"
    peers=0
fi

for row in $rows; do
    [ "$cut" ] && break
    case $row in
    truth:*) truth "${row#*:}" ;;
    killed:*) killed ;;
    *) timed "$row" ;;
    esac
done
for row in $rows; do
    if [ ! "$cut" ] && [ "$peers" != 0 ]; then peer "$row"; fi
done
[ "$DEVICE" = cuda ] && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | sort | uniq -c
awk -v gpus="$GPUS" -f "$here/many.awk" "$RESULTS"
if [ "$cut" ]; then echo 'not all rows: call it again'; else echo 'all rows'; fi
