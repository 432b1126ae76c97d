#!/bin/bash
# The man pages: clean for mandoc, in one order of sections, and every example in them runs.
# In a .Bd -literal block, a line '$ COMMAND' is run as it stands and must exit with 0, or with N
# where it ends in '# exits N'. A page's commands run in order, in one scratch folder that
# holds what the tools before it in the pipe would have made.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
export LC_ALL=C.UTF-8 GNUTERM=dumb

lint() { [ -z "$(mandoc -Tlint -W warning "$1" 2>&1 | tee /dev/stderr)" ]; }
order() { # sections in the order that readers expect; what is not named here may stand anywhere
    local known='NAME SYNOPSIS DESCRIPTION ENVIRONMENT FILES EXIT_STATUS EXAMPLES DIAGNOSTICS SEE_ALSO STANDARDS'
    local at=0 k s
    for s in $(sed -n 's/^\.Sh "\{0,1\}\([^"]*\).*/\1/p' "$1" | tr ' ' '_'); do
        k=0
        for w in $known; do
            k=$((k + 1))
            [ "$w" = "$s" ] || continue
            [ $k -gt $at ] || { echo "$s is out of order"; return 1; }
            at=$k
        done
    done
    for s in NAME DESCRIPTION 'SEE ALSO'; do grep -q "^\.Sh $s" "$1" || { echo "no $s"; return 1; }; done
}
links() { # every .Xr to a page of ours leads to one
    local bad=0 page section
    while read -r page section; do
        case $page in l*) ;; *) continue ;; esac
        [ -e "man/$page.$section" ] || [ -e "build/man/$page.$section" ] ||
            { echo "no page $page($section)"; bad=1; }
    done < <(sed -n 's/^\.Xr \([^ ]*\) \([0-9]\).*/\1 \2/p' "$1")
    return $bad
}

# What man(1) shows most readers: groff's words, all warnings on, in 80 columns; -b names the place.
groffs() { [ -z "$(groff -mandoc -Tutf8 -ww -b -rLL=80n "$1" 2>&1 > "$tmp/page" | tee /dev/stderr)" ] && [ -s "$tmp/page" ]; }

# The commands of a page, a line each: '\e' is a backslash, and at the end of a line goes on.
commands() {
    awk '/^\.Bd -literal/ { on = 1 } /^\.Ed/ { on = 0 } on && !/^\./' "$1" |
        sed 's/\\e/\\/g; s/\\(aq/'\''/g; s/\\(dq/"/g; s/\\-/-/g; s/\\&//g' |
        awk '/^\$ / { sub(/^\$ /, ""); on = 1 }
             on { if (sub(/\\$/, "")) printf "%s", $0; else { print; on = 0 } }'
}
runs() { # PAGE FOLDER
    local expect rc=0 cmd got
    [ -n "$(commands "$1")" ] || { echo "no examples in $1"; return 1; }
    while IFS= read -r cmd; do
        expect=$(sed -n 's/.*# exits \([0-9]*\)$/\1/p' <<< "$cmd")
        (cd "$2" && exec timeout 120 bash -o pipefail -c "$cmd") > "$tmp/out" 2>&1 < /dev/null
        got=$?
        [ $got -eq "${expect:-0}" ] && continue
        echo "\$ $cmd"
        echo "exit $got, expected ${expect:-0}"
        tail -n 12 "$tmp/out"
        rc=1
    done < <(commands "$1")
    return $rc
}

# What each page starts with: all of it is made here, by the tools.
stage() { # FOLDER: books, a tokenizer, a configuration
    mkdir -p "$1/books"
    cp tests/data/tiny.model "$1/tokenizer.model"
    for i in a b c d e f g h i j k l; do # other words, so that no two are the same document
        sed "s/^/Book $i. /" tests/data/tiny.txt > "$1/books/book-a$i.txt"
    done
    llama_config max_position_embeddings=64 > "$1/tiny.json"
}
pack() { (cd "$1" && set -o pipefail &&
    lprep -q books -t tokenizer.model | lpack -q -o shards --split validation=0.25); }
pretrain() { (cd "$1" && ltrain -q shards --init tiny.json --mode full --ctx 64 --steps 3 \
    -o Llama-tiny-hf && cp -n tokenizer.model Llama-tiny-hf/); }
extend() { (cd "$1" && ltrain -q shards --model Llama-tiny-hf --ctx 256 --steps 2 -o adapter); }

if ! command -v mandoc > /dev/null; then
    echo '1..0 # SKIP no mandoc'
    exit 0
fi
for page in man/*.[17] build/man/*.5; do
    ok "${page##*/} is clean for mandoc" lint "$page"
    ok "${page##*/} has its sections in order" order "$page"
    ok "${page##*/} refers to pages that are there" links "$page"
done

if command -v groff > /dev/null && groff -mandoc -Tutf8 man/lprep.1 > /dev/null 2>&1; then # Debian's groff-base is enough
    for page in man/*.[17] build/man/*.5; do ok "${page##*/} fits 80 columns for groff" groffs "$page"; done
    { head -n 20 man/lprep.1; printf '%090d\n' 0; } > "$tmp/wide.1"
    ok 'a page that does not is noticed' eval '! groffs "$tmp/wide.1"'
else skip 'man pages in 80 columns' 'no groff with mdoc'; fi

stage "$tmp/0"
cp -R "$tmp/0" "$tmp/1" && ok 'sample data is packed' pack "$tmp/1"
cp -R "$tmp/1" "$tmp/2" && ok 'a tiny model is trained' pretrain "$tmp/2"
cp -R "$tmp/2" "$tmp/3" && ok 'and extended' extend "$tmp/3"
for p in lprep.1:0 lpack.1:0 ltrain.1:2 leval.1:3 lmerge.1:3 lgen.1:3 linfo.1:3 longlora.7:0; do
    page=man/${p%:*}
    cp -R "$tmp/${p#*:}" "$tmp/run"
    ok "${p%:*}: all $(commands "$page" | wc -l) examples run" runs "$page" "$tmp/run"
    rm -rf "$tmp/run"
done

# The runner notices a command that fails, and one that fails otherwise than announced.
printf '.Bd -literal\n$ true\n$ exit 65 # exits 65\n.Ed\n' > "$tmp/good.1"
printf '.Bd -literal\n$ echo a \\e\n  | grep b\n.Ed\n' > "$tmp/bad.1"
printf '.Bd -literal\n$ exit 66 # exits 65\n.Ed\n' > "$tmp/other.1"
notices() { runs "$tmp/good.1" "$tmp" && ! runs "$tmp/bad.1" "$tmp" && ! runs "$tmp/other.1" "$tmp"; }
ok 'an example that fails is noticed' notices
echo "1..$n"
