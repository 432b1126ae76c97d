#!/bin/bash
# tests/gpu/many.sh without GPUS: rows are measured one by one, what a call has no time for is the next one's, and
# the table says what was reached.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
export DEVICE=cpu SHAPE=tiny GPUS=2 STEPS=1 PEER=0 RESULTS="$tmp/many-2.rows"
many() { timeout 100 bash tests/gpu/many.sh "$@" > "$tmp/out" 2>&1; }
measured() { grep -c "^$1 [a-z]* {.*\"tok_s\"" "$RESULTS"; }
cut() { # two seconds are not enough for the five that are set aside for a measurement
    LIMIT=2 many dp:8192
    cat "$tmp/out"
    grep -q 'dp:8192 many: left for the next call' "$tmp/out" && grep -q '^not all rows' "$tmp/out" &&
        [ "$(measured dp:8192)" -eq 0 ] && [ "$(grep -c '^dp:8192 plan_' "$RESULTS")" -ge 1 ]
}
ok 'what there is no time for is left' cut
goes_on() {
    many dp:8192 || { cat "$tmp/out"; return 1; }
    cat "$tmp/out"
    grep -q '^all rows' "$tmp/out" && [ "$(measured dp:8192)" -eq 2 ] &&
        grep -qE '^\| dp:8192 +\| +[1-9][0-9]* \|.*\| 0.975 \| +[1-9]' "$tmp/out"
}
ok 'the next call measures it' goes_on
behind() { # no line is made twice, and a row behind it goes on
    cp "$RESULTS" "$tmp/was"
    many dp:8192 cp:102400 shard:8192 seventy:32768 dense:65536 eval:102400 evalcp:102400 || { cat "$tmp/out"; return 1; }
    cat "$tmp/out"
    head -n "$(wc -l < "$tmp/was")" "$RESULTS" | cmp - "$tmp/was" && ! grep -q '"error"' "$RESULTS" &&
        [ "$(grep -c '"ranks":2' "$RESULTS")" -eq 7 ] && grep -q '^below what must be reached:' "$tmp/out"
}
ok 'a call goes on behind the rows that are there' behind
dies() {
    many killed:5
    cat "$tmp/out"
    grep -qE '^killed:5 many \{"status":69,"ms":[0-9]{1,4},"said":".*rank [01] .*has died' "$RESULTS"
}
ok 'a rank that is killed' dies
fails() { # said in the table, and not tried again unless asked
    sed -i 's/^dense:65536 many .*/dense:65536 many {"error":"status 71: no room"}/' "$RESULTS"
    many dense:65536
    grep -q '^dense:65536, many: status 71: no room' "$tmp/out" || return 1
    AGAIN=1 many dense:65536
    ! grep -q 'no room' "$tmp/out" && [ "$(measured dense:65536)" -eq 2 ]
}
ok 'what failed is said, and tried again when asked' fails
hangs() { # a command that hangs is an error, and costs the next row nothing
    mkdir "$tmp/stub" && printf '#!/bin/sh\nexec sleep 60\n' > "$tmp/stub/leval" && chmod +x "$tmp/stub/leval"
    PATH="$tmp/stub:$PATH" SLACK=-8 many eval:4096
    cat "$tmp/out"
    grep -q '^eval:4096 many {"error":"status 124, not done in 2 s' "$RESULTS" &&
        grep -q '^eval:4096 one {"error":"status 124' "$RESULTS" && grep -q '^all rows' "$tmp/out"
}
ok 'a command that hangs is an error, and the next row goes on' hangs
ok 'no such row' eval '! many nothing:1 && grep -q "no row" "$tmp/out"'
echo "1..$n"
