#!/bin/bash
# lmerge as a program: what it writes, exit statuses, all or nothing, full disks.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
clean() { [ -z "$mnt" ] || umount "$mnt"; }
mnt=
has() { # FILE WORDS
    grep -q -- "$2" "$1" || { cat "$1"; return 1; }
}
only() { # FOLDER NAMES...: exactly these are in it, hidden ones too
    local folder=$1
    shift
    diff <(ls -A "$folder") <([ $# -eq 0 ] || printf '%s\n' "$@" | sort)
}
same_tensors() { # FOLDER FOLDER: names, types and shapes
    diff <(linfo -v --json "$1" | sed 's/.*"list"//') <(linfo -v --json "$2" | sed 's/.*"list"//')
}

export LC_ALL=C
data=tests/data/peft_tiny
mkdir "$tmp/w"
cp -r "$data/plain/base" "$tmp/base"
cp tests/data/tiny.model "$tmp/base/tokenizer.model"
echo '{"chat": 1}' > "$tmp/base/tokenizer_config.json"
echo 'notes' > "$tmp/base/README.md"
merge() { lmerge -m "$tmp/base" -a "$data/plain/adapter" "$@"; }

# --- what it writes
ok 'merges' merge -o "$tmp/w/m"
ok 'says what it did' eval 'merge -o "$tmp/w/x" > "$tmp/said" && has "$tmp/said" "8 merged, 6 replaced, 7 copied" &&
    has "$tmp/said" "max |dW| 0.814" && rm -r "$tmp/w/x"'
ok 'the files of a model, and no more' only "$tmp/w/m" config.json generation_config.json \
    model.safetensors tokenizer.model tokenizer_config.json
ok 'nothing beside it' only "$tmp/w" m
ok 'every tensor is finite' linfo --verify "$tmp/w/m"
ok 'the tensors of the base' same_tensors "$tmp/base" "$tmp/w/m"
ok 'the tokenizer, byte for byte' cmp "$tmp/base/tokenizer.model" "$tmp/w/m/tokenizer.model"
ok 'both forms of RoPE' eval 'has "$tmp/w/m/config.json" "\"rope_theta\": 10000.0" &&
    has "$tmp/w/m/config.json" "\"rope_parameters\"" && has "$tmp/w/m/config.json" "\"rope_scaling\": null"'
ok 'a name with a slash at the end' eval 'merge -q -o "$tmp/w/s/" && diff -r "$tmp/w/m" "$tmp/w/s"'
ok 'any number of threads, the same bytes' eval 'merge -q --threads 3 -o "$tmp/w/t" &&
    diff -r "$tmp/w/m" "$tmp/w/t"'
ok 'JSON on request' eval 'merge --json -q -o "$tmp/w/j" > "$tmp/said" && [ "$(wc -l < "$tmp/said")" -eq 1 ] &&
    has "$tmp/said" "\"merged\":8,\"replaced\":6,\"copied\":7,\"untied\":false"'
ok 'several files and an index' eval 'merge --shard-size 8k -o "$tmp/w/i" > "$tmp/said" &&
    has "$tmp/said" "in 5 files" && has "$tmp/w/i/model.safetensors.index.json" "\"total_size\": 31040" &&
    [ ! -e "$tmp/w/i/model.safetensors" ] && [ -e "$tmp/w/i/model-00005-of-00005.safetensors" ]'
ok 'which hold the same tensors' same_tensors "$tmp/w/m" "$tmp/w/i"
ok 'a file a tensor, when none fits' eval 'merge -q --shard-size 1 -o "$tmp/w/k" &&
    [ "$(ls "$tmp/w/k"/*.safetensors | wc -l)" -eq 21 ] && same_tensors "$tmp/w/m" "$tmp/w/k"'
ok 'bfloat16' eval 'merge -q --dtype bfloat16 -o "$tmp/w/b" && linfo "$tmp/w/b" > "$tmp/said" &&
    has "$tmp/said" "BF16 21" && has "$tmp/w/b/config.json" "\"torch_dtype\": \"bfloat16\"" &&
    has "$tmp/w/b/config.json" "\"dtype\": \"bfloat16\""'
ok 'a base in bfloat16 stays so' eval 'lmerge -m "$tmp/w/b" -a "$data/plain/adapter" -o "$tmp/w/bb" > "$tmp/said" &&
    has "$tmp/said" "unchanged by rounding" && linfo "$tmp/w/bb" | grep -q "BF16 21"'
ok 'a tied base comes apart' eval 'lmerge -m "$data/tied/base" -a "$data/tied/adapter" -o "$tmp/w/u" > "$tmp/said" &&
    has "$tmp/said" "^untied" && has "$tmp/w/u/config.json" "\"tie_word_embeddings\": false" &&
    same_tensors "$tmp/base" "$tmp/w/u"'

# --- files beside the weights
cp -r "$tmp/base" "$tmp/rich"
printf '{"model_max_length":  64.0 , "n": {"model_max_length": 5}, "a": [1e5, "\\u00e9"]}\n' > "$tmp/rich/tokenizer_config.json"
for f in LICENSE.txt NOTICE USE_POLICY.md tokenizer.json tokenizer.model.v3 qwen.tiktoken; do
    echo "$f" > "$tmp/rich/$f"
done
long() { lmerge -q -m "$tmp/rich" -a "$data/plain/adapter" --rope-factor 4 -o "$tmp/w/long"; }
ok 'an adapter without config.json: --rope-factor' eval 'long &&
    tr -d " \n" < "$tmp/w/long/config.json" > "$tmp/said" &&
    has "$tmp/said" "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}" &&
    has "$tmp/said" "\"max_position_embeddings\":256"'
ok 'whose weights are the same' eval 'data() { tail -c 31040 "$tmp/w/$1/model.safetensors"; }
    cmp <(data m) <(data long) && ! cmp -s "$tmp/w/m/model.safetensors" "$tmp/w/long/model.safetensors"' # but the hash of config.json
ok 'its lack is said' eval 'merge -o "$tmp/w/x" 2> "$tmp/said" > /dev/null && rm -r "$tmp/w/x" &&
    has "$tmp/said" "give --rope-factor"'
ok 'model_max_length is the context, all other bytes stay' eval '
    sed "s/64.0 /256 /" "$tmp/rich/tokenizer_config.json" | cmp - "$tmp/w/long/tokenizer_config.json"'
ok 'licences, policies and all tokenizers go along' only "$tmp/w/long" LICENSE.txt NOTICE USE_POLICY.md \
    config.json generation_config.json model.safetensors qwen.tiktoken tokenizer.json \
    tokenizer.model tokenizer.model.v3 tokenizer_config.json
echo '{"model_max_length": 1000000000000000019884624838656}' > "$tmp/rich/tokenizer_config.json"
ok 'one that is more stays' eval 'rm -r "$tmp/w/long" && long &&
    cmp "$tmp/rich/tokenizer_config.json" "$tmp/w/long/tokenizer_config.json"'
cp -r "$data/plain/adapter" "$tmp/own"
cp "$data/plain/base/config.json" "$tmp/own"
ok '--rope-factor beside a config.json is refused' ends 64 'leave --rope-factor out' \
    lmerge -m "$tmp/base" -a "$tmp/own" --rope-factor 4 -o "$tmp/w/o"
ok 'a factor below 1 is refused' ends 64 'rope-factor' merge --rope-factor 0.5 -o "$tmp/w/o"
printf 'PK\3\4' > "$tmp/own/trainable_params.bin"
ok 'what is beside the pairs is not left out' ends 65 "trainable_params.bin': not a zip archive, or cut short" \
    lmerge -m "$tmp/base" -a "$tmp/own" -o "$tmp/w/o"
ok 'nor by leval' ends 65 'trainable_params.bin' leval --ppl "$tmp/base/README.md" \
    -t "$tmp/base/tokenizer.model" -m "$tmp/base" -a "$tmp/own"
features=tests/data/peft_features
cp -r "$features/reference/adapter" "$tmp/reference"
echo '{"added": 1}' > "$tmp/reference/tokenizer_config.json"
cp tests/data/tiny.model "$tmp/reference/tokenizer.model"
ok "a checkpoint of the reference: one token more, and its tokenizer" eval 'lmerge -m "$features/base_bin" \
    -a "$tmp/reference" -o "$tmp/w/o" > "$tmp/said" 2>&1 && has "$tmp/said" "12 merged, 8 replaced" &&
    has "$tmp/said" "49 tokens, the base.s has 48" && has "$tmp/w/o/config.json" "\"vocab_size\": 49" &&
    cmp "$tmp/reference/tokenizer_config.json" "$tmp/w/o/tokenizer_config.json" && linfo --verify "$tmp/w/o" &&
    linfo "$tmp/reference" | grep -q trained'
printf '\x80\2cos\nsystem\nX\4\0\0\0true\x85R.' > "$tmp/data.pkl"
ok 'a pickle that wants to run something does not' eval 'mkdir "$tmp/evil" &&
    perl -MIO::Compress::Zip=:all -e "zip shift, shift, Name => q(archive/data.pkl), Method => ZIP_CM_STORE or exit 1" \
        "$tmp/data.pkl" "$tmp/evil/adapter_model.bin" &&
    cp "$features/bin/adapter/adapter_config.json" "$tmp/evil" &&
    ends 65 "os.system.*only tensors are read" lmerge -m "$features/base" -a "$tmp/evil" -o "$tmp/w/p"'
rm -rf "$tmp/w/long" "$tmp/w/o"

# --- what is there stays
kept() { diff -r "$tmp/w/m" "$tmp/w/s"; }
ok 'an output that is there is refused' ends 73 "replace it with -f" merge -o "$tmp/w/m"
ok 'and not touched' kept
ok '-f replaces it' eval 'merge -q -f --dtype bfloat16 -o "$tmp/w/t" && diff -r "$tmp/w/b" "$tmp/w/t"'
mkdir -p "$tmp/home/sub" "$tmp/plain"
touch "$tmp/home/config.json" "$tmp/plain/file"
ok '-f does not replace a folder with folders' ends 73 'not a model folder' merge -f -o "$tmp/home"
ok 'nor one that is no model' ends 73 'not a model folder' merge -f -o "$tmp/plain"
ok 'nor a file' ends 73 'cannot replace' merge -f -o "$tmp/base/README.md"
ok 'nor the base itself' ends 64 'is an input' merge -f -o "$tmp/base/"
ok 'those are still there' eval '[ -d "$tmp/home/sub" ] && [ -e "$tmp/plain/file" ] && [ -s "$tmp/base/model.safetensors" ]'

# --- bad input
rm -rf "$tmp/w"
mkdir "$tmp/w"
out=$tmp/w/out
ok 'no options' ends 64 'no --model given' lmerge
ok 'no output' ends 64 'no -o given' merge
ok 'an operand' ends 64 "unexpected operand 'x'" merge -o "$out" x
ok 'a type there is not' ends 64 'float8' merge -o "$out" --dtype float8
ok 'a base that is not there' ends 66 'No such file' lmerge -m "$tmp/none" -a "$data/plain/adapter" -o "$out"
ok 'an adapter that is not there' ends 66 'adapter_config.json' lmerge -m "$tmp/base" -a "$tmp/plain" -o "$out"
ok "another base's adapter" ends 78 'other sizes\|another base' lmerge -m "$tmp/base" \
    -a tests/data/model/mha/adapter -o "$out"
cp -r "$data/plain/adapter" "$tmp/cut"
truncate -s -1 "$tmp/cut/adapter_model.safetensors"
ok 'an adapter cut short' ends 65 'cut short' lmerge -m "$tmp/base" -a "$tmp/cut" -o "$out"
cp -r "$tmp/base" "$tmp/cutbase"
truncate -s 20000 "$tmp/cutbase/model.safetensors"
ok 'a base cut short' ends 65 'cut short' lmerge -m "$tmp/cutbase" -a "$data/plain/adapter" -o "$out"
cp -r "$data/plain/adapter" "$tmp/huge"
sed -i 's/"lora_alpha": 16/"lora_alpha": 1e8/' "$tmp/huge/adapter_config.json"
ok 'values beyond float16' ends 65 'try --dtype bfloat16' lmerge -m "$tmp/base" -a "$tmp/huge" \
    --dtype float16 -o "$out"
sed -i 's/"lora_alpha": 1e8/"lora_alpha": 1e9/; s/"r": 8/"r": 4/' "$tmp/huge/adapter_config.json"
ok 'a rank that the tensors have not' ends 78 'needs \[4, 16\]' lmerge -m "$tmp/base" -a "$tmp/huge" -o "$out"
ok 'none of these left anything' only "$tmp/w"
ok 'a folder that cannot be made' ends 73 'cannot make' merge -o "$tmp/base/README.md/m"
ok 'standard output that is full' ends 74 'standard output' eval 'merge -o "$out" > /dev/full'

# --- leftovers of killed runs: swept, never published; nobody else's folder is written to
leftovers() {
    local k pid merged=$tmp/w/left
    mkdir -p "$merged.tmp$$" "$merged.tmp1" && touch "$merged.tmp1/alien.bin"
    ln -s "$tmp/base" "$merged.tmp-0123456789abcdef"
    for k in 1 2 3; do
        merge -o "$merged" & pid=$!
        kill -9 $pid
        wait $pid 2> /dev/null
    done
    merge -f -o "$merged" && diff -r "$merged" "$tmp/left.whole" && [ -e "$merged.tmp1/alien.bin" ] &&
        diff <(cd "$tmp/w" && ls -d left.tmp*) \
            <(printf '%s\n' left.tmp-0123456789abcdef left.tmp1 "left.tmp$$" | LC_ALL=C sort -u)
}
merge -o "$tmp/left.whole"
ok 'what killed runs left is swept; a planted folder or link is not touched' leftovers
rm -rf "$tmp"/w/left*

# --- a full disk
fills() {
    ends 74 'No space left' merge -o "$mnt/m" && only "$mnt" || return
    cp -r "$tmp/small" "$mnt/m" || return
    ends 74 'No space left' merge -f -o "$mnt/m" && only "$mnt" m && diff -r "$tmp/small" "$mnt/m"
}
mkdir "$tmp/mnt" "$tmp/small"
echo '{}' > "$tmp/small/config.json"
if mount -t tmpfs -o size=40k none "$tmp/mnt" 2> /dev/null; then
    mnt=$tmp/mnt
    ok 'a full disk leaves what was there and no temporaries' fills
else
    skip 'a full disk leaves what was there and no temporaries' 'cannot mount a tmpfs'
fi
echo "1..$n"
