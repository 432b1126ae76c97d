#!/bin/bash
# leval --tasks as a user meets it: prompts, answers, journals, ranks, maps, comparisons, refusals.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
export LC_ALL=C.UTF-8
ok 'a tiny model' tiny_model 4096 0.6 --seed 3
m=$tmp/m t=tests/data/tiny.model
some() { leval -q --tasks passkey,json_kv -m "$m" --lengths 1k,1500 --samples 5 "$@"; }
each() { perl -MJSON::PP -ne '$j = decode_json($_); '"$1" "$2"; } # CODE FILE: for each line, as $j

ok 'the list names tasks, what they need, whose they are' eval 'leval --tasks list > "$tmp/list" &&
    grep -q "^passkey .*--depths" "$tmp/list" && grep -q "^json_kv" "$tmp/list" && grep -q "LongLoRA.*Apache" "$tmp/list"'

# --- prompts
ok 'prompts without a model: NDJSON with answers, tokens, depth' eval '
    leval -q --tasks passkey,json_kv -t $t --lengths 1k,2k --samples 3 --prompts "$tmp/p" &&
    [ "$(wc -l < "$tmp/p")" = 12 ] && each "
        \$n++; \$a = \$j->{answers}[0]; die \$_ unless index(\$j->{prompt}, \$a) > 0 && \$j->{tokens} > 0 &&
        \$j->{tokens} + \$j->{reply} <= \$j->{length} && \$j->{depth} >= 0 && \$j->{depth} <= 1 &&
        \$j->{score} eq (\$j->{task} eq \"passkey\" ? \"first\" : \"all\");
        END { exit !(\$n == 12) }" "$tmp/p"'
ok 'a seed is a seed; the same to standard output' eval 'p() { leval -q --tasks json_kv -t $t --lengths 1k --samples 2 "$@"; }
    p --prompts - > "$tmp/p1" && p --prompts "$tmp/p2" && cmp "$tmp/p1" "$tmp/p2" && p --seed 0 --prompts - | cmp - "$tmp/p1" &&
    p --seed 1 --prompts "$tmp/p3" && ! cmp -s "$tmp/p1" "$tmp/p3"'
ok 'depths: where the answer stands' eval 'leval -q --tasks passkey -t $t --lengths 3k --samples 1 --depths 5 --prompts - |
    each "\$a = \$j->{answers}[0]; printf qq(%.2f ), index(\$j->{prompt}, \$a) / length \$j->{prompt}; \$d .= \$j->{depth} . q( );
        END { exit !(\$d eq q(0 0.25 0.5 0.75 1 )) }" - > "$tmp/d" && awk "{ exit !(\$1 < .1 && \$3 > .4 && \$3 < .6 && \$5 > .9) }" "$tmp/d"'
ok 'prompts that exist stay' ends 73 'exists' leval --tasks passkey -t $t --lengths 1k --prompts "$tmp/p"

ok 'hidden in text: a file, a folder, an archive, JSON lines; the same prompts' eval 'h() { leval -q --tasks niah_single_2,niah_multikey_1 -t $t --lengths 2k --samples 2 --prompts - "$@"; }
    mkdir "$tmp/h" && cp tests/data/tiny.txt "$tmp/h/a.txt" && h --haystack "$tmp/h/a.txt" > "$tmp/h1" && [ "$(wc -l < "$tmp/h1")" = 4 ] &&
    gzip -c tests/data/tiny.txt > "$tmp/h/b.txt.gz" && tar -C "$tmp/h" -cf "$tmp/h.tar" a.txt && h --haystack "$tmp/h.tar" | cmp - "$tmp/h1" &&
    h --haystack "$tmp/h/b.txt.gz" | cmp - "$tmp/h1" && rm "$tmp/h/b.txt.gz" && h --haystack "$tmp/h" | cmp - "$tmp/h1" &&
    perl -MJSON::PP -0777 -ne "utf8::decode(\$_); print encode_json({ text => \$_ }), qq(\n)" "$tmp/h/a.txt" > "$tmp/h.jsonl" && h --haystack "$tmp/h.jsonl" | cmp - "$tmp/h1"'
ok 'text that is not UTF-8, and none' eval 'printf "caf\xe9 is Latin-1" > "$tmp/latin.txt" && ends 65 "latin.txt. is not UTF-8 text: wrong at byte 3" leval -q --tasks niah_single_2 -t $t \
        --lengths 2k --prompts - --haystack "$tmp/latin.txt" && ends 64 "--haystack" leval -q --tasks niah_single_2 -t $t --lengths 2k --prompts - &&
    ends 66 absent leval -q --tasks niah_single_2 -t $t --lengths 2k --prompts - --haystack "$tmp/absent" &&
    gzip -c tests/data/tiny.txt | head -c 40 > "$tmp/cut.gz" && ends 65 "another --haystack" leval -q --tasks niah_single_2 -t $t --lengths 2k --prompts - --haystack "$tmp/cut.gz" && ! grep -q "on-error" "$tmp/err" &&
    mkdir -p "$tmp/h/none" && ends 66 "no text files in the folder" leval -q --tasks niah_single_2 -t $t --lengths 2k --prompts - --haystack "$tmp/h/none" && ! grep -q -e lprep -e --include "$tmp/err"'
ok 'of text that does not end 64 MiB are taken' eval '(yes "The sun is warm over the café." 2> /dev/null | head -c 1200000000) | timeout 60 leval -q --tasks niah_single_2 -t $t \
        --lengths 2k --samples 1 --prompts "$tmp/endless" --haystack - && [ "$(wc -l < "$tmp/endless")" = 1 ]'
ok 'the beginning of names, and all of them' eval 'n() { leval --tasks "$1" -t $t --lengths 3k --samples 1 --prompts - --haystack tests/data/tiny.txt |
        sed -E "s/.*\"task\":\"([^\"]*)\".*/\1/" | sort -u | wc -l; }
    [ "$(n niah_single)" = 3 ] && [ "$(n niah)" = 8 ] && [ "$(n niah_)" = 8 ] && [ "$(n niah_single_1,niah_single)" = 3 ] && [ "$(n all)" -ge 14 ]'

