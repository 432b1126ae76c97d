#!/bin/bash
# lprep --resume DIR | lpack -o DIR, killed by SIGKILL at random moments, either side or both, again
# and again: the same command goes on behind the inputs that are on disk, does not read those again,
# and ends with the bytes of an undisturbed run. KILLS=12: how many; KILL_SEED: of their moments.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
KILLS=${KILLS:-12}
RANDOM=${KILL_SEED:=$$}
data=$PWD/tests/data tok=$PWD/tests/data/tiny.model
mkdir "$tmp/in"
for i in {1..60}; do # every 7th is a copy, every 9th JSON lines of which one is bad, one file is cut
    k=$((i % 7 == 0 ? 1 : i)) f=$tmp/in/$((100 + i)).txt
    for j in {1..8}; do echo "Book $k, chapter $j."; sed "s/e/$((k % 10))/" tests/data/tiny.txt; done > "$f"
    [ $((i % 9)) -ne 0 ] || { awk '{ gsub(/["\\]/, ""); printf "{\"text\":\"%s\",\"source\":\"s%d\"}\n", $0, NR % 3 } END { print "{" }' \
        "$f" > "${f%txt}jsonl"; rm "$f"; }
done
gzip -c "$tmp/in/101.txt" | head -c 900 > "$tmp/in/130a.txt.gz"
cd "$tmp" || exit 70
prep() { lprep -q -t "$tok" --on-error skip --sample s1=0.5 --max-tokens 100k "$@" 2>> "$tmp/notes"; }
folder_of() { (cd "$1" && sha256sum *.shard && grep -v '^ *"' manifest.json && unsealed manifest.json | sed '/"command"/,$d' | sha256sum); }
same() { folder_of "$1" > a.sum && folder_of "$2" | cmp a.sum - && [ "$(ls -A "$1")" = "$(ls -A "$2")" ]; }

killed() { # NAME LPREP-OPTIONS -- LPACK-OPTIONS: killed until done, KILLS / 4 times at least
    local name=$1 o=() kills=0 runs=0 went_on=0 t0 ms l p
    shift
    while [ "$1" != -- ]; do o+=("$1"); shift; done; shift
    rm -rf whole cut
    t0=$(date +%s%N)
    prep --stats whole.json "${o[@]}" in | lpack -q -o whole "$@" || return 1
    ms=$((($(date +%s%N) - t0) / 1000000 + 5))
    [ -p pipe ] || mkfifo pipe
    while [ $((runs += 1)) -lt 500 ]; do
        lpack -q -o cut "$@" < pipe 2>> "$tmp/notes" & l=$!
        exec 9> pipe # waits for lpack: killed before it has the pipe, it would leave lprep waiting for ever
        (prep --stats cut.json --resume cut "${o[@]}" in >&9 9>&-) & p=$!
        exec 9>&-
        if [ $kills -lt $((KILLS / 4)) ]; then
            sleep "$(printf '0.%03d' $((RANDOM % ms)))"
            case $((RANDOM % 3)) in 0) kill -9 $l ;; 1) pkill -9 -P $p ;; *) pkill -9 -P $p; kill -9 $l ;; esac 2> /dev/null
        fi
        wait $p; p=$?
        wait $l; l=$?
        [ $p -le 128 ] && [ $l -le 128 ] || kills=$((kills + 1))
        if [ -e cut/manifest.json ]; then
            [ $l -ne 137 ] || rm -f cut/lpack.* # killed between the manifest and the journal's end
            same whole cut || { ls -lA whole cut; cat a.sum; folder_of cut; echo 'another result'; return 1; }
            [ $kills -ge $((KILLS / 4)) ] && break
            rm -rf cut
        elif [ $l -eq 0 ]; then
            echo 'status 0 without a data set'; return 1
        elif [ $kills -ge $((KILLS / 4)) ] && [ $p -eq 0 ] && [ $l -ne 137 ]; then
            cat "$tmp/notes"; echo "it does not go on: $p $l"; return 1
        fi
        [ ! -e cut/lpack.docs ] || [ ! -s cut/lpack.docs ] || went_on=$((went_on + 1))
    done
    [ $kills -ge $((KILLS / 4)) ] || { echo "only $kills kills"; return 1; }
    cmp whole.json cut.json || { diff whole.json cut.json; echo "other counts; run $runs ended with $p and $l"; return 1; }
    echo "$name: $kills kills of runs of $ms ms, gone on with $went_on times; seed $KILL_SEED" >> "$tmp/how"
}
ok 'killed at random moments: the same bytes' killed plain -- --shard-tokens 20k --split v=0.1
ok 'in order' killed 'in order' -- --no-shuffle --shard-tokens 20k
ok 'without copies' killed 'exact copies' --dedup exact -- --split v=0.1
ok 'without near copies, in little memory' killed 'near copies' --dedup near --dedup-memory 64k --threads 3 -- --seed 3
sed 's/^/# /' "$tmp/how" 2> /dev/null

