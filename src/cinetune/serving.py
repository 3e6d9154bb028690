"""The registered model: a pyfunc made of code, with no pickle, and how a version of it is written.

A version holds the adapter, this package's code and a reference to its base model, which is found and checked
by content when the version is loaded.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.environment_variables import (
    _MLFLOW_IS_IN_SERVING_ENVIRONMENT,
    MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from cinetune import prompts
from cinetune.errors import InputError
from cinetune.frames import FrameSettings, identity
from cinetune.params import Params
from cinetune.service import Service, base_digest, example_row, find_base

logger = logging.getLogger(__name__)

MOST_ROWS = 256
MOST_NEW_TOKENS = 256
REQUIREMENTS = (
    "mlflow", "transformers", "torch", "peft", "bitsandbytes", "accelerate", "av", "scenedetect-headless",
    "pandas", "numpy",
)  # fmt: skip


class ClipModel(mlflow.pyfunc.PythonModel):
    """What MLflow loads and calls."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        config = json.loads(Path(context.artifacts["config"]).read_text(encoding="utf-8"))
        self._service = Service.load(Path(context.artifacts["adapter"]), config)

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
        max_new_tokens = (params or {}).get("max_new_tokens", self._service.max_new_tokens)
        if len(rows) > MOST_ROWS:
            raise _bad_request(f"a request may hold {MOST_ROWS} rows, got {len(rows)}: send several.")
        if not 1 <= max_new_tokens <= MOST_NEW_TOKENS:
            wanted = f"between 1 and {MOST_NEW_TOKENS}"
            raise _bad_request(f"max_new_tokens must be {wanted}, got {max_new_tokens}.")
        deadline = None
        if _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get():
            # By then the server has told the client that it is too late.
            deadline = time.monotonic() + MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()
        try:
            return self._service.answer(rows, int(max_new_tokens), deadline)
        except TimeoutError:
            reason = "the time for this request is over: send fewer rows, or raise the server's timeout."
            raise MlflowException(reason, DEADLINE_EXCEEDED) from None
        except RuntimeError:
            logger.exception("the model failed on a request of %d rows", len(rows))
            reason = "the model failed on this request: see the server's log."
            raise MlflowException(reason, INTERNAL_ERROR) from None


def _bad_request(reason: str) -> MlflowException:
    return MlflowException(reason, INVALID_PARAMETER_VALUE)


def log_model(adapter: Path, params: Params, metrics: Mapping[str, Any] | None) -> ModelInfo:
    """Log the adapter as a served model to the active MLflow run; `metrics` is what metrics.json holds.

    Raises InputError when there is no adapter, or its base model is missing.
    """
    adapter = Path(adapter)
    if not (adapter / "adapter_model.safetensors").is_file():
        raise InputError(f"{str(adapter)!r} is not an adapter folder: run the train stage, or name another.")
    root = str(Path.cwd())
    config = {
        "model": asdict(params.model),
        "base_sha256": base_digest(find_base(params.model, root)),
        "frames": asdict(params.frames),
        "frame_settings": identity(FrameSettings.of(params.frames)),
        "max_subtitle_tokens": params.prompt.max_subtitle_tokens,
        "truncate": params.prompt.truncate,
        "prompt_hash": prompts.template_hash(),
        "questions_per_pack": params.evaluate.questions_per_pack,
        "max_new_tokens": params.evaluate.max_new_tokens,
        "clips": str(Path(params.data.root) / "clips"),
        "root": root,
    }
    package = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as scratch:
        config_file, card_file = Path(scratch) / "serving.json", Path(scratch) / "README.md"
        config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        card_file.write_text(model_card(config, metrics), encoding="utf-8")
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "serving_model.py"),
            artifacts={"adapter": str(adapter), "config": str(config_file), "card": str(card_file)},
            code_paths=[str(package)],
            signature=signature(params.evaluate.max_new_tokens),
            input_example=pd.DataFrame([example_row()]),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            metadata={name: config[name] for name in ("base_sha256", "prompt_hash", "frame_settings")},
        )


def signature(max_new_tokens: int) -> ModelSignature:
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
        params=ParamSchema([ParamSpec("max_new_tokens", DataType.integer, max_new_tokens)]),
    )


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    """What a version is, how good it was, and what it must not be taken for."""
    base, frames = config["model"], config["frames"]
    revision = f" at {base['revision']}" if base["revision"] else ""
    return f"""# Video-LLaVA fine-tuned on movie scenes

A LoRA adapter for the base model `{base["base"]}`{revision}, quantisation `{base["quantization"]}`,
computed in `{base["dtype"]}`. The base is not included: it is looked up at load and must have the digest
`{config["base_sha256"]}`.

A clip is seen as {frames["num_frames"]} frames of {frames["size"]} pixels a side (settings
`{config["frame_settings"]}`), and asked about with the prompt template `{config["prompt_hash"]}`.

## Results

{_results(metrics)}

## Limits

It answers about short movie scenes in English, from a few frames and the subtitles; it hears nothing. A
multiple-choice answer is always one of the options, also where none is right. CinePile's licence
(CC-BY-NC-SA-4.0) is non-commercial: an adapter trained on it may be used non-commercially alone.

## Making it again

Check out the commit of the run that logged this version, run `dvc pull data.dvc base-model.dvc`, then
`mlflow run .`; the resolved parameters lie beside the adapter.
"""


def _results(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not evaluated when this version was logged."
    lines = [
        f"On the {metrics['split']} split of {metrics['dataset']}; intervals are 95 %, over clips.",
        "",
        "| scorer | accuracy in % | interval | questions | unparsed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, scorer in metrics["scorers"].items():
        overall = scorer["overall"]
        accuracy = "-" if overall["accuracy"] is None else f"{100 * overall['accuracy']:.1f}"
        interval = " to ".join(f"{100 * edge:.1f}" for edge in overall["ci95"] or ()) or "-"
        lines.append(f"| {name} | {accuracy} | {interval} | {overall['n']} | {scorer['unparsed']} |")
    return "\n".join(lines)
