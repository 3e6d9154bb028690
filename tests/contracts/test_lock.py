"""conda.yaml, pyproject.toml and the lock file pin the same, and MLflow can make the environment itself."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from builders.projects import ROOT, add_inputs, make_project
from cinetune.model.fast import flash

pytestmark = pytest.mark.experience


def test_conda_and_pyproject_pin_the_same() -> None:
    dependencies = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))["dependencies"]
    pins = next(item["pip"] for item in dependencies if isinstance(item, dict))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(pins) == sorted(project["dependencies"])
    assert all(re.fullmatch(r"[\w-]+(\[[\w,]+\])?==[\w.]+", pin) for pin in pins)
    assert "python=3.11.7" in dependencies


def locked() -> dict[str, set[str]]:
    """Versions by package; of some there are two, for different Pythons."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        name, version = re.fullmatch(r"([a-z0-9-]+)==([\w.!+]+)(?: ; .+)?", line).groups()
        found.setdefault(name, set()).add(version)
    return found


def test_every_pin_of_the_project_stands_in_the_lock_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # The extra `fast` is for a GPU alone.
    extras = [pin for name, pins in project["optional-dependencies"].items() if name != "fast" for pin in pins]
    versions = locked()
    for pin in [*project["dependencies"], *extras]:
        if pin.startswith(f"{project['name']}["):
            continue
        name, _, version = re.sub(r"\[.*?\]", "", pin).partition("==")
        assert versions.get(re.sub(r"[-_.]+", "-", name).lower()) == {version}, f"{pin}: run `make lock`"


def test_the_attention_that_is_installed_is_the_one_that_was_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"{flash.DISTRIBUTION}=={flash.CHECKED}" in project["optional-dependencies"]["fast"]


def test_the_lock_file_suits_machines_with_and_without_a_gpu() -> None:
    versions = locked()
    assert not [name for name in versions if name.startswith(("nvidia", "cuda", "triton"))]
    assert not [version for found in versions.values() for version in found if "+" in version]


@pytest.mark.slow
@pytest.mark.parametrize(("manager", "program"), [("uv", "uv"), ("virtualenv", "pyenv")])
def test_mlflow_makes_the_environment_itself(tmp_path: Path, manager: str, program: str) -> None:
    if not os.environ.get("CINETUNE_ENVIRONMENTS"):
        pytest.skip("it installs 2 GB of packages: set CINETUNE_ENVIRONMENTS=1 to have it run")
    if shutil.which(program) is None:
        pytest.skip(f"--env-manager {manager} needs {program} on PATH")
    project = make_project(tmp_path / "a project für Filme")
    add_inputs(project)
    command = ["mlflow", "run", ".", "--env-manager", manager, "-e", "evaluate", "-P", "model=random"]
    done = project.run(command, timeout_s=1800, MLFLOW_ENV_ROOT=str(tmp_path / "envs"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "evaluation/random: logit" in done.stdout
    assert [run[:2] for run in project.runs()] == [("evaluate", "FINISHED")]
