#!/bin/bash
# linfo as a program: every form is known, documents come back as they were, damage is found.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
says() { # PATTERN COMMAND...: on stdout
    local words=$1
    shift
    "$@" > "$tmp/out" || return
    grep -q -- "$words" "$tmp/out" || { cat "$tmp/out"; return 1; }
}
from() { local in=$1; shift; "$@" < "$in"; }
flip() { # FILE OFFSET: turns one bit
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1") || return
    printf "\\x$(printf %x $((byte ^ 64)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

export LC_ALL=C
data=tests/data/peft_tiny tok=tests/data/tiny.model
mkdir "$tmp/in"
cp tests/data/tiny.txt "$tmp/in/a.txt"
printf 'Two  spaces,\n\na tab\t, no newline at the end: \xc3\xbc \xe2\x82\xac' > "$tmp/in/b.txt"
printf ' begins with a space\n' > "$tmp/in/c.txt"
lprep -q "$tmp/in" -t $tok > "$tmp/s.stream"
lprep -q --add-bos "$tmp/in" -t $tok > "$tmp/bos.stream"
lpack -q < "$tmp/s.stream" > "$tmp/one.shard"
lpack -q --no-shuffle -o "$tmp/shards" "$tmp/s.stream"
lpack -q --split validation='*b.txt' -o "$tmp/split" "$tmp/s.stream"

# --- what it is
ok 'shards' says 'form  *shards' linfo "$tmp/shards"
ok 'shards by their manifest' says 'documents  *3' linfo "$tmp/shards/manifest.json"
ok 'from inside the folder' eval '(cd "$tmp/shards" && linfo manifest.json && linfo .)'
ok 'a shard' says 'form  *shard$' linfo "$tmp/one.shard"
ok 'a token stream' says 'form  *token stream' linfo "$tmp/s.stream"
ok 'a token stream on stdin' from "$tmp/s.stream" says 'documents  *3' linfo -
ok 'a token stream in a pipe' eval 'cat "$tmp/s.stream" | says "documents  *3" linfo /dev/stdin'
ok 'a model' says 'parameters  *7760' linfo $data/plain/base
ok 'an adapter' says 'pairs_on  *q_proj k_proj v_proj o_proj' linfo $data/plain/adapter
ok 'a safetensors file' says 'types  *F32 21' linfo $data/plain/merged.safetensors
ok 'every tensor, with -v' says 'model.norm.weight  type F32  shape 16$' linfo -v $data/plain/base
ok 'a tokenizer' says 'vocab  *400' linfo $tok
ok 'several at once' eval 'linfo $data/plain/base $tok | grep -c form | grep -qx 2'
ok 'JSON, one value a line' eval '[ "$(linfo --json -v $data/plain/base $tok "$tmp/shards" | wc -l)" -eq 3 ]'
ok 'splits are named' says 'name validation' linfo "$tmp/split"
ok 'quiet prints nothing' eval '[ -z "$(linfo -q --verify "$tmp/shards" $data/plain/base)" ]'

# --- documents
text_back() { # PATH OPTIONS...: documents 0, 1, 2 are the three files
    local i=0 f
    for f in a b c; do
        linfo --doc $i -t $tok "$@" | cmp - "$tmp/in/$f.txt" || return
        i=$((i + 1))
    done
}
ok 'text from a stream' text_back "$tmp/s.stream"
ok 'text from a shard' text_back "$tmp/one.shard"
ok 'text from shards' text_back "$tmp/shards"
ok 'text of a stream with BOS' text_back "$tmp/bos.stream"
ok 'text by the manifest' text_back "$tmp/shards/manifest.json"
ok 'text as JSON' says '^"Two  spaces,.n.na tab.t, no newline at the end: ü €"$' \
    linfo --json --doc 1 -t $tok "$tmp/shards"
ok 'text of another split' eval 'linfo --doc 0 -s validation -t $tok "$tmp/split" | cmp - "$tmp/in/b.txt"'
ok 'the tokenizer beside the data is found' eval 'cp $tok "$tmp/tiny.model" &&
    (cd / && linfo --doc 1 "$tmp/one.shard") | cmp - "$tmp/in/b.txt"; rc=$?; rm -f "$tmp/tiny.model"; [ $rc -eq 0 ]'
ok 'the list' eval '[ "$(linfo --docs "$tmp/shards" | cut -f 3 | tr "\n" " ")" = "$(wc -c < "$tmp/in/a.txt") $(wc -c < "$tmp/in/b.txt") $(wc -c < "$tmp/in/c.txt") " ]'
ok 'the list as JSON' says '^{"doc":2,"tokens":[0-9]*,"text_bytes":21,' linfo --docs --json "$tmp/one.shard"
ok 'ids, a line a document' eval '[ "$(linfo --ids "$tmp/shards" | wc -l)" -eq 3 ]'
ok 'the same from each form' eval 'linfo --ids "$tmp/shards" > "$tmp/ids" && linfo --ids "$tmp/one.shard" | cmp - "$tmp/ids" &&
    linfo --ids - < "$tmp/s.stream" | cmp - "$tmp/ids"'
ok 'every document ends in EOS' eval '[ "$(grep -c " 2$" "$tmp/ids")" -eq 3 ]'
ok 'and begins with BOS, where asked' eval '[ "$(linfo --ids "$tmp/bos.stream" | grep -c "^1 ")" -eq 3 ]'
ok 'ids of one' eval 'linfo --ids --doc 1 "$tmp/shards" | cmp - <(sed -n 2p "$tmp/ids")'
ok 'ids as JSON' eval 'linfo --ids --json "$tmp/shards" | sed "s/[][]//g; s/,/ /g" | cmp - "$tmp/ids"'
printf '\001\000\377\377\007\001' > "$tmp/raw.bin"
ok 'raw u16' eval '[ "$(linfo --raw --ids "$tmp/raw.bin")" = "1 65535 263" ]'
ok 'raw u16, described' says 'largest_id  *65535' linfo --raw "$tmp/raw.bin"
evil=$(printf 'x\033[31my.txt')
cp "$tmp/in/c.txt" "$tmp/$evil"
ok 'control characters of a name are not passed on' eval '(cd "$tmp" && lprep -q "$evil" -t "$OLDPWD/$tok") > "$tmp/evil" &&
    says "x?.31my.txt" linfo --docs "$tmp/evil" && ! linfo --docs "$tmp/evil" | grep -q "$(printf "\033")"'

# --- statistics
stats() { linfo --stats --json "$@" > "$tmp/stats.json"; }
bytes_in=$(cat "$tmp/in"/* | wc -c) tokens_in=$(wc -w < "$tmp/ids")
bins() { # of the lists of ids: "from documents" for each power of two, as --json has them
    awk '{ f = 1; while (2 * f <= NF) f *= 2; n[f]++ } END { for (f in n) print f, n[f] }' "$tmp/ids" | sort -n
}
ok 'counts: documents, tokens, bytes' eval 'stats "$tmp/shards" &&
    grep -q "^{\"path\":[^,]*,\"form\":\"shards\",\"documents\":3,\"tokens\":$tokens_in,\"text_bytes\":$bytes_in," "$tmp/stats.json"'
ok 'tokens a byte' eval 'grep -q "\"tokens_per_byte\":$(awk "BEGIN { printf \"%.4f\", $tokens_in / $bytes_in }" | sed "s/0*$//")," "$tmp/stats.json"'
ok 'the histogram is that of the ids' eval 'grep -o "\"from\":[0-9]*,\"to\":[0-9]*,\"documents\":[0-9]*" "$tmp/stats.json" |
    sed "s/[^0-9 ,]//g; s/,/ /g" | awk "\$2 == 2 * \$1 - 1 { print \$1, \$3 }" | diff - <(bins)'
ok 'the same from a shard and a stream' eval 'sed "s/.*\"lengths\"//" "$tmp/stats.json" > "$tmp/want" &&
    for x in "$tmp/one.shard" "$tmp/s.stream"; do stats "$x" && sed "s/.*\"lengths\"//" "$tmp/stats.json" | cmp - "$tmp/want" || exit; done;
    linfo --stats --json - < "$tmp/s.stream" | sed "s/.*\"lengths\"//" | cmp - "$tmp/want"'
ok 'all splits, or one' eval 'stats "$tmp/split" && grep -q "\"documents\":3,.*\"name\":\"train\".*\"name\":\"validation\"" "$tmp/stats.json" &&
    stats -s validation "$tmp/split" && grep -q "\"documents\":1," "$tmp/stats.json" && ! grep -q train "$tmp/stats.json"'
ok 'bars, in ASCII and UTF-8, no colour off a terminal' eval 'says " ####" linfo --stats "$tmp/shards" && ! grep -q "$(printf "\033")" "$tmp/out" &&
    LC_ALL=C.UTF-8 says "██" linfo --stats "$tmp/shards"'
ok 'of the tables alone: a spoilt token is not looked at' eval 'cp "$tmp/one.shard" "$tmp/bad1.shard" && flip "$tmp/bad1.shard" 4100 &&
    stats "$tmp/bad1.shard" && ends 65 "" linfo --verify "$tmp/bad1.shard"'
if command -v gnuplot > /dev/null; then
    ok 'a picture' eval 'linfo --stats --plot "$tmp/l.png" "$tmp/shards" && [ "$(head -c 4 "$tmp/l.png" | tail -c 3)" = PNG ] &&
        linfo --stats --plot "$tmp/l.svg" "$tmp/shards" && grep -q "<svg" "$tmp/l.svg"'
else
    skip 'a picture' 'no gnuplot'
fi
ok 'no statistics of a model' ends 64 'holds no documents' linfo --stats $data/plain/base
ok 'no such split to count' ends 78 "no split 'test'" linfo --stats -s test "$tmp/shards"
ok '--plot needs --stats' ends 64 '--plot draws what --stats counts: give both' linfo --plot x.png "$tmp/shards"

# --- samples
for i in 1 2 3 4 5 6; do printf '%s\n' "{\"instruction\": \"Say $i  now\", \"input\": \"\", \"output\": \"So  $i it is\"}"; done > "$tmp/i.jsonl"
lprep -q "$tmp/i.jsonl" -t $tok | lpack -q -o "$tmp/said"
sample() { linfo --sample "$@" -t $tok; }
ok 'all documents, no one twice' eval '[ "$(sample 99 "$tmp/said" | grep "^--- document" | sort -u | wc -l)" -eq 6 ]'
ok 'the same for a seed, others for another' eval 'sample 3 "$tmp/said" > "$tmp/1" && sample 3 --seed 0 "$tmp/said" | cmp - "$tmp/1" &&
    for s in 1 2 3 4; do sample 3 --seed $s "$tmp/said"; done > "$tmp/2" && ! sample 3 --seed 1 "$tmp/said" | cmp -s - "$tmp/1"'
ok 'what is masked is marked' eval '[ "$(sample 6 "$tmp/said" | tr "\n" " " | grep -o "\[masked: \[INST\]Say [0-9]  now\[/INST\]\]So  [0-9] it is" | wc -l)" -eq 6 ] || { sample 6 "$tmp/said"; false; }'
ok 'as JSON' eval 'sample 6 --json "$tmp/said" > "$tmp/out" && [ "$(grep -c "\"masked\":true,\"text\":\"[^\"]*Say [0-9]  now.*\"masked\":false,\"text\":\"So  [0-9] it is" "$tmp/out")" -eq 6 ]'
ok 'rows hold so many tokens, bounds within' eval 'sample 3 --ctx 50 --json "$tmp/said" > "$tmp/out" && [ "$(grep -c "^{\"row\":[0-9]*,\"tokens\":50," "$tmp/out")" -ge 2 ] &&
    sample 3 --ctx 50 "$tmp/said" | grep -q "^--- document [0-9]* from token [0-9]* of"'
ok 'a whole text is as it was' eval 'sample 3 "$tmp/shards" | grep -A 9 "a.txt$" | sed 1d | head -n 5 | cmp - <(head -n 5 "$tmp/in/a.txt")'
if script -qec true /dev/null > /dev/null 2>&1; then
    tty() { TERM=xterm script -qec "$1" /dev/null; }
    ok 'in colour on a terminal' eval '(unset NO_COLOR; tty "linfo --sample 1 -t $tok \"$tmp/said\"") | grep -q "$(printf "\033")\[33m"'
    ok 'unless NO_COLOR is set' eval '! NO_COLOR=1 tty "linfo --sample 1 -t $tok \"$tmp/said\"" | grep -q "$(printf "\033")"'
else
    skip 'in colour on a terminal' 'no script'
    skip 'unless NO_COLOR is set' 'no script'
fi
ok 'control characters of a text are not passed on' eval 'printf "a\033[31mb\n" > "$tmp/esc.txt" && lprep -q "$tmp/esc.txt" -t $tok | lpack -q > "$tmp/esc.shard" &&
    says "a?\[31mb" linfo --sample 1 -t $tok "$tmp/esc.shard" && ! grep -q "$(printf "\033")" "$tmp/out"'
ok 'no character of a long line is cut' eval 'awk "BEGIN { for (i = 0; i < 400; i++) printf \"x\xc3\xa9\xe2\x82\xac\"; print \"\" }" > "$tmp/w.txt" &&
    lprep -q "$tmp/w.txt" -t $tok | lpack -q > "$tmp/w.shard" && linfo --sample 1 -t $tok "$tmp/w.shard" | sed 1d | cmp - "$tmp/w.txt"'
ok 'no samples of a stream' ends 64 'has no documents to take samples of' linfo --sample 1 "$tmp/s.stream"
ok 'no row of that length' ends 64 'holds no row' linfo --sample 1 --ctx 1m -t $tok "$tmp/said"

# --- refusals
ok 'no path' ends 64 'no path given' linfo
ok 'a path that is not there' ends 66 'cannot open' linfo "$tmp/none"
ok 'of no known format' ends 65 'is not of a known format' linfo tests/data/tiny.txt
ok 'an empty folder' eval 'mkdir "$tmp/empty" && ends 65 "is not of a known format" linfo "$tmp/empty"'
lfs() { printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1234567\n' 7; }
pointers() { # in the place of anything that is read
    cp -r $data/plain "$tmp/lfs" && lfs > "$tmp/lfs/base/model.safetensors" &&
        ends 65 'git lfs pull' linfo --verify "$tmp/lfs/base" && ends 65 'git lfs pull' linfo "$tmp/lfs/base/model.safetensors" &&
        lfs > "$tmp/lfs/adapter/adapter_model.safetensors" && ends 65 'git lfs pull' linfo --verify "$tmp/lfs/adapter" &&
        lfs > "$tmp/lfs/base/config.json" && ends 65 'git lfs pull' linfo "$tmp/lfs/base" &&
        lfs > "$tmp/lfs/x.shard" && ends 65 'git lfs pull' linfo "$tmp/lfs/x.shard" &&
        ends 65 'git lfs pull' linfo --raw "$tmp/lfs/x.shard" &&
        cp -r "$tmp/shards" "$tmp/lfs/s" && lfs > "$tmp/lfs/s/manifest.json" && ends 65 'git lfs pull' linfo "$tmp/lfs/s"
}
ok 'pointers of Git LFS: 65, by name' pointers
pipes() { # and devices, where a file should be: nothing waits for a writer
    cp -r "$tmp/shards" "$tmp/pipes" && rm -f "$tmp/pipes/manifest.json" && mkfifo "$tmp/pipes/manifest.json" &&
        ends 65 'not a regular file' timeout 60 linfo "$tmp/pipes" && cp -r $data/plain/base "$tmp/piped" &&
        rm -f "$tmp/piped/config.json" && ln -s /dev/zero "$tmp/piped/config.json" &&
        ends 65 'not a regular file' timeout 60 linfo "$tmp/piped" && rm "$tmp/piped/config.json" &&
        mkdir "$tmp/piped/config.json" && ends 66 'Is a directory' timeout 60 linfo "$tmp/piped" &&
        cp $data/plain/base/config.json "$tmp/config" && rm -r "$tmp/piped/config.json" && mv "$tmp/config" "$tmp/piped/config.json" &&
        rm -f "$tmp/piped/model.safetensors" && mkfifo "$tmp/piped/model.safetensors" &&
        ends 65 'not a regular file' timeout 60 linfo "$tmp/piped"
}
ok 'pipes, devices, folders in the place of a file' pipes
ok 'a form that is known, and not shown' ends 65 'is a program, which linfo does not show' linfo "$BIN/linfo"
names() { # of documents and files: nothing of them reaches a terminal
    local f="$tmp/n"$'\xc2\x9b31m\x9b\ny.txt'
    echo text > "$f" && lprep -q -t $tok "$f" | lpack -q > "$tmp/n.shard" && linfo --docs "$tmp/n.shard" > "$tmp/o" &&
        [ "$(wc -l < "$tmp/o")" -eq 1 ] && ! LC_ALL=C grep -q $'[\x80-\x9f\e]' "$tmp/o" || return 1
    linfo "$f" 2> "$tmp/o"
    [ "$(wc -l < "$tmp/o")" -eq 2 ] && ! LC_ALL=C grep -q $'[\x80-\x9f\e]' "$tmp/o"
}
ok 'names with C1 controls and line ends' names
ok 'raw ids of odd length' eval 'printf abc > "$tmp/odd" && ends 65 odd linfo --raw "$tmp/odd"'
lprep -q -t $tok /dev/null > "$tmp/none.stream" 2> /dev/null
ok 'no document at all' ends 64 'no documents at all' linfo --doc 0 -t $tok "$tmp/none.stream"
ok 'no such document' ends 64 'no document 3, only 0 to 2' linfo --doc 3 -t $tok "$tmp/shards"
ok 'no such document in a stream' ends 64 'no document 9' linfo --doc 9 -t $tok "$tmp/s.stream"
ok 'no such split' ends 78 "no split 'test'" linfo --ids -s test "$tmp/shards"
ok 'no tokenizer' eval '(cd / && ends 66 "name it: -t" linfo --doc 0 "$tmp/shards")'
# another valid model: field 99 of the protobuf, which no one reads, makes it other bytes
{ cat $tok; printf '\230\006\001'; } > "$tmp/other.model"
ok 'a tokenizer of other bytes that does the same' eval 'linfo --doc 0 -t "$tmp/other.model" "$tmp/shards" |
    cmp - <(linfo --doc 0 -t $tok "$tmp/shards")'
ok 'another tokenizer than the data was made with' ends 78 'was not made with the tokenizer' \
    linfo --doc 0 -t tests/fuzz/seeds/tokenizer/unigram.model "$tmp/shards"
ok 'documents of a model' ends 64 'holds no documents' linfo --docs $data/plain/base
ok 'a stream without its end' eval 'head -c -20 "$tmp/s.stream" | ends 65 "" linfo -'
ok 'a shard without its end' eval 'head -c 5000 "$tmp/one.shard" > "$tmp/cut.shard"; ends 65 cut.shard linfo "$tmp/cut.shard"'
ok 'ids to a full disk' ends 74 'cannot write' eval 'linfo --ids "$tmp/shards" > /dev/full'

# --- verification
ok 'sound things verify' linfo -q --verify "$tmp/shards" "$tmp/one.shard" "$tmp/s.stream" $data/plain/base \
    $data/plain/adapter $tok
cp -r "$tmp/shards" "$tmp/bad"
shard=$(echo "$tmp"/bad/*.shard)
chmod u+w "$shard"
flip "$shard" 4100
ok 'a flipped bit in a token is seen' ends 65 '.shard' linfo --verify "$tmp/bad"
ok 'and found when it is read' ends 65 '.shard' linfo --ids "$tmp/bad"
flip "$shard" 4100
ok 'and gone when it is flipped back' linfo -q --verify "$tmp/bad"
flip "$shard" 300
ok 'a flipped bit in a header is seen at once' ends 65 '.shard' linfo "$tmp/bad"
cp "$tmp/s.stream" "$tmp/bad.stream"
flip "$tmp/bad.stream" 500
ok 'a flipped bit in a stream' ends 65 'bad.stream' linfo "$tmp/bad.stream"
cp -r $data/plain/base "$tmp/nan"
size=$(wc -c < "$tmp/nan/model.safetensors")
printf '\000\000\300\177' | dd of="$tmp/nan/model.safetensors" bs=1 seek=$((size - 8)) conv=notrunc status=none
ok 'NaN in a model is not looked for' linfo -q "$tmp/nan"
ok 'but found by --verify: exit 1' ends 1 "tensor 'model.norm.weight' is nan at element 14" linfo --verify "$tmp/nan"
ok 'one bad path of three' ends 65 'some of the 3 paths have errors' linfo -q $tok "$tmp/cut.shard" $data/plain/base

# --- real data
if [ -z "$LONGLORA_DATA" ]; then
    skip 'books come back whole' 'no $LONGLORA_DATA'
    skip 'a pretrained model' 'no $LONGLORA_DATA'
else
    books() { # ten books through the whole pipe and back
        local llama=$tmp/llama.model i=0 name
        zstd -qdc "$LONGLORA_DATA/tokenizers/llama2/tokenizer.model.zst" > "$llama" || return
        zstd -qdc "$LONGLORA_DATA/pg19/pg19-validation.tar.zst" | tar -C "$tmp" -x || return
        lprep -q --max-docs 10 "$tmp/pg19/validation" -t "$llama" | lpack -q > "$tmp/pg19.val" || return
        linfo --docs "$tmp/pg19.val" | cut -f 6 > "$tmp/names"
        while read -r name; do
            linfo --doc $i -t "$llama" "$tmp/pg19.val" | cmp - "$name" || return
            i=$((i + 1))
        done < "$tmp/names"
        [ $i -eq 10 ]
    }
    ok 'books come back whole' books
    stories() {
        mkdir "$tmp/stories" && cp "$LONGLORA_DATA/weights/stories260K/hf/config.json" "$tmp/stories" &&
            zstd -qdc "$LONGLORA_DATA/weights/stories260K/hf/model.safetensors.zst" \
                > "$tmp/stories/model.safetensors" && says 'tied  *yes' linfo --verify "$tmp/stories"
    }
    ok 'a pretrained model' stories
fi
echo "1..$n"