# --- answers: what lgen says to the same prompts, scored
ok 'a table: task by length, intervals, the mean' eval 'some --journal "$tmp/j" > "$tmp/t" && grep -qE "^task +1024 +1500 +all$" "$tmp/t" &&
    grep -qE "^passkey +[0-9.]+ \[[0-9]+-[0-9]+\] " "$tmp/t" && grep -q "^mean " "$tmp/t" &&
    [ "$(wc -l < "$tmp/j")" = 21 ] && ! grep -q "% by" "$tmp/t"'
ok 'the outputs are those of lgen' eval 'each "print \$j->{output}, qq(\n) if \$j->{key} && \$j->{length} == 1024 && \$j->{number} < 2" "$tmp/j" > "$tmp/mine"
    leval -q --tasks passkey,json_kv -t $t --lengths 1k --samples 2 --prompts - | perl -MJSON::PP -e "
        while (<STDIN>) { \$j = decode_json(\$_); open P, q(|-), qw(lgen -q -m), \$ARGV[0], q(-n), \$j->{reply}, qw(--json -);
            print P \$j->{prompt}; close P or die }" "$m" |
        perl -MJSON::PP -0777 -ne "\$p = JSON::PP->new->utf8; \$p->incr_parse(\$_); while (\$o = \$p->incr_parse) {
            \$s = \$o->{text}; \$s =~ s/\0/?/g; print \$s, qq(\n) }" > "$tmp/lgens" &&
    [ "$(wc -c < "$tmp/mine")" -gt 100 ] && cmp "$tmp/mine" "$tmp/lgens"'
ok 'JSON: every score, which prompts, the bootstrap' eval 'some --json > "$tmp/r.json" && perl -MJSON::PP -0777 -ne "
    \$j = decode_json(\$_); exit !(\$j->{kind} eq q(probes) && @{\$j->{results}} == 4 && @{\$j->{results}[0]{scores}} == 5 &&
        \$j->{results}[1]{task} eq q(json_kv) && \$j->{bootstrap}{resamples} == 10000 && @{\$j->{summary}} == 9 &&
        !defined \$j->{seed} && \$j->{results}[0]{prompts_hash} ne \$j->{results}[2]{prompts_hash})" "$tmp/r.json"'

# --- journals
ok 'a finished journal: the same result at once, no device' eval 'some --journal "$tmp/j" 2> "$tmp/err" | cmp - "$tmp/t" &&
    leval --tasks passkey,json_kv -m "$m" --lengths 1k,1500 --samples 5 --journal "$tmp/j" 2>&1 > /dev/null | tee "$tmp/err" &&
    grep -q "20 of 20 answers" "$tmp/err" && ! grep -q "device" "$tmp/err"'
