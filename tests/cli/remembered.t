#!/bin/bash
# Commands that leave out what their data and adapters remember: the model, the base, the results.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
# Data has 255 bytes for what it remembers: two paths below here.
[ ${#tmp} -le 100 ] || { echo "1..0 # SKIP data cannot remember paths as long as those in ${TMPDIR:-/tmp}"; exit 0; }
top=$PWD
cd "$tmp" || exit 70
says() { # says STATUS WORDS COMMAND...
    local want=$1 words=$2 got
    shift 2
    "$@" > out 2> err
    got=$?
    cat err
    [ $got = "$want" ] && [ "$(wc -l < err)" -gt 0 ] && grep -qF -e "$words" err
}
base=$tmp/models/tiny
mkdir -p "$base" && ids 20000 1 > d.bin
cat "$top"/man/*.1 > text.txt
ltrain -q d.bin --init "$top/tests/data/tiny-config.json" --batch 4 --steps 1 -o "$base" &&
    cp "$top/tests/data/tiny.model" "$base/tokenizer.model" || exit 70
few=(--batch 2 --steps 2 --log-every 0)

pack() {
    (cd models && lprep -q ../text.txt -t tiny/ | lpack -q ../shards/) &&
        (cd models/tiny && lprep -q ../../text.txt -t tokenizer.model | lpack > ../../one.val) &&
        lprep -q text.txt -t "$top/tests/data/tiny.model" | lpack -q -o plain &&
        grep -q "\"$base/tokenizer.model\"" shards/manifest.json &&
        grep -q "\"$top/tests/data/tiny.model\"" plain/manifest.json
}
ok 'a folder as the operand; a tokenizer in a model'"'"'s folder by its absolute path' pack
train() {
    says 0 "ltrain: model '$base', for which 'shards/' was made; results in 'adapter'; --model and -o choose others" \
        ltrain shards/ --ctx 128 "${few[@]}" && [ -s adapter/adapter_model.safetensors ] &&
        head -n 1 err | grep -q "model '$base'" && grep -q "\"model\": \"$base\"" adapter/options.json &&
        says 0 'is already complete' ltrain shards/ --ctx 128 "${few[@]}"
}
ok 'ltrain shards/ --ctx N' train
ok 'a plan too' says 0 "model '$base', for which 'shards' was made; --model chooses another" ltrain shards --ctx 1k --plan
score() {
    says 0 "model '$base', for which 'one.val' was made, with adapter 'adapter'; --model chooses another" \
        leval --ppl one.val --ctx 128 --max-tokens 1k --json && cp out with.json &&
        says 0 'ctx 128' leval --ppl one.val --model "$base" --adapter adapter --ctx 128 --max-tokens 1k --json &&
        diff <(grep loss_hex out) <(grep loss_hex with.json) &&
        says 0 'ctx 128' leval --ppl one.val --model "$base" --ctx 128 --max-tokens 1k --json &&
        ! diff -q <(grep loss_hex out) <(grep loss_hex with.json)
}
ok 'leval --ppl FILE: the model, and the adapter that was made of it here' score
by_adapter() {
    cp -r adapter elsewhere && says 0 "model '$base', from which 'elsewhere' was trained" \
        leval --adapter elsewhere --ctx 64 --max-tokens 1k && grep -q "data '$tmp/shards/', on which 'elsewhere' was trained" err
}
ok 'leval --adapter FOLDER: its base and its data' by_adapter
held_out() {
    ltrain -q d.bin --model models/tiny --val one.val --ctx 64 "${few[@]}" -o held &&
        says 0 "data '$tmp/one.val', held out while 'held' was trained" leval --adapter held --ctx 64 --max-tokens 1k
}
ok 'held-out data before that of the training; relative paths from where the command was given' held_out
another() { # an adapter here that is of another model is not taken
    mkdir -p far && cp -r models/tiny far/tiny && (cd far && lprep -q ../text.txt -t tiny | lpack > ../far.val) &&
        says 0 "model '$tmp/far/tiny', for which 'far.val' was made; --model" leval --ppl far.val --ctx 64 --max-tokens 1k &&
        ! grep -q adapter err
}
ok 'an adapter of another model is left alone' another
full() {
    says 0 "results in 'model'; -o chooses another" ltrain shards --model "$base" --mode full --ctx 64 "${few[@]}" &&
        [ -s model/model.safetensors ] && mkdir -p fresh && cd fresh &&
        says 0 "results in 'model'; -o chooses another" ltrain ../d.bin --init "$top/tests/data/tiny-config.json" "${few[@]}"
    local rc=$?
    cd "$tmp" && return $rc
}
ok 'a full model goes to model/' full
not_ours() { # a folder of that name that is somebody's: nothing is written, with -f either
    mkdir -p mine/adapter && echo x > mine/adapter/notes && cd mine || return 1
    says 73 "'adapter', where the results would go, is there and is not ltrain's" ltrain ../shards --ctx 64 "${few[@]}" &&
        says 73 'name a folder: -o FOLDER' ltrain ../shards --ctx 64 "${few[@]}" -f && [ "$(ls adapter)" = notes ] &&
        rm adapter/notes && says 0 "results in 'adapter'" ltrain ../shards --ctx 64 "${few[@]}" &&
        says 78 "'adapter/checkpoints/step-00000002' was made with" ltrain ../shards --ctx 32 "${few[@]}"
    local rc=$?
    cd "$tmp" && return $rc
}
ok 'somebody'"'"'s folder, and another run'"'"'s, are not written over' not_ours

nothing() {
    says 64 "no --model given, and 'plain' does not say for which it was made" ltrain plain --ctx 64 "${few[@]}" ||
        return 1
    for f in d.bin text.txt; do
        says 64 "no --model given, and '$f' does not say for which" leval --ppl $f --ctx 64 || return 1
    done
    says 64 "no --model given, and 'd.bin' does not say" ltrain d.bin --ctx 64 "${few[@]}" &&
        says 66 'nothere' ltrain nothere --ctx 64 && says 64 'no --ppl FILE given' leval --model "$base"
}
ok 'where nothing is remembered the error says how to give it' nothing
moved() {
    mv models moved && says 66 "'shards' was made with '$base/tokenizer.model', and no model is there now" ltrain shards --ctx 64 "${few[@]}" -o m &&
        grep -q 'give --model FOLDER: where it has moved to' err && [ ! -e m ] &&
        says 66 "'one.val' was made with '$base/tokenizer.model'" leval --ppl one.val --ctx 64 &&
        says 66 "'adapter' was made for the model in '$base'" leval --adapter adapter --ctx 64 &&
        says 0 'adapter in' ltrain shards --model moved/tiny --ctx 64 "${few[@]}" -o m &&
        mv moved models
}
ok 'a folder that has moved is named' moved
other_there() { # another model lies there now
    cp models/tiny/tokenizer.model kept && cp "$top/tests/fuzz/seeds/tokenizer/unigram.model" models/tiny/tokenizer.model
    says 78 'was made with another tokenizer' ltrain shards --ctx 64 "${few[@]}" -o m2 && [ ! -e m2 ] &&
        cp kept models/tiny/tokenizer.model
}
ok 'so is one whose tokenizer is another now' other_there

hostile() { # paths that a terminal would obey, that are not UTF-8, that are too long
    local name long rc=0
    long=$(printf 'l%.0s' $(seq 200))/$(printf 'm%.0s' $(seq 200))
    for name in $'a\e]0;x\a' $'b\xe9' $'c\nd' "$long"; do
        mkdir -p "w/$name" && cp models/tiny/* "w/$name/" 2> /dev/null
        says 0 'does not fit into the data: ltrain and leval will need --model' \
            lprep -f text.txt -t "w/$name" -o stream && lpack -q stream > h.val || return 1
        says 64 'does not say for which it was made' leval --ppl h.val --ctx 64 || return 1
        ! LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f\x7f]' err || return 1
    done
    for name in 'with space' "quote'" 'ü'; do
        mkdir -p "w/$name" && cp models/tiny/* "w/$name/" 2> /dev/null
        lprep -q text.txt -t "w/$name" | lpack -q > h.val || return 1
        says 0 "model '$tmp/w/$name', for which" leval --ppl h.val --ctx 64 --max-tokens 500 || return 1
    done
}
ok 'paths that a terminal would obey, of other bytes, too long; and odd ones that are fine' hostile
forged() { # data that names whatever it likes
    local name
    for name in /etc /dev/stdin /proc/self/fd/0 / /nonexistent/a $'/tmp/\\u001b[2J'; do
        rm -rf forged && cp -r shards forged || return 1
        sed -i "s|\"name\": \"[^\"]*\"|\"name\": \"$name/tokenizer.model\"|" forged/manifest.json
        ltrain forged --ctx 64 "${few[@]}" -o f < /dev/null > out 2> err
        case $? in 64 | 65 | 66) ;; *) echo "$name: $?"; cat err; return 1 ;; esac
        ! LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f\x7f]' err && [ ! -e f ] || { cat -v err; return 1; }
    done
    printf '{"folder":7,"options":{"model":["x"],"data":"/nonexistent"}}' > elsewhere/options.json
    says 64 'no --ppl FILE given' leval --adapter elsewhere --ctx 64
}
ok 'forged names open nothing but models' forged
links() { # the folder is resolved, not the file: Hugging Face'"'"'s cache links its files
    mkdir -p hub/snap hub/blobs && cp models/tiny/tokenizer.model hub/blobs/t && ln -sf ../blobs/t hub/snap/tokenizer.model &&
        cp models/tiny/config.json models/tiny/model.safetensors hub/snap && ln -sfn hub/snap link &&
        lprep -q text.txt -t link | lpack -q -o linked && grep -q "\"$tmp/hub/snap/tokenizer.model\"" linked/manifest.json &&
        says 0 "model '$tmp/hub/snap'" leval --ppl linked --ctx 64 --max-tokens 500
}
ok 'links to folders are resolved, those of files are not' links
same_bytes() {
    lprep -q "$tmp/text.txt" -t models/tiny > s1 &&
        (cd models && lprep -q "$tmp/text.txt" -t ./tiny/../tiny/tokenizer.model > ../s2) && cmp s1 s2
}
ok 'however the folder is written, the data is the same' same_bytes
echo "1..$n"
