#!/bin/bash
# ltrain killed by SIGKILL, at random moments and before every call that changes a file: started
# again with the same command, its losses and its adapter are those of an undisturbed run.
# KILLS=50: random kills; KILL_SEED: of their moments.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
KILLS=${KILLS:-50}
RANDOM=${KILL_SEED:=$$}
awk 'BEGIN { srand(3); for (i = 0; i < 20000; i++)
    printf "\\x%02x\\x%02x%s", int(rand() * 256), i % 2, i % 500 == 499 ? "\n" : "" }' |
    while read -r line; do printf '%b' "$line"; done > "$tmp/d.bin"
ltrain -q "$tmp/d.bin" --init tests/data/tiny-config.json --batch 4 --steps 3 -o "$tmp/base" || exit 70

# A step is some 20 ms, of which the 3rd, 6th ... publish; the 4th, 8th ... and the last are dense.
train=(ltrain -q "$tmp/d.bin" --model "$tmp/base" --ctx 256 --batch 8 --lr 1e-3 --save-every 3
    --group-ratio 1/4 --dense-every 4 --dense-last 0.1)
losses() { grep -oE '"step":[0-9]+|"loss_hex":"[^"]*"|"grad_norm":[^,]*' "$1/metrics.jsonl"; }
same() { # same FOLDER REFERENCE
    cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" &&
        cmp "$1/adapter_config.json" "$2/adapter_config.json" && cmp "$1/config.json" "$2/config.json" &&
        cmp <(losses "$1") <(losses "$2") && ! ls -d "$1"/*.tmp* "$1"/checkpoints/*.tmp 2> /dev/null
}
killed_at_random() {
    local steps=30 kills=0 ends=0 pid t0 ms
    "${train[@]}" --steps $steps -o "$tmp/warm" || return 1
    t0=$(date +%s%N)
    "${train[@]}" --steps $steps -o "$tmp/whole" || return 1
    ms=$((($(date +%s%N) - t0) / 1000000))
    echo "an undisturbed run takes $ms ms; seed $KILL_SEED"
    same "$tmp/warm" "$tmp/whole" || { echo 'two undisturbed runs differ'; return 1; }
    while [ $kills -lt "$KILLS" ]; do
        "${train[@]}" --steps $steps -o "$tmp/cut" &
        pid=$!
        sleep "$(printf '0.%03d' $((RANDOM % (ms * 3 / 5 < 999 ? ms * 3 / 5 : 999))))"
        kill -9 $pid 2> /dev/null
        wait $pid 2> /dev/null
        case $? in
            137) kills=$((kills + 1)) ;;
            0) same "$tmp/cut" "$tmp/whole" || return 1
                ends=$((ends + 1))
                rm -r "$tmp/cut" ;;
            *) echo 'a restart failed'; return 1 ;;
        esac
    done
    "${train[@]}" --steps $steps -o "$tmp/cut" && same "$tmp/cut" "$tmp/whole" || return 1
    echo "$kills kills, $((ends + 1)) runs ended like the undisturbed one"
}
ok "$KILLS kills at random moments: the same losses and adapter" killed_at_random
sed -n 's/^/# /p' "$tmp/why" | grep -E 'kills|takes'

# Every call: 4 steps, published after the 3rd and 4th, one checkpoint kept.
short=("${train[@]}" --steps 4 --keep 1 --micro 2 --batch 2)
killed_everywhere() {
    local calls k
    "${short[@]}" -o "$tmp/short" || return 1
    LD_PRELOAD="$tmp/killat.so" KILL_COUNT="$tmp/calls" "${short[@]}" -o "$tmp/counted" || return 1
    calls=$(cat "$tmp/calls")
    [ "$calls" -gt 40 ] || { echo "only $calls calls were seen"; return 1; }
    for k in $(seq "$calls"); do
        rm -rf "$tmp/at"
        LD_PRELOAD="$tmp/killat.so" KILL_AT=$k "${short[@]}" -o "$tmp/at" 2> /dev/null
        [ $? -eq 137 ] || { echo "call $k of $calls did not come"; return 1; }
        "${short[@]}" -o "$tmp/at" || { echo "after call $k: the restart failed"; return 1; }
        same "$tmp/at" "$tmp/short" || { echo "after call $k: another result"; return 1; }
    done
    echo "killed before each of $calls calls"
}
if [ -n "$SAN" ]; then n=$((n + 1)); echo "ok $n # SKIP a sanitizer must be loaded first"
elif ! ${CC:-cc} -shared -fPIC -O1 -D_GNU_SOURCE -o "$tmp/killat.so" tests/killat.c -ldl 2> /dev/null; then
    n=$((n + 1)); echo "ok $n # SKIP no compiler for the preloaded part"
else
    ok 'killed before every write, fsync, rename, unlink, mkdir: the same' killed_everywhere
    sed -n 's/^/# /p' "$tmp/why" | grep 'killed before'
fi
echo "1..$n"
