#!/bin/sh
# messages.sh [FOLDER ...]: every message that a user can meet, "file:line: text" each, so that a
# maintainer can read them in one go. Takes the words of err_*, log_* and the option rows from
# the sources of the product; '|' stands where a call chooses between words.
cd "$(dirname "$0")/.." || exit 70
[ $# -gt 0 ] || set -- base formats kernels model prep train eval tools
find "$@" -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) | sort |
while read -r file; do
    awk -v calls='(err_set|err_sys|err_hint|err_within|log_warn|log_info|log_debug|log_progress)\\(|\\{ *(0|'"'.'"'), "|(OPT_HEADING|ROWS?_[A-Z]+)\\(' '
    # One call or row at a time, over as many lines as it has: its string literals, joined where
    # they stand side by side.
    function literal() { # the string that rest begins with
        match(rest, /^"([^"\\]|\\.)*"/)
        text = text (text == "" || joined ? "" : " | ") substr(rest, 2, RLENGTH - 2)
        rest = substr(rest, RLENGTH + 1)
        joined = 1
    }
    {
        rest = $0
        while (rest != "") {
            if (!depth) {
                if (rest ~ /^[ \t]*(\*|\/\*|#)/ || !match(rest, calls)) break
                rest = substr(rest, RSTART)
                match(rest, /^[A-Za-z_]*[({]/)
                rest = substr(rest, RLENGTH + 1)
                depth = 1; text = ""; start = FNR; joined = 0
            } else if (rest ~ /^"/) {
                literal()
            } else {
                c = substr(rest, 1, 1)
                rest = substr(rest, 2)
                if (c == "(" || c == "{") depth++
                if (c !~ /[ \t]/ && rest !~ /^PRI/) joined = c ~ /[A-Z0-9a-z]/ ? joined : 0
                if ((c == ")" || c == "}") && --depth == 0 && text != "")
                    print FILENAME ":" start ": " text
            }
        }
    }' "$file"
done
