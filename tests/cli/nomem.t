#!/bin/bash
# Memory that is not there: allocations of every tool fail in turn, its libraries' too. It ends
# with 71 and says so, or does without and writes the same bytes; what stands under a final name is
# what was there before or all of the new; no temporary stays where memory came back; a run of ltrain goes on to the same
# adapter. libarchive crashes at some of its own (139): lprep may too, and publishes nothing.
# NOMEM=8: at most so many of each command's allocations, spread over all. NOMEM_SEED=1: where the first
# of them falls; others are tried by another.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
if [ -n "$SAN" ]; then echo '1..0 # SKIP a sanitizer must be loaded first'; exit 0; fi
${CC:-cc} -shared -fPIC -O1 -D_GNU_SOURCE -o "$tmp/nomem.so" tests/nomem.c -ldl 2> /dev/null ||
    { echo '1..0 # SKIP no compiler, or no glibc, for the preloaded part'; exit 0; }
RANDOM=${NOMEM_SEED:-1}
NOMEM=${NOMEM:-8} so=$tmp/nomem.so tok=$PWD/tests/data/tiny.model
peft=$PWD/tests/data/peft_tiny/plain model=$PWD/tests/data/model/mha
export LONGLORA_BLAS=builtin
cd "$tmp" || exit 70
mkdir in
for i in 1 2 3; do sed "s/^/$i /" "$OLDPWD/tests/data/tiny.txt" | head -n 20 > in/$i.txt; done
gzip in/1.txt && tar czf in/a.tar.gz in/2.txt && zstd -q --rm in/3.txt -o in/z.txt.zst || exit 70
awk '{ gsub(/["\\\t]/, " "); printf "{\"text\": \"%s\", \"meta\": {\"id\": %d}}\n", $0, NR }' in/2.txt > in/r.jsonl
lprep -q in -t $tok > a.stream && lprep -q in/2.txt -t $tok > b.stream &&
    lpack -q -o m1 a.stream && lpack -q -o m2 --seed 3 b.stream || exit 70
awk 'BEGIN { srand(1); for (i = 0; i < 3000; i++) printf "\\x%02x\\x00\n", int(rand() * 90) }' |
    while read -r line; do printf '%b' "$line"; done > d.bin

