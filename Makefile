# `make demo` and `make test` set up all that they need on a fresh machine with Python >= 3.11, make
# and a C++17 compiler.
PYTHON ?= python3
VENV ?= .venv
DEV ?= .venv-dev
SUPPLY := build/supply
JOBS ?= auto
RESULTS ?= build/bench

# What the compiled part depends on. Python files need no second install: the install is editable.
NATIVE := pyproject.toml fastbts/about.py CMakeLists.txt \
    $(shell find csrc -type f -not -name '*.md')
SOURCES := $(NATIVE) $(shell find fastbts models -type f -not -name '*.pyc')
CPP := $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick guards versions lint format stubs coverage bench \
    publish-bench bench-peers publish-bench-peers triton-env lock audit sbom wheel docs docs-links \
    pictures hub install clean
.NOTPARALLEL:  # both installs build in build/

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed  ## install, segment a synthetic case, show where the results are
	$(VENV)/bin/fastbts demo --out demo

# torch's threads must not spin while they wait: with several tests at once they would take the
# cores from each other.
PYTEST := OMP_WAIT_POLICY=passive $(DEV)/bin/python -m pytest
# A file's tests share fixtures, so they run in one process; in the order of tests/conftest.py.
PARALLEL := -p no:benchmark -n $(JOBS) --dist loadfile --no-loadscope-reorder
# Files of serial tests: the others need not be imported.
SERIAL := $(shell grep -rl --include=*.py mark.serial tests)

# A test that fails beside others runs once more alone: servers and kills depend on the load. Both
# results are printed.
test: $(DEV)/installed  ## all tests; those on real cases need FASTBTS_DATA or ../shared/data
	@$(PYTEST) $(PARALLEL) -m "not serial"; parallel=$$?; \
	if [ $$parallel -eq 1 ]; then $(PYTEST) -p no:benchmark --last-failed; parallel=$$?; fi; \
	$(PYTEST) -m serial $(SERIAL); serial=$$?; \
	[ $$parallel -eq 0 ] && [ $$serial -eq 0 ]

test-quick: $(DEV)/installed  ## the tests that take a minute: not the slow ones, no real cases
	$(PYTEST) $(PARALLEL) -m "not slow and not serial and not data"

guards: $(DEV)/installed  ## the guards at length (an hour): fuzzing, kills, memory, forks, network
	@export FASTBTS_GUARDS=1; $(PYTEST) $(PARALLEL) -m "guard and not serial"; parallel=$$?; \
	$(PYTEST) -m "guard and serial" $(SERIAL); serial=$$?; \
	[ $$parallel -eq 0 ] && [ $$serial -eq 0 ]

versions:  ## test lowest, locked and newest versions of the dependencies, each in its own venv
	PYTHON=$(PYTHON) JOBS=$(JOBS) scripts/versions.sh lowest
	PYTHON=$(PYTHON) JOBS=$(JOBS) scripts/versions.sh locked
	PYTHON=$(PYTHON) JOBS=$(JOBS) scripts/versions.sh newest

coverage: $(DEV)/installed  ## all tests in one process, with a report of the lines not run
	$(PYTEST) --cov --cov-report=term --cov-report=html

# Compile commands only: nothing is built there.
TIDY := build/tidy

lint: $(DEV)/installed $(TIDY)/compile_commands.json  ## formatting, lints, types, layers, stub
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	$(DEV)/bin/python scripts/stubs.py --check
	$(DEV)/bin/clang-format --dry-run --Werror $(CPP)
	$(DEV)/bin/run-clang-tidy.py -clang-tidy-binary $(abspath $(DEV))/bin/clang-tidy -p $(TIDY) -quiet

