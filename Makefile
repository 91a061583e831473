# make demo    virtual environment, install, demo.mp4
# make test    the same with the packages of the tests, then the tests
# make test-ray  the tests of clusters, with Ray: 360 MB and some minutes more
# make lint    ruff (format and rules) and mypy
# make gpu-kit  build/gpu-kit: the proof for another machine's card, with pycuda for PYTHON_ON_CARD
# make sanitize  the kernels' tests on a library with AddressSanitizer and UBSan
#
# The environment is .venv. Stamp files in it record what is installed, so a second run is fast.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3 2>/dev/null))
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

# An install is out of date when one of these is newer than its stamp.
INPUTS := pyproject.toml setup.py constraints.txt $(wildcard kernels/*.cpp kernels/*.h kernels/build.py kernels/cuda/*.cuh)

# Some images set it. Tests start hundreds of processes, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-ray landmarker lint sanitize gpu-kit clean
.DELETE_ON_ERROR:

demo: demo.mp4

demo.mp4: $(VENV)/.base FORCE
	$(BIN)/lipstream demo -o $@

test: $(VENV)/.dev landmarker
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-ray: $(VENV)/.dev
	$(PIP) -e '.[calibrate,dev,ray]'
	$(BIN)/python -m pytest tests/streaming/batch tests/streaming/cluster

# Has no stamp: a download that failed is tried again, and one that is here takes a second.
landmarker: $(VENV)/.dev
	@$(BIN)/lipstream assets fetch || echo "the face landmarker is missing: tests of calibration are skipped" >&2

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Python itself has no sanitizer in it, so the runtime comes first, by LD_PRELOAD.
sanitize: $(VENV)/.dev
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/python kernels/build.py --sanitize "$$folder/_cpu.so" && \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LIPSTREAM_SANITIZED_KERNELS="$$folder/_cpu.so" \
	$(BIN)/python -m pytest tests/kernels

PYTHON_ON_CARD ?= $(BIN)/python

gpu-kit: $(VENV)/.base
	rm -rf build/gpu-kit
	$(BIN)/python -m lipstream.bench.gpu.kit -o build/gpu-kit --python $(PYTHON_ON_CARD)

clean:
	rm -rf $(VENV) build dist *.egg-info demo.mp4

.PHONY: FORCE
FORCE:

# pip is the last thing that venv makes: an environment without it is half made, and is made anew.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "no Python found: install python3.11 (3.11 or newer)" >&2; exit 1; }
	@.ci/system-packages base $(PYTHON)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	{ rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.base: $(VENV)/.made $(INPUTS)
	@echo "installing: a download of 330 MB, 1.1 GB on disk, about three minutes" >&2
	$(PIP) -e '.[calibrate]'
	@touch $@

# Everything at once: kernels are compiled at each install. Of the packages, 6913 modules, the tests
# compile those that they import.
$(VENV)/.dev: $(VENV)/.made $(INPUTS)
	@.ci/system-packages test $(PYTHON)
	$(PIP) --no-compile -e '.[calibrate,dev,remote]'
	@touch $(VENV)/.base $@
