"""Whole projects made tiny: a few drawn films, a base model with random weights, a repository of their own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
Changes = Mapping[str, Mapping[str, Any]] | None
COPIED = ("src", "MLproject", "conda.yaml", "dvc.yaml", ".dvcignore", ".gitignore")
SMALL = {
    "frames": {"num_frames": 2, "size": 32, "workers": 1},
    "train": {"epochs": 1, "clips_per_step": 2, "questions_per_pack": 4, "validation_fraction": 0.34},
    "evaluate": {"max_new_tokens": 2, "bootstrap_samples": 20},
    "mini": {"train_films": 3, "test_films": 1, "clips_per_film": 1},
    "pretrain": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "layers": 1,
        "heads": 2,
        "vision_hidden_size": 32,
        "vision_layers": 1,
        "patch_size": 16,
        "vocab_size": 1000,
    },
}


@dataclass(frozen=True)
class Project:
    """A copy of the project that tests may run and break."""

    root: Path

    def run(self, command: Sequence[str], timeout_s: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment() | variables,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def cinetune(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "-m", "cinetune", *arguments])

    def mlflow_run(self, entry_point: str = "main", **parameters: str) -> subprocess.CompletedProcess[str]:
        given = [word for name, value in parameters.items() for word in ("-P", f"{name}={value}")]
        command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "-e", entry_point, *given]
        return self.run(command, timeout_s=600)

    def runs(self) -> list[tuple[str, str, dict[str, str]]]:
        """Stage, status and tags of all MLflow runs, oldest first; read from the file, so MLflow cannot flatter."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as database:
            found = database.execute("SELECT run_uuid, status FROM runs ORDER BY start_time").fetchall()
            tags = [dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", run[:1])) for run in found]
        return [(mine.get("stage", ""), status, mine) for (_, status), mine in zip(found, tags, strict=True)]


def environment() -> dict[str, str]:
    """Of the commands that tests start: this interpreter, one thread, no run of anybody else's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CINETUNE_", "DVC_"))}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": "src",
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def small_params(changes: Changes = None) -> dict[str, dict]:
    """params.yaml as tests can afford it; `changes` to it, by section."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in [*SMALL.items(), *(changes or {}).items()]:
        content[section] |= values
    return content


def make_project(root: Path, changes: Changes = None) -> Project:
    """A project without data and without a base model, as it is before `dvc pull`."""
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, root / name)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
    (root / "params.yaml").write_text(yaml.safe_dump(small_params(changes), sort_keys=False), encoding="utf-8")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "A project to test"]):
        subprocess.run(["git", *command], cwd=root, env=environment(), check=True)
    return Project(root)


def add_inputs(project: Project, changes: Changes = None) -> None:
    """`data/` with a few films and `base-model/` with random weights."""
    import torch

    from builders.tokenizers import tokenizer_of
    from cinetune import params as params_module
    from cinetune.data.mini import dataset
    from cinetune.pretraining import architecture

    params = params_module.from_dict(small_params(changes))
    dataset.make(project.root / "data", params.mini, workers=1)
    torch.manual_seed(0)
    tokenizer = tokenizer_of(params.pretrain.vocab_size, params.pretrain.seed)
    model = architecture.make_model(params.pretrain, params.frames.size, tokenizer)
    architecture.save(model, tokenizer, str(project.root / "base-model"))
    (project.root / "base-model" / "pretraining.json").write_text('{"open_accuracy": 0.0}\n')
