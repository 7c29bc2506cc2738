# Every target sets up what it needs: a virtual environment in .venv, made from constraints.txt.
# verl needs one of its own, in .venv-verl.
.PHONY: demo evidence screenshots test test-unit test-verl chaos fuzz lint format setup clean
.DEFAULT_GOAL := help

BIN := .venv/bin
VERL := .venv-verl/bin
# Tests wait for servers and processes as much as they compute; more than two at once would only make them wait.
TWO_AT_A_TIME := -n 2 --dist worksteal
# They start hundreds of processes: where images say to keep no compiled modules, each would compile the code anew.
test test-unit: export PYTHONDONTWRITEBYTECODE :=
FUZZ_TESTS := tests/service/test_openapi_fuzz.py tests/service/test_any_request.py \
	tests/service/test_checkpoint_uris.py tests/store/test_safetensors_header.py

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: .venv/installed  ## make .venv with everything in it

.venv/installed: pyproject.toml constraints.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory apt-venv
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Nothing but what is listed: verl itself asks for a rollout engine's loggers and more (docs/decisions/0006-verl.md).
.venv-verl/installed: pyproject.toml verl-constraints.txt
	python3 -m venv .venv-verl
	$(VERL)/pip install --quiet --disable-pip-version-check --constraint verl-constraints.txt torch
	$(VERL)/pip install --quiet --disable-pip-version-check --no-deps --requirement verl-constraints.txt --editable .
	@touch $@

.PHONY: apt-venv
apt-venv:
	@[ "$$(id -u)" = 0 ] || { echo "python3 lacks venv: install it (Debian: apt install python3-venv), then try again"; exit 1; }
	apt-get update -qq && apt-get install -qq -y python3-venv

# Without them the tests of the pages in a browser and of the guide's backup are skipped, and say so.
.PHONY: chromium rsync
chromium rsync:
	@command -v $@ >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $@; } || true

demo: setup      ## a real GRPO run that skips steps, beside the run that does not (under 10 minutes)
	$(BIN)/python -m demo.run

evidence: setup  ## the runs that show what jumps save, their tables and figures (ten hours; goes on where it was stopped)
	$(BIN)/python -m benchmarks.rlvr.campaign --lanes 2 --write

screenshots: setup chromium  ## the README's pictures, from the demo's run
	[ -d demo/runs/server/data ] || $(BIN)/python -m demo.run
	$(BIN)/python -m demo.screenshots

test: setup chromium rsync  ## every test but verl's
	$(BIN)/pytest $(TWO_AT_A_TIME)

test-unit: setup ## the tests that start no server, worker or trainer
	$(BIN)/pytest $(TWO_AT_A_TIME) -m 'not integration'

test-verl: setup .venv-verl/installed  ## the plugin inside verl, on the CPU (2 minutes)
	$(VERL)/pytest -c tests/trainer_verl/pytest.ini tests/trainer_verl

chaos: setup     ## faults against whole deployments: 1,000 jobs, 260 faults, five seeds (a quarter of an hour on an idle machine)
	PYTHONPATH=tests $(BIN)/python -m chaos --seeds 5 --jobs 200 --faults 52 --seconds 1800

fuzz: setup      ## ten thousand requests from the OpenAPI document; any header, URI and body (minutes)
	FUZZ_REQUESTS=10000 $(BIN)/pytest -s --hypothesis-profile fuzz $(FUZZ_TESTS)

lint: setup      ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup    ## rewrite the code in the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and everything built
	rm -rf .venv .venv-verl build dist demo/runs demo/result.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
