#!/bin/bash
# tools/extend_pg19.sh in small, on the CPU: all stages, stopped and gone on with; and its tables.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
tab() { tr ' ' '\t'; }
# Two books of 100 and 300 tokens; losses by hand. Rates 1 and 2 at one seed, 2 at three: 2 is taken.
runs() {
    local seed
    echo 'a 2048 parts dense lora+ 1 1 5 10 100 9.0 2048|100,900,25,200;300,2700,75,600 position|1,2,9.0' | tab
    for seed in 1 2 3; do
        echo "b 2048 parts dense lora+ 2 $seed 5 1000 100 8.0 2048|100,400,25,100;300,600,75,150 position|1,2,1.5" | tab
        echo "c 2048 parts mix-16 lora+ 2 $seed 5 1000 250 8.0 2048|100,410,25,110;300,60$seed,75,150 position|1,2,1.6" | tab
    done
}
table() { runs | awk -v draws=400 -f tools/extend_table.awk; }
by_hand() { # losses 1000/400; (410 + 602)/400: the ratio is exp(12/400), of the last quarter exp(10/100)
    table > "$tmp/t" || return 1
    cat "$tmp/t"
    grep -qF '| by parts, LoRA+, dense | 12.18 | 0.00 | 12.18 | 3 | 2 | 5 | 100 | 10.0 |' "$tmp/t" &&
        grep -qF '| by parts, LoRA+, mix-16 | 12.55 | 0.03 | 13.46 | 3 | 2 | 5 | 250 | 4.0 |' "$tmp/t" &&
        grep -qF '| by parts, LoRA+, mix-16 | 1.0305 (' "$tmp/t" && grep -qF ' | 0.0026 | 1.1052 (' "$tmp/t" && # of 611, 612, 613 over 400 tokens: exp(12/400) / 400
        grep -q '| 2.50 | at most 1.02: no; 1.03: no; at least 1.5: yes |$' "$tmp/t" &&
        grep -qF '| by parts, LoRA+, dense | 8103.08, 8103.08 | 2980.96*, 12.18 |' "$tmp/t" # exp(3600 / 400), exp(1000 / 400)
}
ok 'tables: the rate that has all seeds, means, ratios to dense, as by hand' by_hand
untimed() { # a seed whose speed is not known takes nothing from the others; where none is known nothing is said
    runs | awk -F'\t' -v OFS='\t' '$7 == 2 && $4 == "mix-16" { $10 = 0 } { print }' | awk -v draws=400 -f tools/extend_table.awk | diff - "$tmp/t" &&
        runs | awk -F'\t' -v OFS='\t' '$4 == "mix-16" { $10 = 0 } { print }' | awk -v draws=400 -f tools/extend_table.awk > "$tmp/u" || return 1
    cat "$tmp/u"
    grep -qF '| by parts, LoRA+, mix-16 | 12.55 | 0.03 | 13.46 | 3 | 2 | 5 | | |' "$tmp/u" && grep -q 'mix-16 .* |  | at most 1.02: no; 1.03: no |$' "$tmp/u"
}
ok 'tables: a speed that is not known' untimed
interval() { # of two books every draw is one of three: both of one, both of the other, one of each
    local low high
    read -r low high < <(sed -nE 's/.* mix-16 \| 1.0305 \(([0-9.]+) to ([0-9.]+)\).*/\1 \2/p' "$tmp/t")
    echo "$low $high"
    awk -v l="$low" -v h="$high" 'BEGIN { exit !(sqrt((l - exp(2 / 300)) ^ 2) < 1e-4 && sqrt((h - exp(10 / 100)) ^ 2) < 1e-4) }' &&
        diff <(table) "$tmp/t"
}
ok 'the bootstrap is paired, weighs books by their tokens, and repeats' interval

mkdir -p "$tmp/books" "$tmp/w" && cp tests/data/tiny.model "$tmp/w/tokenizer.model" || exit 70
for split in train test validation; do
    mkdir "$tmp/$split" && for f in ltrain leval lprep; do cp man/$f.1 "$tmp/$split/$f.txt"; done
    tar -C "$tmp/$split" -cf - . | zstd -q > "$tmp/books/pg19-$split.tar.zst"
