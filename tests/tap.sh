#!/bin/bash
# Runs one test for prove: cmocka 1.1 says "not ok N # SKIP" of a skipped one, where TAP says ok. What
# fails goes, with what explains it, to the file WHY too, at most 60 lines: prove shows none of it.
set -o pipefail
. tests/alone.sh
tell() { # the lines after "not ok" up to the next test line, and the end of a test that stops
    awk -v name="$(basename "$1")" -v why="${WHY:-/dev/null}" '
        /^ok/ { bad = 0 }
        /^not ok/ { bad = 1 }
        bad && said++ < 60 { print name ": " $0 >> why; fflush(why) }
        { print; fflush() }'
}
case $1 in
*.t) "$@" | tell "$1" ;;
*) "$@" | sed -u 's/^not ok \([0-9]* # SKIP\)/ok \1/' | tell "$1" ;;
esac
rc=$?
[ $rc -eq 0 ] || [ -z "$WHY" ] || echo "$(basename "$1"): ended with status $rc" >> "$WHY"
exit $rc
