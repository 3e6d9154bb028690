"""MLproject, dvc.yaml, params.yaml and the stages name the same things; so do conda.yaml, pyproject and the README."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

import test_imports
from cinetune import __main__ as command_line
from cinetune import params, stages

pytestmark = pytest.mark.experience

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS = (
    "main", "download", "frames", "pretrain", "train", "evaluate", "compare", "study", "sweep", "report", "register",
    "predict",
)  # fmt: skip
# Modules that a stage imports and that still do not decide its bytes; dvc.yaml gives the reasons.
TELLING = {"errors", "params", "provenance", "registry", "stages", "tracking"}
TELLING |= {"manual", "owners", "checkpoints", "estimates", "memory", "processes", "pruning", "views"}
NAMES_ALONE = {
    "frames": {"answers", "metrics", "prompts"},
    "train": {"answers", "frame_store", "metrics", "published"},
    "evaluate": {"drops", "frame_store", "page"},
    "report": {"answers", "frame_store", "frames", "prompts", "questions"},
}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def dvc_stages() -> dict[str, dict[str, Any]]:
    return read("dvc.yaml")["stages"]


def test_every_entry_point_is_a_stage_and_a_command() -> None:
    project = read("MLproject")
    assert tuple(project["entry_points"]) == ENTRY_POINTS
    for name, entry in project["entry_points"].items():
        assert (ROOT / "src/cinetune/stages" / f"{name}.py").is_file()
        assert name in command_line.COMMANDS
        assert entry["command"].startswith(f"exec env PYTHONPATH=src python -m cinetune {name} --params {{params}}")


def test_every_stage_is_a_command() -> None:
    found = {path.stem for path in (ROOT / "src/cinetune/stages").glob("*.py")} - {"__init__"}
    assert found == set(command_line.COMMANDS)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_has_the_keys_types_and_defaults_of_params_yaml(name: str) -> None:
    entry = read("MLproject")["entry_points"][name]
    expected = {"params": "params.yaml"} | ({} if name == "main" else read("params.yaml")[name])
    assert {key: value["default"] for key, value in entry["parameters"].items()} == expected
    hints = {} if name == "main" else get_type_hints(get_type_hints(params.Params)[name])
    for key, value in entry["parameters"].items():
        # A missing file as a `path` would leave its run RUNNING before our code could end it.
        assert value["type"] == ("string" if hints.get(key, str) in (str, bool) else "float"), key
        assert f"--{key} {{{key}}}" in entry["command"]


def test_params_yaml_is_whole_and_each_section_has_a_reader() -> None:
    assert params.load(ROOT / "params.yaml").to_dict() == read("params.yaml")
    shared = {"data", "model", "prompt"}
    assert set(read("params.yaml")) - shared <= set(command_line.COMMANDS)


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
        "frames": [str(stages.FRAMES)],
        "train": [str(stages.ADAPTER)],
        "evaluate_base": [str(stages.EVALUATION / "base")],
        "evaluate_finetuned": [str(stages.EVALUATION / "finetuned")],
        "report": [str(stages.REPORT)],
    }
    evaluations = [folder for name in ("evaluate_base", "evaluate_finetuned") for folder in made[name]]
    assert read("dvc.yaml")["metrics"] == [f"{folder}/metrics.json" for folder in evaluations]


@pytest.mark.parametrize("name", ["frames", "train", "evaluate_base", "evaluate_finetuned", "report"])
def test_a_changed_module_makes_the_stage_run_again(name: str) -> None:
    stage, module = dvc_stages()[name], name.partition("_")[0]
    reached = {f"cinetune.stages.{module}"} | test_imports.reached(f"cinetune.stages.{module}")
    inside = {target.removeprefix("cinetune.") for target in reached if target.startswith("cinetune.")}
    deciding = inside - TELLING - NAMES_ALONE[module]
    sources = {dep for dep in stage["deps"] if dep.startswith("src/") and dep.endswith(".py")}
    assert sources == {f"src/cinetune/{target.replace('.', '/')}.py" for target in deciding}


def test_conda_and_pyproject_pin_the_same() -> None:
    dependencies = read("conda.yaml")["dependencies"]
    pins = next(item["pip"] for item in dependencies if isinstance(item, dict))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(pins) == sorted(project["dependencies"])
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)
    assert "python=3.11.7" in dependencies


def test_dvc_is_quiet_checks_what_it_pulls_and_finds_the_embedded_store() -> None:
    config = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    for line in ("analytics = false", "autostage = false", "remote = embedded", "url = ../dvc-store", "verify = true"):
        assert line in config
    assert "dvc-store/** -text" in (ROOT / ".gitattributes").read_text(encoding="utf-8")


def test_stages_are_light_to_import() -> None:
    heavy = {"torch", "transformers", "peft", "mlflow", "pandas", "numpy", "av", "dvc"}
    for name, path in test_imports.modules().items():
        if name.startswith("cinetune.stages") and name != "cinetune.stages.serve":
            body = ast.parse(path.read_text(encoding="utf-8")).body
            top = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
            names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
            assert not {target.partition(".")[0] for target in names} & heavy, name


# ---- the README


@pytest.fixture
def readme() -> str:
    path = ROOT / "README.md"
    if not path.is_file():
        pytest.skip("there is no README.md yet")
    return path.read_text(encoding="utf-8")


def test_the_readme_names_entry_points_commands_and_targets_that_exist(readme: str) -> None:
    runs = re.findall(r"mlflow run \.([^\n`]*)", readme)
    for arguments in runs:
        entry = (re.search(r"(?:-e|--entry-point)[ =](\S+)", arguments) or ["", "main"])[1]
        known = read("MLproject")["entry_points"]
        assert entry in known
        for name in re.findall(r"-P (\w+)=", arguments):
            assert name in known[entry]["parameters"], f"-e {entry} -P {name}="
    for command in re.findall(r"python -m cinetune (\w+)", readme):
        assert command in command_line.COMMANDS
    makefile = ROOT / "Makefile"
    targets = set(re.findall(r"^([\w-]+):", makefile.read_text("utf-8"), re.M)) if makefile.is_file() else set()
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, re.S))
    for words in re.findall(r"\bmake ((?:[a-z][\w-]*[ \t]*)+)", code):
        assert set(words.split()) <= targets, f"make {words}"


def test_the_readmes_tree_exists(readme: str) -> None:
    paths = tree_paths(readme)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for path in paths:
        is_tracked = any(name == path or name.startswith(f"{path}/") for name in listed)
        is_ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0
        assert is_tracked or is_ignored or (ROOT / path).exists(), f"the README's tree names {path!r}"


def tree_paths(text: str) -> list[str]:
    """Paths of the fenced blocks that are drawn as trees: names by depth, comments after two spaces or a `#`."""
    paths = []
    for block in re.findall(r"```[^\n]*\n(.*?)```", text, re.S):
        if not re.search(r"[├└]", block):
            continue
        above: list[tuple[int, str]] = []
        for line in block.splitlines():
            drawn = re.match(r"[\s│├└─]*", line)[0]
            names = re.split(r"\s{2,}|\s#", line[len(drawn) :])[0].split()
            while above and above[-1][0] >= len(drawn):
                above.pop()
            parent = f"{above[-1][1]}/" if above else ""
            # The first line of such a drawing may be the project itself.
            found = [f"{parent}{name.strip(',').rstrip('/')}" for name in names] if drawn or "." in line else []
            paths += found
            if found:
                above.append((len(drawn), found[0]))
    return paths


def test_a_drawn_tree_is_read_with_its_folders() -> None:
    text = "```\n├── src/cinetune/   the package\n│   ├── stages/      thin\n│   └── params.py\n└── tests/\n```"
    assert tree_paths(text) == ["src/cinetune", "src/cinetune/stages", "src/cinetune/params.py", "tests"]
