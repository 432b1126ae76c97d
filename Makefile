# make             the tools, in build/bin        make check        all tests
# make SAN=1 check the same under ASan and UBSan  make fuzz         60 s a parser (FUZZ_S=60)
# make install     DESTDIR= PREFIX=/usr/local     make uninstall    make bench   make clean
CC       ?= cc
CXX      ?= c++
PREFIX   ?= /usr/local
WARN      = -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Werror=implicit
CWARN     = -Wstrict-prototypes -Wmissing-prototypes
OPT      ?= -O3 -g
SANFLAGS  = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
HARDEN    = -fstack-protector-strong $(if $(SAN),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
PKGS      = libzstd libarchive jansson libxxhash sentencepiece

FLAGS     = $(OPT) $(HARDEN) $(if $(SAN),$(SANFLAGS)) -D_GNU_SOURCE -I. -pthread
C_FLAGS   = -std=c11 $(WARN) $(CWARN) $(FLAGS) $(CFLAGS)
CXX_FLAGS = -std=c++17 $(WARN) $(FLAGS) $(CXXFLAGS)

# One folder for the objects of each set of flags, so that SAN=1 never links a plain object.
B     := build/$(shell echo '$(CC) $(CXX) $(C_FLAGS)' | cksum | cut -d' ' -f1)
BIN   := $(if $(SAN),build/bin-san,build/bin)
TOOLS := lprep lpack ltrain leval lmerge linfo

# The rooms, lowest first; every .c of a room is in its library, but for the tools' mains.
ROOMS := base formats kernels kernels/cpu model prep train eval
MAINS := $(foreach t,$(TOOLS),$(firstword $(wildcard prep/$(t).c train/$(t).c eval/$(t).c tools/$(t).c)))
SRCS  := $(filter-out $(MAINS),$(foreach r,$(ROOMS),$(wildcard $(r)/*.c $(r)/*.cc)))
OBJS  := $(SRCS:%=$(B)/%.o)
TESTS := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))

all: $(TOOLS:%=$(BIN)/%)

# Libraries are looked up once a flag set, and a missing one is named with its remedy.
$(B)/libs.mk:
	@mkdir -p $(@D)
	@for p in $(PKGS); do pkg-config --exists $$p || { \
	  echo "make: the library $$p is missing: ./setup check installs what is needed" >&2; exit 1; }; done
	@echo "LIBS := $$(pkg-config --libs $(PKGS)) -lstdc++ -ldl -lm" > $@
	@echo "LIBCFLAGS := $$(pkg-config --cflags $(PKGS))" >> $@
-include $(B)/libs.mk

$(B)/%.c.o: %.c | $(B)/libs.mk
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(LIBCFLAGS) -MMD -MP -c -o $@ $<
$(B)/%.cc.o: %.cc | $(B)/libs.mk
	@mkdir -p $(@D)
	$(CXX) $(CXX_FLAGS) $(LIBCFLAGS) -MMD -MP -c -o $@ $<
$(B)/liblonglora.a: $(OBJS)
	@rm -f $@
	ar rcs $@ $^

define tool_rule
$(BIN)/$(1): $(B)/$(patsubst %.c,%,$(2)).c.o $(B)/liblonglora.a
	@mkdir -p $$(@D)
	$(CC) $(FLAGS) $(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rule,$(t),$(firstword $(wildcard prep/$(t).c train/$(t).c eval/$(t).c tools/$(t).c)))))

$(B)/tests/%: $(B)/tests/%.c.o $(B)/liblonglora.a
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
tests: $(TESTS:%=$(B)/tests/%)

check: all tests
	@BIN=$(CURDIR)/$(BIN) TESTBIN=$(CURDIR)/$(B)/tests SAN=$(SAN) sh tests/run.sh

clean:
	rm -rf build
.PHONY: all tests check clean fuzz bench install uninstall
.SECONDARY:
-include $(wildcard $(OBJS:.o=.d) $(TESTS:%=$(B)/tests/%.c.d) $(MAINS:%=$(B)/%.d))