done
small() {
    BOOKS=$tmp/books CONFIG=$PWD/tests/data/tiny-config.json LENGTHS=256 BASE_CTX=64 BASE_STEPS=5 STEPS=5 \
        STEP_TOKENS=256 AT_ONCE=256 VAL_TOKENS=1k RATES='1e-3 2e-3' FULL_RATES=1e-3 SEEDS='1 2' GPUS=${gpus:-0} DEVICE=cpu \
        tools/extend_pg19.sh "$tmp/w" "$@" > "$tmp/out" 2> "$tmp/err"
}
stops() { # without time nothing is begun, and what is left is said
    small data base || { cat "$tmp/err"; return 1; }
    LIMIT=10 small search
    [ $? -eq 75 ] && grep -q '8 runs are left: give the command again' "$tmp/err" && [ -z "$(ls "$tmp/w/results")" ]
}
ok 'no time: 75, and how many runs are left' stops
searches() {
    small search || { cat "$tmp/err"; return 1; }
    ls "$tmp/w/results"
    [ "$(ls "$tmp/w/results"/*.1e-3.* "$tmp/w/results"/*.2e-3.* | wc -l)" -eq 8 ] &&
        [ "$(ls "$tmp/w/results" | grep -cE '\.(0\.0005|0\.004)\.1\.5\.tsv$')" -eq 4 ] && small search && [ ! -s "$tmp/out" ]
}
ok 'rates are searched, also beyond the best of an end; once' searches
rest() {
    rm "$tmp/w/results"/256.parts.dense.lora+.1e-3.*
    small data base search main extra tables || { cat "$tmp/err"; return 1; }
    cat "$tmp/w/tables.md"
    grep -q '^| by parts, LoRA+, mix-16 | 1.* | at most 1.02: .*|$' "$tmp/w/tables.md" && ! grep -q -e 'nan' -e '| 0 | [0-9.]* |$' "$tmp/w/tables.md" && grep -q '^| by parts, LoRA+, mix-16 for the seconds of dense ' "$tmp/w/tables.md" &&
        [ "$(grep -c '^| PI, LoRA+, .* 2 | 0.004 | 5 ' "$tmp/w/tables.md")" -eq 4 ] && [ "$(ls "$tmp/w/runs" | grep -vc err)" -eq 0 ] &&
        awk -F'\t' '{ n = split($14, p, /[|;]/) } NF != 15 || n != 4 || split($15, p, /[|,;]/) < 20 { print; exit 1 }' "$tmp/w/results"/*.tsv
}
ok 'the rest: all ways, what is missing of the search too, tables' rest
page() { # what is between the marks is replaced, what is around them stays
    printf 'a\n<!-- measured -->\nold\n<!-- end -->\nb\n' > "$tmp/page.md" && PAGE=$tmp/page.md small page || { cat "$tmp/err"; return 1; }
    { printf 'a\n<!-- measured -->\n![perplexity by seconds of training, and by position](page.png)\n' && cat "$tmp/w/tables.md" && printf '<!-- end -->\nb\n'; } | diff - "$tmp/page.md" &&
        grep -q "^run	256	pi	dense	lora+	" "$tmp/page.tsv" && echo none > "$tmp/other.md" || return 1
    PAGE=$tmp/other.md small page
    [ $? -eq 70 ] && [ "$(cat "$tmp/other.md")" = none ]
}
if command -v gnuplot > /dev/null; then ok 'the plot' eval 'small plot && test -s "$tmp/w/extension.png"' && ok 'tables and plot go into a page' page
else skip 'the plot' 'no gnuplot'; fi
some() { # of ways and RoPE kinds
    mkdir "$tmp/kept" && mv "$tmp/w/results"/256.{pi,parts}.*lora+.* "$tmp/kept" && WAYS='s2-4 mix-16' ROPES=pi small main || { cat "$tmp/err"; return 1; }
    cat "$tmp/out"
    [ "$(ls "$tmp/w/results" | grep '^256.*lora+' | cut -d. -f2,3 | sort -u | tr '\n' ' ')" = 'pi.mix-16 pi.s2-4 ' ] && rm "$tmp/w/results"/256.*lora+.* && mv "$tmp/kept"/* "$tmp/w/results"
}
ok 'only some ways and RoPE kinds' some
failed() { # a run that fails ends it, with its name
    rm "$tmp/w/results"/256.pi.s2-4.*.1.5.tsv
    LTRAIN=false small main
    [ $? -eq 70 ] && grep -q '256 pi s2-4 lora+ .* 1 5: exit 1' "$tmp/err"
}
ok 'a run that fails is named' failed
ok 'runs at once would not tell speed' eval 'EACH=2 small main; [ $? = 64 ] && grep -q "each run has a GPU alone" "$tmp/err"'
echo "1..$n"