# --- by hand: a stream that stops behind some inputs
cut_at() { # BYTES [LPREP-OPTIONS]: folder j of a run that ended there
    local bytes=$1; shift
    rm -rf j; prep --resume j "$@" in > j.stream && head -c "$bytes" j.stream > j.cut && ! lpack -q -o j j.cut 2> "$tmp/err"
}
pack_on() { prep --resume j "$@" in > j.stream && lpack -q -o j j.stream; }
rm -rf whole; prep --dedup exact in > whole.stream; lpack -q -o whole whole.stream
again() { # what is done is not read: other bytes of the same size and time would show
    cut_at 400000 --dedup exact || return 1
    cp -p in/101.txt in/102.txt . && tr a-z A-Z < 101.txt > in/101.txt && : > in/102.txt && truncate -s "$(stat -c %s 102.txt)" in/102.txt &&
        touch -r 101.txt in/101.txt && touch -r 102.txt in/102.txt || return 1
    pack_on --dedup exact; local rc=$?
    cp -p 101.txt 102.txt in/
    [ $rc -eq 0 ] && same whole j && [ "$(stat -c %s j.stream)" -lt $(($(stat -c %s whole.stream) - 200000)) ] || { ls -la j; return 1; }
}
ok 'what is done is not read again' again
opened() { # by the system calls
    cut_at 400000 && prep --resume j in > j.stream 2> /dev/null && strace -f -e trace=open,openat -o trace lprep -q -t "$tok" \
        --on-error skip --sample s1=0.5 --max-tokens 100k --resume j in > j.stream 2> /dev/null &&
        ! grep -q 'in/101.txt' trace && ! grep -q 'in/103.txt' trace && grep -q 'in/160.txt' trace
}
if [ -z "$SAN" ] && command -v strace > /dev/null && strace -o /dev/null true 2> /dev/null; then ok 'nor opened' opened; else skip 'nor opened' 'no strace, or one under a sanitizer'; fi
torn() { # the journal cut at any byte, or one bit of it turned: less is known, or nothing
    cut_at 400000 && cp -r j j0 || return 1
    local n at; n=$(stat -c %s j/lpack.journal)
    for at in 0 1 331 332 400 $((n / 3)) $((n / 2)) $((n - 1)); do
        rm -rf j; cp -r j0 j; truncate -s $at j/lpack.journal; pack_on && same plain j || { echo "cut at $at"; return 1; }
        rm -rf j; cp -r j0 j; printf '\377' | dd of=j/lpack.journal bs=1 seek=$at conv=notrunc status=none
        pack_on && same plain j || { echo "turned at $at"; return 1; }
    done
    rm -rf j; cp -r j0 j; truncate -s 100 j/lpack.docs; prep --resume j in > j.stream; ends 65 'lpack.docs' lpack -q -o j j.stream || return 1
    rm -rf j; cp -r j0 j; printf '\377' | dd of=j/lpack.index bs=1 seek=9 conv=notrunc status=none; ends 65 'lpack.index' lpack -q -o j j.stream || return 1
    rm -rf j; cp -r j0 j; printf '\377' | dd of=j/lpack.docs bs=1 seek=90 conv=notrunc status=none; ends 74 'a temporary file changed after it was written' lpack -q -o j j.stream || return 1
    rm -rf j0
}
prep in | lpack -q -o plain
ok 'a torn or damaged journal' torn
one=$(cd in && ls | head -n 1)
refused() { cut_at 400000 || return 1; ends "$@"; }
again_with() { ends 78 "$1" prep --resume j "${@:2}"; }
prep() { lprep -q -t "$tok" --on-error skip --sample s1=0.5 --max-tokens 100k "$@"; }
prepare() { cut_at 400000 2> /dev/null; }
prepare
ok 'another option is refused by name' ends 78 "with 'min-chars 0', not 'min-chars 9'" prep --resume j in --min-chars 9
ok 'a choice too' ends 78 "with 'utf8 strict', not 'utf8 replace'" prep --resume j in --utf8 replace
ok 'a list too' ends 78 "'sample s2=0.5'" prep --resume j in --sample s2=0.5
ok 'another tokenizer' ends 78 'different tokenizers' eval 'cp $tok other.model && printf "\300\076\001" >> other.model && lprep -q -t "$PWD/other.model" --on-error skip \
    --sample s1=0.5 --max-tokens 100k --resume j in'
