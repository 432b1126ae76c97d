#!/bin/sh
# Runs every test under prove, whose last lines say how it went. Called by 'make check'.
# BIN: folder of the tools; TESTBIN: of the compiled TESTS; SAN: set under sanitizers; CUDA: 1 with the CUDA device.
unset CDPATH # else cd may go elsewhere, and says where
cd "$(dirname "$0")/.." || exit 70
export PATH="$BIN:$PATH" CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C.UTF-8
# Crashes are the sanitizer's to tell of, not cmocka's (2: nobody may take the signal); but SIGBUS is the tools' own.
export ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1:handle_segv=2:handle_sigbus=1:handle_sigfpe=2" UBSAN_OPTIONS=print_stacktrace=1
# Real data that is not part of the project: tests that use it skip where it is absent.
[ -n "$LONGLORA_DATA" ] || { [ -d ../shared/data ] && LONGLORA_DATA=$(cd ../shared/data && pwd); }
export LONGLORA_DATA
for t in $TESTS; do
    set -- "$@" "$TESTBIN/$t"
done
WHY=$(mktemp) || exit 70
export WHY
prove --timer -j 2 -e 'bash tests/tap.sh' "$@" tests/cli/*.t
rc=$?
# Again at the end, as a log is read from there: what failed and why, and the verdict after it.
if [ $rc -ne 0 ]; then
    head -n 150 "$WHY"
    echo "Result: FAIL"
fi
rm -f "$WHY"
exit $rc
