# kernels/cuda/cuda.mk - the CUDA device, a module that the tools load at run time.
# make CUDA=0|1        without it, or an error where there is no nvcc; default: where nvcc is found
# make CUDA_ARCHS="80 89 90a"   machine code for these; CUDA_PTX=80 for what comes later
NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA ?= $(if $(NVCC),1,0)
# Without a GPU here one target is enough: others' machines compile its PTX when they load it.
CUDA_ARCHS ?= $(if $(wildcard /dev/nvidiactl),80 90a,80)
CUDA_PTX   ?= 80
CUDA_HOME  ?= $(patsubst %/bin/nvcc,%,$(shell readlink -f $(NVCC)))

CUDA_SO   := build/lib/longlora/liblonglora_cuda.so
CUDA_B    := build/cuda-$(subst $() $(),-,$(CUDA_ARCHS)$(CUDA_PTX:%=-ptx%))
CUDA_SRCS := $(wildcard kernels/cuda/*.c kernels/cuda/*.cu) kernels/attention.c kernels/cards.c \
  kernels/mat.c kernels/product.c base/tensor_type.c base/err.c base/utf8.c
CUDA_OBJS := $(CUDA_SRCS:%=$(CUDA_B)/%.o)
CUDA_GEN  := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
  $(foreach a,$(CUDA_PTX),-gencode arch=compute_$(a),code=compute_$(a))
# Whose headers' own warnings are theirs; errors are ours to see.
CUDA_CFLAGS  = -std=c11 $(WARN) $(CWARN) -Werror -O2 -g -fPIC -fvisibility=hidden -D_GNU_SOURCE -I. \
  -isystem $(CUDA_HOME)/include
CUDA_NVFLAGS = -O3 -std=c++17 -lineinfo -I. -Werror all-warnings $(CUDA_GEN) \
  -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror
CUDA_LIBDIRS = $(foreach d,$(wildcard $(CUDA_HOME)/lib64 $(CUDA_HOME)/lib),-L$(d))

$(CUDA_B)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(CUDA_NVFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(CUDA_B)/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CUDA_CFLAGS) -MMD -MP -c -o $@ $<
$(CUDA_B)/kernels/cuda/cuda_device.c.o: CUDA_CFLAGS += $(DEVICE_ABI)
$(CUDA_B)/liblonglora_cuda.so: $(CUDA_OBJS)
	$(NVCC) -shared -cudart static -o $@ $^ $(CUDA_LIBDIRS) -lcublasLt -ldl -lm \
	  -Xlinker --no-undefined
# Another set of targets may have been put there last.
$(CUDA_SO): $(CUDA_B)/liblonglora_cuda.so always
	@mkdir -p $(@D)
	@cmp -s $< $@ || { echo cp $< $@; cp $< $@; }
always:
cuda: $(CUDA_SO)
ifeq ($(CUDA),1)
FILES += lib/longlora/liblonglora_cuda.so
ifeq ($(NVCC),)
$(error CUDA=1, but nvcc is not found: put it on PATH, name it with NVCC=, or use CUDA=0)
endif
all: $(CUDA_SO)
install: install-cuda
install-cuda: $(CUDA_SO)
	install -D -m 755 $(CUDA_SO) "$(DEST)/lib/longlora/liblonglora_cuda.so"
endif

# Tests and benchmark on a GPU. The plans of attention are checked without one too.
GPU_TESTS := test_cuda_plans test_cuda_ops test_cuda_attention test_cuda_model test_cuda_families \
  test_cuda_extend test_cuda_ranks
GPU_BINS  := $(GPU_TESTS) bench_attention bench_windows bench_extend bench_few make_model
$(B)/gpu/test_cuda_plans: $(B)/tests/gpu/test_cuda_plans.c.o \
  $(patsubst %,$(CUDA_B)/kernels/cuda/%.c.o,sdpa_plans sdpa_graph runs) $(B)/liblonglora.a
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -Wl,--as-needed $(LDFLAGS) -o $@ $^ -ldl -lm -lcmocka
$(B)/gpu/%: $(B)/tests/gpu/%.c.o $(B)/liblonglora.a
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -Wl,--as-needed $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
GPU_ENV = BIN=$(CURDIR)/$(B)/gpu SO=$(CURDIR)/$(CUDA_SO) TOOLS=$(CURDIR)/$(BIN)
check-gpu bench-gpu startup-gpu: all $(CUDA_SO) $(GPU_BINS:%=$(B)/gpu/%)
check-gpu:
	@$(GPU_ENV) sh tests/gpu/run.sh $(GPU_RUN)
# Ours beside PyTorch, a table: GPU_RUN="train:8192 eval" chooses rows. GPUS=2, 4, 8: so many GPUs beside
# one and the plan (many.sh), over as many calls as it takes. Then from command to step.
bench-gpu:
	@$(GPU_ENV) $(if $(filter-out 1,$(GPUS)),GPUS=$(GPUS) RESULTS=$(CURDIR)/build/many-$(GPUS).rows bash tests/gpu/many.sh,sh tests/gpu/bench_gpu.sh) $(GPU_RUN)
startup-gpu:
	@$(GPU_ENV) sh tests/gpu/startup.sh

# Without a GPU.
check-plans: $(B)/gpu/test_cuda_plans
	@CUDA_HOME=$(CUDA_HOME) sh tests/gpu/plans.sh $<
ifeq ($(CUDA),1)
check: $(GPU_BINS:%=$(B)/gpu/%)
endif

# Everything that tests/gpu/run.sh needs, in a folder that can be carried to a machine with a GPU
# and few libraries: sh build/gpu/run.sh
gpu-bundle: $(CUDA_B)/liblonglora_cuda.so $(GPU_BINS:%=$(B)/gpu/%) $(BIN)/ltrain $(BIN)/leval $(BIN)/lgen
	@rm -rf build/gpu && mkdir -p build/gpu/bin build/gpu/lib
	cp $(GPU_BINS:%=$(B)/gpu/%) $(BIN)/ltrain $(BIN)/leval $(BIN)/lgen build/gpu/bin
	cp $(CUDA_B)/liblonglora_cuda.so build/gpu/lib
	strip -g build/gpu/bin/*
	@for f in $$(ldd build/gpu/bin/* | awk '$$3 ~ /^\// { print $$3 }' | sort -u | \
	  grep -vE '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so'); do \
	  cp -L "$$f" build/gpu/lib || exit 1; done
	cp tests/gpu/*.sh tests/gpu/many.awk tests/gpu/tools.t tests/gpu/ranks.t tests/gpu/peer_torch.py tests/cli/lib.sh \
	  tools/extend_pg19.sh tools/retrieval_pg19.sh tools/real_model.sh tools/retrieval_table.awk tools/runs.sh tools/extend_table.awk tools/extend_plot.gp build/gpu
	@du -sh build/gpu
.PHONY: always cuda check-gpu bench-gpu startup-gpu check-plans gpu-bundle install-cuda
-include $(wildcard $(CUDA_OBJS:.o=.d)) $(wildcard $(GPU_BINS:%=$(B)/tests/gpu/%.c.d))
