#!/bin/bash
# Runs of several processes: started by the tool itself, by Open MPI, by MPICH and by torchrun's
# variables; killed, hung and stopped at random moments.
# RANKS_EVENTS=100: so many events; RANKS_SEED: of their kinds and moments.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
. tests/cli/ranks.sh
RANKS_EVENTS=${RANKS_EVENTS:-10}
RANDOM=${RANKS_SEED:=$$}
host=$(hostname)
ids 20000 1 > "$tmp/d.bin"
train=(ltrain "$tmp/d.bin" --init tests/data/tiny-config.json --ctx 128 --batch 6 --micro 2 -j 1
    --lr 1e-3 --warmup 1 --save-every 4 --log-every 0)

as_one() { # as_one N: so many ranks have the losses of one
    "${train[@]}" --steps 6 --processes "$1" -o "$tmp/n$1" && close_to "$tmp/n$1" "$tmp/n1" &&
        [ -s "$tmp/n$1/summary.json" ]
}
for k in 1 2 3 4; do ok "--processes $k: the losses of one" as_one $k; done
again() { "${train[@]}" -q --steps 6 --processes 3 -o "$tmp/again" && same "$tmp/again" "$tmp/n3"; }
ok 'three processes twice: the same bits' again
together() { # a sequence over ranks, rows over pairs of them: the losses of one
    "${train[@]}" --micro 1 --attention s2 --group 24 --val "$tmp/d.bin" --val-every 3 --steps 6 \
        -o "$tmp/c1" || return 1
    for k in '2 2' '3 3' '4 2'; do
        set -- $k
        "${train[@]}" --micro 1 --attention s2 --group 24 --val "$tmp/d.bin" --val-every 3 --steps 6 \
            --processes "$1" --cp "$2" -o "$tmp/c$1" && close_to "$tmp/c$1" "$tmp/c1" || return 1
    done
}
ok '--cp: the losses of one' together
ok '--cp that does not fit' ends 64 'does not fit 3 ranks' \
    "${train[@]}" --micro 1 --processes 3 --cp 2 -o "$tmp/no"
