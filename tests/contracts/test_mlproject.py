"""MLproject, dvc.yaml, params.yaml and the stages name the same things."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml

from builders.projects import ROOT
from cinetune import cli, params, pipeline

pytestmark = pytest.mark.experience

ENTRY_POINTS = (
    "main", "download", "import", "frames", "train", "evaluate", "compare", "study", "sweep", "report", "register",
    "export",
    "predict", "pretrain",
)  # fmt: skip


@cache
def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def dvc_stages() -> dict[str, dict[str, Any]]:
    return read("dvc.yaml")["stages"]


def test_every_entry_point_is_a_stage_and_a_command() -> None:
    project = read("MLproject")
    assert tuple(project["entry_points"]) == ENTRY_POINTS
    for name, entry in project["entry_points"].items():
        assert (ROOT / "src/cinetune/stages" / f"{name}.py").is_file()
        assert name in cli.commands()
        assert entry["command"].startswith(f"exec env PYTHONPATH=src python -m cinetune {name} --params {{params}}")


def test_every_stage_is_a_command() -> None:
    found = {path.stem for path in (ROOT / "src/cinetune/stages").glob("*.py")} - {"__init__"}
    assert found == set(cli.commands())


def test_mlproject_is_what_the_schema_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert (ROOT / "MLproject").read_text(encoding="utf-8") == cli.mlproject(), "run `make mlproject`"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_has_the_keys_of_params_yaml_and_no_defaults_of_its_own(name: str) -> None:
    entry = read("MLproject")["entry_points"][name]
    section = {} if name == "main" else read("params.yaml")[name]
    assert list(entry["parameters"]) == ["params", *section]
    for key, value in entry["parameters"].items():
        # A missing file as a `path` would leave its run RUNNING before our code could end it.
        is_number = isinstance(section.get(key), int | float) and not isinstance(section[key], bool)
        assert value == {"type": "float" if is_number else "string", "default": ""}, key
        assert f"--{key} {{{key}}}" in entry["command"]


def test_params_yaml_is_whole_and_each_section_has_a_reader() -> None:
    assert params.load(ROOT / "params.yaml").to_dict() == read("params.yaml")
    shared = {"data", "model", "prompt", "trace"}
    assert set(read("params.yaml")) - shared <= set(cli.commands())


def test_each_dvc_stage_runs_its_module_in_the_pipeline_way() -> None:
    assert list(dvc_stages()) == ["frames", "train", "evaluate_base", "evaluate_finetuned", "report"]
    for name, stage in dvc_stages().items():
        module, _, model = name.partition("_")
        command = f"exec env PYTHONPATH=src python -m cinetune {module} --pipeline"
        assert stage["cmd"] == command + (f" --model {model}" if model else "")
        assert f"src/cinetune/stages/{module}.py" in stage["deps"]
        assert set(stage["params"]) <= set(read("params.yaml"))
        assert module in stage["params"]


def test_dvc_stages_make_what_the_stages_write() -> None:
    made = {
        name: [next(iter(out)) if isinstance(out, dict) else out for out in s["outs"]]
        for name, s in dvc_stages().items()
    }
    assert made == {
        "frames": [str(pipeline.FRAMES)],
        "train": [str(pipeline.ADAPTER)],
        "evaluate_base": [str(pipeline.EVALUATION / "base")],
        "evaluate_finetuned": [str(pipeline.EVALUATION / "finetuned")],
        "report": [str(pipeline.REPORT)],
    }
    evaluations = [folder for name in ("evaluate_base", "evaluate_finetuned") for folder in made[name]]
    assert read("dvc.yaml")["metrics"] == [f"{folder}/metrics.json" for folder in evaluations]


def test_dvc_is_quiet_checks_what_it_pulls_and_finds_the_embedded_store() -> None:
    config = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    for line in ("analytics = false", "autostage = false", "remote = embedded", "url = ../dvc-store", "verify = true"):
        assert line in config
    assert "dvc-store/** -text" in (ROOT / ".gitattributes").read_text(encoding="utf-8")
