PYTHON ?= python3
VENV ?= .venv
# Each worker compiles on its own; two keep a small machine busy and within its memory.
TEST_WORKERS ?= 2

PY := $(VENV)/bin/python
# Python compiles a module when it is first imported, and most of those installed never are.
INSTALL := $(PY) -m pip install --no-compile --constraint constraints.txt --editable
PYTEST := $(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal
PINS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help train test test-slow test-smoke test-all check format docs notebook dist constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s  %s\n", $$1, $$2}' Makefile

train: $(VENV)/.run  ## train MBPO on Gymnasium's InvertedPendulum-v5 (CPU, minutes)
	$(VENV)/bin/mbpo-jax train gym/InvertedPendulum-v5

# A file's tests share compiled functions, so a worker takes whole stretches of the tests, and of
# another's stretch one half when its own is done.
test: $(VENV)/.dev  ## run the tests but the slow ones
	$(PYTEST) -m 'not slow and not exhaustive'

test-slow: $(VENV)/.dev  ## run the slow tests: every algorithm learns, every backend, kill and resume
	$(PYTEST) -m 'slow and not exhaustive'

test-smoke: $(VENV)/.dev  ## run what another line of JAX would break first
	$(PYTEST) -m 'smoke and not slow and not exhaustive'

test-all: $(VENV)/.dev  ## run all tests, with every parameter, whole presets, SLURM: an hour or two
	$(PYTEST)

check: $(VENV)/.dev  ## lint, check the format and the types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/.dev  ## mend what ruff can mend
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: $(VENV)/.docs  ## build the site into site/, which opens from there; fails on a broken link
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

notebook: $(VENV)/.docs  ## make docs/tour.ipynb of docs/tour.md, executed: minutes
	$(PY) -m docs.site.notebook

dist: $(VENV)/.dev  ## build what is released into dist/: a wheel, and the source it is made from
	rm -rf dist
	$(PY) -m build

clean:  ## delete environments, caches and build products; runs/ stays
	rm -rf $(VENV) .venv-* .cache .pytest_cache .ruff_cache .hypothesis dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo '$(PYTHON) is missing or older than Python 3.11, which mbpo_jax needs.'; \
	  echo 'Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '$(PYTHON) cannot create virtual environments: its modules venv and ensurepip are missing.'; \
	  echo 'Install them (Debian, Ubuntu: apt install python3-venv) and run make again.'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.created $(PINS)
	$(INSTALL) .
	@touch $@

$(VENV)/.dev: $(VENV)/.created $(PINS)
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/.run

$(VENV)/.docs: $(VENV)/.created $(PINS)
	$(INSTALL) '.[docs]'
	@touch $@ $(VENV)/.run

# The newest releases on both lines of JAX; what they agree on is pinned without a marker.
constraints: .venv-3.11/pins .venv-3.12/pins  ## pin the newest releases (needs python3.11, python3.12)
	@echo '# Every package of `.[dev,docs]`, for both lines of JAX. Written by `make constraints`.' > $@.txt
	@{ LC_ALL=C comm -12 $^; \
	  LC_ALL=C comm -23 $^ | sed 's/$$/ ; python_version < "3.12"/'; \
	  LC_ALL=C comm -13 $^ | sed 's/$$/ ; python_version >= "3.12"/'; \
	} | LC_ALL=C sort --ignore-case >> $@.txt

.venv-%/pins: FORCE
	python$* -m venv --clear $(@D)
	$(@D)/bin/python -m pip install '.[dev,docs]'
	$(@D)/bin/python -m pip freeze --exclude mbpo-jax | LC_ALL=C sort > $@

FORCE:
