# Everything this project does, from a fresh clone: needs Python >= 3.11, git and make, nothing else.
# Environments are made here (.venv, .venv-*) from the locks in requirements/, and only made again when
# what they are made from changes.

# The interpreter; left alone, the first of these that runs and is new enough.
PYTHON ?=
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
# Tools that come as wheels for older interpreters only (grpcio-tools 1.74.0) take the first of these.
OLDER_PYTHONS := python3.13 python3.12 python3.11

VENV ?= .venv
# Tests that run beside each other; those that measure time or memory (marked `alone`) have the machine to themselves.
WORKERS ?= 3
# The oldest supported release, one in between, and the newest that pyproject.toml allows.
GRPCIO ?= 1.74.0 1.78.2 1.85.3
GRPCIO_TESTS ?= tests/transport
# Environments of the benchmarks: what every run needs, and other servers to compare with.
BENCH := yardstick pictures
PEERS := mlserver kserve triton
# Clients that tests/open_inference runs: tritonclient, new and a year old, and perf_analyzer.
OIP := newest older perf
# Families of exporters: make exporters EXPORTERS=trees
EXPORTERS ?= trees torch tensorflow paddle
# Only `make lock` uses it, in an environment of its own.
UV_VERSION := 0.13.8
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Passed on: make serve ARGS="--port 9001", make test ARGS="tests/client -x", make lock ARGS=--upgrade
ARGS ?=

# A file of tests at a time for each of them: tests/support/distribution.py.
BESIDE := -n $(WORKERS)
PIP := -m pip --disable-pip-version-check
IN_PLACE := install -q --no-deps --no-build-isolation -e clients/python -e . -e tools/bench
PROJECTS := pyproject.toml clients/python/pyproject.toml tools/bench/pyproject.toml

# A test run starts some hundred processes. Each would compile Penstock again if Python might not keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check format protos bench bench-peers bench-grpcio browser oip-clients deploy-tools example-tools exporters importing importing-torch importing-keras conformance openapi zoo test-grpcio test-all soak wheels docker lock clean pytest

help:  ## Show this list
	@echo "make TARGET [ARGS=...] [PYTHON=...]"
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1 \2/p' Makefile \
		| while read -r target words; do printf '  %-12s %s\n' "$$target" "$$words"; done

# Started with exec, so that Ctrl-C and SIGTERM reach the server itself and no shell in between.
serve: $(VENV)/.serve  ## Serve the bundled models on 127.0.0.1:8001 (gRPC) and :8002 (operations)
	@exec $(VENV)/bin/penstock serve examples/models $(ARGS)

test: check pytest  ## Check, and run the tests

# With short tracebacks, as CI may keep only the end of what is printed.
pytest: $(VENV)/.dev
	@$(VENV)/bin/python -m pytest $(BESIDE) --tb=short $(ARGS)

check: $(VENV)/.dev  ## Lint, formatting and types
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet . \
		|| { echo "make format puts the formatting right"; exit 1; }
	@$(VENV)/bin/mypy --no-error-summary

format: $(VENV)/.dev  ## Put formatting and the order of imports right
	@$(VENV)/bin/ruff check --quiet --fix --select I .
	@$(VENV)/bin/ruff format .

protos: .venv-protos/.made  ## Generate the stubs from protos/
	@.venv-protos/bin/python protos/generate.py

bench: $(VENV)/.dev $(BENCH:%=.venv-bench/%/.made)  ## Run the benchmarks (ARGS=--quick for a short look)
	@$(VENV)/bin/python -m benchmarks $(ARGS)

bench-peers: $(PEERS:%=.venv-bench/%/.made)  ## Install the peers that `make bench ARGS=--peers` measures

bench-grpcio: $(VENV)/.dev $(GRPCIO:%=.venv-grpcio/%/.made)  ## Compare releases and settings of grpcio
	@$(VENV)/bin/python -m benchmarks.grpcio_versions $(GRPCIO) $(ARGS)

browser: .venv-browser/.made  ## Install what tests/page drives a browser with (the browser: Debian's chromium)

oip-clients: $(OIP:%=.venv-oip/%/.made) .venv-bench/kserve/.made .venv-bench/mlserver/.made  ## Install the clients that tests/open_inference runs

