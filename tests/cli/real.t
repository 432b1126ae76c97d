#!/bin/bash
# A pretrained model: leval's perplexity is transformers' (tests/make_real_model.py makes $LONGLORA_REAL).
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
real=${LONGLORA_REAL:-../shared/data/smollm2}
same() {
    local want
    want=$(num "$real/real.json" ppl)
    leval -q --ppl "$real/ids.bin" --form raw --model "$real/model" --ctx 512 --protocol nonoverlap --json > "$tmp/got" ||
        return 1
    echo "ours $(num "$tmp/got" ppl), transformers' $want"
    awk -v a="$(num "$tmp/got" ppl)" -v b="$want" 'BEGIN { d = a / b - 1; exit !(d < 5e-5 && d > -5e-5) }'
}
if [ -f "$real/real.json" ]; then
    ok "SmolLM2-135M: the perplexity is transformers' to 4 digits" same
else
    skip "SmolLM2-135M: the perplexity is transformers' to 4 digits" 'no model: tests/make_real_model.py makes one'
fi
echo "1..$n"
