#!/bin/bash
# Signals and what is like them: a stop while a tool starts, limits, a log that nobody reads, a
# file that is cut short while it is mapped.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
. tests/cli/ranks.sh
t=tests/data/tiny.model
ids 20000 1 > "$tmp/d.bin"
ltrain -q "$tmp/d.bin" --init tests/data/tiny-config.json --batch 4 --steps 1 -o "$tmp/base" || exit 70
tune=(ltrain --model "$tmp/base" --ctx 128 --batch 4 --recipe longlora-2023 --steps 1000000)
until_() { local i; for i in $(seq 3000); do "$@" 2> "$tmp/dull" && return; sleep 0.02; done; return 1; }
lines() { [ "$(wc -l < "$1")" -ge "$2" ]; }
catches() { # catches PID: it is ltrain, no longer the shell, and has a handler for SIGTERM; or its two ranks have
    local line kids
    [ "$(< "/proc/$1/comm")" = ltrain ] || return 1
    kids=($(ranks_of "$1"))
    [ ${#kids[@]} -eq 0 ] || { catches "${kids[0]}" && catches "${kids[1]}"; return; }
    while read -r line; do case $line in SigCgt:*[4-7c-f]???) return 0 ;; esac; done < "/proc/$1/status"
    return 1
}
dies() { # dies STATUS COMMAND...: a second after SIGTERM (or $signal) it has ended so
    local want=$1 pid rc i
    shift
    "$@" > "$tmp/out" 2> "$tmp/err" < "$tmp/wait" 9> "$tmp/dull" &
    pid=$!
    if [ "$want" -eq 75 ]; then until_ catches $pid; else sleep 0.5; fi
    kill -${signal:-TERM} $pid
    for i in $(seq 50); do # of naps: on a busy machine longer
        kill -0 $pid 2> "$tmp/dull" && ! grep -qs ') Z' /proc/$pid/stat || break
        sleep 0.02
    done
    kill -9 $pid 2> "$tmp/dull"
    wait $pid
    rc=$?
    cat "$tmp/err"
    [ $rc -eq "$want" ] || { echo "status $rc, not $want"; return 1; }
}
mkfifo "$tmp/wait" "$tmp/pipe"
sleep 60 > "$tmp/wait" & # a writer that writes nothing
writer=$!
clean() { kill $writer 2> "$tmp/dull"; }
ok 'ltrain waits for its config: 75' dies 75 ltrain "$tmp/d.bin" --init /dev/stdin -o "$tmp/no"
ok 'and says so' grep -q '^ltrain: stopped before the first step' "$tmp/err"
ok 'ltrain --bench' dies 143 ltrain --bench --init tests/data/tiny-config.json \
    --ctx 64 --steps 1000000 --device cpu
ok 'lprep waits for a pipe' dies 143 lprep -t $t "$tmp/pipe" -o "$tmp/no"
ok 'lpack waits for a pipe' dies 143 lpack "$tmp/pipe" -o "$tmp/no"
ok 'leval waits for its text' dies 143 leval --ppl - --model "$tmp/base" --ctx 16
talk=(lgen -i -t $t --model "$tmp/base" --ctx 64)
ok 'lgen waits for a line' dies 143 "${talk[@]}"
# Those who start processes end as one process does, and say no more.
ok 'lgen of two processes' dies 143 "${talk[@]}" --processes 2
ok 'which is not called a failure' eval '! grep -e "rank [01]" -e died "$tmp/err"'
for s in HUP:129 USR1:138; do
    ok "SIG${s%:*}" eval 'signal=${s%:*} dies ${s#*:} "${talk[@]}" --processes 2 && ! grep -e "rank [01]" -e died "$tmp/err"'
done
ok 'leval of two' dies 143 leval --ppl - --model "$tmp/base" --ctx 16 --processes 2
ok 'ltrain --bench of two' dies 143 ltrain --bench --init tests/data/tiny-config.json \
    --ctx 64 --steps 1000000 --device cpu --processes 2 --batch 2
ok 'ltrain of two, before its first step: 75' dies 75 ltrain "$tmp/d.bin" --init /dev/stdin -o "$tmp/no" --processes 2

limited() { # limited COMMAND...: no file may grow beyond 16 KiB: as a full disk, and nothing stays
    mkdir "$tmp/lim"
    (ulimit -f 16; exec "$@" > "$tmp/out" 2> "$tmp/errors")
    local rc=$?
    cat "$tmp/errors"
    [ $rc -eq 74 ] && grep -q 'File too large' "$tmp/errors" && [ -z "$(find "$tmp/lim" -name '*.tmp*')" ] &&
        [ ! -e "$tmp/lim/o/config.json" ] && rm -r "$tmp/lim"
}
for i in 1 2 3 4 5 6 7 8 9; do cat README.md ARCHITECTURE.md; done > "$tmp/text.txt"
lprep -q -t $t "$tmp/text.txt" > "$tmp/a.stream"
ok 'lprep and a limit on files: 74' limited lprep -t $t "$tmp/text.txt" -o "$tmp/lim/o"
ok 'lpack' limited lpack "$tmp/a.stream" -o "$tmp/lim/o"
ok 'ltrain' limited ltrain "$tmp/d.bin" --model "$tmp/base" --mode full --ctx 64 --steps 2 -o "$tmp/lim/o"
data=tests/data/peft_tiny/plain
ok 'lmerge' limited lmerge -m $data/base -a $data/adapter --dtype float32 -o "$tmp/lim/o"

unread() { # the steps since the last checkpoint are kept when nobody reads the metrics any more
    "${tune[@]}" "$tmp/d.bin" -o "$tmp/unread" --metrics - 2> "$tmp/errors" | head -n 3 > "$tmp/out"
    local rc=${PIPESTATUS[0]} step
    cat "$tmp/errors"
    step=$(ls "$tmp/unread/checkpoints") && step=$((10#${step#step-}))
    [ "$rc" -eq 74 ] && grep -q 'Broken pipe' "$tmp/errors" && [ $step -ge 3 ] &&
        grep -q "step $step is saved: the same command continues" "$tmp/errors" &&
        ltrain "$tmp/d.bin" --model "$tmp/base" --ctx 128 --batch 4 --steps $((step + 1)) -o "$tmp/unread" \
            --metrics - 2> "$tmp/errors" | grep -q "^{\"step\":$((step + 1)),"
}
ok 'metrics to a pipe that closes: 74, and a checkpoint of the last step' unread

cut() { # cut FILE COMMAND...: FILE becomes empty while the run reads it
    local pid file=$1 rc
    shift
    rm -rf "$tmp/cut"
    "$@" -o "$tmp/cut" --save-every 2 --keep 1 2> "$tmp/errors" &
    pid=$!
    until_ lines "$tmp/cut/metrics.jsonl" 3
    truncate -s 0 "$file"
    wait $pid
    rc=$?
    cat "$tmp/errors"
    [ $rc -eq 74 ] && grep -q "^ltrain: cannot read '$file': it was cut short" "$tmp/errors" &&
        ls "$tmp"/cut/checkpoints/step-*/state.safetensors
}
lpack -q "$tmp/a.stream" > "$tmp/a.shard"
ids 20000 1 > "$tmp/cut.bin"
ok 'raw ids cut short while they are read: 74 by name' cut "$tmp/cut.bin" "${tune[@]}" "$tmp/cut.bin"
ok 'a shard' cut "$tmp/a.shard" "${tune[@]}" "$tmp/a.shard"
echo "1..$n"
