#!/bin/bash
# lgen as a user meets it: prompts, files, sessions, conversations, batches, refusals; and a pretrained
# model's published text.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
export LC_ALL=C.UTF-8
ok 'a tiny model' tiny_model 256 0.6 --seed 3
m=$tmp/m
g() { lgen -q -m "$m" -n 24 --ignore-eos "$@"; }
same() { [ -s "$1" ] && cmp "$1" "$2"; }

ok 'a prompt as operand, on standard input, by -' eval 'g "the house" > "$tmp/a" &&
    echo "the house" | g > "$tmp/b" && same "$tmp/a" "$tmp/b" && printf "the house" | g - | cmp - "$tmp/a" &&
    g the house | cmp - "$tmp/a" && [ "$(wc -c < "$tmp/a")" -gt 10 ]'
ok 'chunks and threads change nothing' eval 'for o in "--chunk 1" "--chunk 3" "-j 1" "-c 200"; do
    g $o "the house" | cmp - "$tmp/a" || exit; done'
ok 'what was read, how fast, and when the first token came' eval '
    lgen -m "$m" -n 5 --ignore-eos "the house" 2>&1 >/dev/null | grep -qE "tokens read .*5 written, [0-9.e+]+ tokens/s, the first after [0-9.e-]+ s; end: length"'
ok 'a seed is a seed' eval 'r() { g --temperature 1.5 "$@" "the house"; }
    r > "$tmp/r1" && r > "$tmp/r2" && r --seed 1 > "$tmp/r3" && same "$tmp/r1" "$tmp/r2" &&
    ! cmp -s "$tmp/r1" "$tmp/r3" && ! cmp -s "$tmp/r1" "$tmp/a" && r --top-k 1 | cmp - "$tmp/a"'
ok 'a stop string' eval 's=$(cut -c 6-8 "$tmp/a" | head -n 1) && g --stop "$s" "the house" > "$tmp/b" &&
    [ "$(head -n 1 "$tmp/b")" = "$(head -n 1 "$tmp/a" | awk -v s="$s" "{ print substr(\$0, 1, index(\$0, s) - 1) }")" ]'
ok 'JSON, with logprobs' eval 'g --json --logprobs "the house" > "$tmp/j" && [ "$(wc -l < "$tmp/j")" = 1 ] &&
    perl -MJSON::PP -e "local \$/; open F, shift; \$j = decode_json(<F>); open T, q(<:utf8), shift; \$t = <T>; \$n = @{\$j->{logprobs}};
        exit !(\$j->{text} . qq(\n) eq \$t && \$j->{end} eq q(length) && \$j->{tokens} == 24 && \$n == 24 &&
        !grep { \$_ >= 0 } @{\$j->{logprobs}})" "$tmp/j" "$tmp/a"'

ok 'base and adapter: what lmerge makes of them, in 16 bits too' eval '
    for t in float32 bfloat16; do
        case $t in # by way of GGUF, which is written without an adapter
        float32) cp -r "$m" "$tmp/base.$t" ;;
        *) lmerge -q -m "$m" -o "$tmp/b.gguf" --gguf bf16 && lmerge -q -m "$tmp/b.gguf" -o "$tmp/base.$t" --dtype $t ;;
        esac || exit
        ltrain -q "$tmp/s" --model "$tmp/base.$t" --mode lora --rank 4 --alpha 64 --ctx 64 --batch 4 --steps 3 --lr 3e-2 --warmup 1 -o "$tmp/ad.$t" &&
        lmerge -q -m "$tmp/base.$t" -a "$tmp/ad.$t" -o "$tmp/merged.$t" --dtype $t &&
        lgen -q -m "$tmp/base.$t" -a "$tmp/ad.$t" -n 24 --ignore-eos "the house" > "$tmp/x" &&
        lgen -q -m "$tmp/merged.$t" -n 24 --ignore-eos "the house" | cmp - "$tmp/x" || exit
        lgen -q -m "$tmp/base.$t" -n 24 --ignore-eos "the house" | cmp -s - "$tmp/x" && exit 1; done; true'

