# One verb per job: `make help` lists them, docs/developing.md says when to use which.
# Recipes that need more than a line or two are scripts in .ci/.
PYTHON ?= python3
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find pyx arena xmem -name '*.py' -o -name '*.pyx' -o -name '*.pxd' \
	-o -name '*.h')
BUILD := pyproject.toml setup.cfg $(SOURCES)

# What is measured is built as a user's would be.
PLAIN := env -u CFLAGS -u XMEM_CHECKED -u XMEM_TRACE -u XMEM_FLAGS -u XMEM_MODULES

.PHONY: help demo docs clean \
	quick test programs random checked sanitize fuzz proofs mutants soak soak-kill lint format \
	figures performance engines stores bench bench-quick history history-whole history-html regress \
	dist wheels pythons

help: ## this list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

# Environments: xmem is built into each once; an extra is one stamp next to it.
$(VENV)/.built: $(BUILD)
	.ci/environment $(VENV) --editable .

$(VENV)/.%: $(VENV)/.built
	$(BIN)/python -m pip install --quiet 'xmem-tlsf[$*]'
	@touch $@

$(VENV)-checked/.built: export XMEM_CHECKED = 1
$(VENV)-%/.built: $(BUILD)
	.ci/environment $(VENV)-$* '.[$(or $(EXTRA),test)]'

##@ Use

demo: $(VENV)/.tools ## both engines on a real trace: the table and the picture
	$(BIN)/xmem demo --out demo-output

docs: $(VENV)/.docs ## these pages and the reference as HTML, in docs/_build/html
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean: ## remove everything that these commands made
	rm -rf $(VENV) $(VENV)-* build dist docs/_build demo-output *.egg-info
	find pyx arena xmem \( -name '*.so' -o -name '*.c' \) -delete

##@ Test

# In parallel; tests that need the same build run in one worker.
PARALLEL := -n auto --maxprocesses 4 --dist loadgroup

quick: $(VENV)/.test ## the tests that build nothing and prove nothing
	$(BIN)/python -m pytest -q $(PARALLEL) -m 'not slow'

test: $(VENV)/.test ## the whole suite except the programs, on an editable install
	$(BIN)/python -m pytest $(PARALLEL) --durations=10 -m 'not programs'

programs: $(VENV)/.test ## the tests that start foreign programs, or build packages or broken engines
	$(BIN)/python -m pytest $(PARALLEL) --durations=10 -m programs

random: $(VENV)/.test ## the random tests with a fresh seed, which is printed
	.ci/random $(VENV) $(PARALLEL)

checked: $(VENV)-checked/.built ## the suite on a build in which every `require` aborts
	$(VENV)-checked/bin/python -P -m pytest -q -p no:cacheprovider $(PARALLEL) -m 'not programs'

# What runs under ASan: all but the programs, or what a marker leaves.
SANITIZED ?= not programs
sanitize: $(VENV)-asan/.built $(VENV)-checked/.built ## the suite under ASan and UBSan; wrong programs under ASan and valgrind
	.ci/sanitize $(VENV)-asan $(PARALLEL) -m '$(SANITIZED)'
	$(VENV)-checked/bin/python -P tests/sanitizers/overruns.py

# Seconds for each of the targets.
FUZZ_SECONDS ?= 600
fuzz: EXTRA = fuzz
fuzz: $(VENV)-fuzz/.built ## coverage-guided fuzzing, `FUZZ_SECONDS=600` for each of two targets
	.ci/fuzz $(VENV)-fuzz $(FUZZ_SECONDS)

# Proofs by brute force, see docs/reliability.md.
PROOFS := exhaustive integers faults bits turmoil stores kills objects bounds monotony \
	lock undo
proofs: $(PROOFS:%=proof-%) ## the proofs by brute force at full length; `make proof-stores` and the like run one of them

proof-%: $(VENV)/.test
	cd tests && $(CURDIR)/$(BIN)/python -m proofs.$*

# Options, such as areas, --retry, --seed 2, --minutes 30.
MUTANTS ?=
mutants: $(VENV)/.test ## change lines of xmem one at a time and see whether the tests notice; two hours, goes on where it was
	cd tests && $(CURDIR)/$(BIN)/python -m mutation $(MUTANTS)

SOAK_SECONDS ?= 3600
soak: $(VENV)/.tools ## the stress commands with a fresh seed for `SOAK_SECONDS=3600`
	$(BIN)/python tests/proofs/soak.py $(SOAK_SECONDS)

KILLS ?= 50000
soak-kill: $(VENV)/.test ## kill the processes of a shared pool, `KILLS=50000` for each of two kinds
	cd tests && $(CURDIR)/$(BIN)/python -m proofs.soak_kill --kills $(KILLS)

lint: $(VENV)/.lint ## ruff, cython-lint, mypy, codespell, and the checks of .pre-commit-config.yaml
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/lint

format: $(VENV)/.lint ## apply the fixes that ruff can make
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

##@ Measure

figures: $(VENV)/.test ## the exact tables of docs/, and the picture of the history
	$(BIN)/python docs/figures.py

performance: $(VENV)/.tools ## the tables and pictures of performance.md, and README's rows; ten minutes, on a quiet machine
	$(BIN)/python docs/performance.py

# A shared object with a struct peer (measure/peer.h), and files of more traces.
PEER ?=
MORE ?=
engines: $(VENV)/.tools ## the tables of performance.md that compare with another TLSF, `PEER=FILE.so`; five minutes
	PEER=$(PEER) MORE="$(MORE)" $(BIN)/python docs/engines.py

stores: $(VENV)/.tools ## the tables and pictures of stores.md; some minutes
	$(BIN)/python docs/stores.py

bench: $(VENV)/.bench ## the asv suite on the current commit
	$(PLAIN) .ci/bench

bench-quick: $(VENV)/.bench ## the same, each benchmark once
	$(PLAIN) .ci/bench --quick

history: $(VENV)/.bench ## measure each commit that touched the core and has no exact figures yet, into asv_bench/history/
	$(PLAIN) .ci/history

COMMIT ?= HEAD
history-whole: $(VENV)/.bench ## run every benchmark of one commit (`COMMIT=`) into the same history, with this machine's cycles
	$(PLAIN) .ci/history $(COMMIT)

history-html: $(VENV)/.bench ## publish that history and serve it on localhost until Ctrl-C
	cd asv_bench && ../$(BIN)/python publish.py asv.history.json
	cd asv_bench && ../$(BIN)/asv preview --config asv.history.json

BASE ?= HEAD~1
HEAD ?= HEAD
# An interpreter that has HEAD installed, such as .venv/bin/python.
BUILT ?=
regress: ## build two commits, `BASE=HEAD~1` and `HEAD=HEAD`, and compare their exact figures; fails when one became worse
	$(PYTHON) asv_bench/regress.py $(BASE) $(HEAD) $(BUILT:%=--built=%)

##@ Release

dist: $(VENV)/.dist ## sdist and wheel in dist/, checked by twine and auditwheel
	rm -rf build dist && $(BIN)/python -m build
	$(BIN)/twine check --strict dist/* && $(BIN)/auditwheel show dist/*.whl

wheels: $(VENV)/.dist ## manylinux wheels for each supported Python, by cibuildwheel; needs Docker
	$(BIN)/cibuildwheel --platform linux --output-dir dist

PYTHONS ?= $(shell which python3.11 python3.12 python3.13 python3.14 2>/dev/null)
pythons: ## with each installed Python, or those in `PYTHONS=`: build a wheel and run a part of the suite on it
	.ci/pythons $(VENV)-python $(PYTHONS)
