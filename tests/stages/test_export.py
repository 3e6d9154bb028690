"""`export` as a command: of an adapter's folder, with its run, and refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.exports import write_adapter
from builders.projects import Project, add_inputs, make_project
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.params import Params
from cinetune.stages import export

pytestmark = pytest.mark.serving


@pytest.mark.slow
def test_an_adapter_is_exported_with_a_run_that_says_how_well(tmp_path: Path) -> None:
    project: Project = make_project(tmp_path / "project")
    add_inputs(project)
    done = project.cinetune("frames", "--pipeline")
    assert done.returncode == 0, done.stderr[-2000:]
    given = params_module.load(project.root / "params.yaml")
    write_adapter(given.override("model", {"base": str(project.root / "base-model")}), project.root / "adapter")
    done = project.mlflow_run("export", model="adapter", to="llava", questions="6")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "6 of 6 letters the same" in done.stdout
    proven = json.loads((project.root / "outputs/export/llava/proof.json").read_text(encoding="utf-8"))
    assert proven["questions"] == 6
    [(stage, status, tags)] = [run for run in project.runs() if run[0] == "export"]
    assert (stage, status, tags["version"]) == ("export", "FINISHED", "adapter")
    assert tags["adapter_digest"] == proven["made_from"]["adapter_digest"]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    params = params_module.load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CINETUNE_UNTRACKED", "1")
    return params


def test_what_cannot_be_exported_is_told_in_one_sentence(given: Params) -> None:
    assert "one of llava, merged, adapter" in sentence(lambda: given.override("export", {"to": "gguf"}))
    assert "no adapter" in sentence(lambda: export.run(given.override("export", {"model": "nowhere"})))
    assert "<owner>/<name>" in sentence(lambda: export.run(given.override("export", {"push": "mine"})))
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("x", encoding="utf-8")
    assert "is no export" in sentence(lambda: export.run(given.override("export", {"out": "mine"})))
    assert [path.name for path in Path().iterdir()] == ["mine"]
