# Needs make, git and Python 3.11 or newer; everything else is set up in .venv at the first use.
# `make` alone lists the words. Settings come from the environment: `make run PORT=8001`.

PYTHON ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run setup check format lint types test test-long audit bench schema migration lock FORCE

help: ## list these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'PYTHON=python3.13 chooses the Python that .venv is made with.'

run: .venv/run.stamp ## serve on http://localhost:8000, with the data in ./identity.db
	@$(BIN)/python -m identity_graphql serve

setup: .venv/dev.stamp ## make .venv for development: locked tools, and the program itself, editable
	@echo 'Ready: make check, make test, $(BIN)/identity-graphql --help.'

check: .venv/dev.stamp ## lint, formatting, types (mypy strict), and which room may import which
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: .venv/dev.stamp ## format the code
	$(BIN)/python -m ruff format .

lint: .venv/dev.stamp ## lint the code, mending what can be mended
	$(BIN)/python -m ruff check --fix .

# Every core runs tests, with database servers of its own.
PYTEST = $(BIN)/python -m pytest -n auto --dist worksteal

test: .venv/dev.stamp ## run all tests on every database; one file or test: make test ARGS='tests/test_cli.py -k help'
	$(PYTEST) $(ARGS)

test-long: .venv/dev.stamp ## run what takes minutes, and the random tests with many more examples
	TEST_LONG=1 $(PYTEST) -m 'long or deep' $(ARGS)

audit: .venv/dev.stamp ## audit the running program's GraphQL over HTTP (needs Node.js and npm)
	@$(BIN)/python -m tests.audit

bench: .venv/dev.stamp ## measure, and keep the table in benchmarks/RESULTS.md; others: make bench ARGS='hot edges'
	@$(BIN)/python -m benchmarks $(ARGS)

schema: .venv/dev.stamp ## write schema.graphql from the code
	@$(BIN)/python -m identity_graphql schema > schema.graphql.new
	@mv schema.graphql.new schema.graphql

migration: .venv/dev.stamp ## write a migration for what changed in tables.py: make migration m="what it does"
	@test -n "$(m)" || { echo 'Say what it does: make migration m="add a country to contacts"' >&2; exit 1; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && export DATABASE_URL="sqlite:///$$folder/identity.db" && \
	$(BIN)/python -m alembic upgrade head && $(BIN)/python -m alembic revision --autogenerate -m "$(m)"

COMPILE = $(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"
lock: ## pin what pyproject.toml asks for in requirements*.txt, with hashes
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) --group build -o requirements-build.txt
	$(COMPILE) --group client -o tests/client/requirements.txt
	$(COMPILE) pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt

.venv/run.stamp: .venv/pyvenv.cfg requirements.txt
	@echo 'Installing what the program needs into .venv (only this once) ...'
	@$(PIP) install -q --require-hashes -r requirements.txt
	@touch $@

.venv/dev.stamp: .venv/pyvenv.cfg requirements-dev.txt pyproject.toml
	@echo 'Installing the program and its tools into .venv (only this once) ...'
	@$(PIP) install -q --require-hashes -r requirements-dev.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

# Made again where it is broken (its Python is gone, or somebody pulled the plug), and where PYTHON names another.
.venv/pyvenv.cfg: FORCE
	@version='import sys; print("%d.%d" % sys.version_info[:2])'; \
	if $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  test -n "$(PYTHON)" || exit 0; \
	  test "$$("$(PYTHON)" -c "$$version" 2>/dev/null)" != "$$($(BIN)/python -c "$$version")" || exit 0; \
	fi; \
	if test -n "$(PYTHON)"; then set -- "$(PYTHON)"; else set -- python3.13 python3.12 python3.11 python3; fi; \
	chosen=; bare=; old=; \
	for python in "$$@"; do \
	  found=$$("$$python" -c "$$version" 2>/dev/null) || continue; \
	  if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then old="$$python is Python $$found"; \
	  elif ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then bare=$${bare:-$$python}; \
	  else chosen=$$python; break; fi; \
	done; \
	if test -n "$$chosen"; then "$$chosen" -m venv --clear .venv; \
	elif test -n "$$bare"; then \
	  echo "$$bare lacks the module venv or ensurepip: install it (Debian and Ubuntu: apt-get install python3-venv)," \
	    "or name another Python: make run PYTHON=/path/to/python" >&2; exit 1; \
	else \
	  echo "Python 3.11 or newer is needed, but $${old:-there is none by the name of $$*}:" \
	    "install one, or name it: make run PYTHON=/path/to/python" >&2; exit 1; \
	fi