state() { # PATH: what stands there, but for what tells times
    if [ ! -e "$1" ]; then echo none
    elif [ -f "$1" ]; then sha256sum < "$1"
    else (cd "$1" && find . -type f ! -name metrics.jsonl | sort | xargs sha256sum); fi
}
# each [CRASHES]: $setup makes the state before, $cmd changes $target
each() {
    local total k step rc now on borne=0 crashes=0
    eval "$setup"
    old=$(state "$target")
    LD_PRELOAD=$so NOMEM_COUNT=count "${cmd[@]}" > whole.out 2> err || { cat err; return 1; }
    new=$(state "$target") total=$(cat count)
    [ "$total" -ge 20 ] || { echo "only $total allocations were seen"; return 1; }
    step=$(((total + NOMEM - 1) / NOMEM))
    for ((k = 1 + RANDOM % step; k <= total; k += step)); do
        for on in 0 1; do
            eval "$setup"
            LD_PRELOAD=$so NOMEM_AT=$k NOMEM_ON=$on timeout 60 "${cmd[@]}" > out 2> err
            rc=$? now=$(state "$target")
            [ $on -eq 0 ] || rm -rf ./*.tmp* # removing needs memory: the next run would
            [ -z "$(find . -name "*.tmp*" -o -name '*.bad')" ] || { echo "allocation $k: a temporary stays"; find . -name '*.tmp*' -o -name '*.bad'; return 1; }
            if [ $rc -eq 0 ]; then # it could do without
                { [ "$now" = "$new" ] && { [ "$target" != none ] || cmp out whole.out; }; } || { echo "allocation $k: status 0, but another result"; return 1; }
                borne=$((borne + 1))
            elif [ $rc -eq 139 ] && [ $((crashes += 1)) -le "${1:-0}" ]; then
                [ "$now" = "$old" ] || { echo "allocation $k: crashed, and published"; return 1; }
            else
                [ $rc -eq 71 ] || { echo "allocation $k of $total: status $rc"; cat err; return 1; }
                grep -qi 'memory\|threads: Resource' err || { echo "allocation $k: no word of memory"; cat err; return 1; }
                [ "$now" = "$old" ] || [ "$now" = "$new" ] || { echo "allocation $k: neither old nor new"; return 1; }
            fi
        done
    done
    echo "$total allocations, every $step; $borne borne, $crashes crashes of libarchive"
}
told() { sed -n '/allocations, every/s/^/# /p' why; }
t() { local name=$1; shift; ok "$name" each "$@"; told; }

setup='rm -f o; echo before > o' target=o cmd=(lprep -q -f in -t $tok -o o)
t 'lprep -o' 99
setup=: target=none cmd=(lprep -q --text --dedup near in/r.jsonl)
t 'lprep --text' 99
setup='rm -rf d' target=d cmd=(lpack -q -o d --shard-tokens 2k --split v=0.3 a.stream)
t 'lpack -o'
setup='rm -rf d; cp -R m2 d' cmd=(lpack -q --append -o d a.stream)
t 'lpack --append'
cmd=(lpack -q --merge -f -o d m1 m2)
t 'lpack --merge'
setup='rm -rf x; mkdir x' target=x cmd=(lpack -q --export megatron -o x/x m1)
t 'lpack --export'
setup='rm -rf d' target=d cmd=(lmerge -q --model $peft/base --adapter $peft/adapter -o d)
t 'lmerge -o'
setup='rm -rf d; cp -R $peft/base d' cmd=(lmerge -q -f --model $peft/base --adapter $peft/adapter -o d)
t 'lmerge -f'
setup=: target=none cmd=(linfo --json --verify m1)
t 'linfo, shards'
cmd=(linfo --json "$model")
t 'linfo, a model'

# ltrain: without memory once, and started again, it ends as if nothing had been
train=(ltrain -q d.bin --model $peft/base --ctx 32 --batch 2 --lr 1e-3 --dense-last 0 --steps 3 --save-every 1 --keep 9
    --threads 1)
training() {
    local total k rc step
    LD_PRELOAD=$so NOMEM_COUNT=count "${train[@]}" -o whole || return 1
    total=$(cat count) step=$(((total + 2 * NOMEM - 1) / (2 * NOMEM)))
    for ((k = 1 + RANDOM % step; k <= total; k += step)); do
        rm -rf t
        LD_PRELOAD=$so NOMEM_AT=$k timeout 60 "${train[@]}" -o t > out 2> err
        rc=$?
        [ $rc -eq 71 ] && grep -qi memory err || [ $rc -eq 0 ] || { echo "allocation $k of $total: status $rc"; cat err; return 1; }
        [ $rc -eq 0 ] || "${train[@]}" -o t 2> err || { echo "allocation $k: the restart failed"; cat err; return 1; }
        # going on reads the checkpoint, without memory again: it stays a good one
        LD_PRELOAD=$so NOMEM_AT=$((k / 2 + 1)) timeout 60 "${train[@]}" --steps 4 -o t > out 2> err
        rc=$?
        [ $rc -eq 71 ] || [ $rc -eq 0 ] || { echo "allocation $((k / 2 + 1)), going on: status $rc"; cat err; return 1; }
        [ -z "$(find t -name '*.bad*')" ] || { echo "allocation $k: a checkpoint was spoilt"; cat err; return 1; }
        "${train[@]}" --steps 4 -o t 2> err || { cat err; return 1; }
        [ -n "$want" ] || want=$(sha256sum < t/adapter_model.safetensors)
        [ "$(sha256sum < t/adapter_model.safetensors)" = "$want" ] || { echo "allocation $k: another adapter"; return 1; }
        [ -z "$(find t -name '*.tmp*')" ] || { echo "allocation $k: a temporary stays"; find t; return 1; }
    done
    echo "$total allocations, every $step"
}
want=
ok 'ltrain: without memory, then again: the same adapter' training
told
scored() { # a figure, or 71
    local total k rc step
    leval -q --ppl d.bin --model $peft/base --ctx 32 --threads 1 --json > whole.out || return 1
    LD_PRELOAD=$so NOMEM_COUNT=count leval -q --ppl d.bin --model $peft/base --ctx 32 --threads 1 --json > out || return 1
    total=$(cat count) step=$(((total + NOMEM - 1) / NOMEM))
    for ((k = 1 + RANDOM % step; k <= total; k += step)); do
        LD_PRELOAD=$so NOMEM_AT=$k timeout 60 leval -q --ppl d.bin --model $peft/base --ctx 32 --threads 1 --json > out 2> err
        rc=$?
        if [ $rc -eq 0 ]; then
            [ "$(grep -o '"loss_hex[^,]*' out)" = "$(grep -o '"loss_hex[^,]*' whole.out)" ] || { echo "allocation $k: another figure"; cat out; return 1; }
        else
            [ $rc -eq 71 ] && grep -qi memory err || { echo "allocation $k of $total: status $rc"; cat err; return 1; }
        fi
    done
    echo "$total allocations, every $step"
}
ok 'leval' scored
told
little() { # address space: OpenBLAS would ask for its buffers for ever
    local v rc refused=0
    for v in 60000 150000 200000 260000 300000 340000; do
        (unset LONGLORA_BLAS; ulimit -v $v; timeout 60 leval -q --ppl d.bin --model $peft/base --ctx 32 --threads 2 > out 2> err)
        rc=$?
        [ $rc -eq 0 ] || { [ $rc -eq 71 ] && grep -q 'out of memory' err && refused=$((refused + 1)); } || { echo "$v KiB: status $rc"; cat err; return 1; }
    done
    [ $refused -gt 0 ]
}
if (unset LONGLORA_BLAS; leval -q --ppl d.bin --model $peft/base --ctx 32 > out 2> err && leval --ppl d.bin --model $peft/base --ctx 32 2>&1 | grep -q openblas)
then ok 'little address space: 71, and soon' little
else skip 'little address space' 'no OpenBLAS here'; fi
echo "1..$n"
