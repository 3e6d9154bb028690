"""Who becomes champion and why, what a version carries, and whether it can be made again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import shell
from builders.evaluations import write_evaluation
from builders.projects import ROOT, Project, environment
from builders.refusals import sentence
from cinetune import pipeline
from cinetune.artifacts import Adapter
from cinetune.cli import parse
from cinetune.errors import InputError
from cinetune.stages import register, reproduce
from cinetune.tracking import promotion, registry

pytestmark = pytest.mark.serving


@pytest.mark.slow
def test_the_loop_refuses_a_licence_that_was_not_acknowledged_before_any_work(
    bare_project: Project, tmp_path: Path
) -> None:
    for name in ("questions/train.parquet", "questions/test.parquet", "clips/a.mp4"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "config.json").write_text("{}")
    content = {"data": {"name": "CinePile-v1", "root": str(tmp_path / "data")}, "model": {"base": str(tmp_path)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    done = bare_project.cinetune("main", "--params", str(tmp_path / "recipe.yaml"))
    assert done.returncode == 2 and "register.accept_licence" in done.stderr, done.stderr


@pytest.fixture
def registering(
    served_folder: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Registers an adapter in a folder of its own, after it has been evaluated with an accuracy."""
    import mlflow

    root, params = served_folder
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("CINETUNE_ROOT", str(root))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)

    def registered(name: str, accuracy: float = 0.6, **chosen: bool) -> str:
        if not Path(name).exists():
            shutil.copytree(root / "adapter", name)
            Path(name, "training.json").write_text(json.dumps({"name": name}))
            write_evaluation(Path(f"{name}-evaluation"), Path(name), accuracy, params)
        given = {"adapter": name, "evaluation": f"{name}-evaluation"} | chosen
        return register.run(params.override("register", given))

    yield registered
    mlflow.set_tracking_uri(before)


MODEL = "cinepile-video-llava"


