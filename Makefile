# Each target does all of its own set-up in a local .venv with plain pip.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check faults fuzz lowest clean

demo: .venv/installed
	$(BIN)/python recipes/demo.py

# Two at a time: every test keeps to one thread.
test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Every promise that is counted, one row each: held N of N.
faults: .venv/installed
	mkdir -p runs && rm -f runs/faults.jsonl
	FINEGAN_AUG_FAULTS=runs/faults.jsonl $(BIN)/python -m pytest -m fault; tested=$$?; \
	$(BIN)/python -m benchmarks.faults runs/faults.jsonl && exit $$tested

# Odd input for every parser, far more of it than in `make test`.
fuzz: .venv/installed
	FINEGAN_AUG_FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest tests/test_fuzz.py

# The fast tests with the lowest versions that pyproject.toml declares, in an environment of their own.
lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) benchmarks/lowest.py pyproject.toml >.venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -r .venv-lowest/lowest.txt hatchling editables
	.venv-lowest/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	.venv-lowest/bin/python -m pytest -m "not slow"

clean:
	rm -rf .venv .venv-lowest .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One environment for all targets, made again only when pyproject.toml changes.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $@
