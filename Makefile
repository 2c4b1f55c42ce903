# make review   set up everything and measure every system on this machine
# make test     set up everything and run the tests
# Both work without uv (UV=) and in any virtual environment (VENV=path).

PY ?= python3
VENV ?= .venv
UV ?= uv
NAMES ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
empty :=
space := $(empty) $(empty)
comma := ,

# uv does not read pip's configuration, and separates places by commas where pip uses spaces
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
export UV_COMPILE_BYTECODE := 1
export NUMBA_CACHE_DIR ?= $(abspath $(VENV))/cache/numba
export MPLCONFIGDIR ?= $(abspath $(VENV))/cache/matplotlib
# compiled once, not again by each of the many processes that a review or the tests start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: review test lint bench sham docs setup lock clean

review: $(STAMP)
	$(BIN)/mmxx review $(FLAGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not gpu" --benchmark-disable $(FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)
	$(BIN)/mmxx bench $(NAMES)

sham: $(STAMP)
	$(BIN)/python -m mmxx.lab.testing sham $(NAMES)

docs: $(STAMP)
	$(BIN)/python -m sphinx -q -W -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

setup: $(STAMP)

# torch first and by pip, which knows where this machine gets it from; the rest finds it there.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	if [ -n "$(UV)" ] && $(BIN)/python -m pip install -q uv; then \
	  $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[all,dev]'; \
	else \
	  $(BIN)/python -m pip install -q -c constraints.txt -e '.[all,dev]'; \
	fi
	touch $(STAMP)

# the newest versions that work together, for constraints.txt
lock: $(STAMP)
	$(BIN)/uv pip freeze --exclude-editable | sed 's/+cpu//' | grep -Ev '^(uv|pip)==' > constraints.txt

clean:
	rm -rf $(VENV) runs docs/_build .pytest_cache .ruff_cache .hypothesis
