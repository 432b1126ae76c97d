# tools/runs.sh - what the experiments share: a list of runs done by all GPUs until the time is over, shards, ways of
# training, pages. Sourced by them when 'here' is their folder; they then set 'work', and these functions:
#   is_done NAME KIND        whether the run's results are there
#   one_run GPU KIND LINE    does it: 0 done; 75, 124 or 143: cut by the clock; anything else: it failed
# A run is a line of words, its name that line with dots. KIND, which may be empty, is one word for all of a list.
begun=$(date +%s)
me=$(basename "$0" .sh)
root=$(dirname "$here")
[ ! -d "$root/build/bin" ] || PATH=$root/build/bin:$PATH
: "${LPREP:=lprep}" "${LPACK:=lpack}" "${LTRAIN:=ltrain}" "${LEVAL:=leval}" "${LIMIT:=570}"
: "${GPUS:=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU' || true)}" # 0: the CPU
device=${DEVICE:-cuda}
[ "$GPUS" -gt 0 ] || device=cpu
: "${EACH:=1}" # so many runs at once on a GPU, or on the CPU, each with its part of the memory
case $EACH in '' | *[!0-9]* | 0*) echo "$me: EACH is '$EACH', not a number of runs" >&2; exit 64 ;; esac
on="--device $device" # where a run's programs compute
if [ "$EACH" -gt 1 ] && [ "$device" = cuda ]; then
    part=$(nvidia-smi --query-gpu=memory.free --format=csv,noheader,nounits | sort -n | awk -v each="$EACH" '$1 > 0 { printf "%d", $1 * 0.95 / each; exit }')
    [ -n "$part" ] || { echo "$me: nvidia-smi does not say how much memory is free, which EACH=$EACH runs are to share" >&2; exit 69; }
    on="$on --gpu-memory ${part}m"
fi

left() { echo $((LIMIT - $(date +%s) + begun)); }
within() { timeout -s TERM -k 20 "$(left)" "$@"; }
fail() { echo "$me: $*" >&2; exit 70; }
make_folders() {
    results=$work/results
    mkdir -p "$work/runs" "$results"
    rm -rf "$work/claimed" "$work/left" "$work/failed"
    mkdir "$work/claimed"
}

# --- data and options
shard() { # NAME TOKENIZER ARCHIVE...
    name=$1 tokenizer=$2
    shift 2
    [ ! -s "$work/$name" ] || return 0
    $LPREP -q "$@" --utf8 replace -t "$tokenizer" | $LPACK -q > "$work/$name.part"
    mv "$work/$name.part" "$work/$name"
}
way_options() {
    case $1 in
    dense) echo --attention dense ;;
    s2-4) echo --attention s2 --group-ratio 1/4 --dense-every 0 --dense-last 0 ;;
    mix-4) echo --attention s2 --group-ratio 1/4 --dense-every 10 --dense-last 0.05 ;;
    mix-16 | mix-16-seconds) echo --attention s2 --group-ratio 1/16 --dense-every 10 --dense-last 0.05 ;;
    mix-16-20) echo --attention s2 --group-ratio 1/16 --dense-every 20 --dense-last 0.05 ;;
    mix-16-every4) echo --attention s2 --group-ratio 1/16 --dense-every 4 --dense-last 0.05 ;;
    mix-16-last25) echo --attention s2 --group-ratio 1/16 --dense-every 10 --dense-last 0.25 ;;
    mix-32) echo --attention s2 --group-ratio 1/32 --dense-every 10 --dense-last 0.05 ;;
    *) fail "no way '$1'" ;;
    esac
}
octaves() { # FROM TO: with commas
    n=$1 list=$1
    while [ "$n" -lt "$2" ]; do n=$((n * 2)) list=$list,$n; done
    echo "$list"
}
at_once() { # CTX: sequences of AT_ONCE tokens, one at least
    echo $((AT_ONCE / $1 > 0 ? AT_ONCE / $1 : 1))
}
field() { # NAME JSON: the first number of that name
    sed -n "s/.*\"$1\": *\\([-0-9.e+]*\\).*/\\1/p" "$2" | head -n 1
}
# Tokens a second by the median step of each kind: the first of them also chooses kernels. 0: not alone on its GPU.
speed() { # METRICS
    [ "$EACH" -eq 1 ] || { echo 0; return; }
    sed -nE 's/.*"attention":"([a-z0-9]+)".*"step_ms":([0-9.]+).*/\1 \2/p' "$1" | sort -k1,1 -k2,2g |
        awk -v tokens="$STEP_TOKENS" '{ ms[$1, ++n[$1]] = $2 }
            END { for (k in n) { steps += n[k]; sum += n[k] * ms[k, int((n[k] + 1) / 2)] }
                printf "%.0f", (sum > 0 ? 1e3 * tokens * steps / sum : 0) }'
}
# The run whose ctx, rope, way, mode, rate, seed and steps are set, as a line for tools/extend_table.awk.
ppl_line() { # NAME TOKENS/S VALIDATION-LOSS JSON
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s' "$1" "$ctx" "$rope" "$way" "$mode" "$rate" "$seed" \
        "$steps" $((steps * STEP_TOKENS)) "$2" "$3"
    awk -F'[:,]' '/"ctx":/ { printf "\t%d|", $2 } /"by_position"/ { at = 1; n = 0 } /"by_document"/ { at = 2; n = 0 }
        at == 2 && /"document":/ { if (n++) printf ";" } at == 2 && /"(tokens|nll|far_tokens|far_nll)":/ {
            gsub(/ /, "", $2); printf "%s%s", /"tokens"/ ? "" : ",", $2 } /\]/ { at = 0 }' "$4"
    awk -F'[:,]' -v ctx="$ctx" '/"ctx":/ { on = $2 + 0 == ctx; n = 0 } /"by_position"/ { at = on } /\]/ { at = 0 }
        at && /"tokens_before"/ { printf "%s%d", n++ ? ";" : "\tposition|", $2 }
        at && /"(tokens|loss)":/ { gsub(/ /, "", $2); printf ",%s", $2 }' "$4"
    echo
}
# OUT COMMAND...: its standard output becomes the file, whole, unless that is there
once() {
    [ ! -s "$1" ] || return 0
    out=$1
    shift
    within "$@" > "$out.part" || return $?
    mv "$out.part" "$out"
}