ok 'another order' ends 78 "as input 1, not 'in/102.txt'" prep --resume j in/102.txt in/101.txt
ok 'fewer inputs' ends 78 "not 'none'" prep --resume j in/101.txt
ok 'a changed input' eval 'cp -p in/102.txt . && touch in/102.txt && ends 78 "in/102.txt. has changed" prep --resume j in; rc=$?; cp -p 102.txt in/; [ $rc -eq 0 ]'
ok 'one of another size and the same time' eval 'cp -p in/102.txt . && printf x >> in/102.txt && touch -r 102.txt in/102.txt &&
    ends 78 "in/102.txt. has changed" prep --resume j in; rc=$?; cp -p 102.txt in/; [ $rc -eq 0 ]'
ok 'threads, notes and figures may change' eval 'prep --resume j in -j 1 --stats s.json -v > j.stream 2> /dev/null && cp -r j j1 && lpack -q -o j1 j.stream && same plain j1'
ok 'what reads a data set says what it is' ends 66 'run the same command again to continue it' lpack --merge -o k j
ok 'standard input' ends 64 'standard input' eval 'echo x | prep --resume j'
ok '--text' ends 64 'no stream to --resume' lprep --text --resume j in
ok 'another folder' ends 65 'same folder' lpack -o k j.stream
ok 'not beside other streams' ends 64 'must be the only input of lpack -o' eval 'prep in > p.stream 2> /dev/null; lpack -o j j.stream p.stream'
ok 'nor to one shard' ends 64 'must be the only input of lpack -o' eval 'lpack < j.stream'
ok 'lpack without --resume leaves it alone' ends 73 'did not finish' eval 'prep in 2> /dev/null | lpack -o j'
ok 'and the journal is as it was' pack_on
ok 'it is gone then' eval 'same plain j && ! ls -A j | grep -q ^lpack'
ok 'a data set that is whole is not begun anew' ends 73 'holds a data set' eval 'prep --resume j in 2> /dev/null | lpack -o j'
anew() { prepare && prep in | lpack -q -f -o j && same plain j; }
ok '-f begins anew' anew
inert() { # killed between the manifest and the journal's end
    prepare && cp j/lpack.* . && pack_on && cp lpack.* j/ && ! prep --resume j in 2> /dev/null | lpack -o j 2> "$tmp/err" &&
        prep --resume j in | lpack -q -f -o j && same plain j && cp lpack.* j/ && prep --resume j in/101.txt | lpack -q -f -o j && ls -A j && ! same plain j
}
ok 'a journal of what is published is nothing' inert
append() {
    rm -rf j j0; prep in/101.txt | lpack -q -o j && cp -r j j0 && prep in | lpack -q --append -o j0 || return 1
    prep --resume j in > j.stream && head -c 400000 j.stream | lpack -q --append -o j 2> "$tmp/err"
    prep --resume j in > j.stream && [ "$(stat -c %s j.stream)" -lt 1500000 ] && lpack -q --append -o j j.stream && same j0 j
}
ok '--append' append
stopped() { # at a bad input: mended, it goes on
    rm -rf j k; cp -rp in bad && printf '\377' > bad/135.txt && ! lprep -q --resume j -t "$tok" --include '*.txt' bad 2> /dev/null | lpack -q -o j 2> "$tmp/err" &&
        cp -p in/135.txt bad/ && lprep -q -t "$tok" --include '*.txt' --resume j bad > j.stream && lpack -q -o j j.stream &&
        lprep -q -t "$tok" --include '*.txt' bad > k.stream && lpack -q -o k k.stream && same k j && [ "$(stat -c %s j.stream)" -lt "$(stat -c %s k.stream)" ]
}
ok 'a bad input is mended, and it goes on' stopped
near() { # copies of what an earlier run has kept, but for a word
    mkdir near && for i in {10..69}; do
        awk -v i=$i 'BEGIN { srand(i % 6 ? i : 10); for (k = 0; k < 900; k++) printf "w%d ", rand() * 99999; print i }' > near/$i.txt
    done
    local o="lprep -q -t $tok --dedup near --dedup-memory 64k"
    rm -rf j k && $o near > k.stream 2> /dev/null && lpack -q -o k k.stream && [ "$(linfo --docs k | wc -l)" -eq 50 ] || return 1
    $o --resume j near 2> /dev/null | head -c 300000 | lpack -q -o j 2> /dev/null
    $o --resume j near > j.stream 2> /dev/null && lpack -q -o j j.stream && same k j && [ "$(stat -c %s j.stream)" -lt "$(stat -c %s k.stream)" ]
}
ok '--dedup near' near
older() { # a journal that an older lpack wrote is refused by name, and its data set begun anew
    rm -rf j && prep --resume j in | head -c 300000 | lpack -q -o j 2> /dev/null
    cp "$data/journal-v2" j/lpack.journal
    ends 78 "has version 2, from an older lpack" prep --resume j in
}
ok 'a journal of an older version' older
evaluation() { # what copies are looked for in must be what it was
    echo 'a b c d e f g h i j k l m n o' > eval.txt; rm -rf j
    prep --decontaminate eval.txt --resume j in | head -c 300000 | lpack -q -o j 2> "$tmp/err"
    touch eval.txt && ends 78 "'decontaminate eval.txt, 30 bytes" prep --decontaminate eval.txt --resume j in
}
ok '--decontaminate by a file that has changed' evaluation
other_run() { # a stream that goes on with a run is for no other's journal, be it as long
    rm -rf j; prep --min-chars 1 --resume j in | head -c 400000 | lpack -q -o j 2> "$tmp/err"; prep --min-chars 1 --resume j in > j.stream
    rm -rf j; prep --min-chars 2 --resume j in | head -c 400000 | lpack -q -o j 2> "$tmp/err"; ends 65 'no journal of the run' lpack -q -o j j.stream
}
ok 'nor for another run' other_run
inside() { # a mark of keys within an input is nothing to go on from
    mkdir many && cat in/10[1-6].txt > many/1.txt && echo end > many/3.txt && seq 70000 | sed 's/.*/{"text":"&"}/' > many/2.jsonl || return 1
    local m="lprep -q -t $tok --dedup exact" size; rm -rf j k
    $m --resume j many > j.stream && size=$(stat -c %s j.stream) && lpack -q -o k < <($m many) || return 1
    head -c $((size - 150000)) j.stream | lpack -q -o j 2> "$tmp/err"
    [ "$(stat -c %s j/lpack.journal)" -gt 1000000 ] || { ls -l j; echo 'no mark of keys'; return 1; }
    $m --resume j many > j.stream && [ "$(stat -c %s j.stream)" -lt "$size" ] && head -c $((size / 2)) j.stream | lpack -q -o j 2> "$tmp/err"
    $m --resume j many | lpack -q -o j && same k j
}
ok 'a mark within an input' inside
twice() { # a torn end of the journal is cut off, and what is added behind it counts
    cut_at 400000 && truncate -s -3 j/lpack.journal && prep --resume j in > j.stream && local first; first=$(stat -c %s j.stream)
    head -c 500000 j.stream | lpack -q -o j 2> "$tmp/err"
    prep --resume j in > j.stream && [ "$(stat -c %s j.stream)" -lt $((first - 300000)) ] && lpack -q -o j j.stream && same plain j
}
ok 'gone on with twice, behind a torn end' twice
skipped() { # what was left out before it was killed stands there too
    rm -rf j bad left.*; mkdir bad && cp -p in/*.txt bad && for i in 105 122 130; do printf '\377' > bad/${i}a.txt; done
    lprep -q -t "$tok" --on-error skip --skipped left.whole bad > k.stream 2> /dev/null
    lprep -q -t "$tok" --on-error skip --skipped left.cut --resume j bad 2> /dev/null | head -c 400000 | lpack -q -o j 2> "$tmp/err"
    lprep -q -t "$tok" --on-error skip --skipped left.cut --resume j bad 2> /dev/null > j.stream
    wc -l left.*; [ "$(stat -c %s j.stream)" -lt "$(stat -c %s k.stream)" ] && [ "$(wc -l < left.whole)" -gt 2 ] && sort -u left.cut | cmp - left.whole
}
ok '--skipped' skipped
lists() { # where lists and counts cannot be written the stream does not end, and nothing is published
    local o
    for o in --stats --removed --skipped; do
        rm -f a.list; prep $o all.list in > j.stream 2> "$tmp/err" || return 1
        rm -rf j; prep $o /dev/full --resume j in > j.stream 2> "$tmp/err"; [ $? -eq 74 ] || { cat "$tmp/err"; echo "$o: not 74"; return 1; }
        ends 65 'without END' lpack -o j j.stream && [ ! -e j/manifest.json ] || { echo "$o: published"; return 1; }
        prep $o a.list --resume j in > j.stream 2> "$tmp/err" && lpack -q -o j j.stream && same plain j && [ -s a.list ] &&
            cmp all.list a.list || { echo "$o: not gone on with"; return 1; }
    done
}
ok 'counts and lists are there before the end is' lists
part() { # of many machines
    rm -rf j k; prep --part 2/3 in | lpack -q -o k && prep --part 2/3 --resume j in | head -c 300000 | lpack -q -o j 2> "$tmp/err"
    prep --part 2/3 --resume j in | lpack -q -o j && same k j
}
ok '--part' part
limit() { # --max-docs counts what was done before
    rm -rf j k; prep --max-docs 50 in | lpack -q -o k && prep --max-docs 50 --resume j in | head -c 150000 | lpack -q -o j 2> "$tmp/err"
    prep --max-docs 50 --resume j in | lpack -q -o j && same k j
}
ok '--max-docs' limit
echo "1..$n"
