"""The arrows of the design: what may import what, also inside functions and behind conditions."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.experience

SOURCE = Path(__file__).resolve().parents[1] / "src"
PURE = (
    "params", "questions", "prompts", "answers", "metrics", "errors", "provenance", "ablations", "predictions",
    "journal", "published", "page", "charts", "report", "sections", "drops", "comparison", "studies",
)  # fmt: skip
CORE = (
    "attention", "float8", "frames", "frame_store", "layers", "packing", "model", "training", "scoring", "evaluation",
    "pretraining", "planning", "estimates",
)  # fmt: skip
MAY_USE_MLFLOW = {"tracking", "registry", "serving", "service", "serving_model", "stages.serve"}


def modules() -> dict[str, Path]:
    paths = (SOURCE / "cinetune").rglob("*.py")
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def imports(name: str) -> frozenset[str]:
    """Dotted names that a module imports anywhere; a package's submodules by their own names."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively: write the whole name"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in known else str(node.module) for part in parts}
    return frozenset(found)


def reached(name: str) -> set[str]:
    """All that a module imports, itself or through others of the package."""
    waiting, found = [name], set()
    while waiting:
        for target in imports(waiting.pop()):
            if target not in found:
                found.add(target)
                if target in modules():
                    waiting.append(target)
    return found


def outside(name: str) -> set[str]:
    return {target.partition(".")[0] for target in reached(name)} - {"cinetune"}


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_reaches_neither_torch_nor_mlflow_nor_av(name: str) -> None:
    assert not outside(f"cinetune.{name}") & {"torch", "transformers", "mlflow", "dvc", "av"}


@pytest.mark.parametrize("name", CORE)
def test_the_core_runs_where_only_torch_and_its_libraries_are(name: str) -> None:
    assert not outside(f"cinetune.{name}") & {"mlflow", "dvc", "av"}


def test_only_the_stages_know_the_stages() -> None:
    for name in modules():
        if not name.startswith("cinetune.stages") and name != "cinetune.__main__":
            assert not any(target.startswith("cinetune.stages") for target in imports(name)), name


def test_no_stage_imports_another() -> None:
    for name in modules():
        if name.startswith("cinetune.stages."):
            assert not any(target.startswith("cinetune.stages.") for target in imports(name)), name


@pytest.mark.parametrize("name", ["serving", "service", "serving_model"])
def test_serving_knows_no_tracking_and_no_stages(name: str) -> None:
    assert not {"cinetune.tracking", "cinetune.registry", "cinetune.stages"} & reached(f"cinetune.{name}")


def test_only_tracking_registry_and_serving_use_mlflow() -> None:
    users = {name for name in modules() if any(target.partition(".")[0] == "mlflow" for target in imports(name))}
    assert {name.removeprefix("cinetune.") for name in users} <= MAY_USE_MLFLOW


def test_every_import_is_declared_or_comes_with_what_is() -> None:
    # Pillow, safetensors, PyYAML and the others below come with the pinned packages that need them.
    declared = {
        "dvc",
        "yt_dlp",
        "datasets",
        "mlflow",
        "transformers",
        "torch",
        "peft",
        "av",
        "pandas",
        "pyarrow",
        "numpy",
        "scenedetect",
        "optuna",
    }
    implied = {"yaml", "PIL", "safetensors", "tokenizers", "huggingface_hub", "matplotlib", "requests", "sqlalchemy"}
    implied |= {"ray", "uvicorn", "fastapi", "starlette", "cv2", "dvc_data", "dvc_objects"}
    for name in modules():
        foreign = {target.partition(".")[0] for target in imports(name)} - {"cinetune"} - set(sys.stdlib_module_names)
        assert foreign <= declared | implied, f"{name}: {foreign - declared - implied}"
