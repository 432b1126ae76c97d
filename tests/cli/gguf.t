#!/bin/bash
# GGUF both ways: a model as one file and back, adapters, tokenizers, bad files; and --check. Where
# xllamacpp is at hand (GGUF_PYTHON names its Python), llama.cpp's losses are ours.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
has() { grep -q -- "$2" "$1" || { cat "$1"; return 1; }; } # FILE WORDS
sums() { linfo --verify -v --json "$1" | grep -o '"list".*' | sed 's/],"weights_xxh3.*//'; }
same_values() { [ -n "$(sums "$1")" ] && diff <(sums "$1") <(sums "$2"); } # MODEL MODEL: every tensor's hash
ids_of() { lprep -q -t "$1" --no-eos "$2" 2> "$tmp/err" | linfo --ids -; }
poke() { printf '%b' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE AT BYTES
at() { grep -abo -m 1 -- "$2" "$1" | head -n 1 | cut -d: -f1; } # FILE WORDS: where they are

export LC_ALL=C
data=tests/data/peft_tiny
cp -r "$data/plain/base" "$tmp/base"
mkdir "$tmp/w"
# one with a tokenizer, of 400 tokens in a vocabulary of 512
lprep -q -t tests/data/tiny.model tests/data/tiny.txt | lpack -q -o "$tmp/fresh"
ltrain -q "$tmp/fresh" --init tests/data/tiny-config.json --ctx 16 --steps 1 --tokenizer tests/data/tiny.model \
    -o "$tmp/model" 2> "$tmp/err" || cat "$tmp/err"
echo '{"chat_template": "{{ x }}", "add_bos_token": true}' > "$tmp/model/tokenizer_config.json"

# --- a model there and back
ok 'a model as f32' lmerge -q -m "$tmp/model" -o "$tmp/f32.gguf" --gguf f32
ok 'linfo shows it' eval 'linfo "$tmp/f32.gguf" > "$tmp/said" && has "$tmp/said" "form .*model" &&
    has "$tmp/said" "types .*F32 21"'
ok 'and back, every value' eval 'lmerge -q -m "$tmp/f32.gguf" -o "$tmp/back" && same_values "$tmp/model" "$tmp/back"'
ok 'with the tokenizer' eval '[ "$(ids_of "$tmp/model" tests/data/tiny.txt)" = "$(ids_of "$tmp/back" tests/data/tiny.txt)" ]'
ok 'which the file has too' eval '[ "$(ids_of "$tmp/model" tests/data/tiny.txt)" = "$(ids_of "$tmp/f32.gguf" tests/data/tiny.txt)" ]'
ok 'and the chat template' eval '[ "$(cat "$tmp/back/chat_template.jinja")" = "{{ x }}" ]'
for t in f16 bf16 q8_0 q4_0; do
    ok "as $t, and read again" eval 'lmerge -q -m "$tmp/model" -o "$tmp/$t.gguf" --gguf $t &&
        lmerge -q -m "$tmp/$t.gguf" -o "$tmp/again.gguf" --gguf $t -f && same_values "$tmp/$t.gguf" "$tmp/again.gguf"'
done
ok 'the same bytes by any number of threads' eval 'lmerge -q -m "$tmp/model" -o "$tmp/w/q8_0.gguf" --gguf q8_0 --threads 3 &&
    cmp "$tmp/q8_0.gguf" "$tmp/w/q8_0.gguf"'
ok 'the base decides' eval 'lmerge -m "$tmp/bf16.gguf" -o "$tmp/auto.gguf" > "$tmp/said" && has "$tmp/said" " BF16, "'

for t in smollm llama3 spm; do # byte-level BPE with and without single digits, SentencePiece
    ok "the ids of $t, by file, folder and file again" eval 'lmerge -q -m "tests/fuzz/seeds/gguf/$t" -o "$tmp/t-$t" &&
        lmerge -q -m "$tmp/t-$t" -o "$tmp/t-$t.gguf" && printf "ab a1ab aab<|x|>b" > "$tmp/text" &&
        [ "$(ids_of "tests/fuzz/seeds/gguf/$t" "$tmp/text" | wc -w)" -ge 8 ] &&
        [ "$(ids_of "tests/fuzz/seeds/gguf/$t" "$tmp/text")" = "$(ids_of "$tmp/t-$t" "$tmp/text")" ] &&
        [ "$(ids_of "$tmp/t-$t" "$tmp/text")" = "$(ids_of "$tmp/t-$t.gguf" "$tmp/text")" ]'
done

# --- tokenizer.json alone, of SentencePiece's kind: Llama 2 and Gemma as transformers 5 saves them
json_model() { # NAME: the model with this tokenizer.json
    rm -rf "$tmp/j-$1"
    cp -r "$tmp/model" "$tmp/j-$1"
    rm "$tmp/j-$1/tokenizer.model"
    sed -n 's/^{"name":"'"$1"'","tokenizer":\(.*\),"ids":.*/\1/p' tests/data/hft/golden.jsonl > "$tmp/j-$1/tokenizer.json"
    echo '{"bos_token":"<s>","unk_token":"<unk>","model_max_length":1000000000000000019884624838656}' \
        > "$tmp/j-$1/tokenizer_config.json"
}
printf 'the nation  of\n\n<0x41> caf\303\251 \342\226\201x' > "$tmp/text"
for t in tiny tiny-gemma; do
    json_model $t
    ok "the ids of $t, by folder and by file" eval 'lmerge -q -f -m "$tmp/j-$t" -o "$tmp/j.gguf" 2> "$tmp/err" &&
        [ "$(ids_of "$tmp/j-$t" "$tmp/text" | wc -w)" -ge 15 ] &&
        [ "$(ids_of "$tmp/j-$t" "$tmp/text")" = "$(ids_of "$tmp/j.gguf" "$tmp/text")" ]'
done
json_model tiny-first
ok 'who puts no space before a space is told so' eval 'lmerge -q -f -m "$tmp/j-tiny-first" -o "$tmp/j.gguf" 2> "$tmp/err"
    has "$tmp/err" "puts no space before a text that begins with one"'
json_model tiny-split
ok 'what scores cannot say: 78' ends 78 'is not made by all pairs' lmerge -q -f -m "$tmp/j-tiny-split" -o "$tmp/j.gguf"
json_model unigram
ok 'nor is Unigram: 78' ends 78 'text is not cut as by a SentencePiece model' lmerge -q -f -m "$tmp/j-unigram" -o "$tmp/j.gguf"

# --- every family that llama.cpp has, as it is; biases, norms, fused tensors, scales, lists
awk 'BEGIN { for (i = 0; i < 60; i++) printf "\\x%02x\\x00", (i * i + 7 * i) % 29 + 3 }' > "$tmp/escaped"
printf '%b' "$(cat "$tmp/escaped")" > "$tmp/d.bin"
loss() { leval -q --ppl "$tmp/d.bin" --form raw --ctx 12 -j 1 --json -m "$1" | grep -m 1 '"loss_hex"'; }
there_and_back() { # the same loss, and the same bytes again from what came back
    lmerge -q -m "tests/data/arch/$1" -o "$tmp/w/$1.gguf" --gguf f32 2> "$tmp/err" || { cat "$tmp/err"; return 1; }
    lmerge -q -m "$tmp/w/$1.gguf" -o "$tmp/f-$1" && lmerge -q -m "$tmp/f-$1" -o "$tmp/$1.gguf" --gguf f32 2> "$tmp/err" &&
        cmp "$tmp/w/$1.gguf" "$tmp/$1.gguf" && [ "$(loss "tests/data/arch/$1")" ] &&
        [ "$(loss "tests/data/arch/$1")" = "$(loss "$tmp/$1.gguf")" ] && rm -r "$tmp/f-$1"
}
for f in llama32 llama_bias mistral_full qwen2 qwen3 phi4mini olmo2 granite granite_bias neox neox_serial gemma gemma2 gemma3; do
    ok "$f there and back" there_and_back "$f"
done
ok 'a window that llama.cpp has not: 78' ends 78 'window of 7 tokens' lmerge -q -m tests/data/arch/phi3 -o "$tmp/a.gguf"
ok 'layers without RoPE that it has not: 78' ends 78 'layer 1 is without RoPE' lmerge -q -m tests/data/arch/smollm3 \
    -o "$tmp/a.gguf"
ok '--check says the same' eval '! lmerge --check llama.cpp tests/data/arch/smollm3 > "$tmp/said" &&
    has "$tmp/said" "refused: layer 1 is without RoPE" && ! lmerge --check llama.cpp tests/data/arch/phi3 > "$tmp/said" &&
    has "$tmp/said" "ignored: the window of 7"'
ok 'longrope is chosen by the context: folder and file' eval 'lmerge -q -f -m tests/data/arch/phi4mini -o "$tmp/w/p.gguf" 2> "$tmp/err" &&
    ! lmerge --check llama.cpp tests/data/arch/phi4mini > "$tmp/said" && has "$tmp/said" "differs: longrope.s list is chosen" &&
    ! lmerge --check llama.cpp "$tmp/w/p.gguf" > "$tmp/said" && has "$tmp/said" "differs: longrope.s list is chosen"'
ok "and of Gemma's, which it has: layers that have it" eval 'lmerge --check llama.cpp tests/data/arch/gemma2 > "$tmp/said"
    ! has "$tmp/said" "refused\|ignored" && ! lmerge --check llama.cpp tests/data/arch/gemma2_plain > "$tmp/said" &&
    has "$tmp/said" "refused: layer_types is another"'
ok "transformers 4 may leave Gemma 2's caps out" eval '! lmerge --check transformers tests/data/arch/gemma2 > "$tmp/said" &&
    has "$tmp/said" "differs: transformers 4 leave out attn_logit_softcapping"'
ok 'vLLM takes no Gemma in float16' eval 'lmerge -q -m tests/data/arch/gemma2 -o "$tmp/w/g2.gguf" --gguf f16 2> "$tmp/err" &&
    lmerge -q -m "$tmp/w/g2.gguf" -o "$tmp/g2" --dtype float16 && ! lmerge --check vllm "$tmp/g2" > "$tmp/said" &&
    has "$tmp/said" "refused: float16 for model_type gemma2"'

# --- adapters
ok 'an adapter merged into a file' lmerge -q -m "$tmp/base" -a "$data/plain/adapter" -o "$tmp/m.gguf" --gguf f32
ok 'is the merged folder as a file' eval 'lmerge -q -m "$tmp/base" -a "$data/plain/adapter" -o "$tmp/m" &&
    lmerge -q -m "$tmp/m" -o "$tmp/w/m.gguf" --gguf f32 && cmp "$tmp/m.gguf" "$tmp/w/m.gguf"'
ok 'also over a base in GGUF' eval 'lmerge -q -m "$tmp/base" -o "$tmp/base.gguf" --gguf f32 &&
    lmerge -q -m "$tmp/base.gguf" -a "$data/plain/adapter" -o "$tmp/w/n.gguf" &&
    same_values "$tmp/m.gguf" "$tmp/w/n.gguf"'
ok 'alone it would lose its norms: 78' ends 78 'merge it' lmerge -q -m "$tmp/base" -a "$data/plain/adapter" \
    -o "$tmp/a.gguf" --adapter-only
ok 'and no file is there' [ ! -e "$tmp/a.gguf" ]
cp -r "$tmp/base" "$tmp/dynamic"
sed -i 's/"rope_type": "default"/"rope_type": "dynamic", "factor": 2.0/' \
    "$tmp/dynamic/config.json"
ok 'RoPE that llama.cpp has not: 78' ends 78 'dynamic' lmerge -q -m "$tmp/dynamic" -o "$tmp/a.gguf"

# --- what is there, and options
ok 'a file that is there stays: 73' ends 73 'is there already' lmerge -q -m "$tmp/base" -o "$tmp/f32.gguf"
ok 'nor is an input overwritten: 64' ends 64 'is an input' lmerge -q -f -m "$tmp/f32.gguf" -o "$tmp/f32.gguf"
mkdir "$tmp/dir.gguf"
ok 'nor a folder: 73' ends 73 'is a folder' lmerge -q -f -m "$tmp/base" -o "$tmp/dir.gguf"
ok '--gguf needs the name: 64' ends 64 'ends in .gguf' lmerge -q -m "$tmp/base" -o "$tmp/x" --gguf f16
ok 'a folder needs an adapter: 64' ends 64 'no --adapter' lmerge -q -m "$tmp/base" -o "$tmp/x"

# --- training on one
ok 'data by its tokenizer, which remembers it' eval 'lprep -q -t "$tmp/q8_0.gguf" tests/data/tiny.txt 2> "$tmp/err" |
    lpack -q -o "$tmp/shards" && ltrain -q "$tmp/shards" --attention dense --ctx 16 --steps 1 --rank 2 -o "$tmp/lora"'
ok 'and the adapter fits it' eval 'lmerge -q -m "$tmp/q8_0.gguf" -a "$tmp/lora" -o "$tmp/w/l.gguf" &&
    leval -q --ppl "$tmp/shards" --split train -m "$tmp/w/l.gguf" --ctx 16 --max-windows 2 > "$tmp/said"'

# --- files that are no models
head -c 3000 "$tmp/f32.gguf" > "$tmp/cut.gguf"
ok 'a file cut short: 65' ends 65 'cut.gguf' linfo "$tmp/cut.gguf"
bad() { # NAME WORDS KEY FROM BYTES: a field spoilt, by all that read it
    cp "$tmp/q4_0.gguf" "$tmp/bad.gguf"
    poke "$tmp/bad.gguf" $(($(at "$tmp/bad.gguf" "$3") + $4)) "$5"
    ok "$1: 65 by linfo" ends 65 "$2" linfo "$tmp/bad.gguf"
    ok "$1: 65 by lmerge" ends 65 "$2" lmerge -q -m "$tmp/bad.gguf" -o "$tmp/x"
}
bad 'an impossible count' 'keys at byte 16' GGUF 20 '\xff\xff\xff\xff'
bad 'a tensor of 5 dimensions' '5 dimensions' token_embd.weight 17 '\x05'
bad 'a type that is none' 'not known' token_embd.weight 37 '\xff'
bad 'a missing key' "llama.block_count' is missing" llama.block_count 6 X
bad 'a mistyped key' 'is not a whole number' llama.block_count 17 '\x06'
bad 'a size out of range' "llama.attention.head_count' at byte" llama.attention.head_count 30 '\0\0\0\0'
cp "$tmp/q4_0.gguf" "$tmp/bad.gguf"
poke "$tmp/bad.gguf" $(($(at "$tmp/bad.gguf" general.architecture) + 32)) lla2a
ok 'another family: 78' ends 78 "'lla2a' is not supported" linfo "$tmp/bad.gguf"
cp "$tmp/q4_0.gguf" "$tmp/bad.gguf"
poke "$tmp/bad.gguf" $(($(at "$tmp/bad.gguf" tokenizer.ggml.model) + 32)) 'l1ama'
ok 'another kind of tokenizer: 78' ends 78 "'l1ama' is not supported" lprep -t "$tmp/bad.gguf" tests/data/tiny.txt

# --- what others would not take
ok '--check of a plain model: 0' eval 'lmerge --check transformers "$tmp/model" > "$tmp/said" && has "$tmp/said" "nothing is lost"'
ok 'vLLM takes no trained norms: 1' eval '! lmerge --check vllm "$data/plain/adapter" > "$tmp/said" &&
    has "$tmp/said" "refused: modules_to_save" && has "$tmp/said" "refused: trained norms"'
ok 'llama.cpp ignores them' eval '! lmerge --check llama.cpp --json "$data/plain/adapter" > "$tmp/said" &&
    has "$tmp/said" "\"kind\":\"ignored\",\"text\":\"trained norms" && has "$tmp/said" "\"complete\":false"'
ok 'PEFT takes them' eval 'lmerge --check peft "$data/plain/adapter" > "$tmp/said" && has "$tmp/said" "nothing is lost"'
ok 'RoPE kinds' eval '! lmerge --check llama.cpp "$tmp/dynamic" > "$tmp/said" && has "$tmp/said" "ignored: RoPE of type dynamic" &&
    ! lmerge --check vllm "$tmp/dynamic" > "$tmp/said" && has "$tmp/said" "differs: dynamic RoPE"'
ok 'a GGUF' lmerge -q --check llama.cpp "$tmp/f32.gguf"
ok 'nothing to look at: 64' ends 64 'needs a model' lmerge --check vllm
ok 'something else: 66' ends 66 'no model, adapter or GGUF' lmerge --check vllm "$tmp/w"

# --- llama.cpp itself
py=${GGUF_PYTHON:-python3} stories=../shared/data/weights/stories260K
losses() { # MODEL GGUF [--lora ADAPTER]: ours of 20 tokens against llama.cpp's
    local model=$1
    shift
    leval -q --ppl "$tmp/text" -m "$model" ${adapter:+-a "$adapter"} --ctx 20 --protocol nonoverlap --max-windows 1 \
        --by-position --json > "$tmp/ours.json" 2> "$tmp/err" || return 1
    # shellcheck disable=SC2046
    timeout 100 "$py" tests/gguf_check.py "$@" "$tmp/ours.json" $(ids_of "$tmp/st" "$tmp/text" | cut -d' ' -f1-20)
}
if [ ! -e $stories ]; then
    skip 'llama.cpp has our losses' 'no stories260K'
elif ! "$py" -c 'import xllamacpp' 2> "$tmp/err"; then
    skip 'llama.cpp has our losses' 'no xllamacpp'
else
    mkdir "$tmp/st"
    cp $stories/hf/config.json "$tmp/st"
    cp $stories/tok512.model "$tmp/st/tokenizer.model"
    zstd -qd $stories/hf/model.safetensors.zst -o "$tmp/st/model.safetensors"
    chmod -R u+w "$tmp/st"
    echo 'Once upon a time, there was a little girl named Lily. She loved to play.' > "$tmp/text"
    lmerge -q -m "$tmp/st" -o "$tmp/st.gguf" 2> "$tmp/err"
    ok 'llama.cpp has our losses' losses "$tmp/st" "$tmp/st.gguf"
    ok 'a LoRA alone' eval 'lprep -q -t "$tmp/st" "$tmp/text" 2> "$tmp/err" | lpack -q -o "$tmp/sd" &&
        ltrain -q "$tmp/sd" --mode lora --attention dense --ctx 16 --steps 2 --lr 1e-2 -o "$tmp/sl" &&
        lmerge -q -m "$tmp/st" -a "$tmp/sl" --adapter-only -o "$tmp/sl.gguf"'
    adapter=$tmp/sl
    ok 'llama.cpp has its losses' losses "$tmp/st" "$tmp/st.gguf" --lora "$tmp/sl.gguf"
    adapter=
    of_family() { # NAME: a new model of this configuration, with that tokenizer, trained a little
        sed 's/"vocab_size": 32/"vocab_size": 512/; s/"max_position_embeddings": 12/"max_position_embeddings": 64/
            s/"sliding_window": 7/"sliding_window": null/' "tests/data/arch/$1/config.json" > "$tmp/family.json"
        rm -rf "$tmp/fam" "$tmp/fam.gguf"
        ltrain -q "$tmp/sd" --init "$tmp/family.json" --tokenizer "$tmp/st/tokenizer.model" --attention dense \
            --ctx 16 --targets o --steps 2 --lr 3e-2 --warmup 0 -o "$tmp/fam" && lmerge -q -m "$tmp/fam" -o "$tmp/fam.gguf" --gguf f32 &&
            losses "$tmp/fam" "$tmp/fam.gguf"
    }
    lora_of_family() { # of that model: pairs of all matrices, alone, beside it
        rm -rf "$tmp/fl" "$tmp/fl.gguf"
        ltrain -q "$tmp/sd" --model "$tmp/fam" --mode lora --targets all-linear --attention dense --ctx 16 --steps 2 \
            --lr 1e-2 --warmup 0 -o "$tmp/fl" && lmerge -q -m "$tmp/fam" -a "$tmp/fl" --adapter-only -o "$tmp/fl.gguf" &&
            adapter=$tmp/fl losses "$tmp/fam" "$tmp/fam.gguf" --lora "$tmp/fl.gguf"
    }
    for f in llama_bias qwen3 phi3 phi4mini olmo2 granite_bias neox neox_serial gemma gemma2 gemma3; do
        ok "llama.cpp has the losses of $f" of_family "$f"
        ok "and with a LoRA beside it" lora_of_family
    done
fi
echo "1..$n"
