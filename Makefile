# make             the tools, in build/bin        make check        all tests
# make SAN=1 check the same under ASan and UBSan  make fuzz         60 s a parser (FUZZ_S=60)
# make SAN=thread check-threads   under TSan, the tests of ranks
# make install     DESTDIR= PREFIX=/usr/local     make uninstall    make man     lint the pages
# make bench       the speeds of this machine     make completion   make clean
# make bench-data  those of the data tools, as a table beside what they must reach
# make bench-gen   lgen's decode, beside what the memory gives and llama.cpp
# make CUDA=0      without the CUDA device        make check-gpu    see kernels/cuda/cuda.mk
CC       ?= cc
CXX      ?= c++
PREFIX   ?= /usr/local
WARN      = -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Werror=implicit
CWARN     = -Wstrict-prototypes -Wmissing-prototypes
OPT      ?= -O3 -g
SANFLAGS  = $(if $(filter thread,$(SAN)),-fsanitize=thread,-fsanitize=address$(,)undefined \
  -fno-sanitize-recover=undefined) -fno-omit-frame-pointer
, := ,
HARDEN    = -fstack-protector-strong $(if $(SAN),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
PKGS      = libzstd libarchive zlib jansson libxxhash libpcre2-8

FLAGS     = $(OPT) $(HARDEN) $(if $(SAN),$(SANFLAGS)) -D_GNU_SOURCE -I. -pthread
C_FLAGS   = -std=c11 -ffp-contract=off $(WARN) $(CWARN) $(FLAGS) $(CFLAGS)
CXX_FLAGS = -std=c++17 $(filter-out -Werror=implicit,$(WARN)) $(FLAGS) $(CXXFLAGS)

# One folder for the objects of each set of flags, so that SAN=1 never links a plain object.
B     := build/$(shell echo '$(CC) $(CXX) $(C_FLAGS)' | cksum | cut -d' ' -f1)
BIN   := $(if $(SAN),build/bin-san$(filter thread,$(SAN)),build/bin)
TOOLS := lprep lpack ltrain leval lgen lmerge linfo

# The rooms, lowest first; every .c of a room is in its library, but for the tools' mains.
ROOMS := base formats/text formats/tokenizer formats/tokens formats/weights probes kernels kernels/cpu ranks model prep train eval gen tools
MAINS := $(foreach t,$(TOOLS),$(firstword $(wildcard prep/$(t).c train/$(t).c eval/$(t).c gen/$(t).c tools/$(t).c)))
SRCS  := $(filter-out $(MAINS),$(foreach r,$(ROOMS),$(wildcard $(r)/*.c $(r)/*.cc)))
OBJS  := $(SRCS:%=$(B)/%.o)
TESTS := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))

all: $(TOOLS:%=$(BIN)/%)

# Libraries are looked up once a flag set, and a missing one is named with its remedy. (Ubuntu's
# sentencepiece.pc names a package that it does not depend on: so the header is what counts.)
$(B)/libs.mk: Makefile
	@mkdir -p $(@D)
	@command -v pkg-config >/dev/null || { \
	  echo "make: pkg-config is missing: ./setup check installs what is needed" >&2; exit 1; }
	@missing=; for p in $(PKGS); do pkg-config --exists $$p || missing="$$missing $$p"; done; \
	spm=$$(pkg-config --cflags --libs-only-L sentencepiece 2>/dev/null); \
	  echo '#include <sentencepiece_processor.h>' | $(CXX) $$spm -E -x c++ - >/dev/null 2>&1 || \
	  missing="$$missing sentencepiece"; \
	  [ -z "$$missing" ] || { \
	  echo "make: missing libraries:$$missing" >&2; \
	  echo "make: './setup check' installs what is needed" >&2; exit 1; }; \
	  echo "LIBS := $$(pkg-config --libs $(PKGS)) $$spm -lsentencepiece -lstdc++ -ldl -lm" > $@; \
	  echo "LIBCFLAGS := $$(pkg-config --cflags $(PKGS)) $$spm" >> $@
ifneq ($(filter-out clean uninstall man pages,$(or $(MAKECMDGOALS),all)),)
include $(B)/libs.mk
endif

$(B)/%.c.o: %.c | $(B)/libs.mk
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(LIBCFLAGS) -MMD -MP -c -o $@ $<
$(B)/%.cc.o: %.cc | $(B)/libs.mk
	@mkdir -p $(@D)
	$(CXX) $(CXX_FLAGS) $(LIBCFLAGS) -MMD -MP -c -o $@ $<
# Arithmetic of the CPU device: fused multiply-adds, and no errno, so that loops vectorise. No
# reordering of sums and nothing that breaks NaN or infinity.
$(B)/kernels/cpu/%.c.o $(B)/tests/imitate/kernels/cpu/%.c.o: OPT += -ffp-contract=fast -fno-math-errno -fno-trapping-math

# What the tools and the CUDA module must have been built from alike: the text of the op table and
# of all that it includes. Taken when one of the two files that state it is compiled.
DEVICE_ABI = -DDEVICE_ABI=$(shell cat $$($(CC) -D_GNU_SOURCE -I. -MM kernels/kernels.h | \
  tr -s ' \\' '\n' | grep '\.h$$') | cksum | cut -d' ' -f1)u
%/kernels/device.c.o: LIBCFLAGS += $(DEVICE_ABI)

$(B)/liblonglora.a: $(OBJS)
	@rm -f $@
	ar rcs $@ $^

define tool_rule
$(BIN)/$(1): $(B)/$(patsubst %.c,%,$(2)).c.o $(B)/liblonglora.a
	@mkdir -p $$(@D)
	$(CC) $(FLAGS) -Wl,--as-needed $(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rule,$(t),$(firstword $(wildcard prep/$(t).c train/$(t).c eval/$(t).c gen/$(t).c tools/$(t).c)))))

$(B)/tests/%: $(B)/tests/%.c.o $(B)/liblonglora.a
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -Wl,--as-needed $(LDFLAGS) -o $@ $(filter-out %.a,$^) $(filter %.a,$^) $(LIBS) -lcmocka
# CUDA kernels, compiled for the CPU: theirs are the headers in tests/emulate.
EMULATED := $(patsubst %,$(B)/tests/emulate/%.cc.o,emulate flash_forward flash_back flash_keys flash_any gemm_mma)
# Those that are launched by <<<>>>, and have shared memory by name.
EMULATED += $(patsubst %,$(B)/tests/emulate/%.o,flash_few gemm_few rmsnorm rope store swiglu)
$(B)/tests/test_flash $(B)/tests/test_cuda_few: $(EMULATED)
$(B)/tests/emulate/%.cc: kernels/cuda/%.cu Makefile
	@mkdir -p $(@D)
	@{ echo '#include <cuda_runtime.h>'; echo '#undef __shared__'; echo '#define __shared__ static'; \
	  sed -E -e ':more' -e '/<<</{/; *$$/!{N;s/\n */ /;bmore' -e '}}' -e 's/^( *(default: )?)(.*)<<<(.*), 0, c->stream>>>\((.*)\);/\1emulate_launch(c->stream, \4, \3, \5);/' $<; } > $@
$(B)/tests/emulate/%.o: $(B)/tests/emulate/%.cc
	$(CXX) $(CXX_FLAGS) -MMD -MP -c -o $@ $<
$(EMULATED): CXXFLAGS += -Itests/emulate -fno-strict-aliasing -Wno-unknown-pragmas \
  -Wno-shadow
# The CUDA device's choices, with a CUDA, a cuDNN, a cuBLASLt and an NVML that are made up.
CHOICE := $(patsubst %,$(B)/tests/choice/%.o,cuda_attention runs cuda_gemm cuda_card)
$(B)/tests/test_cuda_choice: $(filter %/cuda_attention.o %/runs.o,$(CHOICE))
$(B)/tests/test_cuda_card: $(filter %/cuda_card.o,$(CHOICE))
$(B)/tests/choice/cuda_card.o: CFLAGS += -Ddlopen=nvml_open -Ddlsym=nvml_symbol -Ddlclose=nvml_close
$(B)/tests/test_cuda_gemm: $(filter %/cuda_gemm.o,$(CHOICE))
$(patsubst %,$(B)/tests/test_cuda_%.c.o,choice gemm card) $(CHOICE): CFLAGS += -Itests/emulate
# Its links, with a CUDA and an NCCL that are made up.
LINKS := $(B)/tests/choice/cuda_links.o
$(B)/tests/test_cuda_links: $(LINKS)
$(B)/tests/test_cuda_links.c.o: CFLAGS += -Itests/emulate
$(LINKS): CFLAGS += -Itests/emulate -Ddlopen=made_dlopen -Ddlsym=made_dlsym -Ddlclose=made_dlclose
$(CHOICE) $(LINKS): $(B)/tests/choice/%.o: kernels/cuda/%.c
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<
# The CUDA device with the CPU's ops, of which memory, streams, events and NCCL are imitated: a module as tools
# load it, the driver and NCCL in one file. Whatever runs on GPUs runs on it.
IMITATED := $(B)/tests/imitate/libcuda.so.1
IMITATED_OBJS := $(patsubst %,$(B)/tests/imitate/%.o,$(wildcard tests/imitate/*.c kernels/cpu/*.c base/*.c) \
  $(patsubst %,kernels/cuda/cuda_%.c,device links queue clock card) \
  $(patsubst %,kernels/%.c,attention cards mat product group))
$(IMITATED_OBJS): $(B)/tests/imitate/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -fPIC -fvisibility=hidden -Itests/emulate -DIMITATED -MMD -MP -c -o $@ $<
$(B)/tests/imitate/kernels/cuda/cuda_device.c.o: CFLAGS += $(DEVICE_ABI) -Ddevice_open_cuda=real_open_cuda
$(IMITATED): $(IMITATED_OBJS)
	$(CC) $(FLAGS) -shared -Wl,--gc-sections -o $@ $^ -ldl -lm -lz
imitated: $(IMITATED) $(B)/gpu/test_cuda_ranks
tests: $(TESTS:%=$(B)/tests/%) imitated

# Each fuzz target with a main that feeds it its seeds: what 'make check' runs, with any compiler.
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
$(B)/fuzz/replay_%: $(B)/tests/fuzz/%.c.o $(B)/tests/fuzz/replay.c.o $(B)/liblonglora.a
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -Wl,--as-needed $(LDFLAGS) -o $@ $^ $(LIBS)
# Our tokenizer against libsentencepiece: $(B)/fuzz/diff_spm SECONDS SEED [MODEL...]
$(B)/fuzz/diff_%: $(B)/tests/fuzz/diff_%.c.o $(B)/liblonglora.a
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
diff: $(B)/fuzz/diff_spm
	$< $(or $(FUZZ_S),60) $$(date +%s) $(MODELS)
replays: $(FUZZERS:%=$(B)/fuzz/replay_%)

check: all tests replays pages
	@BIN=$(CURDIR)/$(BIN) TESTBIN=$(CURDIR)/$(B)/tests TESTS="$(TESTS)" SAN=$(SAN) CUDA=$(CUDA) sh tests/run.sh

# Threads of the ranks: with SAN=thread. OpenBLAS is not compiled for it, so the matrix products are ours;
# nor are the MPIs: MPICH's UCX, which would put its own malloc in front, leaves that.
THREADED := test_transport test_meeting test_ranks test_ranks_modes test_spread test_spread_links
check-threads: all imitated $(THREADED:%=$(B)/tests/%)
	@export TESTBIN="$(CURDIR)/$(B)/tests" PATH="$(CURDIR)/$(BIN):$$PATH" LONGLORA_BLAS=builtin SAN=$(SAN) CMOCKA_MESSAGE_OUTPUT=TAP \
	  TSAN_OPTIONS="die_after_fork=0 exitcode=66 history_size=4 suppressions=$(CURDIR)/tests/tsan.supp" \
	  UCX_MEM_EVENTS=no UCX_MEM_MMAP_HOOK_MODE=none; \
	prove --timer -e 'bash tests/tap.sh' $(THREADED:%=$(B)/tests/%) tests/cli/ranks.t tests/cli/imitated.t

# Ranks on imitated GPUs in every way, and the scripts for GPUs: minutes. ARGS: one way alone.
check-imitated: all imitated
	@PATH="$(CURDIR)/$(BIN):$$PATH" TESTBIN="$(CURDIR)/$(B)/tests" bash tests/imitate/sweep.sh $(ARGS)

# The same targets under libFuzzer, on a library that clang has instrumented.
FB     := build/fuzz
FUZZCC ?= clang
FSAN    = -O1 -g -Wno-pass-failed -fsanitize=address,undefined -fno-sanitize-recover=undefined
$(FB)/%.c.o: %.c | $(B)/libs.mk
	@mkdir -p $(@D)
	$(FUZZCC) -std=c11 $(WARN) $(CWARN) $(FSAN) -fsanitize=fuzzer-no-link -D_GNU_SOURCE -I. \
	  -pthread $(LIBCFLAGS) -MMD -MP -c -o $@ $<
$(FB)/%.cc.o: %.cc | $(B)/libs.mk
	@mkdir -p $(@D)
	$(FUZZCC) -x c++ -std=c++17 $(FSAN) -fno-sanitize=vptr -fsanitize=fuzzer-no-link \
	  -D_GNU_SOURCE -I. -pthread $(LIBCFLAGS) -MMD -MP -c -o $@ $<
$(FB)/liblonglora.a: $(SRCS:%=$(FB)/%.o)
	@rm -f $@
	ar rcs $@ $^
$(FB)/bin/fuzz_%: $(FB)/tests/fuzz/fuzz_%.c.o $(FB)/liblonglora.a
	@mkdir -p $(@D)
	$(FUZZCC) --driver-mode=g++ $(FSAN) -fsanitize=fuzzer -pthread $(LDFLAGS) -o $@ $^ $(LIBS)
fuzzcc:
	@mkdir -p $(FB) && echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
	  $(FUZZCC) $(FSAN) -fsanitize=fuzzer -x c -o $(FB)/probe - 2>/dev/null || { \
	  echo "make: no $(FUZZCC) with libFuzzer: apt-get install clang libclang-rt-dev" >&2; exit 1; }
fuzz:
	@$(MAKE) -s fuzzcc $(FUZZERS:%=$(FB)/bin/%)
	@FUZZ_S=$(or $(FUZZ_S),60) sh tests/fuzz/run.sh $(FB) $(FUZZERS)

BENCHES := $(patsubst tests/%.c,%,$(wildcard tests/bench_*.c))
bench: all $(BENCHES:%=$(B)/tests/%) $(B)/gpu/make_model
	@for b in $(BENCHES:%=$(B)/tests/%); do $$b || exit 1; done
	@PATH=$(CURDIR)/$(BIN):$$PATH sh tools/bench.sh
	@PATH=$(CURDIR)/$(BIN):$$PATH bash tools/bench_merge.sh $(B)/gpu/make_model

# lgen's decode; PYTHON= one with xllamacpp and gguf puts llama.cpp beside it.
bench-gen: all $(B)/gpu/make_model
	@PATH=$(CURDIR)/$(BIN):$$PATH bash tools/bench_gen.sh $(B)/gpu/make_model tests/data/tiny.model

DATA_BENCHES := $(patsubst %,$(B)/tests/bench_%,spm hft pipe packing minhash read)
bench-data: all $(DATA_BENCHES)
	@PATH=$(CURDIR)/$(BIN):$$PATH sh tools/bench_data.sh $(B)/tests

# What install puts below DESTDIR PREFIX, and uninstall removes.
DEST  = $(DESTDIR)$(PREFIX)
FORMATS = $(wildcard formats/*.md formats/*/*.md)
PAGES = $(patsubst %.md,build/man/longlora-%.5,$(notdir $(FORMATS)))
MAN   = $(wildcard man/*.[17]) $(PAGES)
DOC  := README.md ARCHITECTURE.md LICENSE $(FORMATS)
FILES = $(TOOLS:%=bin/%) $(TOOLS:%=share/bash-completion/completions/%) \
  $(foreach m,$(MAN),share/man/man$(subst .,,$(suffix $(m)))/$(notdir $(m))) \
  $(foreach d,$(DOC),share/doc/longlora/$(notdir $(d)))
vpath %.md formats $(wildcard formats/*)
build/man/longlora-%.5: %.md man/format_page.awk
	@mkdir -p $(@D)
	awk -v name=$* -v date='November 22, 2026' -f man/format_page.awk $< > $@
pages: $(PAGES)
man: pages
	mandoc -Tlint -W warning $(MAN)
completion: all
	@mkdir -p build/completions
	@for t in $(TOOLS); do $(BIN)/$$t --completion > build/completions/$$t || exit 1; done
install: all completion pages
	@for f in $(FILES); do mkdir -p "$(DEST)/$${f%/*}" || exit 1; done
	install -m 755 $(TOOLS:%=$(BIN)/%) "$(DEST)/bin"
	install -m 644 $(TOOLS:%=build/completions/%) "$(DEST)/share/bash-completion/completions"
	for s in 1 5 7; do install -m 644 $$(printf '%s\n' $(MAN) | grep "$$s$$") \
	  "$(DEST)/share/man/man$$s" || exit 1; done
	install -m 644 $(DOC) "$(DEST)/share/doc/longlora"
uninstall:
	cd "$(DEST)" && rm -f $(FILES)
	-rmdir "$(DEST)/share/doc/longlora"

include kernels/cuda/cuda.mk

clean:
	rm -rf build
.PHONY: all tests imitated check-imitated replays pages check clean diff fuzz fuzzcc bench bench-data bench-gen man completion install uninstall
.SECONDARY:
-include $(wildcard $(OBJS:.o=.d) $(B)/tests/bench_*.d $(TESTS:%=$(B)/tests/%.c.d) $(MAINS:%=$(B)/%.d) $(EMULATED:.o=.d) $(CHOICE:.o=.d) $(LINKS:.o=.d) $(IMITATED_OBJS:.o=.d))
-include $(wildcard $(SRCS:%=$(FB)/%.d) $(foreach d,$(B) $(FB),$(d)/tests/fuzz/*.d))
