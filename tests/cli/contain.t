#!/bin/bash
# Nothing outside the output folder is opened for writing, made, renamed or removed, whatever the
# names in archives, manifests and indexes say. Under strace where it works, which sees every
# system call; else by a preloaded part, which sees the C library's.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
export LC_ALL=C.UTF-8
tok=$PWD/tests/data/tiny.model peft=$PWD/tests/data/peft_tiny/plain text=$PWD/tests/data/tiny.txt
config=$PWD/tests/data/tiny-config.json
calls=open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat
calls=$calls,unlink,unlinkat,rmdir,truncate,chmod,fchmodat,chown,lchown,fchownat,mknod,mknodat,utimensat,setxattr
if [ -z "$SAN" ] && strace -f -qq -o "$tmp/probe" -e trace=$calls true 2> /dev/null; then
    traced() { strace -f -qq -y -s 4096 -o "$tmp/trace" -e trace=$calls "$@"; }
    # What was written to: opens but for those to read, and both paths of a rename. (A file
    # without a name is linked from /proc/self/fd.)
    written() {
        grep -v 'resumed>\|+++\|---' "$tmp/trace" |
            grep -vE '^[0-9]+ +open(at2?)?\(.*O_RDONLY' | grep -v 'O_TMPFILE' |
            sed -E 's#(AT_FDCWD|[0-9]+)<([^>]*)>, "([^/"][^"]*)"#"\2/\3"#g' |
            grep -oE '"([^"\\]|\\.)*"' | sed 's/^"//; s/"$//' | grep -v '^/proc/self/fd/'
    }
    sees="strace"
elif [ -z "$SAN" ] && ${CC:-cc} -shared -fPIC -O1 -D_GNU_SOURCE -o "$tmp/failat.so" tests/failat.c -ldl 2> /dev/null; then
    traced() { rm -f "$tmp/trace"; touch "$tmp/trace"; FAIL_LOG=$tmp/trace LD_PRELOAD=$tmp/failat.so "$@"; }
    written() { grep -v '^tmpfile ' "$tmp/trace" | cut -d ' ' -f 2-; }
    sees="a preloaded part"
else
    echo '1..0 # SKIP neither strace nor a compiler for the preloaded part'
    exit 0
fi

