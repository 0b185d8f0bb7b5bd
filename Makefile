# Every target does its own set-up. On Windows, see "Windows" in README.md for the plain commands.
PYTHON   ?= python3
PIP_ARGS ?=
PRESET   ?= cpu
NAME     = $(PRESET)
MINUTES  ?=
NB       ?=
ARGS     ?=
NANOGPT  ?=
BIN      := .venv/bin
BENCH    := .venv-bench
READY    := .venv/.ready
# The tests that multiply: what a CPU's kernels could get wrong, or not have.
NUMERIC  := tests/model tests/generation tests/training/test_loop.py tests/training/test_resume.py tests/training/test_guard.py

.PHONY: help setup train lab test test-avx2 test-all check notebooks notebooks-full render hygiene bench clean

help:  ## this list
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo 'Each sets up .venv first if it is not there. Start with: make lab'

setup: $(READY)  ## PyTorch, JupyterLab and the rest into .venv: two minutes, 2 GB on disk

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "Python 3.11 to 3.14 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 2; }
	@echo 'Installing PyTorch, transformers, JupyterLab and what the tests need into .venv:'
	@echo 'about two minutes and 2 GB on disk (several GB more with CUDA, see README.md).'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[lab,dev,tune]'
	@touch $(READY)
	@echo 'Installed. Next: make lab, or make train.'

train: $(READY)  ## train PRESET (default: cpu) into runs/NAME; MINUTES=6 to end in six minutes
	$(BIN)/gpt2lib train $(PRESET) --out runs/$(NAME) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

lab: $(READY)  ## open JupyterLab on a private copy of the course; ARGS="--no-browser --port 9999"
	$(BIN)/python tools/lab.py $(ARGS)

check: $(READY)  ## lint, format, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## the gates, the unit tests and every notebook in fast mode
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not network" $(ARGS)
	$(MAKE) --no-print-directory notebooks hygiene

test-all: check  ## also the slow tests and every notebook in full mode
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not network" $(ARGS)
	$(MAKE) --no-print-directory notebooks notebooks-full hygiene

# The numbers again as on a CPU without AVX-512 and bf16; nothing where that is this CPU.
test-avx2: $(READY)  ## the numeric tests on as much of this CPU as most laptops have
	@$(BIN)/python -c 'import sys, torch; sys.exit("AVX512" not in torch.backends.cpu.get_cpu_capability())' \
	  || { echo "test-avx2: this CPU has no more than AVX2, so make test was it"; exit 0; }; \
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OMP_NUM_THREADS=1 \
	  $(BIN)/pytest -n 2 -m "not slow and not network" $(NUMERIC)

notebooks: $(READY)  ## every notebook in fast mode; NB=04 for one
	$(BIN)/python tools/run_notebooks.py --fast $(NB)

notebooks-full: $(READY)  ## every notebook in full mode
	$(BIN)/python tools/run_notebooks.py --full $(NB)

render: $(READY)  ## run notebooks in full mode and commit-ready their outputs; NB=04 for one
	$(BIN)/python tools/render.py $(NB)

hygiene: $(READY)  ## what may not be in a committed notebook
	$(BIN)/python tools/hygiene.py

bench: $(READY)  ## speed and memory against the peers; NANOGPT=PATH of a clone, ARGS="--quick --only a"
	@$(MAKE) --no-print-directory $(BENCH)/.ready || echo "bench: without litgpt and llms-from-scratch" >&2
	$(BIN)/python benchmarks/run.py $(if $(NANOGPT),--nanogpt "$(NANOGPT)") $(ARGS)

# Peers whose pins clash with ours. llms-from-scratch names TensorFlow among what it needs, for
# loading GPT-2's own files; its models need torch alone.
$(BENCH)/.ready: constraints.txt
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q $(PIP_ARGS) $$(grep '^torch==' constraints.txt) numpy litgpt==0.5.13
	$(BENCH)/bin/python -m pip install -q $(PIP_ARGS) --no-deps llms-from-scratch==1.0.19
	@touch $(BENCH)/.ready

clean:  ## remove what was installed; runs/, data/ and your answers in my-notebooks/ stay
	rm -rf .venv .venv-bench build *.egg-info .pytest_cache .mypy_cache .ruff_cache