one_speaks() { # rank 0's lines and its JSON, once
    "${train[@]}" --steps 2 --processes 3 -o "$tmp/speaks" --json > "$tmp/out" 2> "$tmp/err"
    cat "$tmp/err" "$tmp/out"
    [ "$(grep -c "model in '" "$tmp/err")" -eq 1 ] && [ "$(grep -c '"steps"' "$tmp/out")" -eq 1 ]
}
ok 'one of them speaks' one_speaks
scores() { # the perplexities, without the times
    leval -q --ppl "$tmp/d.bin" --model "$tmp/n1" --ctx 32,128 "$@" --json > "$tmp/json" &&
        [ "$(grep -c '"contexts"\|"results"' "$tmp/json")" -le 1 ] &&
        grep -oE '"(ppl|nll|perplexity|loss)": ?[^,}]*' "$tmp/json" > "$tmp/score"
}
evaluates() {
    scores && mv "$tmp/score" "$tmp/score1" && [ -s "$tmp/score1" ] && scores --processes 3 &&
        cmp "$tmp/score" "$tmp/score1"
}
ok 'leval of three: the result of one' evaluates
shares_windows() { # the losses of one to a millionth
    scores && mv "$tmp/score" "$tmp/score1" && scores --processes 4 --cp 2 || return 1
    paste -d: "$tmp/score" "$tmp/score1" | awk -F : '{ d = $2 - $4; if ($1 != $3 || d * d > 1e-12 * $2 * $2) bad = 1 }
        { print } END { exit bad || NR < 2 }'
}
ok 'leval --cp: the result of one' shares_windows
ok 'leval --cp that does not fit' ends 64 'does not fit' \
    leval -q --ppl "$tmp/d.bin" --model "$tmp/n1" --ctx 32 --processes 3 --cp 2

# What cannot be is refused, by name and at once.
ok '--gpus and --processes' ends 64 'give one of them' "${train[@]}" --gpus 2 --processes 2 -o "$tmp/no"
ok '--gpus of no number' ends 64 'must be a number or all' "${train[@]}" --gpus some -o "$tmp/no"
ok 'ranks that start ranks' ends 64 'cannot start more' \
    env WORLD_SIZE=2 RANK=0 "${train[@]}" --processes 2 -o "$tmp/no"
ok 'a place that is not said' ends 78 'where rank 0 runs is not said' \
    env WORLD_SIZE=2 RANK=0 "${train[@]}" -o "$tmp/no"
ok 'MPI where none has started it' ends 64 'not started by an MPI' \
    env WORLD_SIZE=2 RANK=0 "${train[@]}" --transport mpi -o "$tmp/no"
torch() { # torch RANK OF COMMAND...: as torchrun starts it
    local r=$1 of=$2
    shift 2
    env MASTER_ADDR=localhost MASTER_PORT="$port" WORLD_SIZE="$of" RANK="$r" "$@"
}
port=$((10000 + $$ % 5000))
other() { # other WORDS OPTION...: rank 1 has one more option; both end alike, with its name
    local words=$1 a b
    shift
    port=$((port + 1))
    torch 0 2 "${train[@]}" --steps 2 -o "$tmp/no" 2> "$tmp/err0" &
    torch 1 2 "${train[@]}" --steps 2 -o "$tmp/no" "$@" 2> "$tmp/err1"
    b=$?
    wait $!
    a=$?
    cat "$tmp/err0" "$tmp/err1"
    [ $a -eq 78 ] && [ $b -eq 78 ] && [ ! -s "$tmp/err1" ] &&
        grep -q "rank 1 on $host: $words" "$tmp/err0" && [ ! -e "$tmp/no/metrics.jsonl" ]
}
ok 'another option on one rank' other "'lr' is 0.5 here and 0.001 for rank 0" --lr 0.5
ok 'other steps' other "'save_every' is 3 here" --save-every 3
sed 's/"hidden_size": *[0-9]*/"hidden_size": 64/' tests/data/tiny-config.json > "$tmp/wide.json"
ok 'another base' other "'fresh' is" --init "$tmp/wide.json"
other_data() {
    { cat "$tmp/d.bin"; printf 'a\0'; } > "$tmp/more.bin"
    port=$((port + 1))
    torch 0 2 "${train[@]}" -o "$tmp/no" 2> "$tmp/err0" &
    torch 1 2 ltrain "$tmp/more.bin" "${train[@]:2}" -o "$tmp/no"
    [ $? -eq 78 ] && ! wait $! && grep -q "rank 1 on $host: 'data' is" "$tmp/err0"
}
ok 'other data' other_data

# Ends that nobody has asked for, and those that somebody has.
begin() { # begin FOLDER OPTION...: in the background, some steps under way; sets pid and kids
    local out=$1 i
    shift
    "${train[@]}" --steps 1000000 -o "$out" "$@" 2> "$tmp/err" &
    pid=$!
    for i in $(seq 3000); do
        [ "$(wc -l 2> /dev/null < "$out/metrics.jsonl")" -ge 2 ] 2> /dev/null && break
        sleep 0.02
    done
    kids=($(ranks_of $pid))
}
named() { grep -q "rank $1 on $host $2" "$tmp/err"; }
killed() { # killed RANK
    rm -rf "$tmp/k"
    begin "$tmp/k" --processes 3
    kill -9 "${kids[$1]}"
    over 5000 && [ "$rc" -eq 69 ] && named "$1" 'has died' && [ "$(grep -c 'has died' "$tmp/err")" -eq 1 ] &&
        grep -q "rank $1 (process ${kids[$1]}) was killed by SIGKILL" "$tmp/err"
}
ok 'rank 2 killed: 69, named, all gone' killed 2
ok 'rank 0 killed' killed 0
hangs() { # hangs RANK
    rm -rf "$tmp/k"
    begin "$tmp/k" --processes 3 --timeout 2
    kill -STOP "${kids[$1]}"
    over 7000 && [ "$rc" -eq 69 ] && named "$1" 'was not heard of for 2 s'
}
ok 'rank 1 hangs: found in --timeout 2' hangs 1
late() { # who keeps the others waiting is said before it is given up
    rm -rf "$tmp/k"
    begin "$tmp/k" --processes 2 --timeout 6 --save-every 1000000
    kill -STOP "${kids[1]}"
    sleep 4.5
    kill -CONT "${kids[1]}"
    kill -TERM "$pid"
    over 5000 && [ "$rc" -eq 75 ] &&
        grep -q "a step takes .* so far, .*: they wait for rank 1 on $host" "$tmp/err"
}
ok 'a rank that is late is named, and may come back' late
stopped() { # stopped WHO: the starter, a rank or all of them: one checkpoint, 75
    rm -rf "$tmp/k"
    begin "$tmp/k" --processes 3
    case $1 in starter) kill -TERM "$pid" ;; all) kill -USR1 "${kids[@]}" "$pid" ;;
        *) kill -TERM "${kids[$1]}" ;; esac
    over 5000 && [ "$rc" -eq 75 ] && [ "$(grep -c 'stopped by' "$tmp/err")" -eq 1 ] &&
        grep -q "step $(wc -l < "$tmp/k/metrics.jsonl") of .*checkpoint saved" "$tmp/err"
}
for w in starter 1 all; do ok "SIGTERM or SIGUSR1 to $w: 75" stopped $w; done
orphans() { # the starter killed: nobody is left
    rm -rf "$tmp/k"
    begin "$tmp/k" --processes 3
    kill -9 "$pid"
    over 1000 && [ "$rc" -eq 137 ]
}
ok 'the starter killed: no orphans' orphans

