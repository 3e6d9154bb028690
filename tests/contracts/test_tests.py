"""Tests mirror the source, import no other test, and touch nothing but public names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from builders.projects import ROOT

pytestmark = pytest.mark.experience

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
# Of the project's own rules, and of what tests are built from.
APART = {"contracts", "builders"}
# What has no public way yet, and why it is touched all the same.
PRIVATE = {
    "fetching._explain": "yt-dlp's many refusals cannot be provoked without YouTube",
    "trial._trial_id": "optuna gives a trial's id in its storage no public name",
}


@cache
def parsed(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def private_names(path: Path) -> Iterator[str]:
    """Private names that belong to something else than the test file itself."""
    for node in parsed(path):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) != "self":
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("getattr", "setattr"):
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from (word for word in words if isinstance(word, str) and is_private(word.rpartition(".")[2]))


def imports(path: Path) -> set[str]:
    found = {alias.name for node in parsed(path) if isinstance(node, ast.Import) for alias in node.names}
    return found | {str(node.module) for node in parsed(path) if isinstance(node, ast.ImportFrom)}


def test_no_test_touches_private_names() -> None:
    found = {f"{path.relative_to(TESTS)}: {name}" for path in FILES for name in private_names(path)}
    assert not {line for line in found if line.partition(": ")[2] not in PRIVATE}
    assert {line.partition(": ")[2] for line in found} == set(PRIVATE), "remove what no test touches any more"


def test_no_test_imports_another() -> None:
    for path in FILES:
        for name in imports(path):
            parts = name.split(".")
            assert "conftest" not in parts and not any(part.startswith("test_") for part in parts), path
        for node in parsed(path):
            # Code that a child process runs.
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path != Path(__file__):
                assert "import test_" not in node.value and "from test_" not in node.value, path


def test_folders_of_tests_are_those_of_the_source() -> None:
    for path in FILES:
        folder = path.parent.relative_to(TESTS)
        if path.parent != TESTS and folder.parts[0] not in APART:
            assert (ROOT / "src/cinetune" / folder).is_dir(), path


def test_shared_fixtures_stand_in_conftest_and_nothing_else_does() -> None:
    for path in TESTS.rglob("conftest.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("pytest_"):
                assert any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list), node.name
