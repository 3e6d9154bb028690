"""Whether a version can be reproduced."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from builders.projects import Project, environment
from builders.refusals import sentence
from cinetune import provenance
from cinetune.stages import reproduce
from cinetune.tracking import registry, reproduction

pytestmark = pytest.mark.serving


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_data_is_looked_for_file_by_file_in_cache_and_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc = (sys.executable, "-m", "dvc")
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    for name in "ab":
        (root / "data" / name).write_text(name)
    run(root, "git", "init", "-q")
    run(root, *dvc, "init", "-q")
    run(root, *dvc, "config", "core.analytics", "false")
    run(root, *dvc, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    run(root, *dvc, "add", "-q", "data")
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "Data")
    commit, md5 = run(root, "git", "rev-parse", "HEAD"), provenance.dvc_hash(root / "data")
    monkeypatch.chdir(root)

    tags = {"git.commit": commit, "dvc.data": md5, "adapter_digest": "c0ffee"}
    (root / "fetched.yaml").write_text("{data: {root: data}, model: {base: base-model}, register: {adapter: mine}}")
    monkeypatch.setattr(registry, "resolve", lambda uri: ("m", "1"))
    monkeypatch.setattr(registry, "read_origin", lambda *_: tags)
    monkeypatch.setattr(registry, "fetch_artifact", lambda *_: Path(shutil.copy(root / "fetched.yaml", tmp_path)))

    def found() -> str:
        reproduce.run("models:/m/1")
        return re.search(r"^# data.dvc \S+: whole in (.+)$", capsys.readouterr().out, re.M)[1]

    assert found() == "the cache"
    written = yaml.safe_load((root / reproduction.FOLDER / "1.yaml").read_text())
    assert written == {"data": {"root": "data"}, "model": {"base": "base-model"}, "register": {"name": "m"}}
    run(root, *dvc, "push", "-q")
    objects = sorted(path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file())
    objects[0].unlink()
    assert found() == "the remote"
    (tmp_path / "store" / objects[0].relative_to(root / ".dvc/cache")).unlink()
    assert "whole neither in DVC's cache nor in its remote" in sentence(found)
    tags["dvc.data"] = "0" * 32
    assert f"names {md5}" in sentence(found)
    tags["git.commit"] = "0" * 40
    assert "is in no repository here" in sentence(found)


@pytest.mark.slow
def test_the_champion_of_the_loop_says_how_to_make_it_again(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    done = project.cinetune("reproduce", "models:/cinepile-video-llava@champion")
    assert done.returncode == 0, done.stderr
    commit = run(project.root, "git", "rev-parse", "HEAD")
    assert f"# commit {commit}: found" in done.stdout
    assert f"git worktree add ../cinetune-{commit[:12]} {commit}" in done.stdout
    params = project.root / "outputs/reproduce/1.yaml"
    made_with = yaml.safe_load((project.root / "params.yaml").read_text())["train"]
    for names_a_place_or_a_pace in ("resume", "checkpoint_minutes", "checkpoints", "dry_run"):
        del made_with[names_a_place_or_a_pace]
    assert yaml.safe_load(params.read_text())["train"] == made_with
    assert "CAUTION" not in done.stdout
