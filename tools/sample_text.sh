#!/bin/sh
# Plain text for training a tokenizer, on standard output: about BYTES bytes, the same share from
# the start of every document, one line of the document a line. (lprep --text writes JSON lines:
# trained on those, a tokenizer learns "\n" as two letters, and drops whole books as one long line.)
# usage: tools/sample_text.sh BYTES FILE|FOLDER|ARCHIVE ... [lprep's options]
set -eu
[ $# -ge 2 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 64; }
bytes=$1
shift
docs=$(${LPREP:-lprep} -q --text "$@" | wc -l)
[ "$docs" -gt 0 ] || { echo "sample_text: no documents in $*" >&2; exit 65; }
${LPREP:-lprep} -q --text "$@" | LC_ALL=C awk -v share=$((bytes / docs + 1)) '
    # The string behind "text": its escapes are undone a character at a time, as far as the share.
    {
        at = index($0, "\"text\":")
        rest = substr($0, at + 7, 2 * share + 64) # an escape takes two bytes or more
        sub(/^ *"/, "", rest)
        n = split(rest, part, "\\") # part[i > 1] begins with the escaped letter
        line = ""
        for (i = 1; i <= n && length(line) < share; i++) {
            s = part[i]
            if (i > 1) {
                c = substr(s, 1, 1)
                if (c == "" && i < n) { # an escaped backslash: what follows is plain
                    line = line "\\" part[++i]
                    continue
                }
                s = (c == "n" ? "\n" : c == "\"" ? "\001" : c == "/" ? "/" : c == "u" ? substr(" ", 1, 1) : " ") \
                    substr(s, c == "u" ? 6 : 2)
            }
            line = line s
        }
        end = index(line, "\"") # the first quote that was not escaped ends the text
        line = substr(line, 1, end ? end - 1 : share)
        gsub(/\001/, "\"", line)
        if (!end && index(line, "\n")) # the share ends inside a line: that is left out
            sub(/\n[^\n]*$/, "", line)
        print line
    }'
