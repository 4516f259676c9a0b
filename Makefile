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

.PHONY: demo test test-all bench lint format constraints drift clean
demo: $(READY)
	$(BIN)/ser-strategies compare --strategies ptapt tapt mixed-precision vanilla lora partial frozen cached \
	  --data Synthetic --data.utterances_per_speaker 20 --data.extra_test_speakers 10 --data.batch_size 8 \
	  --seeds 3 --jobs 2 --baseline partial --trainer.accelerator cpu --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

# With the further cases of what `make test` holds: before a release, and in CI each week.
test-all: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal -m ''

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

# Writes down the newest set that the bounds in pyproject.toml admit; run the tests with it before you commit it.
constraints: $(READY)
	$(BIN)/uv pip compile --quiet --upgrade --universal --no-header --no-annotate \
	  pyproject.toml --group dev --output-file constraints.txt

# The smoke part of the suite with the constraints, the newest and the oldest versions that the bounds admit.
drift:
	PYTHON="$(PYTHON)" .ci/drift constraints newest oldest

clean:
	rm -rf $(VENV) .drift .mypy_cache .ruff_cache .pytest_cache

$(READY): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" .ci/setup $(VENV)
	@touch $@