ok 'cut anywhere it goes on to the same bytes' eval 'for k in 1 40 160 171 500 1500; do
    head -c $k "$tmp/j" > "$tmp/j$k" && some --journal "$tmp/j$k" | cmp - "$tmp/t" && cmp "$tmp/j" "$tmp/j$k" || exit; done'
ok 'killed, it goes on' eval 'rm -f "$tmp/k"; (some --batch-tokens 1k --journal "$tmp/k" > /dev/null 2>&1 & p=$!
    for i in $(seq 300); do [ "$(grep -c . "$tmp/k" 2> /dev/null)" -ge 4 ] && break; sleep 0.02; done; kill -9 $p; wait $p) 2> /dev/null
    [ "$(wc -l < "$tmp/k")" -ge 3 ] && some --batch-tokens 1k --journal "$tmp/k" > "$tmp/k1" && some --batch-tokens 1k > "$tmp/k2" &&
    cmp "$tmp/k1" "$tmp/k2" && [ "$(grep -c . "$tmp/k")" = 21 ]'
ok 'more of everything: what is known is not asked again' eval 'cp "$tmp/j" "$tmp/more" &&
    leval --tasks passkey,json_kv -m "$m" --lengths 1k,1500,2k --samples 6 --journal "$tmp/more" 2> "$tmp/err" > /dev/null &&
        grep -q "20 of 36 answers" "$tmp/err" && [ "$(grep -c . "$tmp/more")" = 37 ]'
flipped() { # each line, a byte of it turned: told, with its number, or as no journal; never believed
    local line at
    for line in 1 2 9 21; do for at in 12 60 -3; do
        perl -e 'open F, "<", $ARGV[0]; @l = <F>; $i = $ARGV[1] - 1; $k = $ARGV[2]; $k += length $l[$i] if $k < 0;
            substr($l[$i], $k, 1) ^= "\x01"; print @l' "$tmp/j" $line $at > "$tmp/f"
        ends 65 "line $line is damaged" some --journal "$tmp/f" || return 1
        cmp -s "$tmp/f" "$tmp/j" && return 1
    done; done
    sed 9d "$tmp/j" > "$tmp/f" && some --journal "$tmp/f" | cmp - "$tmp/t"
}
ok 'a byte turned: refused, with its line; without that line it goes on' flipped
ok "another model's journal" eval 'ltrain -q "$tmp/s" --init "$tmp/c.json" --mode full --ctx 64 --batch 4 --steps 1 --lr 1e-3 \
        --warmup 1 --seed 4 -o "$tmp/m16" && cp $t "$tmp/m16/tokenizer.model" &&
    ends 78 "another model" leval -q --tasks passkey -m "$tmp/m16" --lengths 1k --journal "$tmp/j"'
cp tests/data/tiny.txt "$tmp/other"
ok 'some other file as journal' ends 65 'not a journal' some --journal "$tmp/other"
ok 'and it is left alone' cmp "$tmp/other" tests/data/tiny.txt
ok 'a journal into no folder' ends 73 nowhere some --journal "$tmp/nowhere/j"

# --- ranks
two() {
    some --processes "$1" --journal "$tmp/n$1" > "$tmp/t$1" && cmp "$tmp/t" "$tmp/t$1" &&
        cmp <(sed 1d "$tmp/j") <(sed 1d "$tmp/n$1") && some --json --processes "$1" | grep -v '"device"' |
        cmp - <(grep -v '"device"' "$tmp/r.json")
}
for k in 2 3; do ok "$k processes: the bytes of one" two $k; done

# --- depths, maps, plots
map() { leval -q --tasks passkey -m "$m" --lengths 1k,1500,2k --samples 1 --depths 3 --journal "$tmp/d.j" "$@"; }
ok 'a map by depth and length' eval 'map > "$tmp/map" && grep -q "^passkey, % by depth and length" "$tmp/map" &&
    grep -qE "^depth +1k +1500 +2k" "$tmp/map" && [ "$(grep -cE "^ *(0|50|100)% " "$tmp/map")" = 3 ] && ! grep -q "$(printf "\033")" "$tmp/map"'
