"""What a stage writes to: an MLflow run that outlasts an unreachable server, or none at all.

MLflow is imported inside the functions: it takes two seconds, and untracked runs do not need it.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.errors import reason_of
from cinetune.tracking import owners, ui
from cinetune.tracking.store import deferred_signals, reaching, store_errors

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 30.0
MAX_BUFFERED_METRICS = 50_000
METRICS_PER_BATCH, PARAMS_PER_BATCH = 500, 100
MAX_TAG_CHARS = 5000
NAME = "mlflow.runName"


class Tracker:
    """The interface that stages log to; this one drops everything."""

    def __init__(self, run_id: str, experiment_id: str) -> None:
        self.id, self.experiment_id = run_id, experiment_id

    def resume(self, run_id: str) -> None:
        """Write to an earlier run from here on; the one that was begun ends with it and names it."""
        self.id = run_id

    def log_params(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """`{"train": {"epochs": 3}}` as `train.epochs`, `{"": {"Seed": 1}}` as `Seed`; keys that the run has stay."""

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """None is left out. While the server is unreachable metrics are buffered, and sent when it is back."""

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: tuple[str, str]) -> None:
        """Metrics of a logged model on a dataset (its name and digest), for the model's own page; None is left out."""

    def rename(self, name: str) -> None:
        """What the UI calls the run."""

    def describe(self, text: str) -> None:
        """What the run's page says first, in Markdown; `run <id>` becomes a link."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Values are cut at MLflow's limit."""

    def log_dataset(
        self, name: str, context: str, source: Path, digest: str, schema: Mapping[str, str], counts: Mapping[str, int]
    ) -> None:
        """An input of the run: `digest` has 36 characters at most, `schema` is type by column."""

    def log_artifacts(self, folder: Path, path: str) -> None:
        """The content of a folder, below `path`."""

    def log_table(self, content: Mapping[str, Any], path: str) -> None:
        """JSON as an artifact."""

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        """A table that the UI can show and compare between runs."""


class UntrackedRun(Tracker):
    """Without MLflow: metrics are printed (by the first of several processes), the rest is dropped."""

    def __init__(self, is_silent: bool) -> None:
        super().__init__(f"untracked-{uuid.uuid4().hex[:12]}", "")
        self._is_silent = is_silent

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        if not self._is_silent:
            shown = " ".join(f"{name}={value:.6g}" for name, value in metrics.items() if value is not None)
            print(f"step {step}: {shown}", flush=True)  # noqa: T201


