# The commands of the house. Everything is installed into .venv, which `make clean` removes;
# but `make gpu` takes PYTHON as it is, for that one has CuPy and PyTorch for the GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check gpu clean

demo: $(VENV)/.cli
	$(BIN)/tinygrad-bn demo --out demo

test: $(VENV)/.test
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py --check
	$(PYTHON) -m pytest -m cuda -n 4 -q
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
