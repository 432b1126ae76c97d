#!/bin/bash
# The whole pipe as a user runs it: text to tokens to a longer context to a merged model.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh

base=demo/base
mkdir "$tmp/texts"
cp README.md "$tmp/texts/a.txt"
cp ARCHITECTURE.md "$tmp/texts/b.txt"
for f in formats/*.md; do cat "$f"; done > "$tmp/texts/c.txt"
printf 'one line, no end of line, \xc3\xa9 \xf0\x9f\x90\x8d and a tab\t.' > "$tmp/texts/d.txt"

tokens() { lprep -q "$tmp/texts" -t $base/tokenizer.model | lpack -q -o "$tmp/shards"; }
ok "lprep | lpack -o: text to shards" tokens

round_trip() {
    local i=0 f
    lprep -q "$tmp/texts" -t $base/tokenizer.model | lpack -q > "$tmp/all.shard" || return 1
    for f in a b c d; do
        linfo -q --doc $i -t $base/tokenizer.model "$tmp/all.shard" > "$tmp/back" || return 1
        cmp "$tmp/texts/$f.txt" "$tmp/back" || return 1
        i=$((i + 1))
    done
}
ok "decoding a shard gives every document back, byte for byte" round_trip

damaged() { # a shard whose first byte is wrong is not taken for raw ids
    cp "$tmp/all.shard" "$tmp/bad.shard"
    printf 'X' | dd of="$tmp/bad.shard" conv=notrunc 2> /dev/null
    ends 65 'first 8 bytes are damaged' leval --ppl "$tmp/bad.shard" --model $base
}
ok "a shard with a damaged first byte is refused as one" damaged

train() {
    ltrain -q "$tmp/shards" --model $base -o "$tmp/adapter" --ctx 1k --batch 2 --steps 3 --lr 1e-3 \
        --warmup 1 && linfo -q --verify "$tmp/adapter"
}
ok "ltrain: a base of 256 tokens extended to 1k" train

# loss MODEL-OPTIONS...: the loss at 1k tokens
loss() {
    leval -q --ppl "$tmp/all.shard" --ctx 1k --protocol nonoverlap --join --json "$@" |
        sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' | head -1
}
merge() {
    local a b c
    lmerge -q --model $base --adapter "$tmp/adapter" -o "$tmp/merged" --dtype float32 || return 1
    linfo -q --verify "$tmp/merged" || return 1
    a=$(loss --model $base --adapter "$tmp/adapter") b=$(loss --model "$tmp/merged")
    c=$(loss --model $base)
    echo "base+adapter $a, merged $b, base $c"
    awk -v a="$a" -v b="$b" -v c="$c" 'BEGIN { d = a - b; if (d < 0) d = -d
        exit !(a > 0 && d < 1e-5 * a && c - a > 0.01) }'
}
ok "lmerge: base + adapter and the merged model score the same, and better than the base" merge

not_a_number() { # lmerge publishes nothing with a NaN in it
    cp -r "$tmp/merged" "$tmp/nan" && chmod u+w "$tmp/nan/model.safetensors"
    printf '\x00\x00\xc0\x7f' | dd of="$tmp/nan/model.safetensors" bs=1 conv=notrunc \
        seek=$(($(stat -c %s "$tmp/nan/model.safetensors") - 4)) 2> /dev/null
    ends 65 'tensor' lmerge --model "$tmp/nan" --adapter "$tmp/adapter" -o "$tmp/nan2" &&
        [ ! -e "$tmp/nan2" ]
}
ok "lmerge refuses a base with a NaN" not_a_number

# A model that others trained: stories260K, from 512 to 2048 tokens on PG-19 books.
stories() {
    local m=$tmp/stories w=$LONGLORA_DATA/weights/stories260K before after
    mkdir "$m" && zstd -dqc "$w/hf/model.safetensors.zst" > "$m/model.safetensors" &&
        cp "$w/hf/config.json" "$m" && cp "$w/tok512.model" "$m/tokenizer.model" || return 1
    lprep -q "$LONGLORA_DATA/pg19/pg19-train.tar.zst" --max-docs 6 -t "$m/tokenizer.model" |
        lpack -q -o "$tmp/books" || return 1
    lprep -q "$LONGLORA_DATA/pg19/pg19-validation.tar.zst" --max-docs 1 -t "$m/tokenizer.model" |
        lpack -q > "$tmp/book.val" || return 1
    ltrain -q "$tmp/books" --model "$m" -o "$tmp/longer" --ctx 2k --batch 4 --steps 12 --lr 3e-3 \
        --warmup 2 || return 1
    score() {
        leval -q --ppl "$tmp/book.val" --ctx 2k --protocol nonoverlap --max-tokens 20000 --json "$@" |
            sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' | head -1
    }
    before=$(score --model "$m") after=$(score --model "$m" --adapter "$tmp/longer")
    echo "loss beyond the model's context: before $before, after $after"
    awk -v a="$before" -v b="$after" 'BEGIN { exit !(b > 0 && b < a - 0.3) }'
}
if [ -n "$LONGLORA_DATA" ]; then
    ok "a pretrained model's loss beyond its context falls when it is extended" stories
else
    skip "a pretrained model's loss beyond its context falls when it is extended" 'no $LONGLORA_DATA'
fi
echo "1..$n"
