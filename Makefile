# One verb per job; docs/developing.md says when to use which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint format checked bench bench-quick dist clean

$(VENV)/.made: pyproject.toml setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.made $(wildcard pyx/* arena/* xmem/* xmem/*/*)
	$(BIN)/python -m pip install --quiet '.[tools]'
	touch $@