# --- files and sessions
head -c 300 tests/data/tiny.txt > "$tmp/book"
q() { g --file "$tmp/book" "$@" 'and then'; }
ok 'a question about a file' eval 'q > "$tmp/f" && { cat "$tmp/book"; printf "\n\nand then"; } | g | cmp - "$tmp/f"'
for c in float bf16 int8; do
    ok "a session of $c: written, and taken up" eval "q --cache $c > \"\$tmp/w\" && q --cache $c --session \"\$tmp/$c\" | cmp - \"\$tmp/w\" &&
        q --cache $c --session \"\$tmp/$c\" | cmp - \"\$tmp/w\" && linfo --verify \"\$tmp/$c\" | grep -q 'verified'"
done
ok 'another question starts from it' eval 'lgen -m "$m" -n 4 --file "$tmp/book" --session "$tmp/float" who 2>&1 |
    grep -qE "[0-9]+ tokens read \([1-9][0-9]* kept\)"'
refused() { # refused STATUS WORDS SESSION ...: and the file stays as it was
    local before
    before=$(cksum < "$3")
    ends "$1" "$2" lgen -q -m "$m" -n 2 --file "${book:-$tmp/book}" --session "$3" "${@:4}" x && [ "$before" = "$(cksum < "$3")" ]
}
ok 'of another type' refused 78 'keeps them as bfloat16' "$tmp/float" --cache bf16
ok 'of another text' eval 'cp "$tmp/book" "$tmp/b2" && echo >> "$tmp/b2" && book=$tmp/b2 refused 78 "another text" "$tmp/float"'
ok 'of another model' eval 'ltrain -q "$tmp/s" --init "$tmp/c.json" --mode full --ctx 64 --batch 4 --steps 1 --warmup 0 --seed 4 -o "$tmp/n" &&
    cp tests/data/tiny.model "$tmp/n/tokenizer.model" && m=$tmp/n refused 78 "another model" "$tmp/float"'
ok 'cut' eval 'head -c 5000 "$tmp/float" > "$tmp/cut" && refused 65 "not those of" "$tmp/cut"'
ok 'cut in the head' eval 'head -c 50 "$tmp/float" > "$tmp/cut" && refused 65 "not a session file" "$tmp/cut"'
flip() { cp "$tmp/float" "$tmp/flip" && printf '\125' | dd of="$tmp/flip" bs=1 seek="$1" conv=notrunc status=none; }
ok 'flipped in the head' eval 'flip 33 && refused 65 "head of the session file is damaged" "$tmp/flip"'
ok 'flipped in the data' eval 'flip 4000 && refused 65 "its hash is not" "$tmp/flip"'
ok 'into a folder that is not there' ends 73 'cannot' lgen -q -m "$m" -n 2 --file "$tmp/book" --session "$tmp/no/x" x

# --- conversations and batches
ok 'a conversation keeps what was said' eval 'printf "Hello\nAnd\n" | lgen -m "$m" -i --chat llama2 -n 6 --ignore-eos > "$tmp/t" 2> "$tmp/err" &&
    [ "$(grep -c kept "$tmp/err")" = 2 ] && grep -qE "\([1-9][0-9]* kept" "$tmp/err"'
printf '<|im_start|>' > "$m/chat_template.jinja"
ok "a model's own template" eval 'echo Hi | lgen -m "$m" -i -n 2 2> "$tmp/err" && grep -q "conversation as chatml" "$tmp/err"'
printf '\377' > "$m/chat_template.jinja"
ok 'a template that is no text' ends 65 'how its turns are written' lgen -m "$m" -i -n 2
ok 'and --chat goes before it' eval 'echo Hi | lgen -q -m "$m" -i --chat none -n 2'
rm "$m/chat_template.jinja"
printf '%s\n' '{"prompt":"the house","id":7}' '{"prompt":"a","max_tokens":3}' '{"prompt":"of the"}' \
    '{"messages":[{"role":"user","content":"the house"}]}' > "$tmp/p"
texts() { sed -E 's/.*"text":"//; s/","end.*//'; }
ok 'a batch is as its prompts alone, in their order' eval 'g --batch "$tmp/p" > "$tmp/o" && [ "$(wc -l < "$tmp/o")" = 4 ] &&
    head -n 1 "$tmp/o" | grep -q "^{\"id\":7" && sed -n 2p "$tmp/o" | grep -q "\"tokens\":3" &&
    [ "$(head -n 1 "$tmp/o" | texts)" = "$(g --json "the house" | texts)" ] &&
    [ "$(sed -n 3p "$tmp/o" | texts)" = "$(g --json "of the" | texts)" ] &&
    [ "$(sed -n 4p "$tmp/o" | texts)" = "$(head -n 1 "$tmp/o" | texts)" ] &&
    g --batch - --parallel 2 < "$tmp/p" | cmp - "$tmp/o"'
