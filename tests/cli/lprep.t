#!/bin/bash
# lprep as a program: every kind of wrapping, bad input, exit codes, the same bytes each time.
cd "$(dirname "$0")/../.." || exit 70
export LC_ALL=C
root=$PWD
model=$root/tests/data/tiny.model
. tests/cli/lib.sh

# fails STATUS PATTERN ARGUMENT...: lprep ends in this status, says that in at most three lines.
fails() {
    local want=$1 pattern=$2
    shift 2
    lprep "$@" < /dev/null > "$tmp/out" 2> "$tmp/err"
    local got=$?
    cat "$tmp/err"
    [ $got -eq "$want" ] && grep -q -e "$pattern" "$tmp/err" &&
        [ "$(grep -v 'documents\?,' "$tmp/err" | wc -l)" -le 3 ]
}
texts() { lprep -q --text "$@" | sed -E 's/,"meta":.*//'; } # the texts alone
same_texts() { # FILE...: each gives the two documents of $tmp/in
    local f
    for f in "$@"; do
        diff <(texts "$f") "$tmp/in.texts" || { echo "$f differs"; return 1; }
    done
}

cd "$tmp" || exit 70
mkdir in
printf 'Four score and seven years ago\n our fathers' > in/one.txt
printf '{"text":"a caf\\u00e9 \\ud83d\\ude00","id":1}\n' > in/two.jsonl
texts in > in.texts

ok 'a folder: both documents' test "$(wc -l < in.texts)" -eq 2
tar -cf in.tar in/one.txt in/two.jsonl # in this order
(cd in && zip -q ../in.zip one.txt two.jsonl) || echo '# no zip'
gzip -k in.tar && cp in.tar.gz in.tgz && xz -k in.tar && zstd -qk in.tar
ok 'tar, plain and inside gzip, xz, zstd' \
    same_texts in.tar in.tar.gz in.tgz in.tar.xz in.tar.zst
ok 'zip' same_texts in.zip
cp in.tar.zst without-a-name
ok 'an archive is known by its bytes' same_texts without-a-name
pipes() { for f in in.tar in.tar.gz in.zip in.tar.zst; do
    diff <(texts - < $f) in.texts && diff <(cat $f | texts) in.texts || return 1
done; }
ok 'the same from standard input, file or pipe' pipes
packed() {
    for c in gzip xz 'zstd -q'; do
        $c -kf in/one.txt in/two.jsonl
    done
    for e in gz xz zst; do
        diff <(texts in/one.txt.$e in/two.jsonl.$e) in.texts || return 1
    done
    rm in/*.gz in/*.xz in/*.zst
}
ok 'single files inside gzip, xz, zstd' packed
globs() { diff <(texts 'in/*.txt' 'in/t*') in.texts; }
ok 'quoted globs' globs
ok 'a glob that matches nothing: 66' fails 66 "no file matches 'none\*'" --text 'none*'
ok 'a file that is not there: 66' fails 66 "cannot open 'none.txt'" --text none.txt
mkdir empty
ok 'a folder without text: 66, with the remedy' fails 66 "include GLOB" --text empty

cat > rows.json << 'END'
[
  {"instruction": "Add.", "input": "1 2", "output": "3"},
  {"output": "Paris", "instruction": "Capital?", "input": null, "extra": [1, {"a": "]}"}]}
]
END
says() { # PATTERN ARGUMENT...
    local pattern=$1
    shift
    lprep "$@" 2>&1 > /dev/null | tee /dev/stderr | grep -q -e "$pattern"
}
ok 'a JSON array of instructions, said to be such' \
    says "'rows.json': 2 documents, alpaca" --text rows.json
ok 'a folder of text files, said in one line' says '2 text files' -t "$model" in/one.txt \
    "$root/tests/data/tiny.txt"

roundtrip() {
    lprep -q -t "$model" in rows.json in.tar.gz > direct.stream &&
        lprep -q --text in rows.json in.tar.gz > docs.jsonl &&
        lprep -q -t "$model" docs.jsonl | cmp - direct.stream &&
        lprep -q -t "$model" < docs.jsonl | cmp - direct.stream &&
        lprep -q --text docs.jsonl | cmp - docs.jsonl
}
ok '--text, read back, makes the same tokens' roundtrip
threads() {
    seq -f '{"text":"document %.0f of the nation"}' 400 > many.jsonl
    lprep -q -t "$model" -j1 many.jsonl > 1.stream
    for j in 2 3 7; do lprep -q -t "$model" -j$j many.jsonl | cmp - 1.stream || return 1; done
}
ok 'the same bytes for any number of threads' threads
eos() { # every document ends with EOS, and begins with BOS when asked to
    [ "$(lprep -q -t "$model" in/one.txt | wc -c)" -eq $(($(lprep -q -t "$model" --no-eos \
        in/one.txt | wc -c) + 2)) ] &&
        [ "$(lprep -q -t "$model" --add-bos in/one.txt | wc -c)" -eq \
            $(($(lprep -q -t "$model" in/one.txt | wc -c) + 2)) ]
}
ok '--no-eos and --add-bos: a token less, a token more' eos

engines() { # the token streams of the two engines do not differ in a bit
    diff <(lprep -q -t "$model" many.jsonl in | sha256sum) \
        <(lprep -q -t "$model" --engine sentencepiece many.jsonl in | sha256sum)
}
ok '--engine sentencepiece: the same bytes' engines

ok 'no tokenizer: 64' fails 64 'MODEL-FOLDER' in
ok 'a tokenizer that is none: 65' fails 65 "'$root/README.md': not a SentencePiece model" \
    -t "$root/README.md" in
quiet() { lprep -t in/one.txt in < /dev/null 2>&1 > /dev/null | wc -l | grep -qx 2; }
ok 'and the library says nothing of its own' quiet
ok 'no such tokenizer: 66' fails 66 none.model -t none.model in

head -c $(($(stat -c %s in.tar.gz) - 20)) in.tar.gz > cut.tar.gz
head -c 1000 in.tar > cut.tar
head -c $(($(stat -c %s in.zip) - 30)) in.zip > cut.zip
head -c $(($(stat -c %s in.tar.zst) - 5)) in.tar.zst > cut.tar.zst
head -c $(($(stat -c %s in.tar.xz) - 30)) in.tar.xz > cut.tar.xz
for f in cut.tar.gz cut.tar cut.zip cut.tar.zst cut.tar.xz; do
    ok "$f: 65, named, nothing that passes for whole" fails 65 "'$f.*cut short" -t "$model" $f
done
yes '{"text":"x"}' | head -c 300000 | zstd -q --long=30 > window.jsonl.zst
ok 'a zstd window over 128 MiB: 65 and the remedy' \
    fails 65 'zstd --long=27' --text window.jsonl.zst
goes_on() {
    lprep --text --on-error skip cut.tar.gz in > skipped.jsonl 2> err
    [ $? -eq 0 ] && grep -q '1 bad files' err && diff <(tail -n 2 skipped.jsonl | sed \
        -E 's/,"meta":.*//') in.texts
}
ok '--on-error skip goes on with the next file' goes_on
skipped_file() {
    printf '{"text":"a"}\n{"body":"b"}\n{"text":"c\n' > half.jsonl
    lprep -q --text --on-error skip --skipped left.txt half.jsonl cut.tar.gz in > out 2> err || return 1
    cat left.txt
    [ "$(wc -l < left.txt)" -eq 3 ] && grep -q "^'half.jsonl' line 2: no key" left.txt &&
        grep -q "^'half.jsonl' line 3: bad JSON" left.txt && grep -q 'cut.tar.gz' left.txt &&
        lprep -q --text --on-error skip --skipped left.txt in > out && [ ! -s left.txt ]
}
ok '--skipped: what was left out, a line each' skipped_file
odd_names() { # a name does nothing to a terminal, and has no line of its own
    local f=$'odd/a\e[31m\nb\xc2\x9bc\x7f.txt'
    mkdir odd && printf 'x\377' > "$f" && printf 'fine' > odd/z.txt || return 1
    lprep --text --on-error skip --skipped left.txt odd > out 2> err || return 1
    [ "$(wc -l < left.txt)" -eq 1 ] && grep -q 'byte 0xFF' left.txt && grep -q 'byte 0xFF' err || return 1
    LC_ALL=C grep -q $'[\e\x7f]\|\xc2\x9b' err && return 1
    ! lprep --text $'no\e[31m\xc2\x9bfile' 2> err && grep -q "'no?\[31m??file'" err
}
ok 'names with control characters' odd_names
ok '--sample of a source that is none is told' eval 'lprep -q --text --sample "nix*=0.5" --sample "t*=1" in 2> err > out &&
    grep -q "no document is of source .nix\*" err && [ "$(wc -l < err)" -eq 1 ]'