deploy-tools: .venv-deploy/.made  ## Install what tests/deploy reads manifests with

example-tools: .venv-examples/.made  ## Install what the examples with text and events need

# The models of tests/exporters, with each family of exporters in an environment of its own; some are gigabytes.
exporters: $(EXPORTERS:%=.venv-exporters/%/.made)  ## Write the models of tests/exporters again, with the exporters themselves
	@for name in $(EXPORTERS); do \
		.venv-exporters/$$name/bin/python tests/exporters/make.py $$name tests/exporters/models || exit 1; \
	done

test-grpcio: $(GRPCIO:%=.venv-grpcio/%/.made)  ## Run the transport tests on several releases of grpcio
	@for release in $(GRPCIO); do \
		echo "== grpcio $$release"; \
		.venv-grpcio/$$release/bin/python -m pytest $(BESIDE) $(GRPCIO_TESTS) $(ARGS) || exit 1; \
	done

test-all:  ## Run the tests on every Python 3.11 to 3.14 of this machine
	@tried=; for minor in 3.11 3.12 3.13 3.14; do \
		python=$$($(call first_usable,python$$minor $(PYENV)/versions/$$minor*/bin/python3,$$minor)); \
		if [ -z "$$python" ]; then echo "== Python $$minor: not on this machine"; continue; fi; \
		echo "== Python $$minor: $$python"; tried="$$tried $$minor"; \
		$(MAKE) pytest VENV=.venv-$$minor PYTHON="$$python" ARGS="$(ARGS)" || exit 1; \
	done; \
	if [ -z "$$tried" ]; then echo "no Python 3.11 to 3.14 found" >&2; exit 1; fi; \
	echo "== passed on Python$$tried"

importing: .venv-import/.made  ## Import models of every library that it knows, and compare (ARGS=--write for the page)
	@.venv-import/bin/python -W ignore -m tests.importing importing $(ARGS)

importing-torch: .venv-import-torch/.made  ## The same of PyTorch and Transformers; the environment has gigabytes
	@.venv-import-torch/bin/python -m pytest -q tests/importing/test_torch.py tests/importing/test_transformers.py
	@.venv-import-torch/bin/python -W ignore -m tests.importing importing-torch $(ARGS)

importing-keras: .venv-import-keras/.made  ## The same of Keras with TensorFlow; the environment has 2 gigabytes
	@.venv-import-keras/bin/python -m pytest -q tests/importing/test_keras.py
	@.venv-import-keras/bin/python -W ignore -m tests.importing importing-keras $(ARGS)

conformance: $(VENV)/.dev  ## Serve every ONNX backend test case and compare bit for bit (ARGS=--write for the page)
	@$(VENV)/bin/python -m tests.conformance $(ARGS)

openapi: $(VENV)/.dev .venv-openapi/.made  ## Try everything that /openapi.json says with schemathesis (ARGS='-n 50')
	@$(VENV)/bin/python -m tests.openapi $(ARGS)

zoo: $(VENV)/.dev  ## Fetch real models, serve each and compare every answer (ARGS=--write for the page)
	@$(VENV)/bin/python -m tests.zoo $(ARGS)

soak: $(VENV)/.dev  ## Run the long tests
	@$(VENV)/bin/python -m pytest -m soak --timeout 0 $(ARGS)

# Each in its own folder, as each is a project; hatch_build.py has the variable.
wheels: $(VENV)/.locked  ## Build penstock, its client and its load tool into dist/: wheels and source distributions
	@for folder in clients/python . tools/bench; do \
		(cd $$folder && PENSTOCK_BUILD_FOR_OTHERS=1 $(abspath $(VENV))/bin/python -m hatchling build \
			--directory $(CURDIR)/dist $(ARGS)) || exit 1; \
	done

docker:  ## Build the container image
	docker build --build-arg VERSION=$(VERSION) --tag penstock:$(VERSION) $(ARGS) .

# The distributions of this tree are installed from it, so no lock names them.
LOCK_ANY = PENSTOCK_BUILD_FOR_OTHERS=1 .venv-lock/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-package penstock --no-emit-package penstock-client \
	--custom-compile-command "make lock" $(ARGS)
