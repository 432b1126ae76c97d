#!/bin/sh
# usage: bench_data.sh FOLDER: what 'make bench-data' prints, by the benchmarks in FOLDER and the
# tools on the PATH. Real text and the model of Llama-2 come from $LONGLORA_DATA where that is set,
# else text is made from a seed. PYTHON: an interpreter that has HF's tokenizers [python3].
cd "$(dirname "$0")/.." || exit 70
bin=$1
export BENCH_TABLE=1
row() { printf '%-44s %-14s %s\n' "$@"; }
printf '%-44s %-14s %-16s %11s %10s %10s\n' what ours 'beside it' got must aim
processor=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
widest=$(grep -o -m 1 'avx512vbmi2' /proc/cpuinfo || grep -o -m 1 'avx512vl' /proc/cpuinfo ||
    grep -o -m 1 'avx2' /proc/cpuinfo || echo none)
row "$processor" "$widest" "${LONGLORA_SIMD:+LONGLORA_SIMD=$LONGLORA_SIMD}"
"$bin/bench_spm" || exit 1
if [ -n "$LONGLORA_DATA" ] && "${PYTHON:-python3}" -c 'import tokenizers, sentencepiece' 2> /dev/null; then
    model=$(mktemp) || exit 70
    zstd -dc "$LONGLORA_DATA/tokenizers/llama2/tokenizer.model.zst" > "$model"
    row '  HF tokenizers, books, 20 kB' "$(lprep -q --text --max-docs 8 \
        "$LONGLORA_DATA/pg19/pg19-validation.tar.zst" |
        "${PYTHON:-python3}" tests/bench_hf.py "$model") MB/s" '(a peer)'
    rm -f "$model"
else
    row '  HF tokenizers' 'not here:' 'no data, or no python3 with tokenizers and sentencepiece'
fi
"$bin/bench_hft" || exit 1
if [ -n "$LONGLORA_DATA" ] && "${PYTHON:-python3}" -c 'import tokenizers' 2> /dev/null; then
    json=$(mktemp) || exit 70
    zstd -dc "$LONGLORA_DATA/tokenizers/gpt2/tokenizer.json.zst" > "$json"
    row '  peers, GPT-2, books, 20 kB' "$(lprep -q --text --max-docs 20 \
        "$LONGLORA_DATA/pg19/pg19-validation.tar.zst" |
        "${PYTHON:-python3}" tests/bench_hft.py "$json")" ''
    rm -f "$json"
fi
for b in pipe packing minhash read; do
    "$bin/bench_$b" || exit 1
done
# The same loops as a processor without AVX-512 runs them, on one that has it.
case $widest$LONGLORA_SIMD in
avx512vbmi2 | avx512vl)
    row 'with AVX2 alone (LONGLORA_SIMD=avx2)'
    for b in spm hft pipe packing minhash read; do
        LONGLORA_SIMD=avx2 "$bin/bench_$b" || exit 1
    done ;;
esac
row 'load of this machine meanwhile' "$(cut -d' ' -f1 /proc/loadavg)" \
    "of $(nproc) processors: what is of two cores, or all, wants it to be idle"
