# make demo   build the bundled model for WebGPU and its page, serve them, print the address
# make test   lint, types, unit, parity, native end to end, browser end to end, notebook

PYTHON ?= python3
VENV := .venv/bin/python
PACKAGE := $(shell git ls-files --cached --others --exclude-standard mlc_controlnet tuning_db build.py 2>/dev/null)
PAGE := $(shell git ls-files --cached --others --exclude-standard web 2>/dev/null)

.PHONY: demo test lint python-test web-test clean

demo: dist/site/bundle/manifest.json
	$(VENV) -m mlc_controlnet serve

test: lint web-test python-test
	@echo "all tests passed"

lint: .venv/installed web/node_modules/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	npm --prefix web run --silent lint

# pytest drives everything that needs a build: parity, native end to end, the real Chromium, the notebook.
python-test: .venv/installed web/node_modules/installed
	tests/browser/install_chromium.sh
	$(VENV) -m pytest

web-test: web/node_modules/installed
	npm --prefix web test

dist/site/bundle/manifest.json: .venv/installed web/node_modules/installed $(PACKAGE) $(PAGE)
	$(VENV) build.py --target webgpu

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
