"""DVC sees the loop's values, and the files of the user stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from builders.projects import Project, make_project
from cinetune import repro

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
    other.write_text(repro.adapted((project.root / "dvc.yaml").read_text(), False, None))
    assert run_with(project, 1, {Path("dvc.yaml"): other}) == ["only"]
    (project.root / "base-model").unlink()
    assert run_with(project, 1, {Path("dvc.yaml"): other}) == []


def test_a_description_is_a_dependency_of_the_stages_that_read_questions() -> None:
    stages = {
        "train": {"cmd": "x", "deps": ["mine/questions/train.parquet", "base-model"]},
        "report": {"cmd": "x", "deps": ["outputs/evaluation/base"]},
    }
    adapted = yaml.safe_load(repro.adapted(yaml.safe_dump({"stages": stages}), True, "mine/task.yaml"))["stages"]
    assert adapted["train"]["deps"] == [*stages["train"]["deps"], "mine/task.yaml"]
    assert adapted["report"] == stages["report"]
