# Everything a newcomer needs; each target sets the environment up first if that has not been done.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# In the order, and in the groups, that tests/conftest.py has them in.
PARALLEL := -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help setup compare test test-slow test-all test-large test-teeth bench gpu notebooks lint clean
help:
	@echo 'make compare    hold the three backends against the referee on real images'
	@echo 'make test       run the tests (those that take minutes: make test-slow)'
	@echo 'make test-all   run both kinds, in less time than one after the other'
	@echo 'make test-large run AlexNet, VGG-11 and NiN as they are: more than an hour, 16 GB'
	@echo 'make test-teeth put each known fault into a copy of the code: a quick test has to find it'
	@echo 'make bench      measure the backends and write BENCHMARKS.md, on a quiet machine'
	@echo 'make notebooks  run the notebooks and write their pages, in English and in Chinese'
	@echo 'make gpu        test and measure on a GPU for 8 minutes, and write BENCHMARKS-GPU.md'
	@echo 'make lint       ruff and mypy'
	@echo 'make clean      remove the virtual environments'

setup: $(READY)

compare: $(READY)
	$(BIN)/googlenet compare

test: $(READY)
	$(BIN)/pytest $(PARALLEL) -m 'not slow and not large'

test-slow: $(READY)
	$(BIN)/pytest $(PARALLEL) -m slow

# In one run: what has been compiled, and what the referee has computed, serves both kinds.
test-all: $(READY)
	$(BIN)/pytest $(PARALLEL) -m 'not large'

# One after the other: a single training of VGG-11 takes 13 GB in JAX.
test-large: $(READY)
	$(BIN)/pytest -m large

# Writes the table of docs/testing.md.
test-teeth: $(READY)
	cd tests && ../$(BIN)/python -m teeth

# BENCHMARKS.md: about a quarter of an hour on two processors, with nothing else running.
BENCH := $(BIN)/googlenet bench --markdown BENCHMARKS.md
bench: $(READY)
	rm -f BENCHMARKS.md
	$(BENCH) pt mx jax onnx openvino --variant all --batch 128 --minutes 10 --out bench/batch128
	$(BENCH) pt mx jax onnx openvino --task infer --batch 1 --minutes 3 --out bench/batch1
	$(BENCH) pt openvino --variant both --dtype float32,bfloat16 --batch 128 --minutes 4 --out bench/bfloat16

notebooks: $(READY)
	$(BIN)/python docs/notebooks/render.py

# In an environment of its own; with the frameworks that a machine has already: make gpu GPU_PYTHON=python3
GPU_PYTHON := .venv-gpu/bin/python
gpu: $(if $(filter .venv-gpu/%,$(GPU_PYTHON)),.venv-gpu/ready)
	$(GPU_PYTHON) -m harness.gpu

.venv-gpu/ready: pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --editable '.[cuda,gpu,dev]'
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[pt,mx,jax,onnx,openvino,keras,dev]'
	touch $@

clean:
	rm -rf .venv .venv-gpu