LOCK = $(LOCK_ANY) --universal
# The peers are only run where the benchmarks are, and one of them has wheels for nothing else.
LOCK_HERE = $(LOCK_ANY) --python-platform x86_64-manylinux_2_35

lock: .venv-lock/.made  ## Pin the dependencies again (ARGS=--upgrade for the newest)
	@echo "pinning requirements/*.txt"
	@$(LOCK) pyproject.toml tools/bench/pyproject.toml --extra docs --group dev -o requirements/dev.txt
	@$(LOCK) pyproject.toml -c requirements/dev.txt -o requirements/serve.txt
	@$(LOCK) --group build -c requirements/dev.txt -o requirements/build.txt
	@$(LOCK) --group protos -o requirements/protos.txt
	@$(LOCK) requirements/deploy.in -o requirements/deploy.txt
	@$(LOCK) requirements/examples.in -c requirements/dev.txt -o requirements/examples.txt
	@for name in $(BENCH); do $(LOCK) requirements/bench-$$name.in -o requirements/bench-$$name.txt || exit 1; done
	@for name in $(PEERS); do \
		$(LOCK_HERE) requirements/bench-$$name.in -o requirements/bench-$$name.txt || exit 1; \
	done
	@for name in newest older; do $(LOCK) requirements/oip-$$name.in -o requirements/oip-$$name.txt || exit 1; done
	@$(LOCK) pyproject.toml --extra import --group dev requirements/import.in -c requirements/dev.txt \
		-o requirements/import.txt
	@$(LOCK_HERE) requirements/oip-perf.in -o requirements/oip-perf.txt
	@$(LOCK) requirements/openapi.in -o requirements/openapi.txt
	@$(LOCK) requirements/browser.in -o requirements/browser.txt

clean:  ## Remove environments, caches and builds
	@rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments; each stamp file says that a step is done -----------------------------------------

PYENV = $(or $(shell pyenv root 2>/dev/null),$(PYENV_ROOT),$(HOME)/.pyenv)

# Shell that prints the first of the interpreters $(1) that really runs (a shim may be there and fail), is
# at least 3.11 and can make environments; with $(2), only one of that minor version.
IS_USABLE := import ensurepip, sys, venv; version = "%d.%d" % sys.version_info[:2]; \
	sys.exit(sys.version_info < (3, 11) or sys.argv[1] not in ("", version))
define first_usable
for candidate in $(1); do \
	if "$$candidate" -c '$(IS_USABLE)' "$(2)" >/dev/null 2>&1; then command -v "$$candidate"; break; fi; \
done
endef

# Makes the environment $(1) with the first interpreter of $(2).
define make_venv
	@python=$$($(call first_usable,$(or $(PYTHON),$(2)))); \
	if [ -z "$$python" ]; then \
		echo "no Python >= 3.11 with venv among: $(or $(PYTHON),$(2))" >&2; \
		echo "install one, or say where one is: make PYTHON=/path/to/python3 ..." >&2; \
		exit 1; \
	fi; \
	echo "making $(1) with $$python"; \
	"$$python" -m venv $(1)
endef

$(VENV)/.made:
	$(call make_venv,$(VENV),$(PYTHONS))
	@touch $@

$(VENV)/.locked: $(VENV)/.made requirements/serve.txt requirements/build.txt
	@echo "installing what serving needs"
	@$(VENV)/bin/python $(PIP) install -q --require-hashes -r requirements/serve.txt -r requirements/build.txt
	@touch $@

$(VENV)/.serve: $(VENV)/.locked $(PROJECTS)
	@echo "installing penstock, its client and its load tool in place"
	@$(VENV)/bin/python $(PIP) $(IN_PLACE)
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.txt
	@echo "installing what the tests need"
	@$(VENV)/bin/python $(PIP) install -q --require-hashes -r requirements/dev.txt
	@touch $@

.venv-deploy/.made .venv-examples/.made: .venv-%/.made: requirements/%.txt
	$(call make_venv,.venv-$*,$(PYTHONS))
	@echo "installing what tests/$* needs"
	@.venv-$*/bin/python $(PIP) install -q --require-hashes -r requirements/$*.txt
	@touch $@

