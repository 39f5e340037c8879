# `make demo` and `make test` do all the set-up on a fresh machine that has Python >= 3.11 and a C++17 compiler.
PYTHON ?= python3
VENV ?= .venv
DEV ?= .venv-dev
# What an install is made of; the editable one takes Python files as they are.
NATIVE := pyproject.toml CMakeLists.txt $(shell find csrc -type f)
SOURCES := $(NATIVE) $(shell find fastbts models -type f -not -name '*.pyc')

.PHONY: demo test lint bench clean
.NOTPARALLEL:  # both installs build in build/

demo: $(VENV)/installed  ## install, segment a synthetic case with the shipped engine, show where the results are
	$(VENV)/bin/fastbts demo --out demo

test: $(DEV)/installed  ## all tests; those on real cases run where FASTBTS_DATA or shared/data is
	$(DEV)/bin/pytest

lint: $(DEV)/installed  ## formatting, lints and types
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/clang-format --dry-run --Werror $$(find csrc tests/simt -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

# malloc keeps what was freed.
KEEP := glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592

bench: $(DEV)/installed  ## benchmarks; JSON into benchmarks/results
	$(DEV)/bin/pytest benchmarks/bench_predict.py --benchmark-only --benchmark-json benchmarks/results/predict.json
	$(DEV)/bin/pytest benchmarks/bench_ops.py --benchmark-only --benchmark-json benchmarks/results/ops.json
	GLIBC_TUNABLES=$(KEEP) $(DEV)/bin/pytest benchmarks/bench_ops.py --benchmark-only --benchmark-json benchmarks/results/ops-tuned.json
	$(DEV)/bin/pytest benchmarks/bench_semantic.py --benchmark-only --benchmark-json benchmarks/results/semantic.json
	$(DEV)/bin/python -m benchmarks.make_tables

# The plain install, as a user makes it: no torch, no compiler left behind.
$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check .
	touch $@

# The developers' install: editable, with training, tests and linters.
$(DEV)/installed: $(NATIVE)
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --config-settings=cmake.define.FASTBTS_WERROR=ON --editable ".[train,evaluate,test,lint]"
	touch $@

clean:
	rm -rf $(VENV) $(DEV) build demo out .pytest_cache .mypy_cache .ruff_cache
