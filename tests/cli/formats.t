#!/bin/bash
# lpack --export and --import: token files of other programs, there and back, or not at all.
cd "$(dirname "$0")/../.." || exit 70
make=$TESTBIN/test_stream # with arguments: SEED DOCS VOCAB [MAX_IDS [US [cut]]]
[ -x "$make" ] || { echo '1..0 # SKIP the stream producer is not built'; exit 0; }
. tests/cli/lib.sh
data=$PWD/tests/data
cd "$tmp" || exit 70
ids() { linfo --ids "$@" | grep .; } # but for empty documents
nothing() { ! ls -A | grep -q '^no\|tmp-[0-9a-f]' || { ls -la; return 1; }; }

"$make" 1 100 32000 > a.stream
"$make" 2 20 128256 > wide.stream
lpack -q --no-shuffle -o s --split v=0.2 a.stream
lpack -q wide.stream > wide.shard
lprep -q "$data/tiny.txt" -t "$data/tiny.model" | lpack -q > text.shard

# --- there and back
for f in u16 llmc ndjson megatron; do
    ok "--export $f" lpack -q --export $f -o x.$f s
done
ok 'NDJSON and back: the same bytes' eval 'lpack -q --import ndjson --no-shuffle -o n x.ndjson &&
    cmp n/train-* s/train-*'
ok 'through a pipe' eval 'lpack -q --export ndjson s | lpack -q --import ndjson - | cmp - s/train-*'
ok 'compressed' eval 'gzip -k x.ndjson && lpack -q --import ndjson x.ndjson.gz | cmp - s/train-*'
ok 'compressed and cut short: no option is named that lpack lacks' eval 'head -c 400 x.ndjson.gz > cut.ndjson.gz &&
    ends 65 "cut.ndjson.gz. is cut short" lpack -q --import ndjson -o no cut.ndjson.gz && grep -q "or leave it out$" "$tmp/err"'
ok 'Megatron and back: the same documents' eval 'lpack -q --import megatron --vocab 32000 \
    x.megatron.idx > m.shard && cmp <(linfo --ids m.shard) <(linfo --ids s)'
ok 'either file stands for both' eval 'for f in x.megatron.bin x.megatron.idx; do
    lpack -q --import megatron --vocab 32000 $f | cmp - m.shard || exit; done'
for f in u16 llmc; do
    ok "$f and back: the same tokens" eval "lpack -q --import $f --vocab 32000 x.$f > t.shard &&
        cmp <(linfo --ids t.shard) <(ids s | tr '\n' ' ' | sed 's/ \$//; s/\$/\n/')"
    ok "$f to standard output" eval "lpack -q --export $f s | cmp - x.$f"
done
ok 'what u16 wrote, leval and linfo read raw' eval 'linfo --raw --ids x.u16 | cmp - <(linfo --ids t.shard)'
ok 'a single shard' eval 'lpack -q --export u16 s/train-* | cmp - x.u16'
ok 'another split' eval 'lpack -q --export ndjson --split v s | lpack -q --import ndjson - | cmp - s/v-*'
wide() {
    local f
    for f in llmc megatron; do
        lpack -q --export $f -o w.$f wide.shard &&
            lpack -q --import $f --vocab 128256 w.$f > w.shard &&
            cmp <(ids w.shard | tr '\n' ' ') <(ids wide.shard | tr '\n' ' ') || return
    done
}
ok 'ids of 32 bits' wide
ok 'cut at an id' eval 'lpack -q --export u16 text.shard > t.u16 && cat t.u16 t.u16 > tt.u16 &&
    lpack -q --import u16 -t "$data/tiny.model" --eos 2 tt.u16 > tt.shard &&
    cmp <(linfo --ids tt.shard) <(linfo --ids text.shard; linfo --ids text.shard)'
ok 'and decoded' eval 'linfo --doc 1 -t "$data/tiny.model" tt.shard | cmp - "$data/tiny.txt"'
lpack -q --export ndjson -t "$data/tiny.model" text.shard | grep '"text"' > text.ndjson
ok 'NDJSON with its text, which lprep reads' eval 'lprep -q -t "$data/tiny.model" text.ndjson |
    lpack -q > again.shard && cmp <(linfo --ids again.shard) <(linfo --ids text.shard)'
