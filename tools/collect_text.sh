#!/bin/sh
# Collects real text that is on every machine into a folder: manual pages (rendered by mandoc),
# package documentation and licences, or the files and folders given. Paragraphs that were seen
# before are left out, so that a licence met a hundred times counts once; what then remains of
# a file is a document if it has at least MIN bytes.
# usage: collect_text.sh OUT MAX_BYTES [FILE|FOLDER ...]
set -eu
out=$1 max=$2
shift 2
min=${MIN:-6000}
mkdir -p "$out"
list=$(mktemp) && trap 'rm -f "$list" "$list.order"' EXIT

if [ $# -gt 0 ]; then
    find "$@" -type f -size +1k | sort > "$list"
else
    {
        find /usr/share/common-licenses -type f 2>/dev/null || true
        find /usr/share/man/man[1-8] -type f -name '*.[1-8]*.gz' -size +2k 2>/dev/null || true
        find /usr/share/doc -type f \( -name 'README*' -o -name 'NEWS*' -o -name 'FAQ*' \
            -o -name '*.txt' -o -name '*.txt.gz' -o -name copyright \) -size +2k 2>/dev/null || true
    } | sort > "$list"
fi
# An order that does not follow the alphabet, and is the same each time for the same files.
sort -R --random-source="$list" "$list" > "$list.order" && mv "$list.order" "$list"

render() {
    case $1 in
    */man/man?/*.gz) gzip -dc "$1" | mandoc -T utf8 -O width=78 2>/dev/null | sed 's/.\x08//g' ;;
    *.gz) gzip -dc "$1" ;;
    *) cat "$1" ;;
    esac
}

# One pass of awk over everything: files are told apart by a line with a control character.
while IFS= read -r file; do
    printf '\001%s\n\n' "$file"
    render "$file" 2>/dev/null || true
    printf '\n\n'
done < "$list" | LC_ALL=C awk -v out="$out" -v max="$max" -v min="$min" '
    function flush_document() {
        if (length(text) >= min && total + length(text) <= max) {
            name = sprintf("%s/%05d.txt", out, ++n)
            printf "%s", text > name
            close(name)
            total += length(text)
        }
        text = ""
    }
    BEGIN { RS = ""; FS = "\n" }
    /^\001/ { flush_document(); if (total > max - min) exit; next }
    { key = $0; gsub(/[ \t\n]+/, " ", key); if (length(key) > 40 && seen[key]++) next
      text = text $0 "\n\n" }
    END { flush_document(); printf "%d documents, %.1f MB\n", n, total / 1e6 }'
