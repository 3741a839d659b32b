# One verb per job; docs/developing.md says when to use which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find pyx arena xmem -name '*.py' -o -name '*.pyx' -o -name '*.pxd')
BUILD := pyproject.toml setup.cfg $(SOURCES)

# What is measured is built as a user's would be.
PLAIN := env -u CFLAGS -u XMEM_CHECKED -u XMEM_TRACE

# Proofs by brute force, see docs/reliability.md.
PROOFS := exhaustive integers faults bits turmoil stores objects

# What ASan, UBSan and the fuzzer need; -O1, so that reports have their lines.
ASAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
ASAN_LIBRARIES = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
FUZZ_FLAGS := -fsanitize-coverage=trace-pc,trace-cmp
FUZZ_SECONDS ?= 600

.PHONY: demo test checked sanitize fuzz proofs lint format figures performance stores soak bench bench-quick history history-whole history-html regress dist wheels pythons docs clean

# Each extra is one stamp: the environment with the package built into it.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.%: $(VENV)/bin/python $(BUILD)
	@echo "Building xmem into $(VENV) with what '$*' needs: about a minute."
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

demo: $(VENV)/.tools
	$(BIN)/xmem demo --out demo-output

test: $(VENV)/.test
	$(BIN)/python -m pytest

# The same tests against a build in which every requirement aborts.
checked:
	$(PYTHON) -m venv $(VENV)-checked
	XMEM_CHECKED=1 $(VENV)-checked/bin/python -m pip install --quiet '.[test]'
	$(VENV)-checked/bin/pytest -p no:cacheprovider

# The tests under ASan and UBSan; then wrong programs that ASan and valgrind, told
# by a build with checks whose memory is whose, have to find.
sanitize:
	$(PYTHON) -m venv $(VENV)-asan
	CFLAGS="-O1 -g $(ASAN_FLAGS)" LDFLAGS="$(ASAN_FLAGS)" \
		$(VENV)-asan/bin/python -m pip install --quiet '.[test]'
	LD_PRELOAD="$(ASAN_LIBRARIES)" ASAN_OPTIONS=detect_leaks=0 \
		$(VENV)-asan/bin/python -P -m pytest -q --capture=sys -p no:cacheprovider
	$(PYTHON) -m venv $(VENV)-checked
	XMEM_CHECKED=1 $(VENV)-checked/bin/python -m pip install --quiet '.[test]'
	$(VENV)-checked/bin/python -P tests/sanitizers/overruns.py

# Coverage-guided fuzzing, $(FUZZ_SECONDS) seconds for each target.
fuzz:
	$(PYTHON) -m venv $(VENV)-fuzz
	XMEM_CHECKED=1 CFLAGS="-O1 -g $(FUZZ_FLAGS)" \
		$(VENV)-fuzz/bin/python -m pip install --quiet '.[fuzz]'
	$(CC) -shared -fPIC -O2 -o $(VENV)-fuzz/coverage.so tests/proofs/coverage.c
	for target in replay open; do \
		PYTHONPATH=tests LD_PRELOAD=$(CURDIR)/$(VENV)-fuzz/coverage.so \
		$(VENV)-fuzz/bin/python -P -m proofs.fuzz $$target \
		-max_total_time=$(FUZZ_SECONDS) -max_len=1600 -print_final_stats=1 \
		-verbosity=0 -artifact_prefix=$(VENV)-fuzz/ || exit 1; \
	done

proofs: $(PROOFS:%=proof-%)

proof-%: $(VENV)/.test
	cd tests && $(CURDIR)/$(BIN)/python -m proofs.$*

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint pyx arena xmem
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The measured tables of docs/worst-case.md.
figures: $(VENV)/.test
	$(BIN)/python docs/figures.py

bench: $(VENV)/.bench
	cd asv_bench && ../$(BIN)/asv machine --yes >/dev/null
	cd asv_bench && $(PLAIN) ../$(BIN)/asv run --show-stderr HEAD^!

bench-quick: $(VENV)/.bench
	cd asv_bench && ../$(BIN)/asv machine --yes >/dev/null
	cd asv_bench && $(PLAIN) ../$(BIN)/asv run --quick --show-stderr HEAD^!

# The exact figures of every commit that touched the core, kept in the repository
# under one machine's name, for they are the same on all.
HISTORY := --config asv.history.json
history: $(VENV)/.bench
	git log --reverse --format=%H -- pyx arena 'xmem/*.pxd' > $(VENV)/commits
	cd asv_bench && ../$(BIN)/asv machine $(HISTORY) --machine reference --os any \
		--arch x86_64 --cpu any --num_cpu 1 --ram 1 >/dev/null
	cd asv_bench && $(PLAIN) ../$(BIN)/asv run $(HISTORY) --machine reference \
		--bench '^(calls|instructions|memory)\.' --skip-existing \
		HASHFILE:$(CURDIR)/$(VENV)/commits

# Every benchmark of one chosen commit, into the same history: cycles, too, which
# are those of the machine that runs this.
COMMIT ?= HEAD
history-whole: $(VENV)/.bench
	cd asv_bench && $(PLAIN) ../$(BIN)/asv run $(HISTORY) --machine reference \
		--show-stderr $(COMMIT)^!

# Pages of that history, served on loopback until Ctrl-C.
history-html: $(VENV)/.bench
	cd asv_bench && ../$(BIN)/python publish.py asv.history.json
	cd asv_bench && ../$(BIN)/asv preview $(HISTORY)

# Exact figures of two commits; fails when one became worse.
BASE ?= HEAD~1
HEAD ?= HEAD
regress:
	$(PYTHON) asv_bench/regress.py $(BASE) $(HEAD)

# The measured tables and pictures of docs/performance.md.
performance: $(VENV)/.tools
	$(BIN)/python docs/performance.py

# The measured tables and pictures of docs/stores.md.
stores: $(VENV)/.tools
	$(BIN)/python docs/stores.py

# The stress commands with random seeds, for as long as is said.
SOAK_SECONDS ?= 3600
soak: $(VENV)/.tools
	$(BIN)/python tests/soak.py $(SOAK_SECONDS)

# The pages and the reference, as HTML.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

# sdist and wheel of this Python, looked through; the wheel's tag is that of this
# machine's C library, see `wheels`.
dist: $(VENV)/.dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/auditwheel show dist/*.whl

# Wheels of every Python for every Linux, in containers: needs Docker.
wheels: $(VENV)/.dist
	$(BIN)/cibuildwheel --platform linux --output-dir dist

# A wheel for each Python that there is, built by it, installed into a clean
# environment and tested there.
PYTHONS ?= $(shell which python3.11 python3.12 python3.13 python3.14 2>/dev/null)
PART := $(addprefix tests/test_,arena.py misuse.py blocks.py arrays.py numpy_memory.py \
	fork.py cimport.py examples.py defaults.py)
pythons:
	for python in $(PYTHONS); do \
		rm -rf $(VENV)-python && $$python -m venv $(VENV)-python || exit 1; \
		$(VENV)-python/bin/python -m pip install --quiet '.[test]' || exit 1; \
		$(VENV)-python/bin/python -VV; \
		$(VENV)-python/bin/python -P -m pytest -q -p no:cacheprovider $(PART) || exit 1; \
	done

clean:
	rm -rf $(VENV) $(VENV)-checked $(VENV)-asan $(VENV)-fuzz $(VENV)-python build dist docs/_build demo-output *.egg-info
	find pyx arena xmem -name '*.so' -delete -o -name '*.c' -delete
