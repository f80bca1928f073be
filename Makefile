# PYTHON names the Python that .venv is made with, 3.11 or newer.
PYTHON ?= python3
export PYTHON

# TESTS names modules, classes or methods: make test TESTS=tests.system.test_servers
TESTS ?= tests

# OPTIONS are for run, picture, simulate and bench: make run OPTIONS=--help
OPTIONS ?=

python := .venv/bin/python

.PHONY: help run picture unit test simulate bench docs deb lint format clean

help:
	@echo 'make run      two InfluxDB servers and the relay before them, until Ctrl-C'
	@echo 'make picture  two of everything behind load balancers, with a table: kill parts and watch'
	@echo 'make unit     the tests that need no servers'
	@echo 'make test     lint, then all tests with their coverage; TESTS=tests.system.test_servers runs some'
	@echo 'make simulate a million schedules of backends, disks and processes that fail; a seed that breaks a promise is printed'
	@echo 'make bench    how fast it is beside nginx and InfluxDB itself; OPTIONS=--help tells more'
	@echo 'make docs     the documentation as web pages in build/docs'
	@echo 'make deb      a package for Debian, with a virtual environment of its own, in dist'
	@echo 'make lint     ruff, mypy, import-linter'
	@echo 'make format   let ruff format the code'
	@echo 'make clean    remove all that these commands have made'
	@echo
	@echo 'They make .venv (PYTHON=python3.12 chooses another Python) and install missing Debian packages.'

run: .venv/installed
	@tools/setup.sh packages run
	@$(python) -m tools.run $(OPTIONS)

picture: .venv/installed
	@tools/setup.sh packages picture
	@$(python) -m tools.picture $(OPTIONS)

test: lint
	@tools/setup.sh packages test
	@$(python) -m tools.run_tests --coverage $(TESTS)

unit: .venv/installed-dev
	@$(python) -m tools.run_tests tests.unit tests.simulation.test_quick

simulate: .venv/installed-dev
	@$(python) -m tests.simulation.settle --count 900000 $(OPTIONS)
	@$(python) -m tests.simulation.queue --count 100000 $(OPTIONS)
	@$(python) -m tests.simulation.health --count 10000
	@$(python) -m tests.simulation.reload --count 10000
	@$(python) -m tests.simulation.filter --count 10000

bench: .venv/installed
	@tools/setup.sh packages bench
	@$(python) -m bench $(OPTIONS)

docs: .venv/installed-dev
	@$(python) -m sphinx -W --keep-going -q -b html docs build/docs
	@echo 'build/docs/index.html'

deb: .venv/installed
	@tools/setup.sh packages deb
	@tools/deb.sh

lint: .venv/installed-dev
	$(python) -m ruff check --quiet
	$(python) -m ruff format --check --quiet
	$(python) -m mypy
	.venv/bin/lint-imports --no-cache --no-logo

format: .venv/installed-dev
	$(python) -m ruff check --fix-only --quiet
	$(python) -m ruff format

clean:
	rm -rf .venv .run _trial_temp* .coverage* .hypothesis .mypy_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

.venv/installed: pyproject.toml tools/setup.sh
	@tools/setup.sh venv
	@touch $@

.venv/installed-dev: pyproject.toml tools/setup.sh
	@tools/setup.sh venv dev
	@touch $@ .venv/installed
