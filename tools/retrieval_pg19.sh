#!/bin/sh
# The comparison of tools/extend_pg19.sh where perplexity does not look: its base of 34 million parameters is taught to
# retrieve within its own context, then extended 8 and 32 times on books with a few such examples among them, the same for
# all ways of training, and asked the tasks of 'leval --tasks', with other seeds and in other books. See docs/extension.md.
#
# usage: tools/retrieval_pg19.sh WORK [STAGE ...]     stages, in this order, by default all but page:
#   base      what tools/extend_pg19.sh makes in WORK: tokenizer, shards, test books, base
#   examples  prompts with their answers, hidden in training books, mixed into the shards: about TEACH_SHARE of all tokens
#             to teach with, SHARE to extend with (the tables say how much it is). Prompts are masked (MASK=0: not): answers count
#   teach     the base trained TEACH_STEPS more at its own context; 0: it stays as it is
#   runs      the taught base at its own context, and an end where it has less than LEARNT percent in every task; for each
#             of LENGTHS that base with RoPE by parts, and each way of training at each of SEEDS; tasks by depth, perplexity
#   tables    WORK/retrieval/tables.md
#   plot      WORK/retrieval/WAY.png: scores by depth and length, the longest context
#   page      tables and maps into PAGE, between its lines '<!-- retrieval -->' and '<!-- retrieval end -->'
# All but base lies in WORK/retrieval. Every run that is done has its files in WORK/retrieval/results, and is passed over;
# what is cut goes on from its checkpoint, or from the journal of its answers: so this can be given again until all is
# done. It stops after LIMIT seconds, with 75 where something is left to do. Runs that fail are named at the end, with 70;
# the others go on. To another machine go tokenizer.model, test.shard, shards, base (else it is made there) and retrieval.
#   environment: LIMIT=570, GPUS (how many; 0: the CPU), EACH=1 (runs at once on each; more: no speeds), DEVICE=cuda, SEEDS=1, WAYS="dense s2-4 mix-16",
#   LENGTHS="8192 32768", BASE_CTX=1024, STEPS=150, RATE=2.5e-4, SHARE=5 and TEACH_SHARE=50 (percent), MASK=1, TEACH_STEPS=600,
#   TEACH_RATE=1e-3, LEARNT=50, TASKS=passkey,niah_single_1,niah_single_2,lines, DEPTHS=10, SAMPLES=5 (of each depth),
#   BOOKS_USED=16 (to hide examples in), TEST_TOKENS=512k, BATCH_TOKENS=256k (texts asked at once), BOOKS, PAGE=docs/extension.md,
#   and those of tools/extend_pg19.sh for its stages data and base
set -eu
[ $# -ge 1 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 64; }
made=$1 work=$1/retrieval
shift
stages=${*:-base examples teach runs tables plot}
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/runs.sh"
: "${LINFO:=linfo}" "${BOOKS:=$root/shared/data/pg19}" "${SEEDS:=1}" "${WAYS:=dense s2-4 mix-16}" "${LENGTHS:=8192 32768}"
: "${BASE_CTX:=1024}" "${STEPS:=150}" "${STEP_TOKENS:=65536}" "${AT_ONCE:=32768}" "${RATE:=2.5e-4}" "${SHARE:=5}" "${MASK:=1}"
: "${TEACH_SHARE:=50}" "${TEACH_STEPS:=600}" "${TEACH_RATE:=1e-3}" "${LEARNT:=50}" "${TASKS:=passkey,niah_single_1,niah_single_2,lines}"
: "${DEPTHS:=10}" "${SAMPLES:=5}" "${BOOKS_USED:=16}" "${TEST_TOKENS:=512k}" "${BATCH_TOKENS:=256k}"
make_folders
tokenizer=$made/tokenizer.model
longest=${LENGTHS##* }
taught=$work/taught
[ "$TEACH_STEPS" -gt 0 ] || taught=$made/base

base() {
    rc=0 what='data base'
    [ ! -s "$made/tokenizer.model" ] || [ ! -e "$made/shards/manifest.json" ] || [ ! -s "$made/test.shard" ] || what=base # all of the data that is read here
    # shellcheck disable=SC2086
    EACH=1 LIMIT=$(left) "$here/extend_pg19.sh" "$made" $what || rc=$?
    [ $rc -eq 0 ] || exit $rc
}

# --- examples. A length leaves room for BOS and EOS, so that an example of the context's is one row.
ask() { # TASK LENGTH NUMBER SEED BOOK: prompts; none where the task needs more than that length
    rc=0
    $LEVAL -q --tasks "$1" -t "$tokenizer" --lengths $(($2 - $2 / 32)) --samples "$3" --seed "$4" --haystack "$5" --prompts - \
        2> "$work/ask.err" || rc=$?
    [ $rc -eq 0 ] || { [ $rc -eq 64 ] && grep -q 'too short' "$work/ask.err"; } || { cat "$work/ask.err" >&2; exit $rc; }
}
tokens_of() { $LINFO "$1" | awk '$1 == "tokens" { print $2; exit }'; }
# As many tokens of each length, of each task as many prompts: each seed and book has its part of them.
examples() { # NAME SHARE LENGTH...
    name=$1 share=$2
    shift 2
    [ ! -e "$work/$name/manifest.json" ] || return 0
    each=$(($(tokens_of "$made/shards") * share / (100 - share) / $#))
    seed=1000000 # the scored ones are below
    for task in $(echo "$TASKS" | tr , ' '); do for length in "$@"; do
        n=$((each / tasks / length)) book=0
        [ $n -gt 0 ] || n=1
        while [ $book -lt "$BOOKS_USED" ] && [ $n -gt 0 ]; do
            part=$(((n + BOOKS_USED - book - 1) / (BOOKS_USED - book)))
            ask "$task" "$length" $part $seed "$work/book.$book.jsonl"
            book=$((book + 1)) seed=$((seed + 100000)) n=$((n - part))
        done
    done; done > "$work/$name.ndjson"
    rm -rf "$work/$name.only"
    $LPREP -q "$work/$name.ndjson" -t "$tokenizer" | $LPACK -q > "$work/$name.shard"
    $LPACK -q --export ndjson "$work/$name.shard" | { [ "$MASK" -eq 0 ] && sed -E 's/,"mask":\[\[[0-9,]*\]\]//' || cat; } |
        $LPACK -q --import ndjson -o "$work/$name.only" -
    rm "$work/$name.shard"
    $LPACK -q --merge -o "$work/$name" "$made/shards" "$work/$name.only"
    rm -rf "$work/$name.only"
}
all_examples() {
    tasks=$(echo "$TASKS" | tr , '\n' | wc -l)
    if [ ! -s "$work/book.0.jsonl" ]; then # the longest: none is used up by a prompt
        $LPREP -q --text "$BOOKS"/pg19-train*.tar.zst --utf8 replace |
            awk -v most="$BOOKS_USED" -v to="$work/book." '{ at = n; if (n < most) n++
                else { at = -1; for (i = 0; i < n; i++) if (length(kept[i]) < length($0) && (at < 0 || length(kept[i]) < length(kept[at]))) at = i }
                if (at >= 0) kept[at] = $0 }
            END { for (i = n - 1; i >= 0; i--) { name = to i ".jsonl"; print kept[i] > name; close(name) } }'
    fi
    BOOKS_USED=$(find "$work" -maxdepth 1 -name 'book.*.jsonl' | wc -l)
    [ -s "$work/haystack.tar.zst" ] || cp "$BOOKS/pg19-test.tar.zst" "$work/haystack.tar.zst"
    # what cannot be asked is told here, before a GPU waits for it
    $LEVAL -q --tasks "$TASKS" -t "$tokenizer" --haystack "$work/haystack.tar.zst" --lengths "$(octaves "$BASE_CTX" "$longest")" \
        --depths "$DEPTHS" --samples 1 --prompts - > /dev/null
    [ "$TEACH_STEPS" -eq 0 ] || examples "teach" "$TEACH_SHARE" $((BASE_CTX / 2)) "$BASE_CTX"
    for ctx in $LENGTHS; do
        # shellcheck disable=SC2046
        examples "extend.$ctx" "$SHARE" $(octaves "$BASE_CTX" "$ctx" | tr , ' ')
    done
}

# --- the taught base, by all GPUs; its examples do not see each other
teach() {
    [ "$TEACH_STEPS" -gt 0 ] && [ ! -s "$work/taught/summary.json" ] || return 0
    many=
    [ "$GPUS" -lt 2 ] || many="--gpus $GPUS"
    [ "$GPUS" -lt 2 ] || [ "$device" = cuda ] || many="--processes $GPUS"
    rc=0
    # shellcheck disable=SC2086
    within $LTRAIN "$work/teach" --model "$made/base" -o "$work/taught" --mode full --attention dense --ctx "$BASE_CTX" \
        --packing bestfit --mask-documents --batch $((STEP_TOKENS / BASE_CTX)) --micro "$(at_once "$BASE_CTX")" --steps "$TEACH_STEPS" --lr "$TEACH_RATE" \
        --warmup 20 --schedule cosine --min-lr 1e-4 --save-every 200 --keep 1 --log-every 100 --device $device $many || rc=$?
    case $rc in
    0) ;;
    75 | 124 | 143) exit 75 ;;
    *) fail "the taught base: exit $rc" ;;
    esac
}

