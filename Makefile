# Two commands for a newcomer: `make demo` and `make test`. The rest is for those who change something.
PYTHON ?= python3
BIN := .venv/bin
THREADS := 1
NICE_ENV := OMP_NUM_THREADS=$(THREADS) TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: demo lab figures test notebooks unit elsewhere training export readme docs hooks lint check clean

# the base install, and the one with the tools for development on top
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@
.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

.venv/installed-notebooks: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[notebooks]"
	touch $@
.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

# trains a student four ways on the starter set; pass options with ARGS="--seed 2026 --json demo.json"
demo: .venv/installed
	$(BIN)/rekd demo $(ARGS)

# the book, in JupyterLab
lab: .venv/installed-notebooks
	$(BIN)/jupyter lab nbs $(ARGS)

test: notebooks unit

# the fast cells of every notebook
notebooks: .venv/installed-dev
	$(NICE_ENV) $(BIN)/nbdev-test nbs --n-workers 2

unit: .venv/installed-dev
	$(NICE_ENV) $(BIN)/pytest -n 2 --dist worksteal

# What trains, once more as other processors compute it: without AVX-512, and without vector instructions on two threads.
# A result that holds only where it was written fails here before it fails at a reader's.
elsewhere: .venv/installed-dev
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(MAKE) training
	ATEN_CPU_CAPABILITY=default OMP_WAIT_POLICY=passive $(MAKE) training THREADS=2

# the chapters that train, and the tests marked so (tests/test_faults_trained.py looks that none is forgotten)
TRAINING := 00_tour 01_select 04_loss 05_objective 06_estimate 07_train 09_show 10_attribute judge resume context measure
empty :=
training: .venv/installed-dev
	$(NICE_ENV) $(BIN)/nbdev-test nbs --n-workers 2 --file-re '^($(subst $(empty) ,|,$(TRAINING)))'
	$(NICE_ENV) REKD_TEST_THREADS=$(THREADS) $(BIN)/pytest -m trains -n 2 --dist worksteal

# notebooks to rekd/*.py, and nbs/index.ipynb to README.md
export: .venv/installed-dev
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(MAKE) readme

readme: .venv/installed-dev
	$(BIN)/python tools/readme.py

# what README, docs and talks show, drawn anew
figures: .venv/installed-dev
	$(BIN)/python tools/figures.py

# the site, in docs/_build/html: all notebooks and the API; a warning is an error
docs: .venv/installed-docs
	$(BIN)/python docs/stage.py docs/_build/html

# nbdev's git hooks: notebooks are cleaned when they are saved and merged cell by cell
hooks: .venv/installed-dev
	$(BIN)/nbdev-install-hooks

# style, docstrings and types
lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/python tools/typecheck.py

# what CI asks beside the tests: everything generated is up to date
check: export lint
	git diff --exit-code -- rekd nbs README.md

clean:
	rm -rf .venv build dist *.egg-info docs/_build
