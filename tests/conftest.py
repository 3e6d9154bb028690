"""Whole projects made tiny: a few drawn films, a base model with random weights, a repository of their own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinetune.errors import InputError

# As the command line sets it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

ROOT = Path(__file__).resolve().parents[1]
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


def small_params() -> dict[str, dict]:
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        content[section] |= values
    return content


def make_project(root: Path) -> Project:
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
    (root / "params.yaml").write_text(yaml.safe_dump(small_params(), sort_keys=False), encoding="utf-8")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "A project to test"]):
        subprocess.run(["git", *command], cwd=root, env=environment(), check=True)
    return Project(root)


def sentence(action: Callable[[], Any]) -> str:
    """The one sentence with which an action refuses its input."""
    with pytest.raises(InputError) as caught:
        action()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


def add_inputs(project: Project, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """`data/` with a few films and `base-model/` with random weights; `changes` to the small params, by section."""
    import torch

    from cinetune import params as params_module
    from cinetune import pretraining
    from cinetune.mini import dataset

    params = params_module.from_dict(small_params())
    for section, values in (changes or {}).items():
        params = params.override(section, values)
    dataset.make(project.root / "data", params.mini, workers=1)
    torch.manual_seed(0)
    tokenizer = pretraining.make_tokenizer(params.pretrain.vocab_size, params.pretrain.seed)
    model = pretraining.make_model(params.pretrain, params.frames.size, tokenizer)
    pretraining.save(model, tokenizer, str(project.root / "base-model"))
    (project.root / "base-model" / "pretraining.json").write_text('{"open_accuracy": 0.0}\n')


@contextmanager
def recording(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, list[str]]]:
    """A server on loopback that answers every GET so: its port, and the paths that were asked for."""
    hits: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], hits
        server.shutdown()


@pytest.fixture(scope="session")
def bare_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Shared by tests of what is refused: none of them changes it but for its MLflow store."""
    return make_project(tmp_path_factory.mktemp("bare") / "project")


@pytest.fixture(scope="session")
def looped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """A project after its first `mlflow run .`, and what that printed; the tests that share it only add to it."""
    # Of what people call their folders, much has a space in it, or letters that are not English.
    project = make_project(tmp_path_factory.mktemp("looped") / "a project für Filme")
    add_inputs(project)
    return project, project.mlflow_run()


# ---- a registered model, without a repository around it


SERVED_METRICS = {
    "split": "test",
    "dataset": "CinePile-mini",
    "scorers": {
        "logit": {"overall": {"n": 10, "correct": 7, "accuracy": 0.7, "ci95": [0.4, 0.9]}, "unparsed": 0},
        "strict": {"overall": {"n": 0, "correct": 0, "accuracy": None, "ci95": None}, "unparsed": 0},
    },
}


def write_clip(path: Path, seed: int) -> None:
    """Three seconds of three colours."""
    import numpy as np

    from cinetune import video

    colours = np.random.default_rng(seed).integers(0, 256, (3, 1, 1, 1, 3), dtype=np.uint8)
    video.encode(path, np.broadcast_to(colours, (3, 8, 64, 64, 3)).reshape(24, 64, 64, 3), 8)


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with base model, adapter and clips, laid out as in a project's root, and its params."""
    import torch

    from cinetune import params as params_module
    from cinetune import pretraining
    from cinetune.model import attach_lora, save_adapter

    root = tmp_path_factory.mktemp("served")
    params = params_module.load(ROOT / "params.yaml")
    params = params.override("model", {"base": "base-model"}).override("evaluate", {"max_new_tokens": 6})
    tokenizer = pretraining.make_tokenizer(params.pretrain.vocab_size, seed=3)
    torch.manual_seed(0)
    model = pretraining.make_model(params.pretrain, params.frames.size, tokenizer)
    pretraining.save(model, tokenizer, str(root / "base-model"))
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
    return root, params


@dataclass(frozen=True)
class Logged:
    """A logged model: its address, its store's, and a folder with all of it."""

    uri: str
    store: str
    folder: Path


@pytest.fixture(scope="session")
def logged(served_folder: tuple[Path, Any]) -> Logged:
    """A version logged from the project's root as the stage does it."""
    import mlflow

    from cinetune import serving

    root, params = served_folder
    store = f"sqlite:///{root}/mlflow.db"
    before, place = mlflow.get_tracking_uri(), Path.cwd()
    mlflow.set_tracking_uri(store)
    try:
        os.chdir(root)
        experiment = mlflow.create_experiment("serving", artifact_location=f"{root}/mlruns")
        tags = {"data": "CinePile-mini", "licence": "Apache-2.0", "git.commit": "c0ffee", "model": "clips"}
        with mlflow.start_run(experiment_id=experiment):
            info = serving.log_model(Path("adapter"), params, SERVED_METRICS, tags)
        return Logged(info.model_uri, store, Path(mlflow.artifacts.download_artifacts(info.model_uri)))
    finally:
        os.chdir(place)
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def served(served_folder: tuple[Path, Any], logged: Logged) -> Iterator[Any]:
    """The pyfunc in this process, loaded with pickle refused."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.chdir(served_folder[0])
        loaded = mlflow.pyfunc.load_model(str(logged.folder))
    yield loaded
    loaded.unwrap_python_model().service.close()