$(TIDY)/compile_commands.json: $(DEV)/installed CMakeLists.txt $(wildcard csrc/*.cmake)
	$(DEV)/bin/cmake -S . -B $(TIDY) -G Ninja --log-level=WARNING \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(DEV))/bin/ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
	  -DPython_EXECUTABLE=$(abspath $(DEV))/bin/python -DFASTBTS_CUDA=OFF \
	  -Dpybind11_DIR=$$($(DEV)/bin/python -m pybind11 --cmakedir)
	touch $@

format: $(DEV)/installed  ## format Python and C++ and apply ruff's safe corrections
	$(DEV)/bin/ruff check --fix-only .
	$(DEV)/bin/ruff format .
	$(DEV)/bin/clang-format -i $(CPP)

stubs: $(DEV)/installed  ## write fastbts/_C.pyi from the compiled module
	$(DEV)/bin/python scripts/stubs.py

# glibc's malloc keeps freed memory instead of returning it to the system.
KEEP := glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592
BENCH := -m pytest --benchmark-only --benchmark-json

bench: $(DEV)/installed  ## benchmarks; write build/bench and print their tables
	mkdir -p $(RESULTS)
	$(DEV)/bin/python $(BENCH) $(RESULTS)/predict.json benchmarks/bench_predict.py
	$(DEV)/bin/python $(BENCH) $(RESULTS)/ops.json benchmarks/bench_ops.py
	GLIBC_TUNABLES=$(KEEP) $(DEV)/bin/python $(BENCH) $(RESULTS)/ops-tuned.json benchmarks/bench_ops.py
	$(DEV)/bin/python $(BENCH) $(RESULTS)/semantic.json benchmarks/bench_semantic.py
	$(DEV)/bin/python -m benchmarks.make_tables $(RESULTS)

publish-bench:  ## benchmarks; write benchmarks/results and the tables of the READMEs
	$(MAKE) bench RESULTS=benchmarks/results
	$(DEV)/bin/python -m benchmarks.make_tables

# Other programs with the same weights, in an environment of their own. CASE: a folder with the
# images and the segmentation of a real case, for which all is measured again. To leave parts out:
# SELECT="-k 'in_memory and not windows'".
PEERS := build/peers

bench-peers: $(PEERS)/installed  ## compare with MONAI, nnU-Net, torch, ONNX Runtime, OpenVINO
	mkdir -p $(RESULTS)
	$(PEERS)/bin/python $(BENCH) $(RESULTS)/peers.json benchmarks/bench_peers.py \
	  $(if $(CASE),--case $(CASE)) $(SELECT)
	$(PEERS)/bin/python -m benchmarks.make_tables $(RESULTS)

publish-bench-peers:  ## the same; write benchmarks/results, the README's tables and plots
	$(MAKE) bench-peers RESULTS=benchmarks/results
	$(PEERS)/bin/python -m benchmarks.make_tables

$(PEERS)/installed: $(NATIVE) benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check \
	    --requirement benchmarks/peers/requirements.txt
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

# A server without ONNX Runtime, for tests alone; its models run in the developers' install.
TRITON := build/triton

triton-env: $(TRITON)/installed  ## Triton Inference Server for the tests, from PyPI (150 MB)

$(TRITON)/installed: | $(DEV)/installed
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $(TRITON) \
	    nvidia-pytriton==0.7.0
	touch $@

# What `pip install fastbts[dicom,nrrd]` and the build need, with hashes, for all systems and Python
# versions.
lock: $(SUPPLY)/installed  ## write constraints.txt anew, with the newest versions
	printf 'scikit-build-core\npybind11\n' | $(SUPPLY)/bin/uv pip compile pyproject.toml - \
	  --extra dicom --extra nrrd --universal --generate-hashes --no-header --no-annotate \
	  --upgrade --quiet --output-file constraints.txt

audit: $(SUPPLY)/installed  ## look the locked versions up in the database of vulnerabilities
	$(SUPPLY)/bin/pip-audit --require-hashes --requirement constraints.txt

sbom: $(VENV)/installed $(SUPPLY)/installed  ## write build/sbom.json (CycloneDX) of the install
	$(SUPPLY)/bin/cyclonedx-py environment $(VENV)/bin/python --pyproject pyproject.toml \
	  --output-reproducible --output-file build/sbom.json

# Tools alone: not part of the developers' install.
$(SUPPLY)/installed:
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/pip install --quiet --disable-pip-version-check uv pip-audit cyclonedx-bom
	touch $@

# The pages need the package itself: the reference has the help of its commands.
SITE := build/docs

docs: $(SITE)/installed  ## write the documents as a site, build/site; a wrong link is an error
	$(SITE)/bin/mkdocs build --strict

docs-links: docs  ## look at the links to other hosts as well (needs the network)
	$(SITE)/bin/pip install --quiet --disable-pip-version-check LinkChecker
	$(SITE)/bin/linkchecker --check-extern --no-status build/site/index.html

$(SITE)/installed: $(SOURCES)
	@echo "installing into $(SITE): compiles C++ (a minute or two)"
	$(PYTHON) -m venv $(SITE)
	$(call with_dots,$(SITE)/bin/$(PIP_INSTALL) ".[docs]")
	touch $@

pictures: $(VENV)/installed  ## draw the pictures of README and documents from the phantom
	$(VENV)/bin/python scripts/make_pictures.py

hub:  ## write build/hub: engines, cards, licence and checksums, ready for upload
	$(PYTHON) scripts/make_hub.py

wheel:  ## build and repair a wheel, install it where no compiler is, and run the demo there
	PYTHON=$(PYTHON) scripts/check_wheel.sh

install: $(DEV)/installed  ## the developers' install alone, in .venv-dev

# Runs a command that says little, and prints a dot now and then until it ends.
define with_dots
@while sleep 3 > /dev/null 2>&1 && kill -0 $$$$; do printf .; done & dots=$$!; \
trap 'kill $$dots; echo' EXIT; $(1)
endef
DEV_EXTRAS := train,evaluate,test,examples,lint
PIP_INSTALL := pip install --quiet --disable-pip-version-check

# The plain install, as a user makes it: no torch, no development packages.
$(VENV)/installed: $(SOURCES)
	@echo "installing into $(VENV): downloads OpenVINO (60 MB) and compiles C++ (a minute or two)"
	$(PYTHON) -m venv $(VENV)
	$(call with_dots,$(VENV)/bin/$(PIP_INSTALL) .)
	touch $@

# The developers' install: editable, with training, tests and linters.
$(DEV)/installed: $(NATIVE)
	@echo "installing into $(DEV): downloads PyTorch and more (5 GB) and compiles C++; takes minutes"
	$(PYTHON) -m venv $(DEV)
	$(call with_dots,$(DEV)/bin/$(PIP_INSTALL) \
	    --config-settings=cmake.define.FASTBTS_WERROR=ON \
	    --editable ".[$(DEV_EXTRAS)]")
	touch $@

clean:  ## remove environments, builds, caches and outputs of the demo
	rm -rf $(VENV) $(DEV) build demo out htmlcov .coverage
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