ok '--skipped to a place that is none: 73' fails 73 'no/where' --text --skipped no/where in
# within COMMAND...: in two seconds of processor time and, where it is looked at, this memory:
# what little of the libraries is mapped, stacks, and 256 MiB.
within() {
    local t0 t1
    t0=$(children_ms)
    if [ -n "$SAN" ]; then "$@"; else
        (export MALLOC_ARENA_MAX=1 && ulimit -v 420000 && "$@"); fi || return 1
    t1=$(children_ms)
    echo "$((t1 - t0)) ms"
    [ $((t1 - t0)) -lt ${SLOW_MS:-2000} ] || [ -n "$SAN" ]
}
children_ms() { times | sed -nE '2s/([0-9]+)m([0-9]+)\.([0-9]{3})s ([0-9]+)m([0-9]+)\.([0-9]{3})s/\1 \2 \3 \4 \5 \6/p' |
    awk '{ print int(($1 + $4) * 60000 + ($2 + $5) * 1000 + $3 + $6) }'; }
letters() { head -c "$1" /dev/zero | tr '\0' 'a'; }
printf '\x28\xB5\x2F\xFD\0\xA8\1\0\0' > window31.zst
ok 'a zstd window of 2^31: 65, at once' within fails 65 'larger than 128 MiB' --text window31.zst
letters 300M | zstd -q -3 > bomb.txt.zst
letters 100M | gzip -9 > bomb.txt.gz
yes '{"text":"x"}' | head -c 200M | zstd -q > bomb.jsonl.zst
letters 100M > pic.png && tar -cf - pic.png in/one.txt | zstd -q > bomb.tar.zst && rm pic.png
echo x | dd of=hole.txt bs=1 seek=20G status=none && tar -Scf hole.tar hole.txt && rm hole.txt
ok 'a zstd bomb: 65' within fails 65 'more than 16777216 bytes' --text bomb.txt.zst
ok 'a zstd bomb, made into tokens' within fails 65 'bomb.txt.zst' -t "$model" bomb.txt.zst
ok 'a zstd bomb, of longer records' within fails 65 'over 500 times' --max-record 80m --text bomb.txt.zst
ok 'a gzip bomb' within fails 65 'more than 16777216 bytes' --text bomb.txt.gz
ok 'a bomb of short rows' within fails 65 'bomb.jsonl.zst. unpacks to over 500 times' --text bomb.jsonl.zst
piped_bomb() {
    cat bomb.jsonl.zst | within lprep --text - > out 2> err
    [ $? -eq 1 ] && cat err && grep -q "standard input' unpacks to over 500 times" err
}
ok 'a bomb of short rows from a pipe' piped_bomb
ok 'a bomb that is passed over' within fails 65 'bomb.tar.zst.* unpacks to over' --text bomb.tar.zst
ok 'a file with a hole of 20 GB in a tar' within fails 65 'hole.tar' --text hole.tar
skips_bombs() { lprep -q --text --on-error skip bomb.tar.zst bomb.txt.zst in 2> err | wc -l | grep -qx 2; }
ok 'bombs are left out' skips_bombs
{ printf '{"text":"a","x":'; head -c 1000000 /dev/zero | tr '\0' '['; echo; } > deep.jsonl
{ head -c 1000000 /dev/zero | tr '\0' '['; } > deep.json
ok 'JSON a million deep, in a row: 65' within fails 65 'deeper than 128' --text deep.jsonl
ok 'JSON a million deep, an array of arrays: 65' within fails 65 'not an object' --text deep.json
{ printf '{"text":"'; letters 20M; } > long.jsonl
ok 'a row without end: 65' within fails 65 'line 1, byte 0: a record of more than' --text long.jsonl
printf '{"text":"a"}\n{"text":"b\\ud800"}\n' > lone.jsonl
ok 'a lone surrogate: 65 and its line' fails 65 "'lone.jsonl' line 2: .*lone surrogate" --text lone.jsonl
printf '{"text":"a"}\n{"text":"b\300\257"}\n' > bad8.jsonl
ok 'invalid UTF-8 in a row: 65 and its line' fails 65 "'bad8.jsonl' line 2: .*byte 0xC0) at byte 1" --text bad8.jsonl
patch() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE AT BYTES
two_in_a_zip() { # FILE: it holds o1.txt and o2.txt; the place of the second's entry
    printf 'one text for all' > o1.txt && cp o1.txt o2.txt && rm -f "$1" &&
        zip -q -0 -X "$1" o1.txt o2.txt && lprep -q --text "$1" | wc -l | grep -qx 2 &&
        second=$(grep -obUaP 'PK\x01\x02' "$1" | tail -n 1 | cut -d: -f1)
}
overlap() { # two members of the directory point to one place
    two_in_a_zip over.zip && patch over.zip $((second + 42)) '\0\0\0\0' &&
        patch over.zip $((second + 47)) 1 || return 1
    within fails 65 'members overlap at byte 0' --text over.zip && grep -q 'leave it out with --on-error skip' err &&
        lprep -q --text --on-error skip over.zip in 2> err | wc -l | grep -qx 2 &&
        { echo 'put before'; cat over.zip; } > sfx.zip && fails 65 'members overlap' --text sfx.zip
}
deceives() { # the directory and the member's own header differ in a name, a size, a checksum
    two_in_a_zip two.zip || return 1
    for at in 47 16 20 10; do
        cp two.zip liar.zip && patch liar.zip $((second + at)) '\11' &&
            fails 65 'is not what the directory says' --text liar.zip || return 1
    done
}
nested() { # an archive in an archive is not opened
    zip -q -0 -X outer.zip over.zip in.tar.gz && fails 0 'skipped 2 archive members' --text outer.zip &&
        tar -cf outer.tar in.tar.gz && gzip -k half.jsonl && tar -cf outer2.tar half.jsonl.gz &&
        fails 65 'outer2.tar:half.jsonl.gz. is packed by gzip, not text' --text outer2.tar
}
if command -v zip > /dev/null; then
    ok 'a zip whose members overlap: 65, none is read' overlap
    ok 'a zip whose headers contradict its directory: 65' deceives
    ok 'an archive in an archive' nested
