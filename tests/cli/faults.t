#!/bin/bash
# Full and failing disks: each call that changes a file fails in turn, once or from then on. The
# exit status is a documented one, the message names a path, no temporary stays, and what stands
# under the final name is what was there before, or all of the new. Short writes change nothing.
# FAULTS=24: at most so many of each command's calls, spread over all of them,
# from a random one on.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
if [ -n "$SAN" ]; then echo '1..0 # SKIP a sanitizer must be loaded first'; exit 0; fi
${CC:-cc} -shared -fPIC -O1 -D_GNU_SOURCE -o "$tmp/failat.so" tests/failat.c -ldl 2> /dev/null ||
    { echo '1..0 # SKIP no compiler for the preloaded part'; exit 0; }
FAULTS=${FAULTS:-24} so=$tmp/failat.so tok=$PWD/tests/data/tiny.model
config=$PWD/tests/data/tiny-config.json peft=$PWD/tests/data/peft_tiny/plain
cd "$tmp" || exit 70
mkdir in
for i in 1 2 3 4 5 6 7 8 9; do sed "s/^/$i /" "$OLDPWD/tests/data/tiny.txt"; done | split -l 20 - in/t
for f in in/*; do mv "$f" "$f.txt"; done

lprep -q in -t $tok > a.stream && lprep -q in --max-docs 3 -t $tok > b.stream || exit 70
lpack -q -o m1 a.stream && lpack -q -o m2 b.stream || exit 70

# state PATH: what stands there; of a data set, what its manifest lists
state() {
    if [ ! -e "$1" ]; then echo none
    elif [ -f "$1" ]; then sha256sum < "$1"
    elif [ -f "$1/manifest.json" ]; then
        (cd "$1" && sha256sum manifest.json $(grep -o '"[^"]*\.shard"' manifest.json | tr -d '"'))
    else (cd "$1" && find . -type f | sort | xargs sha256sum); fi
}
# try K: $setup, then $cmd with call K failing, its output judged against old and new
try() {
    local rc now
    eval "$setup"
    LD_PRELOAD=$so FAIL_AT=$1 "${cmd[@]}" > out.std 2> err
    rc=$?
    now=$(state "$target")
    [ -z "$(find . -name "*.tmp*" -o -name '*.old*')" ] || { echo "call $1: a temporary stays"; find "$target"; return 1; }
    if [ $rc -eq 0 ]; then # it could do without the call
        [ "$now" = "$new" ] || { echo "call $1: status 0, but another result"; return 1; }
        borne=$((borne + 1))
        return
    fi
    case $rc in 73 | 74) ;; *) echo "call $1: status $rc"; cat err; return 1 ;; esac
    grep -q "'.*'.*\(No space left\|Input/output error\)" err || { echo "call $1: the message names no path"; cat err; return 1; }
    [ "$now" = "$old" ] || [ "$now" = "$new" ] ||
        { echo "call $1: neither old nor new"; cat err; diff <(echo "$old") <(echo "$now"); return 1; }
}
# each [CALLS [BORNE]]: $setup makes the state before, $cmd changes $target by at least so many
# calls, and can do without at most so many.
each() {
    local calls k step
    eval "$setup"
    old=$(state "$target") borne=0
    LD_PRELOAD=$so FAIL_COUNT=calls "${cmd[@]}" > out.std || return 1
    new=$(state "$target") calls=$(cat calls)
    [ "$old" != "$new" ] || { echo 'the command changes nothing'; return 1; }
    [ "$calls" -ge "${1:-5}" ] || { echo "only $calls calls were seen"; return 1; }
    step=$(((calls + FAULTS - 1) / FAULTS))
    for ((k = 1 + RANDOM % step; k <= calls; k += step)); do
        FAIL_ERRNO=28 FAIL_ON=1 try $k || return 1
        FAIL_ERRNO=5 try $k || return 1
    done
    echo "$calls calls, every $step; $borne were borne"
    [ $borne -le "${2:-0}" ]
}
told() { sed -n '/calls, every/s/^/# /p' why; }

# lprep writes a stream, which has no name to be kept back from: it must be known to be cut.
cut_stream() {
    local calls k rc
    mkdir -p many
    for k in {1..60}; do cat in/*.txt > "many/$k.txt"; done
    LD_PRELOAD=$so FAIL_COUNT=calls lprep -q many -t $tok > whole.stream || return 1
    calls=$(cat calls)
    for ((k = 1; k <= calls; k++)); do
        LD_PRELOAD=$so FAIL_AT=$k lprep -q many -t $tok > cut.stream 2> err
        rc=$?
        [ $rc -eq 74 ] && grep -q "'standard output': No space left" err || { echo "call $k: $rc"; cat err; return 1; }
        linfo -q cut.stream 2> /dev/null
        [ $? -eq 65 ] || { echo "call $k: a cut stream is taken"; return 1; }
    done
    echo "$calls calls, every 1"
}
ok 'lprep: a cut stream is known as one' cut_stream
told
setup='rm -f stats; echo before > stats' cmd=(lprep -q in -t $tok --stats stats) target=stats
ok 'lprep --stats' each
setup='rm -f o; echo before > o' cmd=(lprep -q -f in -t $tok -o o) target=o
ok 'lprep -o' each
setup='rm -rf d' cmd=(lpack -q -o d --shard-tokens 2k --split v=0.3 a.stream) target=d
ok 'lpack -o, a new folder' each 20
told
setup='rm -rf d; cp -R m2 d' cmd=(lpack -q -f -o d --shard-tokens 2k a.stream)
ok 'lpack -f, over another data set' each 20
told
cmd=(lpack -q --append -o d a.stream)
ok 'lpack --append' each
told
cmd=(lpack -q --merge -f -o d m1 m2)
ok 'lpack --merge' each 5 2 # a link that fails becomes a copy
told
setup='rm -f x; echo before > x' cmd=(lpack -q -f --export u16 -o x m1) target=x
ok 'lpack --export, over another file' each
setup='rm -rf d; mkdir d' cmd=(lpack -q --export megatron -o d/x m1) target=d
ok 'lpack --export, two files' each 8
cmd=(lpack -q --export llmc --shard-tokens 1k -o d/x.bin m1)
ok 'lpack --export, many files' each 12
told
setup='rm -rf d' cmd=(lmerge -q --model $peft/base --adapter $peft/adapter -o d)
ok 'lmerge -o, a new folder' each 10
told
setup='rm -rf d; cp -R $peft/base d' cmd=(lmerge -q -f --model $peft/base --adapter $peft/adapter -o d)
ok 'lmerge -f, over another model' each 10
told

slow_swap() { # EINVAL, as where a file system cannot exchange two names: three renames do it
    local k rc borne=0
    for ((k = 1; k <= $(cat calls); k++)); do
        eval "$setup"
        LD_PRELOAD=$so FAIL_ERRNO=22 FAIL_AT=$k "${cmd[@]}" > out.std 2> err
        rc=$?
        [ "$(state d)" = "$new" ] && [ $rc -eq 0 ] && borne=$((borne + 1))
        eval "$setup" # and where none of those can be done
        LD_PRELOAD=$so FAIL_ERRNO=22 FAIL_AT=$k FAIL_ON=1 "${cmd[@]}" > out.std 2> err
        rc=$?
        [ $rc -eq 73 ] || [ $rc -eq 74 ] || { echo "call $k: status $rc"; cat err; return 1; }
        [ "$(state d)" = "$old" ] || [ "$(state d)" = "$new" ] || { echo "call $k: neither old nor new"; return 1; }
        [ -z "$(find . -name '*.tmp*' -o -name '*.old*')" ] || { echo "call $k: a temporary stays"; return 1; }
    done
    [ $borne -eq 1 ] || { echo "$borne calls were borne"; return 1; }
}
ok 'lmerge -f without an exchange of names' slow_swap

# ltrain: killed by a full disk and started again, it ends as if nothing had been.
head -c 20000 /dev/zero | tr '\0' '\1' > d.bin
ltrain -q d.bin --init $config --batch 4 --steps 2 -o base || exit 70
train=(ltrain -q d.bin --model base --ctx 64 --batch 2 --micro 2 --lr 1e-3 --steps 3 --save-every 2 --keep 1)
same() { cmp "$1/adapter_model.safetensors" whole/adapter_model.safetensors &&
    [ -z "$(find "$1" -name '*.tmp*')" ]; }
training() {
    local calls k rc step borne=0
    LD_PRELOAD=$so FAIL_COUNT=calls "${train[@]}" -o whole || return 1
    calls=$(cat calls) step=$(((calls + FAULTS / 2 - 1) / (FAULTS / 2)))
    [ "$calls" -gt 30 ] || { echo "only $calls calls were seen"; return 1; }
    for ((k = 1; k <= calls; k += step)); do
        rm -rf t
        LD_PRELOAD=$so FAIL_AT=$k FAIL_ON=1 "${train[@]}" -o t > out.std 2> err
        rc=$?
        if [ $rc -eq 0 ]; then
            borne=$((borne + 1))
        else
            [ $rc -eq 73 ] || [ $rc -eq 74 ] || { echo "call $k: status $rc"; cat err; return 1; }
            grep -q "'.*'.*No space left" err || { echo "call $k: the message names no path"; cat err; return 1; }
            [ ! -e t/adapter_config.json ] || linfo -q --verify t || { echo "call $k: half an adapter"; return 1; }
            "${train[@]}" -o t || { echo "after call $k: the restart failed"; return 1; }
        fi
        same t || { echo "call $k: another result"; return 1; }
    done
    echo "$calls calls, every $step; $borne were borne"
    [ $borne -eq 0 ]
}
ok 'ltrain: a full disk, then room: the same adapter' training
told

short() { # TARGET COMMAND...: the same bytes although every write writes half
    local want target=$1
    shift
    rm -rf "$target"
    "$@" > "$tmp/std1" || return 1
    want=$(state "$target")
    rm -rf "$target"
    LD_PRELOAD=$so FAIL_SHORT=1 "$@" > "$tmp/std2" || return 1
    [ "$(state "$target")" = "$want" ] && cmp "$tmp/std1" "$tmp/std2"
}
journal() { # a full disk under lpack's journal, then room: the same data set
    local calls k rc step
    rm -rf w d
    lprep -q --resume d many -t $tok > run.stream && lpack -q -o w --shard-tokens 2k run.stream || return 1
    LD_PRELOAD=$so FAIL_COUNT=calls lpack -q -o d --shard-tokens 2k run.stream || return 1
    calls=$(cat calls) step=$(((calls + FAULTS - 1) / FAULTS))
    for ((k = 1 + RANDOM % step; k <= calls; k += step)); do
        rm -rf d
        LD_PRELOAD=$so FAIL_AT=$k FAIL_ON=1 lpack -q -o d --shard-tokens 2k run.stream 2> err
        rc=$?
        [ $rc -eq 73 ] || [ $rc -eq 74 ] || { echo "call $k: status $rc"; cat err; return 1; }
        grep -q "'.*'.*No space left" err || { echo "call $k: the message names no path"; cat err; return 1; }
        [ -z "$(find . -name "*.tmp*")" ] || { echo "call $k: a temporary stays"; return 1; }
        [ -e d/manifest.json ] || lprep -q --resume d many -t $tok | lpack -q -o d --shard-tokens 2k || { echo "after call $k: the restart failed"; return 1; }
        rm -f d/lpack.* && [ "$(cat w/*.shard | sha256sum)" = "$(cat d/*.shard | sha256sum)" ] || { echo "call $k: another result"; return 1; }
    done
    echo "$calls calls, every $step; 0 were borne"
}
ok 'lpack with a journal: a full disk, then room: the same data set' journal
told
ok 'short writes: lpack with a journal' short d lpack -q -o d run.stream
ok 'short writes: lprep' short none lprep -q in -t $tok
ok 'short writes: lprep --text' short none lprep -q --text in
ok 'short writes: lpack to a folder' short d lpack -q -o d --shard-tokens 2k a.stream
ok 'short writes: lpack to stdout' short none lpack -q a.stream
ok 'short writes: lmerge' short d lmerge -q --model $peft/base --adapter $peft/adapter -o d
ok 'short writes: ltrain' eval 'rm -rf t; LD_PRELOAD=$so FAIL_SHORT=1 "${train[@]}" -o t && same t'
ok 'short writes: linfo' short none linfo --docs a.stream
echo "1..$n"
