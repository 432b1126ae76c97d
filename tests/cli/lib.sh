# tests/cli/lib.sh - what the .t scripts share: a scratch folder that goes, and TAP lines.
# Sourced from the project's root; a script that mounts something redefines 'clean'.
unset CDPATH # else cd may go elsewhere, and says where
[ ! -f tests/alone.sh ] || . tests/alone.sh # a bundle for a GPU has none
{ : <&0; } 2> /dev/null || exec < /dev/null # compilers take a closed one for a file of theirs
tmp=$(mktemp -d) || exit 70
clean() { :; }
trap 'clean; rm -rf "$tmp"' EXIT
n=0
ok() { # ok NAME COMMAND...: one test line; what the command printed explains a failure
    n=$((n + 1))
    local name=$1
    shift
    if "$@" > "$tmp/why" 2>&1; then echo "ok $n - $name"; else
        echo "not ok $n - $name"
        tail -n 25 "$tmp/why" | sed 's/^/# /'
    fi
}
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; } # skip NAME REASON
ends() { # ends STATUS WORDS COMMAND...: it ends so, and says so on standard error, in 3 lines
    local want=$1 words=$2 rc
    shift 2
    "$@" > "$tmp/out" 2> "$tmp/err"
    rc=$?
    cat "$tmp/err"
    [ $rc -eq "$want" ] || { echo "status $rc, not $want"; return 1; }
    grep -q -- "$words" "$tmp/err" || { echo "standard error lacks: $words"; return 1; }
    [ "$(wc -l < "$tmp/err")" -le 3 ]
}
ids() { # ids N SEED: so many raw u16 ids below 503 on stdout, in which each tells of the next
    awk -v n="$1" -v seed="$2" 'BEGIN { srand(seed); x = 5
        for (i = 0; i < n; i++) { x = (x * 7 + int(rand() * 3)) % 500
            printf "\\x%02x\\x%02x%s", (x + 3) % 256, int((x + 3) / 256),
                i % 500 == 499 ? "\n" : "" } }' | while read -r line; do printf '%b' "$line"; done
}
unsealed() { sed '/^  "sealed"/d; /^  "xxh3_128"/d' "$@"; } # of JSON: the same without the hash of itself
num() { sed -nE "s/.*\"$2\": ?([-0-9.e+]+).*/\1/p" "$1" | tail -n 1; } # num FILE KEY: of JSON, its last
llama_config() { # llama_config KEY=VALUE...: config.json of a small Llama; what is not given fits tests/data/tiny.model
    local kv keys='"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5'
    local -A of=([vocab_size]=400 [hidden_size]=32 [intermediate_size]=64 [num_hidden_layers]=2 [num_attention_heads]=4
        [num_key_value_heads]=2 [max_position_embeddings]=256 [rope_theta]=10000.0 [initializer_range]=0.02
        [tie_word_embeddings]=false [bos_token_id]=1 [eos_token_id]=2)
    for kv; do of[${kv%%=*}]=${kv#*=}; done
    for kv in "${!of[@]}"; do keys="$keys, \"$kv\": ${of[$kv]}"; done
    echo "{ $keys }"
}
tiny_model() { # tiny_model CONTEXT RANGE OPTION...: $tmp/m, of the configuration $tmp/c.json and the data $tmp/s
    llama_config max_position_embeddings="$1" initializer_range="$2" > "$tmp/c.json" && lprep -q tests/data/tiny.txt -t tests/data/tiny.model | lpack -q -o "$tmp/s" &&
        ltrain -q "$tmp/s" --init "$tmp/c.json" --mode full --ctx 64 --batch 4 --steps 3 --lr 1e-3 --warmup 1 "${@:3}" \
            -o "$tmp/m" && cp tests/data/tiny.model "$tmp/m/tokenizer.model"
}
