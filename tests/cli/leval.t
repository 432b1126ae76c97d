#!/bin/bash
# leval as a user meets it: results, forms of data, refusals, and a pretrained model's numbers.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
says() { # says STATUS WORDS COMMAND...: exit status, and words on standard error
    local want=$1 words=$2 got
    shift 2
    "$@" > "$tmp/out" 2> "$tmp/err"
    got=$?
    cat "$tmp/err"
    [ "$got" = "$want" ] || { echo "status $got, not $want"; return 1; }
    [ ! -s "$tmp/out" ] || { echo "standard output is not empty"; return 1; }
    grep -qF -- "$words" "$tmp/err" || { echo "does not say: $words"; return 1; }
}

model=tests/data/model/gqa
# 300 ids below 48 as u16
for i in $(seq 300); do printf "\\x$(printf %02x $((i * i % 47)))\\x00"; done > "$tmp/ids.bin"
score() { leval -q --ppl "$tmp/ids.bin" --model $model --ctx 16,64 --step 8 "$@"; }

table() {
    score > "$tmp/t" && cat "$tmp/t" && grep -q '^protocol  longlora' "$tmp/t" &&
        grep -q 'raw u16, 300 tokens, 1 document' "$tmp/t" &&
        grep -qE '^ *64 +[0-9.]+ +[0-9.]+ +1827 +29 +1 +- +- +-' "$tmp/t"
}
ok "a table says protocol, form, tokens, windows, documents" table

json() {
    score --json --label "one" > "$tmp/a.json" &&
        score --json -j 1 --label "two" -o "$tmp/b.json" &&
        diff <(grep loss_hex "$tmp/a.json") <(grep loss_hex "$tmp/b.json") &&
        [ "$(grep -c loss_hex "$tmp/a.json")" = 2 ]
}
ok "JSON has the exact losses, the same for any threads, also with -o" json

by_document() { # the data is one document: its sums are the whole's
    local n='--protocol nonoverlap'
    score --json $n --by-document > "$tmp/d.json" && score --json $n > "$tmp/e.json" || return 1
    cat "$tmp/d.json"
    [ "$(grep -c '"by_document"' "$tmp/d.json")" -eq 2 ] && ! grep -q by_document "$tmp/e.json" &&
        awk -F': *|,' '/"loss":/ && !l { l = $2 } /"tokens":/ && !t { t = $2 } /"nll":/ && !s { s = $2 }
            END { exit !(t > 0 && s / t > 0.9999 * l && s / t < 1.0001 * l) }' \
            <(sed -n '/"ctx": 64/,$p' "$tmp/d.json" | sed '/"by_position"/,/\]/d') &&
        says 64 'windows that do not cross documents' score --json --by-document &&
        says 64 'needs --json' score $n --by-document &&
        says 64 '--by-document works only with --ppl' leval --table --by-document "$tmp/a.json"
}
ok "the loss of each document, where windows do not cross them" by_document

compare() {
    leval --table "$tmp/a.json" "$tmp/b.json" > "$tmp/t" 2> "$tmp/err" &&
        cat "$tmp/t" "$tmp/err" && [ ! -s "$tmp/err" ] &&
        grep -qE '^one +[0-9.]+ +[0-9.]+$' "$tmp/t" && grep -qE '^two ' "$tmp/t" &&
        LC_ALL=C leval --table -q "$tmp/a.json" > "$tmp/q" && [ "$(wc -l < "$tmp/q")" = 2 ] &&
        leval --table --json "$tmp/a.json" | grep -q '"label": "one"'
}
ok "--table compares results and draws a chart, -q only the table" compare

differs() {
    score --json --protocol stride > "$tmp/c.json" || return 1
    leval --table "$tmp/a.json" "$tmp/c.json" 2>&1 > /dev/null | grep -q 'do not compare'
}
ok "--table warns of another protocol" differs