else for i in 1 2 3; do skip 'not here' 'no zip'; done; fi
turn() { patch "$1" "$2" "\\x$(printf %02x $((0x$(od -An -tx1 -j "$2" -N 1 "$1" | tr -d ' ') ^ $3)))"; }
damaged() { # a bit turned anywhere in the packed data: the checksum tells, if nothing else does
    local f n at bit
    seq -f 'number %.0f of many' 2000 > numbers.txt
    gzip -k numbers.txt && zstd -qk numbers.txt && xz -k numbers.txt && zip -q numbers.zip numbers.txt &&
        tar -czf numbers.tar.gz numbers.txt || return 1
    for f in numbers.txt.gz numbers.tar.gz numbers.txt.zst numbers.txt.xz numbers.zip; do
        n=$(stat -c %s $f)
        for at in 5 3 2; do for bit in 1 16; do
            cp $f dam.$f && turn dam.$f $((n / at)) $bit &&
                fails 65 "'dam.$f" --text dam.$f || { echo "$f, byte $((n / at)), bit $bit"; return 1; }
        done; done
    done
    cp numbers.txt.gz dam.gz && turn dam.gz $(($(stat -c %s dam.gz) - 7)) 1 &&
        fails 65 'incorrect data check' --text dam.gz && cp numbers.txt.gz dam.gz &&
        turn dam.gz $(($(stat -c %s dam.gz) - 3)) 1 && fails 65 'incorrect length check' --text dam.gz &&
        { cat numbers.txt.gz; echo more; } > dam.gz && fails 65 'something follows' --text dam.gz
}
members() { # gzip files one behind the other are one; zeros at the end fill up a block
    { gzip < in/one.txt; gzip < in/one.txt; head -c 700 /dev/zero; } > two.txt.gz
    [ "$(lprep -q --text two.txt.gz -o - | wc -l)" -eq 1 ] &&
        diff <(texts two.txt.gz) <(cat in/one.txt in/one.txt > two.txt; texts two.txt) &&
        cat two.txt.gz | texts - | diff - <(texts two.txt)
}
ok 'damaged archives: 65' damaged
ok 'gzip of many members, and with zeros behind' members
bytes() { printf '%b' "$1"; }
lfs_pointer() { printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1234567\n' 7; }
forms_named() { # NAME-IN-MESSAGE FILE ...: each is refused by that name, with a remedy that can be followed
    local f what=$1
    shift
    for f in "$@"; do
        for a in '' '--utf8 replace' '--format text'; do
            fails 65 "$what" --text $a "$f" && ! grep -q -e '--field' -e 'utf8' "$tmp/err" || { echo "$f $a"; return 1; }
        done
    done
}
other_forms() (
    mkdir forms && cd forms || return 1
    lfs_pointer | tee p.txt p.jsonl.zst p.tar > p.parquet
    bytes 'PAR1\025\004\025\0374data\0\0' > t.parquet
    bytes '\0377\0377\0377\0377\0250\0\0\0\020\0\0\0\0\0\012\0\014\0\006\0' > t.arrow
    bytes '%PDF-1.4\n1 0 obj<<>>endobj\n' > a.txt
    bytes '\004\042\0115\030\0144\0100\0247\005\0\0\0200text\n' > n.txt.lz4
    echo text | bzip2 > n.txt.bz2 2> /dev/null || bytes 'BZh91AY&SY\0257\0\0' > n.txt.bz2
    head -c 4000 /dev/urandom > random.txt
    forms_named 'a pointer of Git LFS' p.* && grep -q 'git lfs pull' "$tmp/err" || return 1
    forms_named 'a Parquet table' t.parquet && forms_named 'an Arrow table' t.arrow &&
        forms_named 'a PDF' a.txt && forms_named 'packed by lz4' n.txt.lz4 &&
        forms_named 'packed by bzip2' n.txt.bz2 && forms_named 'binary data' random.txt || return 1
    mkdir saved && cp t.arrow saved/data-00000-of-00001.arrow && echo '{"a":1}' > saved/state.json
    fails 65 'an Arrow table' --text saved && fails 65 'a Parquet table' --text t.parquet a.txt || return 1
    printf '<!DOCTYPE html><p>Hello' > page.txt && printf 'text,id\na,1\n' > t.csv && gzip -k t.csv
    printf 'text\tid\na\t1\n' > t.tsv && printf 'WARC/1.0\r\nWARC-Type: warcinfo\r\n\r\n' > w.txt
    for f in 'page.txt:an HTML page' 't.csv:a CSV table' 't.csv.gz:a CSV table' 't.tsv:a TSV table' \
        'w.txt:WARC records'; do
        fails 65 "${f#*:}" --text "${f%:*}" && grep -q -e '--format text' "$tmp/err" &&
            lprep -q --text --format text "${f%:*}" | wc -l | grep -qx 1 || { echo "$f"; return 1; }
    done
)
ok 'LFS pointers, tables, PDF, lz4, binary data; HTML, CSV, WARC: 65, by name, with a remedy' other_forms
looks_like_one() { # text in which something stands where a form has its mark
    { head -c 257 /dev/zero | tr '\0' x; printf 'ustar and more of it'; head -c 700 /dev/zero | tr '\0' y; } > tar.txt
    printf '%%PDF-1.4 begins a PDF' > pdf.txt && printf 'BZh91AY&SY begins bzip2' > bz.txt &&
        printf 'PAR1 begins Parquet' > par.txt && printf 'LLSHARD begins a shard' > shard.txt &&
        printf 'version https://git-lfs.github.com/spec/v1 begins a pointer' > lfs.txt &&
        [ "$(lprep -q --text tar.txt pdf.txt bz.txt par.txt shard.txt lfs.txt | wc -l)" -eq 6 ] &&
        lprep -q --text tar.txt | grep -q 'xustar and more of it'
}
ok 'text that begins like a form is text' looks_like_one
tokenizers() { # a folder's tokenizer.model; what others have is called by its name
    mkdir tok only && cp "$model" tok/tokenizer.model && printf 'IQ== 0\nIg== 1\nIw== 2\n' > llama3.model &&
        printf '{"version": "1.0", "truncation": null, "padding": null, "model": {}}' |
        tee tok/tokenizer.json > only/tokenizer.json || return 1
    fails 65 "'tok/tokenizer.json': field 'model.vocab' is missing" -t tok in &&
        grep -q 'beside it: -t tok/tokenizer.model' err && rm tok/tokenizer.json &&
        lprep -q -t tok in | cut -b 257- | cmp - <(lprep -q -t tok/tokenizer.model in | cut -b 257-) &&
        fails 65 "'model.vocab' is missing" -t only/tokenizer.json in && grep -q "a model's folder" err &&
        fails 65 '3 ranks: of no tokenizer whose pattern is known' -t llama3.model in && rm only/tokenizer.json &&
        fails 66 "the folder 'only' has no tokenizer" -t only in && grep -q 'it is called tokenizer.json' err || return 1
    # The tokenizer.json that is made of the model: as a folder, as a file, and its ids are the model's.
    sed -n 's/.*"name":"tiny","tokenizer":\(.*\),"ids":.*/\1/p' "$root/tests/data/hft/golden.jsonl" > only/tokenizer.json &&
        cp tok/tokenizer.model only/ && lprep -t only in 2> err | linfo --ids - | cmp - <(lprep -q -t tok in | linfo --ids -) &&
        grep -q "tokenizer 'only/tokenizer.json' (tokenizer.json): 400 tokens, BOS '<s>', EOS '</s>'; tokenizer.model beside it means the same" err &&
        lprep -q -t only in | lpack -q > only.shard && linfo -q --doc 0 -t tok only.shard | cmp - <(linfo -q --doc 0 -t only only.shard) || return 1
    lfs_pointer > tok/tokenizer.model && fails 65 'a pointer of Git LFS, not the file' -t tok in &&
        grep -q 'git lfs pull' err && mkfifo pipe.model && timeout 60 lprep -q -t pipe.model in 2> err
    [ $? -eq 65 ] && grep -q 'not a regular file' err && lprep -q -t <(cat "$model") in | head -c 8 | grep -q LLSTREAM
}
ok 'tokenizers: a folder; tokenizer.json, tiktoken, LFS, a pipe by name' tokenizers
frames() { # pzstd puts a frame to be passed over before the data
    { printf '\x50\x2A\x4D\x18\4\0\0\0abcd'; zstd -qc in/two.jsonl; } > p.jsonl.zst
    { printf '\x5F\x2A\x4D\x18\0\0\0\0\x51\x2A\x4D\x18\1\0\0\0x'; zstd -qc in.tar; } > p.tar.zst
    diff <(texts p.jsonl.zst) <(texts in/two.jsonl) && diff <(texts p.tar.zst) in.texts &&
        diff <(cat p.tar.zst | texts) in.texts
}
ok 'zstd that begins with frames to be passed over' frames
behind() { # what follows short packed data is told as it is behind long ones
    for c in gzip xz 'zstd -q'; do
        { $c -c in/two.jsonl; printf garbage; } > behind.jsonl.${c%% *} || return 1
        fails 65 'cut short or damaged' --text behind.jsonl.${c%% *} || return 1
        cat behind.jsonl.${c%% *} | lprep -q --text && return 1
        $c -c in/two.jsonl | head -c -3 > behind.${c%% *}
        fails 65 'cut short or damaged' --text behind.${c%% *} || return 1
    done
}
ok 'something behind short gzip, xz, zstd; and its end cut off: 65' behind
linked() { # links and what else is passed over is said
    mkdir links && echo b > links/b.txt && ln links/b.txt links/c.txt && ln -s b.txt links/d.txt &&
        tar -cf links.tar links && fails 0 "of 'links.tar' 2 links to other members" --text links.tar &&
        [ "$(texts links.tar 2> err | wc -l)" -eq 1 ] && [ -s err ] || return 1
    ln -s nowhere links/e.txt && fails 66 "cannot open 'links/e.txt'" --text links &&
        grep -q 'on-error skip' err && lprep --text --on-error skip links 2> err | wc -l | grep -qx 3 &&
        grep -q '1 bad files' err && rm links/e.txt || return 1
    mkdir far && echo f > far/f.txt && ln -s ../far links/far && ln -s .. links/up && cp "$model" links/x.bin &&
        [ "$(lprep --text links 2> err | wc -l)" -eq 4 ] || return 1
    cat err
    grep -q 'skipped 1 files whose names are not of text' err
}
ok 'links: followed, counted; one that leads nowhere is an error' linked
nothing_read() { # no document is never a matter of course
    for f in empty.txt empty.jsonl; do : > $f; done
    gzip -kf empty.jsonl && head -c 10240 /dev/zero > zeros.tar || return 1
    printf 'PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' > empty.zip
    for f in empty.txt empty.jsonl empty.jsonl.gz zeros.tar empty.zip; do
        lprep -q --text $f 2> err > out || return 1
        grep -q 'no documents: ' err && [ ! -s out ] || { echo "$f"; cat err; return 1; }
    done
    tar -cf pics.tar --transform 's/txt/png/' in/one.txt &&
        fails 0 "of 'pics.tar' everything: 1 member that is no text by its name ('in/one.png'" --text pics.tar &&
        lprep -q --text --max-chars 1 in 2>&1 | grep -q 'no documents: all were left out'
}
ok 'no documents: said, and why' nothing_read
header_bomb() { # members without a byte of data are bytes of headers
    mkdir hb && : > hb/empty && tar -cf one.tar hb/empty && head -c 512 one.tar > member || return 1
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat member member > m2; mv m2 member; done # 32 MiB
    cat member member member member | zstd -q -3 > header_bomb.tar.zst
    within fails 65 'unpacks to over 500 times' --text header_bomb.tar.zst || return 1
    seq 1 3000000 | gzip -1 | base64 > noise.txt && tar -cf noise.tar noise.txt &&
        { head -c $((512 + ($(stat -c %s noise.txt) + 511) / 512 * 512)) noise.tar; cat member member member; } |
        zstd -q -3 > late.tar.zst && rm noise.* && within fails 65 'unpacks to over 500 times' --text --max-record 100m late.tar.zst
}
ok 'a bomb of headers, first and behind honest data' header_bomb
marks() { # a byte order mark is dropped at the start, and named before a row
    printf '\xEF\xBB\xBFplain' > mark.txt && [ "$(texts mark.txt)" = '{"text":"plain"' ] || return 1
    printf '{"text":"a"}\n\xEF\xBB\xBF{"text":"b"}\n' > marks.jsonl
    printf '\xEF\xBB\xBF\xEF\xBB\xBF{"text":"b"}\n' > two_marks
    fails 65 "line 1, byte 3: a byte order mark" --text two_marks &&
        fails 65 "line 2, byte 13: a byte order mark" --text marks.jsonl && sed 's/\xEF\xBB\xBF//' marks.jsonl | texts | wc -l | grep -qx 2
}
ok 'byte order marks' marks
of_turns() { # what no prompt has a place for is counted
    printf '{"instruction":"i","input":"","output":"o","system":"s","history":[["a","b"]]}\n' > h.jsonl
    printf '{"instruction":"i","output":"o","system":""}\n' >> h.jsonl
    fails 0 "'system' and 'history' of 1 row of 'h.jsonl'" --text h.jsonl || return 1
    printf '{"messages":[{"role":"user","content":"Hi"}]}\n' > m.jsonl
    fails 65 'a conversation (messages), which is not read' --text m.jsonl && ! grep -q -e '--field' err
}
ok 'rows with turns before, conversations' of_turns
no_text() { # what is given in place of text is called by its name
    lprep -q -t "$model" in -f -o a.stream && lpack -q -f a.stream -o d || return 1
    cp d/*.shard a.shard && cp a.shard a.txt && printf '\377\376h\0i\0' > utf16.txt
    fails 65 "'a.shard' is a token shard, not text" --text a.shard && grep -q '^linfo shows it' err &&
        fails 65 "'a.txt' is a token shard" --utf8 replace --text a.txt &&
        fails 65 "'a.stream' is a token stream" --text a.stream &&
        fails 65 'manifest of these tools' --text d/manifest.json &&
        fails 65 'tensors (safetensors)' --text "$root"/tests/data/peft_tiny/plain/base/*.safetensors &&
        fails 65 'a SentencePiece model' --text "$model" &&
        fails 65 'UTF-16' --text utf16.txt && grep -q 'iconv' err &&
        fails 65 'is a program' --text "$(command -v lprep)"
}
ok 'shards, models, programs, UTF-16 given as text: 65, by name' no_text
printf 'caf\351 latin' > latin.txt
ok 'invalid UTF-8: 65, offset and remedy' fails 65 "byte 0xE9) at byte 3" --text latin.txt
mended() { [ "$(texts --utf8 replace latin.txt)" = $'{"text":"caf\xEF\xBF\xBD latin"' ]; }
ok '--utf8 replace' mended
printf '{"text":"a"}\n{"body":"b","n":1}\n' > rows.jsonl
ok 'a missing key: 65, line, keys, remedy' \
    fails 65 "line 2: no key .*the keys are: body, n" --text rows.jsonl
hint() { fails 65 '--field NAME' --text rows.jsonl; }
ok '... and --field is named' hint
field() { [ "$(texts --field body --on-error skip rows.jsonl 2> /dev/null)" = '{"text":"b"' ]; }
ok '--field takes the text from another key' field
printf '{"text":"a"}\n{"text":"b\n' > broken.jsonl
ok 'a broken row: 65 and its line' \
    fails 65 "'broken.jsonl' line 2: bad JSON" --text broken.jsonl
printf '[{"text":"a"},{"text":"b"' > cut.json
ok 'an array cut short: 65' fails 65 "'cut.json': line 1.* cut short" --text cut.json
no_end() { # a failed lprep leaves a stream that is refused
    lprep -q -t "$model" rows.jsonl > half.stream 2> /dev/null
    [ $? -eq 65 ] && ! linfo half.stream > /dev/null 2>&1
}
ok 'after an error the stream has no end' no_end
ok 'a bad option value: 64' fails 64 "one of strict|replace" --text --utf8 maybe in

full() {
    lprep -q "$@" in > /dev/full 2> err
    [ $? -eq 74 ] && cat err && grep -q 'standard output' err
}
ok 'a full disk: 74, tokens' full -t "$model"
ok 'a full disk: 74, text' full --text
pipe_closed() {
    seq -f '{"text":"document %.0f of the nation"}' 20000 > large.jsonl
    set -o pipefail
    timeout 20 lprep -q --text large.jsonl | head -c 100 > /dev/null
    [ ${PIPESTATUS[0]} -eq 141 ]
}
ok 'a reader that leaves: SIGPIPE' pipe_closed
mkdir nowhere evil evil/x
echo 'evil text' > evil/evil.txt
(cd evil/x && tar -cPf ../../evil.tar ../evil.txt) && rm -r evil
traversal() {
    (cd nowhere && mkdir a && cd a && lprep -q --text ../../evil.tar | grep -q 'evil text') &&
        [ "$(find . -name 'evil*' | sort | xargs)" = ./evil.tar ]
}
ok 'a member named ../evil.txt: read, nothing written' traversal
stats() {
    lprep -q -t "$model" --stats s.json in rows.json > /dev/null && cat s.json &&
        grep -q '"documents": 4' s.json && grep -q '"alpaca": {"documents": 2' s.json
}
ok '--stats' stats
stats_kept() { # what is no file is written into, never replaced by one
    mkfifo fifo && : > there.json && ln -s there.json link || return 1
    timeout 100 cat fifo > got &
    lprep -q -t "$model" --stats fifo in > /dev/null && wait && [ -p fifo ] &&
        grep -q '"documents": 2' got || return 1
    lprep -q -t "$model" --stats link in > /dev/null && [ -L link ] &&
        grep -q '"documents": 2' there.json
}
ok '--stats into a named pipe and through a link' stats_kept
output() { # a file that appears whole or not at all, and is not overwritten unasked
    lprep -q -t "$model" in > direct.stream && lprep -q -t "$model" in -o o.stream &&
        cmp o.stream direct.stream && fails 73 "'o.stream' exists" -t "$model" in -o o.stream &&
        fails 66 'none.txt' -t "$model" none.txt -f -o o.stream && cmp o.stream direct.stream &&
        fails 65 'half.jsonl' --text in half.jsonl -o new.jsonl && [ ! -e new.jsonl ] &&
        fails 73 'no/where' --text in -o no/where && fails 73 'is a folder' --text in -f -o in &&
        lprep -q --text in -f -o o.stream && lprep -q --text in -o - | cmp - o.stream &&
        lprep -q --text in -o /dev/stdout | cmp - o.stream || return 1
    timeout -s KILL 1 lprep -q --text -o k.jsonl in - < <(sleep 9) 2> /dev/null
    [ -z "$(ls k.jsonl* *.tmp* 2> /dev/null)" ]
}
ok '-o and -f: whole or not at all' output
counts_as_json() { # on stdout with -o, else on stderr: what --stats has
    lprep -q -t "$model" in rows.json --json --stats s.json 2> a.json > /dev/null &&
        lprep -q -t "$model" in rows.json --json -f -o o.stream > b.json &&
        cmp a.json b.json && [ "$(wc -l < a.json)" -eq 1 ] &&
        diff <(tr -d ' \n' < s.json) <(tr -d ' \n' < a.json)
}
ok '--json' counts_as_json
limits() {
    [ "$(texts --max-docs 3 many.jsonl | wc -l)" -eq 3 ] &&
        [ "$(texts --min-chars 26 many.jsonl 2> /dev/null | wc -l)" -eq 301 ] &&
        [ "$(lprep -q --text --source mine in | grep -c '"source":"mine"')" -eq 2 ]
}
ok '--max-docs, --min-chars, --source' limits
seq 0 999 | awk '{ printf "{\"text\":\"row %d\",\"meta\":{\"url\":\"http://%s.org/%d\",\"language\":\"%s\",\"source\":\"%s\"}}\n",
    $1, $1 % 4 ? "a" : "b", $1, $1 % 5 ? "en" : "de", $1 % 2 ? "c4" : "arxiv" }' > meta.jsonl
count() { lprep -q --text "$@" meta.jsonl 2> /dev/null | wc -l; }
filters() {
    [ "$(count --language en)" -eq 800 ] && [ "$(count --language fr,de)" -eq 200 ] &&
        [ "$(count --where 'meta.url=^http://b\.org/')" -eq 250 ] &&
        [ "$(count --where 'meta.url=b.org' --where-not 'meta.source=^arxiv$')" -eq 0 ] &&
        [ "$(count --where-not 'meta.none=.' --where 'text=1$')" -eq 100 ] &&
        [ "$(count --where 'meta.none=.*')" -eq 0 ] && [ "$(count --max-chars 5)" -eq 10 ] &&
        [ "$(count --min-chars 6 --max-chars 6)" -eq 90 ]
}
ok '--language, --where, --where-not, --max-chars' filters
sampling() { # the share asked for, the same one again, another by another seed
    local a b
    a=$(count --sample 'redpajama.c4=0.2') b=$(count --sample '*.c4=0' --sample '*=0.5')
    echo "$a $b"
    [ "$a" -gt 550 ] && [ "$a" -lt 650 ] && [ "$b" -gt 200 ] && [ "$b" -lt 300 ] || return 1
    lprep -q --text --sample '*=0.5' meta.jsonl > half 2> /dev/null
    lprep -q --text --sample '*=0.5' -j 3 meta.jsonl 2> /dev/null | cmp - half || return 1
    ! lprep -q --text --sample '*=0.5' --seed 1 meta.jsonl 2> /dev/null | cmp -s - half
}
ok '--sample and --seed' sampling
reasons() {
    lprep -q -t "$model" --stats s.json --language en --sample '*.c4=0' --min-tokens 7 \
        --max-tokens 8 meta.jsonl > some.stream 2> err
    cat s.json err
    grep -q '"left_out": {"empty": 0, "short": 0, "long": 0, "language": 200, "where": 0, "sample": 400' s.json &&
        grep -q '"redpajama.c4": {"documents": 0, .*"language": 100, "sample": 400' s.json &&
        grep -q 'left out: 200 of another language, 400 by --sample' err &&
        [ "$(linfo --json some.stream | grep -o '"documents":[0-9]*' | head -n 1)" = \
            "\"documents\":$(sed -nE 's/^\{"documents": ([0-9]+).*/\1/p' s.json)" ]
}
ok 'what was left out is counted by reason and source' reasons
ok 'a bad regular expression: 64' fails 64 'where .text=(' --text --where 'text=(' in
ok 'a rate over 1: 64' fails 64 'RATE from 0 to 1' --text --sample 'a=1.5' in
ok '--min-tokens without tokens: 64' fails 64 'makes no tokens' --text --min-tokens 3 in
copies() { # exact copies anywhere, also in another file; near ones only when asked
    local j
    for i in 1 2 3; do seq -s ' ' $((i * 1000)) $((i * 1000 + 120)); done |
        awk '{ printf "{\"text\":\"%s\"}\n", $0; printf "{\"text\":\"%s and more\",\"source\":\"x\"}\n", $0 }' > c.jsonl
    head -n 3 c.jsonl > d.jsonl
    [ "$(texts --dedup exact c.jsonl d.jsonl 2> err | wc -l)" -eq 6 ] && grep -q 'left out: 3 copies' err &&
        [ "$(texts --dedup near c.jsonl d.jsonl 2> err | wc -l)" -eq 3 ] &&
        grep -q 'left out: 3 copies, 3 near copies\|left out: 2 copies, 4 near copies' err || return 1
    lprep -q -t "$model" --dedup near --stats s.json -j1 c.jsonl many.jsonl many.jsonl > n1 2> err
    cat s.json
    grep -q '"x": {"documents": 0, .*"near_copies": 3' s.json || return 1
    for j in 2 5; do
        lprep -q -t "$model" --dedup near -j$j c.jsonl many.jsonl many.jsonl 2> err | cmp - n1 || return 1
    done
    linfo n1
}
ok '--dedup exact and near: counted, the same for any number of threads' copies
full_memory() { # over what the table holds nothing seen is taken for new
    seq -f '{"text":"number %.0f of many"}' 6000 > f.jsonl
    lprep --text --dedup exact --dedup-memory 64k f.jsonl f.jsonl > g.jsonl 2> err
    cat err; wc -l g.jsonl
    grep -q 'dedup-memory was full' err && [ "$(wc -l < g.jsonl)" -gt 5900 ] &&
        [ "$(wc -l < g.jsonl)" -le 6000 ]
}
ok '--dedup-memory: full, and said so' full_memory
figure() { sed -n "s/.*$1.*\"$2\": \([0-9.e+-]*\).*/\1/p" "$3"; }
lost_copies() { # as many as are told, in --stats, manifest and linfo; and warned of
    local kept expected; rm -rf lost
    seq 3000 | sed 's/.*/{"text":"doc & one& two& three& four& five& six&"}/' > u.jsonl
    lprep -t "$model" --dedup near --dedup-memory 64k --stats s.json u.jsonl > u.stream 2> err && lpack -q -o lost u.stream || return 1
    cat err s.json
    kept=$(linfo --docs u.stream | wc -l) && expected=$(figure false_duplicates expected s.json)
    awk -v lost=$((3000 - kept)) -v e="$expected" 'BEGIN { d = lost - e; exit !(e > 100 && d * d < 25 * e) }' || return 1
    grep -q "about [0-9]* documents were left out as copies by mistake: --dedup-memory 2.00 MiB would" err &&
        grep -q 'false-duplicate probability of a document 0\.[0-9]* (15 keys)' err &&
        linfo --json u.stream 2> err | grep -q '"false_duplicates":{"probability":0\.' && grep -q 'about [0-9]* documents' err &&
        linfo lost 2> err | grep -q 'false_duplicates probability 0\..* expected [1-9][0-9][0-9]' && grep -q 'about [0-9]* documents' err &&
        lpack -q -o twice lost lost/../lost 2> err; linfo lost 2> err | grep false_dup
    lprep -t "$model" --dedup near --dedup-memory 2m u.jsonl 2> err > u.stream && ! grep -q 'by mistake\|was full' err &&
        [ "$(linfo --docs u.stream | wc -l)" -eq 3000 ]
}
ok 'false duplicates: as many as are told' lost_copies
removed() { # a line each: what, why, and as a copy of what
    local w=$(seq -f w%g -s ' ' 100)
    printf '{"text":"%s"}\n' "$w" "" "$w more" "other" "$w" > r.jsonl
    texts --dedup near --min-chars 3 --removed r.out r.jsonl 2> err
    cat r.out
    [ "$(cat r.out)" = '{"name": "r.jsonl:2", "source": "text", "reason": "empty"}
{"name": "r.jsonl:3", "source": "text", "reason": "near_copies", "of": "r.jsonl:1"}
{"name": "r.jsonl:5", "source": "text", "reason": "copies", "of": "r.jsonl:1"}' ] || return 1
    echo '{"text":3}' >> r.jsonl
    texts --dedup exact --on-error skip --removed r.out r.jsonl 2> err; cat r.out
    grep -q '^{"name": "r.jsonl:6", "reason": "bad_documents", "error": ".*"}$' r.out &&
        seq -f '{"text":"number %.0f of many"}' 3000 > f.jsonl && texts --dedup exact --dedup-memory 64k --removed r.out f.jsonl f.jsonl 2> err &&
        [ "$(grep -c '"of": "f.jsonl:' r.out)" -eq 1792 ] && grep -q '"name": "f.jsonl:9", .*"of": "f.jsonl:9"}' r.out &&
        [ "$(grep -c '"of": null, "probability": ' r.out)" -ge 1208 ] && [ "$(tail -n 1 r.out | grep -c 'f.jsonl:3000')" -eq 1 ]
}
ok '--removed' removed
ok '--removed into no folder: 73' fails 73 "cannot create" --text --removed none/r.out in
decontaminated() {
    printf 'An exam: 1101, 1102 1103 1104 1105 1106 1107 1108 1109 1110 1111 1112 -- 1113!' > exam.txt
    [ "$(texts --decontaminate exam.txt c.jsonl 2> err | wc -l)" -eq 4 ] &&
        grep -q 'left out: 2 contaminated' err &&
        [ "$(texts --decontaminate exam.txt --contam-words 14 c.jsonl 2> err | wc -l)" -eq 6 ]
}
ok '--decontaminate' decontaminated
progress() { # on a terminal: how much is done, and how long it still takes
    yes "{\"text\":\"$(seq -s ' ' 2000)\"}" | head -n 6000 > long.jsonl
    TERM=xterm script -qec "stty cols 200; lprep --text -j 1 --dedup near long.jsonl -o long.out" typed > out < /dev/null || return 1
    TERM=xterm script -qec "stty cols 50; lprep -f --text -j 1 --dedup near long.jsonl -o long.out" typed > narrow < /dev/null || return 1
    rm long.jsonl long.out; tr '\r' '\n' < out | tail -n 4
    tr '\r' '\n' < narrow | sed 's/\x1b\[K//' | grep '%, ' | awk 'length($0) > 49 { print; bad = 1 } END { exit bad || NR == 0 }' || return 1
    grep -q '[0-9]%, [0-9]*s left, file 1 of 1, [0-9,]* documents' out &&
        grep -q '/s; read [0-9]*%, encode [1-9][0-9]*%, write [0-9]*%' out
}
if script -qec true /dev/null > /dev/null 2>&1; then ok 'progress on a terminal' progress
else skip 'progress on a terminal' 'no script(1), or no terminals here'; fi
answers() { # of instructions the answers count too
    local i w=$(seq -f w%g -s ' ' 40) same=$(seq -f s%g -s ' ' 8)
    for i in "$same" "${w/w20/other}" "$w" "$w" "$(seq -f x%g -s ' ' 40)"; do
        printf '{"instruction":"%s","input":"n","output":"%s"}\n' "$same" "$i"
    done > rows.jsonl
    [ "$(texts --dedup exact rows.jsonl 2> err | wc -l)" -eq 4 ] &&
        [ "$(texts --dedup near --near-bands 30 --near-rows 4 rows.jsonl 2> err | wc -l)" -eq 3 ] || return 1
    seq -f w%g -s ' ' 22 40 > answer.txt && [ "$(texts --decontaminate answer.txt rows.jsonl 2> err | wc -l)" -eq 2 ] || return 1
    seq -f w%g -s ' ' 5000 > long.txt && [ "$(texts --decontaminate long.txt rows.jsonl 2> err | wc -l)" -eq 2 ] &&
        for i in {100..4900..100}; do printf '{"text":"%s"}\n' "$(seq -f w%g -s ' ' $i $((i + 12)))"; done > parts.jsonl &&
        [ "$(texts --decontaminate long.txt parts.jsonl exam.txt 2> err | wc -l)" -eq 1 ]
}
ok 'copies and contamination in answers' answers
ok '--decontaminate of what is not there: 66' fails 66 'none.txt' --text --decontaminate none.txt in
many_sources() { # as many as a shard holds; the rest together, and nobody's memory grows
    awk 'BEGIN { for (i = 0; i < 5000; i++) printf "{\"text\":\"a\",\"source\":\"s%d\"}\n", i }' > rows.jsonl
    lprep -q -t "$model" rows.jsonl --stats stats | lpack -q > rows.shard || return 1
    linfo --json rows.shard > rows.json
    [ "$(grep -o '"name"' rows.json | wc -l)" -eq 4096 ] &&
        grep -q '"name":"other","documents":905,' rows.json &&
        grep -q '"other": {"documents": 905, ' stats
}
ok 'rows of 5000 sources: the last of them are "other"' many_sources
marked() { # before JSON a byte order mark says nothing, whatever the file is called
    printf '\xef\xbb\xbf{"text":"marked"}\n{"text":"plain"}\n' | tee marked.jsonl > marked
    [ "$(texts marked.jsonl | wc -l)" -eq 2 ] && [ "$(texts marked | wc -l)" -eq 2 ] &&
        texts marked | grep -q '^{"text":"marked"'
}
ok 'a byte order mark before JSON' marked
printed() { # the stream names its tokenizer by name and content
    lprep -q -t "$model" in > a.stream && linfo --json a.stream > a.json &&
        linfo --json "$model" | grep -o '"fingerprint":"[0-9a-f]*"' > print &&
        [ "$(wc -c < print)" -eq 49 ] && grep -qFf print a.json && grep -qF "\"tokenizer\":\"$model\"" a.json
}
ok 'the stream says which tokenizer it was made with' printed
giants() { # words too long for every thread to have one at a time: the same ids
    local k
    for k in a b c; do head -c 1300000 /dev/zero | tr '\0' $k > giant-$k.txt; done
    lprep -q -j 1 -t "$model" giant-?.txt > one.stream && lprep -q -j 3 -t "$model" giant-?.txt | cmp one.stream - &&
        lprep -q -j 2 --engine sentencepiece -t "$model" giant-?.txt > two.stream || return 1
    rm giant-?.txt
    cmp <(linfo --json one.stream | grep -o '"tokens":[0-9]*') <(linfo --json two.stream | grep -o '"tokens":[0-9]*')
    cmp one.stream two.stream
}
ok 'words of 1.3 MB, three at once' giants
terminal() {
    script -qec "lprep -t '$model' in" typescript > /dev/null 2>&1
    [ $? -eq 64 ] && grep -q 'to the terminal' typescript
}
if script -qec true /dev/null > /dev/null 2>&1; then ok 'tokens are refused by a terminal' terminal
else skip 'not here' 'no script(1), or no terminals here'; fi

if [ -n "$LONGLORA_DATA" ]; then
    whole() { # every set of the data is known for what it is
        lprep --text "$LONGLORA_DATA"/{pg19/pg19-test.tar.zst,redpajama,proof-pile} \
            "$LONGLORA_DATA"/alpaca/{longalpaca_like,alpaca_en_demo}.json.zst 2> err > /dev/null
        cat err
        grep -q 'pg19-test.tar.zst.: 29 documents, pg19' err &&
            [ "$(grep -c 'redpajama v1 (source redpajama\.' err)" -eq 5 ] &&
            [ "$(grep -c ' proof-pile (source proof-pile)' err)" -eq 4 ] &&
            grep -q '223 documents, longalpaca' err && grep -q '999 documents, alpaca' err
    }
    ok 'RedPajama, PG-19, proof-pile, LongAlpaca, Alpaca are told apart' whole
    ok 'rows of another shape: which keys they have' \
        fails 65 'id, name, instruction, instances' \
        --text "$LONGLORA_DATA/alpaca/seed_tasks.jsonl.zst"
    memory() { # 68 MB of books through less than 300 MB
        env time -f %M -o rss lprep -q -t "$model" "$LONGLORA_DATA"/pg19/*train*.tar.zst \
            > /dev/null
        cat rss
        [ "$(tail -n 1 rss)" -lt 300000 ]
    }
    if [ -x /usr/bin/time ] && [ -z "$SAN" ]; then ok 'memory stays bounded' memory
    else skip 'not here' 'no time(1), or memory that sanitizers watch'; fi
else
    for i in 1 2 3; do skip 'not here' 'no $LONGLORA_DATA'; done
fi
echo "1..$n"
