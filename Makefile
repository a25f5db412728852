# make demo: set up and run the main job.  make test: set up, lint, and run the tests.  make slow: the slow
# tests.  make lint: rules of style and of imports.  make format: put the code into shape.  make venv: set up only.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test slow lint format venv clean

demo: .venv/installed
	$(BIN)/mlmm run systems/lysozyme_xylene/run.toml --overwrite

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --durations=15

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: .venv/installed

# The pinned reference environment; the package itself is installed in place.
.venv/installed: pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install one, or say make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -e .
	touch $@

clean:
	rm -rf .venv build *.egg-info