relative() { sort -u | xargs -r -d '\n' realpath -m --relative-to="$PWD" --; } # '..' and links gone
none='(nothing)'
mkdir "$tmp/w" "$tmp/outside" "$tmp/spool"
export TMPDIR=$tmp/spool
cd "$tmp/w" || exit 70
echo canary > "$tmp/outside/canary.txt"
look() { (cd "$tmp" && find outside spool -printf '%p %y %s %T@ %m\n' | sort; sha256sum outside/*); }
look > "$tmp/before"
# inside STATUS PATTERN COMMAND...: ends so, and wrote only to paths that match PATTERN
inside() {
    local want=$1 where=$2 rc
    shift 2
    traced "$@" > out.std 2> err
    rc=$?
    [ $rc -eq "$want" ] || { echo "status $rc, not $want"; cat err; return 1; }
    written | relative | grep -vxE -e "$where" | grep -v '/dev/null$' > "$tmp/stray" && { echo 'written to:'; cat "$tmp/stray"; return 1; }
    look | diff "$tmp/before" - || return 1
}

# --- hostile names in archives
mkdir src
cp "$text" src/a.txt
ln -s "$tmp/outside" src/way
tar -cf up.tar -P --transform 's,.*,../outside/evil.txt,' src/a.txt
tar -cf abs.tar -P --transform "s,.*,$tmp/outside/evil.txt," src/a.txt
tar -cf link.tar src/way
tar -rf link.tar --transform 's,.*,src/way/evil.txt,' src/a.txt
tar -cf hard.tar -P --transform "s,^src/b,$tmp/outside/canary,;s,^src/a,x," src/a.txt
(cd src && ln a.txt c.txt && tar -cf ../hard2.tar -P --transform "s,a.txt,../../outside/canary.txt," a.txt c.txt && rm c.txt)
printf 'x' > "src/$(printf 'new\nline.txt')"
tar -cf line.tar "src/$(printf 'new\nline.txt')"
tar -czf dots.tgz -P --transform 's,.*,....//....//outside/evil.txt,' src/a.txt
for f in up abs link hard hard2 line; do
    ok "lprep: $f.tar" inside 0 "$none" lprep -q $f.tar -t "$tok"
done
ok 'lprep: dots.tgz' inside 0 "$none" lprep -q --text dots.tgz
ok 'lprep: a link out of the folder' inside 0 "$none" lprep -q src -t "$tok"
ok 'lprep --stats: that file alone' inside 0 'stats(\.tmp-[0-9a-f]+)?' lprep -q src -t "$tok" --stats stats

ok 'lprep -o' inside 0 'one.stream(\.tmp-[0-9a-f]+)?' lprep -q src -t "$tok" -o one.stream
ok 'lprep -o, bad data' inside 65 'two.stream(\.tmp-[0-9a-f]+)?' lprep -q src /dev/null src/a.txt /bin/sh -t "$tok" -o two.stream

# --- the tools that write folders
lprep -q up.tar abs.tar link.tar src -t "$tok" > s.stream
ok 'lpack -o' inside 0 'd(/.*)?' lpack -q -o d --split v=0.5 --shard-tokens 200 s.stream
ok 'lpack -f' inside 0 'd(/.*)?' lpack -q -f -o d s.stream
ok 'lpack to standard output' inside 0 "$none" lpack -q s.stream
lpack -q -o m1 s.stream
ok 'lpack --export' inside 0 'x\.(bin|idx)(\.tmp-[0-9a-f]+)?' lpack -q --export megatron -o x m1
ok 'lpack --import' inside 0 'i(/.*)?' lpack -q --import megatron --vocab 400 -o i x
echo 'Another text.' | lprep -q -t "$tok" > other.stream
ok 'lpack --merge' inside 0 'd(/.*)?|m1/[^/]*\.shard' lpack -q -f --merge -o d m1
ok 'lpack --append' inside 0 'd(/.*)?' lpack -q --append -o d other.stream
ok 'lmerge -o' inside 0 'm(\.tmp-[0-9a-f]+)?(/.*)?' lmerge -q --model "$peft/base" --adapter "$peft/adapter" -o m
ok 'lmerge -f' inside 0 'm(\.tmp-[0-9a-f]+)?(/.*)?' lmerge -q -f --model "$peft/base" --adapter "$peft/adapter" -o m
ok 'linfo writes nothing' inside 0 "$none" linfo --verify d m1 s.stream "$tok" "$peft/base"
ok 'linfo --stats' inside 0 "$none" linfo --stats d m1 s.stream
ok 'linfo --sample' inside 0 "$none" linfo --sample 3 -t "$tok" d
printf '\1\0%.0s' {1..4000} > d.bin
ok 'ltrain' inside 0 't(/.*)?' ltrain -q d.bin --init "$config" --ctx 64 --batch 2 --steps 2 -o t

# --- hostile names in what the tools read
cp -R m1 evil
cp m1/*.shard "$tmp/w/x.shard"
shard=$(basename m1/*.shard)
for name in ../x.shard "$tmp/w/x.shard" ../../outside/canary.txt .. .; do
    unsealed m1/manifest.json | sed "s,$shard,$name," > evil/manifest.json
    ok "a shard named '${name#"$tmp"}': linfo" inside 65 "$none" linfo --verify evil
    ok "a shard named '${name#"$tmp"}': lpack --merge" inside 65 'n(/.*)?' lpack -q --merge -o n evil
    ok "a shard named '${name#"$tmp"}': lpack --append" inside 65 'evil(/.*)?' lpack -q --append -o evil s.stream
done
sees_it() { # the tracing itself: a write elsewhere is seen
    traced bash -c 'true > "$1"' - "$tmp/w/../w/stray" && written | relative | grep -qx stray
}
ok "a write elsewhere is seen ($sees)" sees_it
echo "1..$n"
