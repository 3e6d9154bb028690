"""The source tree keeps its shape, and where a module stands decides what holds for it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
import yaml

from builders.projects import ROOT, environment
from cinetune.frames import store

pytestmark = pytest.mark.experience

SOURCE = ROOT / "src/cinetune"
# Parts of the package that decide no bytes of any stage, whatever they do.
DECIDES_NO_BYTES = {
    "cli": "reads what was typed; the values are in dvc.yaml's params",
    "errors": "what is said",
    "files": "how files are written, not what",
    "params": "the values are in dvc.yaml's params",
    "pipeline": "paths, names and tags of runs",
    "provenance": "commits and hashes, for tags",
    "runtime": "memory, processes, checkpoints: the bytes are the same without them, which tests of theirs hold",
    "tracking": "MLflow",
}
# What a stage reaches besides, and why it does not decide the bytes of this one.
DECIDES_NOT_HERE = {
    "frames": {"artifacts": "adapters and evaluations, of which it makes none"},
    "train": {
        "evaluation": "names of published results",
        "experiments": "ends trainings of a sweep, which are none of the pipeline's",
        "frames": "decided by cache/frames, a dep itself",
    },
    "evaluate": {
        "frames": "decided by cache/frames, a dep itself",
        "report": "a table of ablations, no dep",
    },
    "report": {"task": "decided by the evaluations, deps themselves", "frames": "decided by cache/frames"},
}
MAX_FILES = 12
# It holds one module for each command.
STAGES = "stages"


REACHED = """
import grimp, json, sys
graph = grimp.build_graph("cinetune", cache_dir=None)
reached = {stage: graph.find_upstream_modules(f"cinetune.stages.{stage}") for stage in sys.argv[1:]}
print(json.dumps({stage: sorted({name.split(".")[1] for name in names}) for stage, names in reached.items()}))
"""


def parts_reached(source: Path) -> dict[str, set[str]]:
    """By stage, what stands directly under the package and holds a module that it imports, itself or through others."""
    command = [sys.executable, "-c", REACHED, *DECIDES_NOT_HERE]
    # A process that has imported the package looks at no other copy of it.
    variables = environment() | {"PYTHONPATH": str(source.parent)}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
    return {stage: set(parts) for stage, parts in json.loads(done.stdout).items()}


def as_dep(part: str, source: Path) -> str:
    return f"src/cinetune/{part}" if (source / part).is_dir() else f"src/cinetune/{part}.py"


def misplaced_deps(dvc_yaml: Path, source: Path) -> dict[str, set[str]]:
    """By stage of dvc.yaml, sources that decide its bytes and are not among its deps, or the other way round."""
    found, reached = {}, parts_reached(source)
    for name, stage in yaml.safe_load(dvc_yaml.read_text(encoding="utf-8"))["stages"].items():
        module = name.partition("_")[0]
        deciding = reached[module] - set(DECIDES_NO_BYTES) - set(DECIDES_NOT_HERE[module])
        expected = {f"src/cinetune/stages/{module}.py"} | {as_dep(part, source) for part in deciding}
        if differing := expected ^ {dep for dep in stage["deps"] if dep.startswith("src/")}:
            found[name] = differing
    return found


def crowded(source: Path) -> dict[str, int]:
    """Folders with too many modules."""
    folders = [source, *(path for path in source.rglob("*") if path.is_dir() and path.name != STAGES)]
    counts = {str(folder.relative_to(source)): len(list(folder.glob("*.py"))) for folder in folders}
    return {folder: count for folder, count in counts.items() if count > MAX_FILES}


def test_the_deps_of_a_stage_are_what_decides_its_bytes() -> None:
    assert misplaced_deps(ROOT / "dvc.yaml", SOURCE) == {}


def test_what_is_said_to_decide_nothing_is_still_reached() -> None:
    reached = parts_reached(SOURCE)
    assert set(DECIDES_NO_BYTES) <= set.union(*reached.values())
    for stage, parts in DECIDES_NOT_HERE.items():
        assert set(parts) <= reached[stage], stage


def test_no_folder_is_crowded() -> None:
    assert crowded(SOURCE) == {}


@pytest.mark.parametrize("path", sorted(SOURCE.glob("stages/*.py")), ids=lambda path: path.stem)
def test_a_stage_is_thin(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100


def test_stages_are_light_to_import() -> None:
    heavy = {"torch", "transformers", "peft", "mlflow", "pandas", "numpy", "av", "dvc"}
    for path in SOURCE.glob("stages/*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in body if isinstance(node, ast.ImportFrom)}
        # The server's own process is MLflow's in any case.
        assert path.stem == "serve" or not {name.partition(".")[0] for name in names} & heavy, path


# ---- what is imported is declared


# Imported as one name, installed as another.
DISTRIBUTIONS = {"cv2": "scenedetect-headless"}
# Come with a pinned package that cannot do without them.
COME_WITH = {
    "yaml": "mlflow", "PIL": "transformers", "safetensors": "transformers", "tokenizers": "transformers",
    "huggingface_hub": "transformers", "matplotlib": "mlflow", "requests": "mlflow", "sqlalchemy": "mlflow",
    "uvicorn": "mlflow", "fastapi": "mlflow", "starlette": "mlflow", "dvc_data": "dvc", "dvc_objects": "dvc",
    "jinja2": "mlflow", "scipy": "mlflow", "pydantic": "mlflow", "tqdm": "transformers", "filelock": "transformers",
    "psutil": "accelerate",
    "pydantic_core": "mlflow", "httpx2": "transformers",
}  # fmt: skip


def test_every_import_is_declared_or_comes_with_what_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [*project["dependencies"], *project["optional-dependencies"]["ray"]]
    declared = {normal(re.split(r"[\[=<>]", pin)[0]) for pin in pins}
    installed = packages_distributions()
    graph = grimp.build_graph("cinetune", include_external_packages=True, cache_dir=None)
    foreign = {name for name in graph.modules if not name.startswith("cinetune")} - set(sys.stdlib_module_names)
    for name in foreign:
        names = {normal(found) for found in [*installed.get(name, [name]), DISTRIBUTIONS.get(name, name)]}
        assert names & declared or normal(COME_WITH.get(name, "")) in declared, name


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---- a new module


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "dvc.yaml"):
        shutil.copy(ROOT / name, root / name)
    for folder in [path for path in (root / "src/cinetune").rglob("*") if path.is_dir() and path.name != STAGES]:
        (folder / "newcomer.py").write_text('"""A new module."""\n', encoding="utf-8")
    return root


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check", "mypy --follow-imports skip"])
def test_a_new_module_in_any_package_is_in_order_as_it_stands(tool: str, copy: Path) -> None:
    newcomers = sorted(str(path.relative_to(copy)) for path in copy.rglob("newcomer.py"))
    done = called(copy, sys.executable, "-m", *tool.split(), *newcomers)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_module_in_any_package_needs_no_contract_to_be_touched(copy: Path) -> None:
    done = called(copy, "lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def called(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)


def test_a_new_module_that_a_stage_imports_is_among_its_deps_by_its_place(copy: Path) -> None:
    stage = copy / "src/cinetune/stages/train.py"
    content = stage.read_text(encoding="utf-8")
    stage.write_text(content + "\nfrom cinetune.training import newcomer  # noqa\n", encoding="utf-8")
    try:
        assert misplaced_deps(copy / "dvc.yaml", copy / "src/cinetune") == {}
        stage.write_text(content + "\nfrom cinetune.serving import newcomer  # noqa\n", encoding="utf-8")
        assert misplaced_deps(copy / "dvc.yaml", copy / "src/cinetune") == {"train": {"src/cinetune/serving"}}
    finally:
        stage.write_text(content, encoding="utf-8")


def test_frames_are_decoded_again_for_a_change_in_each_module_that_the_decoding_process_runs() -> None:
    graph = grimp.build_graph("cinetune", cache_dir=None)
    run = graph.find_upstream_modules("cinetune.frames.worker") | {"cinetune.frames.worker"}
    inside = {name.removeprefix("cinetune.frames.") for name in run if name.startswith("cinetune.frames.")}
    assert inside == set(store.DECODING_CODE)
