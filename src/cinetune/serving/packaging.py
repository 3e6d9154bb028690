"""Logging a version: the adapter, this package's code, and a reference to its base model or the model itself."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import yaml
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from cinetune import provenance
from cinetune.artifacts import Adapter, Evaluation, seen_by
from cinetune.frames.sampling import FrameSettings, identity
from cinetune.model import lookup
from cinetune.params import Params, making
from cinetune.serving import model_card
from cinetune.serving.pyfunc import trying
from cinetune.serving.requests import form
from cinetune.serving.requests.example import example_row
from cinetune.task import prompts
from cinetune.task.description import Task

# What MLflow takes as a description.
MAX_CARD_CHARS = 5000
REQUIREMENTS = (
    "mlflow", "transformers", "torch", "peft", "bitsandbytes", "accelerate", "av", "scenedetect-headless",
    "pandas", "numpy",
)  # fmt: skip


def log_model(
    adapter: Adapter,
    params: Params,
    metrics: Mapping[str, Any] | None,
    origin: Mapping[str, str],
    embed_base: bool = False,
    evaluation: Evaluation | None = None,
) -> ModelInfo:
    """Log the adapter as a served model to the active MLflow run.

    params: with the sections that the adapter was trained with; metrics: what metrics.json holds; origin: what it
    was made from; embed_base: put the base model into it; evaluation: what the next challenger is compared with.
    Raises InputError when its base model is missing, and when what was logged cannot be loaded or cannot answer its
    own example.
    """
    root = str(Path.cwd())
    base = lookup.find_base(params.model, root)
    commit = lookup.commit_of(params.model, base) or params.model.revision
    config = {
        "model": asdict(replace(params.model, revision=commit)),
        "base_sha256": lookup.base_digest(base),
        "embeds_base": embed_base,
        "adapter_sha256": adapter.digest,
        "frames": asdict(params.frames),
        "frame_settings": identity(FrameSettings.of(params.frames)),
        "max_subtitle_tokens": params.prompt.max_subtitle_tokens,
        "truncate": params.prompt.truncate,
        "prompt_hash": prompts.template_hash(adapter.task),
        "prompt_code_hash": provenance.prompt_code_digest(),
        "source_digest": provenance.source_digest(),
        "questions_per_pack": params.evaluate.questions_per_pack,
        "max_new_tokens": params.evaluate.max_new_tokens,
        "serve": asdict(params.serve),
        "clips": str(Path(params.data.root) / "clips"),
        "root": root,
        "task": adapter.task.to_dict(),
    }
    package = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as scratch, trying() as trial:
        written = {
            "config": (Path(scratch) / "serving.json", json.dumps(config, indent=2) + "\n"),
            "card": (Path(scratch) / "README.md", model_card.text(config, metrics, origin)),
            "params": (Path(scratch) / "params.yaml", yaml.safe_dump(making(params.to_dict()), sort_keys=False)),
            "origin": (Path(scratch) / "origin.json", json.dumps(dict(origin), indent=2) + "\n"),
        }
        card = written["card"][1]
        for path, content in written.values():
            path.write_text(content, encoding="utf-8")
        artifacts = {"adapter": str(adapter.folder), **{name: str(path) for name, (path, _) in written.items()}}
        if evaluation:
            evaluation.write(Path(scratch) / "evaluation")
            artifacts["evaluation"] = str(Path(scratch) / "evaluation")
        if embed_base:
            artifacts["base"] = str(_copy_base(base, Path(scratch) / "base"))
        info = mlflow.pyfunc.log_model(
            # What a name of MLflow's registry may hold, a model's own may not.
            name=re.sub(r"[/:.%\"']", "-", params.register.name),
            python_model=str(package / "serving" / "model_code.py"),
            artifacts=artifacts,
            code_paths=[str(package)],
            signature=signature(params.evaluate.max_new_tokens, params.frames.num_frames),
            input_example=pd.DataFrame([example_row(adapter.task)]),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            params={
                "adapter_digest": adapter.digest,
                "embeds_base": embed_base,
                "base": params.model.base,
                "lora_rank": params.train.lora_rank,
                "learning_rate": params.train.learning_rate,
                "epochs": params.train.epochs,
                "num_frames": params.frames.num_frames,
            },
            tags={MLFLOW_RUN_NOTE: card[:MAX_CARD_CHARS]},
            metadata={
                name: config[name]
                for name in ("base_sha256", "adapter_sha256", "prompt_hash", "frame_settings", "source_digest")
            },
        )
        trial.check()
        return info


def measured(params: Params, task: Task) -> dict[str, str]:
    """What will decide the answers of a version with these params, as made_from.json says it of an evaluation."""
    return seen_by(params, lookup.measure(lookup.find_base(params.model, str(Path.cwd()))), task)


def _copy_base(base: Path, target: Path) -> Path:
    """Only what is loaded of it."""
    target.mkdir()
    for path in lookup.base_files(base):
        shutil.copy(path, target / path.name)
    return target


def signature(max_new_tokens: int, num_frames: int) -> ModelSignature:
    """What MLflow checks; of columns of texts it would make a null the word "None", so they are of any type."""
    text, optional = DataType.string, {"required": False}
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), name, required=name in form.REQUIRED) for name in form.COLUMNS]),
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
                ParamSpec("scorer", text, form.SCORERS[0]),
                ParamSpec("frames", DataType.integer, num_frames),
            ]
        ),
    )
