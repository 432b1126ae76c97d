# tests/gpu/libs.sh - finds NVIDIA's libraries for the scripts beside it: those of the system, of
# /usr/local/cuda, and what Python packages carry. Sets LD_LIBRARY_PATH and, unless it is set,
# LONGLORA_CUDNN.
site=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null)
[ -z "$LONGLORA_CUDNN" ] && [ -f "$site/cudnn/lib/libcudnn.so.9" ] &&
    export LONGLORA_CUDNN="$site/cudnn/lib/libcudnn.so.9"
case $LONGLORA_CUDNN in */nvidia/cudnn/lib/*) site=${LONGLORA_CUDNN%/cudnn/lib/*} ;; esac
for d in "$site/cudnn/lib" "$site/cu13/lib" "$site/cublas/lib" "$site/cuda_nvrtc/lib" "$site/nccl/lib" \
    "${CUDA_HOME:-/usr/local/cuda}/lib64"; do
    [ -d "$d" ] && LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$d"
done
export LD_LIBRARY_PATH
