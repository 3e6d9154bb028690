"""Runs of processes that are gone are closed, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

import cinetune
from builders.projects import environment
from cinetune.tracking import lifecycle, owners

pytestmark = pytest.mark.experience


KILLED_IN_A_RUN = """
import os, signal
from cinetune.tracking import lifecycle
with lifecycle.start("train") as run:
    print(run.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_running() -> str:
    """The id of a run whose process was killed with no time to end it."""
    variables = environment() | {"PYTHONPATH": str(Path(cinetune.__file__).parents[1])}
    variables["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"]
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_RUN], env=variables, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


def test_runs_that_a_killed_process_left_running_are_closed_at_the_next_start(
    store: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    left = left_running()
    assert store.get_run(left).info.status == "RUNNING"
    others = [store.create_run(store.get_run(left).info.experiment_id).info.run_id for _ in range(3)]
    own, elsewhere, rebooted = others
    boot, *process = owners.tags()[owners.PROCESS].split()
    for run_id, host, words in (
        (own, owners.host(), [boot, *process]),
        (elsewhere, "another machine", ["another-boot", *process]),
        (rebooted, owners.host(), ["another-boot", *process]),
    ):
        store.set_tag(run_id, owners.HOST, host)
        store.set_tag(run_id, owners.PROCESS, " ".join(words))
    with lifecycle.start("train"):
        pass
    statuses = {run_id: store.get_run(run_id).info.status for run_id in (left, *others)}
    assert statuses == {left: "KILLED", own: "RUNNING", elsewhere: "RUNNING", rebooted: "KILLED"}
    assert "power cut" in store.get_run(left).data.tags["failure"]
    assert capsys.readouterr().err.count("is KILLED") == 2


def test_a_resumed_run_belongs_to_the_process_that_resumes_it(store: mlflow.MlflowClient) -> None:
    boot, namespace, _, started = owners.tags()[owners.PROCESS].split()
    gone = {owners.HOST: owners.host(), owners.PROCESS: f"{boot} {namespace} {2**22 + 1} {started}"}
    left = store.create_run("0", tags=gone).info.run_id
    with lifecycle.start("train") as run:
        run.resume(left)
        assert not owners.is_gone(store.get_run(left).data.tags)


def test_a_process_of_another_container_is_never_taken_for_one_of_ours() -> None:
    boot, namespace, _, started = owners.tags()[owners.PROCESS].split()
    gone = {owners.HOST: owners.host(), owners.PROCESS: f"{boot} {namespace} {2**22 + 1} {started}"}
    assert owners.is_gone(gone)
    assert owners.is_gone(gone | {owners.PROCESS: f"{boot} {namespace} {os.getpid()} {int(started) + 1000}"}), "reused"
    assert not owners.is_gone(gone | {owners.PROCESS: f"{boot} {int(namespace) + 1} {2**22 + 1} {started}"})
    assert not owners.is_gone({})