long() { # a mask longer than is read at once, and bounds where a piece ends
    seq 30000 | tr '\n' ' ' | sed 's/.*/{"instruction":"&","output":"yes"}/' | lprep -q -t "$data/tiny.model" - | lpack -q > l.shard &&
        [ "$(linfo --json l.shard | grep -oE '"masked":[0-9]+' | cut -d : -f 2)" -gt 70000 ] &&
        lpack -q --export ndjson l.shard | lpack -q --import ndjson - | cmp - l.shard || return 1
    (printf '\1\0'; yes $'\5' | tr '\n' '\0' | head -c 131070; printf '\1\0\6\0') > p.u16
    lpack -q --import u16 --vocab 9 --bos 1 p.u16 > p.shard && linfo --docs p.shard | cut -f 2 | tr '\n' ' ' | grep -x '65536 2 '
}
ok 'documents longer than is read at once' long
ok 'in files of so many tokens' eval 'mkdir many && lpack -q --export llmc --shard-tokens 8k \
    -o many/part.bin s && [ -e many/part_000001.bin ] && [ ! -e many/part.bin ] &&
    lpack -q --import llmc --vocab 32000 many/part_*.bin > p.shard &&
    cmp <(linfo --ids p.shard | tr "\n" " ") <(ids s | tr "\n" " ")'

ok 'linfo knows them' eval 'linfo x.llmc x.megatron.idx | grep -c "tokens  *[1-9][0-9][0-9]" | grep -x 2 &&
    linfo --json x.megatron.idx | grep -q "\"documents\":$(linfo --ids s | wc -l),"'
ok 'and the trainer does not take one for raw ids' ends 65 'lpack --import llmc' \
    linfo --raw --ids x.llmc

# --- what is lost is said
said() { lpack --export "$1" -o said -f s 2> err; grep -q -- "$2" err; }
masked=$(linfo --json s/train-* | grep -oE '"masked":[0-9]+' | cut -d : -f 2)
ok 'masks that are lost are counted' said u16 "no loss mask: $masked masked tokens"
ok 'bounds too' said llmc 'no bounds: [0-9]* documents'
ok 'and labels' said megatron 'source and name, which [0-9]* documents'
ok 'NDJSON loses nothing' eval 'lpack --export ndjson -o said -f s 2> err; ! grep -q "format has" err'

# --- what is refused
cp x.u16 kept
ok 'a file that is there' ends 73 'is there already' lpack --export llmc -o x.u16 s
ok 'is left alone' cmp x.u16 kept
ok '-f replaces it' eval 'lpack -q -f --export llmc -o x.u16 s && cmp x.u16 x.llmc'
ok 'half of two files' eval 'cp kept half.idx && ends 73 "half.idx" lpack --export megatron -o half s &&
    cmp half.idx kept && [ ! -e half.bin ]'
ok 'ids that do not fit' ends 78 '16 bits' lpack --export u16 -o no wide.shard
ok 'no such split' ends 78 "no split 'w'" lpack --export u16 -o no --split w s
ok 'another tokenizer' ends 78 'not made with' lpack --export ndjson -t "$data/tiny.model" -o no s
ok 'no data set' ends 66 'nowhere' lpack --export u16 -o no nowhere
ok 'no folder to write to' ends 73 'nowhere/no' lpack --export u16 -o nowhere/no s
ok 'Megatron to standard output' ends 64 'two files' lpack --export megatron s
ok 'two data sets' ends 64 'one data set' lpack --export u16 -o no s s
ok 'what does not go with it' ends 64 'takes only' lpack --export u16 --append -o no s
ok 'both ways' ends 64 'exclude' lpack --export u16 --import u16 -o no s
ok '--eos without --import' ends 64 'for --import' lpack --eos 2 -o no a.stream
ok 'a full disk' ends 74 'No space left' eval 'lpack --export llmc s > /dev/full'
flip() { cp "$1" bad && printf '\377' | dd of=bad bs=1 seek="$2" conv=notrunc status=none; }
flip s/train-* 6000
ok 'a damaged shard' ends 65 "bad.*token block 0" lpack --export u16 -o no bad
cp x.megatron.bin bad.bin
flip x.megatron.idx 34 && mv bad bad.idx
ok 'a damaged index' ends 65 'bad.idx.*sequence 1 at byte 326' lpack --import megatron --vocab 32000 -o no bad
ok 'half a pair' ends 66 'said.bin\|alone' eval 'cp x.megatron.idx alone.idx;
    lpack --import megatron --vocab 32000 -o no alone'