ok 'ASCII where the locale is' eval 'LC_ALL=C map > "$tmp/map" && ! LC_ALL=C grep -q "[^ -~]" "$tmp/map"'
colours() {     # through a file: script(1) runs $SHELL or sh, and not every shell passes a function of bash on
    { declare -f map; echo map; } > "$tmp/map.sh"
    export TERM=xterm-256color m tmp
    ( unset NO_COLOR; script -qec "bash '$tmp/map.sh'" /dev/null < /dev/null ) > "$tmp/c" && grep -q "48;5" "$tmp/c" &&
    NO_COLOR=1 script -qec "bash '$tmp/map.sh'" /dev/null < /dev/null > "$tmp/c" && ! grep -q "48;5" "$tmp/c"
}
if script -qec true /dev/null > /dev/null 2>&1; then ok 'colours on a terminal, and none for NO_COLOR' colours
else skip 'colours on a terminal, and none for NO_COLOR' 'no terminal can be had'; fi
if command -v gnuplot > /dev/null; then
    ok 'a map as PNG and SVG' eval 'map --plot "$tmp/p.png" > /dev/null && head -c 4 "$tmp/p.png" | grep -q PNG &&
        map --plot "$tmp/p.svg" > /dev/null && grep -q "<svg" "$tmp/p.svg" && grep -q ">50%<" "$tmp/p.svg"'
    ok 'without depths: lines' eval 'some --journal "$tmp/j" --plot "$tmp/l.svg" > /dev/null && grep -q "json" "$tmp/l.svg"'
else
    skip 'a map as PNG and SVG' 'no gnuplot'
    skip 'without depths: lines' 'no gnuplot'
fi

# --- comparisons
better() { # the model that answers all of one task, made of another's result
    sed -E '/"scores": \[/,/\]/ { s/0[.]0/1.0/; }' "$tmp/r.json" | sed 's/"label": "m"/"label": "good"/' > "$tmp/g.json"
    leval -q --table "$tmp/r.json" "$tmp/g.json" > "$tmp/cmp" && cat "$tmp/cmp" && grep -q 'points that good is above m' "$tmp/cmp" &&
        grep -qE '^mean +\+100.0 \[\+100.0, \+100.0\] +\+100.0' "$tmp/cmp" && leval --table --json "$tmp/r.json" "$tmp/g.json" |
        perl -MJSON::PP -0777 -ne '$j = decode_json($_); exit !($j->{rows}[1]{above_first}[0]{score} == 1 && !@{$j->{rows}[0]{above_first}})'
}
ok '--table: points above the first, in pairs' better
ok '--table: other prompts are not compared' eval 'some --seed 5 --json -o "$tmp/s5.json" && leval -q --table "$tmp/r.json" "$tmp/s5.json" > "$tmp/o" &&
    sed -n "/points/,\$p" "$tmp/o" | grep -qE "^json_kv +- +-"'
ok '--table: kinds of results do not mix' eval 'ends 65 "not a result" leval --table "$tmp/r.json" tests/data/eval_golden.json &&
    ends 65 "" leval --table tests/data/eval_golden.json "$tmp/r.json"'

# --- refusals
ok 'no such task' ends 64 "no task is called 'nothing'" leval --tasks passkey,nothing -m "$m"
ok 'past the context: told with -q too, and in the result' eval 'leval -q --tasks passkey -m "$m" --lengths 4k,4200 --samples 1 --json > "$tmp/past" 2> "$tmp/err" &&
    [ "$(wc -l < "$tmp/err")" = 1 ] && grep -q "length 4200 is past the model.s context of 4096" "$tmp/err" &&
    [ "$(grep past_context "$tmp/past" | tr -d " ,\n")" = "\"past_context\":false\"past_context\":true" ]'
ok 'no model' ends 64 'no --model' leval --tasks passkey
ok 'prompts need lengths' ends 64 '--lengths' leval --tasks passkey -t $t --prompts -
ok 'and a tokenizer' ends 64 '--tokenizer' leval --tasks passkey --lengths 1k --prompts -
ok 'a length that is too short' ends 64 'passkey' leval -q --tasks passkey -m "$m" --lengths 200
ok 'a model without a tokenizer' ends 66 'no tokenizer' leval -q --tasks passkey -m tests/data/model/gqa --lengths 1k
ok '--lengths and --ctx' ends 64 '--ctx' leval --tasks passkey -m "$m" --lengths 1k --ctx 1k
ok '--cp' ends 64 '--cp' leval --tasks passkey -m "$m" --lengths 1k --cp 2 --processes 2
ok 'data beside tasks' ends 64 '--ppl' leval --tasks passkey -m "$m" --ppl tests/data/tiny.txt
echo "1..$n"
