# Two commands do all the set-up: `make demo` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# what make check runs: the floors without daemons and trainers, half a minute on a quiet machine
QUICK  := $(addprefix tests/,domain house database status control disk test_tui.py)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test check chaos power-cuts sweep bench format docs clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## create .venv and install everything, pinned by constraints.txt

$(READY): pyproject.toml constraints.txt scripts/setup
	scripts/setup $(PYTHON) $(VENV)
	@touch $(READY)

demo: $(READY)  ## train a real model on real data, kill it in the middle, see it resume (about 6 minutes)
	$(BIN)/overnight demo

check: $(READY)  ## format, lint, types, import contracts, quick tests
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/lint-imports --no-logo > .import_linter.log || { cat .import_linter.log; exit 1; }
	$(BIN)/mypy --no-error-summary
	$(BIN)/pytest -q -m "not slow and not crash" -n 2 --dist loadfile -p no:cacheprovider $(QUICK)

# most of what the tests do is waiting: three workers keep two cores busy
test: $(READY)  ## every check and every test, crash tests and real trainers included
	scripts/install_debian_packages
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile --durations 15

N ?= 300
SEED ?=
chaos: $(READY)  ## N=300 SEED=7: random faults over all members, the bytes compared (SIMULATED=1: no torch; PLAIN=20)
	PYTHONPATH=tests $(BIN)/python -m chaos --kills $(N) $(if $(SEED),--seed $(SEED)) $(if $(SIMULATED),--simulated) $(if $(PLAIN),--plain $(PLAIN))

power-cuts: $(READY)  ## N=50 SEED=7: power cuts at random moments; what was announced as saved is there (root)
	PYTHONPATH=tests $(BIN)/python -m chaos.power --cuts $(N) $(if $(SEED),--seed $(SEED))

# files in which a process is killed at each rename, removal and sync that it makes; `make test` strikes at a few points
SWEEPS := tests/test_intake.py $(addprefix tests/crash/,test_intake_sweep.py test_save_sweep.py test_retention_sweep.py \
          test_cleanup.py test_arrows.py)

sweep: $(READY)  ## killed at every rename, removal and sync of intake, saves, retention, cleanup (strace; 20 minutes)
	OVERNIGHT_EVERY_ARROW=1 $(BIN)/pytest -q -s -m crash $(SWEEPS)

bench: $(READY)  ## measure what the documentation claims
	$(BIN)/python bench/run.py

format: $(READY)  ## format and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## make the pages that are made from the code
	$(BIN)/python scripts/make_settings_page > docs/SETTINGS.md
	$(BIN)/python scripts/make_commands_page > docs/COMMANDS.md
	$(BIN)/python scripts/make_tree_page > docs/TREE.md

clean:  ## remove what make made (never a workspace)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .import_linter.log build dist src/*.egg-info