plots() {
    leval -q --table "$tmp/a.json" --plot "$tmp/p.png" --title "it's" > /dev/null &&
        head -c 4 "$tmp/p.png" | grep -q PNG &&
        score --plot "$tmp/p.svg" --by-position > /dev/null && grep -q '<svg' "$tmp/p.svg"
}
hex() { leval -q --ppl "$tmp/ids.bin" --ctx 64 --step 8 --json "$@" | grep loss_hex; }
rope() { # a factor on the command line is the factor in config.json
    cp -r tests/data/model/mha "$tmp/linear" &&
        sed -i 's/"rope_type": "default"/"rope_type": "linear", "factor": 2.0/' \
            "$tmp/linear/config.json" && hex --model "$tmp/linear" > "$tmp/want" &&
        hex --model tests/data/model/mha > "$tmp/plain" && ! cmp "$tmp/plain" "$tmp/want" &&
        hex --model tests/data/model/mha --rope-factor 2 | cmp - "$tmp/want" &&
        hex --model tests/data/model/mha --rope-factor auto | cmp - "$tmp/want"
}
ok "--rope-factor scales positions, auto by the reference's rule" rope
bare() { # an adapter without config.json, and the model that lmerge makes of it
    local d=tests/data/peft_tiny/plain
    lmerge -q -m $d/base -a $d/adapter --rope-factor 2 -o "$tmp/bare" &&
        for i in $(seq 300); do printf "\\x$(printf %02x $((i * i % 31)))\\x00"; done > "$tmp/few.bin" &&
        ppl() { leval -q --ppl "$tmp/few.bin" --ctx 128 --step 64 --json "$@" | sed -n 's/.*"ppl": *\([0-9.]*\).*/\1/p' | head -1; } &&
        scaled=$(ppl -m $d/base -a $d/adapter --rope-factor 2) && plain=$(ppl -m $d/base -a $d/adapter) &&
        merged=$(ppl -m "$tmp/bare") && [ -n "$scaled" ] && [ "$scaled" != "$plain" ] &&
        awk -v a="$scaled" -v b="$merged" 'BEGIN { exit !(a - b < 1e-4 * b && b - a < 1e-4 * b) }'
}
ok "an adapter without config.json takes --rope-factor, as lmerge does" bare

if command -v gnuplot > /dev/null; then
    ok "--plot draws PNG and SVG" plots
    ok "an existing plot is kept" says 73 "-f replaces it" score --plot "$tmp/p.png"
else
    skip "--plot draws PNG and SVG" "no gnuplot"
    skip "an existing plot is kept" "no gnuplot"
fi
ok "no gnuplot: the package is named" says 71 gnuplot-nox \
    env PATH="$(dirname "$(command -v leval)"):/nonexistent" \
    leval --ppl "$tmp/ids.bin" --model $model --plot "$tmp/new.png"
[ ! -e "$tmp/new.png" ] || rm "$tmp/new.png"
no_plot() { # a plot that fails takes nothing with it
    mkdir -p "$tmp/bin" && printf '#!/bin/sh\n[ $# = 1 ] && [ "$1" = --version ]\n' > "$tmp/bin/gnuplot" &&
        chmod +x "$tmp/bin/gnuplot"
    PATH=$tmp/bin:$PATH score --plot "$tmp/new.png" > "$tmp/t" 2> "$tmp/err"
    [ $? = 71 ] && grep -q '^protocol  longlora' "$tmp/t" && [ ! -e "$tmp/new.png" ]
}
ok "a plot that fails: the table is out" no_plot
ok "a plot into no folder: told at once" says 73 "nowhere/p.png" score --plot "$tmp/nowhere/p.png"

ok "no such data" says 66 "absent" leval -q --ppl "$tmp/absent" --model $model
ok "no such model" says 66 "absent" leval -q --ppl "$tmp/ids.bin" --model "$tmp/absent"
ok "no such adapter" says 66 "absent" score --adapter "$tmp/absent"
ok "a context that is no number" says 64 "8x" score --ctx 16,8x
ok "a context of one token" says 64 "--ctx 1" score --ctx 1
ok "a factor that is none" says 64 "--rope-factor" score --rope-factor 0.5
ok "a plot without a known ending" says 64 ".png" score --plot "$tmp/p.gif"
ok "a result that is none" says 65 "--json" leval --table "$tmp/ids.bin"
ok "two modes at once" says 64 "--table" score --table
ok "too few tokens for a window" says 65 "--protocol nonoverlap" score --ctx 512
printf '\x01\x00\x00\x01%.0s' $(seq 40) > "$tmp/high.bin"
ok "an id above the vocabulary, its file named once" says 65 "leval: '$tmp/high.bin': token 1 is" \
    leval -q --ppl "$tmp/high.bin" --form raw --model $model --ctx 8
