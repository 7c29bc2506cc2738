# Every target sets up what it needs: a virtual environment in .venv, made from constraints.txt.
.PHONY: demo test test-unit lint format setup clean
.DEFAULT_GOAL := help

BIN := .venv/bin
# Tests wait for servers and processes as much as they compute; more than two at once would only make them wait.
TWO_AT_A_TIME := -n 2 --dist worksteal

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: .venv/installed  ## make .venv with everything in it

.venv/installed: pyproject.toml constraints.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory apt-venv
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: apt-venv
apt-venv:
	@[ "$$(id -u)" = 0 ] || { echo "python3 lacks venv: install it (Debian: apt install python3-venv), then try again"; exit 1; }
	apt-get update -qq && apt-get install -qq -y python3-venv

demo: setup      ## a real GRPO run that skips steps, beside the run that does not (under 10 minutes)
	$(BIN)/python -m demo.run

test: setup      ## every test
	$(BIN)/pytest $(TWO_AT_A_TIME)

test-unit: setup ## the tests that start no server, worker or trainer
	$(BIN)/pytest $(TWO_AT_A_TIME) -m 'not integration'

lint: setup      ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup    ## rewrite the code in the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and everything built
	rm -rf .venv build dist demo/runs demo/result.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
