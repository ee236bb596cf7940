# `make help` lists what there is. Nothing here needs more than make, a POSIX shell and Python 3.11 or 3.12.
export PYTHON TORCH
# gymnasium and Procgen open no window and play no sound here.
export SDL_VIDEODRIVER ?= dummy
export SDL_AUDIODRIVER ?= dummy

BIN := .venv/bin
# A process for each core and one more, since many a test waits for a browser or a child; five at most: each takes up to
# 2 GB. What a file's tests share stays in one process, and the longest, notebooks, come first. With the cores taken,
# more threads of PyTorch would only wait for each other.
PARALLEL := -n $(shell n=$$(getconf _NPROCESSORS_ONLN); [ $$n -lt 4 ] || n=4; echo $$((n + 1))) --dist=loadfile --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with=tests/nbval_sanitize.cfg

# mkdocs-material advertises its successor at every build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.DEFAULT_GOAL := help
.PHONY: help install reproduce test test-slow notebooks lab docs docs-serve lint lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  PYTHON=/path/to/python3.12      build .venv with this Python (3.11 or 3.12)"
	@echo "  TORCH='torch==2.13.0+cu130'     another torch build than pip's default; its index by PIP_EXTRA_INDEX_URL=..."
	@echo "  TORCH=system                    use the torch that PYTHON has already, a CUDA build for example"
	@echo "  TORCH=lock                      back to the pinned torch (the choice is remembered otherwise)"
	@echo "  ARGS='--profile paper'          options of interp reproduce; see .venv/bin/interp reproduce --help"

install: ## create or update .venv from requirements.lock; does nothing when it is up to date
	@tools/install.sh

reproduce: install ## run every notebook and write figures/ (ARGS=... go to interp reproduce)
	@$(BIN)/interp reproduce $(ARGS)

test: install ## the notebooks against their stored outputs, and the fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(NBVAL) -m "not slow" notebooks tests

test-slow: install ## the tests that take minutes
	@$(BIN)/python -m pytest -p no:nbval -m slow tests

notebooks: install ## run the notebooks and store their outputs in them (after a change that alters one)
	@$(BIN)/python tools/store_outputs.py

lab: install ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --ServerApp.root_dir=notebooks $$([ "$$(id -u)" = 0 ] && echo --allow-root)

docs: install ## build the documentation into build/site, without a network
	@$(MKDOCS) build --strict --clean && echo "open build/site/index.html (its search box needs make docs-serve)"

docs-serve: install ## show it on 127.0.0.1:8000 and build it again after every change
	@$(MKDOCS) serve --strict

lint: install ## ruff (rules and format), mypy, and who may import whom
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

lock: ## resolve pyproject.toml anew and write requirements.lock (needs Python 3.11 and 3.12)
	@tools/lock.sh

clean: ## remove .venv and caches; runs/, checkpoints/ and figures/ stay
	@rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