ok "a step that skips tokens" says 78 "--step" score --protocol stride --step 16
printf '\x30\x00%.0s' $(seq 40) > "$tmp/big.bin"
ok "ids beyond the vocabulary" says 65 "big.bin" \
    leval -q --ppl "$tmp/big.bin" --model $model --ctx 16
printf '\x01\x00\x02' > "$tmp/odd.bin"
ok "half an id" says 65 "odd.bin" leval -q --ppl "$tmp/odd.bin" --model $model
ok "text for a model of a smaller vocabulary" says 78 "vocabulary" \
    leval -q --ppl tests/data/tiny.txt -t tests/data/tiny.model --model $model
ok "text and no tokenizer" says 78 "--tokenizer" \
    leval -q --ppl tests/data/tiny.txt --model $model
other_forms() { # what is not ids, text or shards is called by its name, from a pipe too
    local rows='{"text":"some words and some more"}'
    printf '%s\n' "$rows" "$rows" > "$tmp/rows" && cp "$tmp/rows" "$tmp/rows.txt" &&
        says 65 "is JSON, not text" leval -q --ppl "$tmp/rows" --model $model &&
        says 65 "is JSON, not text" leval -q --ppl "$tmp/rows.txt" --model $model &&
        says 65 "is JSON, not text" bash -c "leval -q --ppl - --model $model < '$tmp/rows'" &&
        says 65 "is JSON, not text" bash -c "cat '$tmp/rows' | leval -q --ppl - --model $model" &&
        says 65 "packed by gzip" bash -c "gzip -c '$tmp/rows' | leval -q --ppl - --model $model" || return 1
    seq 1000 2999 > "$tmp/text.bin" # all of it is text
    says 65 "is text, not raw 16-bit token ids" leval -q --ppl "$tmp/text.bin" --model $model &&
        says 65 "not below the vocabulary" leval -q --ppl "$tmp/text.bin" --form raw --model $model
}
ok "JSON, gzip, text for ids: 65, by name" other_forms
gzip -c tests/data/tiny.txt > "$tmp/t.txt.gz"
ok "a compressed file" says 65 "lprep" leval -q --ppl "$tmp/t.txt.gz" --model $model
printf '{"leval":' > "$tmp/cut.json"
ok "a pipe that is not -" says 65 "use -" leval -q --ppl <(cat "$tmp/ids.bin") --model $model
ok "a cut result" says 65 "cut.json" leval --table "$tmp/a.json" "$tmp/cut.json"
ok "a model is not a result" says 65 "not a result" leval --table $model/config.json
ok "standard output that is full" says 74 "standard output" \
    bash -c "leval -q --ppl '$tmp/ids.bin' --model $model --ctx 16 > /dev/full"
ok "-o is no device" says 73 "regular" score -f -o /dev/full
ok "-o keeps what is there" says 73 "exists" score -o "$tmp/a.json"

lprep -q -t tests/data/tiny.model tests/data/tiny.txt > "$tmp/stream" &&
    lpack -q < "$tmp/stream" > "$tmp/tiny.val"
ok "a shard for a model of a smaller vocabulary" says 78 "vocabulary" \
    leval -q --ppl "$tmp/tiny.val" --model $model
ok "a token stream names lpack" says 65 "lpack" leval -q --ppl "$tmp/stream" --model $model

data=$LONGLORA_DATA
s=$tmp/stories
if [ -d "$data/weights/stories260K" ] && command -v zstd > /dev/null; then
    mkdir "$s"
    cp "$data/weights/stories260K/hf/config.json" "$s"
    cp "$data/weights/stories260K/tok512.model" "$s/tokenizer.model"
    zstd -dqc "$data/weights/stories260K/hf/model.safetensors.zst" > "$s/model.safetensors"
    zstd -dqc "$data/pg19/pg19-validation.tar.zst" | tar -xO pg19/validation/42306.txt \
        > "$tmp/book.txt"
    have=1