class Run(Tracker):
    """An open MLflow run. A failed write never stops the work: it is reported at the end, and metrics are resent.

    has_system_metrics: add those of the machine, after the first of its own, for pages open on what came first.
    """

    def __init__(self, run_id: str, experiment_id: str, client: MlflowClient, has_system_metrics: bool = False) -> None:
        super().__init__(run_id, experiment_id)
        self._client = client
        self._has_system_metrics = has_system_metrics
        self._monitor: SystemMetricsMonitor | None = None
        self._buffer: list[Metric] = []
        self._num_dropped = 0
        self._retry_at = 0.0
        self._lost: list[str] = []

    def resume(self, run_id: str) -> None:
        import mlflow

        self.set_tags({"resumed": run_id})
        with deferred_signals(), reaching(f"run {run_id} cannot be resumed"):
            # Before it is RUNNING again: others would take it for one whose process is gone.
            for name, value in owners.tags().items():
                self._client.set_tag(run_id, name, value)
            earlier = mlflow.start_run(run_id=run_id, nested=True)
            self.id = run_id
            for name in failure_tags("").keys() & earlier.data.tags.keys():
                self._client.delete_tag(run_id, name)

    def log_params(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        from mlflow.entities import Param

        flat = {
            f"{section}.{name}".removeprefix("."): str(value)
            for section, values in sections.items()
            for name, value in values.items()
        }

        def write() -> None:
            known = self._client.get_run(self.id).data.params
            new = [Param(name, value) for name, value in flat.items() if name not in known]
            for start in range(0, len(new), PARAMS_PER_BATCH):
                self._client.log_batch(self.id, params=new[start : start + PARAMS_PER_BATCH])

        self._attempt("parameters", write)

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [
            Metric(metric_name(name), float(value), now, step) for name, value in metrics.items() if value is not None
        ]
        if time.monotonic() >= self._retry_at:
            self._send_metrics()
        if self._has_system_metrics and self._monitor is None:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.id, resume_logging=True)
            self._monitor.start()

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: tuple[str, str]) -> None:
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
        link = rf"[run \1](#/experiments/{self.experiment_id}/runs/\1)"
        self.set_tags({ui.NOTE_TAG: re.sub(r"\brun ([0-9a-f]{32})\b", link, text)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(name, str(value)[:MAX_TAG_CHARS]) for name, value in tags.items()]
        self._attempt("tags", lambda: self._client.log_batch(self.id, tags=entities))

    def log_dataset(
        self, name: str, context: str, source: Path, digest: str, schema: Mapping[str, str], counts: Mapping[str, int]
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [{"name": column, "type": kind, "required": True} for column, kind in schema.items()]
        dataset = Dataset(
            name,
            digest[:36],
            "local",
            json.dumps({"uri": source.as_posix()}),
            json.dumps({"mlflow_colspec": columns}),
            json.dumps(dict(counts)),
        )
        used = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        self._attempt("a dataset", lambda: self._client.log_inputs(self.id, [used]))

    def log_artifacts(self, folder: Path, path: str) -> None:
        self._attempt(f"artifacts {path!r}", lambda: self._client.log_artifacts(self.id, str(folder), path))

    def log_table(self, content: Mapping[str, Any], path: str) -> None:
        self._attempt(f"artifact {path!r}", lambda: self._client.log_dict(self.id, dict(content), path))

    def log_rows(self, table: pd.DataFrame, path: str) -> None:
        self._attempt(f"table {path!r}", lambda: self._client.log_table(self.id, table, path))

    def finish(self, status: str, reason: str = "") -> None:
        """End it as FINISHED or FAILED, and report on stderr what could not be logged."""
        import mlflow

        with deferred_signals():
            if self._monitor is not None:
                self._monitor.finish()
            self._send_metrics()
            if reason:
                self.set_tags(failure_tags(reason))
            # Below a resumed run stands the one that was begun.
            while mlflow.active_run() is not None:
                self._attempt("its end", lambda: mlflow.end_run(status))
        if self._buffer or self._num_dropped:
            self._lost.append(f"{len(self._buffer) + self._num_dropped} metrics")
        if self._lost:
            logger.warning("tracking: not logged to run %s: %s.", self.id, "; ".join(self._lost))

    def _send_metrics(self) -> None:
        while self._buffer:
            batch = self._buffer[:METRICS_PER_BATCH]
            try:
                self._client.log_batch(self.id, metrics=batch)
            except store_errors() as error:
                if not self._retry_at:
                    logger.warning("tracking: tracking server unreachable (%s); buffering metrics.", reason_of(error))
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                # Without a bound a long outage would fill the memory.
                self._num_dropped += max(0, len(self._buffer) - MAX_BUFFERED_METRICS)
                del self._buffer[MAX_BUFFERED_METRICS:]
                return
            del self._buffer[: len(batch)]
        self._retry_at = 0.0

    def _attempt(self, what: str, write: Callable[[], object]) -> None:
        try:
            write()
        except store_errors() as error:
            self._lost.append(f"{what} ({reason_of(error)})")


def failure_tags(reason: str) -> dict[str, str]:
    """Where one looks for why a run failed: in a column of the table of runs, and first on its page."""
    return {"failure": reason[:MAX_TAG_CHARS], ui.NOTE_TAG: f"**Failed:** {reason}"[:MAX_TAG_CHARS]}


def metric_name(name: str) -> str:
    """`name` with what MLflow refuses in it replaced by `_`."""
    parts = [part for part in re.sub(r"[^\w\-. :/]", "_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"
