# Everything a fresh clone needs: `make run`, then `make test`.
# Another interpreter: `make run PYTHON=python3.12`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: run test ui bench help

help:
	@echo "make run    run the jobs train_and_register and batch_score here"
	@echo "make test   run the tests"
	@echo "make bench  measure what is claimed about speed"
	@echo "make ui     open MLflow's UI on what was run here"

run: $(INSTALLED)
	@$(BIN)/python -m helpers.java
	$(BIN)/python -m helpers.local_job train_and_register batch_score

test: $(INSTALLED)
	@$(BIN)/python -m helpers.java
	$(BIN)/python -m pytest

ui: $(INSTALLED)
	$(BIN)/python -m helpers.local_ui

bench: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks.mirror --calls 2000

$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit("Python %d.%d cannot be used: 3.10 to 3.13 can. Try: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --requirement requirements.txt
	@touch $@
