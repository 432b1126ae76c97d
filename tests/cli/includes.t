#!/bin/bash
# Rules of the house about the sources: which room includes which, no circles, no room, file or
# function too big, one base name one file.
# Each rule is also shown a small tree that breaks it: a check that cannot fail is none.
cd "$(dirname "$0")/../.." || exit 70
tmp=$(mktemp -d) || exit 70
trap 'rm -rf "$tmp"' EXIT

sources() { # all C, C++ and CUDA files below folder $1, without the build folder
    find "$1" \( -name build -o -name .git \) -prune -o -type f \
        \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print
}

# ARCHITECTURE.md's table. A room that is not named here may include nothing: name it.
may_include() {
    case $1 in
    base) echo base ;;
    formats/*) echo base "$1" ;;
    kernels) echo base kernels ;;
    ranks) echo base kernels ranks ;;
    model) echo base formats kernels model ;;
    prep) echo base formats prep ;;
    probes) echo base formats probes ;;
    train) echo base formats kernels ranks model train ;;
    eval) echo base formats probes kernels ranks model eval ;;
    gen) echo base formats kernels ranks model gen ;;
    tools) echo base formats kernels model tools ;;
    tests) echo base formats kernels ranks model prep probes train eval gen tools tests ;;
    esac
}

# Of a path, the room it stands in: a folder, or a subject of formats/. A name alone is in none.
room() {
    case $1 in
    formats/*/*) echo "$1" | cut -d/ -f1,2 ;;
    */*) echo "${1%%/*}" ;;
    esac
}
forbidden_includes() { # prints "file: includes x" for each arrow that runs the wrong way
    sources "$1" | while read -r file; do
        inside=${file#"$1"/}
        allowed=" $(may_include "$(room "$inside")") "
        sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$file" |
            while read -r header; do
                case $allowed in
                *" $(room "$header") "*) continue ;;
                *" formats "*) case $header in formats/*/*) continue ;; esac ;;
                esac
                echo "$inside: includes \"$header\""
            done
    done
}
# A module is x.h with x.c (or .cc, .cu). tsort names the modules of each circle.
modules() { sources "$1" | sed "s|^$1/||" | grep -v ^tests/; }
circles() {
    modules "$1" | while read -r file; do
        echo "${file%.*} ${file%.*}"
        sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)\.[a-z]*".*/\1/p' "$1/$file" |
            sed "s|^|${file%.*} |"
    done | tsort 2>&1 >/dev/null | sed -n 's/^tsort: \(.*\/.*\)/\1/p'
}
# Of all lines of the product, no room has more than a fifth.
big_rooms() {
    modules "$1" | while read -r file; do echo "$(wc -l < "$1/$file") $(room "$file")"; done |
        awk '{ n[$2] += $1; all += $1 }
             END { for (r in n) if (n[r] * 5 > all) print r ": " n[r] " of " all " lines" }'
}
# A function runs from the line that names it, in column 0, to its } in column 0: at most 60 lines.
long_functions() {
    sources "$1" | while read -r file; do
        awk -v name="${file#"$1"/}" '
            !inside && /^[A-Za-z_].*\(/ && !start { start = FNR }
            !inside && (/;$/ || /^$/ || /^#/) { start = 0 }
            !inside && /^\{/ && start { inside = 1 }
            inside && /^\}/ {
                if (FNR - start >= 60) print name ":" start ": " FNR - start + 1 " lines"
                inside = start = 0
            }' "$file"
    done
}
# A file of the product has at most 600 lines.
long_files() {
    modules "$1" | while read -r file; do
        lines=$(wc -l < "$1/$file")
        [ "$lines" -le 600 ] || echo "$file: $lines lines"
    done
}
repeated_names() { sources "$1" | sed 's|.*/||' | sort | uniq -d; }
# A file opens with one line: its path and what it is.
unnamed_files() {
    sources "$1" | while read -r file; do
        inside=${file#"$1"/}
        head -n 1 "$file" | grep -q "^/\* $inside - .*" || echo "$inside: line 1"
    done
}

n=0
check() { # check NAME OUTPUT: fine when there is none
    n=$((n + 1))
    if [ -z "$2" ]; then echo "ok $n - $1"; else
        echo "not ok $n - $1"
        printf '%s\n' "$2" | sed 's/^/# /'
    fi
}
finds() { # finds NAME OUTPUT EXPECTED: the rule notices what was planted
    n=$((n + 1))
    if [ "$2" = "$3" ]; then echo "ok $n - $1"; else
        echo "not ok $n - $1"
        printf 'found:\n%s\nexpected:\n%s\n' "$2" "$3" | sed 's/^/# /'
    fi
}

check 'no room includes what it may not' "$(forbidden_includes .)"
check 'no circle of includes, inside rooms neither' "$(circles .)"
check 'no room holds over a fifth of the lines' "$(big_rooms .)"
check 'no function of more than 60 lines' "$(long_functions .)"
check 'no file of more than 600 lines' "$(long_files .)"
check 'no two sources share a base name' "$(repeated_names .)"
check 'every source opens with its path' "$(unnamed_files .)"

mkdir -p "$tmp"/base "$tmp"/prep "$tmp"/new
printf '/* base/a.h - fine. */\n#include <stdio.h>\n#include "base/b.h"\n' > "$tmp"/base/a.h
printf '  #  include "formats/x/x.h"\n#include "base/a.h"\n' > "$tmp"/base/b.h
printf '#include "model/m.h"\n#include "formats/x/x.h"\n#include "a.h"\n' > "$tmp"/prep/a.h
printf '#include "base/a.h"\n' > "$tmp"/new/c.cu
finds 'a planted include is found' "$(forbidden_includes "$tmp" | sort)" \
    'base/b.h: includes "formats/x/x.h"
new/c.cu: includes "base/a.h"
prep/a.h: includes "a.h"
prep/a.h: includes "model/m.h"'
finds 'a planted circle is found' "$(circles "$tmp")" 'base/a
base/b'
finds 'a room of more than a fifth is found' "$(big_rooms "$tmp" | sort)" \
    'base: 5 of 9 lines
prep: 3 of 9 lines'
mkdir -p "$tmp"/long/base
awk 'BEGIN {
    print "static int fits(int a,\n               int b)\n{"
    for (i = 0; i < 56; i++) print "    a++;"
    print "}\n\nstatic int table[] = {"
    for (i = 0; i < 70; i++) print "    1,"
    print "};\n\nint declared(int a);\n\nstatic int too_long(int a,\n                    int b)\n{"
    for (i = 0; i < 57; i++) print "    a++;"
    print "}"
}' > "$tmp"/long/base/f.c
awk 'BEGIN { for (i = 0; i < 600; i++) print "//" }' > "$tmp"/long/base/fits.c
awk 'BEGIN { for (i = 0; i < 601; i++) print "//" }' > "$tmp"/long/base/long.h
finds 'a planted function of 61 lines is found' "$(long_functions "$tmp"/long)" \
    'base/f.c:137: 61 lines'
finds 'a planted file of 601 lines is found' "$(long_files "$tmp"/long)" 'base/long.h: 601 lines'
rm -r "$tmp"/long
finds 'a planted second a.h is found' "$(repeated_names "$tmp")" a.h
finds 'a file without its first line is found' "$(unnamed_files "$tmp" | sort)" \
    'base/b.h: line 1
new/c.cu: line 1
prep/a.h: line 1'
echo "1..$n"
