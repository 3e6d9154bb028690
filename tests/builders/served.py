"""A registered model, without a repository around it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from builders.clips import write_clip
from builders.projects import ROOT
from builders.tokenizers import tokenizer_of
from cinetune.artifacts import Adapter
from cinetune.params import Params

SERVED_METRICS = {
    "split": "test",
    "dataset": "CinePile-mini",
    "scorers": {
        "logit": {"overall": {"n": 10, "correct": 7, "accuracy": 0.7, "ci95": [0.4, 0.9]}, "unparsed": 0},
        "strict": {"overall": {"n": 0, "correct": 0, "accuracy": None, "ci95": None}, "unparsed": 0},
    },
}


def make_served_folder(root: Path) -> Params:
    """Base model, adapter and clips in a folder, laid out as in a project's root; its params."""
    import torch

    from cinetune import params as params_module
    from cinetune.model.lora import attach_lora, save_adapter
    from cinetune.pretraining import architecture

    params = params_module.load(ROOT / "params.yaml")
    params = params.override("model", {"base": "base-model"}).override("evaluate", {"max_new_tokens": 6})
    tokenizer = tokenizer_of(params.pretrain.vocab_size)
    torch.manual_seed(0)
    model = architecture.make_model(params.pretrain, params.frames.size, tokenizer)
    architecture.save(model, tokenizer, str(root / "base-model"))
    adapted = attach_lora(model.float().requires_grad_(False), params.train)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    save_adapter(adapted, root / "adapter")
    clips = root / "data" / "clips"
    clips.mkdir(parents=True)
    for number in range(2):
        write_clip(clips / f"clip{number}.mp4", number)
    write_clip(root / "secret.mp4", 9)
    return params


@dataclass(frozen=True)
class Logged:
    """A logged model: its address, its store's, and a folder with all of it."""

    uri: str
    store: str
    folder: Path


def log(root: Path, params: Params) -> Logged:
    """A version logged from the project's root as the stage does it."""
    import mlflow

    from cinetune.serving.packaging import log_model

    store = f"sqlite:///{root}/mlflow.db"
    before, place = mlflow.get_tracking_uri(), Path.cwd()
    mlflow.set_tracking_uri(store)
    try:
        os.chdir(root)
        experiment = mlflow.create_experiment("serving", artifact_location=f"{root}/mlruns")
        tags = {"data": "CinePile-mini", "licence": "Apache-2.0", "git.commit": "c0ffee", "model": "clips"}
        with mlflow.start_run(experiment_id=experiment):
            info = log_model(Adapter.open("adapter"), params, SERVED_METRICS, tags)
        return Logged(info.model_uri, store, Path(mlflow.artifacts.download_artifacts(info.model_uri)))
    finally:
        os.chdir(place)
        mlflow.set_tracking_uri(before)
