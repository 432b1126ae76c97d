#!/bin/bash
# make install puts everything in its place, and make uninstall leaves no file.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
into() { make -s "$1" SAN="$SAN" DESTDIR="$tmp/to" PREFIX=/opt/long; }
all_there() {
    local f missing=0
    for t in lprep lpack ltrain leval lgen lmerge linfo; do
        set -- "$@" "bin/$t" "share/man/man1/$t.1" "share/bash-completion/completions/$t"
    done
    set -- "$@" share/man/man7/longlora.7 share/man/man5/longlora-shard.5 \
        share/doc/longlora/README.md share/doc/longlora/LICENSE
    for f; do [ -s "$tmp/to/opt/long/$f" ] || { echo "missing: $f"; missing=1; }; done
    return $missing
}
runs_from_there() { [[ $("$tmp/to/opt/long/bin/linfo" --version) == linfo\ * ]]; }
nothing_else() { [ -z "$(find "$tmp/to" -type f ! -path "$tmp/to/opt/long/*")" ]; }
no_file_left() { [ -z "$(find "$tmp/to" ! -type d | tee /dev/stderr)" ]; }
own_folder_gone() { [ ! -e "$tmp/to/opt/long/share/doc/longlora" ]; }

ok 'make install' into install
ok 'tools, pages, completions and documents are there' all_there
ok 'an installed tool runs' runs_from_there
ok 'nothing is outside DESTDIR PREFIX' nothing_else
ok 'make install again' into install
ok 'make uninstall' into uninstall
ok 'no file is left' no_file_left
ok 'nor the folder of our own' own_folder_gone
echo "1..$n"
