"""When MLflow runs begin and end: always with a status, and those of dead processes as KILLED.

With CINETUNE_UNTRACKED=1 nothing is written and MLflow need not be installed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cinetune import errors, provenance
from cinetune.errors import InputError, reason_of
from cinetune.runtime import distributed
from cinetune.tracking import owners, ui
from cinetune.tracking.runs import NAME, Run, Tracker, UntrackedRun, failure_tags
from cinetune.tracking.store import (
    deferred_signals,
    experiment_id,
    one_at_a_time,
    open_store,
    reaching,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

PARENT = "CINETUNE_PARENT_RUN_ID"
ENDED = ("FINISHED", "FAILED", "KILLED")
ABANDONED = "its process was gone without having ended it, as after a power cut"
# Stages whose runs MLflow adds the machine's own metrics to, as `system/...`.
SYSTEM_METRICS_STAGES = ("train",)


def is_untracked() -> bool:
    return os.environ.get("CINETUNE_UNTRACKED", "") not in ("", "0") or not distributed.is_first()


@contextmanager
def start(
    stage: str, tags: Mapping[str, str] | None = None, parent: Tracker | None = None, name: str = ""
) -> Iterator[Tracker]:
    """The run that this process writes to; it ends FINISHED, or FAILED with any exception or signal.

    That is the one of `mlflow run` (MLFLOW_RUN_ID), else a new one, below the loop's where there is one; with
    `parent` a new one below that. `name` is what the UI calls it, else the stage.
    Raises InputError when the store is unreachable at the start.
    """
    if is_untracked():
        yield UntrackedRun(is_silent=not distributed.is_first())
        return
    run: Run | None = None
    try:
        # Between creating a run and knowing its id no signal may come, or the run would stay RUNNING.
        with deferred_signals():
            run = _open(stage, name or stage, parent)
            run.set_tags({"stage": stage, **owners.tags(), **provenance.git_state(), **(tags or {})})
        if parent is None:
            close_abandoned(run.experiment_id)
        yield run
    except BaseException as error:
        if run is not None:
            run.finish("FAILED", _reason(error))
        raise
    run.finish("FINISHED")


@contextmanager
def given(stage: str, name: str) -> Iterator[Tracker]:
    """The run that `mlflow run` has begun for this process, none otherwise: for what makes nothing."""
    if "MLFLOW_RUN_ID" not in os.environ:
        yield UntrackedRun(is_silent=True)
        return
    with start(stage, name=name) as run:
        yield run


def _open(stage: str, name: str, parent: Tracker | None) -> Run:
    import mlflow

    with reaching():
        client = open_store()
        if "MLFLOW_RUN_ID" in os.environ:
            active = mlflow.start_run(log_system_metrics=False)
            if _is_random(active.info.run_name):
                client.set_tag(active.info.run_id, NAME, name)
        else:
            active = mlflow.start_run(
                experiment_id=experiment_id(client),
                run_name=name,
                parent_run_id=parent.id if parent else os.environ.get(PARENT),
                nested=parent is not None,
                tags={"mlflow.source.name": f"cinetune {stage}"},
                log_system_metrics=False,
            )
        _add_views(client, active.info.experiment_id)
    os.environ.pop("MLFLOW_RUN_ID", None)
    return Run(active.info.run_id, active.info.experiment_id, client, _wants_system_metrics(stage))


def _wants_system_metrics(stage: str) -> bool:
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as CHOICE

    return bool(CHOICE.get()) if CHOICE.is_set() else stage in SYSTEM_METRICS_STAGES


def close_abandoned(experiment_id: str) -> None:
    """End as KILLED the runs of this machine that a power cut or kill -9 has left RUNNING."""
    ours = f"attributes.status = 'RUNNING' and tags.`{owners.HOST}` = '{owners.host()}'"
    with reaching():
        client = open_store()
        for run in client.search_runs([experiment_id], ours):
            if owners.is_gone(run.data.tags):
                _say_failure(client, run.info.run_id, ABANDONED)
                client.set_terminated(run.info.run_id, "KILLED")
                logger.warning("tracking: run %s is KILLED: %s.", run.info.run_id, ABANDONED)


def _is_random(name: str) -> bool:
    """Whether MLflow generated the name, as in `flawless-colt-583`."""
    from mlflow.utils import name_utils

    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    words = [
        [word.lower() for word in known] for known in (name_utils._GENERATOR_PREDICATES, name_utils._GENERATOR_NOUNS)
    ]
    return predicate in words[0] and noun in words[1] and number.isdecimal()


def _add_views(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment its note, unless it has one already, and its views as they are now."""
    with one_at_a_time():
        known = client.get_experiment(experiment_id).tags
        for key, value in ui.tags(int(time.time() * 1000)).items():
            if key not in known or ui.is_older_view(known[key], value):
                client.set_experiment_tag(experiment_id, key, value)


def create_child(parent: Run, name: str) -> str:
    """A run below another that a process yet to be started will write to, given it as MLFLOW_RUN_ID."""
    with reaching():
        tags = {"mlflow.parentRunId": parent.id}
        return str(open_store().create_run(parent.experiment_id, tags=tags, run_name=name).info.run_id)


def fail(run_id: str, reason: str) -> None:
    """End a run that was never opened here as FAILED, unless it has ended."""
    if is_untracked():
        return
    try:
        with reaching(f"run {run_id} cannot be marked as FAILED"):
            client = open_store()
            # Another process of ours may have opened it, and ended it with a better reason.
            run = client.get_run(run_id)
            if run.info.status in ENDED:
                return
            if _is_random(run.info.run_name):
                client.set_tag(run_id, NAME, run.data.tags.get("mlflow.project.entryPoint", run.info.run_name))
            _say_failure(client, run_id, reason)
            client.set_terminated(run_id, "FAILED")
    except InputError as error:
        logger.error("tracking: %s", error)


def _say_failure(client: MlflowClient, run_id: str, reason: str) -> None:
    for name, value in failure_tags(reason).items():
        client.set_tag(run_id, name, value)


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"stopped with exit status {error.code}"
    sentence = error if isinstance(error, InputError) else errors.of_machine(error)
    return str(sentence) if sentence else f"{type(error).__name__}: {reason_of(error)}"


def take_over(tracked: Tracker, note: Callable[[str], str | None]) -> None:
    """End the run of a process that was killed in the same work; `note` keeps this run's id and gives that one's."""
    killed = note(tracked.id) if isinstance(tracked, Run) else None
    if killed:
        fail(killed, f"it was killed; run {tracked.id} resumes where it was")
