#!/bin/bash
# ltrain and leval on GPUS=2 (or more) by --gpus: the losses of one, also where they share sequences or
# weights, the perplexity to the last digit, and a rank that is killed. Run by run.sh and many.sh, tools
# on PATH. DEVICE=cpu tries the script itself. EACH: seconds that a program may take (60).
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
d=${DEVICE:-cuda}
lib=$here/../cli/lib.sh
[ -f "$lib" ] || lib=$here/lib.sh
. "$lib"

gpus=${GPUS:-2}
[ "$gpus" -lt 2 ] && gpus=2
if [ "$d" = cuda ] && [ "$(nvidia-smi -L 2> /dev/null | grep -c '^GPU')" -lt "$gpus" ]; then
    echo "1..0 # SKIP there are no $gpus GPUs"
    exit 0
fi
two="--gpus $gpus"
[ "$d" = cpu ] && two="--processes $gpus"
ids 60000 1 > "$tmp/d.bin"
llama_config vocab_size=512 hidden_size=256 intermediate_size=640 num_hidden_layers=3 > "$tmp/c.json"
run="timeout ${EACH:-60}" # before the program's name
fresh() { # fresh OUT OPTION...
    local out=$1
    shift
    $run ltrain -q "$tmp/d.bin" --init "$tmp/c.json" --batch 6 --micro 2 --lr 1e-3 --warmup 2 \
        --device "$d" -o "$tmp/$out" "$@"
}
losses() { sed -E 's/.*"loss":([0-9.]+).*/\1/' "$tmp/$1/metrics.jsonl"; }
near() { # near A B: losses within 2e-3 of each other
    paste <(losses "$1") <(losses "$2") | tee "$tmp/both" |
        awk '{ d = $1 - $2; print; if ((d < 0 ? -d : d) > 2e-3 * $1) bad = 1 } END { exit bad || NR < 8 }'
}

as_one() { fresh one --steps 8 && fresh two --steps 8 $two --json > "$tmp/json" && near one two; }
ok "$gpus train as one" as_one
seen() { # the gradient went over the links, and is counted
    cat "$tmp/json"
    [ "$(num "$tmp/json" ranks)" -eq "$gpus" ] && [ "$(num "$tmp/json" sent_bytes)" -gt 1000000 ] &&
        grep -q '"scaling"' "$tmp/json"
}
ok 'and say what they moved' seen
lengthwise() { # lengthwise NAME OPTION...: a sequence over all of them
    local name=$1
    shift
    fresh "$name" --micro 1 --steps 8 "$@" && fresh "$name.n" --micro 1 --steps 8 "$@" $two --cp "$gpus" &&
        near "$name" "$name.n"
}
ok 'a sequence over all, groups over borders' lengthwise s2 --attention s2 --group 24
ok 'a sequence over all, dense' lengthwise dense --attention dense
by_parts() { # frozen weights over all, with rows of their own and with parts of a sequence
    local more
    for more in "--micro 2 --batch $((2 * gpus))" "--micro 1 --cp $gpus --attention s2 --group 24"; do
        rm -rf "$tmp/w1" "$tmp/wn"
        # shellcheck disable=SC2086 # words
        tuned w1 ${more/--cp $gpus/} && tuned wn $more $two --shard-weights "$gpus" && near w1 wn || return 1
    done
}
tuned() { # tuned OUT OPTION...
    local out=$1
    shift
    $run ltrain -q "$tmp/d.bin" --model "$tmp/one" --mode lora+ --rank 4 --batch 4 --lr 1e-3 --warmup 2 --steps 8 \
        --ctx 256 --device "$d" -o "$tmp/$out" "$@"
}
ok 'frozen weights over all' by_parts
score() { timeout ${EACH:-60} leval -q --ppl "$tmp/d.bin" --max-tokens 16k --model "$tmp/one" --device "$d" \
    --ctx 256 --json "$@" | grep -v -e seconds -e tokens_per_s -e device; }
same() { score > "$tmp/a" && score $two > "$tmp/b" && grep '"ppl"' "$tmp/a" && cmp "$tmp/a" "$tmp/b"; }
ok 'leval: one result, to the last digit' same
# Layers one after another: the same choices and, as each rank's kernels are one's, the same logprobs.
cat > "$tmp/letters.json" << 'JSON'
{ "version": "1.0", "added_tokens": [{ "id": 0, "content": "<unk>", "single_word": false, "lstrip": false,
  "rstrip": false, "normalized": false, "special": true }], "normalizer": null, "pre_tokenizer": null,
  "post_processor": null, "decoder": { "type": "Fuse" }, "model": { "type": "BPE", "dropout": null,
  "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
  "byte_fallback": false, "vocab": { "<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4 }, "merges": [] } }
JSON
writes() { timeout ${EACH:-60} lgen -q -m "$tmp/one" -t "$tmp/letters.json" --device "$d" --no-bos --ignore-eos -n 40 --chunk 16 \
    --json --logprobs "$@" abcdabcdabcdabcdabcdabcd; }
goes_on_alike() { writes > "$tmp/a" && writes $two > "$tmp/b" && grep -q '"tokens":40' "$tmp/a" && cmp "$tmp/a" "$tmp/b" &&
    writes --cache int8 > "$tmp/a" && writes $two --cache int8 | cmp - "$tmp/a"; }
ok 'lgen: one text, by layers on each' goes_on_alike
# The launcher's children are the ranks: the second one is killed in mid-run.
killed() {
    run=exec fresh cut --steps 4000 --save-every 2 $two 2> "$tmp/err" &
    local parent=$! rank= start=$SECONDS
    until [ -d "$tmp/cut/checkpoints" ] && ls "$tmp/cut/checkpoints" | grep -q '^step-[0-9]*$'; do
        [ $((SECONDS - start)) -gt 60 ] && { echo 'no checkpoint'; kill $parent; return 1; }
        sleep 0.2
    done
    rank=$(pgrep -P $parent -x ltrain | tail -n 1)
    [ "$rank" ] || { echo 'no rank to kill'; kill $parent; return 1; }
    kill -9 "$rank"
    start=$(date +%s%N)
    wait $parent
    local rc=$? ms=$((($(date +%s%N) - start) / 1000000))
    cat "$tmp/err"
    echo "status $rc, $ms ms after the kill"
    [ $rc -ne 0 ] && [ $ms -lt 5000 ] && grep -q 'rank [1-9]' "$tmp/err"
}
ok 'a rank killed: all gone within 5 s, and it is named' killed
goes_on() {
    local at
    at=$(ls "$tmp/cut/checkpoints" | sed -n 's/^step-0*\([0-9]*\)$/\1/p' | sort -n | tail -n 1)
    fresh cut --steps $((at + 3)) && grep -q "\"resumed_from\": $at" "$tmp/cut/summary.json"
}
ok 'and one goes on from there' goes_on
echo "1..$n"
