#!/bin/bash
# tools/retrieval_pg19.sh in small, on the CPU: examples, all stages, stopped and gone on with, its tables and page.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
mkdir -p "$tmp/books" "$tmp/w" && cp tests/data/tiny.model "$tmp/w/tokenizer.model" || exit 70
for split in train test validation; do
    mkdir "$tmp/$split" && for f in ltrain leval lprep; do cp man/$f.1 "$tmp/$split/$f.txt"; done
    [ $split != test ] || sed -i 's/the/a/g' "$tmp/$split"/*
    tar -C "$tmp/$split" -cf - . | zstd -q > "$tmp/books/pg19-$split.tar.zst"
done
sed -E 's/("max_position_embeddings": *)[0-9]+/\11024/' tests/data/tiny-config.json > "$tmp/c.json"
small() {
    BOOKS=$tmp/books CONFIG=$tmp/c.json BASE_CTX=1024 LENGTHS=2048 BASE_STEPS=2 STEPS=2 TEACH_STEPS=${teach:-2} \
        STEP_TOKENS=2048 AT_ONCE=2048 TASKS=passkey,lines DEPTHS=2 SAMPLES=1 SHARE=10 TEACH_SHARE=20 BOOKS_USED=2 \
        TEST_TOKENS=3k LEARNT=${learnt:-0} MASK=${mask:-1} GPUS=${gpus:-0} PAGE=$tmp/page.md tools/retrieval_pg19.sh "$tmp/w" "$@" > "$tmp/out" 2> "$tmp/err"
}
r=$tmp/w/retrieval
examples() {
    small base examples || { cat "$tmp/err"; return 1; }
    linfo "$r/teach" && linfo "$r/extend.2048" && wc -l "$r"/*.ndjson
    # the stated share of all tokens, to a prompt or so; a line is a whole document, its prompt masked
    for f in teach:20 extend.2048:10; do
        linfo "$r/${f%:*}" | awk -v share="${f#*:}" '$1 == "tokens" && !all { all = $2 } $3 == "prompts" { n = $5; t = $7 }
            END { print share, t / all; exit !(n > 0 && 100 * t / all > share * 0.5 && 100 * t / all < share * 1.5) }' || return 1
    done
    [ "$(cut -d, -f1,2 "$r/extend.2048.ndjson" | sort -u | wc -l)" = 4 ] && # two tasks, two lengths
        [ "$(grep -c '"length":1984' "$r/extend.2048.ndjson")" -ge 2 ]
}
ok 'examples: every task and length, the stated share' examples
carried() { # where neither lprep nor validation books are
    rm "$tmp/w/val.shard" && LPREP=false LPACK=false small base && [ ! -e "$tmp/w/val.shard" ]
}
ok 'base: what is there of the data will do' carried
apart() { # no example is one of the prompts that are scored, nor is its text
    leval -q --tasks passkey,lines -t "$tmp/w/tokenizer.model" --lengths 992,1984 --samples 20 --prompts - > "$tmp/scored" &&
        [ "$(cat "$r"/*.ndjson "$tmp/scored" | sed 's/.*"prompt"//' | sort | uniq -d | wc -l)" -eq \
          "$(cat "$r"/*.ndjson | sed 's/.*"prompt"//' | sort | uniq -d | wc -l)" ] &&
        [ "$(cat "$r"/book.*.jsonl | wc -l)" = 2 ] && ! cmp -s "$r/haystack.tar.zst" "$tmp/books/pg19-train.tar.zst"
}
ok 'examples are none of those that are scored' apart
whole() { # an example of the context's length is one row and a masked prompt with its answer
    lpack --export ndjson "$r/extend.2048" > "$tmp/all" && perl -MJSON::PP -ne '$j = decode_json($_);
        next unless $j->{meta} && $j->{meta}{source} eq "prompts"; $n = @{$j->{tokens}}; $m = $j->{mask}[0];
        $longest = $n if $n > $longest; die "mask" unless $m->[0] == 0 && $n - $m->[1] >= 2 && $n - $m->[1] < 20;
        END { print "$longest\n"; exit !($longest <= 2048 && $longest > 1024) }' "$tmp/all"
}
ok 'they fit a row; all but the answer is masked' whole
unmasked() { # MASK=0: the same tokens
    lpack --export ndjson "$r/teach" | grep -o '"tokens":[^]]*' | sort > "$tmp/with" && mv "$r/teach" "$tmp/teach" && mask=0 small examples &&
        lpack --export ndjson "$r/teach" > "$tmp/without" && ! grep -q mask "$tmp/without" &&
        grep -o '"tokens":[^]]*' "$tmp/without" | sort | cmp - "$tmp/with" && rm -rf "$r/teach" && mv "$tmp/teach" "$r/teach"
}
ok 'without the mask if that is asked for' unmasked
ok 'no time: 75, and how many runs are left' eval 'small teach || { cat "$tmp/err"; false; } && LIMIT=10 small runs; [ $? = 75 ] &&
    grep -q "retrieval_pg19: 1 runs are left: give the command again" "$tmp/err" && [ -z "$(ls "$r/results")" ]'
runs() { # the base has learnt nothing: where that matters it ends there
    learnt=50 small runs
    [ $? -eq 70 ] && grep -q "the taught base answers 0.0% at best at its own context" "$tmp/err" && [ "$(wc -l < "$tmp/out")" = 1 ] || return 1
    all=() # stages: those by default, where the last can be
    command -v gnuplot > /dev/null || all=(base examples teach runs tables)
    small "${all[@]}" || { cat "$tmp/err"; return 1; }
    cat "$tmp/out"
    ls "$r/results"
    [ "$(ls "$r/results"/*.tasks.json | wc -l)" = 5 ] && [ "$(ls "$r/results"/*.tsv | wc -l)" = 5 ] && [ -s "$r/taught/summary.json" ] &&
        [ "$(wc -l < "$r/results/2048.mix-16.1.answers.ndjson")" = 9 ] && [ "$(ls "$r/runs" | grep -vc err)" -eq 0 ]
}
ok 'a base that learnt nothing ends it; all stages' runs
again() {
    small runs && [ ! -s "$tmp/out" ] && rm "$r/results"/2048.dense.1.t* && small runs && [ "$(wc -l < "$tmp/out")" = 1 ] && grep -q '^2048.dense.1: ' "$tmp/out"
}
ok 'what is done is passed over, what is missing is made' again
cat > "$tmp/pair" << END
#!/bin/sh
: > "$tmp/at.\$\$"
i=0
while [ "\$(ls "$tmp"/at.* | wc -l)" -lt 2 ]; do
    i=\$((i + 1))
    [ \$i -lt 600 ] || exit 1
    sleep 0.1
done
exec ltrain "\$@"
END
printf '#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $*" >> "%s"\nexit 1\n' "$tmp/asked" > "$tmp/ask"
mkdir "$tmp/smi" && printf '#!/bin/sh\nprintf "100000\\n90000\\n"\n' > "$tmp/smi/nvidia-smi"
chmod +x "$tmp/pair" "$tmp/ask" "$tmp/smi/nvidia-smi"
at_once() { # each waits until the other is there
    mkdir "$tmp/alone" && mv "$r/results"/2048.{dense,mix-16}.1.* "$tmp/alone" && LTRAIN=$tmp/pair EACH=2 small runs || { cat "$tmp/err"; return 1; }
    cat "$tmp/out"
    [ "$(wc -l < "$tmp/out")" = 2 ] && [ "$(cut -f10 "$r/results"/2048.{dense,mix-16}.1.tsv | tr '\n' ' ')" = '0 0 ' ] && small tables || return 1
    grep -E 'by parts, LoRA' "$r/tables.md"
    grep -qE '^\| by parts, LoRA\+, mix-16 \|.* \| 2.5e-4 \| 2 \| \| \|$' "$r/tables.md" &&
        grep -qE '^\| by parts, LoRA\+, mix-16 \| 1.0*[0-9.]* \(.*\) \|  \| at most 1.02: (yes|no); 1.03: (yes|no) \|$' "$r/tables.md" && ! grep -q nan "$r/tables.md"
}
ok 'two runs at once: of speed nothing is said' at_once
shared() { # of two GPUs, the memory that both have
    rm "$r/results"/2048.{dense,s2-4,mix-16}.1.*
    PATH=$tmp/smi:$PATH LTRAIN=$tmp/ask EACH=2 gpus=2 small runs
    [ $? -eq 70 ] && cat "$tmp/asked" && [ "$(grep -c -- '--device cuda --gpu-memory 42750m$' "$tmp/asked")" = 3 ] &&
        [ "$(cut -d' ' -f1 "$tmp/asked" | sort -u | tr '\n' ' ')" = '0 1 ' ] && printf '#!/bin/sh\n' > "$tmp/smi/nvidia-smi" || return 1
    PATH=$tmp/smi:$PATH EACH=2 gpus=2 small runs
    [ $? -eq 69 ] && grep -q 'how much memory is free, which EACH=2 runs' "$tmp/err" || return 1
    for each in 0 two -1 01; do EACH=$each small runs; [ $? -eq 64 ] && grep -q "EACH is '$each'" "$tmp/err" || return 1; done
    mv "$tmp/alone"/* "$r/results" && small runs
}
ok 'they share the GPUs and their memory' shared
tables() {
    small tables || { cat "$tmp/err"; return 1; }
    cat "$r/tables.md"
    grep -q '^\*\*passkey was not learnt\*\* (0%)' "$r/tables.md" && grep -q '^| passkey (not learnt) | 0.0 | [-+0-9.]* \[[-+0-9., ]*\] | [-+0-9.]* \[[-+0-9., ]*\] |$' "$r/tables.md" &&
        grep -qE '^\| \| dense, % \| s2-4 \| mix-16 \|$' "$r/tables.md" && grep -qE '^untrained +1024 +2048 +all$' "$r/tables.md" &&
        grep -qE '^teach: [0-9]+ examples, (1|2)[0-9.]+% of ' "$r/tables.md" &&
        grep -q '^| by parts, LoRA+, mix-16 | 1.0*[0-9.]* (.* | at most 1.02: ' "$r/tables.md" && ! grep -q nan "$r/tables.md"
}
ok 'tables: what was not learnt is said, points beside dense, perplexity' tables
verdict() { # by hand: the interval decides
    printf '{\n "rows": [\n {\n  "label": "dense",\n' > "$tmp/j"
    for v in summary:0.9:0.9:0.9 ; do printf '  "summary": [\n {\n "task": "a",\n "length": null,\n "score": 0.9,\n "low": 0.8,\n "high": 1.0\n } ],\n "above_first": []\n },\n'; done >> "$tmp/j"
    for v in near:-0.01:-0.02:0.0 far:-0.05:-0.1:-0.021 wide:-0.01:-0.06:0.04; do
        IFS=: read -r l s lo hi <<< "$v"
        printf ' {\n "label": "%s",\n "summary": [],\n "above_first": [\n {\n "task": "a",\n "length": 8,\n "score": 1.0,\n "low": 1.0,\n "high": 1.0\n },\n {\n "task": "a",\n "length": null,\n "score": %s,\n "low": %s,\n "high": %s\n },\n {\n "task": null,\n "length": null,\n "score": 1,\n "low": 1,\n "high": 1\n } ]\n },\n' $l $s $lo $hi
    done >> "$tmp/j"
    awk -f tools/retrieval_table.awk "$tmp/j" | tee "$tmp/v"
    grep -qxF '| a | 90.0 | -1.0 [-2.0, +0.0]: yes | -5.0 [-10.0, -2.1]: no | -1.0 [-6.0, +4.0]: open |' "$tmp/v" || return 1
    echo 'a 49.9' > "$tmp/learnt" && awk -v learnt="$tmp/learnt" -f tools/retrieval_table.awk "$tmp/j" | tee "$tmp/v"
    grep -qxF '| a (not learnt) | 90.0 | -1.0 [-2.0, +0.0] | -5.0 [-10.0, -2.1] | -1.0 [-6.0, +4.0] |' "$tmp/v" || return 1
    sed 's/"score": 0.9/"score": 0.09/' "$tmp/j" | awk -f tools/retrieval_table.awk | grep -qF '| a | 9.0 | -1.0 [-2.0, +0.0] |'
}
ok 'within 2 points: yes, no, open, or nothing to compare' verdict
page() {
    printf 'a\n<!-- retrieval -->\nold\n<!-- retrieval end -->\nb\n' > "$tmp/page.md" && small plot page || { cat "$tmp/err"; return 1; }
    [ "$(sed -n '1p;$p' "$tmp/page.md" | tr -d '\n')" = ab ] && ! grep -q old "$tmp/page.md" && grep -q '(page-mix-16.png)' "$tmp/page.md" &&
        head -c 4 "$tmp/page-mix-16.png" | grep -q PNG
}
if command -v gnuplot > /dev/null; then ok 'maps and tables go into a page' page; else skip 'maps and tables go into a page' 'no gnuplot'; fi
ok 'its place in docs/extension.md' eval '[ "$(grep -cxE "<!-- retrieval( end)? -->" docs/extension.md)" = 2 ]'
untaught() { # TEACH_STEPS=0: all are extended from the base as it is
    rm "$r/results"/1024.taught.0.* && teach=0 small runs && grep -q '"model": ".*/w/base"' "$r/results/1024.taught.0.tasks.json"
}
ok 'without teaching the base itself is taken' untaught
failed() {
    rm "$r/results"/2048.s2-4.1.*
    LTRAIN=false small runs
    [ $? -eq 70 ] && grep -q '^2048 s2-4 1: exit 1' "$tmp/err"
}
ok 'a run that fails is named' failed
ok 'no such stage' eval 'small nothing; [ $? = 64 ]'
echo "1..$n"
