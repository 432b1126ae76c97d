#!/bin/bash
# lpack as a program: exit statuses, all or nothing, same bytes for same input, full disks.
cd "$(dirname "$0")/../.." || exit 70
make=$TESTBIN/test_stream # with arguments: SEED DOCS VOCAB [MAX_IDS [US [cut]]]
[ -x "$make" ] || { echo '1..0 # SKIP the stream producer is not built'; exit 0; }
. tests/cli/lib.sh
clean() { [ -z "$mnt" ] || umount "$mnt"; }
mnt=
from() { local in=$1; shift; "$@" < "$in"; }
nothing() { [ ! -e "$1" ] || { ls -la "$1"; return 1; }; } # not even the folder
only() { # FOLDER FILES: so many files are in it, and no hidden one
    [ "$(ls "$1" | wc -l)" -eq "$2" ] && [ "$(ls -A "$1" | wc -l)" -eq "$2" ] ||
        { ls -la "$1"; return 1; }
}
whole() { linfo --verify "$1"; }

"$make" 1 200 32000 > "$tmp/a.stream"
"$make" 2 100 32000 > "$tmp/b.stream"
"$make" 1 50 32000 2000 0 cut > "$tmp/cut.stream"
"$make" 1 10 128256 > "$tmp/wide.stream"
a=$tmp/a.stream b=$tmp/b.stream

