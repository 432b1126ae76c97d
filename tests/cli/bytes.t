#!/bin/bash
# What the tools write is the same, byte for byte, as when tests/data/bytes.sum was recorded:
# streams, shards, exports, models, adapters, merged folders; of a run, every loss; of leval, every
# figure. Whoever changes bytes on purpose records them anew, and says why in the commit:
#   PATH=build/bin:$PATH tests/cli/bytes.t --record > tests/data/bytes.sum
# Floats depend on compiler and processor: their lines are held to what recorded them (the line
# "# on"), and skipped elsewhere. Matrix products are the built-in ones.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
sums=$PWD/tests/data/bytes.sum config=$PWD/tests/data/tiny-config.json
export LONGLORA_BLAS=builtin
machine() {
    local cpu=other
    grep -q '^flags.* fma.* avx2' /proc/cpuinfo && cpu=avx2
    grep -q '^flags.* avx512vl' /proc/cpuinfo && cpu=avx512
    echo "$(${CC:-cc} -dumpversion | cut -d. -f1) $(getconf GNU_LIBC_VERSION) $(uname -m) $cpu"
}

# --- what is made: exact (text and ids), then what floats go into
make_exact() {
    cp "$OLDPWD/tests/data/tiny.txt" text.txt
    cp "$OLDPWD/tests/data/tiny.model" tok.model
    awk 'NF { gsub(/["\\\t]/, " "); printf "{\"text\": \"%s\", \"meta\": {\"id\": %d}}\n", $0, NR }
         NF && NR % 5 == 0 { printf "{\"instruction\": \"Repeat %d\", \"output\": \"%s\"}\n", NR, $0 }' \
        text.txt > rows.jsonl
    cat rows.jsonl rows.jsonl | gzip -n > twice.jsonl.gz
    lprep -q -t tok.model text.txt rows.jsonl > plain.stream
    lprep -q -t tok.model --add-bos --no-eos --dedup exact twice.jsonl.gz > once.stream
    lprep -q --text rows.jsonl text.txt > text.ndjson
    lpack -q -o shards --split validation=0.2 --shard-tokens 4k plain.stream
    lpack -q --no-shuffle once.stream > one.shard
    for form in u16 llmc megatron ndjson; do lpack -q --export $form -o out.$form shards; done
    linfo --ids one.shard > ids.txt
    ls ./*.stream text.ndjson shards/*.shard shards/manifest.json one.shard out.* ids.txt
}
ltrain_() { ltrain -q --save-every 100 --threads 2 "$@"; }
make_floats() {
    ids 20000 1 > d.bin
    ids 6000 2 > v.bin
    ltrain_ d.bin --init "$config" --batch 4 --lr 3e-3 --steps 8 -o base
    paper() { ltrain_ --recipe longlora-2023 "$@"; }
    paper d.bin --model base --ctx 128 --batch 4 --micro 2 --lr 1e-3 --steps 5 -o plus
    paper d.bin --model base --ctx 96 --batch 2 --lr 1e-3 --steps 3 -o lora --mode lora \
        --targets q,v,down --rank 4 --attention dense --seed 5
    paper d.bin --model base --ctx 64 --batch 2 --lr 1e-3 --steps 3 -o full --mode full \
        --schedule cosine --warmup 2 --val v.bin --val-every 2
    paper one.shard --model wide --ctx 256 --batch 2 --lr 1e-3 --steps 4 -o docs \
        --packing bestfit --mask-documents
    lmerge -q --model base --adapter plus -o merged
    lmerge -q --model base --adapter lora -o merged16 --dtype bfloat16
    for r in base plus lora full docs; do
        grep -o '"loss_hex":"[^"]*"' $r/metrics.jsonl > $r.losses
    done
    grep -o '"val_loss":[0-9.e-]*' full/metrics.jsonl > full.val
    leval -q --ppl v.bin --model base --adapter plus --ctx 64,128 --json |
        grep -oE '"(loss_hex|tokens)": ?"?[-0-9a-fx.p+]+' > plus.ppl
    ls {base,full}/model.safetensors {base,full,plus,lora,docs}/config.json \
        {plus,lora,docs}/adapter_model.safetensors {plus,lora,docs}/adapter_config.json \
        merged/*.safetensors merged/*.json merged16/*.safetensors merged16/*.json \
        ./*.losses full.val plus.ppl
}
make_wide() { # a model for the tokenizer of the text
    sed 's/"vocab_size": *[0-9]*/"vocab_size": 1000/' "$config" > wide.json
    ltrain_ one.shard --init wide.json --batch 2 --steps 2 -o wide
}
sum_of() { # sum_of KIND FUNCTION: "hash KIND name" for each file
    "$2" > "$2.names" 2> "$2.err" || { cat "$2.err" >&2; return 1; }
    while read -r file; do
        [ -s "$file" ] || { echo "'$file' is empty" >&2; return 1; }
        echo "$(sha256sum < "$file" | cut -c1-32) $1 ${file#./}"
    done < "$2.names"
}
all() {
    cd "$tmp" && sum_of exact make_exact && make_wide && sum_of float make_floats
}
if [ "${1:-}" = --record ]; then
    echo "# sha256 of what the tools write, made by tests/cli/bytes.t --record"
    echo "# on $(machine)"
    all || exit 1
    exit
fi
if ! (all) > "$tmp/now" 2> "$tmp/err"; then
    echo "not ok 1 - everything is made"
    sed "s/^/# /" "$tmp/err"
    echo 1..1
    exit 1
fi
agree() { # agree KIND: the recorded lines and today's are the same
    grep " $1 " "$sums" > "$tmp/want"
    [ -s "$tmp/want" ] && grep " $1 " "$tmp/now" | diff "$tmp/want" -
}
ok 'streams, shards, exports: the recorded bytes' agree exact
if [ -n "$SAN" ]; then
    skip 'models, adapters, losses: the recorded bytes' 'sanitizers change float code'
elif [ "# on $(machine)" = "$(grep '^# on' "$sums")" ]; then
    ok 'models, adapters, losses: the recorded bytes' agree float
else
    skip 'models, adapters, losses: the recorded bytes' "recorded $(grep -o 'on .*' "$sums"), this is $(machine)"
fi
sed 's/^./x/' "$tmp/now" > "$tmp/spoilt"
mv "$tmp/spoilt" "$tmp/now"
ok 'a changed byte is found' eval '! agree exact > /dev/null'
echo "1..$n"
