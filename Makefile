# Needs Python >= 3.11 with pip, and make; everything else goes into virtual environments beside this file.
#   make demo         a small meta-analysis from start to report, in demo/
#   make test         the tests, without the slow ones     (ARGS="-k ale" goes on to pytest)
#   make test-slow    the slow ones;  make test-long  the longest;  make test-all  all of them
#   make bench        the benchmarks                       (ARGS goes on to tests.benchmarks)
#   make bench-scale  how it grows with workers
#   make lint         ruff, mypy, and the order of layers
#   make clean        remove environments, caches and the demo's output
# PYTHON=/path/to/python3 chooses the interpreter. ARGS is empty unless given.

find_python = for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$p"; break; fi; done
PYTHON ?= $(shell $(find_python))
ARGS ?=

DEMO := .venv-demo
TEST := .venv-test
PIP := -m pip --quiet --disable-pip-version-check --no-input

# $(call install,FOLDER,WHAT): an editable install of WHAT into a virtual environment in FOLDER.
# The second way is for a Python whose `venv` lacks ensurepip (Debian without python3-venv).
define install
	@test -n "$(PYTHON)" || { echo "nimare_dask needs Python 3.11 or newer, and none was found: install it, or say PYTHON=/path/to/python3." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "nimare_dask needs Python 3.11 or newer; '$(PYTHON)' is not: install a newer one, or say PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Installing $(2) into $(1) (a minute or two, once) ..."
	@test -x $(1)/bin/pip || "$(PYTHON)" -m venv --clear $(1) >/dev/null 2>&1 || { \
		"$(PYTHON)" -m venv --clear --without-pip $(1) && "$(PYTHON)" $(PIP) --python $(1)/bin/python install pip; }
	@$(1)/bin/python $(PIP) install --editable "$(2)"
endef

.PHONY: demo test test-slow test-together test-alone test-long test-all bench bench-scale lint ruff-check ruff-format types layers venv-test venv-dev clean

demo: $(DEMO)/.package-installed
	$(DEMO)/bin/nimare-dask demo --out demo $(ARGS)

# Two processes: as many as the smallest machine has cores, and each keeps to its own folders.
test: $(TEST)/.test-installed
	$(TEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

# One after the other, also where MAKEFLAGS says -j. pytest ends with 5 where no test is marked
# so, which is no failure.
.NOTPARALLEL:
test-slow: test-together test-alone

test-together: $(TEST)/.test-installed
	$(TEST)/bin/python -m pytest -n 2 --dist worksteal -m "slow and not alone and not long" $(ARGS) || test $$? -eq 5

# Those that measure time, or that are a batch system, have the machine for themselves.
test-alone: $(TEST)/.test-installed
	$(TEST)/bin/python -m pytest -m "slow and alone and not long" $(ARGS) || test $$? -eq 5

test-long: $(TEST)/.test-installed
	$(TEST)/bin/python -m pytest -m long $(ARGS)

test-all: test test-slow test-long

bench-scale: $(TEST)/.test-installed
	$(TEST)/bin/python -m tests.benchmarks.scale $(ARGS)

bench: $(TEST)/.test-installed
	$(TEST)/bin/python -m tests.benchmarks $(ARGS)

lint: ruff-check ruff-format types layers

ruff-check: $(TEST)/.dev-installed
	$(TEST)/bin/ruff check .

ruff-format: $(TEST)/.dev-installed
	$(TEST)/bin/ruff format --check .

types: $(TEST)/.dev-installed
	$(TEST)/bin/mypy

layers: $(TEST)/.test-installed
	$(TEST)/bin/python -m pytest -q tests/test_layers.py

venv-test: $(TEST)/.test-installed
venv-dev: $(TEST)/.dev-installed

$(DEMO)/.package-installed: pyproject.toml
	$(call install,$(DEMO),.)
	@touch $@

$(TEST)/.test-installed: pyproject.toml
	$(call install,$(TEST),.[test])
	@touch $@

# The linters join the test environment: mypy reads the same libraries that the tests run.
$(TEST)/.dev-installed: $(TEST)/.test-installed
	@echo "Installing the linters into $(TEST) ..."
	@$(TEST)/bin/python $(PIP) install --editable ".[test,dev]"
	@touch $@

clean:
	rm -rf $(DEMO) $(TEST) demo build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
