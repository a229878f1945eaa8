# The commands for people and CI. `make help` lists them.
.DEFAULT_GOAL := help
VENV := .venv
# The Python to make .venv with: 3.11 or 3.12. Without it, the first of these on the PATH.
PYTHON ?=
# cpu or gpu: selects the build of vLLM and the lock file.
DEVICE ?= cpu
# A base for `make demo` and `make serve` that is downloaded: smollm2. Without it, the embedded base.
MODEL ?=
BIN := $(VENV)/bin

.PHONY: help setup demo serve test test-workers lint types format testbed bench bench-hot-load bench-residency bench-fusion bench-auto-fuse bench-kernels bench-crosscheck smollm2 quality quality-smollm2 bench-memory bench-training gpu-kit gpu-check faults soak playground-pictures report-pictures hostile fuzz clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: ## make .venv with all packages and the lora-compose command (DEVICE=gpu for CUDA, PYTHON=python3.12)
	@command -v python3 >/dev/null || { echo "error: there is no Python. Debian and Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; }
	@python3 requirements/make_venv.py --venv $(VENV) --device $(DEVICE) --python "$(PYTHON)"

demo: setup ## run the whole demo: serve, register, stack, merge, compare, stop (MODEL=smollm2: on a real model)
	$(BIN)/python -m lora_compose.training.testbed.demo $(if $(MODEL),--model $(MODEL))

serve: setup ## start a server on the embedded base and print commands to try (MODEL=smollm2: on a real model)
	$(BIN)/python -m lora_compose.training.testbed.demo --serve $(if $(MODEL),--model $(MODEL))

test: setup lint types ## check format, lint and types, then run the whole test suite
	$(BIN)/python -m pytest

test-workers: setup ## test tensor parallelism (needs two idle cores)
	$(BIN)/python -m pytest -m two_workers

lint: setup ## check formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## check types with mypy
	$(BIN)/mypy

format: setup ## fix formatting and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

testbed: setup ## train the embedded base and its adapters again (about 15 minutes on two cores)
	$(BIN)/python -m lora_compose.training.testbed.pretrain
	$(BIN)/python -m lora_compose.training.testbed.train_adapters
	$(BIN)/python -m lora_compose.training.testbed.measure

bench: setup ## compare every way to serve adapters with the base, stock vLLM and PEFT: tables, advice and a page
	$(BIN)/lora-compose bench serve --quick --html bench.html

bench-kernels: setup ## compare the CPU LoRA kernels alone with vLLM's and with the machine's rooflines
	OMP_NUM_THREADS=1 $(BIN)/python -m lora_compose.benchmarks.studies.kernels

bench-crosscheck: setup ## compare our benchmark with vLLM's on the same cells
	$(BIN)/python -m lora_compose.benchmarks.crosscheck

bench-hot-load: setup ## measure how registering adapters delays running requests, beside stock vLLM
	$(BIN)/python -m lora_compose.benchmarks.studies.hot_load

bench-residency: setup ## measure new stacks, changed weights, and 200 adapters over 8 slots
	$(BIN)/python -m lora_compose.benchmarks.studies.residency

bench-fusion: setup ## measure gain and cost of fusing, and 20 switches under traffic
	$(BIN)/python -m lora_compose.benchmarks.studies.fusion

bench-auto-fuse: setup ## replay traces against the auto-fuse policy (seconds)
	$(BIN)/python -m lora_compose.benchmarks.auto_fuse.simulator

smollm2: setup ## train the adapters of SmolLM2 again and measure them (half an hour; gets the model first)
	$(BIN)/lora-compose models get smollm2
	$(BIN)/python -m lora_compose.training.testbed.smollm2.write_data
	$(BIN)/python -m lora_compose.training.testbed.smollm2.train_adapters
	$(BIN)/python -m lora_compose.training.testbed.smollm2.measure

quality-smollm2: setup ## measure the quality of compositions of SmolLM2's adapters (hours; continues if interrupted)
	$(BIN)/lora-compose models get smollm2
	$(BIN)/python -m lora_compose.training.testbed.quality --model smollm2

quality: setup ## measure the quality of compositions (remove training/testbed/quality.json to start again)
	$(BIN)/python -m lora_compose.training.testbed.quality

bench-memory: setup ## compare the memory planner with measured peaks (about half an hour)
	$(BIN)/python -m lora_compose.training.planning.calibration

bench-training: setup ## compare the training speed with plain TRL (five minutes)
	$(BIN)/python -m lora_compose.training.testbed.speed

gpu-kit: setup ## make .gpu/: vLLM for a GPU machine without a network, and print the commands to run there
	PYTHON="$(CURDIR)/$(BIN)/python" bash benchmarks/gpu/build_kit.sh

gpu-check: setup ## check the engine's hooks on a GPU, nine minutes (without one: GPU_CHECK='--cpu --parts small')
	$(BIN)/python -m lora_compose.benchmarks.gpu $(GPU_CHECK)

.PHONY: docs docs-pages
docs: setup ## build the documentation in site/, check every link, count the code blocks (offline after the first time)
	@test -x .venv-docs/bin/zensical && cmp -s requirements/docs.lock .venv-docs/docs.lock || { rm -rf .venv-docs; \
	$(BIN)/python -m venv .venv-docs && .venv-docs/bin/python -m pip install -q --disable-pip-version-check --no-deps -r requirements/docs.lock \
	&& cp requirements/docs.lock .venv-docs/docs.lock; }
	.venv-docs/bin/zensical build --strict --clean
	$(BIN)/python -m tests.docs.site site
	$(BIN)/python -m tests.docs.blocks

docs-pages: setup ## write the reference pages and the drawings of the documentation again
	$(BIN)/python -m tests.docs.command_page > docs/reference/commands.md
	$(BIN)/python -m lora_compose.server.openapi_page > docs/http-api.md
	$(BIN)/python -m lora_compose.server.options.page > docs/vllm-options.md
	$(BIN)/python -m tests.docs.http_examples > docs/reference/http-examples.md
	$(BIN)/python -m tests.docs.pictures

faults: setup ## try every known fault, 200 kills, 10,000 damaged adapters, 10,000 registered adapters (20 minutes)
	$(BIN)/python -m tests.campaigns.faults.run
	$(BIN)/python -m tests.campaigns.kill_points --count 200
	$(BIN)/python -m tests.campaigns.bad_adapters --count 10000
	$(BIN)/python -m tests.campaigns.ten_thousand --count 10000

.PHONY: smollm2-check
smollm2-check: setup ## compare a served SmolLM2 with transformers and PEFT: stacks, fusing, greedy answers (ten minutes)
	$(BIN)/lora-compose models get smollm2
	$(BIN)/python -m tests.campaigns.real_model.check --output benchmarks/results/smollm2-check.json

soak: setup ## run mixed traffic and random faults for thirty minutes: check for lost state, wrong answers and growth
	$(BIN)/python -m tests.campaigns.soak --minutes 30 --output soak.json --plot soak.png

playground-pictures: setup ## take the pictures of the playground from a running server, and measure it (needs Chromium)
	$(BIN)/python -m tests.campaigns.playground docs/images

report-pictures: setup ## take the pictures of the benchmark's report from a published result (needs Chromium)
	$(BIN)/python -m tests.campaigns.report_pictures benchmarks/results/embedded.json docs/images

hostile: setup ## measure how much one tenant can slow down another, with quotas on and off
	$(BIN)/python -m tests.campaigns.hostile_tenant --minutes 10

fuzz: setup ## run schemathesis on our OpenAPI document, in a separate environment
	test -x .venv-fuzz/bin/st || ($(BIN)/python -m venv .venv-fuzz && .venv-fuzz/bin/pip install -q schemathesis==4.32.5)
	$(BIN)/python -m tests.campaigns.openapi_fuzz --st .venv-fuzz/bin/st --seconds 600

clean: ## remove .venv and caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
