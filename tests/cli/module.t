#!/bin/bash
# A CUDA module that was built for other tools is refused before any of its functions is called.
cd "$(dirname "$0")/../.." || exit 70
. tests/cli/lib.sh
all=('a module without an interface is refused' 'a module of another interface is refused'
    'a module whose struct device has another size is refused' 'one of the same interface is called'
    'device auto says why it takes the CPU' 'what is no module is refused')
if ! command -v cc > /dev/null || [ -n "$SAN" ]; then
    for name in "${all[@]}"; do skip "$name" 'needs cc, and no sanitizers'; done
    echo "1..$n"
    exit
fi
# Its opener ends the process, so that a call of it shows.
opener='int device_open_cuda(void *d, const void *o, void *e)
{ (void)d, (void)o, (void)e; puts("called"); fflush(stdout); _exit(42); }'
module() { # module NAME ABI: a module that exports this, if anything, as its interface
    printf '#include <stdint.h>\n#include <stdio.h>\n#include <unistd.h>\n%s\n%s\n' "$2" "$opener" |
        cc -shared -fPIC -x c -o "$tmp/$1.so" -
}
# A driver is looked for first: an empty one will do.
echo | cc -shared -fPIC -Wl,-soname,libcuda.so.1 -x c -o "$tmp/libcuda.so.1" -
with() { # with NAME COMMAND...: the module is NAME
    local name=$1
    shift
    LD_LIBRARY_PATH=$tmp LONGLORA_CUDA=$tmp/$name.so "$@"
}
bench() { ltrain --bench --init tests/data/tiny-config.json --ctx 64 --steps 1 --micro 1 --device "$1"; }
refused() { ends 69 'built for another version of longlora' with "$1" bench cuda &&
    ! grep -q called "$tmp/out" "$tmp/err"; }
abi() { echo "const struct { uint64_t headers, bytes; } device_abi = { 0x$1, $2 };"; }

module none ''
ok "${all[0]}" refused none
own=$(with none bench cuda 2>&1 | sed -n 's/.*these tools have \([0-9a-f]*\).*/\1/p')
module other "$(abi 123 400)"
ok "${all[1]}" refused other
module short "$(abi "$own" 8)"
ok "${all[2]}" refused short
# The size of the tools' own struct device.
printf '#include "kernels/kernels.h"\n#include <stdio.h>\nint main(void) { printf("%%zu", sizeof(struct device)); }' |
    cc -D_GNU_SOURCE -I. -x c -o "$tmp/size" -
module same "$(abi "$own" "$("$tmp/size")")"
called() { with same bench cuda > "$tmp/out" 2>&1; [ $? -eq 42 ] && grep -q called "$tmp/out"; }
ok "${all[3]}" called
auto() {
    with other bench auto 2> "$tmp/err" > "$tmp/table" && grep -q tokens/s "$tmp/table" &&
        grep 'using the CPU: .*another version' "$tmp/err"
}
ok "${all[4]}" auto
echo 'int x;' | cc -shared -x c -o "$tmp/empty.so" -
ok "${all[5]}" ends 69 'is not a CUDA device' with empty bench cuda
echo "1..$n"
