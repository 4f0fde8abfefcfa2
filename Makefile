# make demo: set up and run the main job.   make test: set up and run all tests.   See README.md.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test soak lint types benchmarks clean java

demo: java $(VENV)/.demo
	$(BIN)/python examples/digits.py

# Tests of the cluster mostly wait: they run beside all others. What compares seconds comes last, alone.
test: java $(VENV)/.dev lint types
	$(BIN)/python -m pytest -m "not soak and cluster" $(PYTEST_ARGS) > $(VENV)/cluster.log 2>&1 & beside=$$!; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak and not cluster and not alone" $(PYTEST_ARGS); others=$$?; \
	wait $$beside; beside=$$?; cat $(VENV)/cluster.log; test $$others = 0 -a $$beside = 0
	$(BIN)/python -m pytest -m "not soak and alone" tests/runtime $(PYTEST_ARGS)

soak: java $(VENV)/.dev
	KERASOFT_BUILD_NATIVE=all $(BIN)/pip install --quiet -e '.[dev]'
	KERASOFT_TEST_XLA=shipped $(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the package-dir map in a checkout: it reads links that make one package of the three folders.
types: $(VENV)/.dev
	rm -rf $(VENV)/types && mkdir -p $(VENV)/types/kerasoft
	ln -s "$(CURDIR)"/kerasoft/* "$(CURDIR)/compiler" "$(CURDIR)/runtime" $(VENV)/types/kerasoft/
	cd $(VENV)/types && MYPYPATH=. ../bin/python -m mypy --config-file ../../pyproject.toml -p kerasoft.compiler -p kerasoft.runtime

java:
	@$(PYTHON) runtime/java.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[examples]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist kerasoft.egg-info out logs
