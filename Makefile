# make setup | demo | test | check | wheel | docs | test-oldest. Another interpreter: make PYTHON=python3.12 …
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
# Tests left out of `make test`: long ones, and ones that need a GPU or the network.
MARKERS ?= not slow and not gpu and not network
# Files of tests that run side by side, each on one thread; a process takes 2 to 4 GB.
PROCESSES ?= 2

.PHONY: setup demo test check wheel docs test-oldest

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llm2comp needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -c constraints.txt -e ".[all,dev]"
	@touch $@

demo: setup
	$(BIN)/llm2comp demo

test: setup
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "$(MARKERS)"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(MAKE) test

# Takes minutes: wheel and sdist as a user gets them, in an environment of their own outside the checkout.
wheel: setup
	.ci/wheel

# The documentation site, built into site/. mkdocstrings reads the sources and imports nothing: no torch is needed.
DOCS := .venv-docs

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install -c constraints.txt $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

# Takes minutes: an environment of its own, with the oldest LlamaIndex and LangChain that are supported.
OLDEST := .venv-oldest

test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	grep -Ev '^(langchain|llama-index|pytest)' constraints.txt | cat - constraints-oldest.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install "$$(grep '^torch==' constraints.txt)"
	$(OLDEST)/bin/pip install -c $(OLDEST)/constraints.txt -e ".[cpu,llama-index,langchain]" pytest pytest-asyncio hypothesis langchain-tests langchain-experimental
	$(OLDEST)/bin/python -m pytest tests/integrations -m "not gpu and not network"
