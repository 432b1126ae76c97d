#!/bin/bash
# Runs one test for prove: cmocka 1.1 says "not ok N # SKIP" of a skipped one, where TAP says ok.
set -o pipefail
case $1 in
*.t) exec "$@" ;;
*) "$@" | sed 's/^not ok \([0-9]* # SKIP\)/ok \1/' ;;
esac
