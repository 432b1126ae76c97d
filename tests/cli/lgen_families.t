#!/bin/bash
# lgen of every family: the text that transformers goes on with (tests/make_arch_golden.py), to the letter, however the
# prompt is read: in chunks, from a session, by several ranks, beside other texts.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
export LC_ALL=C.UTF-8
arch=tests/data/arch
g() { lgen -q -m "$arch/$family" -t $arch/letters.json --no-bos -n 16 -c 30 --ignore-eos "$@"; }
is() { cat > "$tmp/got"; [ "$(cat "$tmp/got")" = "$more" ] || { echo "$(cat "$tmp/got"), not $more"; return 1; }; }
chunks() { for c in 512 1 5; do g --chunk $c "$prompt" | is || return; done; }
ranks() { for k in 2 3; do g --chunk 4 --processes $k "$prompt" | is || return; done; }
session() { # of a file that is the whole prompt
    printf %s "$prompt" > "$tmp/book"
    g --chunk 4 --file "$tmp/book" --session "$tmp/$family.kv" | is && g --file "$tmp/book" --session "$tmp/$family.kv" | is &&
        g --processes 2 --file "$tmp/book" --session "$tmp/$family.kv" | is
}
batch() { # whole, its first letters, and whole again
    printf '{"prompt":"%s"}\n' "$prompt" "${prompt:0:9}" "$prompt" | g --batch - --parallel 3 > "$tmp/o" &&
        for i in 1 3; do sed -n ${i}p "$tmp/o" | sed 's/.*"text":"//; s/","end.*//' | is || return; done
}
families=0
while read -r family prompt more; do
    families=$((families + 1))
    ok "$family: in chunks" chunks
    ok "$family: by ranks" ranks
    ok "$family: from a session" session
    ok "$family: in a batch" batch
done < $arch/greedy.txt
# config.json alone tells these apart: the tensors are the same.
other() { # other FAMILY SED: a session of the family is none of the model that SED makes of its config.json
    family=$1
    [ -e "$tmp/$family.kv" ] || { echo "no session of $family"; return 1; }
    rm -rf "$tmp/other" && mkdir "$tmp/other" && cp "$arch/$family/"* "$tmp/other" && sed -i "$2" "$tmp/other/config.json" &&
        ! cmp -s "$arch/$family/config.json" "$tmp/other/config.json" && grep "^$family " $arch/greedy.txt | cut -d' ' -f2 | tr -d '\n' > "$tmp/book" || return 1
    ends 78 'a session of another RoPE, or other windows' lgen -q -m "$tmp/other" -t $arch/letters.json --no-bos -n 16 -c 30 --ignore-eos \
        --file "$tmp/book" --session "$tmp/$family.kv"
}
ok 'a session of another RoPE' other llama32 's/"rope_theta": 100/"rope_theta": 200/'
ok 'of another RoPE in the layers with a window' other gemma3 's/"rope_local_base_freq": 20/"rope_local_base_freq": 30/'
ok 'of another window' other mistral 's/"sliding_window": 5/"sliding_window": 6/'
ok 'of no window' other mistral 's/"sliding_window": 5/"sliding_window": null/'
ok 'of other layers with RoPE' other smollm3 '/no_rope_layers/,/]/s/0/1/'
ok 'all families' [ "$families" = "$(ls -d "$arch"/*/ | wc -l)" ]
echo "1..$n"
