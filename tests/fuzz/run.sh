#!/bin/sh
# usage: run.sh BUILD FUZZER...: runs each fuzzer in BUILD/bin for FUZZ_S seconds from its seeds,
# as many at once as there are processors. Called by 'make fuzz'. A finding fails, and is kept.
cd "$(dirname "$0")/../.." || exit 70
build=$1
shift
export build FUZZ_S="${FUZZ_S:-60}"
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

one() { # the corpus that grows is in the build folder; the seeds are only read
    corpus=$build/corpus/$1
    found=$build/found/$1
    mkdir -p "$corpus" "$found"
    seeds=tests/fuzz/seeds/${1#fuzz_}
    [ -d "$seeds" ] && cp -R "$seeds/." "$corpus"
    nice "$build/bin/$1" -max_total_time="$FUZZ_S" -timeout=10 -rss_limit_mb=2560 \
        -max_len=65536 -print_final_stats=1 -artifact_prefix="$found/" "$corpus" \
        > "$build/$1.log" 2>&1
    rc=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$1.log")
    if [ $rc -eq 0 ]; then
        echo "$1: ${runs:-no} inputs in $FUZZ_S s, no finding"
    else
        echo "$1: FOUND SOMETHING (exit $rc): $build/$1.log, input in $found/"
        grep -m 3 -E 'ERROR|SUMMARY|runtime error' "$build/$1.log"
    fi
    return $rc
}
if [ "${1:-}" = --one ]; then
    one "$2"
    exit
fi
[ $# -gt 0 ] || { echo 'fuzz: no targets in tests/fuzz' >&2; exit 1; }
printf '%s\n' "$@" | xargs -P "$(nproc)" -I '{}' sh tests/fuzz/run.sh "$build" --one '{}'