.venv-protos/.made: requirements/protos.txt
	$(call make_venv,.venv-protos,$(OLDER_PYTHONS) python3)
	@echo "installing the compiler of the protos"
	@.venv-protos/bin/python $(PIP) install -q --require-hashes -r requirements/protos.txt
	@touch $@

.venv-lock/.made:
	$(call make_venv,.venv-lock,$(PYTHONS))
	@.venv-lock/bin/python $(PIP) install -q uv==$(UV_VERSION)
	@touch $@

# With the interpreter that Penstock itself runs on, so that they compare; the peers with the one they are pinned for.
.venv-bench/%/.made: requirements/bench-%.txt
	$(call make_venv,.venv-bench/$*,$(if $(filter $*,$(PEERS)),python3.11,$(PYTHONS)))
	@echo "installing $* for the benchmarks"
	@.venv-bench/$*/bin/python $(PIP) install -q --require-hashes -r requirements/bench-$*.txt
	@touch $@

# The older client's grpcio has wheels for older interpreters only; perf_analyzer is pinned for one.
.venv-oip/%/.made: requirements/oip-%.txt
	$(call make_venv,.venv-oip/$*,$(if $(filter $*,perf),python3.11,$(OLDER_PYTHONS) python3))
	@echo "installing $* for tests/open_inference"
	@.venv-oip/$*/bin/python $(PIP) install -q --require-hashes -r requirements/oip-$*.txt
	@touch $@

# Other libraries' models, beside what the tests need.
.venv-import/.made: requirements/import.txt $(PROJECTS)
	$(call make_venv,.venv-import,$(OLDER_PYTHONS) python3)
	@echo "installing the libraries that penstock import knows"
	@.venv-import/bin/python $(PIP) install -q --require-hashes -r requirements/import.txt
	@.venv-import/bin/python $(PIP) $(IN_PLACE)
	@touch $@

# A framework beside what the tests need; no lock has it, since its wheels differ from machine to machine.
.venv-import-torch/.made .venv-import-keras/.made: .venv-import-%/.made: requirements/import-%.in requirements/dev.txt $(PROJECTS)
	$(call make_venv,.venv-import-$*,python3.11)
	@echo "installing $* for tests/importing"
	@.venv-import-$*/bin/python $(PIP) install -q --require-hashes -r requirements/dev.txt
	@.venv-import-$*/bin/python $(PIP) install -q -r requirements/import-$*.in
	@.venv-import-$*/bin/python $(PIP) $(IN_PLACE)
	@touch $@

.venv-openapi/.made: requirements/openapi.txt
	$(call make_venv,.venv-openapi,$(PYTHONS))
	@echo "installing schemathesis"
	@.venv-openapi/bin/python $(PIP) install -q --require-hashes -r requirements/openapi.txt
	@touch $@

.venv-browser/.made: requirements/browser.txt
	$(call make_venv,.venv-browser,$(PYTHONS))
	@echo "installing Playwright for tests/page"
	@.venv-browser/bin/python $(PIP) install -q --require-hashes -r requirements/browser.txt
	@touch $@

# With the interpreter that they have wheels for.
.venv-exporters/%/.made: requirements/exporters-%.in
	$(call make_venv,.venv-exporters/$*,python3.11)
	@echo "installing the exporters of $*"
	@.venv-exporters/$*/bin/python $(PIP) install -q -r requirements/exporters-$*.in
	@touch $@

# The locked environment first, then grpcio at the wanted release, and the packages made from the same source. Not
# all of them have every patch release, so they come at the newest of the same minor release.
GRPC_PACKAGES := grpcio-health-checking grpcio-reflection grpcio-status grpcio-tools
.venv-grpcio/%/.made: requirements/dev.txt $(PROJECTS)
	$(call make_venv,.venv-grpcio/$*,$(OLDER_PYTHONS) python3)
	@echo "installing the tests with grpcio $*"
	@.venv-grpcio/$*/bin/python $(PIP) install -q --require-hashes -r requirements/dev.txt
	@.venv-grpcio/$*/bin/python $(PIP) install -q --prefer-binary grpcio==$* \
		$(foreach package,$(GRPC_PACKAGES),'$(package)>=$(basename $*),<=$*')
	@.venv-grpcio/$*/bin/python $(PIP) $(IN_PLACE)
	@touch $@
