# Everything a fresh clone needs: `make run`, then `make test`.
# Another interpreter: `make run PYTHON=python3.12`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
QUICK := $(VENV)/quick

# The tests that mean something under the packages of a Databricks runtime, not only under the pinned ones.
RUNTIMES := 16.4 17.3 18 19
RUNTIME_TESTS := $(patsubst %,tests/unit/test_%.py,cleanup environment laptop_java laptop_catalog metrics monitoring registration engines replace_partition \
	runtime scoring split sql_engine streaming tables tracking training tuning) \
	$(patsubst %,tests/azureml/test_%.py,cleanup_in_azureml connect credentials link tracking_in_azureml) \
	$(patsubst %,tests/notebooks/test_%.py,azureml_mode clean_up databricks_modes end_to_end)
# Python 3.12, as the runtimes have, or another that their packages allow; or the one that is given as PYTHON.
PYTHONS := python3.12 python3.13 python3.11 python3.10
PYTHONS_16.4 := python3.11 python3.10
CANDIDATES = $(if $(filter file,$(origin PYTHON)),$(or $(PYTHONS_$*),$(PYTHONS)),$(PYTHON))

# Compute that is not an ML runtime: can everything be imported after the notebooks' %pip cell?
NOT_ML := serverless-5 17.3-standard

# More processes than cores, since a test often waits for a process that it has started; a file's tests share their
# servers, hence stay together.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: run demo check quick test test-flavors test-runtimes $(RUNTIMES:%=test-runtime-%) $(NOT_ML:%=test-imports-%) ui bench docs translations help

help:
	@echo "make run    run the jobs train_and_register and batch_score here"
	@echo "make demo   see drift found, a model retrained and the champion replaced, in ten simulated days"
	@echo "make test   run the checks and the tests"
	@echo "make quick  run the checks and the unit tests that need no server, no cluster and no notebook"
	@echo "make check  look at style, format, types and imports only"
	@echo "make bench  measure what is claimed about speed"
	@echo "make test-runtimes   run what depends on Spark and MLflow with the packages of Databricks $(RUNTIMES)"
	@echo "make test-flavors    run models of libraries that requirements.txt does not have, such as PyTorch (1 GB)"
	@echo "make ui     open MLflow's UI on what was run here"
	@echo "make docs   run the jobs and make the site of the notebooks, the guide and the reference"
	@echo "make translations   bring changes of the English guides and notebooks into docs/locales"

# What makes later starts quicker is made when the first result is there, and nobody waits for it.
run: $(INSTALLED)
	@$(BIN)/python -m helpers.laptop.java
	$(BIN)/python -m helpers.jobs train_and_register batch_score
	@test -e $(QUICK) || nohup nice $(MAKE) --silent $(QUICK) >/dev/null 2>&1 &

demo: $(QUICK)
	@$(BIN)/python -m helpers.laptop.java
	@$(BIN)/python -m helpers.jobs.demo

check: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --no-cache >$(VENV)/lint-imports.txt || { cat $(VENV)/lint-imports.txt; exit 1; }

quick: $(QUICK) check
	@$(BIN)/python -m helpers.laptop.java
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow" tests/unit tests/bundle tests/ci tests/docs tests/notebooks/test_hygiene.py

test: $(QUICK) check
	@$(BIN)/python -m helpers.laptop.java
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-runtimes: $(RUNTIMES:%=test-runtime-%) $(NOT_ML:%=test-imports-%)

$(RUNTIMES:%=test-runtime-%): test-runtime-%: $(VENV)-runtimes/%/installed
	@$(VENV)-runtimes/$*/bin/python -m helpers.laptop.java
	$(VENV)-runtimes/$*/bin/python -m pytest -rA --show-capture=no --disable-warnings $(RUNTIME_TESTS)

$(NOT_ML:%=test-imports-%): test-imports-%: $(VENV)-runtimes/%/installed
	$(VENV)-runtimes/$*/bin/python -m tests.runtimes.imports

test-flavors: $(VENV)-flavors/installed
	@$(VENV)-flavors/bin/python -m helpers.laptop.java
	$(VENV)-flavors/bin/python -m pytest tests/flavors

ui: $(INSTALLED)
	$(BIN)/python -m helpers.jobs.ui

