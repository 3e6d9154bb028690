"""The README names entry points, commands, targets and files that exist."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from builders.projects import ROOT
from cinetune import cli

pytestmark = pytest.mark.experience


@pytest.fixture
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_entry_points_commands_and_targets_that_exist(readme: str) -> None:
    runs = re.findall(r"mlflow run \.([^\n`]*)", readme)
    for arguments in runs:
        entry = (re.search(r"(?:-e|--entry-point)[ =](\S+)", arguments) or ["", "main"])[1]
        known = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
        assert entry in known
        for name in re.findall(r"-P (\w+)=", arguments):
            assert name in known[entry]["parameters"], f"-e {entry} -P {name}="
    for command in re.findall(r"python -m cinetune (\w+)", readme):
        assert command in cli.commands()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
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
