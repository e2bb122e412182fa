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
	$(VENV)/bin/pytest -n 2 -m "not cluster"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	@echo "1 of 3: making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2 of 3: installing $$(grep -c == constraints.txt) packages, which takes one to three minutes"
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@echo "3 of 3: checking that torchvision fits torch"
	@$(VENV)/bin/python -c 'import torchvision' 2>/dev/null || echo "Note: 'import torchvision' fails in $(VENV), because it was built for another torch. Tunesmith does not need that import, but your own scripts may: then install the torchvision for your torch (see pytorch.org)."
	@touch $(READY)
