# The commands people and CI use. `make help` lists them.
.DEFAULT_GOAL := help
VENV := .venv
PYTHON ?= python3.11
# cpu or gpu: which build of vLLM, and so which lock.
DEVICE ?= cpu
BIN := $(VENV)/bin
LOCK := requirements/$(DEVICE).lock
# The lock is complete, so nothing is resolved; torch+cpu comes from wherever pip is told to look.
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo serve test test-workers lint types format testbed bench bench-hot-load bench-residency bench-fusion bench-auto-fuse bench-kernels bench-referee quality bench-memory bench-training faults soak hostile fuzz clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## .venv with everything in it, and the lora-compose command (DEVICE=gpu for CUDA)

$(VENV)/.ready: $(LOCK) pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info[:2] == (3, 11), f"Python 3.11 is needed, this is {sys.version}"'
	@echo "installing $$(grep -c == $(LOCK)) packages from $(LOCK): about three minutes, less with a warm pip cache"
	$(PIP) install -qq --no-deps --requirement $(LOCK)
	$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## the main job, start to end: serve, register, stack, merge, compare, stop
	$(BIN)/python -m training.testbed.demo

serve: setup ## leave a server running on the embedded base and print what to try
	$(BIN)/python -m training.testbed.demo --serve

test: setup lint types ## the whole suite
	$(BIN)/python -m pytest

test-workers: setup ## tensor parallelism; wants two idle cores
	$(BIN)/python -m pytest -m two_workers

lint: setup ## formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## mypy
	$(BIN)/mypy

format: setup ## put formatting right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

testbed: setup ## train the embedded base and its adapters again (about 15 minutes on two cores)
	$(BIN)/python -m training.testbed.pretrain
	$(BIN)/python -m training.testbed.train_adapters
	$(BIN)/python -m training.testbed.measure

bench: setup ## every way to serve adapters, beside the base, stock vLLM and PEFT: tables, advice and a page
	$(BIN)/lora-compose bench serve --quick --html bench.html

bench-kernels: setup ## the CPU LoRA kernels by themselves, against vLLM's and the machine's rooflines
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kernels

bench-referee: setup ## vLLM's own benchmark against ours on the same cells
	$(BIN)/python -m benchmarks.referee

bench-hot-load: setup ## do those who decode notice that adapters arrive? beside stock vLLM
	$(BIN)/python -m benchmarks.hot_load

bench-residency: setup ## never-seen stacks, other weights, 200 adapters over 8 slots
	$(BIN)/python -m benchmarks.residency

bench-fusion: setup ## what fusing gives and takes, and 20 switches under traffic
	$(BIN)/python -m benchmarks.fusion

bench-auto-fuse: setup ## the auto-fuse policy against traces, seconds
	$(BIN)/python -m benchmarks.fuse_simulator

quality: setup ## what every way of composing keeps (remove training/testbed/quality.json to measure afresh)
	$(BIN)/python -m training.testbed.quality

bench-memory: setup ## the memory planner against measured peaks, about half an hour
	$(BIN)/python -m training.planning.measure

bench-training: setup ## is training as fast as plain TRL? five minutes
	$(BIN)/python -m training.testbed.speed

faults: setup ## every fault we know, 200 kills, 10,000 spoiled adapters, 10,000 registered ones (20 minutes)
	$(BIN)/python -m tests.faults.campaign.run
	$(BIN)/python -m tests.faults.kill_points --count 200
	$(BIN)/python -m tests.faults.bad_adapters --count 10000
	$(BIN)/python -m tests.faults.ten_thousand --count 10000

soak: setup ## thirty minutes of mixed traffic and random faults: nothing lost, nothing wrong, nothing grows
	$(BIN)/python -m tests.faults.soak --minutes 30 --output soak.json --plot soak.png

hostile: setup ## what one tenant can do to another, with quotas on and off
	$(BIN)/python -m tests.faults.hostile_tenant --minutes 10

fuzz: setup ## schemathesis over our OpenAPI document, from an environment of its own
	test -x .venv-fuzz/bin/st || ($(PYTHON) -m venv .venv-fuzz && .venv-fuzz/bin/pip install -q schemathesis==4.32.5)
	$(BIN)/python -m tests.faults.openapi_fuzz --st .venv-fuzz/bin/st --seconds 600

clean: ## remove .venv and caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
