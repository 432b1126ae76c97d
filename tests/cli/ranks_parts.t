#!/bin/bash
# Ranks that share sequences (--cp) or frozen weights (--shard-weights), started by the tool itself, by
# Open MPI and by MPICH: the bits of each other; killed, hung and stopped at random moments.
# RANKS_EVENTS=100: so many events; RANKS_SEED: of their kinds and moments.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
. tests/cli/ranks.sh
RANKS_EVENTS=${RANKS_EVENTS:-10}
RANDOM=${RANKS_SEED:=$$}
steps=32
ids 20000 1 > "$tmp/d.bin"
ltrain -q "$tmp/d.bin" --init tests/data/tiny-config.json --ctx 64 --steps 2 -j 1 -o "$tmp/base" || exit 70
# LoRA+ on it with S2-Attn, whose groups lie over the ranks' borders, and a dense step now and then
train=(ltrain "$tmp/d.bin" --model "$tmp/base" --mode lora+ --rank 2 --ctx 96 --batch 4 --micro 1 -j 1 --lr 1e-3
    --warmup 1 --save-every 4 --log-every 0 --attention s2 --group 20 --dense-every 5
    --dense-last 0)
run() { # run STARTER N OUT OPTION...: in place of this shell
    local starter=$1 k=$2 out=$3
    shift 3
    case $starter in
    own) exec "${train[@]}" --processes "$k" -o "$out" "$@" ;;
    *) exec=exec mpi "$starter" "$k" "${train[@]}" -o "$out" "$@" ;;
    esac
}
starters=(own)
for name in openmpi mpich; do
    if command -v mpirun.$name > /dev/null; then starters+=($name); fi
