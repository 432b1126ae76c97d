#!/bin/bash
# What runs on GPUs, on imitated ones: the host's side of the CUDA device is the real one; streams are threads
# that are late, NCCL moves data between processes, an op is the CPU's (tests/imitate). An exchange that
# nobody waits for, or ranks that call NCCL in another order, show in losses, or are said.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
. tests/imitate/env.sh
test=$TESTBIN/../gpu/test_cuda_ranks
[ -f "$so" ] && [ -x "$test" ] || { echo "1..0 # SKIP make imitated makes them"; exit 0; }

truth() { # truth LATE: the test of ranks with GPUs; late: the stream that waits most
    LONGLORA_GPU_SMALL=1 IMITATED_LATE=$1 CMOCKA_MESSAGE_OUTPUT=STDOUT timeout 280 "$test" > "$tmp/said" 2>&1
    local rc=$?
    cat "$tmp/said"
    grep -q 'links 1' "$tmp/said" && [ $rc -eq 0 ]
}
ok 'sums, halos, turned heads, shared weights, a rank that dies: two GPUs as one' truth ''

llama_config vocab_size=512 hidden_size=64 intermediate_size=96 num_hidden_layers=3 initializer_range=0.2 > "$tmp/c.json"
cat > "$tmp/letters.json" << 'JSON'
{ "version": "1.0", "added_tokens": [{ "id": 0, "content": "<unk>", "single_word": false, "lstrip": false,
  "rstrip": false, "normalized": false, "special": true }], "normalizer": null, "pre_tokenizer": null,
  "post_processor": null, "decoder": { "type": "Fuse" }, "model": { "type": "BPE", "dropout": null,
  "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
  "byte_fallback": false, "vocab": { "<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4 }, "merges": [] } }
JSON
ids 8000 1 > "$tmp/d.bin"
trains() { # trains OUT OPTION...
    local out=$1
    shift
    timeout 100 ltrain -q "$tmp/d.bin" ${from:---init "$tmp/c.json"} --ctx 128 --batch 4 --micro 1 --steps 2 --device cuda -o "$tmp/$out" "$@"
}
writes() { timeout 100 lgen -q -m "$tmp/one" -t "$tmp/letters.json" --device cuda --no-bos --ignore-eos -n 8 --chunk 16 \
    --json --logprobs "$@" abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd; }
by_layers() { # the rows between layers travel beside the ops: whoever is late
    trains one && writes > "$tmp/a" && grep -q '"tokens":8' "$tmp/a" || return 1
    for late in '' 0 1; do
        IMITATED_LATE=$late writes --gpus 2 | cmp - "$tmp/a" || return 1
    done
}
ok 'lgen: layers on two GPUs write what one does' by_layers
ok 'and on three' eval 'IMITATED_GPUS=3 writes --gpus 3 | cmp - "$tmp/a"'

# A call of NCCL that fails on one rank, early and late, in a sum, a halo, a gather of weights: nobody waits on.
broken() {
    local call how rc start
    for call in 3 8 16; do
        for how in "" "--cp 2 --attention s2 --group 24" "--cp 2 --attention dense" "--shard-weights 2 --mode lora+ --rank 2"; do
            local from=
            case $how in *lora*) from="--model $tmp/one" ;; esac
            # the third opens the links, alike for all; without exchanges in layers there are not 16
            case $call.$how in 3.?* | 16.) continue ;; esac
            rm -rf "$tmp/broken"
            start=$SECONDS
            # shellcheck disable=SC2086 # words
            IMITATED_NCCL_FAILS="1 $call" trains broken --gpus 2 $how 2> "$tmp/err" > "$tmp/out"
            rc=$?
            [ $rc -eq 69 ] && [ $((SECONDS - start)) -lt 30 ] && grep -q 'remote process exited' "$tmp/err" && continue
            echo "call $call of '$how': status $rc after $((SECONDS - start)) s"
            cat "$tmp/err"
            return 1
        done
    done
}
ok 'a call of NCCL fails on one rank: all end, and it is said' broken
stays() { # NCCL's kernels stay on the GPU though it was aborted: nothing waits for them more than 5 s
    local start=$SECONDS rc
    rm -rf "$tmp/broken"
    IMITATED_NCCL_STAYS=1 IMITATED_NCCL_FAILS="1 8" trains broken --gpus 2 --cp 2 --attention dense 2> "$tmp/err" > "$tmp/out"
    rc=$?
    cat "$tmp/err"
    echo "status $rc after $((SECONDS - start)) s"
    [ $rc -eq 69 ] && [ $((SECONDS - start)) -lt 30 ] && grep -q 'remote process exited' "$tmp/err" &&
        ! grep -q 'for ever' "$tmp/err"
}
ok 'kernels that an abort does not end: nor do they keep the process' stays
echo "1..$n"
