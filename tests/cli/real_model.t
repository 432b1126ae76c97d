#!/bin/bash
# tools/real_model.sh in small, on the CPU: a model in pieces, all stages, stopped and gone on with, its page.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
mkdir -p "$tmp/books" "$tmp/w" "$tmp/code/base" || exit 70
cp base/err.c base/err.h "$tmp/code/base"
for split in train test validation; do
    mkdir "$tmp/$split" && for f in ltrain leval lprep; do cp man/$f.1 "$tmp/$split/$f.txt"; done
    tar -C "$tmp/$split" -cf - . | zstd -q > "$tmp/books/pg19-$split.tar.zst"
done
ok 'a tiny model as a GGUF file, in pieces' eval 'tiny_model 256 0.3 && lmerge -q -m "$tmp/m" -o "$tmp/w/model.gguf" --gguf f32 &&
    cp "$tmp/w/model.gguf" "$tmp/whole"'
small() {
    BOOKS=$tmp/books CODE=$tmp/code CTX=1024 BASE_CTX=256 STEPS=2 STEP_TOKENS=1024 AT_ONCE=1024 SEEDS='1 2' RATES='2e-5 1e-3' \
        TASKS=passkey,json_kv LENGTHS=${lengths:-1k} SAMPLES=2 DEPTHS=3 SHORT=64 SLIDE=32 TEST_TOKENS=2k VAL_TOKENS=1k GPUS=0 PAGE=$tmp/page.md \
        tools/real_model.sh "$tmp/w" "$@" > "$tmp/out" 2> "$tmp/err"
}
pieces() {
    PIECE=40k small pieces || { cat "$tmp/err"; return 1; }
    [ "$(ls "$tmp/w"/model.gguf.[0-9][0-9] | wc -l)" -gt 1 ] && PIECE=64k small pieces || return 1
    rm "$tmp/w/model.gguf" && small data && cmp "$tmp/whole" "$tmp/w/model.gguf" &&
        [ -e "$tmp/w/shards/manifest.json" ] && [ -s "$tmp/w/test.shard" ] || { cat "$tmp/err"; return 1; }
    mv "$tmp/w/model.gguf" "$tmp/keep" && printf X | dd of="$tmp/w/model.gguf.00" bs=1 seek=9 conv=notrunc 2> /dev/null
    small data
    [ $? -eq 70 ] && grep -q 'the pieces of the model' "$tmp/err" && mv "$tmp/keep" "$tmp/w/model.gguf"
}
ok 'pieces make the model, and damaged ones do not' pieces
ok 'what cannot be asked is told with the data' eval 'lengths=60 small data; [ $? = 64 ] && grep -q "a length of 60 tokens is too short" "$tmp/err"'
ok 'no time: 75, and how many runs are left' eval 'LIMIT=10 small before; [ $? = 75 ] &&
    grep -q "1 runs are left: give the command again" "$tmp/err" && [ -z "$(ls "$tmp/w/results")" ]'
stages() {
    small before search || { cat "$tmp/err"; return 1; }
    cat "$tmp/out"
    [ "$(ls "$tmp/w/results"/*.base.0.1.tasks.json | wc -l)" = 3 ] && [ "$(ls "$tmp/w/results"/parts.*.val.json | wc -l)" = 7 ] &&
        [ -s "$tmp/w/keys.json" ] && [ ! -e "$tmp/w/results/parts.dense.2e-5.1.tasks.json" ]
}
ok 'before, and the search of rates' stages
main() {
    small main || { cat "$tmp/err"; return 1; }
    cat "$tmp/out"
    [ "$(ls "$tmp/w/results"/{parts,pi}.{dense,s2-4,mix-16}.*.tasks.json | wc -l)" -ge 9 ] &&
        [ "$(wc -l < "$tmp/w/results/parts.base.0.1.answers.ndjson")" = 5 ] && small main && [ ! -s "$tmp/out" ]
}
ok 'all runs, once' main
tables() {
    printf 'head\n<!-- measured -->\n<!-- end -->\ntail\n' > "$tmp/page.md"
    small tables || { cat "$tmp/err"; return 1; }
    cat "$tmp/w/tables.md"
    [ "$(grep -c 'points that parts.*same prompts resampled' "$tmp/w/tables.md")" -ge 5 ] &&
        [ "$(grep -cE '^mean +[-+0-9.]+ \[' "$tmp/w/tables.md")" -ge 10 ] && grep -qE '^parts.mix-16.*\.1 +[0-9.]+ ' "$tmp/w/tables.md" || return 1
    ! grep 'do not compare' "$tmp/err" && [ -z "$(sed -n '/^## Perplexity/,/^## L/p' "$tmp/w/tables.md" | grep '^p' | sort | uniq -d)" ] || return 1
    command -v gnuplot > /dev/null || return 0
    small plot page || { cat "$tmp/err"; return 1; }
    [ "$(head -n 1 "$tmp/page.md")$(tail -n 1 "$tmp/page.md")" = headtail ] && grep -q '^## Retrieval, seed 2' "$tmp/page.md" &&
        head -c 4 "$tmp/real_model-mix-16.png" | grep -q PNG
}
ok 'tables, maps, page' tables
ok 'no such stage' eval 'small nothing; [ $? = 64 ]'
echo "1..$n"
