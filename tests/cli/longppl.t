#!/bin/bash
# leval --longppl: against the reference's code, by hand, over ranks, with another model's key tokens.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
golden=tests/data/longppl.json
m=tests/data/model/gqa
ok 'the text of the golden values' eval 'perl -MJSON::PP -0777 -ne "binmode STDOUT; print pack(q(v*), @{decode_json(\$_)->{ids}})" \
    $golden > "$tmp/ids.bin" && [ "$(wc -c < "$tmp/ids.bin")" = 1400 ]'
long() { leval -q --ppl "$tmp/ids.bin" --longppl --ctx 700 -m $m "$@"; }
as_golden() { # CASE: LongPPL, perplexity and the key tokens themselves, as PKU-ML/LongPPL has them
    local short slide
    read -r short slide < <(perl -MJSON::PP -0777 -ne '$c = decode_json($_)->{cases}['"$1"']; print "$c->{short} $c->{slide}\n"' $golden)
    rm -f "$tmp/k"
    long --short "$short" --slide "$slide" --key-tokens "$tmp/k" --json > "$tmp/r" || return 1
    perl -MJSON::PP -e 'sub get { local (@ARGV, $/) = @_; decode_json(<>) }
        $want = get($ARGV[0])->{cases}[$ARGV[3]]; $r = get($ARGV[1])->{results}[0]; $k = get($ARGV[2]);
        sub near { my ($a, $b) = @_; defined $a && abs($a - $b) < 2e-5 * $b }
        print "$r->{ppl} $want->{longppl}, $r->{all_ppl} $want->{ppl}, @{$k->{lists}[0]{tokens}}\n";
        exit !(near($r->{all_ppl}, $want->{ppl}) && "@{$k->{lists}[0]{tokens}}" eq "@{$want->{key_tokens}}" &&
            (defined $want->{longppl} ? near($r->{ppl}, $want->{longppl}) : !$r->{tokens}))' $golden "$tmp/r" "$tmp/k" "$1"
}
for c in 0 1 2 3 4; do ok "case $c of the reference" as_golden $c; done

ok 'by hand: full losses, and those of each short window by itself' eval '
    n() { leval -q --ppl "$tmp/w" --form raw --ctx 700 -m $m --protocol nonoverlap --json | sed -n "s/.*\"loss\": \([0-9.]*\),*/\1/p" | head -n 1; }
    one() { head -c $((2 * ($1 + $2))) "$tmp/ids.bin" | tail -c $((2 * $2)) > "$tmp/w"; n; } # START N: mean of N - 1
    rm -f "$tmp/k"; long --short 8 --slide 4 --key-tokens "$tmp/k" > /dev/null &&
    for t in $(perl -MJSON::PP -0777 -ne "print join q( ), @{decode_json(\$_)->{lists}[0]{tokens}}" "$tmp/k" | cut -d" " -f 1-2) 100; do
        s=$(((t - 8) / 4 * 4)); k=$((t - s))
        awk -v t=$t -v k=$k -v a="$(one 0 $((t + 1)))" -v b="$(one 0 $t)" -v c="$(one $s $((k + 1)))" -v d="$(one $s $k)" "BEGIN {
            full = t * a - (t - 1) * b; short = k * c - (k - 1) * d; key = short - full > 2 && full < 2
            print t, full, short; exit key != (t != 100) }" || exit; done'
ok 'the same over ranks, and pieces of any size' eval 'long --short 8 --slide 4 --json > "$tmp/a" &&
    for o in "--processes 2" "--processes 3" "--batch-tokens 710" "-j 1"; do
        long --short 8 --slide 4 --json $o > "$tmp/b" && cmp <(grep -E "loss_hex|tokens\"" "$tmp/a") <(grep -E "loss_hex|tokens\"" "$tmp/b") || exit; done'
ok "another model's key tokens: their losses here" eval 'rm -f "$tmp/k" && long --short 8 --slide 4 --key-tokens "$tmp/k" > /dev/null &&
    perl -MJSON::PP -0777 -pe "\$j = decode_json(\$_); \$j->{by} = q(other); push @{\$j->{lists}[0]{tokens}}, 690; \$_ = encode_json(\$j)" "$tmp/k" > "$tmp/k2" &&
    long --short 8 --slide 4 --key-tokens "$tmp/k2" > "$tmp/t" && cat "$tmp/t" && grep -q "^keys      of other" "$tmp/t" &&
    long --short 8 --slide 4 --json -o "$tmp/own" && long --short 8 --slide 4 --json --key-tokens "$tmp/k2" -o "$tmp/others" &&
    [ "$(num "$tmp/others" tokens)" = $(($(num "$tmp/own" tokens) + 1)) ] && leval --table "$tmp/own" "$tmp/others" > "$tmp/t" 2> "$tmp/err" &&
    grep -q "do not compare: .* other key tokens" "$tmp/err"'
ok 'one way and the other: keys that were written give the same result' eval 'rm -f "$tmp/k" && long --short 16 --slide 8 --key-tokens "$tmp/k" --json | grep loss_hex > "$tmp/x" &&
    long --short 16 --slide 8 --key-tokens "$tmp/k" --json | grep loss_hex | cmp - "$tmp/x"'
ok 'the model whose keys they are compares with the others' eval 'rm -f "$tmp/k" && long --short 16 --slide 8 --key-tokens "$tmp/k" -l first --json -o "$tmp/wrote" &&
    long --short 16 --slide 8 --key-tokens "$tmp/k" -l second --json -o "$tmp/read" && grep -h key_tokens "$tmp/wrote" "$tmp/read" &&
    grep -q "\"key_tokens\": \"first\"" "$tmp/wrote" && leval --table "$tmp/wrote" "$tmp/read" 2> "$tmp/err" > /dev/null &&
    ! grep "do not compare" "$tmp/err"'
ok 'keys of other windows' ends 78 'other data' long --short 16 --slide 4 --key-tokens "$tmp/k"
ok 'keys of another context' ends 78 'no key tokens for --ctx 200' leval -q --ppl "$tmp/ids.bin" --longppl --ctx 200 -m $m --short 16 --slide 8 --key-tokens "$tmp/k"
ok 'keys that are damaged' eval 'sed "s/\"tokens\": \[/&999999,/" "$tmp/k" > "$tmp/bad" && ends 65 "not ascending" long --short 16 --slide 8 --key-tokens "$tmp/bad" &&
    head -c 100 "$tmp/k" > "$tmp/bad" && ends 65 bad long --short 16 --slide 8 --key-tokens "$tmp/bad" && ends 65 "no key tokens of" long --key-tokens $golden --short 8'
ok 'no key tokens: said, and a table has nothing there' eval 'leval -q --ppl "$tmp/ids.bin" --longppl --ctx 700 -m $m --short 300 --slide 50 --json -o "$tmp/none" 2> "$tmp/err" &&
    grep -q "no key tokens" "$tmp/err" && leval --table -q "$tmp/none" | grep -qE "^gqa +-$"'
ok 'documents that are too short' ends 65 'no document has more than 4096 tokens' long
ok 'windows of its own' ends 64 '--join' long --join
ok 'without data' ends 64 '--ppl' leval --longppl -m $m
echo "1..$n"