# Random events on a run of 40 steps, each followed by the same command; at the end the bits of
# a run that nothing happened to. Some continue on another number of processes.
events() {
    local steps=40 i=0 kind who rounds=0 size=3 got
    "${train[@]}" -q --steps $steps --processes 3 -o "$tmp/whole" || return 1
    while [ $i -lt "$RANKS_EVENTS" ]; do
        "${train[@]}" -q --steps $steps --processes $size --timeout 2 -o "$tmp/cut" 2> "$tmp/err" &
        pid=$!
        sleep "0.$(printf %03d $((RANDOM % 500 + 100)))"
        kids=($(ranks_of $pid))
        [ ${#kids[@]} -eq 0 ] || who=${kids[$((RANDOM % ${#kids[@]}))]}
        kind=$((RANDOM % 10))
        if [ ${#kids[@]} -gt 0 ]; then
            case $kind in
            [0-4]) kill -9 "$who" ;;
            5) kill -STOP "$who" ;;
            6) kill -TERM "$who" ;;
            7) kill -TERM "$pid" ;;
            8) kill -USR1 "${kids[@]}" ;;
            9) kill -9 "$pid" ;;
            esac 2> /dev/null
        fi
        over 8000 > "$tmp/over" || { echo "event $i, kind $kind:"; cat "$tmp/over"; return 1; }
        case $rc.$kind in
        0.*) # it was through already
            same "$tmp/cut" "$tmp/whole" || return 1
            rm -r "$tmp/cut"
            rounds=$((rounds + 1)) ;;
        69.[0-5] | 75.[678] | 137.9) i=$((i + 1)) ;;
        *) echo "event $i: kind $kind ended with $rc"; cat "$tmp/err"; return 1 ;;
        esac
    done
    "${train[@]}" -q --steps $steps --processes $size -o "$tmp/cut" && same "$tmp/cut" "$tmp/whole" || return 1
    echo "$i events, $((rounds + 1)) runs to the end, seed $RANKS_SEED"
}
ok "$RANKS_EVENTS random kills, hangs and stops: the same bits" events
sed -n 's/^/# /p' "$tmp/why" | grep events
other_size() { # stopped as three, continued as two and as one: the same data, order and state
    rm -rf "$tmp/k"
    "${train[@]}" -q --steps 40 --processes 3 -o "$tmp/k" 2> "$tmp/err" &
    pid=$!
    sleep 0.5
    kill -TERM $pid
    wait $pid
    "${train[@]}" -q --steps 40 --processes 2 -o "$tmp/k" && close_to "$tmp/k" "$tmp/whole"
}
ok 'continued by another number of processes' other_size

