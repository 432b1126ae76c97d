#!/bin/sh
# Asks cuDNN, without a GPU, whether it takes every shape of attention that is shipped; the
# toolkit's stub stands in for a driver, which planning hardly asks. usage: plans.sh PROGRAM
# LONGLORA_CUDNN names a libcudnn.so.9 that is not on the library path. Takes a minute or two.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
. "$here/libs.sh"
stub=${CUDA_HOME:-/usr/local/cuda}/lib64/stubs/libcuda.so
if [ -f "$stub" ] && ! ldconfig -p 2> /dev/null | grep -q libcuda.so.1; then
    tmp=$(mktemp -d) || exit 70
    trap 'rm -rf "$tmp"' EXIT
    ln -s "$stub" "$tmp/libcuda.so.1"
    LD_LIBRARY_PATH=$tmp:$LD_LIBRARY_PATH
fi
timeout 900 "$@"
