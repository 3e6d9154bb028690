"""The notebooks are stored without outputs and run from their first cell to their last."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient

from builders.projects import ROOT, Project, environment, make_project

pytestmark = pytest.mark.experience

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FEW_STEPS = {
    "train": {"max_steps": 4, "validations_per_epoch": 2, "validation_fraction": 0.34},
    "evaluate": {"bootstrap_samples": 20},
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_was_written(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1


def test_there_is_one_to_fine_tune_and_one_to_ask() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["finetune", "inference"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The embedded base model and four of the embedded films, with the shipped params."""
    for name in ("data", "base-model"):
        if not (ROOT / name).is_dir():
            pytest.fail(f"there is no {name}/: run `dvc pull data.dvc base-model.dvc`")
    project = make_project(tmp_path_factory.mktemp("notebooks") / "a project")
    for name in ("params.yaml", "notebooks", "base-model"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, project.root / name)
    add_films(project.root / "data", {"train": 3, "test": 1})
    (project.root / "few-steps.yaml").write_text(yaml.safe_dump(FEW_STEPS), encoding="utf-8")
    return project


def add_films(target: Path, films: dict[str, int]) -> None:
    """The first films of each embedded split, with their clips."""
    (target / "questions").mkdir(parents=True)
    (target / "clips").mkdir()
    for split, count in films.items():
        rows = pd.read_parquet(ROOT / "data/questions" / f"{split}.parquet")
        chosen = rows[rows["movie_name"].isin(rows["movie_name"].unique()[:count])]
        chosen.to_parquet(target / "questions" / f"{split}.parquet", index=False)
        for clip_id in set(chosen["clip_id"]):
            shutil.copy(ROOT / "data/clips" / f"{clip_id}.mp4", target / "clips")
    shutil.copy(ROOT / "data/clips.parquet", target)


def run(project: Project, name: str, parameters: str) -> list[Any]:
    """Execute a notebook of the project with other parameters; what its code cells put out."""
    notebook = nbformat.read(project.root / "notebooks" / f"{name}.ipynb", as_version=4)
    tagged = [number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(parameters))
    place = {"metadata": {"path": str(project.root / "notebooks")}}
    variables = {"PYTHONPATH": str(project.root / "src"), "IPYTHONDIR": str(project.root / ".ipython")}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place)
    client.execute(env=environment() | variables)
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(outputs: list[Any], kind: str) -> list[str]:
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.nightly
def test_the_notebooks_run_on_the_embedded_defaults(project: Project) -> None:
    outputs = run(project, "finetune", 'PARAMS = "few-steps.yaml"')
    # The frames, the training curve and the chart; the questions and the result.
    assert len(shown(outputs, "image/png")) == 3
    tables = shown(outputs, "text/html")
    assert "right option" in tables[0] and "fine-tuned" in tables[-1]
    stages = [(stage, status) for stage, status, _ in project.runs()]
    assert stages.count(("train", "FINISHED")) == 1 and stages[-1] == ("register", "FINISHED")

    outputs = run(project, "inference", 'PARAMS = "few-steps.yaml"')
    tables = shown(outputs, "text/html")
    assert "What is the weather like?" in tables[0] and "percent correct" in tables[1] and "sureness" in tables[2]
    assert len(shown(outputs, "image/png")) == 2
    assert project.runs()[-1][:2] == ("evaluate", "FINISHED")
