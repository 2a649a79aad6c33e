# Needs make and any Python >= 3.11 (with venv); everything else is installed into .venv from requirements.lock.
# All paths are relative, so the folder may lie anywhere. PYTHON=/path/to/python chooses the interpreter.
.POSIX:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install demo test serve bench check

# Bytecode is kept, whatever the caller's environment says: it saves seconds at every start of a server.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
INSTALLED := .venv/.installed
CANDIDATES := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python
OURS := optimizer experiments api migrations

help: ## Say what the targets do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

install: $(INSTALLED) ## Create .venv from the pinned lock (a second run reuses it)

demo: $(INSTALLED) ## Run the whole loop on a simulated shop
	$(BIN)/optimizer demo $(ARGS)

test: $(INSTALLED) ## Run every test, on SQLite and on PostgreSQL (ARGS=... is passed to pytest)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadgroup $(ARGS)

serve: $(INSTALLED) ## Start the server and its background process (ARGS="--port 8000 --workers 2")
	$(BIN)/optimizer serve $(ARGS)

bench: $(INSTALLED) ## Measure, and write the tables of docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

check: $(INSTALLED) ## What CI runs: formatting, lint, strict types, tests
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(MAKE) test

$(INSTALLED): requirements.lock pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
				echo "Creating .venv with $$("$$candidate" --version)"; \
				exec "$$candidate" -m venv --clear .venv; \
			fi; \
		done; \
		echo "No Python >= 3.11 with the venv module was found (tried: $(CANDIDATES))." >&2; \
		echo "Install one (on Debian or Ubuntu also python3-venv), or run: make install PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q $(OURS)
	$(BIN)/python -c "from optimizer.pooling_model import compile_ahead; compile_ahead()" || echo "Not compiled ahead: the first analysis of kind hierarchy will."
	@touch $(INSTALLED)