ok 'a header that lies' eval 'flip x.llmc 8; ends 65 "bad.*byte 8" lpack --import llmc -o no bad'
ok 'an id beyond the vocabulary' ends 65 "'x.llmc': token [0-9]* at byte [0-9]* is id" \
    lpack --import llmc --vocab 9 -o no x.llmc
ok 'ids of 32 bits without a vocabulary' ends 64 'vocab' lpack --import llmc -o no w.llmc
head -n 20 x.ndjson > cut.ndjson
ok 'NDJSON without its end' ends 65 'before its end line' lpack --import ndjson -o no cut.ndjson
sed 5d x.ndjson > less.ndjson
ok 'NDJSON that lacks a line' ends 65 'the end counts' lpack --import ndjson -o no less.ndjson
awk '!done && !/"mask"/ { done = sub(/"tokens":\[[0-9]+,/, "\"tokens\":[") } 1' x.ndjson > fewer.ndjson
ok 'NDJSON that lacks a token' ends 65 'the end counts' lpack --import ndjson -o no fewer.ndjson
ok 'a line that is none' eval 'echo "{\"tokens\":[1,x]}" > l.ndjson
    ends 65 "line 1.*l.ndjson" lpack --import ndjson --vocab 9 -o no l.ndjson'
ok 'an id too large in one' eval 'printf "%s\n" "{\"tokens\":[1]}" "{\"tokens\":[2,9],\"meta\":{\"name\":\"n\"}}" > l.ndjson
    ends 65 "line 2: .l.ndjson.: .*token 1 is id 9" lpack --import ndjson --vocab 9 -o no l.ndjson'
ok "llm.c's file as raw ids" ends 65 'import llmc' lpack --import u16 -o no x.llmc
ok 'no file to import' ends 64 'no file' lpack --import u16 -o no
ok 'nothing came of any of them' nothing
killed() { # at any moment: no file, or a whole one
    local i
    for i in $(seq 1 10); do
        rm -f k.bin
        lpack -q --export llmc -o k.bin s & local pid=$!
        sleep "$(printf '0.%03d' $((RANDOM % 8)))"
        kill -KILL $pid 2> /dev/null
        wait $pid 2> /dev/null
        [ ! -e k.bin ] || cmp k.bin x.llmc || return 1
    done
}
ok 'SIGKILL' killed
no_ids() { # any file of an even size could be raw ids: one that looks like another form is none
    local f
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 1234567\n\n' 7 > lfs.bin
    seq 1000 1999 > text.bin && printf '{"a":1}\n{"a":22}\n\n' > json.bin && printf '%%PDF-1.4\n1 0 obj\n<<>>\n' > pdf.bin &&
        printf 'PAR1\x15\4\x15\4data\4\0\0\0PAR1' > par.bin && cp "$data/tiny.model" sp.bin && truncate -s %2 sp.bin &&
        cp x.megatron.idx idx.bin && truncate -s %2 idx.bin || return 1
    for f in 'lfs:a pointer of Git LFS' 'text:text' 'json:JSON' 'pdf:a PDF' 'par:a Parquet table' \
        'idx:an index of Megatron' 'sp:a SentencePiece model'; do
        ends 65 "${f#*:}" eval "lpack -q --import u16 ${f%%:*}.bin > zz.shard" || { echo "$f"; return 1; }
    done
    lpack -q --import u16 --form raw text.bin > text.shard && linfo --ids text.shard | cut -d ' ' -f 1-3 | grep -qx '12337 12336 12554' &&
        ends 64 'for --import u16' eval 'lpack -q --form raw < a.stream > zz.shard'
}
ok 'raw ids that are none: 65, by name' no_ids
echo "1..$n"