printf '%s\n' '{"prompt":"a"}' 'no' '{"x":1}' '{"prompt":"of"}' > "$tmp/bad"
ok 'a line that cannot be answered says why; the others are' eval 'g --batch "$tmp/bad" > "$tmp/o" 2> "$tmp/err"; [ $? = 65 ] &&
    [ "$(grep -c \"text\" "$tmp/o")" = 2 ] && [ "$(sed -n 2,3p "$tmp/o" | grep -c \"error\")" = 2 ] && grep -q "2 of 4" "$tmp/err"'
ok 'a window goes on past the context' eval 'lgen -q -m "$m" --ignore-eos -n 400 --window 32 "the house" > "$tmp/w" && [ "$(wc -c < "$tmp/w")" -gt 200 ]'

# --- layers over ranks
two() { g --processes 2 "$@"; }
ok 'two ranks write what one does, however the text is cut' eval 'two "the house" | cmp - "$tmp/a" &&
    two --chunk 1 "the house" | cmp - "$tmp/a" && printf "the house" | two - | cmp - "$tmp/a"'
ok 'and start from a session, by one or by two' eval 'two --file "$tmp/book" --session "$tmp/two" "and then" | cmp - "$tmp/f" &&
    cmp "$tmp/two" "$tmp/float" && two --file "$tmp/book" --session "$tmp/float" "and then" | cmp - "$tmp/f"'
ok 'a batch, a conversation, a window' eval 'g --batch "$tmp/p" > "$tmp/o" && two --batch - < "$tmp/p" | cmp - "$tmp/o" &&
    printf "Hello\nAnd\n" | lgen -q -m "$m" -i --chat llama2 -n 6 --ignore-eos --processes 2 | cmp - "$tmp/t" &&
    lgen -q -m "$m" --ignore-eos -n 400 --window 32 --processes 2 "the house" | cmp - "$tmp/w"'
ok 'a seed, too' eval 'two --temperature 1.5 "the house" | cmp - "$tmp/r1"'
ok 'a session of another text' ends 78 'another text' lgen -q -m "$m" -n 2 --file "$tmp/b2" --session "$tmp/float" --processes 2 x
ok 'a session into a folder that is not there' ends 73 'cannot' lgen -q -m "$m" -n 2 --file "$tmp/book" --session "$tmp/no/x" --processes 2 x
ok 'a full disk' eval 'two "the house" > /dev/full 2> "$tmp/err"; [ $? = 74 ]'
ok 'no such batch' ends 66 'absent' lgen -q -m "$m" --batch absent --processes 2
ok 'a text longer than the context' ends 78 'more than the model' lgen -q -m "$m" -n 300 --processes 2 "the house"
ok 'more ranks than layers' ends 78 'cannot lie over 3 ranks' lgen -q -m "$m" -n 8 --processes 3 "the house"
last_child() { # of PARENT: from /proc, as a bare system has no pgrep
    cat /proc/[0-9]*/stat 2> /dev/null | sed 's/(.*)/x/' | awk -v p="$1" '$4 == p { print $1 }' | sort -n | tail -n 1
}
ok 'one of them is killed' eval 'mkfifo "$tmp/in" && { lgen -q -m "$m" -i --processes 2 -n 4 < "$tmp/in" > "$tmp/o" 2> "$tmp/err" & } && p=$! &&
    exec 7> "$tmp/in" && echo Hi >&7 && for i in $(seq 100); do [ -s "$tmp/o" ] && break; sleep 0.1; done && [ -s "$tmp/o" ] &&
    kill -9 "$(last_child "$p")" && { wait "$p"; [ $? = 69 ]; } && exec 7>&- && [ -s "$tmp/err" ]'
ok '--plan says what each of them takes' eval 'lgen -m "$m" -c 200 --plan --gpus 2 --gpu rtx-4090 > "$tmp/plan" &&
    [ "$(grep -c "^rank .*of 2, with 1 of 2 layers" "$tmp/plan")" = 2 ] && [ "$(grep -c "^weights" "$tmp/plan")" = 2 ] &&
    grep -q "^speed .*one rank after the other" "$tmp/plan"'

