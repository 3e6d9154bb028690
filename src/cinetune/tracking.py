"""MLflow's runs: they always end, and a server that dies in the middle does not stop the work.

With `registry` the only writer to MLflow; also turns `runs:/` and `models:/` into folders. MLflow is imported
inside the functions, for it takes two seconds and wrong arguments should not. With CINETUNE_UNTRACKED=1
nothing is written and MLflow need not be installed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import errors, owners, processes, provenance, views
from cinetune.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "cinetune"
FILE = "sqlite:///"
STORE = f"{FILE}mlflow.db"
PARENT = "CINETUNE_PARENT_RUN_ID"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_ANSWER = 10.0
SECONDS_BEFORE_RETRY = 30.0
MOST_WAITING_METRICS = 50_000
METRICS_A_BATCH, PARAMS_A_BATCH = 500, 100
MOST_TAG_CHARS = 5000
ENDED = ("FINISHED", "FAILED", "KILLED")
ABANDONED = "its process was gone without having ended it, as after a power cut"
NAME = "mlflow.runName"
# Stages whose runs MLflow adds the machine's own figures to, as `system/...`.
WATCHED = ("train",)


class Run:
    """An open MLflow run. What cannot be written to it is told at the end, and never stops the work."""

    def __init__(self, run_id: str, experiment_id: str, client: MlflowClient) -> None:
        self.id, self.experiment_id = run_id, experiment_id
        self._client = client
        self._waiting: list[Metric] = []
        self._forgotten = 0
        self._retry_at = 0.0
        self._lost: list[str] = []

    def go_on(self, run_id: str) -> None:
        """Write to an earlier run from here on; the one that was begun ends with it and names it."""
        import mlflow

        self.set_tags({"resumed": run_id})
        with deferred_signals(), reaching(f"run {run_id} cannot be gone on with"):
            # Before it is RUNNING again: others would take it for one whose process is gone.
            for name, value in owners.tags().items():
                self._client.set_tag(run_id, name, value)
            earlier = mlflow.start_run(run_id=run_id, nested=True)
            self.id = run_id
            if "failure" in earlier.data.tags:
                self._client.delete_tag(run_id, "failure")

    def log_params(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """`{"train": {"epochs": 3}}` as `train.epochs`; keys that the run has already stay as they are."""
        from mlflow.entities import Param

        flat = {
            f"{section}.{name}": str(value) for section, values in sections.items() for name, value in values.items()
        }

        def write() -> None:
            known = self._client.get_run(self.id).data.params
            new = [Param(name, value) for name, value in flat.items() if name not in known]
            for start in range(0, len(new), PARAMS_A_BATCH):
                self._client.log_batch(self.id, params=new[start : start + PARAMS_A_BATCH])

        self._attempt("parameters", write)

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """None is left out. While the server is away metrics wait here, to be sent when it is back."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [
            Metric(metric_name(name), float(value), now, step) for name, value in metrics.items() if value is not None
        ]
        if time.monotonic() >= self._retry_at:
            self._send_metrics()

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: tuple[str, str]) -> None:
        """Figures of a logged model on a dataset (its name and digest), for the model's own page; None is left out."""
        from mlflow.entities import Metric

        now, (name, digest) = int(time.time() * 1000), dataset
        of_model = {"model_id": model_id, "dataset_name": name, "dataset_digest": digest[:36], "run_id": self.id}
        found = [
            Metric(metric_name(key), float(value), now, 0, **of_model)
            for key, value in metrics.items()
            if value is not None
        ]
        self._attempt("the model's metrics", lambda: self._client.log_batch(self.id, metrics=found))

    def rename(self, name: str) -> None:
        self.set_tags({NAME: name})

    def describe(self, text: str) -> None:
        """What the run's page says first, in Markdown; `run <id>` becomes a link."""
        link = rf"[run \1](#/experiments/{self.experiment_id}/runs/\1)"
        self.set_tags({views.NOTE_TAG: re.sub(r"\brun ([0-9a-f]{32})\b", link, text)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(name, str(value)[:MOST_TAG_CHARS]) for name, value in tags.items()]
        self._attempt("tags", lambda: self._client.log_batch(self.id, tags=entities))

    def log_dataset(self, name: str, context: str, source: Path, digest: str) -> None:
        """An input of the run; `digest` (36 characters at most) is DVC's where DVC has the data."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source.as_posix()}))
        used = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        self._attempt("a dataset", lambda: self._client.log_inputs(self.id, [used]))

    def log_artifacts(self, folder: Path, path: str) -> None:
        self._attempt(f"artifacts {path!r}", lambda: self._client.log_artifacts(self.id, str(folder), path))

    def log_table(self, content: Mapping[str, Any], path: str) -> None:
        """JSON as an artifact."""
        self._attempt(f"artifact {path!r}", lambda: self._client.log_dict(self.id, dict(content), path))

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        """A table that the UI can show and compare between runs."""
        self._attempt(f"table {path!r}", lambda: self._client.log_table(self.id, table, path))

    def finish(self, status: str, reason: str = "") -> None:
        """Close it as FINISHED or FAILED, and tell on stderr what was lost."""
        import mlflow

        with deferred_signals():
            self._send_metrics()
            if reason:
                self.set_tags({"failure": reason})
            # One that was gone on with has the one that was begun below it.
            while mlflow.active_run() is not None:
                self._attempt("its end", lambda: mlflow.end_run(status))
        if self._waiting or self._forgotten:
            self._lost.append(f"{len(self._waiting) + self._forgotten} metrics")
        if self._lost:
            print(
                f"tracking: not logged to run {self.id}: {'; '.join(self._lost)}.",
                file=sys.stderr,
                flush=True,
            )

    def _send_metrics(self) -> None:
        while self._waiting:
            batch = self._waiting[:METRICS_A_BATCH]
            try:
                self._client.log_batch(self.id, metrics=batch)
            except store_errors() as error:
                if not self._retry_at:
                    print(
                        f"tracking: the store is away ({_line(error)}); metrics wait.",
                        file=sys.stderr,
                        flush=True,
                    )
                self._retry_at = time.monotonic() + SECONDS_BEFORE_RETRY
                # Without a bound a long run would fill the memory.
                self._forgotten += max(0, len(self._waiting) - MOST_WAITING_METRICS)
                del self._waiting[MOST_WAITING_METRICS:]
                return
            del self._waiting[: len(batch)]
        self._retry_at = 0.0

    def _attempt(self, what: str, write: Callable[[], object]) -> None:
        try:
            write()
        except store_errors() as error:
            self._lost.append(f"{what} ({_line(error)})")


class UntrackedRun:
    """The same without MLflow: metrics are printed (by one process of several), the rest is dropped."""

    def __init__(self, is_silent: bool) -> None:
        self.id = f"untracked-{uuid.uuid4().hex[:12]}"
        self.experiment_id = ""
        self._is_silent = is_silent

    def go_on(self, run_id: str) -> None:
        self.id = run_id

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        if not self._is_silent:
            shown = " ".join(f"{name}={value:.6g}" for name, value in metrics.items() if value is not None)
            print(f"step {step}: {shown}", flush=True)

    def log_params(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        pass

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: tuple[str, str]) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def describe(self, text: str) -> None:
        pass

    def set_tags(self, tags: Mapping[str, str]) -> None:
        pass

    def log_dataset(self, name: str, context: str, source: Path, digest: str) -> None:
        pass

    def log_artifacts(self, folder: Path, path: str) -> None:
        pass

    def log_table(self, content: Mapping[str, Any], path: str) -> None:
        pass

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        pass


def is_untracked() -> bool:
    return os.environ.get("CINETUNE_UNTRACKED", "") not in ("", "0") or not processes.is_first()


@contextmanager
def start(
    stage: str, tags: Mapping[str, str] | None = None, parent: Run | UntrackedRun | None = None, name: str = ""
) -> Iterator[Run | UntrackedRun]:
    """The run that this process is to write to; it ends FINISHED, or FAILED with any exception or signal.

    That is the one of `mlflow run` (MLFLOW_RUN_ID), else a new one, below the loop's where there is one; with
    `parent` a new one below that. `name` is what the UI calls it, else the stage.
    Raises InputError when the store cannot be reached at the start.
    """
    if is_untracked():
        yield UntrackedRun(is_silent=not processes.is_first())
        return
    run = None
    try:
        # Between creating a run and knowing its id no signal may come, or the run would stay RUNNING.
        with deferred_signals():
            run = _open(stage, name or stage, parent)
            run.set_tags({"stage": stage, **owners.tags(), **provenance.git_state(), **(tags or {})})
        if parent is None:
            _close_abandoned(run.experiment_id)
        yield run
    except BaseException as error:
        if run is not None:
            run.finish("FAILED", _reason(error))
        raise
    run.finish("FINISHED")


def _open(stage: str, name: str, parent: Run | UntrackedRun | None) -> Run:
    import mlflow

    with reaching():
        client = open_store()
        if "MLFLOW_RUN_ID" in os.environ:
            active = mlflow.start_run(log_system_metrics=_is_watched(stage))
            if _is_random(active.info.run_name):
                client.set_tag(active.info.run_id, NAME, name)
        else:
            active = mlflow.start_run(
                experiment_id=_experiment_id(client),
                run_name=name,
                parent_run_id=parent.id if parent else os.environ.get(PARENT),
                nested=parent is not None,
                tags={"mlflow.source.name": f"cinetune {stage}"},
                log_system_metrics=_is_watched(stage),
            )
        _dress(client, active.info.experiment_id)
    os.environ.pop("MLFLOW_RUN_ID", None)
    return Run(active.info.run_id, active.info.experiment_id, client)


def _is_watched(stage: str) -> bool | None:
    """None leaves it to MLflow's own variable."""
    return stage in WATCHED if "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING" not in os.environ else None


def _close_abandoned(experiment_id: str) -> None:
    """End runs of this machine that a power cut or kill -9 has left RUNNING as KILLED."""
    ours = f"attributes.status = 'RUNNING' and tags.`{owners.HOST}` = '{owners.host()}'"
    with reaching():
        client = open_store()
        for run in client.search_runs([experiment_id], ours):
            if owners.is_gone(run.data.tags):
                client.set_tag(run.info.run_id, "failure", ABANDONED)
                client.set_terminated(run.info.run_id, "KILLED")
                print(f"tracking: run {run.info.run_id} is KILLED: {ABANDONED}.", file=sys.stderr, flush=True)


def _is_random(name: str) -> bool:
    """Whether MLflow made the name up, as in `flawless-colt-583`."""
    from mlflow.utils import name_utils

    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    words = [
        [word.lower() for word in known] for known in (name_utils._GENERATOR_PREDICATES, name_utils._GENERATOR_NOUNS)
    ]
    return predicate in words[0] and noun in words[1] and number.isdecimal()


def _dress(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment its note and views, unless it has them, or others of those names, already."""
    with _one_at_a_time():
        known = client.get_experiment(experiment_id).tags
        for key, value in views.tags(int(time.time() * 1000)).items():
            if key not in known:
                client.set_experiment_tag(experiment_id, key, value)


def create_child(parent: Run, name: str) -> str:
    """A run below another that a process yet to be started will write to, given it as MLFLOW_RUN_ID."""
    with reaching():
        tags = {"mlflow.parentRunId": parent.id}
        return str(open_store().create_run(parent.experiment_id, tags=tags, run_name=name).info.run_id)


def open_store() -> MlflowClient:
    """A client of the store, which is made first where it is the project's own and missing."""
    # A server that is away must cost seconds, not the minutes of MLflow's own patience.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_TRACKING_URI", STORE)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    for name in ("mlflow.store", "mlflow.tracking", "mlflow.system_metrics"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = mlflow.get_tracking_uri()
    with reaching():
        _knock(uri)
    # Several processes that start on a missing file at once would all migrate it.
    with reaching(), _one_at_a_time():
        client = mlflow.MlflowClient()
        if uri.startswith(FILE):
            default = client.get_experiment("0")
            # `mlflow run .` without a name goes to experiment 0: in the project's own store that is this one.
            is_own = Path(uri.removeprefix(FILE)).resolve() == Path(STORE.removeprefix(FILE)).resolve()
            if is_own and default.name == "Default" and client.get_experiment_by_name(EXPERIMENT) is None:
                client.rename_experiment("0", EXPERIMENT)
        return client


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of the processes that write to a store in a file; others keep their own order."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    if not uri.startswith(FILE):
        yield
        return
    with Path(f"{uri.removeprefix(FILE)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _knock(uri: str) -> None:
    """Raises where a server does not answer at all: MLflow would try for minutes."""
    if uri.startswith("http"):
        import requests

        # One whose certificate is doubted has answered; MLflow has settings of its own for that.
        with suppress(requests.exceptions.SSLError):
            requests.head(uri, timeout=SECONDS_TO_ANSWER)


def _experiment_id(client: MlflowClient) -> str:
    if os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    known = client.get_experiment_by_name(name)
    if known is not None:
        return known.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:
        # Another process may have made it in the meantime.
        known = client.get_experiment_by_name(name)
        if known is None:
            raise
        return known.experiment_id


def fail(run_id: str, reason: str) -> None:
    """End a run FAILED that was never opened here, if nobody has ended it."""
    if is_untracked():
        return
    try:
        client = open_store()
        # Another process of ours may have opened it, and ended it with a better reason.
        run = client.get_run(run_id)
        if run.info.status in ENDED:
            return
        if _is_random(run.info.run_name):
            client.set_tag(run_id, NAME, run.data.tags.get("mlflow.project.entryPoint", run.info.run_name))
        client.set_tag(run_id, "failure", reason[:MOST_TAG_CHARS])
        client.set_terminated(run_id, "FAILED")
    except (InputError, *store_errors()) as error:
        print(
            f"tracking: run {run_id} could not be marked as FAILED: {_line(error)}",
            file=sys.stderr,
            flush=True,
        )


def metric_name(name: str) -> str:
    """`name` with what MLflow refuses in it replaced by `_`."""
    parts = [part for part in re.sub(r"[^\w\-. :/]", "_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Signals that come within the block take effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in received[:1]:
            os.kill(os.getpid(), number)


# ---- reading back


def children(run: Run) -> dict[str, str]:
    """Ids of the FINISHED runs below a run, by their DVC stage, else their stage."""
    below = f"tags.`mlflow.parentRunId` = '{run.id}' and attributes.status = 'FINISHED'"
    with reaching():
        found = open_store().search_runs([run.experiment_id], below, order_by=["attributes.start_time ASC"])
    return {child.data.tags.get("dvc.stage") or child.data.tags.get("stage", ""): child.info.run_id for child in found}


def maker_of(experiment_id: str, stage: str, outputs: str) -> str | None:
    """The newest FINISHED run of a DVC stage that made these outputs."""
    of_stage = f"tags.`dvc.stage` = '{stage}' and attributes.status = 'FINISHED'"
    with reaching():
        found = open_store().search_runs([experiment_id], of_stage, order_by=["attributes.start_time DESC"])
    same = (run.info.run_id for run in found if run.data.tags.get("dvc.outputs") == outputs[:MOST_TAG_CHARS])
    return next(same, None)


def tag_run(run_id: str, key: str, value: str) -> None:
    with reaching():
        open_store().set_tag(run_id, key, value[:MOST_TAG_CHARS])


def fetch(uri: str, target: Path) -> Path:
    """What a `runs:/` or `models:/` address names, downloaded under `target`."""
    client = open_store()
    from mlflow.artifacts import download_artifacts

    target.mkdir(parents=True, exist_ok=True)
    with reaching(f"{uri!r} cannot be fetched"):
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=client.tracking_uri))


def load_model(uri: str) -> Any:
    """The registered or logged pyfunc at an address."""
    open_store()
    import mlflow.pyfunc

    with reaching(f"model {uri!r} cannot be loaded"):
        return mlflow.pyfunc.load_model(uri)


@contextmanager
def reaching(what: str = "the tracking store cannot be used") -> Iterator[None]:
    """Turns the store's errors into one sentence."""
    try:
        yield
    except store_errors() as error:
        address = os.environ.get("MLFLOW_TRACKING_URI", STORE)
        proxy = " A proxy is set: name the server's host in NO_PROXY." if _goes_through_proxy(address) else ""
        raise InputError(f"{what} ({_line(error)}): check MLFLOW_TRACKING_URI, now {address!r}.{proxy}") from None


def _goes_through_proxy(address: str) -> bool:
    from requests.utils import get_environ_proxies

    return address.startswith("http") and bool(get_environ_proxies(address))


def store_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError, OSError


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"stopped with exit status {error.code}"
    sentence = error if isinstance(error, InputError) else errors.of_machine(error)
    return str(sentence) if sentence else f"{type(error).__name__}: {_line(error)}"