# The MPIs of this machine.
by_mpi() { # by_mpi NAME: the bits of our own starter, though MPI carries the data
    rm -rf "$tmp/mpi"
    mpi "$1" 3 "${train[@]}" --steps 6 -o "$tmp/mpi" 2> "$tmp/err"
    local rc=$?
    cat "$tmp/err"
    [ $rc -eq 0 ] && grep -q 'by MPI' "$tmp/err" && same "$tmp/mpi" "$tmp/n3"
}
mpi_tcp() {
    rm -rf "$tmp/mpi"
    mpi "$1" 2 "${train[@]}" --steps 6 --transport tcp -o "$tmp/mpi" 2> "$tmp/err"
    cat "$tmp/err"
    grep -q 'by TCP' "$tmp/err" && same "$tmp/mpi" "$tmp/n2"
}
mpi_begin() { # mpi_begin NAME [WRAPPER]: in the background, some steps under way
    local name=$1 i
    rm -rf "$tmp/mpi"
    mpi "$name" 3 ${2:+"$2"} "${train[@]}" --steps 1000000 -o "$tmp/mpi" 2> "$tmp/err" &
    job=$!
    for i in $(seq 3000); do
        [ "$(wc -l 2> /dev/null < "$tmp/mpi/metrics.jsonl")" -ge 2 ] 2> /dev/null && break
        sleep 0.02
    done
    kids=($(pgrep -f "^ltrain .* -o $tmp/mpi"))
    pid=$(pgrep -f "^mpi[^ ]* .* -o $tmp/mpi" | head -n 1)
}
mpi_ended() { # mpi_ended MS: all are gone by then
    local i
    for i in $(seq $(($1 / 20))); do
        pgrep -f "^ltrain .* -o $tmp/mpi" > /dev/null || break
        sleep 0.02
    done
    wait $job
    rc=$?
    cat "$tmp/err"
    ! pgrep -f "^ltrain .* -o $tmp/mpi"
}
mpi_killed() { # mpirun ends the others too, whoever is first; MPICH's leaves them no word
    mpi_begin "$1"
    kill -9 "${kids[1]}"
    mpi_ended 5000
}
# Writes down what each rank ends with.
printf '#!/bin/sh\ntrap : USR1\n"$@"\nrc=$?\necho $rc >> "%s"\nexit $rc\n' "$tmp/codes" > "$tmp/tells"
chmod +x "$tmp/tells"
mpi_stopped() { # SIGUSR1 to mpirun, which passes it on: the step's border, a checkpoint, 75
    rm -f "$tmp/codes"
    case $1 in mpich) mpi_begin "$1" "$tmp/tells" ;; *) mpi_begin "$1" ;; esac
    kill -USR1 "$pid"
    mpi_ended 5000 || return 1
    echo "mpirun ended with $rc, the ranks with:" $(cat "$tmp/codes" 2> /dev/null)
    grep -q 'stopped by SIGUSR1 after step .*, checkpoint saved' "$tmp/err" && [ ! -e "$tmp/mpi/summary.json" ] || return 1
    case $1 in
    openmpi) [ "$rc" -eq 75 ] ;; # as soon as one rank has ended so: it ends the wrappers of others
    # Before 4.1 its mpirun forgets how ranks ended once it has passed a signal on (forced_cleanup of
    # hydra's proxy): 0 where it saw none end before. So the ranks are asked.
    mpich) [ "$(tr '\n' ' ' < "$tmp/codes")" = '75 75 75 ' ] && { [ "$rc" -eq 75 ] || [ "$rc" -eq 0 ]; } ;;
    esac
}
for name in openmpi mpich; do
    if ! command -v mpirun.$name > /dev/null; then
        skip "$name" "no mpirun.$name here"
        continue
    fi
    ok "$name: the bits of our own starter" by_mpi $name
    ok "$name, --transport tcp" mpi_tcp $name
    ok "$name: a rank killed, all gone" mpi_killed $name
    ok "$name: SIGUSR1 to mpirun: each rank 75" mpi_stopped $name