fi
golden() { # PROTOCOL: leval's loss over the book against transformers'
    leval -q --ppl "$tmp/book.txt" --model "$s" --ctx 512 --max-tokens 8k --protocol "$1" \
        --json > "$tmp/g.json" || return 1
    awk -v p="$1" '
        FNR == NR { if (/"ppl"/) on = 1; if (on && /"loss"/) { got = $2 + 0; on = 0 } next }
        /"book"/ { book = 1 }
        book && /"protocol"/ { mine = index($0, "\"" p "\"") }
        book && mine && /"loss"/ { want = $2 + 0 }
        END { printf "loss %.9f, transformers %.9f\n", got, want
              d = got / want - 1; exit !(want > 5 && d < 1e-6 && d > -1e-6) }
    ' "$tmp/g.json" tests/data/eval_golden.json
}
same() { # the forms of one text give one loss, word for word
    local form
    for form in "$tmp/book.txt" "$tmp/book.shard" "$tmp/books" -; do
        leval -q --ppl "$form" --model "$s" --ctx 512 --protocol stride --max-tokens 4k --json \
            < "$tmp/book.txt" > "$tmp/all" || return 1
        grep -E 'loss_hex|"documents"|"tokens"' "$tmp/all" > "$tmp/form"
        cat "$tmp/form"
        [ -e "$tmp/first" ] || cp "$tmp/form" "$tmp/first"
        cmp "$tmp/form" "$tmp/first" || return 1
    done
}
exact() { # every word of whole documents counts under stride, where a BOS predicts the first; no EOS
    lprep -q -t "$s/tokenizer.model" --add-bos "$tmp/book.txt" | lpack -q > "$tmp/bos.shard" || return 1
    local form
    for form in "$tmp/bos.shard" "$tmp/book.txt --add-bos" "$tmp/book.shard"; do
        leval -q --ppl $form --model "$s" --ctx 512 --protocol stride --json > "$tmp/e.json" || return 1
        grep -E '"(words|bytes|text_exact|bits_per_byte)"' "$tmp/e.json" |
            sed -E 's/([.][0-9]{5})[0-9]+/\1/' > "$tmp/exact"
        cat "$tmp/exact"
        if [ "$form" = "$tmp/book.shard" ]; then
            grep -q '"text_exact": false' "$tmp/exact"
            return
        fi
        grep -q '"text_exact": true' "$tmp/exact" &&
            grep -q "\"words\": $(wc -w < "$tmp/book.txt").0" "$tmp/exact" &&
            grep -q "\"bytes\": $(wc -c < "$tmp/book.txt").0" "$tmp/exact" || return 1
        [ -e "$tmp/exact1" ] || cp "$tmp/exact" "$tmp/exact1"
        cmp "$tmp/exact" "$tmp/exact1" || return 1
    done
}
if [ -n "$have" ]; then
    for p in nonoverlap longlora stride; do
        ok "a book by $p as transformers has it" golden $p
    done
    lprep -q -t "$s/tokenizer.model" "$tmp/book.txt" > "$tmp/bs" &&
        lpack -q < "$tmp/bs" > "$tmp/book.shard" && lpack -q -o "$tmp/books" < "$tmp/bs"
    ok "text, shard, folder and pipe give one loss" same
    ok "words and bytes of whole documents are exact" exact
    cp tests/data/tiny.model "$s/tokenizer.model"
    ok "data of another tokenizer" says 78 "another tokenizer" \
        leval -q --ppl "$tmp/book.shard" --model "$s" --max-windows 1
    forced() {
        leval -q -f --ppl "$tmp/book.shard" --model "$s" --max-windows 1 2>&1 > "$tmp/t" |
            grep -q "another tokenizer" && grep -q '^ *512 ' "$tmp/t"
    }
    ok "data of another tokenizer with -f" forced
else
    for p in nonoverlap longlora stride one exact other forced; do
        skip "a book: $p" 'no $LONGLORA_DATA'
    done
fi
# 700 GiB of buffers, promised or not; a machine that has them says nothing.
for i in 1 2 3 4 5 6 7 8; do cat "$tmp/ids.bin"; done > "$tmp/long.bin"
vast() {
    timeout 20 leval -q --ppl "$tmp/long.bin" --model $model --ctx 2k --max-windows 1 \
        --batch-tokens 2048m > "$tmp/out" 2> "$tmp/err"
    cat "$tmp/err"
    [ "$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)" -gt 700000000 ] ||
        grep -q 'the model needs .* is free' "$tmp/err" && ! grep -q -e --micro "$tmp/err"
}
if [ -n "$SAN" ]; then skip 'more than the free memory' 'a sanitizer writes notes of promised memory'
else ok 'more than the free memory is said' vast; fi
echo "1..$n"
