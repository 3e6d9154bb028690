# One task list: people, hooks and CI run the same targets.
PYTHON ?= python3
MODEL ?= models:/cinepile-video-llava@champion
PORT ?= 5000
UI_PORT ?= 5001
TESTS ?= tests
# Each test file runs in one of so many processes: its fixtures are made once.
WORKERS ?= 2

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
# A tracking server that is away costs seconds; MLflow by itself tries for minutes.
export MLFLOW_HTTP_REQUEST_MAX_RETRIES ?= 2
export MLFLOW_DISABLE_TELEMETRY := true
READY := .venv/.ready
pytest = python -m pytest --numprocesses $(WORKERS) --dist loadfile
refuse_old = $(1) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo \
	"error: $(1) is not Python 3.11 or 3.12: name one, as in \`make setup PYTHON=python3.11\`." >&2; exit 2; }
install = .venv/bin/python -m pip install --quiet --disable-pip-version-check $(1) || { echo \
	"error: packages could not be installed: check the network, the disk, HTTPS_PROXY and PIP_INDEX_URL." >&2; exit 2; }

.PHONY: demo test test-slow test-nightly coverage lint audit format serve ui bench clean setup pull lock mlproject pictures

demo: setup pull  ## fine-tune, evaluate, register; ends with the result table; TASK=cameras: on the second example
	$(if $(TASK),python -m cinetune mini --params recipes/$(TASK).yaml)
	mlflow run . --env-manager local $(if $(TASK),-P params=recipes/$(TASK).yaml)

test: setup pull  ## the fast tests
	$(pytest) -m "not slow and not gpu" $(TESTS)

test-slow: setup pull  ## the tests that take minutes
	$(pytest) -m "slow and not nightly and not gpu" $(TESTS)

test-nightly: setup pull  ## the longest tests, up to ten minutes each
	python -m pytest -m "nightly and not gpu" $(TESTS)

coverage: setup pull  ## the fast tests with the lines that none of them runs; fails below pyproject's fail_under
	$(pytest) -m "not slow and not gpu" --cov --cov-report=term-missing $(TESTS)

lint: setup
	ruff check .
	ruff format --check .
	codespell
	lint-imports
	mypy

audit: setup  ## known weaknesses of the installed packages; asks PyPI
	pip-audit --skip-editable

format: setup
	ruff check --fix .
	ruff format .

serve: setup  ## the registered model on a port; the README has a request to send
	python -m cinetune serve $(MODEL) --port $(PORT)

ui: setup  ## experiments, models and artifacts in the browser
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) echo "The runs are on the tracking server, which shows them itself: $$MLFLOW_TRACKING_URI" ;; \
	""|sqlite:*|postgresql*|mysql*|mssql*) \
	  echo "The runs: http://127.0.0.1:$(UI_PORT)/#/experiments/0/runs?workflowType=machine_learning&viewStateShareKey=overview"; \
	  exec mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port $(UI_PORT) ;; \
	*) echo "error: MLFLOW_TRACKING_URI is neither a server nor a database: unset it, or name one." >&2; exit 2 ;; \
	esac

bench: setup pull  ## every benchmark; their tables go into docs/performance.md
	python benchmarks/collect.py

# With its store: several `mlflow run` at once on a missing one would all create it.
setup:
	@test ! -e $(READY) || broken=$$(.venv/bin/python -m pip check 2>&1) || { rm -f $(READY); echo \
		"the environment in .venv is broken and is made anew: $$broken"; }
	@$(MAKE) --no-print-directory $(READY)
	@test -n "$$MLFLOW_TRACKING_URI" || test -e mlflow.db || \
		.venv/bin/python -c 'from cinetune.tracking.store import open_store; open_store()'

# Half of an environment is made anew: its own python may stand first on PATH, so it goes before another is asked for.
$(READY): pyproject.toml requirements.lock
	@test -e $(READY) || rm -rf .venv
	@rm -f $(READY)
	@test -e .venv || { $(call refuse_old,$(PYTHON)); $(PYTHON) -m venv .venv; }
	@$(call install,--constraint requirements.lock --editable '.[dev]')
	@touch $(READY)

mlproject: setup  ## write MLproject again, after a change of the schema in src/cinetune/params.py
	python -c 'from cinetune import cli; print(cli.mlproject(), end="")' > MLproject.new
	mv MLproject.new MLproject

lock:  ## write requirements.lock again, after a change of pyproject.toml; needs uv
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --extra dev --extra team --extra ray --extra bench \
	  --output-file requirements.lock pyproject.toml
	sed -E '/^(cuda|nvidia|triton)/d; s/\+cpu//' requirements.lock > requirements.lock.new
	mv requirements.lock.new requirements.lock

pull: setup
	dvc pull --quiet --remote embedded data.dvc base-model.dvc

pictures: setup  ## the pages of this project's own runs as docs/ui-*.png; after `make demo`, with Chromium
	CINETUNE_PICTURED=. python -m pytest tests/tracking/test_ui.py

clean:  ## all that a run can make again, registered versions too; not the environment, the data or what was downloaded
	rm -rf outputs cache mlruns mlflow.db mlflow.db.lock mlflow.db.register.lock .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.*
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
