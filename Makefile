# PYTHON names a Python, 3.11 or newer; each has a virtual environment of its own: .venv, .venv-python3.12, ...
PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
export PYTHON VENV

# TESTS names modules, classes or methods: make test TESTS=tests.system.test_servers
TESTS ?= tests

# OPTIONS are for run, picture, simulate and bench: make run OPTIONS=--help
OPTIONS ?=

python := $(VENV)/bin/python

.PHONY: help run picture unit test test-lowest simulate bench docs deb lint format clean

help:
	@echo 'make run          two InfluxDB servers and a relay in front of them, until Ctrl-C'
	@echo 'make picture      two of everything behind load balancers, in a live table: kill parts with a key;'
	@echo '                  OPTIONS=--shards shows two shards, behind one relay and behind two layers of them'
	@echo 'make unit         the tests that need no servers'
	@echo 'make test         lint, and all tests with their coverage; TESTS=tests.system.test_servers runs some'
	@echo 'make test-lowest  the tests with the oldest versions of libraries that pyproject.toml allows'
	@echo 'make simulate     a million random schedules of failing backends, disks and processes'
	@echo 'make bench        how fast it is, compared with nginx and InfluxDB; OPTIONS=--help shows more'
	@echo 'make docs         the documentation, as web pages in build/docs'
	@echo 'make deb          a Debian package, in dist'
	@echo 'make lint         ruff, mypy, import-linter'
	@echo 'make format       let ruff format the code'
	@echo 'make clean        remove everything that these commands have made'
	@echo
	@echo 'They create .venv (PYTHON=python3.12: .venv-python3.12, with that Python) and install missing Debian packages.'

run: $(VENV)/installed
	@tools/setup.sh packages run
	@$(python) -m tools.run $(OPTIONS)

picture: $(VENV)/installed
	@tools/setup.sh packages picture
	@$(python) -m tools.picture $(OPTIONS)

test: $(VENV)/installed-dev
	@tools/setup.sh packages test
	@$(python) -m tools.run_tests --coverage --beside '$(MAKE) --no-print-directory lint' $(TESTS)

test-lowest: .venv-lowest/installed
	@tools/setup.sh packages test
	@.venv-lowest/bin/python -m tools.run_tests $(TESTS)

unit: $(VENV)/installed-dev
	@$(python) -m tools.run_tests tests.unit tests.simulation.test_quick

simulate: $(VENV)/installed-dev
	@$(python) -m tests.simulation.settle --count 900000 $(OPTIONS)
	@$(python) -m tests.simulation.queue --count 100000 $(OPTIONS)
	@$(python) -m tests.simulation.health --count 10000
	@$(python) -m tests.simulation.reload --count 10000
	@$(python) -m tests.simulation.filter --count 10000
	@$(python) -m tests.simulation.remote_write --count 10000
	@$(python) -m tests.simulation.lease --count 10000
	@$(python) -m tests.simulation.shared_log --count 5000

bench: $(VENV)/installed
	@tools/setup.sh packages bench
	@$(python) -m bench $(OPTIONS)

docs: $(VENV)/installed-dev
	@$(python) -m sphinx -W --keep-going -q -b html docs build/docs
	@echo 'build/docs/index.html'

deb: $(VENV)/installed
	@tools/setup.sh packages deb
	@tools/deb.sh

lint: $(VENV)/installed-dev
	$(python) -m ruff check --quiet
	$(python) -m ruff format --check --quiet
	$(python) -m mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

format: $(VENV)/installed-dev
	$(python) -m ruff check --fix-only --quiet
	$(python) -m ruff format

clean:
	rm -rf .venv .venv-* .run _trial_temp* .coverage* .hypothesis .mypy_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(VENV)/installed: pyproject.toml tools/setup.sh
	@tools/setup.sh venv
	@touch $@

$(VENV)/installed-dev: pyproject.toml tools/setup.sh
	@tools/setup.sh venv dev
	@touch $@ $(VENV)/installed

.venv-lowest/installed: pyproject.toml tools/setup.sh tools/lowest.py
	@VENV=.venv-lowest tools/setup.sh venv lowest
	@touch $@
