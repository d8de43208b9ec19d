# make run    set up, start everything, import one sample model into a folder and stay up (MODEL=org/name for another)
# make test   set up and pass every test
# The rest: install, up, check, lint fixes (fmt), docs, web, web-test, screenshots, compose-test, bench, soak, lock, clean.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
MODEL  ?= $(if $(HF_ENDPOINT),hf-internal-testing/tiny-random-gpt2,sample/tiny-bert)
PIP     = $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install install-dev run up check fmt docs test compose-test bench soak lock clean browser swift codegen web web-test screenshots

help:
	@sed -n '1,3s/^# //p' Makefile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Stowage needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

run: install
	@$(BIN)/stowage up --import $(MODEL)

up: install
	@$(BIN)/stowage up

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install-dev
	$(BIN)/python -m stowage.reference docs
	$(BIN)/python -m manager.graphql.reference docs

# tests/browser drives Debian's Chromium. With CI set it fails without one, elsewhere it is skipped.
browser:
	@[ -n "$$STOWAGE_CHROMIUM" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "no chromium could be installed: tests/browser will be skipped (apt-get install chromium)"

# The S3 server of the tests, in an environment of its own: Swift pins what Stowage does not want.
.venv-swift/.installed: docker/swift/requirements.lock
	$(PYTHON) -m venv --clear .venv-swift
	.venv-swift/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --requirement docker/swift/requirements.lock
	@touch $@

swift: .venv-swift/.installed

# What generates the typed client of the tests: it wants an older graphql-core than Stowage does.
.venv-codegen/.installed: tests/graphql/codegen/requirements.lock
	$(PYTHON) -m venv --clear .venv-codegen
	.venv-codegen/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --requirement tests/graphql/codegen/requirements.lock
	@touch $@

codegen: .venv-codegen/.installed

# The Model Store page, manager/webui/app. Its built files are committed: only whoever changes it needs Node.
WEB = manager/webui/app

$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	cd $(WEB) && npm ci --ignore-scripts
	@touch $@

web:
	cd $(WEB) && npm ci --ignore-scripts && npm run build

# With CI set it fails without Node and its packages, elsewhere it is skipped.
web-test:
	@if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null; \
	then why="Node 20.19 or newer is not there"; \
	elif ! $(MAKE) --no-print-directory $(WEB)/node_modules/.package-lock.json; then why="its packages could not be fetched"; \
	else cd $(WEB) && exec npm test; fi; \
	if [ -n "$$CI" ]; then echo "web-test: $$why"; exit 1; else echo "web-test: skipped, $$why"; fi

# Pictures of every view of the Model Store page, for README and docs.
screenshots: install-dev browser
	$(BIN)/python -m tests.browser.screenshots docs/images

# Most tests wait for processes and sockets: three workers keep two cores busy. tests/packing.py says what stays together.
test: install-dev browser swift codegen web-test
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

# Builds the image and runs docker-compose.yml with a name and a port of its own; skipped where no engine answers.
compose-test: install-dev browser
	@if docker info >/dev/null 2>&1; then STOWAGE_COMPOSE_TEST=1 $(BIN)/python -m pytest tests/compose --timeout 900; \
	else echo "compose-test: skipped, no container engine answers to docker info"; fi

# Stowage beside curl, aria2c, the official client and a plain loop (benchmarks/README.md). BENCH="--quick --case small"
# passes options on, BENCH=--quick is done in ten minutes. The rest wants an hour, a quiet machine and 25 GB of disk.
bench: install-dev swift
	@command -v nginx >/dev/null && command -v aria2c >/dev/null && command -v curl >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends nginx-light aria2 curl openssl >/dev/null; } || \
	  { echo "make bench needs nginx, aria2c, curl and openssl: apt-get install nginx-light aria2 curl openssl"; exit 1; }
	$(BIN)/python -m benchmarks $(BENCH)

soak: install-dev swift codegen
	$(BIN)/python -m pytest -m soak --timeout 3600

lock: install-dev
	@command -v uv >/dev/null || { echo "make lock needs uv (pip install uv)"; exit 1; }
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --group build -o requirements.lock
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --group build --group dev -o requirements-dev.lock

clean:
	rm -rf $(VENV) .venv-swift .venv-codegen $(WEB)/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench
