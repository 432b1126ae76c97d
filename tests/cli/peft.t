#!/bin/bash
# What ltrain writes, as peft reads it. Where there is no peft (PYTHON names one that has it), it is skipped.
cd "$(dirname "$0")/../.." || exit 70
python=${PYTHON:-python3}
timeout 120 "$python" -c 'import peft, torch, transformers' 2> /dev/null ||
    { echo '1..0 # SKIP no peft'; exit 0; }
. tests/cli/lib.sh
export HF_HUB_OFFLINE=1
data=tests/data/peft_features
awk 'BEGIN { for (i = 0; i < 60; i++) {
    s = ""
    for (k = 0; k < 40; k++) s = s (k ? "," : "") (3 + (i * i + k * 7) % 44)
    print "{\"tokens\":[" s "]}" } }' > "$tmp/d.ndjson"
lpack -q --import ndjson --vocab 48 "$tmp/d.ndjson" > "$tmp/d.shard"
reads() { # reads BASE OPTION...: trained over it, merged, and the same to peft
    local base=$data/$1
    shift
    rm -rf "$tmp/a" "$tmp/m"
    ltrain -q "$tmp/d.shard" --model "$base" --ctx 64 --batch 4 --lr 1e-2 --steps 3 --mode lora -o "$tmp/a" "$@" &&
        lmerge -q -m "$base" -a "$tmp/a" -o "$tmp/m" &&
        "$python" tests/peft_check.py "$base" "$tmp/a" "$tmp/m" > "$tmp/said" 2>&1 || { tail -n 5 "$tmp/said"; return 1; }
}
ok 'ranks and alphas by pattern, one layer, rsLoRA, dropout' reads base --targets q,v,layers.1.mlp.up_proj,down \
    --rank-pattern q=3,layers.0.self_attn.v_proj=2 --alpha-pattern v=5,layers.2.mlp.down_proj=3 --rslora \
    --dropout 0.1 --trainable norm,embed
ok 'a head, whole matrices' reads base --targets q --trainable head,o_proj
ok 'a tied head, kept' reads base_tied --targets q,o --trainable norm,head --tied keep
ok 'a tied head, split' reads base_tied --targets q,o --trainable norm,head --tied split
echo "1..$n"