# --- runs. A run is a line: CTX WAY SEED; its name is the line with dots. 'taught' at its own context, 'none' stretched.
train() { # OUT
    # shellcheck disable=SC2046,SC2086
    within $LTRAIN -q "$work/extend.$ctx" --model "$taught" -o "$1" --recipe longlora-2023 --rope parts --ctx "$ctx" \
        --packing bestfit $(way_options "$way") --batch $((STEP_TOKENS / ctx)) --micro "$(at_once "$ctx")" --steps "$STEPS" \
        --lr "$RATE" --warmup 10 --seed "$seed" --save-every 25 --keep 1 $on
}
is_done() { [ -s "$results/$1.tasks.json" ] && [ -s "$results/$1.tsv" ]; }
# shellcheck disable=SC2086
one_run() { # GPU KIND LINE
    # shellcheck disable=SC2086
    set -- $3
    ctx=$1 way=$2 seed=$3 name=$1.$2.$3 folder=$work/runs/$1.$2.$3
    rope=parts mode=lora+ rate=$RATE steps=$STEPS tok_s=0 label=$way
    case $way in
    taught) rope=none mode=none steps=0 rate=0
        set -- --model "$taught" ;;
    none) mode=none steps=0 rate=0 label=untrained
        set -- --model "$taught" --rope parts --rope-factor $((ctx / BASE_CTX)) ;;
    *) mkdir -p "$folder"
        [ -e "$folder/out/summary.json" ] || train "$folder/out" || return $?
        tok_s=$(speed "$folder/out/metrics.jsonl")
        set -- --model "$taught" --adapter "$folder/out" ;;
    esac
    once "$results/$name.tasks.json" $LEVAL -q --tasks "$TASKS" --haystack "$work/haystack.tar.zst" \
        --lengths "$(octaves "$BASE_CTX" "$ctx")" --depths "$DEPTHS" --samples "$SAMPLES" -t "$tokenizer" --batch-tokens "$BATCH_TOKENS" \
        --journal "$results/$name.answers.ndjson" --json -l "$label" $on "$@" || return $?
    once "$results/$name.ppl.json" $LEVAL -q --ppl "$made/test.shard" --protocol nonoverlap \
        --ctx "$(octaves "$BASE_CTX" "$ctx")" --max-tokens "$TEST_TOKENS" --by-document --json -l "$label" $on "$@" ||
        return $?
    [ "$way" != none ] || way=base # as the table calls it
    ppl_line "$name" "$tok_s" 0 "$results/$name.ppl.json" > "$results/$name.part"
    mv "$results/$name.part" "$results/$name.tsv"
    rm -rf "$folder"
}
list() {
    for ctx in $LENGTHS; do
        for seed in $SEEDS; do for way in $WAYS; do echo "$ctx $way $seed"; done; done
        echo "$ctx none 0"
    done
}