done
# How ranks divide the work: how many there are, and the options.
ways=('2 --cp 2' '3 --cp 3' '2 --shard-weights 2' '4 --cp 2 --shard-weights 4')
equal() { # equal FOLDER REFERENCE: to the bit, and nothing half-written stays
    cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" && cmp <(bits "$1") <(bits "$2") &&
        ! ls -d "$1"/*.tmp* "$1"/checkpoints/*.tmp 2> /dev/null
}
as_one() { # as_one WAY: the losses of one process
    local w=(${ways[$1]})
    (run own "${w[@]:0:1}" "$tmp/w$1" "${w[@]:1}" -q --steps $steps) && close_to "$tmp/w$1" "$tmp/one"
}
"${train[@]}" -q --steps $steps -o "$tmp/one" || exit 70
for i in "${!ways[@]}"; do ok "${ways[$i]#* }: the losses of one" as_one "$i"; done
by_mpi() { # by_mpi STARTER: the bits of our own starter; with many events all ways
    local i w some='0 2'
    [ "$RANKS_EVENTS" -gt 10 ] && some=${!ways[*]}
    for i in $some; do
        w=(${ways[$i]})
        rm -rf "$tmp/mpi"
        (run "$1" "${w[@]:0:1}" "$tmp/mpi" "${w[@]:1}" --steps $steps) 2> "$tmp/err" || { cat "$tmp/err"; return 1; }
        grep -q 'by MPI' "$tmp/err" && equal "$tmp/mpi" "$tmp/w$i" || { cat "$tmp/err"; return 1; }
    done
}
for name in openmpi mpich; do
    case " ${starters[*]} " in
    *" $name "*) ok "$name: the bits of our own starter" by_mpi $name ;;
    *) skip "$name" "no mpirun.$name here" ;;
    esac
done

ranks_at() { # ranks_at FOLDER: the ranks of a run, whoever has started them
    local f
    for f in /proc/[0-9]*/cmdline; do
        f=${f%/cmdline}
        [ "${f#/proc/}" != "$pid" ] && tr '\0' ' ' 2> /dev/null < "$f/cmdline" |
            grep -q "^ltrain .* -o $1 " && echo "${f#/proc/}"
    done
}
event() { # event KIND: what is done to a run that is under way
    local who=${kids[$((RANDOM % ${#kids[@]}))]}
    case $1 in
    [0-3]) kill -9 "$who" ;;
    4) kill -STOP "$who" ;;
    5) kill -TERM "$who" ;;
    6) kill -USR1 "${kids[@]}" ;;
    7) kill -USR1 "$pid" ;;
    8) kill -TERM "$pid" ;;
    9) kill -9 "$pid" ;;
    esac 2> /dev/null
}
# What the tool says of a rank's end is the starter's end too; mpirun has statuses of its own, but for
# the checkpoint that its ranks were asked for by SIGUSR1.
rightly() { # rightly STARTER KIND STATUS
    case $1.$2.$3 in
    own.[0-4].69 | own.[5678].75 | own.9.137) return 0 ;;
    own.*) return 1 ;;
    openmpi.[67].75 | mpich.*) return 0 ;;
    openmpi.[67].*) return 1 ;;
    esac
    [ "$3" -ne 0 ]
}
# Each run is cut, and the same command goes on, whoever starts it, to the bits of a run that nothing
# happened to.
events() {
    local i=0 kind way starter w k rounds=0 done_s=
    way=$((RANDOM % ${#ways[@]}))
    while [ $i -lt "$RANKS_EVENTS" ]; do
        w=(${ways[$way]})
        starter=${starters[$((RANDOM % ${#starters[@]}))]}
        (run "$starter" "${w[@]:0:1}" "$tmp/cut" "${w[@]:1}" -q --steps $steps --timeout 2) 2> "$tmp/err" &
        pid=$!
        sleep "0.$(printf %03d $((RANDOM % 600 + 100)))"
        kids=($(ranks_at "$tmp/cut"))
        kind=$((RANDOM % 10))
        if [ ${#kids[@]} -gt 0 ]; then event $kind; fi
        # MPIs poll, which takes long where processors are few
        over $([ $starter = own ] && echo 9000 || echo 30000) > "$tmp/over" || { echo "event $i, kind $kind, $starter:"; cat "$tmp/over"; return 1; }
        for k in "${kids[@]}"; do lives "$k" && { echo "rank $k is left"; return 1; }; done
        # through already; MPICH's mpirun may say so of a run that it has ended
        if [ "$rc" -eq 0 ] && { [ $starter != mpich ] || [ -e "$tmp/cut/adapter_model.safetensors" ]; }; then
            equal "$tmp/cut" "$tmp/w$way" || { echo "event $i, kind $kind, $starter"; return 1; }
            rm -r "$tmp/cut"
            rounds=$((rounds + 1)) way=$((RANDOM % ${#ways[@]}))
        elif [ ${#kids[@]} -gt 0 ] && rightly "$starter" $kind "$rc"; then
            i=$((i + 1)) done_s="$done_s $starter.$kind"
        else
            echo "event $i: kind $kind, $starter, ${ways[$way]}, ended with $rc"
            cat "$tmp/err"
            return 1
        fi
    done
    w=(${ways[$way]})
    (run own "${w[@]:0:1}" "$tmp/cut" "${w[@]:1}" -q --steps $steps) && equal "$tmp/cut" "$tmp/w$way" || return 1
    echo "$i events, $((rounds + 1)) runs to the end, seed $RANKS_SEED:$done_s"
}
ok "$RANKS_EVENTS random kills, hangs and stops: the same bits" events
sed -n 's/^/# /p' "$tmp/why" | grep events
# Stopped as one way, continued as another: the same data, order and state.
elsewhere() {
    local i w
    for i in 0 1 2; do
        w=(${ways[$i]})
        (run own "${w[@]:0:1}" "$tmp/e$i" "${w[@]:1}" -q --steps 9) || return 1
        w=(${ways[$(((i + 1) % 3))]})
        (run own "${w[@]:0:1}" "$tmp/e$i" "${w[@]:1}" -q --steps 15) || return 1
        "${train[@]}" -q --steps $steps -o "$tmp/e$i" && close_to "$tmp/e$i" "$tmp/one" || return 1
    done
}
ok 'continued by other numbers of ranks, and by one' elsewhere
echo "1..$n"