# --- runs
# Takes the runs of a list that nobody has taken, until there is none or the time is over.
worker() { # GPU KIND LIST
    [ "$GPUS" -eq 0 ] || export CUDA_VISIBLE_DEVICES="$1"
    while read -r run; do
        name=$(echo "$run" | tr ' ' .)
        ! is_done "$name" "$2" && mkdir "$work/claimed/$2.$name" 2> /dev/null || continue
        if [ "$(left)" -lt 20 ]; then
            echo "$run" >> "$work/left"
            continue
        fi
        t=$(date +%s) rc=0
        (one_run "$1" "$2" "$run") < /dev/null 2> "$work/runs/$name.err" || rc=$?
        if [ $rc -eq 75 ] || [ $rc -eq 124 ] || [ $rc -eq 143 ]; then
            echo "$run" >> "$work/left"
        elif [ $rc -ne 0 ]; then
            { echo "$run: exit $rc"; tail -n 5 "$work/runs/$name.err"; } >> "$work/failed"
        else
            echo "${2:+$2 }$name: $(($(date +%s) - t)) s"
        fi
    done < "$3"
}
# All runs of a list, EACH workers for each GPU; ends the script where some are left.
run_all() { # LIST [KIND]
    gpus=$((GPUS > 0 ? GPUS : 1)) n=0
    while [ $n -lt $((gpus * EACH)) ]; do
        worker $((n % gpus)) "${2:-}" "$1" &
        n=$((n + 1))
    done
    wait
    if [ -s "$work/left" ]; then
        [ ! -s "$work/failed" ] || cat "$work/failed" >&2
        echo "$me: $(wc -l < "$work/left") runs are left: give the command again" >&2
        exit 75
    fi
}
end_if_failed() {
    [ -s "$work/failed" ] || return 0
    cat "$work/failed" >&2
    exit 70
}

# --- pages
into_page() { # PAGE FIRST LAST TEXT...: the files' lines between two lines of the page
    page=$1 first=$2 last=$3
    shift 3
    grep -qxF -e "$first" "$page" && grep -qxF -e "$last" "$page" || fail "'$page' has no lines '$first' and '$last'"
    cat "$@" > "$work/text.part"
    awk -v first="$first" -v last="$last" -v text="$work/text.part" '$0 == last { inside = 0 } !inside { print }
        $0 == first { inside = 1; while ((getline row < text) > 0) print row }' "$page" > "$page.part"
    mv "$page.part" "$page"
    rm "$work/text.part"
}