done

# Two hosts: network namespaces with a link between them, which is then cut.
link=rk$$
clean() { ip netns del ${link}a; ip netns del ${link}b; } 2> /dev/null
hosts() {
    ip netns add ${link}a && ip netns add ${link}b || return 1
    ip link add ${link}a type veth peer name ${link}b && ip link set ${link}a netns ${link}a &&
        ip link set ${link}b netns ${link}b || return 1
    ip -n ${link}a addr add 10.66.26.1/24 dev ${link}a && ip -n ${link}b addr add 10.66.26.2/24 dev ${link}b &&
        ip -n ${link}a link set ${link}a up && ip -n ${link}b link set ${link}b up &&
        ip -n ${link}a link set lo up && ip -n ${link}b link set lo up
}
on() { # on HOST RANK OPTION...: rank RANK of four
    local h=$link$1 r=$2
    shift 2
    ip netns exec "$h" env MASTER_ADDR=10.66.26.1 MASTER_PORT=15626 WORLD_SIZE=4 RANK="$r" LONGLORA_TOKEN="$link" \
        "${train[@]}" --timeout 2 "$@"
}
two_hosts() { # ranks 0 and 1 here, 2 and 3 there
    local r pids=()
    for r in 0 1 2 3; do
        on $([ $r -lt 2 ] && echo a || echo b) $r --steps 6 -o "$tmp/hosts" 2>> "$tmp/err" &
        pids+=($!)
    done
    wait "${pids[@]}"
    same "$tmp/hosts" "$tmp/n4"
}
cut_link() {
    local r pids=() bad=0
    for r in 0 1 2 3; do
        on $([ $r -lt 2 ] && echo a || echo b) $r --steps 1000000 -o "$tmp/cutlink" 2> "$tmp/err$r" &
        pids+=($!)
    done
    for r in $(seq 3000); do
        [ "$(wc -l 2> /dev/null < "$tmp/cutlink/metrics.jsonl")" -ge 2 ] 2> /dev/null && break
        sleep 0.02
    done
    ip -n ${link}b link set ${link}b down
    for r in $(seq 350); do lives "${pids[@]}" || break; sleep 0.02; done
    for r in 0 1 2 3; do
        if lives "${pids[r]}"; then kill -9 "${pids[r]}"; fi
        wait "${pids[r]}"
        [ $? -eq 69 ] || { echo "rank $r: not 69"; bad=1; }
        sed "s/^/[$r] /" "$tmp/err$r"
    done
    grep -q "rank [23] on $host was not heard of" "$tmp/err0" &&
        grep -q "rank 0 on $host was not heard of" "$tmp/err2" && [ $bad -eq 0 ]
}
if hosts 2> "$tmp/why"; then
    ok 'two hosts: the bits of one' two_hosts
    ok 'the link between them is cut: 69 on both sides' cut_link
else
    skip 'two hosts' 'no network namespaces can be made here'
fi
echo "1..$n"
