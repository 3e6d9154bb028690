"""The registered model: a pyfunc made of code, with no pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.pyfunc
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

from cinetune import provenance
from cinetune.errors import InputError, reason_of
from cinetune.serving.batching import BusyError
from cinetune.serving.requests import form
from cinetune.serving.server.deadline import Deadline
from cinetune.serving.service import ANSWER, FAILED, MANY_WAITING, TIME_OVER, Service

logger = logging.getLogger(__name__)


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
        loaded = provenance.source_digest()
        if config.get("source_digest", loaded) != loaded:
            logger.warning(
                "this version was registered with other code than is loaded here, and its answers may differ: load "
                "it where no other cinetune is imported, or serve it with `python -m cinetune serve`."
            )
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
    ) -> pd.DataFrame:
        """One answer a row, in order, in columns of objects: a null stays one, and JSON shows it as null.

        Raises nothing but MlflowException: of others MLflow sends its client the traceback.
        """
        try:
            rows = form.rows_of_table(model_input)
            if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get():
                form.check_rows(rows)
            options = form.read_parameters(params or {}).options(self.service.defaults)
            answers = self.service.answer(rows, options, self._deadline())
        except InputError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        except TimeoutError:
            raise MlflowException(TIME_OVER, DEADLINE_EXCEEDED) from None
        except BusyError:
            raise MlflowException(MANY_WAITING, TEMPORARILY_UNAVAILABLE) from None
        except Exception:
            logger.exception("the model failed on a request of %d rows", len(model_input))
            raise MlflowException(FAILED, INTERNAL_ERROR) from None
        trial = _TRIAL.get()
        if trial is not None:
            trial.answers += answers
        index = model_input.index if len(answers) == len(model_input) else None
        return pd.DataFrame(answers, index=index, columns=list(ANSWER), dtype=object)

    def _deadline(self) -> Deadline:
        timeout_s = None
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get():
            # After MLflow's own limit the client has its timeout already.
            timeout_s = min(self.service.limits.timeout_s, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())
        return Deadline(timeout_s)
