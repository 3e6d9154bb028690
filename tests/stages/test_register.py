"""Who becomes champion and why, what a version carries, and whether it can be made again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.evaluations import write_evaluation
from builders.projects import Project
from builders.refusals import sentence
from cinetune.errors import InputError
from cinetune.stages import register, reproduce
from cinetune.tracking import registry

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


@pytest.mark.slow
def test_champion_moves_only_when_earned_forced_or_rolled_back(
    served_folder: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    root, params = served_folder
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    monkeypatch.setenv("CINETUNE_ROOT", str(root))
    for name, accuracy in (("first", 0.6), ("worse", 0.3)):
        shutil.copytree(root / "adapter", tmp_path / name)
        (tmp_path / name / "training.json").write_text(json.dumps({"name": name}))
        write_evaluation(tmp_path / f"{name}-evaluation", tmp_path / name, accuracy, params)

    def registered(name: str, **values: bool) -> str:
        chosen = {"adapter": name, "evaluation": f"{name}-evaluation"} | values
        return register.run(params.override("register", chosen))

    try:
        model = params.register.name
        assert registered("first") == "1"
        assert registry.aliases(model) == {"challenger": "1", "champion": "1"}
        tags = registry.version_tags(model, "1")
        assert tags["champion_reason"] == "there was no champion"
        assert tags["licence"] == "Apache-2.0" and tags["base_model"] == "base-model"
        assert {"prompt.hash", "frames.identity", "frames.settings", "base_sha256", "data"} <= tags.keys()

        assert registered("worse") == registered("worse") == "2"
        assert registry.aliases(model) == {"challenger": "2", "champion": "1"}
        assert "is not ruled out" in registry.version_tags(model, "2")["champion_reason"]

        assert registered("worse", force=True) == "2"
        assert registry.aliases(model)["champion"] == "2"
        assert registry.version_tags(model, "2")["champion_reason"].startswith("forced; without that: -")

        assert register.run(params.override("register", {"rollback": True})) == "1"
        assert registry.aliases(model) == {"challenger": "2", "champion": "1"}
        assert registered("worse") == "2" and registry.aliases(model)["champion"] == "1"
        assert "rolled back" in registry.version_tags(model, "2")["champion_reason"]
        assert "follows no other" in sentence(lambda: register.run(params.override("register", {"rollback": True})))

        assert registry.resolve(f"models:/{model}@champion") == (model, "1")
        assert registry.resolve(f"models:/{model}/2") == (model, "2")
        for address in (f"models:/{model}@nobody", f"models:/{model}", "runs:/1/model", f"models:/{model}/9"):
            with pytest.raises(InputError):
                registry.version_tags(*registry.resolve(address))
        card = registry.fetch_artifact(model, "1", "artifacts/README.md", tmp_path / "fetched").read_text()
        assert "Licence of the adapter: Apache-2.0" in card and "frames of 64 pixels" in card
        saved = registry.fetch_artifact(model, "1", "artifacts/params.yaml", tmp_path / "fetched")
        assert yaml.safe_load(saved.read_text())["train"] == dataclasses.asdict(params.train)
        assert "outside a git repository" in sentence(lambda: reproduce.run(f"models:/{model}@champion"))
    finally:
        mlflow.set_tracking_uri(before)