@pytest.mark.slow
def test_a_version_tells_what_matters_and_holds_the_rest(
    registering: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registering("first") == registering("first") == "1"
    assert registry.aliases(MODEL) == {"challenger": "1", "champion": "1"}
    assert registry.version_tags(MODEL, "1") == {
        "accuracy": "70.0 % (40.0 to 90.0) of 10 questions of CinePile-mini test, by logit",
        "champion_reason": "there was no champion",
        "data": "CinePile-mini",
        "licence": "Apache-2.0",
        "prompt": f"{MODEL}-prompt/1",
    }
    origin = registry.read_origin(MODEL, "1", tmp_path / "origin")
    assert {"prompt.hash", "frames.identity", "frames.settings", "data", "base_model"} <= origin.keys()
    assert registry.version_of(MODEL, origin["adapter_digest"]) == "1"
    assert registry.resolve(f"models:/{MODEL}@champion") == registry.resolve(f"models:/{MODEL}/1") == (MODEL, "1")
    for address in (f"models:/{MODEL}@nobody", f"models:/{MODEL}", "runs:/1/model", f"models:/{MODEL}/9"):
        with pytest.raises(InputError):
            registry.version_tags(*registry.resolve(address))
    card = registry.fetch_artifact(MODEL, "1", "artifacts/README.md", tmp_path / "fetched").read_text()
    assert card.startswith("# Video-LLaVA fine-tuned on movie scenes: accuracy 70.0 %")
    assert "Licence of the adapter: Apache-2.0" in card and "frames of 64 pixels" in card
    assert "outside a git repository" in sentence(lambda: reproduce.run(f"models:/{MODEL}@champion"))

    # How it was registered by hand, or anything else asked for, is no part of what makes it.
    saved = registry.fetch_artifact(MODEL, "1", "artifacts/params.yaml", tmp_path / "fetched")
    content = yaml.safe_load(saved.read_text())
    assert not {"register", "predict", "download", "sweep", "compare"} & content.keys()
    assert not {"resume", "dry_run"} & content["train"].keys()
    assert not {"shard", "out", "dry_run"} & content["frames"].keys()
    assert content["train"]["learning_rate"] == 3e-3
    monkeypatch.chdir(ROOT)
    as_the_loop_reads_it = parse(["--params", str(saved)], "main", "").params
    assert as_the_loop_reads_it.register.adapter == "outputs/adapter"


@pytest.mark.slow
def test_a_champion_outlives_the_run_that_registered_it(registering: Callable[..., str], tmp_path: Path) -> None:
    import mlflow

    registering("first")
    store = mlflow.MlflowClient()
    store.delete_run(store.get_model_version(MODEL, "1").run_id)
    [command] = [words for words in shell.commands(ROOT / "docs/disk.md") if words[:2] == ["mlflow", "gc"]]
    command[command.index("--older-than") + 1] = "0d"
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "permanently deleted" in done.stdout + done.stderr, done.stderr
    registering("worse", accuracy=0.3)
    assert registry.aliases(MODEL) == {"challenger": "2", "champion": "1"}
    assert "is not ruled out" in registry.version_tags(MODEL, "2")["champion_reason"]
    evaluation = pipeline.open_evaluation(f"models:/{MODEL}@champion", tmp_path / "fetched")
    assert len(evaluation.predictions) == 400


@pytest.mark.slow
def test_two_at_once_make_one_version_of_one_adapter(
    registering: Callable[..., str], served_folder: tuple[Path, Any], tmp_path: Path
) -> None:
    registering("first", accuracy=0.6)
    _, params = served_folder
    for name in ("same", "worse"):
        shutil.copytree("first", name)
        Path(name, "training.json").write_text(json.dumps({"name": name}))
        write_evaluation(Path(f"{name}-evaluation"), Path(name), 0.6 if name == "same" else 0.3, params)
    Path("params.yaml").write_text(yaml.safe_dump(params.to_dict()))
    variables = environment() | {
        "PYTHONPATH": str(ROOT / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    variables["CINETUNE_ROOT"] = str(served_folder[0])
    command = [sys.executable, "-m", "cinetune", "register"]
    started = [
        subprocess.Popen(
            [*command, "--adapter", name, "--evaluation", f"{name}-evaluation"],
            env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name in ("same", "same", "worse")
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    digests = [registry.read_origin(MODEL, number, tmp_path / number)["adapter_digest"] for number in ("1", "2", "3")]
    assert registry.numbers(MODEL) == ["1", "2", "3"] and len(set(digests)) == 3
    assert registry.aliases(MODEL)["champion"] == registry.version_of(MODEL, Adapter.open("same").digest)


@pytest.mark.slow
def test_of_versions_that_two_machines_made_of_one_adapter_the_first_stays(
    registering: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registering("first")
    known, asked = registry.version_of, []

    def at_first_unknown(*given: Any) -> str | None:
        asked.append(given)
        return known(*given) if len(asked) > 1 else None

    monkeypatch.setattr(registry, "version_of", at_first_unknown)
    assert registering("first") == "1"
    assert registry.numbers(MODEL) == ["1"]


@pytest.mark.slow
def test_an_adapter_whose_version_lacks_the_base_gets_one_that_brings_it(
    registering: Callable[..., str], tmp_path: Path
) -> None:
    assert registering("first") == registering("first") == "1"
    for _ in range(2):
        assert registering("first", embed_base=True) == "2"
    assert (registry.fetch(f"models:/{MODEL}/2", tmp_path / "fetched") / "artifacts/base/config.json").is_file()
    assert registering("first") == "2" and registry.aliases(MODEL) == {"challenger": "2", "champion": "2"}
    # A rollback holds for the adapter.
    promotion.roll_back(MODEL)
    assert registering("first", embed_base=True) == "2" and registry.aliases(MODEL)["champion"] == "1"


def test_a_version_to_go_back_to_needs_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    chosen = parse(["--version", "3"], "register", "").params
    assert "register.rollback" in sentence(lambda: register.run(chosen))
