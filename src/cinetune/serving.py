"""The registered model: a pyfunc made of code, with no pickle, and how a version of it is written.

A version holds the adapter, this package's code and a reference to its base model, which is found and checked
by content when the version is loaded.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import yaml
from mlflow.environment_variables import (
    _MLFLOW_IS_IN_SERVING_ENVIRONMENT,
    MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from cinetune import model_card, places, prompts, views
from cinetune.engine import BusyError
from cinetune.errors import InputError
from cinetune.frames import FrameSettings, identity
from cinetune.params import Params
from cinetune.provenance import folder_digest
from cinetune.service import SCORERS, Options, Service, example_row
from cinetune.tickets import CURRENT, Ticket

logger = logging.getLogger(__name__)

MOST_ROWS = 256
MOST_NEW_TOKENS = 256
# What MLflow takes as a description.
MOST_CARD_CHARS = 5000
REQUIREMENTS = (
    "mlflow", "transformers", "torch", "peft", "bitsandbytes", "accelerate", "av", "scenedetect-headless",
    "pandas", "numpy",
)  # fmt: skip


class ClipModel(mlflow.pyfunc.PythonModel):
    """What MLflow loads and calls."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        config = json.loads(Path(context.artifacts["config"]).read_text(encoding="utf-8"))
        base = Path(context.artifacts["base"]) if "base" in context.artifacts else None
        self.service = Service.load(Path(context.artifacts["adapter"]), config, base)

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """One answer a row, in order.

        Raises MlflowException alone, for of any other MLflow shows its client the whole trace.
        """
        rows = model_input.to_dict("records")
        if len(rows) > MOST_ROWS:
            raise _bad_request(f"a request may hold {MOST_ROWS} rows, got {len(rows)}: send several.")
        options = self._options(params or {})
        try:
            return self.service.answer(rows, options, CURRENT.get() or self._ticket())
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
        if not 1 <= options.max_new_tokens <= MOST_NEW_TOKENS:
            wanted = f"between 1 and {MOST_NEW_TOKENS}"
            raise _bad_request(f"max_new_tokens must be {wanted}, got {options.max_new_tokens}.")
        if options.scorer not in SCORERS:
            raise _bad_request(f"scorer must be one of {', '.join(SCORERS)}, got {options.scorer[:80]!r}.")
        if not 1 <= options.num_frames <= defaults.num_frames:
            wanted = f"between 1 and the {defaults.num_frames} that the model was trained on"
            raise _bad_request(f"frames must be {wanted}, got {options.num_frames}.")
        return options

    def _ticket(self) -> Ticket:
        timeout_s = None
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get():
            # After MLflow's own limit the client has been told that it is too late.
            timeout_s = min(self.service.limits.timeout_s, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())
        return Ticket(timeout_s)


class StrictModel:
    """The loaded model for MLflow's server, refusing what MLflow would drop without a word."""

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
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows or ()]
    if columns is not None:
        plain = {name: [_plain(value) for value in values] for name, values in columns.items()}
    return pd.DataFrame(plain, dtype=object)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _bad_request(reason: str) -> MlflowException:
    return MlflowException(reason, INVALID_PARAMETER_VALUE)


def log_model(
    adapter: Path,
    params: Params,
    metrics: Mapping[str, Any] | None,
    tags: Mapping[str, str],
    embed_base: bool = False,
) -> ModelInfo:
    """Log the adapter as a served model to the active MLflow run.

    params: with the sections that the adapter was trained with; metrics: what metrics.json holds; tags: what the
    card tells of where it comes from; embed_base: put the base model into it. Raises InputError when there is no
    adapter, or its base model is missing.
    """
    adapter = Path(adapter)
    if not (adapter / "adapter_model.safetensors").is_file():
        raise InputError(f"{str(adapter)!r} is not an adapter folder: run the train stage, or name another.")
    root = str(Path.cwd())
    base = places.find_base(params.model, root)
    config = {
        "model": asdict(params.model),
        "base_sha256": places.base_digest(base),
        "embeds_base": embed_base,
        "adapter_sha256": folder_digest(adapter),
        "frames": asdict(params.frames),
        "frame_settings": identity(FrameSettings.of(params.frames)),
        "max_subtitle_tokens": params.prompt.max_subtitle_tokens,
        "truncate": params.prompt.truncate,
        "prompt_hash": prompts.template_hash(),
        "questions_per_pack": params.evaluate.questions_per_pack,
        "max_new_tokens": params.evaluate.max_new_tokens,
        "serve": asdict(params.serve),
        "clips": str(Path(params.data.root) / "clips"),
        "root": root,
    }
    package = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as scratch:
        written = {
            "config": (Path(scratch) / "serving.json", json.dumps(config, indent=2) + "\n"),
            "card": (Path(scratch) / "README.md", model_card.text(config, metrics, tags)),
            "params": (Path(scratch) / "params.yaml", yaml.safe_dump(params.to_dict(), sort_keys=False)),
        }
        card = written["card"][1]
        for path, content in written.values():
            path.write_text(content, encoding="utf-8")
        artifacts = {"adapter": str(adapter), **{name: str(path) for name, (path, _) in written.items()}}
        if embed_base:
            artifacts["base"] = str(_copy_base(base, Path(scratch) / "base"))
        return mlflow.pyfunc.log_model(
            # What a name of MLflow's registry may hold, a model's own may not.
            name=re.sub(r"[/:.%\"']", "-", params.register.name),
            python_model=str(package / "serving_model.py"),
            artifacts=artifacts,
            code_paths=[str(package)],
            signature=signature(params.evaluate.max_new_tokens, params.frames.num_frames),
            input_example=pd.DataFrame([example_row()]),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            params={
                "base": params.model.base,
                "lora_rank": params.train.lora_rank,
                "learning_rate": params.train.learning_rate,
                "epochs": params.train.epochs,
                "num_frames": params.frames.num_frames,
            },
            tags={views.NOTE_TAG: card[:MOST_CARD_CHARS]},
            metadata={
                name: config[name] for name in ("base_sha256", "adapter_sha256", "prompt_hash", "frame_settings")
            },
        )


def _copy_base(base: Path, target: Path) -> Path:
    """Only what is loaded of it."""
    target.mkdir()
    for path in places.base_files(base):
        shutil.copy(path, target / path.name)
    return target


def signature(max_new_tokens: int, num_frames: int) -> ModelSignature:
    text, optional = DataType.string, {"required": False}
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(text, "video"),
                ColSpec(text, "question"),
                ColSpec(Array(text), "choices", **optional),
                ColSpec(text, "subtitles", **optional),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(text, "answer"),
                ColSpec(text, "choice", **optional),
                ColSpec(DataType.double, "confidence", **optional),
                ColSpec(text, "raw"),
                ColSpec(text, "error", **optional),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("max_new_tokens", DataType.integer, max_new_tokens),
                ParamSpec("scorer", text, SCORERS[0]),
                ParamSpec("frames", DataType.integer, num_frames),
            ]
        ),
    )
