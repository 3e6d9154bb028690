"""A version's own code: the same is not started again, another is kept whole and started alone."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from builders.refusals import sentence
from cinetune import provenance
from cinetune.serving.server import version_code

pytestmark = pytest.mark.serving


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of other code, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "version" / "cinetune"
    shutil.copytree(provenance.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "loop.py").open("a") as file:
        file.write("# changed\n")
    return package


def test_the_same_code_need_not_be_started(tmp_path: Path) -> None:
    package = tmp_path / "cinetune"
    shutil.copytree(provenance.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert version_code.unless_loaded(package) is None
    assert "brings no code of this project" in sentence(lambda: version_code.unless_loaded(tmp_path / "none"))


def test_other_code_is_kept_by_its_digest_and_mended_where_it_was_changed(other: Path) -> None:
    digest = provenance.source_digest(package=other)
    kept = version_code.unless_loaded(other)
    assert kept is not None and kept == Path("cache/code").absolute() / digest
    (kept / "cinetune/loop.py").write_text("# planted\n")
    assert version_code.unless_loaded(other) == kept
    assert provenance.source_digest(package=kept / "cinetune") == digest
    assert [path.name for path in kept.parent.iterdir()] == [digest]


def test_servers_that_start_at_once_share_one_copy(other: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        kept = set(pool.map(lambda _: version_code.unless_loaded(other), range(4)))
    assert kept == set(Path("cache/code").absolute().iterdir()) and len(kept) == 1


def test_it_is_started_before_all_other_code_and_once(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    kept = version_code.unless_loaded(other)
    assert kept is not None
    version_code.start(kept, ["serve", "models:/a/1", "--timeout_s", "3"])
    [(program, words, environment)] = started
    assert program == sys.executable
    assert words[1:] == ["-P", "-m", "cinetune", "serve", "models:/a/1", "--timeout_s", "3"]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(kept)
    monkeypatch.setenv(version_code.STARTED_WITH, environment[version_code.STARTED_WITH])
    assert "cannot be started" in sentence(lambda: version_code.unless_loaded(other))


def test_code_that_knows_no_key_is_not_started_where_there_is_one(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    (other / "serving/server/keys.py").unlink()
    kept = version_code.unless_loaded(other)
    assert kept is not None
    monkeypatch.setenv("CINETUNE_API_KEY", "right")
    assert "would serve without it" in sentence(lambda: version_code.start(kept, ["serve"]))
    assert started == []
    monkeypatch.delenv("CINETUNE_API_KEY")
    version_code.start(kept, ["serve"])
    assert len(started) == 1
