#!/bin/bash
# What is not there, a file where a folder is meant, a folder where a file is: for each path that a tool
# reads it is said which it is, 66, before anything is computed or written.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
d=$PWD/tests/data t=$PWD/tests/data/tiny.model
ids 2000 1 > "$tmp/ids.bin"
ltrain -q "$tmp/ids.bin" --init $d/tiny-config.json --batch 1 --steps 1 -o "$tmp/m" || exit 70
cp $d/tiny.model "$tmp/m/tokenizer.model"
cd "$tmp" || exit 70
{ ltrain -q ids.bin -m m --mode lora --attention dense --ctx 16 --batch 1 --steps 1 --warmup 0 -o a && lpack -q --import u16 --vocab 503 ids.bin > a.shard; } || exit 70
rm a/config.json
mkdir folder && echo text > file
train='ltrain -q --batch 1 --steps 1 -o no'
# A: tried as absent; F: a file for a folder; D: a folder for a file.
cat > list << 'END'
A|lprep -t $t "$at"
A|lprep -t "$at" $d/tiny.txt
A|lprep -t $t --decontaminate "$at" $d/tiny.txt
A|lpack "$at"
A|lpack --export u16 -o no "$at"
A|lpack --import u16 --vocab 503 "$at"
AF|lpack --append -o "$at" ids.bin
A|lpack --import u16 -t "$at" ids.bin
A|$train "$at" --init $d/tiny-config.json
A|$train ids.bin --init "$at"
A|$train ids.bin --init $d/tiny-config.json --val "$at"
A|$train ids.bin --init $d/tiny-config.json --tokenizer "$at"
AF|$train ids.bin -m "$at"
AD|$train ids.bin -m m --rope longrope --rope-lists "$at" --ctx 256
A|leval --ppl "$at" -m m
AF|leval --ppl $d/tiny.txt -m "$at"
AF|leval --ppl $d/tiny.txt -m m -a "$at"
A|leval --ppl $d/tiny.txt -m m -t "$at"
AF|leval --tasks passkey -m "$at" --lengths 1k
A|leval --tasks niah_single_2 -t $t --lengths 2k --prompts - --haystack "$at"
AF|leval --tasks vt -t $t --lengths 2k --prompts - --words "$at"
AD|leval --table "$at"
AF|lgen -m "$at" x
AF|lgen -m m -a "$at" x
A|lgen -m m -t "$at" x
AD|lgen -m m --file "$at" x
AD|lgen -m m --batch "$at"
AF|lmerge -m "$at" -a m -o no
AF|lmerge -m m -a "$at" -o no
AD|lmerge -m m -a a --rope longrope --rope-factor 2 --rope-lists "$at" -o no
A|linfo "$at"
A|linfo --ids "$at"
A|linfo --doc 0 -t "$at" a.shard
A|linfo --sample 1 -t "$at" a.shard
END
each() { # each LETTER PATH WORDS: every line with the letter ends so
    local kinds command at=$2 bad=0 k=0
    while IFS='|' read -r kinds command; do
        [[ $kinds == *$1* ]] || continue
        k=$((k + 1))
        ends 66 "'$at[^']*'.*$3\|'$at[^']*' is $3" eval "$command" > ended < /dev/null && [ ! -e no ] || { echo "$command:"; cat ended; bad=1; }
        rm -rf no
    done < list
    [ $k -ge 5 ] && return $bad
}
ok 'what is not there' each A absent 'No such file or directory'
ok 'nor the folder that it would be in' each A absent/x 'No such file or directory'
ok 'a name that is empty' each A '' 'No such file or directory'
ok 'a file for a folder' each F file 'not a folder\|Not a directory'
ok 'a folder for a file' each D folder 'a directory'
ln -s loop loop
ok 'a link to itself' each A loop 'Too many levels of symbolic links'
ok 'a model for an adapter' ends 66 'this is a model, not an adapter' lgen -m m -a m x
if [ "$(id -u)" -ne 0 ]; then
    mkdir shut && chmod 0 shut
    ok 'what may not be looked at' each A shut/x 'Permission denied'
    chmod 700 shut
else skip 'what may not be looked at' 'root may look at all'; fi
echo "1..$n"
