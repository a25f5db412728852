# make demo     set up and run the main job
# make test     set up, lint, and run the quick tests
# make slow     the slow tests
# make faults   what happens to runs that are killed, damaged or lied to, as a table; some minutes
# make bench    the tables of tests/benchmarks anew
# make lint     rules of style, of imports and of types
# make types    types only
# make format   put the code into shape
# make venv     set up only
# make clean    remove the environment and what was built

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One process a core, but no more than eight: each needs up to 2 GB. tests/conftest.py gives each one thread.
# UTF-8 whatever the locale: OpenMM's OpenCL platform leaves that of a process at C, which then reads files as ASCII.
PYTEST := PYTHONUTF8=1 $(BIN)/python -m pytest -n auto --maxprocesses=8 --durations=15

.PHONY: demo test slow faults bench lint types format venv clean

demo: .venv/installed
	$(BIN)/mlmm run systems/lysozyme_xylene/run.toml --overwrite

test: lint
	$(PYTEST)

slow: .venv/installed
	$(PYTEST) -m slow

faults: .venv/installed
	$(BIN)/python tests/fault_table.py

bench: .venv/installed
	$(BIN)/python tests/benchmarks/run.py --write

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/installed
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: .venv/installed

# The pinned reference environment; the package itself is installed in place.
.venv/installed: pyproject.toml requirements.lock setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install one, or say make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "Set-up 1 of 3: an environment in .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv
	@echo "Set-up 2 of 3: $$(grep -c == requirements.lock) pinned packages, about 4 GB to download and 8 GB on disk"
	@echo "  (a few minutes; pip says nothing while it unpacks, after \"Installing collected packages\")"
	$(PIP) install -r requirements.lock
	@echo "Set-up 3 of 3: this package, with its C++ kernels where there is a compiler"
	$(PIP) install --no-deps -e .
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
