# Two commands for a newcomer: `make demo` and `make test`. The rest is for those who change something.
PYTHON ?= python3
BIN := .venv/bin
NICE_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: demo test notebooks unit export readme lint check clean

# the base install, and the one with the tools for development on top
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@
.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# trains a student four ways on the starter set; pass options with ARGS="--seed 2026 --json demo.json"
demo: .venv/installed
	$(BIN)/rekd demo $(ARGS)

test: notebooks unit

# the fast cells of every notebook
notebooks: .venv/installed-dev
	$(NICE_ENV) $(BIN)/nbdev-test nbs --n-workers 2

unit: .venv/installed-dev
	$(NICE_ENV) $(BIN)/pytest

# notebooks to rekd/*.py, and nbs/index.ipynb to README.md
export: .venv/installed-dev
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(MAKE) readme

readme: .venv/installed-dev
	$(BIN)/python tools/readme.py

# style, docstrings and types
lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/python tools/typecheck.py

# what CI asks beside the tests: everything generated is up to date
check: export lint
	git diff --exit-code -- rekd nbs README.md

clean:
	rm -rf .venv build dist *.egg-info
