# make search          set up and run the main job; ARGS="--num-samples 4" passes options to search/run.py
# make test            set up and run the linters, the type checker and the tests

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: search test

search: $(READY)
	$(VENV)/bin/python search/run.py $(ARGS)

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pytest -n 2

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)