learnt() { # of every task the score of the taught base, in percent
    awk -f "$here/retrieval_table.awk" -v form=learnt "$results/$BASE_CTX.taught.0.tasks.json"
}
# The taught base first: where it answers nothing, no run after it would tell anything.
runs() {
    echo "$BASE_CTX taught 0" > "$work/list"
    run_all "$work/list"
    end_if_failed
    most=$(learnt | sort -k2,2g | tail -n 1 | cut -d' ' -f2)
    awk -v most="$most" -v least="$LEARNT" 'BEGIN { exit !(most < least) }' && fail "of all tasks the taught base answers $most% at best \
at its own context, and extending it would compare nothing: remove '$work/taught' and '$results', and give more TEACH_STEPS; or LEARNT=0"
    list > "$work/list"
    run_all "$work/list"
}

# --- what it shows
show() { # FILE...: a table of text, of the files that are there; the maps by depth are pictures (plot)
    n=$#
    for f in "$@"; do [ ! -s "$f" ] || set -- "$@" "$f"; done
    shift "$n"
    [ $# -gt 0 ] || return 0
    printf '```\n'
    $LEVAL --table -q "$@" | awk '/% by depth and length$/ { exit } NR > 1 { print row } { row = $0 } END { if (row != "") print row }'
    printf '```\n'
}
shares() {
    for f in "$work/teach" $(for ctx in $LENGTHS; do echo "$work/extend.$ctx"; done); do
        [ ! -e "$f/manifest.json" ] || $LINFO "$f" | awk -v name="$(basename "$f")" '$1 == "tokens" && !all { all = $2 }
            $2 == "name" && $3 == "prompts" { n = $5; t = $7 }
            END { printf "%s: %d examples, %.1f%% of %d tokens. ", name, n, 100 * t / all, all }'
    done
}
compared() { # CTX SEED FILE...: what each way is beside the first, of every task as a whole
    [ "$(ls "$results/$1".*."$2".tasks.json 2> /dev/null | wc -l)" -gt 1 ] || return 0
    ctx=$1 seed=$2
    set --
    for way in dense $WAYS; do
        f=$results/$ctx.$way.$seed.tasks.json
        [ ! -s "$f" ] || { [ "$way" = dense ] && [ $# -gt 0 ]; } || set -- "$@" "$f"
    done
    printf '\nTo %d tokens, seed %s: points above dense training (its own score first) over all lengths, the same prompts resampled in pairs (95%%), and whether that is within 2 points.\n\n' "$ctx" "$seed"
    $LEVAL --table -q --json "$@" | awk -f "$here/retrieval_table.awk" -v learnt="$work/learnt"
}
tables() {
    : > "$work/learnt"
    cat "$results"/*.tsv 2> /dev/null | awk -v base="$BASE_CTX" -F'\t' '$2 != base' > "$work/ppl.tsv"
    awk -f "$here/extend_table.awk" "$work/ppl.tsv" > "$work/ppl.md"
    [ ! -s "$results/$BASE_CTX.taught.0.tasks.json" ] || learnt > "$work/learnt"
    {
        printf '\n### The taught base, at its own context\n\n'
        shares
        printf '\n\n'
        awk '$2 < 50 { printf "**%s was not learnt** (%.0f%%): what follows of it compares nothing.\n\n", $1, $2 }' "$work/learnt"
        show "$results/$BASE_CTX.taught.0.tasks.json"
        printf '\n### Points beside dense training\n'
        for ctx in $LENGTHS; do for seed in $SEEDS; do compared "$ctx" "$seed"; done; done
        for ctx in $LENGTHS; do
            printf '\n### Scores after extending to %d tokens\n\n' "$ctx"
            for seed in $SEEDS; do
                # shellcheck disable=SC2046
                show $(for way in $WAYS; do echo "$results/$ctx.$way.$seed.tasks.json"; done) "$results/$ctx.none.0.tasks.json"
            done
        done
        sed 's/^## To/### Perplexity, to/' "$work/ppl.md"
    } > "$work/tables.part"
    mv "$work/tables.part" "$work/tables.md"
    cat "$work/tables.md"
}
plots() {
    for way in $WAYS none; do
        seed=${SEEDS%% *}
        [ "$way" != none ] || seed=0
        f=$results/$longest.$way.$seed.tasks.json
        [ ! -s "$f" ] || $LEVAL --table -q -f "$f" --title "$(echo "$way" | sed 's/none/untrained/'), to $longest tokens" --plot "$work/$way.png" > /dev/null
    done
}
page() {
    : "${PAGE:=$root/docs/extension.md}"
    for way in $WAYS none; do
        [ -s "$work/$way.png" ] || continue
        cp "$work/$way.png" "${PAGE%.md}-$way.png"
        printf '![scores by depth and length, %s](%s-%s.png)\n' "$way" "$(basename "$PAGE" .md)" "$way"
    done > "$work/maps.md"
    into_page "$PAGE" '<!-- retrieval -->' '<!-- retrieval end -->' "$work/tables.md" "$work/maps.md"
}

for stage in $stages; do
    case $stage in
    base) base ;;
    examples) all_examples ;;
    teach) teach ;;
    runs) runs ;;
    tables) tables ;;
    plot) plots ;;
    page) page ;;
    *) echo "$me: no stage '$stage'" >&2; exit 64 ;;
    esac
done
end_if_failed
