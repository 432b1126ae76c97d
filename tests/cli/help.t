#!/bin/bash
# Every tool alike: --help, --version, completion and the man page, held against each other.
cd "$(dirname "$0")/../.." || exit 70
export LC_ALL=C
. tests/cli/lib.sh

# Options as sorted lines, one form a line ("-o", "--output"), from help, man page, completion.
help_options() {
    sed -nE 's/^  (-[A-Za-z0-9]|  )(,|  ?) ?(--[a-z0-9-]+).*/\1\n\3/p' "$1" | grep -e - | sort
}
man_options() { sed -n '/^\.It Fl/p' "$1" | grep -oE 'Fl -?[A-Za-z0-9][a-z0-9-]*' |
    sed -E 's/^Fl /-/' | sort; }
completion_options() { grep -oE -- '--[a-z0-9-]+' "$1" | sort; }
long() { grep -e '^--'; }

# Defaults: what --help puts in brackets, up to ';' or ':', stands in the man page's item.
help_defaults() { # lines "name default"; a long option has its text on the next line
    awk '/^  (  |-.,) --/ || /^      --/ { print ""; printf "%s", $0; next }
         /^                    / { printf " %s", $0; next }
         { print "" }' "$1" |
        sed -nE 's/^ *(-., )?--([a-z0-9-]+).*\[([^][;:]*)[^][]*\]$/\2 \3/p'
}
defaults_agree() { # HELP MAN
    local name value item
    help_defaults "$1" | while read -r name value; do
        item=$(awk -v want="Fl -$name" '/^\.(It|El)/ { on = index($0 " ", want " ") > 0 }
                                        on { print }' "$2" |
            sed -E 's/Fl -/--/g; s/^\.([A-Z][a-z] )?//; s/\\//g' | tr '\n' ' ')
        case $item in *"$value"*) ;; *) echo "--$name: help says [$value], $2: $item" ;; esac
    done
}

fast_help() { # TOOL
    local t0 t1
    t0=$(date +%s%N)
    "$1" --help > "$tmp/help" 2> "$tmp/err" || return 1
    t1=$(date +%s%N)
    [ ! -s "$tmp/err" ] && [ -s "$tmp/help" ] && [ $((t1 - t0)) -lt 1000000000 ] &&
        cmp -s <("$1" -h) "$tmp/help" && cmp -s <("$1" some operands --help) "$tmp/help"
}
version() { [[ $("$1" --version) =~ ^$1\ [0-9]+\.[0-9]+\.[0-9]+$ ]]; }
unknown_option() { # exit 64, names it, suggests the nearest
    "$1" --verison > "$tmp/out" 2> "$tmp/err"
    [ $? -eq 64 ] && [ ! -s "$tmp/out" ] && grep -q "'--verison'" "$tmp/err" &&
        grep -q "did you mean '--version'" "$tmp/err" && [ "$(wc -l < "$tmp/err")" -le 3 ]
}
same_as_man() { [ -s "$tmp/help" ] && diff <(help_options "$tmp/help") <(man_options "man/$1.1"); }
same_as_completion() {
    "$1" --completion > "$tmp/comp" || return 1
    bash -c 'source "$1" && complete -p "$2"' - "$tmp/comp" "$1" > /dev/null || return 1
    diff <(help_options "$tmp/help" | long) <(completion_options "$tmp/comp")
}
no_drift() { local d; [ -s "$tmp/help" ] || return 1; d=$(defaults_agree "$tmp/help" "man/$1.1"); echo "$d"; [ -z "$d" ]; }
width() { [ -z "$(awk 'length > 100' "$tmp/help" | tee /dev/stderr)" ]; }
full_disk() { "$1" --help > /dev/full 2> "$tmp/err"; [ $? -eq 74 ]; }

for t in lprep lpack ltrain leval lgen lmerge linfo; do
    ok "$t --help: to stdout, exit 0, under a second" fast_help $t
    ok "$t --help: no line over 100 columns" width $t
    ok "$t --help on a full disk: 74" full_disk $t
    ok "$t --version" version $t
    ok "$t: an unknown option is 64 with a suggestion" unknown_option $t
    ok "$t: the man page has the same options" same_as_man $t
    ok "$t: the man page names the same defaults" no_drift $t
    ok "$t: the completion has the same options" same_as_completion $t
done

# The comparison itself notices a difference on either side.
printf '  -a, --aa N                  one [3]\n      --bb                    two\n' > "$tmp/help"
printf '.It Fl a , Fl -aa Ar N\nOne.\nDefault 4.\n.It Fl -cc\n' > "$tmp/x.1"
differs() { [ "$(diff <(help_options "$tmp/help") <(man_options "$tmp/x.1"))" = '2c2
< --bb
---
> --cc' ] && [ -n "$(defaults_agree "$tmp/help" "$tmp/x.1")" ]; }
ok 'an option or default that only one has is found' differs
echo "1..$n"