# --- what goes in and out
ok 'from stdin to a folder' from "$a" lpack -q -o "$tmp/one"
ok 'it is a whole data set' whole "$tmp/one"
ok 'a folder as an operand' from "$a" lpack -q "$tmp/new/folder/"
ok 'is the same shards' eval 'cmp "$tmp"/one/*.shard "$tmp"/new/folder/*.shard'
ok 'no document at all is told' eval '"$make" 1 0 32000 > "$tmp/0.stream" && ends 0 "is empty" lpack -q -o "$tmp/zero" "$tmp/0.stream"'
ok 'from files, several shards' lpack -q --shard-tokens 20k -o "$tmp/two" "$a" "$b"
ok 'whole too' whole "$tmp/two"
same_again() {
    mkdir "$tmp/r1" "$tmp/r2"
    for d in r1 r2; do (cd "$tmp/$d" && lpack -q --shard-tokens 20k -o shards ../a.stream \
        --split v=0.2 --seed 5) || return; done
    diff -r "$tmp/r1" "$tmp/r2"
}
ok 'the same input gives the same bytes, manifest too' same_again
ok 'one shard to stdout' eval 'lpack -q < "$a" > "$tmp/one.shard" && linfo --verify "$tmp/one.shard"'
ok 'through a pipe too' eval '"$make" 1 200 32000 | lpack -q | cat | cmp - "$tmp/one.shard"'
ok '--no-shuffle keeps the order' eval 'lpack -q --no-shuffle -o "$tmp/kept" "$a" &&
    cmp "$tmp"/kept/*.shard "$tmp/one.shard"'
ok '--shuffle on stdout' eval 'lpack -q --shuffle < "$a" | cmp - "$tmp"/one/*.shard'
ok 'a shard that streams make has no name to guess' eval 'ls "$tmp/two" | grep -qE "^train-00000-[0-9a-f]{16}.shard$"'
json() { lpack --json -q -o "$tmp/json" --split v=0.5 "$a" | grep -q '"documents": 200'; }
ok '--json' json
ok '--split by pattern' eval 'lpack -q -o "$tmp/pat" --split "odd=dir1/*" "$a" && ls "$tmp"/pat/odd-00000-*'

# --- what is refused
mkdir "$tmp/full" && cp "$tmp"/one/* "$tmp/full"
ok 'a folder that holds a data set' ends 73 'replace it with -f' lpack -o "$tmp/full" "$b"
ok 'is left alone' diff -r "$tmp/one" "$tmp/full"
ok '-f replaces it' eval 'lpack -q -f -o "$tmp/full" "$b" && only "$tmp/full" 2 && whole "$tmp/full"'
ok 'a stream without END' ends 65 'without END' from "$tmp/cut.stream" lpack -o "$tmp/no"
ok 'publishes nothing' nothing "$tmp/no"
ok 'a stream without END, to replace' ends 65 'without END' lpack -f -o "$tmp/full" "$a" "$tmp/cut.stream"
ok 'leaves the old one' eval 'only "$tmp/full" 2 && whole "$tmp/full"'
ok 'no stream at all' ends 65 'no token stream: it is empty' from /dev/null lpack -o "$tmp/no"
ok 'text' ends 65 'not a token stream' lpack -o "$tmp/no" tests/cli/lpack.t
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1234567\n' 7 > "$tmp/lfs.stream"
ok 'a pointer of Git LFS' ends 65 'git lfs pull' lpack -o "$tmp/no" "$tmp/lfs.stream"
ok 'another tokenizer names both' ends 78 "a.stream' and '.*wide.stream" lpack -o "$tmp/no" "$a" "$tmp/wide.stream"
ok 'a file that is not there' ends 66 'nonexistent' lpack -o "$tmp/no" "$tmp/nonexistent"
ok 'a file where the folder should be' ends 73 'a.stream' lpack -o "$a" "$b"
ok 'two folders' ends 64 'two output folders' lpack -o "$tmp/no" "$tmp/" "$a"
ok '--split without a folder' ends 64 'output folder' lpack --split v=0.1 "$a"
ok '--split train=' ends 64 'train is what the other splits leave' lpack --split train=0.9 -o "$tmp/no" "$a"
ok 'both orders' ends 64 'exclude' lpack --shuffle --no-shuffle -o "$tmp/no" "$a"
ok 'nothing came of any of them' nothing "$tmp/no"
terminal() { script -qec "lpack '$a'" /dev/null < /dev/null > "$tmp/tty"; [ $? -eq 64 ] &&
    grep -q 'will not write a shard to the terminal' "$tmp/tty"; }
if script -qec true /dev/null > /dev/null 2>&1 < /dev/null; then ok 'a terminal' terminal
else skip 'a terminal' 'script(1) makes no terminal here'; fi
locked() { "$make" 1 1000000 32000 10 10000 | lpack -q -o "$tmp/lock" &
    local i
    for i in $(seq 1000); do # until it has locked its folder
        grep -qs ":$(stat -c %i "$tmp/lock" 2> /dev/null || echo none) " /proc/locks && break
        sleep 0.02
    done
    ends 73 'another lpack' lpack -f -o "$tmp/lock" "$a"; local rc=$?
    kill %%; wait 2> /dev/null; return $rc; }

# --- full disks
ok '/dev/full' ends 74 'No space left' from "$a" eval 'lpack > /dev/full'
fills() { # lpack into a file system of 200 KiB, which holds one data set but not two
    local rc=0
    lpack -q --no-shuffle -o "$mnt/d" "$tmp/small.stream" || return
    ends 74 'No space left' lpack -f --no-shuffle -o "$mnt/d" "$a" || rc=1
    ends 74 'No space left' lpack -f -o "$mnt/d" "$a" || rc=1
    ends 74 'No space left' lpack -o "$mnt/e" "$a" || rc=1
    nothing "$mnt/e" && only "$mnt/d" 2 && whole "$mnt/d" && return $rc
}
mkdir "$tmp/mnt"
"$make" 3 20 32000 > "$tmp/small.stream"
if mount -t tmpfs -o size=200k none "$tmp/mnt" 2> /dev/null; then
    mnt=$tmp/mnt
    ok 'a full disk leaves the old data set and no temporaries' fills
else
    skip 'a full disk leaves the old data set and no temporaries' 'cannot mount a tmpfs'
fi

# --- killed at any moment: nothing or everything
after() { # SECONDS SIGNAL WHOM: start 'producer | lpack', kill one of the two
    local out=$tmp/killed
    rm -rf "$out"
    exec 8< <(exec "$make" 1 150 32000 500 300 2> /dev/null); local left=$!
    lpack -q --shard-tokens 5k -o "$out" <&8 8<&- 2> "$tmp/err" & local right=$!
    exec 8<&-
    sleep "$1"
    if [ "$3" = left ]; then kill -"$2" $left; else kill -"$2" $right; fi 2> /dev/null
    wait $right 2> /dev/null; local rc=$?
    wait $left 2> /dev/null
    if [ $rc -eq 0 ] || [ -e "$out/manifest.json" ]; then
        whole "$out" || return 1
    fi
    [ "$2" = KILL ] && [ "$3" = right ] && return 0
    [ $rc -eq 0 ] || nothing "$out" # all but SIGKILL of lpack leave not even a temporary
}
many() { # SIGNAL WHOM
    local i t
    for i in $(seq 1 12); do
        t=$(printf '0.%03d' $((i * 11 + RANDOM % 10)))
        after "$t" "$1" "$2" || { echo "after $t s"; cat "$tmp/err"; return 1; }
    done
}
ok 'SIGKILL of the producer' many KILL left
ok 'SIGKILL of lpack' many KILL right
ok 'SIGTERM of lpack' many TERM right
next() { # what a killed run left is gone after the next
    rm -rf "$tmp/killed"; mkdir "$tmp/killed"
    touch "$tmp/killed/.lpack-0.tmp" "$tmp/killed/.lpack-12.tmp" "$tmp/killed/manifest.json.tmp99" \
        "$tmp/killed/train-00000-0123456789abcdef.shard" "$tmp/killed/mine.shard" "$tmp/killed/.lpack-x.tmp"
    lpack -q -o "$tmp/killed" "$a" || return
    rm "$tmp/killed/mine.shard" "$tmp/killed/.lpack-x.tmp" || return # not ours: must be there
    only "$tmp/killed" 2
}
ok 'leftovers go, other files stay' next
ok 'two at once' locked
replace() { # killed while replacing: the old data set or the new one, never none
    local i rc=0
    rm -rf "$tmp/old"; lpack -q -o "$tmp/old" "$b" || return
    for i in $(seq 1 15); do
        lpack -q -f --shard-tokens 5k -o "$tmp/old" "$a" 2> /dev/null & local pid=$!
        sleep "$(printf '0.%03d' $((RANDOM % 40)))"
        kill -KILL $pid 2> /dev/null
        wait $pid 2> /dev/null
        whole "$tmp/old" || return 1
    done
}
ok 'SIGKILL while replacing' replace

# --- several machines' sets to one, and adding to one
field() { linfo --json "$1" | grep -oE "\"$2\":[0-9]+" | head -n 1 | cut -d : -f 2; }
sum_is() { # FIELD A B C: what A and B have is what C has
    [ $(($(field "$2" "$1") + $(field "$3" "$1"))) -eq "$(field "$4" "$1")" ]
}
ids_of() { local d s; for d; do for s in train v; do linfo --ids -s $s "$d"; done; done | sort; }
same_docs() { cmp <(ids_of "$1" "$2") <(ids_of "$3"); }
lpack -q -o "$tmp/ma" --shard-tokens 20k --split v=0.2 "$a"
lpack -q -o "$tmp/mb" --shard-tokens 20k --split v=0.2 "$b"
ok '--merge' lpack -q --merge -o "$tmp/merged" "$tmp/ma/" "$tmp/mb"
ok 'is whole' whole "$tmp/merged"
ok 'has every document of both' same_docs "$tmp/ma" "$tmp/mb" "$tmp/merged"
ok 'adds up' eval 'sum_is tokens "$tmp/ma" "$tmp/mb" "$tmp/merged" &&
    sum_is documents "$tmp/ma" "$tmp/mb" "$tmp/merged"'
ok 'takes no second copy on one file system' eval '[ "$(stat -c %h "$tmp"/merged/train-00000-*)" -eq 2 ]'
ok 'again: the same bytes' eval 'lpack -q -f --merge -o "$tmp/merged" "$tmp/ma/" "$tmp/mb" &&
    cp -r "$tmp/merged" "$tmp/once" && lpack -q -f --merge -o "$tmp/merged" "$tmp/ma/" "$tmp/mb" &&
    diff -r "$tmp/once" "$tmp/merged"'
into_itself() { # a set among its own operands: no temporary is left of links to one file
    cp -r "$tmp/ma" "$tmp/self" && lpack -q -f --merge -o "$tmp/self" "$tmp/self" "$tmp/mb" &&
        same_docs "$tmp/ma" "$tmp/mb" "$tmp/self" && [ -z "$(ls -A "$tmp/self" | grep '^\.')" ]
}
ok 'into one of its operands' into_itself
elsewhere() { # another file system has no links to this one
    local to; to=$(mktemp -d /dev/shm/lpack.XXXXXX) || return
    lpack -q --merge -o "$to/d" "$tmp/ma" && whole "$to/d"; local rc=$?
    rm -rf "$to"; return $rc
}
[ -w /dev/shm ] && [ "$(stat -c %d /dev/shm)" != "$(stat -c %d "$tmp")" ] &&
    ok 'by copies to another file system' elsewhere || skip 'by copies' 'one file system only'
ok 'one set twice is refused' ends 65 'has the same documents as' lpack --merge -o "$tmp/no" "$tmp/ma" "$tmp/ma"
lpack -q -o "$tmp/mw" "$tmp/wide.stream"
ok 'another tokenizer is refused' ends 78 'mw' lpack --merge -o "$tmp/no" "$tmp/ma" "$tmp/mw"
damaged() {
    cp -r "$tmp/mb" "$tmp/bad" && printf '\377' | dd of="$(echo "$tmp"/bad/train-00000-*)" \
        bs=1 seek=5000 conv=notrunc status=none
    ends 65 'bad/train-00000' lpack --merge -o "$tmp/no" "$tmp/ma" "$tmp/bad"
}
ok 'one damaged token is found' damaged
ok 'no data set' ends 66 'no manifest' lpack --merge -o "$tmp/no" "$tmp/ma" "$tmp/mnt"
ok '--merge without -o' ends 64 'output folder' lpack --merge "$tmp/ma"
ok '--merge takes them as they are' ends 64 'as they are' lpack --merge --shuffle -o "$tmp/no" "$tmp/ma"
ok 'nothing came of these' nothing "$tmp/no"
cp -r "$tmp/ma" "$tmp/grown"
ok '--append' lpack -q --append -o "$tmp/grown" --shard-tokens 20k --split v=0.2 "$b"
ok 'has what it had, and what was added' eval 'whole "$tmp/grown" &&
    same_docs "$tmp/ma" "$tmp/mb" "$tmp/grown"'
ok 'left the old shards alone' eval 'for f in "$tmp"/ma/*.shard; do cmp "$f" "$tmp/grown/${f##*/}" || exit; done'
cp -r "$tmp/grown" "$tmp/grown1"
ok 'the same once more is refused' ends 65 'has the same documents as' lpack --append -o "$tmp/grown" --shard-tokens 20k --split v=0.2 "$b"
ok 'another seed too' ends 78 'seed' lpack --append -o "$tmp/grown" --seed 7 "$b"
ok 'and another tokenizer' ends 78 'wide' lpack --append -o "$tmp/grown" "$tmp/wide.stream"
ok 'it is as it was' diff -r "$tmp/grown" "$tmp/grown1"
ok '--append to nothing' ends 66 'append: cannot open' lpack --append -o "$tmp/no" "$b"
left_out() { # WANT DATA: the manifest's counts
    [ "$(linfo --json "$2" | sed 's/.*"left_out":\(\[[^]]*\]\).*/\1/')" = "$1" ] || { linfo --json "$2"; return 1; }
}
counted() { # what lprep left out stands in the manifest, through --append and --merge too
    mkdir "$tmp/l" && printf '{"text":"%s","source":"%s"}\n' x s y one words two wordy s > "$tmp/l/a.jsonl" || return
    echo '{"text":5}' >> "$tmp/l/a.jsonl"
    printf '\377' > "$tmp/l/b.txt"
    lprep -q --on-error skip --min-chars 5 -t tests/data/tiny.model "$tmp/l/a.jsonl" 2> "$tmp/err" | lpack -q -o "$tmp/l/1" &&
        left_out '[{"name":"(unread)","bad_documents":1},{"name":"one","short":1},{"name":"s","short":1}]' "$tmp/l/1" || return
    lprep -q --on-error skip --dedup exact --source s -t tests/data/tiny.model "$tmp"/l/[ab].* 2> "$tmp/err" > "$tmp/l/2.stream" &&
        left_out '[{"name":"(unread)","bad_documents":2}]' "$tmp/l/2.stream" &&
        lpack -q -o "$tmp/l/2" "$tmp/l/2.stream" && lpack -q --merge -o "$tmp/l/3" "$tmp/l/2" "$tmp/l/1" &&
        left_out '[{"name":"(unread)","bad_documents":3},{"name":"one","short":1},{"name":"s","short":1}]' "$tmp/l/3" &&
        lprep -q --min-tokens 100 --source s -t tests/data/tiny.model tests/data/tiny.txt "$tmp/l/a.jsonl" --on-error skip 2> "$tmp/err" |
            lpack -q --append -o "$tmp/l/3" && left_out '[{"name":"(unread)","bad_documents":4},{"name":"one","short":1},{"name":"s","short":1,"few_tokens":4}]' "$tmp/l/3"
}
ok 'what was left out is counted' counted
kill_append() { # killed while appending: what it was, or all of it; the next run ends the same
    local i docs
    for i in $(seq 1 15); do
        rm -rf "$tmp/k"; cp -r "$tmp/ma" "$tmp/k"
        lpack -q --append -o "$tmp/k" --shard-tokens 5k "$b" 2> /dev/null & local pid=$!
        sleep "$(printf '0.%03d' $((RANDOM % 30)))"
        kill -KILL $pid 2> /dev/null; wait $pid 2> /dev/null
        whole "$tmp/k" > /dev/null || return 1
        docs=$(field "$tmp/k" documents)
        [ "$docs" -eq 200 ] || [ "$docs" -eq 300 ] || { echo "$docs documents"; return 1; }
        [ "$docs" -eq 300 ] || lpack -q --append -o "$tmp/k" --shard-tokens 5k "$b" || return
        [ "$(field "$tmp/k" documents)" -eq 300 ] && [ -z "$(ls -A "$tmp/k" | grep '^\.')" ] ||
            return 1
    done
}
ok 'SIGKILL while appending' kill_append
echo "1..$n"
