# Every target installs what it needs into .venv first. PYTHON picks the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,data
WORKERS ?= 2
# Huge pages for large arrays: a step on a CPU takes 10 to 20 % less time (docs/performance.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: install demo demo9 test slow aot notebooks lint smoke bench faults clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

test: install lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

# These run with the compiler's optimisations, which other tests turn off (tests/conftest.py),
# and check the array shapes of the whole package.
slow: export JAX_DISABLE_MOST_OPTIMIZATIONS = 0
slow: export XLA_FLAGS = --xla_force_host_platform_device_count=2
slow: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "slow or optimized" \
		--jaxtyping-packages=trm_jax,beartype.beartype

aot:
	$(MAKE) install VENV=.venv-aot EXTRAS=dev,aot
	.venv-aot/bin/python -m pytest -m aot

# Runs the notebooks and writes their outputs into the .ipynb files.
notebooks:
	$(MAKE) install VENV=.venv-notebooks EXTRAS=dev,notebooks
	.venv-notebooks/bin/python notebooks/execute.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

demo: install
	$(BIN)/python train.py --config=configs/demo.py --workdir=runs/demo
	$(BIN)/python solve.py --workdir=runs/demo --row=13 || true
	$(BIN)/python eval.py --workdir=runs/demo

# 9x9 puzzles of 34 to 38 clues.
demo9: install
	$(BIN)/python train.py --config=configs/sudoku_9x9.py:small --workdir=runs/demo9
	$(BIN)/python solve.py --workdir=runs/demo9 || true
	$(BIN)/python eval.py --workdir=runs/demo9

smoke: install
	$(BIN)/python train.py --config=configs/smoke.py --workdir=runs/smoke
	$(BIN)/python eval.py --workdir=runs/smoke

bench: install
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/ssd.py

faults: install
	$(BIN)/python benchmarks/faults.py --workers $(WORKERS)

clean:
	rm -rf $(VENV) .venv-aot .venv-notebooks figures runs build dist .pytest_cache/xla
