# Everything a newcomer or a CI machine types.  `make demo` and `make test` set up all they need:
# system packages (as root, on Debian or Ubuntu), a virtual environment, the extension.
#
#   make demo        archive this Python's standard library into a store, restore it, compare
#   make test        the test suite                 make test PYTEST_ARGS='-k ring -x'
#   make lint types c-warnings wheel-check          what .ci/run checks besides
#   make bench       every measure and sweep: results, plots and a page in benchmarks/   BENCH_DIR=/mnt/disk
#   make bench-memory   measures on a disk in memory (as root), printed only   BENCH_ARGS='--measure 4,5 --budget 60'
#   make torture     the fault rows at release figures: SECONDS=1200 SEED=1 ROWS=2,3
#   make test-ceph   the stores in buckets on a Ceph of this machine, which it installs as root: five minutes
#   make valgrind    the C half's own tests under memcheck (a minute or two)
#   make clean       remove everything made here
#
#   WORKERS=0               one test after the other, in one process
#   PYTHON=python3.12       another interpreter (make clean first)
#   URINGBLOB_EXT=optional  go on without the extension: the pread engine works everywhere

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# Two workers more than there are processors: tests of kills, children and real disks mostly wait.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
DEMO_ARGS ?=
# A real disk where /tmp is not; the results go to benchmarks/.
BENCH_DIR ?= /var/tmp
BENCH_ARGS ?=
SECONDS ?= 1200
SEED ?= 1
ROWS ?=
TORTURE_ARGS ?=

# Where there can be an io_uring, its extension must build; elsewhere it is left out.
ifeq ($(shell uname -s),Linux)
URINGBLOB_EXT ?= require
else
URINGBLOB_EXT ?= optional
endif
export URINGBLOB_EXT

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
NATIVE := src/uringblob/_native
C_FILES := $(wildcard $(NATIVE)/ub_*.c)
BUILD_INPUTS := pyproject.toml benchmarks/pyproject.toml $(wildcard setup.py build_ffi.py $(NATIVE)/*.h) $(C_FILES)
LINTED := src tests benchmarks examples tools docs $(wildcard *.py)

.PHONY: bench bench-memory demo docs test test-ceph torture valgrind lint format types c-warnings wheel wheel-check clean setup dev
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(PY) examples/archive.py $(DEMO_ARGS)

bench: $(VENV)/.bench
	$(PY) -m uringblob_bench $(BENCH_DIR) --output benchmarks --readme benchmarks/README.md $(BENCH_ARGS)

# What the software costs, in a minute: nothing is kept of it.
bench-memory: $(VENV)/.bench
	$(PY) -m uringblob_bench --media memory --no-sweeps --rounds 3 $(BENCH_ARGS)

test: $(VENV)/.bench
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# The tests of buckets, against a gateway that is started for them and removed afterwards.
CEPH_DIR := /var/tmp/uringblob-ceph
test-ceph: $(VENV)/.tests
	./tools/ceph.sh install
	./tools/ceph.sh down $(CEPH_DIR)
	trap './tools/ceph.sh down $(CEPH_DIR)' EXIT; \
	endpoint=$$(./tools/ceph.sh up $(CEPH_DIR)) && \
	URINGBLOB_CEPH=$$endpoint URINGBLOB_CEPH_DIR=$(CEPH_DIR) $(PY) -m pytest -m ceph tests/remote $(PYTEST_ARGS)

# tests/torture/__init__.py says how a row comes in.
torture: $(VENV)/.tests
	PYTHONPATH=tests $(PY) -m torture --seconds $(SECONDS) --seed $(SEED) --rows '$(ROWS)' $(TORTURE_ARGS)

# Fails if an error has a frame of the extension; as root on Debian or Ubuntu it gets valgrind.
valgrind: $(VENV)/.tests
	VALGRIND=1 ./tools/system_packages.sh $(PYTHON)
	$(PY) tools/valgrind_check.py

setup: $(VENV)/.tests

dev: $(VENV)/.dev

# Stamps: each step runs once, and again when what it was made from changes.
$(VENV)/.created: tools/system_packages.sh
	./tools/system_packages.sh $(PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The library and its two dependencies: all that the demo needs.
$(VENV)/.installed: $(VENV)/.created $(BUILD_INPUTS)
	@echo "setting up $(VENV) (once; some seconds)"
	$(PIP) install --quiet --editable .
	@touch $@

# In one installation with it where neither is there yet: the extension is built once.  The second try is
# for a machine where a peer of the benchmark cannot be had.
$(VENV)/.tests: $(VENV)/.created $(BUILD_INPUTS)
	TEST_PACKAGES=1 ./tools/system_packages.sh $(PYTHON)
	@echo "setting up $(VENV) for the tests (once; half a minute or so)"
	$(PIP) install --quiet --editable '.[test-buckets]' --editable './benchmarks[peers]' || \
		$(PIP) install --quiet --editable '.[test-buckets]' --editable ./benchmarks
	@touch $(VENV)/.installed $@

# fio, strace and the peers that were not installed above: where one is missing, the benchmark's tests of it
# skip, and its results say so.
$(VENV)/.bench: $(VENV)/.tests tools/bench_packages.sh
	./tools/bench_packages.sh $(PY)
	@touch $@

$(VENV)/.dev: $(VENV)/.tests
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

lint: $(VENV)/.dev
	$(PY) -m ruff check $(LINTED)
	$(PY) -m ruff format --check $(LINTED)

format: $(VENV)/.dev
	$(PY) -m ruff check --fix $(LINTED)
	$(PY) -m ruff format $(LINTED)

types: $(VENV)/.dev
	$(PY) -m mypy --strict
	$(PY) -m mypy --strict --disallow-any-expr --config-file= tests/typing/user_program.py

# The hand-written C, under every compiler that is here; generated code is not ours to judge.
c-warnings: $(VENV)/.created
	./tools/c_warnings.sh $(C_FILES)

# From the sdist, so that a file missing from MANIFEST.in fails here.  On Linux the wheel gets the
# oldest manylinux tag that its symbols allow, so that an installer elsewhere takes it.
wheel: $(VENV)/.dev
	rm -rf build dist
	./tools/build_wheel.sh $(PY) dist > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@ls dist

wheel-check: wheel
	$(PY) tools/wheel_check.py dist

# Branch coverage of the whole suite, child processes included; fails below 95 %, and where a place
# was not reached that docs/maintainers/coverage.md does not list.  A tracer makes everything two to four times
# slower, so a test has more time, and the simulated rows look at fewer images (tests/sim/settings.py).
coverage: $(VENV)/.dev $(VENV)/.bench
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -n $(WORKERS) --dist worksteal \
		--timeout 1500 -o faulthandler_timeout=1200 $(PYTEST_ARGS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report
	$(PY) -m coverage json --quiet -o $(VENV)/coverage.json
	$(PY) tools/unreached.py $(VENV)/coverage.json

# Warnings are errors: a link that leads nowhere, a docstring that does not parse.
docs: $(VENV)/.docs
	$(PY) -m sphinx -b html -W --keep-going -q docs build/docs
	@echo "build/docs/index.html"

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) install --quiet --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist benchmarks/build .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info benchmarks/src/*.egg-info
	rm -f $(NATIVE)/_uringblob*.so $(NATIVE)/_uringblob.c
	find src tests benchmarks examples tools -name __pycache__ -type d -prune -exec rm -rf {} +
