#!/bin/sh
# The paper's comparison, small: a Llama of 34 million parameters trained from scratch on PG-19 books
# at a context of 1024, then extended 8 and 32 times, by RoPE scaled by Position Interpolation and by
# parts, with dense attention, with S2-Attn as the paper has it, and with dense steps among it; each
# with its own learning rate, and three seeds. What it makes is in docs/extension.md.
#
# usage: tools/extend_pg19.sh WORK [STAGE ...]     stages, in this order, by default all of them:
#   data     tokenizer (needs spm_train, unless WORK/tokenizer.model is there), shards, test and
#            validation books, from the archives in BOOKS
#   base     the base, 1024 tokens
#   search   learning rates: every way of training at three rates, and one more where the best of
#            them is the first or the last; one seed, by validation books
#   main     all ways, RoPE kinds, lengths and seeds, each at its best rate, by test books
#   extra    as many seconds, not steps, as dense training has; plain LoRA and full fine-tuning; fewer
#            dense steps and smaller groups
#   tables   WORK/tables.md, from WORK/results/*.tsv
#   plot     WORK/extension.png
#   page     not by default: the tables into PAGE, between its lines '<!-- measured -->' and
#            '<!-- end -->', plot and its points beside it
# Every run that is done has a line in WORK/results, and is passed over: so this can be given again
# until all is done. It stops after LIMIT seconds, with 75 where something is left to do; a run that
# is cut goes on from its checkpoint if WORK is kept, else it is made anew. Runs that fail are named
# at the end, with 70; the others go on. Only what 'data' made and WORK/results need to travel to
# another machine. Without a 'search' main takes the first of RATES.
#   environment: LIMIT=570, GPUS (how many; 0: the CPU), DEVICE=cuda, SEEDS="1 2 3", STEPS=150,
#   WAYS="dense s2-4 mix-4 mix-16", ROPES="parts pi" (of main; extra needs dense, mix-16 and parts), VAL_TOKENS=1m, TEST_TOKENS=0 (all), BOOKS, LPREP, LPACK, LTRAIN, LEVAL: other programs than those on PATH,
#   PAGE=docs/extension.md
set -eu
[ $# -ge 1 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 64; }
work=$1
shift
stages=${*:-data base search main extra tables plot}
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/runs.sh"
: "${BOOKS:=$root/shared/data/pg19}" "${SEEDS:=1 2 3}" "${STEPS:=150}" "${RATES:=1e-3 5e-4 2e-3}"
: "${FULL_RATES:=3e-4 1e-4 6e-4}" "${LENGTHS:=8192 32768}" "${BASE_CTX:=1024}" "${BASE_STEPS:=1200}"
: "${STEP_TOKENS:=65536}" "${AT_ONCE:=32768}" "${VAL_TOKENS:=1m}" "${TEST_TOKENS:=0}" "${CONFIG:=}" "${WAYS:=dense s2-4 mix-4 mix-16}" "${ROPES:=parts pi}"
[ "$EACH" -eq 1 ] || { echo "$me: it measures speed, so each run has a GPU alone: EACH=1" >&2; exit 64; }
make_folders

# --- data: a tokenizer of 8192 pieces, trained on plain lines; shards; test and validation books
train_tokenizer() {
    LPREP=$LPREP "$here/sample_text.sh" 12000000 "$BOOKS"/pg19-train*.tar.zst --utf8 replace > "$work/sample.txt"
    spm_train --input="$work/sample.txt" --model_prefix="$work/tokenizer" --vocab_size=8192 \
        --model_type=bpe --byte_fallback=true --character_coverage=0.9995 --max_sentence_length=100000 \
        --normalization_rule_name=identity --remove_extra_whitespaces=false \
        --allow_whitespace_only_pieces=true --split_digits=true > "$work/spm.log" 2>&1
    if grep -iE 'too long|skipped|invalid' "$work/spm.log"; then
        echo "extend_pg19: the tokenizer did not see all of its text: $work/spm.log" >&2
        exit 65
    fi
}
data() {
    [ -e "$work/tokenizer.model" ] || train_tokenizer
    [ -e "$work/shards/manifest.json" ] || $LPREP -q "$BOOKS"/pg19-train*.tar.zst --utf8 replace \
        -t "$work/tokenizer.model" | $LPACK -o "$work/shards"
    shard test.shard "$work/tokenizer.model" "$BOOKS/pg19-test.tar.zst"
    shard val.shard "$work/tokenizer.model" "$BOOKS/pg19-validation.tar.zst"
}

# --- the base, from scratch, by all GPUs: the same bits on as many of one kind, linked alike
base() {
    [ -s "$work/base/summary.json" ] && return
    [ -n "$CONFIG" ] || cat > "$work/config.json" << 'END'
{ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8192,
  "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
  "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
  "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
  "initializer_range": 0.02, "torch_dtype": "float32" }
END
    many=
    [ "$GPUS" -lt 2 ] || many="--gpus $GPUS"
    [ "$GPUS" -lt 2 ] || [ "$device" = cuda ] || many="--processes $GPUS"
    # shellcheck disable=SC2086
    within $LTRAIN "$work/shards" --init "${CONFIG:-$work/config.json}" -o "$work/base" \
        --ctx "$BASE_CTX" --batch $((STEP_TOKENS / BASE_CTX)) --micro "$(at_once "$BASE_CTX")" \
        --steps "$BASE_STEPS" --attention dense --lr 1.5e-3 --warmup 60 --schedule cosine --min-lr 1e-4 \
        --decay 0.1 --save-every 400 --keep 1 --log-every 200 --tokenizer "$work/tokenizer.model" \
        --device $device --deterministic $many
}

# --- runs. A run is a line: CTX ROPE WAY MODE RATE SEED STEPS; its name is the line with dots.
train() { # the run's variables are set; OUT
    # shellcheck disable=SC2046
    within $LTRAIN -q "$work/shards" --model "$work/base" -o "$1" \
        --recipe longlora-2023 --rope "$rope" --mode "$mode" --ctx "$ctx" $(way_options $way) --batch $((STEP_TOKENS / ctx)) \
        --micro "$(at_once "$ctx")" --steps "$steps" --lr "$rate" --warmup 10 --seed "$seed" \
        --save-every 100000 --keep 1 --device $device
}
score() { # DATA CTX-LIST TOKENS MODEL-OPTIONS...: JSON
    data=$1 list=$2 most=$3
    shift 3
    within $LEVAL -q --ppl "$data" --protocol nonoverlap --ctx "$list" --max-tokens "$most" \
        --by-document --json --device $device "$@"
}
is_done() { [ -s "$results/$1.tsv" ]; }
one_run() { # GPU KIND LINE
    # shellcheck disable=SC2086
    set -- "$1" $3
    ctx=$2 rope=$3 way=$4 mode=$5 rate=$6 seed=$7 steps=$8 tok_s=0
    name=$ctx.$rope.$way.$mode.$rate.$seed.$steps folder=$work/runs/$name
    mkdir -p "$folder"
    set -- --model "$work/base"
    if [ "$steps" -gt 0 ]; then
        train "$folder/out" || return $?
        set -- "$@" --adapter "$folder/out"
        [ "$mode" != full ] || set -- --model "$folder/out"
    elif [ "$rope" != none ]; then
        set -- "$@" --rope "$rope" --rope-factor $((ctx / BASE_CTX))
    fi
    : > "$folder/val.json" # only rates are chosen by it
    [ "$rope" != parts ] || [ "$seed" != "${SEEDS%% *}" ] ||
        score "$work/val.shard" "$ctx" "$VAL_TOKENS" "$@" > "$folder/val.json" || return $?
    score "$work/test.shard" "$(octaves "$BASE_CTX" "$ctx")" "$TEST_TOKENS" "$@" > "$folder/test.json" || return $?
    [ "$steps" -eq 0 ] || tok_s=$(speed "$folder/out/metrics.jsonl")
    val=$(field loss "$folder/val.json")
    ppl_line "$name" "${tok_s:-0}" "${val:-0}" "$folder/test.json" > "$results/$name.part"
    mv "$results/$name.part" "$results/$name.tsv"
    rm -rf "$folder"
}

rates_of() { [ "$1" = full ] && echo "$FULL_RATES" || echo "$RATES"; }
# What the search has done: RATE and loss of a way of training on the validation books, best first.
# The kind of RoPE has no rate of its own: by parts is searched, and PI takes what is found.
tried() { # CTX WAY MODE
    cat "$results/$1.parts.$2.$3".*."${SEEDS%% *}.$STEPS.tsv" 2> /dev/null | cut -f6,11 | sort -k2,2g
}
best() { # CTX WAY MODE: its rate
    case $2 in mix-16-* | mix-32) set -- "$1" mix-16 "$3" ;; esac # these are not searched
    found=$(tried "$@" | head -n 1 | cut -f1)
    rates=$(rates_of "$3")
    echo "${found:-${rates%% *}}"
}
search() { # WAYS MODE
    for rate in $(rates_of "$2"); do for ctx in $LENGTHS; do for way in $1; do
        echo "$ctx parts $way $2 $rate ${SEEDS%% *} $STEPS"
    done; done; done
}
# One rate beyond the lowest or the highest, where that is the best of several.
beyond() { # WAYS MODE
    for ctx in $LENGTHS; do for way in $1; do
        rate=$(tried "$ctx" "$way" "$2" | awk 'NR == 1 { best = low = high = $1 }
            $1 + 0 < low + 0 { low = $1 } $1 + 0 > high + 0 { high = $1 }
            END { if (low != high && best == low) printf "%g", low / 2
                if (low != high && best == high) printf "%g", high * 2 }')
        [ -z "$rate" ] || echo "$ctx parts $way $2 $rate ${SEEDS%% *} $STEPS"
    done; done
}
search_all() { # WAYS MODE
    search "$@" > "$work/list"
    run_all "$work/list"
    edges=$work/results/edges.$2.$(echo "$1" | tr ' ' -)
    [ -e "$edges" ] || beyond "$@" > "$edges"
    run_all "$edges"
}
main_runs() { # ROPES WAYS MODE [MODE whose rates are taken]
    for rope in $1; do for seed in $SEEDS; do for ctx in $LENGTHS; do for way in $2; do
        echo "$ctx $rope $way $3 $(best "$ctx" "$way" "${4:-$3}") $seed $STEPS"
    done; done; done; done
}
page() {
    : "${PAGE:=$root/docs/extension.md}"
    plot=$(basename "$PAGE" .md).png
    echo "![perplexity by seconds of training, and by position]($plot)" > "$work/plot.md"
    into_page "$PAGE" '<!-- measured -->' '<!-- end -->' "$work/plot.md" "$work/tables.md"
    cp "$work/plot.tsv" "${PAGE%.md}.tsv"
    cp "$work/extension.png" "${PAGE%.md}.png"
}
# As many steps of the mix as take the seconds that dense training takes.
seconds_runs() {
    for ctx in $LENGTHS; do
        steps=$(cat "$results/$ctx".parts.dense.lora+.*.tsv "$results/$ctx".parts.mix-16.lora+.*.tsv |
            awk -F'\t' -v n="$STEPS" '$8 == n { s[$4] += 1 / $10; k[$4]++ }
                END { printf "%d", n * (s["dense"] / k["dense"]) / (s["mix-16"] / k["mix-16"]) }')
        for seed in $SEEDS; do
            echo "$ctx parts mix-16-seconds lora+ $(best "$ctx" mix-16 lora+) $seed $steps"
        done
    done
}
untrained() { for ctx in $LENGTHS; do for rope in none pi parts; do echo "$ctx $rope base none 0 0 0"; done; done; }

for stage in $stages; do
    case $stage in
    data) data ;;
    base) base || { rc=$?; [ $rc -eq 75 ] || [ $rc -eq 124 ] && exit 75; fail "the base: exit $rc"; } ;;
    search) search_all "$WAYS" lora+ ;;
    main) { untrained; main_runs "$ROPES" "$WAYS" lora+; } > "$work/list"
        run_all "$work/list" ;;
    extra) { seconds_runs; main_runs parts 'dense mix-16' lora lora+; } > "$work/list"
        run_all "$work/list"
        for way in dense mix-16; do
            search_all $way full
            main_runs parts $way full > "$work/list"
            run_all "$work/list"
            [ $way = dense ] || continue
            main_runs parts 'mix-16-20 mix-32' lora+ > "$work/list"
            run_all "$work/list"
        done ;;
    tables) cat "$results"/*.tsv | awk -f "$here/extend_table.awk" > "$work/tables.md"
        cat "$work/tables.md" ;;
    plot) cat "$results"/*.tsv | awk -v form=plot -f "$here/extend_table.awk" > "$work/plot.tsv"
        gnuplot -e "data='$work/plot.tsv'; out='$work/extension.png'" "$here/extend_plot.gp" ;;
    page) page ;;
    *) echo "extend_pg19: no stage '$stage'" >&2; exit 64 ;;
    esac
done
end_if_failed
