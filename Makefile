# make demo      build the bundled models for WebGPU and their page, serve them, print the address
# make site      the same without serving: dist/site is a folder for any static host (docs/hosting.md)
# make check     lint, types and unit tests: minutes, for every commit
# make test      make check, and builds, parity, native and browser end to end, the notebook: for every change of main
# make test-all  make test, and the tests marked `slow`

PYTHON ?= python3
VENV := .venv/bin/python
WORKERS ?= 2  # test processes; tests/conftest.py divides the cores among them
PYTEST = $(VENV) -m pytest --numprocesses $(WORKERS) --dist loadgroup --max-worker-restart 0
PACKAGE := $(shell git ls-files --cached --others --exclude-standard mlc_controlnet tuning_db build.py 2>/dev/null)
PAGE := $(shell git ls-files --cached --others --exclude-standard web 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: demo site check test test-all lint web-test browsers mesa clean

demo: dist/site/models.json
	$(VENV) -m mlc_controlnet serve

site: dist/site/models.json
	@echo "dist/site is ready for a static host; docs/hosting.md says how"

check: lint web-test
	$(PYTEST) -m "not integration and not slow"

test: lint web-test browsers mesa
	$(PYTEST) -m "not slow"
	@echo "all tests passed"

test-all: lint web-test browsers mesa
	$(PYTEST)

lint: .venv/installed web/node_modules/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	npm --prefix web run --silent lint

browsers:
	tests/browser/install_browsers.sh

mesa:
	tests/bench/install_mesa.sh

web-test: web/node_modules/installed
	npm --prefix web test

# The page opens the model that was built last.
dist/site/models.json: .venv/installed web/node_modules/installed $(PACKAGE) $(PAGE)
	$(VENV) build.py --target webgpu --model circles
	$(VENV) build.py --target webgpu --model doodle

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(VENV) -m pip install --quiet --editable ".[dev]"
	$(VENV) -m pip install --quiet --no-deps "open_clip_torch>=3.3,<4"  # for its data, CLIP's vocabulary; not for its code
	touch $@

web/node_modules/installed: web/package-lock.json
	npm --prefix web ci --no-audit --no-fund
	touch $@

clean:
	rm -rf dist .venv web/node_modules