# --- a cache in the host's memory: a context that no card holds
# 3 layers of 10.6 GiB of keys and values, 8.0 in 8 bits, of which two are on the card at a time
card() { lgen -q -m tests/data/arch/qwen3 -t tests/data/tiny.model --plan --gpu rtx-4090 "$@"; }
far() { card -c 170m "$@"; }
ok 'keys and values that the card does not hold' eval 'far --host-memory 200g > "$tmp/plan" 2>&1 && grep -q "do not fit the GPU" "$tmp/plan" &&
    grep -q "^host " "$tmp/plan" && grep -q "two layers" "$tmp/plan"'
ok 'nor the host' ends 71 'raise --host-memory, lower --ctx, take --cache int8' far --host-memory 30g
ok 'in 8 bits' eval 'far --cache int8 --host-memory 30g > "$tmp/plan"'
ok 'nor then' eval 'ends 71 "keys and values are to lie" far --cache int8 --host-memory 20g && ! grep -q "take --cache int8" "$tmp/err"'
ok 'where it is asked for' ends 71 'may be taken' card -c 1m --cache-in-host --host-memory 100m
ok 'no memory of the host at all' ends 71 'is free' far --host-memory 0
ok 'many texts at once' eval 'b() { far --batch x -c 17m --parallel 10 "$@"; }
    b --host-memory 40g > "$tmp/plan" && ends 71 "or --parallel" b --host-memory 30g'
ok 'of two ranks each' ends 71 'rank 0 of 2: .*keys and values' far --cache-in-host --gpus 2 --host-memory 20g

# --- refusals
ok 'a text longer than the context' ends 78 'more than the model' lgen -m "$m" -n 300 "the house"
ok 'and it may be asked for' lgen -q -m "$m" -n 300 -c 400 "the house"
ok 'no memory for the context' ends 71 'is free' lgen -m "$m" -c 2000m hello
ok 'no prompt is the empty one' eval 'g "" > "$tmp/e" && [ -s "$tmp/e" ]'
ok 'not UTF-8' eval 'printf "\377" > "$tmp/u" && ends 65 "not UTF-8" lgen -m "$m" --file "$tmp/u" x'
ok 'choices without a temperature' ends 64 'add --temperature' lgen -m "$m" --top-k 3 x
ok 'no model' ends 64 'no --model' lgen hello
ok 'no such model' ends 66 absent lgen -m absent hello
ok 'no tokenizer' ends 66 'has no tokenizer' lgen -m tests/data/model/gqa hello
ok 'a full disk' eval 'g "the house" > /dev/full 2> "$tmp/err"; [ $? = 74 ]'
ok '--plan' eval 'lgen -m "$m" -c 200 --plan > "$tmp/plan" && grep -q "^cache " "$tmp/plan" && grep -q "tokens/s of each text" "$tmp/plan" &&
    lgen -m "$m" -c 200 --plan --gpu rtx-4090 > "$tmp/plan" && grep -q "GPU.s memory" "$tmp/plan"'
if script -qec true /dev/null > /dev/null 2>&1 < /dev/null; then
    ok 'a terminal is told nothing, unless --raw' eval 'cp -R "$m" "$tmp/esc" &&
        script -qec "lgen -q -m \"$m\" --ignore-eos -n 60 --temperature 20 x" /dev/null < /dev/null > "$tmp/tty" &&
        tr -d "\r" < "$tmp/tty" | LC_ALL=C tr -d "\n\t -~\200-\377" | cmp - /dev/null'
else
    skip 'a terminal is told nothing' 'script(1) makes no terminal here'
fi

w=${LONGLORA_DATA:-/nonexistent}/weights/stories260K
if [ -d "$w" ]; then
    ok "stories260K's published text" eval 'mkdir "$tmp/st" && cp "$w/hf/config.json" "$tmp/st" && cp "$w/tok512.model" "$tmp/st/tokenizer.model" &&
        zstd -dq "$w/hf/model.safetensors.zst" -o "$tmp/st/model.safetensors" &&
        lgen -q -m "$tmp/st" -n 200 --ignore-eos "" | head -c "$(wc -c < "$w/expected_greedy_200.txt")" | cmp - "$w/expected_greedy_200.txt"'
else
    skip "stories260K's published text" 'no $LONGLORA_DATA'
fi
echo "1..$n"