bench: $(QUICK)
	$(BIN)/python -m tests.benchmarks.mirror --calls 2000
	$(BIN)/python -m tests.benchmarks.scoring
	$(BIN)/python -m tests.benchmarks.spark_ml
	$(BIN)/python -m tests.benchmarks.tuning
	$(BIN)/python -m tests.benchmarks.batches
	$(BIN)/python -m tests.benchmarks.monitoring
	$(BIN)/python -m tests.benchmarks.detection

docs: $(QUICK) $(VENV)-docs/installed
	@$(BIN)/python -m helpers.laptop.java
	$(BIN)/python -m docs.executed_notebooks
	$(BIN)/python -m docs.results
	rm -rf docs/_build docs/api/modules
	$(VENV)-docs/bin/python -m sphinx --quiet -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	$(VENV)-docs/bin/python -m sphinx --quiet -W --keep-going -d docs/_build/doctrees-ja -D language=ja docs docs/_build/ja
	mv docs/_build/ja docs/_build/html/ja
	@# The links of the modules' pages are the same on both sites, and most of all.
	@$(VENV)-docs/bin/python -m pytest -c /dev/null -q --tb no -p no:cacheprovider -p no:python --check-links --check-anchors \
	  --check-links-ignore 'https?://.*' --ignore docs/_build/html/ja/api/modules docs/_build/html >docs/_build/links.txt; \
	  status=$$?; grep -E '^(FAILED|ERROR|[0-9]+ )' docs/_build/links.txt; exit $$status
	@echo "The site: docs/_build/html/index.html"

# Not the docstrings, which are in English in both languages, and not README.md, whose translation is README.ja.md.
translations: $(VENV)-docs/installed
	@test -e docs/notebooks || cp -R notebooks docs/notebooks
	rm -rf docs/_build/gettext
	$(VENV)-docs/bin/python -m sphinx --quiet -b gettext -d docs/_build/doctrees-gettext docs docs/_build/gettext
	@rm -rf docs/_build/gettext/api/modules docs/_build/gettext/index.pot
	$(VENV)-docs/bin/sphinx-intl update --pot-dir docs/_build/gettext --locale-dir docs/locales --language ja \
	  --line-width 0 --no-obsolete

$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit("Python %d.%d cannot be used: 3.10 to 3.13 can. Try: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	@echo "Installing requirements.txt into $(VENV): less than a minute"
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python helpers/laptop/install.py requirements.txt
	@touch $@

# Bytecode of the packages, and the archive of Spark's classes.
$(QUICK): $(INSTALLED)
	-@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	@$(BIN)/python -m helpers.laptop.java >/dev/null
	@$(BIN)/python -m helpers.laptop.make_class_data
	@touch $@

$(VENV)-docs/installed: docs/requirements.txt $(INSTALLED)
	$(BIN)/python -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --disable-pip-version-check --quiet --requirement docs/requirements.txt
	@touch $@

$(VENV)-flavors/installed: tests/flavors/requirements.txt requirements.txt $(INSTALLED)
	$(BIN)/python -m venv $(VENV)-flavors
	$(VENV)-flavors/bin/python -m pip install --disable-pip-version-check --quiet --no-compile \
	  --requirement requirements.txt --requirement $<
	@$(VENV)-flavors/bin/python -m helpers.laptop.java
	$(VENV)-flavors/bin/python -m helpers.laptop.make_class_data
	@touch $@

define make-virtual-environment
@for python in $(CANDIDATES); do $$python -c '' 2>/dev/null && exec $$python -m venv $(@D); done; \
  echo "Not here: $(CANDIDATES). Try: make $(MAKECMDGOALS) PYTHON=<path of $(or $(firstword $(PYTHONS_$*)),python3.12)>"; \
  exit 1
endef

# PySpark has no wheel, and the setuptools that pip would fetch to build one is too new for Spark 3.
$(RUNTIMES:%=$(VENV)-runtimes/%/installed): $(VENV)-runtimes/%/installed: tests/runtimes/%.txt
	$(make-virtual-environment)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet $$(grep -E '^(setuptools|wheel)==' $<)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-build-isolation --requirement $<
	@$(@D)/bin/python -m helpers.laptop.java
	$(@D)/bin/python -m helpers.laptop.make_class_data
	@touch $@

$(NOT_ML:%=$(VENV)-runtimes/%/installed): $(VENV)-runtimes/%/installed: tests/runtimes/%.txt
	$(make-virtual-environment)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $<
	@touch $@
