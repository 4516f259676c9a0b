# Two commands do everything on a fresh machine with Python 3.11+, git and make:
#   make demo    sets up, then compares every strategy on the embedded corpus, offline: a table and a report
#   make test    sets up, then passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The whole project runs offline; these keep libraries from asking the network anyway.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test bench lint format clean
demo: $(READY)
	$(BIN)/ser-strategies compare --strategies vanilla partial lora mixed-precision cached tapt ptapt \
	  --data Synthetic --seeds 3 --jobs 2 --trainer.accelerator cpu --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

# A quick look at every ratio that is claimed of speed and memory, in minutes.
bench: $(READY)
	$(BIN)/python -m benchmarks

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# uv installs in seconds what takes pip minutes; --compile-bytecode spares the first run of every command from
# compiling thousands of files.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, got $$($(PYTHON) --version); try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --editable . --group dev
	@touch $@
