#!/bin/bash
# Each fuzz target eats its seeds, each seed cut short and each with a bit turned, and survives.
cd "$(dirname "$0")/../.." || exit 70
set -- "${FUZZBIN:-$TESTBIN/../fuzz}"/replay_fuzz_*
[ -x "$1" ] || { echo '1..0 # SKIP no fuzz targets are built'; exit 0; }
why=$(mktemp) || exit 70
trap 'rm -f "$why"' EXIT
n=0
for replay; do
    n=$((n + 1))
    name=${replay##*/replay_fuzz_}
    seeds=(tests/fuzz/seeds/"$name"/*)
    if [ ! -e "${seeds[0]}" ]; then
        echo "not ok $n - $name: no seeds in tests/fuzz/seeds/$name"
    elif timeout 120 "$replay" "${seeds[@]}" > "$why" 2>&1; then
        echo "ok $n - $name: ${#seeds[@]} seeds"
    else
        echo "not ok $n - $name: exit $?"
        tail -n 40 "$why" | sed 's/^/# /'
    fi
done
echo "1..$n"
