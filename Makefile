# Everything a person needs, by name. `make demo` and `make test` work on a fresh machine with Python 3.11+, make, a C
# compiler and git; the lab needs Debian or Ubuntu and root.
SHELL := /bin/bash
UV := .uv/bin/uv
PY := .venv/bin/python
export UV_PROJECT_ENVIRONMENT := .venv

.PHONY: demo lab lab-down lab-status test check bench docs clean

$(UV):
	@echo "setting up uv …"
	@python3 -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

.venv/.platform: $(UV) pyproject.toml uv.lock native/src/*.[ch]
	@echo "installing the platform's dependencies …"
	@$(UV) sync --quiet --frozen --inexact --extra platform
	@touch $@

.venv/.test: .venv/.platform
	@echo "installing what the tests need …"
	@$(UV) sync --quiet --frozen --inexact --extra platform --extra test
	@touch $@

.venv/.docs: .venv/.platform
	@$(UV) sync --quiet --frozen --inexact --extra platform --extra docs
	@touch $@

demo: .venv/.platform $(if $(LAB),.venv/.test)
	@.venv/bin/heroes demo $(if $(ONCE),--once) $(if $(LAB),--lab)

lab: .venv/.test
	@$(PY) -m tests.lab up

lab-down: .venv/.test
	@$(PY) -m tests.lab down

lab-status: .venv/.test
	@$(PY) -m tests.lab status

test: .venv/.test
	@tests/run.sh

check: .venv/.test
	@.venv/bin/ruff format --check --quiet . || { echo "run: .venv/bin/ruff format ."; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) -m pytest -q -p no:randomly tests/unit/test_docs.py tests/unit/cli/test_app.py::test_the_page_is_in_step

bench: .venv/.test
	@$(PY) -m tests.bench $(BENCH)

docs: .venv/.docs
	@.venv/bin/mkdocs build --quiet --strict
	@echo "the documentation is in site/index.html"

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis site
