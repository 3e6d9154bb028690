"""DVC sees the loop's values, and the files of the user stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from builders.projects import Project, make_project
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune import pipeline, repro

pytestmark = pytest.mark.experience


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """One whose only stage writes down its parameter."""
    project = make_project(tmp_path / "project")
    (project.root / "params.yaml").write_text("{train: {epochs: 3}, model: {base: base-model}}\n")
    stage = {"cmd": "cp of_stage made", "deps": ["of_stage", "base-model"], "params": ["train"], "outs": ["made"]}
    (project.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"only": stage}}))
    for name in ("of_stage", "base-model"):
        (project.root / name).write_text("3")
    monkeypatch.chdir(project.root)
    return project


def run_with(project: Project, epochs: int, sources: dict[Path, Path]) -> list[str]:
    """The stages that ran."""
    other = project.root / "other.yaml"
    other.write_text(f"{{train: {{epochs: {epochs}}}}}\n")
    with Repo(".", fs=repro.SubstitutingFileSystem({Path("params.yaml"): other, **sources})) as repo:
        return [stage.name for stage in repo.reproduce()]


def test_a_stage_runs_again_for_the_loops_values_and_not_for_params_yaml(project: Project) -> None:
    before = (project.root / "params.yaml").read_text()
    assert run_with(project, 1, {}) == ["only"]
    assert run_with(project, 1, {}) == []
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())
    assert lock["stages"]["only"]["params"]["params.yaml"]["train"] == {"epochs": 1}
    (project.root / "params.yaml").write_text("{}")
    assert run_with(project, 1, {}) == []
    (project.root / "params.yaml").write_text(before)
    with Repo(".") as repo:
        assert [stage.name for stage in repo.reproduce()] == ["only"]


def test_a_base_from_elsewhere_is_no_dependency_in_the_repository(project: Project) -> None:
    other = project.root / "without.yaml"
    other.write_text(repro.adapted((project.root / "dvc.yaml").read_text(), False, []))
    assert run_with(project, 1, {Path("dvc.yaml"): other}) == ["only"]
    (project.root / "base-model").unlink()
    assert run_with(project, 1, {Path("dvc.yaml"): other}) == []


def test_what_own_data_have_beside_is_a_dependency_of_the_stages_that_read_questions() -> None:
    stages = {
        "frames": {"cmd": "x", "deps": ["mine/questions"]},
        "train": {"cmd": "x", "deps": ["mine/questions/train.parquet", "base-model"]},
        "report": {"cmd": "x", "deps": ["outputs/evaluation/base"]},
    }
    more = ["mine/task.yaml", "mine/questions/validation.parquet"]
    adapted = yaml.safe_load(repro.adapted(yaml.safe_dump({"stages": stages}), True, more))["stages"]
    assert adapted["train"]["deps"] == [*stages["train"]["deps"], *more]
    assert adapted["frames"]["deps"] == ["mine/questions", "mine/task.yaml"]
    assert adapted["report"] == stages["report"]


# ---- frames alone


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A stage that makes frames of clips, and one that reads frames and questions; the data are under DVC's control."""
    project = make_project(tmp_path / "project")
    frames = {
        "cmd": "mkdir -p cache/frames && cat data/clips/* > cache/frames/index.parquet",
        "deps": ["data/clips", "data/questions"],
        "outs": [{"cache/frames": {"persist": True}}],
    }
    train = {
        "cmd": "cat cache/frames/* data/questions/* > made && date +%N >> made",
        "deps": ["data/questions/train.parquet", "cache/frames"],
        "params": ["train"],
        "outs": ["made"],
    }
    (project.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"frames": frames, "train": train}}))
    for name in ("clips/a.mp4", "clips/b.mp4", "questions/train.parquet"):
        (project.root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / "data" / name).write_text(name)
    (project.root / ".gitignore").unlink()
    assert project.run(["dvc", "add", "-q", "data"]).returncode == 0
    monkeypatch.chdir(project.root)
    return project


def repeated(project: Project, epochs: int) -> tuple[str, str, dict[str, Any]]:
    """What the train stage made, data.dvc and the frames' part of dvc.lock."""
    content = yaml.safe_load((project.root / "params.yaml").read_text())
    content["train"]["epochs"] = epochs
    (project.root / "given.yaml").write_text(yaml.safe_dump(content))
    assert repro.main("given.yaml") == 0
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())
    return (project.root / "made").read_text(), (project.root / "data.dvc").read_text(), lock["stages"]["frames"]


def test_training_goes_on_from_frames_alone_and_the_clips_stay_recorded(pinned: Project) -> None:
    made, data, lock = repeated(pinned, 1)
    shutil.rmtree(pinned.root / "data/clips")
    again, data_then, lock_then = repeated(pinned, 2)
    assert again != made and again.startswith("clips/a.mp4")
    assert (data_then, lock_then) == (data, lock)
    pipeline.check_data(params_module.load())
    # With the clips there again nothing is decoded anew.
    assert pinned.run(["dvc", "checkout", "-q", "data.dvc"]).returncode == 0
    assert repeated(pinned, 2) == (again, data, lock)


def test_clips_that_are_gone_in_part_are_not_frames_alone(pinned: Project) -> None:
    repeated(pinned, 1)
    (pinned.root / "data/clips/a.mp4").unlink()
    assert "'clips/a.mp4'" in sentence(lambda: pipeline.check_data(params_module.load()))
    (pinned.root / "data/clips/b.mp4").unlink()
    assert "lacks 2 of the 3 files" in sentence(lambda: pipeline.check_data(params_module.load()))
    shutil.rmtree(pinned.root / "data/clips")
    (pinned.root / "data/questions/train.parquet").unlink()
    assert "'questions/train.parquet'" in sentence(lambda: pipeline.check_data(params_module.load()))
