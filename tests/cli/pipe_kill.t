#!/bin/bash
# lprep | lpack killed by SIGKILL at random moments, either side or both: started again with the
# same command, the shards and the manifest are those of an undisturbed run, byte for byte.
# KILLS=6: how many; KILL_SEED: of their moments.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
KILLS=${KILLS:-6}
RANDOM=${KILL_SEED:=$$}
tok=$PWD/tests/data/tiny.model
mkdir "$tmp/in"
for i in {1..40}; do
    for j in {1..40}; do echo "Book $i, chapter $j."; cat tests/data/tiny.txt; done > "$tmp/in/$i.txt"
done
cd "$tmp" || exit 70
mkdir whole cut

pack() { lpack -q -f -o shards --shard-tokens 100k --split v=0.1 "$@"; }
once() (cd "$1" && set -o pipefail && lprep -q ../in -t "$tok" | pack)
same() { diff -r whole/shards "$1/shards" && [ "$(ls -A whole/shards | wc -l)" -eq "$(ls -A "$1/shards" | wc -l)" ]; }
killed() {
    local kills=0 done=0 tries=0 t0 ms l p victims
    once whole && once cut || return 1
    same cut || { echo 'two undisturbed runs differ'; return 1; }
    rm -r cut/shards
    t0=$(date +%s%N)
    once cut || return 1
    ms=$((($(date +%s%N) - t0) / 1000000))
    rm -r cut/shards
    mkfifo cut/pipe
    echo "an undisturbed run takes $ms ms; seed $KILL_SEED"
    while [ $kills -lt "$KILLS" ] && [ $((tries += 1)) -lt $((10 * KILLS)) ]; do
        # fresh, or over what an earlier run published
        [ $((RANDOM % 2)) -eq 0 ] && rm -rf cut/shards
        (cd cut && exec lpack -q -f -o shards --shard-tokens 100k --split v=0.1 < pipe) 2> /dev/null & l=$!
        exec 9> cut/pipe # waits for lpack: killed before it has the pipe, it would leave lprep waiting for ever
        (cd cut && exec lprep -q ../in -t "$tok" >&9 9>&-) 2> /dev/null & p=$!
        exec 9>&-
        sleep "$(printf '%d.%03d' $((RANDOM % (ms + ms / 10) / 1000)) $((RANDOM % (ms + ms / 10) % 1000)))"
        case $((RANDOM % 3)) in 0) victims=$p ;; 1) victims=$l ;; *) victims="$p $l" ;; esac
        kill -9 $victims 2> /dev/null
        wait $p; p=$?
        wait $l; l=$?
        [ $p -eq 137 ] || [ $l -eq 137 ] && kills=$((kills + 1))
        # what stands there is whole, or is not there
        if [ -e cut/shards/manifest.json ]; then
            linfo -q --verify cut/shards || return 1
            for f in $(cd whole/shards && ls); do cmp "whole/shards/$f" "cut/shards/$f" || return 1; done
        fi
        [ $l -eq 0 ] && [ ! -e cut/shards/manifest.json ] && { echo 'status 0 without a data set'; return 1; }
        t0=$(date +%s%N)
        once cut || { echo 'a restart failed'; return 1; }
        ms=$((($(date +%s%N) - t0) / 1000000)) # as it is now, whatever else the machine has begun or ended
        same cut || { echo 'another result after a restart'; return 1; }
        done=$((done + 1))
    done
    [ $kills -eq "$KILLS" ] || { echo "only $kills kills in $tries tries"; return 1; }
    echo "$kills kills, $done restarts ended like the undisturbed run"
}
ok "$KILLS kills at random moments: the same shards" killed
sed -n 's/^/# /p' "$tmp/why" | grep -E 'kills|takes'
echo "1..$n"
