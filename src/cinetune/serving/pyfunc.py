"""The registered model: a pyfunc made of code, with no pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.environment_variables import (
    _MLFLOW_IS_IN_SERVING_ENVIRONMENT,
    MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    TEMPORARILY_UNAVAILABLE,
)

from cinetune.errors import InputError, reason_of
from cinetune.serving.batching import BusyError
from cinetune.serving.server.deadline import CURRENT, Deadline
from cinetune.serving.service import SCORERS, Options, Service

logger = logging.getLogger(__name__)
MAX_ROWS = 256
MAX_NEW_TOKENS = 256


@dataclass
class Trial:
    """What became of a version that MLflow loads and asks its example while it is logged."""

    model: ClipModel | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""

    def check(self) -> None:
        """Raises InputError unless the version was loaded and has answered; MLflow itself only warns."""
        errors = [self.failure, *(str(answer["error"]) for answer in self.answers if answer["error"])]
        reason = next(filter(None, errors), "" if self.answers else "it gave no answer")
        if reason:
            raise InputError(f"the version cannot answer its own example, so it is not registered: {reason}")


_TRIAL: ContextVar[Trial | None] = ContextVar("trial", default=None)


@contextmanager
def trying() -> Iterator[Trial]:
    """Within the block, one version may be loaded and asked; its model is closed at the end."""
    trial = Trial()
    token = _TRIAL.set(trial)
    try:
        yield trial
    finally:
        _TRIAL.reset(token)
        if trial.model is not None:
            trial.model.service.close()


class ClipModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """What MLflow loads and calls."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        config = json.loads(Path(context.artifacts["config"]).read_text(encoding="utf-8"))
        base = Path(context.artifacts["base"]) if "base" in context.artifacts else None
        trial = _TRIAL.get() or Trial()
        try:
            self.service = Service.load(Path(context.artifacts["adapter"]), config, base)
        except (InputError, RuntimeError) as error:
            trial.failure = reason_of(error) + "."
            raise
        trial.model = self

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """One answer a row, in order.

        Raises nothing but MlflowException: of others MLflow sends its client the traceback.
        """
        answers = self._answer(model_input.to_dict("records"), params)
        trial = _TRIAL.get()
        if trial is not None:
            trial.answers += answers
        return answers

    def _answer(self, rows: list[dict[str, Any]], params: dict[str, Any] | None) -> list[dict[str, Any]]:
        if len(rows) > MAX_ROWS:
            raise _bad_request(f"a request may hold {MAX_ROWS} rows, got {len(rows)}: send several.")
        options = self._options(params or {})
        try:
            return self.service.answer(rows, options, CURRENT.get() or self._deadline())
        except TimeoutError:
            reason = "the time for this request is over: send fewer rows, or raise the server's timeout."
            raise MlflowException(reason, DEADLINE_EXCEEDED) from None
        except BusyError:
            reason = "the server has as many questions waiting as it takes: send this again in a moment."
            raise MlflowException(reason, TEMPORARILY_UNAVAILABLE) from None
        except RuntimeError:
            logger.exception("the model failed on a request of %d rows", len(rows))
            reason = "the model failed on this request: see the server's log."
            raise MlflowException(reason, INTERNAL_ERROR) from None

    def _options(self, params: Mapping[str, Any]) -> Options:
        defaults = self.service.defaults
        options = Options(
            int(params.get("max_new_tokens", defaults.max_new_tokens)),
            params.get("scorer", defaults.scorer),
            int(params.get("frames", defaults.num_frames)),
        )
        if not 1 <= options.max_new_tokens <= MAX_NEW_TOKENS:
            allowed = f"between 1 and {MAX_NEW_TOKENS}"
            raise _bad_request(f"max_new_tokens must be {allowed}, got {options.max_new_tokens}.")
        if options.scorer not in SCORERS:
            raise _bad_request(f"scorer must be one of {', '.join(SCORERS)}, got {options.scorer[:80]!r}.")
        if not 1 <= options.num_frames <= defaults.num_frames:
            allowed = f"between 1 and the {defaults.num_frames} that the model was trained on"
            raise _bad_request(f"frames must be {allowed}, got {options.num_frames}.")
        return options

    def _deadline(self) -> Deadline:
        timeout_s = None
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get():
            # After MLflow's own limit the client has its timeout already.
            timeout_s = min(self.service.limits.timeout_s, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())
        return Deadline(timeout_s)


class StrictModel:
    """The loaded model for MLflow's server, refusing the columns and parameters that MLflow would silently drop."""

    def __init__(self, model: mlflow.pyfunc.PyFuncModel) -> None:
        self._model = model
        self.metadata = model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        table = _table(data)
        known = {
            "column": self.metadata.get_input_schema().input_names(),
            "parameter": [param.name for param in self.metadata.get_params_schema()],
        }
        for kind, given in (("column", list(table)), ("parameter", list(params or {}))):
            unknown = [str(name) for name in given if name not in known[kind]]
            if unknown:
                allowed = ", ".join(known[kind])
                raise _bad_request(f"{kind} {unknown[0][:80]!r} is not known: choose from {allowed}.")
        return self._model.predict(table, params=params)


def _table(data: Any) -> pd.DataFrame:
    """One table from each of the server's formats; its own arrays would make a null among choices an error."""
    if isinstance(data, pd.DataFrame):
        return data
    columns = data if isinstance(data, dict) else None
    rows = data if isinstance(data, list) and all(isinstance(row, dict) for row in data) else None
    if columns is None and rows is None:
        raise _bad_request("the request's rows must be objects with the columns of the model's signature.")
    if columns is not None:
        return pd.DataFrame({name: [_plain(v) for v in values] for name, values in columns.items()}, dtype=object)
    return pd.DataFrame([{name: _plain(value) for name, value in row.items()} for row in rows or ()], dtype=object)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _bad_request(reason: str) -> MlflowException:
    return MlflowException(reason, INVALID_PARAMETER_VALUE)
