# One verb per job; docs/developing.md says when to use which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find pyx arena xmem -name '*.py' -o -name '*.pyx' -o -name '*.pxd')
BUILD := pyproject.toml setup.cfg $(SOURCES)

# What is measured is built as a user's would be.
PLAIN := env -u CFLAGS -u XMEM_CHECKED -u XMEM_TRACE

.PHONY: demo test checked lint format bench bench-quick dist clean

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

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint pyx arena xmem
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench
	cd asv_bench && ../$(BIN)/asv machine --yes >/dev/null
	cd asv_bench && $(PLAIN) ../$(BIN)/asv run --show-stderr HEAD^!

bench-quick: $(VENV)/.bench
	cd asv_bench && ../$(BIN)/asv machine --yes >/dev/null
	cd asv_bench && $(PLAIN) ../$(BIN)/asv run --quick --show-stderr HEAD^!

dist: $(VENV)/.test
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) $(VENV)-checked build dist demo-output *.egg-info
	find pyx arena xmem -name '*.so' -delete -o -name '*.c' -delete
