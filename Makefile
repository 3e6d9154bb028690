# One task list: people, hooks and CI run the same targets.
PYTHON ?= python3
MODEL ?= models:/cinepile-video-llava@champion
PORT ?= 5000
UI_PORT ?= 5001
TESTS ?= tests

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
READY := .venv/.ready

.PHONY: demo test test-slow lint format serve ui clean setup pull lock pictures

demo: setup pull  ## fine-tune, evaluate, register; ends with the result table
	mlflow run . --env-manager local

test: setup pull  ## the fast tests
	python -m pytest -m "not slow and not gpu" $(TESTS)

test-slow: setup pull  ## the tests that take minutes
	python -m pytest -m "slow and not gpu" $(TESTS)

lint: setup
	ruff check .
	ruff format --check .

format: setup
	ruff check --fix .
	ruff format .

serve: setup  ## the registered model on a port; the README has a request to send
	python -m cinetune serve $(MODEL) --port $(PORT)

ui: setup  ## experiments, models and artifacts in the browser
	@echo "The runs: http://127.0.0.1:$(UI_PORT)/#/experiments/0/runs?workflowType=machine_learning&viewStateShareKey=overview"
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port $(UI_PORT)

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $(READY)

lock:  ## write requirements.lock again, after a change of pyproject.toml; needs uv
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	  --output-file requirements.lock pyproject.toml
	sed -E '/^(cuda|nvidia|triton)/d; s/\+cpu//' requirements.lock > requirements.lock.new
	mv requirements.lock.new requirements.lock

pull: setup
	dvc pull --quiet data.dvc base-model.dvc

pictures: setup  ## the pages of this project's own runs as docs/ui-*.png; after `make demo`, with Chromium
	CINETUNE_PICTURED=. python -m pytest tests/test_ui.py

clean:  ## everything that can be made again, but for the environment
	rm -rf outputs cache mlruns mlflow.db
