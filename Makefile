# The two commands of the README: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
# Tests wait more than they compute: two processes, for two cores. A file's tests share what is
# dear to set up.
IN_TWO := -n 2 --dist loadfile
# pip compiles bytecode at installation; some machines forbid it, and every process then pays.
export PYTHONDONTWRITEBYTECODE :=
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GX_ANALYTICS_ENABLED := false

.PHONY: run install test test-slow drills lint bench ui s3 clean

run: install  ## the whole job on synthetic pictures: install, retrain, promote
	$(BIN)/lesionflow retrain

install: $(VENV)/.installed  ## a virtual environment with exact pins

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile -c constraints.txt -e '.[dev]'
	touch $@

lint: install  ## formatting, lint rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## everything that CI runs first
	$(BIN)/pytest $(IN_TWO) -m 'not slow and not drill'

test-slow: install  ## what takes minutes: faults, real data at length
	$(BIN)/pytest $(IN_TWO) -m slow

drills: install  ## what fails on purpose (docs/reliability.md), three times in a row; two hours
	for time in 1 2 3; do $(BIN)/pytest -m drill || exit 1; done

bench: install  ## speed as ratios, written to benchmarks/results/
	$(BIN)/python -m benchmarks

ui: install  ## the Prefect UI with this workspace's runs, on 127.0.0.1:4200
	$(BIN)/lesionflow ui

s3: install  ## an S3 endpoint in memory on 127.0.0.1:5055, for trying out
	$(BIN)/python infra/local/s3_server.py

clean:  ## remove what runs have made; the source and the environment stay
	rm -rf .lesionflow data/raw data/packed data/*.parquet runs evaluations profiles reports registry
