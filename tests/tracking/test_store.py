"""The store may be missing, away or migrated, and signals wait for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

import cinetune
from builders.projects import environment
from cinetune.errors import InputError
from cinetune.tracking import lifecycle
from cinetune.tracking.queries import fetch
from cinetune.tracking.store import EXPERIMENT, deferred_signals

pytestmark = pytest.mark.experience


def test_an_experiment_has_its_views_and_keeps_what_a_person_made_of_them(store: mlflow.MlflowClient) -> None:
    with lifecycle.start("train") as run:
        pass
    tags = store.get_experiment(run.experiment_id).tags
    overview = json.loads(tags["mlflow.sharedViewState.overview"])
    assert overview["name"] == "Overview" and "finetuned/accuracy" in overview["state"]
    store.set_experiment_tag(run.experiment_id, "mlflow.note.content", "ours")
    older = json.dumps(json.loads(tags["mlflow.sharedViewState.trainings"]) | {"state": "{}"})
    store.set_experiment_tag(run.experiment_id, "mlflow.sharedViewState.trainings", older)
    with lifecycle.start("train"):
        pass
    found = store.get_experiment(run.experiment_id).tags
    views = {name: json.loads(found.pop(name))["state"] for name in list(found) if name.startswith("mlflow.shared")}
    assert views == {name: json.loads(tags[name])["state"] for name in views} and len(views) == 3
    assert found["mlflow.note.content"] == "ours"


def test_an_address_that_leads_nowhere_is_one_sentence(store: mlflow.MlflowClient, tmp_path: Path) -> None:
    for uri in ("runs:/0123456789abcdef/adapter", "models:/nobody@champion", "models:/nobody/1"):
        with pytest.raises(InputError, match=r"cannot be fetched") as caught:
            fetch(uri, tmp_path / "fetched")
        assert uri in str(caught.value)


def test_a_signal_waits_until_the_block_is_done() -> None:
    steps = []

    def note(number: int, frame: object) -> None:
        steps.append("signal")

    before = signal.signal(signal.SIGTERM, note)
    try:
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("block")
        assert steps == ["block", "signal"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_processes_that_start_on_a_missing_database_share_one_experiment(tmp_path: Path) -> None:
    code = (
        "from cinetune.tracking import lifecycle\n"
        "with lifecycle.start('train') as run:\n"
        "    run.log_metrics({'loss': 1.0})\n"
    )
    variables = environment() | {"PYTHONPATH": str(Path(cinetune.__file__).parents[1])}
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    store = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert [experiment.name for experiment in store.search_experiments()] == [EXPERIMENT]
    assert [run.info.status for run in store.search_runs(["0"])] == ["FINISHED"] * 8
